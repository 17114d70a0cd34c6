r"""Ratios that the bootstrap of one ratio does not cover: their mean over components, and their difference.

With N_cj and D_cj the sums of numerator and denominator of component j in cluster c, and w_c how often a draw takes c:

    R_j* = sum_c w_c N_cj / sum_c w_c D_cj        mean over components: mean_j R_j*        difference: R_1* - R_0*

The clusters are drawn once for all components, so that what they share stays shared. Percentile intervals. Where a
denominator is not clearly of one sign (more than one draw in forty reaches 0 or lies beyond), there is none.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float, Int

from mechint.probes.self_repair.averages import Chosen
from mechint.statistics import generator

DRAWS, LEVEL = 2000, 0.95


def cluster_sums(
    chosen: Sequence[Chosen], clusters: Mapping[int, int], measure: str
) -> Float[np.ndarray, "cluster statistic"]:
    """Add a measure up in each cluster of documents, a column for each set of tokens."""
    totals = np.zeros((max(clusters.values()) + 1, len(chosen)))
    for j, one in enumerate(chosen):
        np.add.at(totals[:, j], [clusters[int(document)] for document in one.document], one.values[measure])
    return totals


def mean_of_ratios(
    above: Float[np.ndarray, "cluster statistic"], below: Float[np.ndarray, "cluster statistic"], seed: int
) -> tuple[float, float, float]:
    """Return the mean over components of their ratios of sums, low and high."""
    value = float(_divided(above.sum(0), below.sum(0)).mean())
    draws = _ratios(above, below, seed)
    return value, *_interval(draws.mean(1), below, seed)


def difference_of_ratios(
    above: Float[np.ndarray, "cluster 2"], below: Float[np.ndarray, "cluster 2"], seed: int
) -> tuple[float, float, float]:
    """Return the first ratio of sums minus the second, low and high."""
    ratios, draws = _divided(above.sum(0), below.sum(0)), _ratios(above, below, seed)
    return float(ratios[0] - ratios[1]), *_interval(draws[:, 0] - draws[:, 1], below, seed)


def slope(
    x: Float[np.ndarray, " prompt"], y: Float[np.ndarray, " prompt"], cluster: Int[np.ndarray, " prompt"], seed: int
) -> tuple[tuple[float, float, float], float, float]:
    """Return the least-squares slope of y on x with low and high, the intercept, and R²."""
    products = np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], axis=1)
    sums = np.zeros((int(cluster.max()) + 1, products.shape[1]))
    np.add.at(sums, cluster, products)
    n, sx, sy, sxx, sxy, syy = sums.sum(0)
    spread_x, spread_y, together = sxx - sx * sx / n, syy - sy * sy / n, sxy - sx * sy / n
    value = float(_divided(together, spread_x))
    fit = float(_divided(together * together, spread_x * spread_y))
    if len(sums) < 2:
        return (value, float("nan"), float("nan")), float((sy - value * sx) / n), fit
    m, tx, ty, txx, txy, _ = (_weights(len(sums), seed) @ sums).T
    draws = _divided(txy - tx * ty / m, txx - tx * tx / m)
    low, high = np.nanquantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return (value, float(low), float(high)), float((sy - value * sx) / n), fit


def _weights(n_clusters: int, seed: int) -> Float[np.ndarray, "resample cluster"]:
    """Draw how often each cluster is taken in each resample."""
    shares = np.full(n_clusters, 1 / n_clusters)
    return generator(seed, "ratios").multinomial(n_clusters, shares, size=DRAWS).astype(float)


def _ratios(above: np.ndarray, below: np.ndarray, seed: int) -> Float[np.ndarray, "resample statistic"]:
    weights = _weights(len(above), seed)
    return _divided(weights @ above, weights @ below)


def _divided(above: np.ndarray | float, below: np.ndarray | float) -> np.ndarray:
    bottom = np.asarray(below, dtype=float)
    return np.divide(np.asarray(above, dtype=float), bottom, out=np.full_like(bottom, np.nan), where=bottom != 0)


def _interval(draws: np.ndarray, below: np.ndarray, seed: int) -> tuple[float, float]:
    total = below.sum(0)
    crossing = (_weights(len(below), seed) @ below * np.sign(total) <= 0).mean(0)
    if len(below) < 2 or bool((crossing > (1 - LEVEL) / 2).any()):
        return float("nan"), float("nan")
    low, high = np.nanquantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
