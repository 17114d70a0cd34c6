"""Signal detection: how well wrong and true are told apart, kept apart from how readily "wrong" is said.

With k of n wrong items called wrong (hits) and k of n true ones called wrong (false alarms), each rate moved off 0 and
1 by the log-linear rule (Hautus 1995), and z the inverse of the normal distribution function:

    H, F = (k + 1/2) / (n + 1)          d' = z(H) - z(F)          c = -(z(H) + z(F)) / 2

d' is discrimination; c is the criterion: 0 is unbiased, negative says "wrong" readily. Both depend on the threshold at
which "wrong" is said. Two numbers do not: the AUROC, and the hit rate at a matched rate of false alarms,

    max { H(t) : F(t) <= f }            over all thresholds t, raw rates

A push that adds the same to every score moves c and leaves these two where they were. Macmillan and Creelman 2005,
"Detection Theory".
"""

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Int

from mechint.statistics.clusters import Clusters, cluster_index
from mechint.statistics.estimate import Estimate
from mechint.statistics.seeds import generator

if TYPE_CHECKING:
    from pandas import DataFrame
else:
    DataFrame = Any  # annotations are checked under pytest, and pandas is not loaded for them

_BLOCK = 250_000  # numbers in one block of draws: 2 MB, which a cache can hold


@dataclass(frozen=True)
class SignalDetection:
    """What is known of a decision by a threshold; each number with the interval of a cluster bootstrap."""

    hit_rate: Estimate
    """Share of the positives above the threshold."""
    false_alarm_rate: Estimate
    """Share of the negatives above it."""
    d_prime: Estimate
    criterion: Estimate
    auroc: Estimate
    matched_hit_rate: Estimate
    """At the lowest threshold that gives no more than the matched rate of false alarms."""

    def to_frame(self) -> DataFrame:
        """Return one row: each number under its name, its ends as `_low` and `_high`."""
        import pandas as pd

        row: dict[str, float] = {}
        for name in QUANTITIES:
            one: Estimate = getattr(self, name)
            row |= {name: one.value, f"{name}_low": one.low, f"{name}_high": one.high}
        return pd.DataFrame([row])


QUANTITIES: tuple[str, ...] = tuple(field.name for field in fields(SignalDetection))
"""What is measured, in the order of the fields."""


def d_prime(hits: float, n1: float, false_alarms: float, n0: float) -> float:
    """Return d' of counts.

    Examples:
        >>> d_prime(8, 10, 8, 10), round(d_prime(8, 10, 3, 10), 3)
        (0.0, 1.221)

    Raises:
        ValueError: a count that is negative or more than there are.
    """
    return float(np.subtract(*_z(hits, n1, false_alarms, n0)))


def criterion(hits: float, n1: float, false_alarms: float, n0: float) -> float:
    """Return c of counts; negative where "positive" is said more often than not.

    Examples:
        >>> criterion(8, 10, 2, 10) + 0.0, round(criterion(9, 10, 9, 10), 3)
        (0.0, -1.097)

    Raises:
        ValueError: a count that is negative or more than there are.
    """
    return -float(np.add(*_z(hits, n1, false_alarms, n0))) / 2


def signal_detection(
    scores: Float[np.ndarray, " sample"],
    y: Int[np.ndarray, " sample"],
    clusters: Clusters = None,
    *,
    threshold: float = 0.0,
    matched: float = 0.05,
    level: float = 0.95,
    n_resamples: int = 2000,
    seed: int = 0,
) -> SignalDetection:
    """Return all numbers of scores, positive being said above the threshold.

    Args:
        scores: any unit, finite; higher for what is called positive.
        y: 1 positive, 0 negative.
        clusters: a label for each score; by default every score is its own cluster.
        threshold: above which positive is said.
        matched: the rate of false alarms at which hit rates are compared.
        level: coverage of the percentile intervals; NaN with fewer than two clusters.
        n_resamples: number of draws.
        seed: of the draws; equal seeds and clusters give equal draws.

    Raises:
        ValueError: one side only, scores that are not finite, lengths that differ, or a rate outside of 0 to 1.
    """
    values, draws = _bootstrapped([scores], y, clusters, threshold, matched, n_resamples, seed)
    return _summed_up(values[0], draws[0], len(y), level)


def signal_change(
    before: Float[np.ndarray, " sample"],
    after: Float[np.ndarray, " sample"],
    y: Int[np.ndarray, " sample"],
    clusters: Clusters = None,
    *,
    threshold: float = 0.0,
    matched: float = 0.05,
    level: float = 0.95,
    n_resamples: int = 2000,
    seed: int = 0,
) -> SignalDetection:
    """Return each number of `after` minus that of `before`, the same items drawn for both.

    Arguments and errors: as in `signal_detection`.
    """
    values, draws = _bootstrapped([before, after], y, clusters, threshold, matched, n_resamples, seed)
    return _summed_up(values[1] - values[0], draws[1] - draws[0], len(y), level)


