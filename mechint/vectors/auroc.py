"""Area under the ROC curve: how often a positive scores higher than a negative; its interval, and its p under chance.

    AUROC = (R - n(n+1)/2) / (n m)      R: sum of the ranks of the n positives among all n + m, ties shared

The interval is a percentile bootstrap over groups, since scores within one are not independent; p counts how often
labels that mean nothing do at least as well (`samples.shuffled_labels`).
"""

import numpy as np
from jaxtyping import Float, Int

from mechint.statistics import generator
from mechint.vectors.samples import shuffled_labels

_BLOCK = 100
"""Draws at once, which bounds memory."""


def auroc(scores: Float[np.ndarray, " sample"], y: Int[np.ndarray, " sample"]) -> float:
    """Return the AUROC; NaN where one side is empty.

    Examples:
        >>> auroc(np.array([1.0, 2.0, 2.0, 3.0]), np.array([0, 0, 1, 1]))
        0.875
    """
    return float(_aurocs(scores, y[None])[0])


def _aurocs(
    scores: Float[np.ndarray, " sample"], y: Int[np.ndarray, "resample sample"]
) -> Float[np.ndarray, " resample"]:
    from scipy.stats import rankdata

    positives = y.sum(1)
    with np.errstate(divide="ignore", invalid="ignore"):
        won = y @ rankdata(scores) - positives * (positives + 1) / 2
        return won / (positives * (y.shape[1] - positives))


def auroc_draws(
    scores: Float[np.ndarray, " sample"],
    y: Int[np.ndarray, " sample"],
    groups: Int[np.ndarray, " sample"],
    *,
    n_resamples: int = 2000,
    seed: int = 0,
) -> Float[np.ndarray, " resample"]:
    """Return the AUROC in bootstrap draws of groups; the same draws for the same groups and seed.

    NaN where a draw has one side only.
    """
    _, owner = np.unique(groups, return_inverse=True)
    n_groups = int(owner.max()) + 1
    above, below = scores[y == 1], scores[y == 0]
    wins = (above[:, None] > below).astype(float) + 0.5 * (above[:, None] == below)
    rng, draws = generator(seed, "auroc"), list[np.ndarray]()
    for start in range(0, n_resamples, _BLOCK):
        size = min(_BLOCK, n_resamples - start)
        counts = rng.multinomial(n_groups, np.full(n_groups, 1 / n_groups), size=size)
        weights = counts[:, owner].astype(float)
        first, second = weights[:, y == 1], weights[:, y == 0]
        with np.errstate(invalid="ignore"):
            draws.append((first @ wins * second).sum(1) / (first.sum(1) * second.sum(1)))
    return np.concatenate(draws)


def auroc_p(
    scores: Float[np.ndarray, " sample"],
    y: Int[np.ndarray, " sample"],
    groups: Int[np.ndarray, " sample"],
    *,
    n_resamples: int = 2000,
    seed: int = 0,
) -> float:
    """Return how often labels that mean nothing give an AUROC at least as high, the observed one counted in."""
    drawn = _aurocs(scores, shuffled_labels(y, groups, n_resamples, seed))
    # A hair of tolerance: equal sums of ranks may differ in their last digit.
    return float((1 + np.sum(drawn >= auroc(scores, y) - 1e-12)) / (1 + n_resamples))
