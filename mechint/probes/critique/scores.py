"""What scores tell of labels: AUROC and Cohen's d over problems, held-out scores, and what a covariate leaves of them.

    d = (m1 - m0) / sqrt((s1² + s0²) / 2)            m, s: mean and standard deviation of the scores of a side
    partial AUROC: AUROC of  score - (a + b z),      a, b by least squares of score on covariate z in training data

Intervals are percentile bootstraps over problems, since the rows of one are not independent. The fit of the partial
AUROC does not see the labels, so whatever score and covariate tell together counts for the covariate.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Float, Int

from mechint.errors import PromptError
from mechint.statistics import Estimate, derive_seed, generator
from mechint.statistics.drawn import percentiles
from mechint.vectors.auroc import auroc, auroc_draws, auroc_p
from mechint.vectors.fit import group_folds
from mechint.vectors.samples import Samples

FOLDS, RESAMPLES = 5, 10_000
Learn = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""From the places of rows to learn from, and of rows asked for, to the scores of these."""


def project(x: Float[np.ndarray, "sample width"], direction: Float[np.ndarray, " width"]) -> np.ndarray:
    """Return x · direction, equal to the last bit for equal rows: a tie must stay one."""
    # Not x @ direction: products of matrices treat the last few rows in another way than the rest.
    return np.einsum("sw,w->s", np.ascontiguousarray(x), direction)


def out_of_fold(
    samples: Samples,
    learn: Learn,
    *,
    folds: int = FOLDS,
    seed: int = 0,
    blocks: Int[np.ndarray, " sample"] | None = None,
) -> tuple[float, Float[np.ndarray, " sample"]]:
    """Score every row by what was learnt from the folds without its problem.

    Args:
        samples: labels, and groups that no fold cuts; the folds are the same for the same of both.
        learn: what is learnt.
        folds: how many, or as many as there are problems.
        seed: of the folds.
        blocks: of each row, what no fold cuts either, each of whole problems (see `blocks_of`).

    Returns:
        The mean AUROC of the folds, each of which has its own scale of scores, and all scores.

    Raises:
        PromptError: fewer than two problems, or blocks.
    """
    whole = samples if blocks is None else replace(samples, groups=blocks)
    parts = group_folds(whole, folds, derive_seed(seed, "folds"))
    if not parts:
        raise PromptError(
            f"{len(samples)} rows of {len(np.unique(whole.groups))} problems (or blocks of them) cannot be divided "
            "into folds. Give rows of both sides of at least two."
        )
    scores, found = np.zeros(len(samples)), list[float]()
    for fitted, asked in parts:
        scores[asked] = learn(fitted, asked)
        found.append(auroc(scores[asked], samples.y[asked]))
    return float(np.nanmean(found)), scores


def blocks_of(groups: Sequence[str], blocks: Mapping[str, str] | None) -> Int[np.ndarray, " sample"] | None:
    """Number the blocks of rows by their problems; None where there are none.

    A derangement gives every literal to both sides equally often in all it was made of, and in no part of it: what is
    wrong in some folds is the true literal of another, so that probes of literals fall below chance there, and halves
    point apart. Where wrong literals were deranged block by block, no fold and no half may cut a block.

    Raises:
        PromptError: a problem has no block.
    """
    if blocks is None:
        return None
    if missing := sorted(set(groups) - set(blocks)):
        raise PromptError(f"{len(missing)} problems have no block (first: {missing[0]!r}). Give one for each.")
    return np.unique([blocks[group] for group in groups], return_inverse=True)[1]


def scored(
    scores: Float[np.ndarray, " sample"],
    y: Int[np.ndarray, " sample"],
    groups: Int[np.ndarray, " sample"],
    *,
    n_resamples: int = RESAMPLES,
    seed: int = 0,
) -> Estimate:
    """Return the AUROC of scores that were not fitted on these labels.

    The interval is of a bootstrap over groups; p is how often labels exchanged within groups (so between the two of a
    pair, where every pair is a group) do at least as well; n counts rows.
    """
    low, high = percentiles(
        auroc_draws(scores, y, groups, n_resamples=n_resamples, seed=derive_seed(seed, "auroc bootstrap"))
    )
    p = auroc_p(scores, y, groups, n_resamples=n_resamples, seed=derive_seed(seed, "auroc p"))
    return Estimate(auroc(scores, y), low, high, p, len(y))


def partial_auroc(
    scores: Float[np.ndarray, " sample"],
    y: Int[np.ndarray, " sample"],
    groups: Int[np.ndarray, " sample"],
    covariate: Float[np.ndarray, " sample"],
    *,
    train_scores: Float[np.ndarray, " prompt"],
    train_covariate: Float[np.ndarray, " prompt"],
    n_resamples: int = RESAMPLES,
    seed: int = 0,
) -> Estimate:
    """Return the AUROC of what a covariate, such as the surprisal of the result, does not tell of the scores.

    Args:
        scores: of the test rows.
        y: 1 for wrong, 0 for true rows.
        groups: the problem of each.
        covariate: of the test rows, any unit.
        train_scores: held-out scores of training rows (`out_of_fold`), on which the line is fitted; scores of rows
            that were learnt from follow their labels too closely.
        train_covariate: of the same rows.
        n_resamples: draws of the interval and of p.
        seed: of both.
    """
    centred = train_covariate - train_covariate.mean()
    spread = float(centred @ centred)
    slope = float(centred @ train_scores) / spread if spread > 0 else 0.0
    # The intercept moves all scores alike, which no AUROC sees.
    return scored(scores - slope * covariate, y, groups, n_resamples=n_resamples, seed=seed)


def cohens_d(
    scores: Float[np.ndarray, " sample"],
    y: Int[np.ndarray, " sample"],
    groups: Int[np.ndarray, " sample"],
    *,
    n_resamples: int = RESAMPLES,
    seed: int = 0,
) -> Estimate:
    """Return Cohen's d of the scores, in standard deviations, with its interval over groups; NaN where none vary."""
    names, owner = np.unique(groups, return_inverse=True)
    centred = scores - scores.mean()  # squares of large numbers would lose the digits that differ
    sums = np.zeros((len(names), 6))
    for label in (0, 1):
        side = y == label
        for power in range(3):
            np.add.at(sums[:, 3 * label + power], owner[side], centred[side] ** power)
    counts = generator(seed, "cohens d").multinomial(len(names), np.full(len(names), 1 / len(names)), size=n_resamples)
    low, high = percentiles(_d(counts @ sums)) if len(names) > 1 else (np.nan, np.nan)
    return Estimate(float(_d(sums.sum(0)[None])[0]), low, high, None, len(y))


def _d(sums: Float[np.ndarray, "resample statistic"]) -> Float[np.ndarray, " resample"]:
    n, total, squares = (sums[:, power::3] for power in range(3))
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = total / n
        variance = np.maximum(squares - n * mean**2, 0.0) / (n - 1)
        d = (mean[:, 1] - mean[:, 0]) / np.sqrt(variance.mean(1))
    return np.where(np.isfinite(d), d, np.nan)
