"""A number with the draws of a bootstrap behind it: percentile intervals, standard error, one-sided p."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float


def percentiles(draws: Float[np.ndarray, " resample"], level: float = 0.95) -> tuple[float, float]:
    """Return the ends of the percentile interval of the defined draws; NaN where there are none."""
    defined = draws[~np.isnan(draws)]
    if len(defined) == 0:
        return float("nan"), float("nan")
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


@dataclass(frozen=True, eq=False)
class Drawn:
    """A number with its bootstrap draws; those that are not defined (NaN) are left out of intervals and errors.

    Examples:
        >>> one = Drawn(0.5, np.linspace(0, 1, 101))
        >>> low, high = one.ends(0.9)
        >>> print(f"[{low:.2f}, {high:.2f}], p {one.p_above(0.95):.3f}")
        [0.05, 0.95], p 0.941
    """

    value: float
    draws: Float[np.ndarray, " resample"]

    def ends(self, level: float = 0.95) -> tuple[float, float]:
        """Return the percentile interval."""
        return percentiles(self.draws, level)

    @property
    def low(self) -> float:
        """Lower end of the 95 % interval."""
        return self.ends()[0]

    @property
    def high(self) -> float:
        """Upper end of the 95 % interval."""
        return self.ends()[1]

    @property
    def error(self) -> float:
        """The standard error."""
        defined = self.draws[~np.isnan(self.draws)]
        return float(defined.std()) if len(defined) else float("nan")

    def p_above(self, bar: float) -> float:
        """Return p of "it is not above the bar"; draws in which it is not defined count against it."""
        return (1 + int((~(self.draws > bar)).sum())) / (1 + len(self.draws))
