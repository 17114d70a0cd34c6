"""What can be chosen about a battery of introspection. No heavy import: a mistake is reported at once."""

from dataclasses import dataclass
from typing import Literal

from mechint.errors import ConfigError


@dataclass(frozen=True)
class IntrospectionSettings:
    """What can be chosen about a battery on one model."""

    layers: tuple[int, ...] = (2, 5, 9, 12)
    """Blocks behind which is injected, to choose from."""
    doses: tuple[float, ...] = (0.25, 0.5, 1.0, 2.0)
    """‖what is added‖ / ‖h‖, to choose from."""
    baseline: Literal["concepts", "fillers"] = "concepts"
    """What is taken from a concept's mean: the mean over concepts, or over words that are none."""

    def __post_init__(self) -> None:
        """Refuse what makes no sense.

        Raises:
            ConfigError: no layer, no dose, or a dose that is not positive.
        """
        if not self.layers or not self.doses or min(self.doses) <= 0 or min(self.layers) < 0:
            raise ConfigError(
                f"layers = {list(self.layers)}, doses = {list(self.doses)}. Expected at least one of each, blocks from "
                "0 and doses above 0; a run without injection is in every battery."
            )


@dataclass(frozen=True)
class IntrospectionOrganismSettings:
    """What can be chosen about the check on organisms."""

    models: tuple[str, ...] = ()
    """More of them than the experiment's own."""
    layer: int = 1
    """Block behind which is injected."""
    dose: float = 1.0
    """‖what is added‖ / ‖h‖."""
    weak_dose: float = 0.01
    """At which nothing is there to be read, for the gate of headroom."""
    random_networks: int = 100
    """Networks of random numbers, whose verdicts tell how often the gates err."""
    random_carriers: int = 8
    """Texts that these are asked about."""

    def __post_init__(self) -> None:
        """Refuse what makes no sense.

        Raises:
            ConfigError: a dose that is not positive, or a number that is too small.
        """
        if min(self.dose, self.weak_dose) <= 0 or self.random_networks < 0 or self.random_carriers < 2:
            raise ConfigError(
                f"dose = {self.dose}, weak_dose = {self.weak_dose}, random_networks = {self.random_networks}, "
                f"random_carriers = {self.random_carriers}. Expected positive doses, and at least 2 carriers."
            )
