"""What can be chosen about the check of the method on organisms. No heavy import: a mistake is reported at once."""

from dataclasses import dataclass

from mechint.errors import ConfigError


@dataclass(frozen=True)
class OrganismSettings:
    """What can be chosen about the check of the method on organisms."""

    others: tuple[str, ...] = ("organism:silent-critic-1", "organism:silent-critic-2")
    """Further models that are measured in the same way; each bar holds for all or does not hold."""
    untrained: str = "organism:untrained-critic"
    """A model that knows nothing, through the same pipeline; empty for none."""
    extract: int = 512
    """Pairs of facts that vectors and probes are fitted on."""
    select: int = 128
    """Pairs of other facts that the layer is chosen on."""
    random: int = 50
    """Draws of isotropic directions."""
    random_covariance: int = 20
    """Draws of directions from the covariance of the activations."""
    shuffled_labels: int = 50
    """Draws of the same estimator on labels exchanged within pairs."""
    answers: int = 128
    """Pairs whose solutions are written to the end at temperature 1."""

    def __post_init__(self) -> None:
        """Refuse what makes no sense.

        Raises:
            ConfigError: a number that is too small.
        """
        for name, least in (("extract", 64), ("select", 16), ("random", 1), ("shuffled_labels", 1), ("answers", 1)):
            if getattr(self, name) < least:
                raise ConfigError(f"{name} = {getattr(self, name)}. Expected at least {least}.")
        if self.random_covariance < 0:
            raise ConfigError(f"random_covariance = {self.random_covariance}. Expected 0 or more.")

    @property
    def draws(self) -> dict[str, int]:
        """How many vectors of each control arm."""
        nulls = ("random", "random_covariance", "shuffled_labels")
        return {**{name: getattr(self, name) for name in nulls}, "orthogonal": 1, "other_concept": 1}
