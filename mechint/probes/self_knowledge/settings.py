"""What can be chosen about a confidence experiment. No heavy import: a mistake is reported at once."""

from dataclasses import dataclass

from mechint.errors import ConfigError

_LEAST = {"shots": 2, "folds": 2, "inner_folds": 2, "samples": 1, "bins": 2, "chain_tokens": 0, "unit_rows": 1}
_LEAST_RESAMPLES, _FEWEST_LABELS = 200, 3


@dataclass(frozen=True)
class ConfidenceSettings:
    """What can be chosen about a confidence experiment."""

    shots: int = 6
    """Answered questions of the same kind before each; an even number, so that half of the shown answers are right."""
    calibrate: float = 0.2
    """Share of the other facts on which the layer-wise reading is calibrated; nothing is reported on them."""
    truth_cue: str = "\nThis answer is"
    """After which the model says whether an answer is right."""
    truth_labels: tuple[str, str] = (" right", " wrong")
    """What it says of a right one, and of a wrong one; a token each."""
    confidence_cue: str = "\nConfidence:"
    """After which it says how sure it is."""
    confidence_labels: tuple[str, ...] = (" lowest", " low", " medium", " high", " highest")
    """From 0 to 1 in equal steps; a token each."""
    samples: int = 20
    """Answers drawn at temperature 1, whose agreement with the model's answer is one more confidence."""
    layers: tuple[int, ...] = ()
    """Blocks among which the hidden-state probe chooses; all by default."""
    folds: int = 5
    """Of facts, for probe and baselines."""
    inner_folds: int = 3
    """Of the training part of each, in which the probe's layer is chosen."""
    bins: int = 10
    """Of calibration errors and faithfulness."""
    other_model: str = ""
    """A model whose confidence in this one's answers is a baseline; none by default. It is given the same text."""
    chain_tokens: int = 0
    """The most tokens that the model thinks before it answers; 0 for none."""
    chain_cue: str = "Let me think:"
    """With which thinking begins."""
    resamples: int = 2000
    """Draws of every interval."""
    unit_rows: int = 100
    """Questions of one unit, which is kept as a whole."""

    def __post_init__(self) -> None:
        """Refuse what makes no sense.

        Raises:
            ConfigError: a number that is too small, an odd number of shots, or labels that say the same.
        """
        for name, least in _LEAST.items():
            if getattr(self, name) < least:
                raise ConfigError(f"{name} = {getattr(self, name)}. Expected at least {least}.")
        if self.shots % 2:
            raise ConfigError(f"shots = {self.shots}. Expected an even number: half of the answers shown are right.")
        if not 0 < self.calibrate < 1:
            raise ConfigError(f"calibrate = {self.calibrate}. Expected a share between 0 and 1.")
        if self.resamples < _LEAST_RESAMPLES:
            raise ConfigError(f"resamples = {self.resamples}. Expected at least {_LEAST_RESAMPLES}.")
        for name in ("truth_labels", "confidence_labels"):
            labels = getattr(self, name)
            if len(set(labels)) < len(labels) or (name != "truth_labels" and len(labels) < _FEWEST_LABELS):
                raise ConfigError(f"{name} = {list(labels)}. Expected different words, {_FEWEST_LABELS} or more bins.")
