"""Tests by exchange: sign flips within prompts, and labels between groups.

Sign flips: if a head has no effect, the sum S_c over a cluster is as likely as -S_c, so the observed Σ_c S_c is one
of 2^C equally likely values Σ_c ε_c S_c with ε_c = ±1. All are listed when that is affordable; otherwise m are
drawn and p = (b + 1)/(m + 1), which is never 0 (Phipson and Smyth 2010).

The smallest p possible is therefore 1/(m + 1), and a Holm correction over 72 heads multiplies it by 72: keep m well
above 72/0.05. The max-statistic test (Westfall and Young 1993) needs no such factor, and profits from the heads'
dependence.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float

from mechint.statistics.clusters import Clusters, cluster_index, cluster_sums, same_clusters
from mechint.statistics.seeds import generator

Alternative = Literal["greater", "less", "two-sided"]

_BLOCK = 250_000  # numbers in one block of draws: 2 MB, which a cache can hold
_ROUNDING = 1e-12  # sums that differ by less, relative to Σ|S_c|, are ties


def sign_flip_test(
    values: Float[np.ndarray, "prompt statistic"],
    clusters: Clusters = None,
    *,
    alternative: Alternative = "two-sided",
    n_resamples: int = 10_000,
    seed: int = 0,
) -> Float[np.ndarray, " statistic"]:
    """Return for each statistic p of "symmetric about 0", clusters flipping together; not corrected.

    Exact when 2^clusters is at most `n_resamples`. NaN where a statistic is defined for no prompt.

    Args:
        values: any unit; NaN where a statistic is not defined.
        clusters: a label for each prompt; by default every prompt is its own cluster.
        alternative: the direction of the mean under the alternative.
        n_resamples: number of draws.
        seed: of the draws.

    Examples:
        >>> sign_flip_test(np.ones((5, 1)), alternative="greater").tolist() == [1 / 2**5]
        True
    """
    index = cluster_index(clusters, len(values))
    sums = cluster_sums(values, index)
    present = cluster_sums((~np.isnan(values)).astype(float), index) > 0
    p = np.full(values.shape[1], np.nan)
    for columns, members in same_clusters(present):
        if len(members):
            chosen = _oriented(sums[np.ix_(members, columns)], alternative)
            p[columns] = _share_as_extreme(chosen, alternative == "two-sided", n_resamples, seed, joint=False)
    return p


def max_sign_flip_test(
    values: Float[np.ndarray, "prompt statistic"],
    clusters: Clusters = None,
    *,
    alternative: Alternative = "two-sided",
    n_resamples: int = 10_000,
    seed: int = 0,
) -> Float[np.ndarray, " statistic"]:
    """Return p of each statistic, corrected for all of them: sign flips of whole clusters, maximum over statistics.

    Statistics are compared as Σ_c S_c / sqrt(Σ_c S_c²), whose denominator no flip changes. Single step.
    Arguments and NaN: as in `sign_flip_test`.

    Examples:
        >>> one = np.ones((5, 1))
        >>> max_sign_flip_test(np.hstack([one, one]), alternative="greater").tolist() == [1 / 2**5] * 2
        True
    """
    index = cluster_index(clusters, len(values))
    defined = ~np.isnan(values).all(axis=0)
    p = np.full(values.shape[1], np.nan)
    if defined.any():
        sums = _oriented(cluster_sums(values[:, defined], index), alternative)
        size = np.sqrt((sums**2).sum(axis=0))
        scaled = sums / np.where(size > 0, size, 1.0)
        p[defined] = _share_as_extreme(scaled, alternative == "two-sided", n_resamples, seed, joint=True)
    return p


def label_permutation_test(
    a: Sequence[float] | np.ndarray,
    b: Sequence[float] | np.ndarray,
    *,
    alternative: Alternative = "two-sided",
    n_resamples: int = 10_000,
    seed: int = 0,
) -> float:
    """Return p of "the labels a and b could be exchanged", from the difference of means mean(a) - mean(b).

    Exact when there are no more than `n_resamples` ways to label. NaN values are left out; with fewer than two
    values on a side there is nothing to test, and p is NaN.

    Examples:
        >>> round(label_permutation_test([5, 6, 7], [1, 2, 3], alternative="greater"), 6)
        0.05
    """
    from scipy.stats import permutation_test

    first, second = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    first, second = first[~np.isnan(first)], second[~np.isnan(second)]
    if min(len(first), len(second)) < 2:
        return float("nan")
    test = permutation_test(
        (first, second),
        _difference_of_means,
        permutation_type="independent",
        vectorized=True,
        n_resamples=n_resamples,
        batch=max(1, _BLOCK // (len(first) + len(second))),
        alternative=alternative,
        rng=generator(seed, "labels"),
    )
    return float(test.pvalue)


def mcnemar_p(first: Bool[np.ndarray, " sample"], second: Bool[np.ndarray, " sample"]) -> float:
    """Return McNemar's exact p of "two say yes equally often" of the same items, which count as independent.

    Examples:
        >>> mcnemar_p(np.array([True] * 5 + [False]), np.array([False] * 6))
        0.0625
    """
    from statsmodels.stats.contingency_tables import mcnemar

    table = [[int((a & b).sum()) for b in (second, ~second)] for a in (first, ~first)]
    test: Any = mcnemar(table, exact=True)
    return float(test.pvalue)


def draws_p(value: float, draws: Float[np.ndarray, " resample"]) -> float:
    """Return p of a value among draws of a null: (1 + draws at least as large) / (1 + draws).

    Examples:
        >>> draws_p(3.0, np.array([1.0, 2.0, 4.0]))
        0.5
    """
    return (1 + int((draws >= value).sum())) / (1 + len(draws))


def _difference_of_means(a: np.ndarray, b: np.ndarray, axis: int) -> np.ndarray | np.floating:
    return a.mean(axis=axis) - b.mean(axis=axis)


def _oriented(
    sums: Float[np.ndarray, "cluster statistic"], alternative: Alternative
) -> Float[np.ndarray, "cluster statistic"]:
    return -sums if alternative == "less" else sums


def _share_as_extreme(
    sums: Float[np.ndarray, "cluster statistic"], two_sided: bool, n_resamples: int, seed: int, *, joint: bool
) -> Float[np.ndarray, " statistic"]:
    """Return how often flipped sums (joint: the greatest of them) are at least as large as the observed ones."""
    # Not scipy.stats.permutation_test: for 72 statistics it copies and flips the data once a draw, ten times slower
    # than one matrix product. A test holds the exact p-values against it.
    size = np.abs if two_sided else np.asarray
    bar = size(sums.sum(axis=0)) - _ROUNDING * np.abs(sums).sum(axis=0)
    exact = len(sums) <= 62 and 2 ** len(sums) <= n_resamples
    reached, drawn = np.zeros(sums.shape[1]), 0
    for signs in _all_signs(len(sums)) if exact else _random_signs(len(sums), n_resamples, seed):
        flipped = size(signs @ sums)
        if joint:
            flipped = flipped.max(axis=1, keepdims=True)
        reached += (flipped >= bar).sum(axis=0)
        drawn += len(signs)
    return reached / drawn if exact else (reached + 1) / (drawn + 1)


def _all_signs(n_clusters: int) -> Iterator[Float[np.ndarray, "resample cluster"]]:
    numbers = np.arange(2**n_clusters)[:, None]
    yield 1.0 - 2.0 * ((numbers >> np.arange(n_clusters)) & 1)


def _random_signs(n_clusters: int, n_resamples: int, seed: int) -> Iterator[Float[np.ndarray, "resample cluster"]]:
    rng = generator(seed, "signs")
    rows = max(1, _BLOCK // n_clusters)
    for start in range(0, n_resamples, rows):
        shape = (min(rows, n_resamples - start), n_clusters)
        yield 1.0 - 2.0 * rng.integers(2, size=shape, dtype=np.int8)
