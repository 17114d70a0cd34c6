"""What can be chosen about a study of copy suppression. No heavy import: a mistake is reported at once."""

from dataclasses import asdict, dataclass

from mechint.effects.kinds import require_kind
from mechint.errors import ConfigError
from mechint.probes.copy_suppression.settings import ScanSettings


@dataclass(frozen=True)
class StudySettings:
    """What can be chosen about a study."""

    heads: tuple[str, ...] = ()
    """Heads to examine to the end, such as `L10H7`; none given: the `top` ones of the scan by CS score."""
    top: int = 3
    """How many heads are examined to the end, if none are named."""
    two_name_prompts: int = 64
    """Two-name sentences for the scan of all heads and for the choice of heads."""
    length: int = 128
    """Tokens of each document, BOS included; shorter texts are left out."""
    scanned_positions: int = 8
    """Positions of each document at which every head of the model is measured, drawn at random."""
    positions: int = 32
    """Positions of each document at which the chosen heads are measured, drawn at random."""
    qk_rows: int = 256
    """Tokens sampled for the static QK ranks, against the whole vocabulary."""
    ov_rows: int = 256
    """Tokens sampled for the static OV ranks, against the whole vocabulary."""
    induction_rows: int = 100
    """Rows of repeated random tokens for the anti-induction score."""
    ablation: str = "mean"
    """What an ablated head is set to in the scan: `zero`, `mean` or `resample`."""
    shown_documents: int = 4
    """Documents that the token explorer shows."""
    repair_draws: int = 2
    """Other documents that each is resampled from when self-repair on text is measured."""

    def __post_init__(self) -> None:
        """Refuse what makes no sense.

        Raises:
            ConfigError: an unknown ablation, or a number that is too small.
        """
        require_kind(self.ablation)
        for name, value in asdict(self).items():
            least = {"length": 8, "two_name_prompts": 2, "repair_draws": 2}.get(name, 1)
            if isinstance(value, int) and value < least:
                raise ConfigError(f"{name} = {value}. Expected at least {least}.")

    @property
    def scan(self) -> ScanSettings:
        """The settings of the scan that the study begins with."""
        return ScanSettings(
            ablation=self.ablation, ov_rows=self.ov_rows, induction_rows=self.induction_rows, top=self.top
        )
