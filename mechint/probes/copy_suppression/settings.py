"""What can be chosen about a copy-suppression scan. No heavy import: a mistake is reported at once."""

from dataclasses import asdict, dataclass

from mechint.effects.kinds import require_kind
from mechint.errors import ConfigError


@dataclass(frozen=True)
class ScanSettings:
    """What can be chosen about a scan."""

    ablation: str = "mean"
    """What an ablated head is set to: `zero`, `mean` (at its position, over these prompts) or `resample`."""
    ov_rows: int = 256
    """Tokens sampled for the static OV ranks, against the whole vocabulary."""
    induction_rows: int = 100
    """Rows of repeated random tokens for the anti-induction score."""
    induction_length: int = 30
    """Tokens in each half of such a row."""
    top: int = 3
    """Heads whose repair is taken apart."""
    examples: int = 3
    """Prompts whose attention is shown."""

    def __post_init__(self) -> None:
        """Refuse what makes no sense.

        Raises:
            ConfigError: an unknown ablation, or a number that is too small.
        """
        require_kind(self.ablation)
        for name, value in asdict(self).items():
            if isinstance(value, int) and value < 1:
                raise ConfigError(f"{name} = {value}. Expected at least 1.")
