"""What a dose of a steering vector is measured in, and the dose at which a target was met."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from mechint.errors import InterventionError

DoseUnit = Literal["norm", "calibrated", "raw"]
"""Median |h| at the site; the calibrated dose; the vector as it was estimated."""


@dataclass(frozen=True)
class Calibration:
    """The dose at which a vector meets a target.

    Raises:
        InterventionError: a number is not finite, or the dose lies outside its own interval.
    """

    target: Literal["kl", "perplexity", "effect"]
    """What was to be reached: KL in nats (which statistic: see `details`), ratio of perplexities, or the effect."""
    value: float
    """How much of it."""
    dose: float
    """In units of the median |h| at each site."""
    low: float
    high: float
    details: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """Texts, positions, tolerance and the like: JSON types only."""

    def __post_init__(self) -> None:
        numbers = (self.value, self.low, self.dose, self.high)
        if not all(map(math.isfinite, numbers)) or not self.low <= self.dose <= self.high:
            raise InterventionError(
                f"Calibration: expected finite numbers with low <= dose <= high, got {self.target} {self.value:g} at "
                f"dose {self.dose:g} [{self.low:g}, {self.high:g}]."
            )

    def __str__(self) -> str:
        return f"{self.target} {self.value:g} at dose {self.dose:.3g} [{self.low:.3g}, {self.high:.3g}]"