def _z(hits: Any, n1: Any, false_alarms: Any, n0: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return z of both rates after the log-linear rule."""
    from scipy.special import ndtri

    ends: list[np.ndarray] = []
    for k, n in ((hits, n1), (false_alarms, n0)):
        if np.any(np.less(k, 0)) or np.any(np.greater(k, n)):
            raise ValueError(f"{k} of {n}: expected a count from 0 to the number of items.")
        ends.append(np.asarray(ndtri((np.asarray(k, float) + 0.5) / (np.asarray(n, float) + 1))))
    return ends[0], ends[1]


def _bootstrapped(
    versions: list[Float[np.ndarray, " sample"]],
    y: Int[np.ndarray, " sample"],
    clusters: Clusters,
    threshold: float,
    matched: float,
    n_resamples: int,
    seed: int,
) -> tuple[Float[np.ndarray, "change statistic"], Float[np.ndarray, "change resample statistic"]]:
    """Return the numbers of each version of the scores, and those of its draws."""
    for scores in versions:
        if scores.shape != y.shape or not np.isfinite(scores).all():
            raise ValueError(
                f"{len(scores)} scores for {len(y)} labels, {int((~np.isfinite(scores)).sum())} of them not finite. "
                "Expected one finite score for each label; leave out the others first."
            )
    if not 0 < int(y.sum()) < len(y) or not 0 <= matched <= 1:
        raise ValueError(
            f"{int(y.sum())} of {len(y)} items are positive, the matched rate is {matched}. Expected items of both "
            "sides, and a rate from 0 to 1."
        )
    owner = cluster_index(clusters, len(y))
    n = int(owner.max()) + 1
    whole = np.ones((1, len(y)))
    values = np.stack([_numbers(scores, y, whole, threshold, matched)[0] for scores in versions])
    if n < 2:
        return values, np.full((len(versions), 1, values.shape[1]), np.nan)
    rng, size = generator(seed, "signal detection"), max(1, _BLOCK // len(y))
    drawn: list[np.ndarray] = []
    for start in range(0, n_resamples, size):
        weights = rng.multinomial(n, np.full(n, 1 / n), size=min(size, n_resamples - start))[:, owner].astype(float)
        drawn.append(np.stack([_numbers(scores, y, weights, threshold, matched) for scores in versions]))
    return values, np.concatenate(drawn, axis=1)


def _numbers(
    scores: Float[np.ndarray, " sample"],
    y: Int[np.ndarray, " sample"],
    weights: Float[np.ndarray, "resample sample"],
    threshold: float,
    matched: float,
) -> Float[np.ndarray, "resample statistic"]:
    """Return the numbers, in the order of the fields, with each item counted as often as its weight says."""
    positive, negative = weights * (y == 1), weights * (y == 0)
    n1, n0 = positive.sum(1), negative.sum(1)
    hits, alarms = ((side * (scores > threshold)).sum(1) for side in (positive, negative))
    z1, z0 = _z(hits, n1, alarms, n0)
    order = np.argsort(-scores, kind="stable")
    last = np.append(np.diff(scores[order]) != 0, True)  # items of one score are on one side of every threshold
    nothing = np.zeros((len(weights), 1))
    with np.errstate(divide="ignore", invalid="ignore"):
        h, f = (
            np.hstack([nothing, np.cumsum(side[:, order], axis=1)[:, last]]) / n[:, None]
            for side, n in ((positive, n1), (negative, n0))
        )
        rates = hits / n1, alarms / n0
    auroc = (np.diff(f, axis=1) * (h[:, 1:] + h[:, :-1])).sum(1) / 2
    at_matched = np.where(f <= matched + 1e-12, h, 0).max(1)
    found = np.stack([*rates, z1 - z0, -(z1 + z0) / 2, auroc, at_matched], axis=1)
    found[(n1 == 0) | (n0 == 0)] = np.nan  # a draw of one side only
    return found


def _summed_up(
    values: Float[np.ndarray, " statistic"], draws: Float[np.ndarray, "resample statistic"], n: int, level: float
) -> SignalDetection:
    defined = draws[~np.isnan(draws).any(1)]
    tails = [(1 - level) / 2, (1 + level) / 2]
    ends = np.quantile(defined, tails, axis=0) if len(defined) else np.full((2, len(values)), np.nan)
    numbers = zip(values, ends[0], ends[1], strict=True)
    return SignalDetection(*(Estimate(float(v), float(low), float(high), None, n) for v, low, high in numbers))
