r"""What two numbers have in common once others are accounted for.

With Z the others, 1 a column of ones and b fitted by least squares, the residual of x is x - [1 Z] b. The partial
Spearman correlation of x and y is the Pearson correlation of the residuals of their ranks, given the ranks of Z; with
one z,

    (r_xy - r_xz r_yz) / sqrt((1 - r_xz²)(1 - r_yz²))
"""

import numpy as np
from jaxtyping import Float

from mechint.statistics.clusters import Clusters, cluster_index
from mechint.statistics.seeds import generator

_NOTHING = 1e-9
"""Share of the spread of a number below which what is left of it is rounding."""


def residuals(
    values: Float[np.ndarray, " sample"], covariates: Float[np.ndarray, "sample width"]
) -> Float[np.ndarray, " sample"]:
    """Return what a linear function of the covariates does not tell of the values; exactly 0 where it tells all.

    Examples:
        >>> residuals(np.array([1.0, 2.0, 3.0, 8.0]), np.array([[0.0], [0.0], [1.0], [1.0]])).round(6).tolist()
        [-0.5, 0.5, -2.5, 2.5]
    """
    spread = covariates.std(axis=0)
    scaled = (covariates - covariates.mean(axis=0))[:, spread > 0] / spread[spread > 0]
    design = np.column_stack([np.ones(len(values)), scaled])
    left = values - design @ np.linalg.lstsq(design, values, rcond=None)[0]
    return np.where(np.abs(left) <= _NOTHING * (np.abs(values - values.mean()).max() + 1e-300), 0.0, left)


def partial_spearman(
    x: Float[np.ndarray, " sample"], y: Float[np.ndarray, " sample"], covariates: Float[np.ndarray, "sample width"]
) -> float:
    """Return the partial rank correlation; NaN where the covariates leave nothing of x or of y.

    Examples:
        >>> z = np.arange(6.0)
        >>> float(partial_spearman(z, z[::-1].copy(), z[:, None]))
        nan
        >>> round(partial_spearman(np.array([2.0, 1, 4, 3]), np.array([2.0, 1, 4, 3]), np.arange(4.0)[:, None]), 6)
        1.0
    """
    from scipy.stats import rankdata

    ranks = rankdata(covariates, axis=0)
    one, other = residuals(rankdata(x), ranks), residuals(rankdata(y), ranks)
    size = float(np.sqrt((one @ one) * (other @ other)))
    return float(one @ other) / size if size > 0 else float("nan")


def partial_spearman_draws(
    x: Float[np.ndarray, " sample"],
    y: Float[np.ndarray, " sample"],
    covariates: Float[np.ndarray, "sample width"],
    clusters: Clusters = None,
    *,
    n_resamples: int = 1000,
    seed: int = 0,
) -> Float[np.ndarray, " resample"]:
    """Return the partial rank correlation in bootstrap draws of clusters; NaN where a draw leaves nothing."""
    owner = cluster_index(clusters, len(x))
    members = [np.flatnonzero(owner == one) for one in range(int(owner.max()) + 1)]
    rng = generator(seed, "partial spearman")
    found = np.empty(n_resamples)
    for draw in range(n_resamples):
        rows = np.concatenate([members[one] for one in rng.integers(len(members), size=len(members))])
        found[draw] = partial_spearman(x[rows], y[rows], covariates[rows])
    return found
