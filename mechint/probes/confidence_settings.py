"""What can be chosen about a calibration analysis. No heavy import: a mistake is reported at once."""

from dataclasses import asdict, dataclass

from mechint.errors import ConfigError


@dataclass(frozen=True)
class CalibrationSettings:
    """What can be chosen about a calibration analysis."""

    length: int = 128
    """Tokens of each document, BOS included; shorter texts are left out."""
    positions: int = 32
    """Positions of each document at which predictions are looked at, drawn at random; all if there are no more."""
    n_bins: int = 100
    """Bins of the over-confidence (three likeliest tokens)."""
    n_bins_first: int = 15
    """Bins of the expected calibration error and of the reliability diagram (likeliest token)."""
    top: int = 3
    """Heads whose reliability is shown beside the model's own."""

    def __post_init__(self) -> None:
        """Refuse what makes no sense.

        Raises:
            ConfigError: a number that is too small.
        """
        for name, value in asdict(self).items():
            least = 4 if name == "length" else 2 if name.startswith("n_bins") else 1
            if value < least:
                raise ConfigError(f"{name} = {value}. Expected at least {least}.")
