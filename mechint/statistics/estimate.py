"""One number with its interval."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from mechint.statistics.bootstrap import bootstrap_mean
from mechint.statistics.clusters import Clusters
from mechint.statistics.permutation import Alternative, sign_flip_test


@dataclass(frozen=True)
class Estimate:
    """One number with its interval.

    Examples:
        >>> print(Estimate(value=0.5, low=0.25, high=0.75, p=0.01, n=64))
        0.5 [0.25, 0.75], p = 0.01, n = 64
    """

    value: float
    low: float
    """Lower end of the interval; NaN when there are fewer than two clusters."""
    high: float
    """Upper end of the interval."""
    p: float | None
    """p-value, where something was tested."""
    n: int
    """Observations that went in: defined values, not clusters."""

    def __str__(self) -> str:
        test = "" if self.p is None else f", p = {self.p:.2g}"
        return f"{self.value:.3g} [{self.low:.3g}, {self.high:.3g}]{test}, n = {self.n}"


def estimate_mean(
    values: Float[np.ndarray, " prompt"],
    clusters: Clusters = None,
    *,
    alternative: Alternative | None = None,
    level: float = 0.95,
    seed: int = 0,
) -> Estimate:
    """Return a mean with its BCa interval and, when an alternative is named, its sign-flip p.

    Examples:
        >>> estimate_mean(np.array([1.0, 2.0, 3.0, np.nan])).n
        3
    """
    column = values[:, None]
    value, low, high = (float(end[0]) for end in bootstrap_mean(column, clusters, level=level, seed=seed))
    p = None
    if alternative is not None:
        p = float(sign_flip_test(column, clusters, alternative=alternative, seed=seed)[0])
    return Estimate(value, low, high, p, int((~np.isnan(values)).sum()))


def wilson(k: int, n: int, *, level: float = 0.95) -> tuple[float, float]:
    """Return Wilson's interval (1927) for a share of k in n; (NaN, NaN) when n is 0.

    Examples:
        >>> [round(end, 3) for end in wilson(97, 100)]
        [0.915, 0.99]
    """
    from scipy.stats import binomtest

    if n == 0:
        return float("nan"), float("nan")
    interval = binomtest(k, n).proportion_ci(confidence_level=level, method="wilson")
    return float(interval.low), float(interval.high)
