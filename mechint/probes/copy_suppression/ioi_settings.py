"""What can be chosen about self-repair on two-name prompts. No heavy import: a mistake is reported at once."""

from dataclasses import dataclass

from mechint.errors import ConfigError
from mechint.sites import parse_head


@dataclass(frozen=True)
class IOIRepairSettings:
    """What can be chosen about self-repair on two-name prompts."""

    movers: tuple[str, ...] = ()
    """Name movers, such as `L9H9`, which are ablated together; none given: the heads with the largest direct effect."""
    negative: tuple[str, ...] = ()
    """Negative heads, whose share of the repair is asked for; none given: later heads with negative direct effect."""
    top: int = 3
    """How many name movers are chosen, at most, if none are given."""

    def __post_init__(self) -> None:
        """Refuse what makes no sense.

        Raises:
            ConfigError: a head that is named twice, or no mover at all.
            SiteError: a text that is no head.
        """
        heads = [parse_head(text) for text in (*self.movers, *self.negative)]
        if len(set(heads)) < len(heads):
            raise ConfigError(
                f"movers = {list(self.movers)}, negative = {list(self.negative)}: a head is named twice. "
                "Expected each once, as a mover or as a negative head."
            )
        if self.top < 1:
            raise ConfigError(f"top = {self.top}. Expected at least 1.")
