"""How well mistakes are located: accuracy on solutions with one, on solutions without, and their harmonic mean.

    acc1 = share of solutions with a mistake whose first wrong step is named exactly
    acc2 = share of solutions without one of which that is said
    F1   = 2 acc1 acc2 / (acc1 + acc2),  0 where both are 0

That is the score of ProcessBench (Zheng et al. 2024, arXiv 2412.06559). Whoever always says the same has F1 = 0.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from mechint.errors import PromptError
from mechint.prompts.reasoning.audit_steps import FEW
from mechint.statistics.bootstrap import bootstrap_mean
from mechint.statistics.clusters import Clusters, cluster_index, cluster_sums
from mechint.statistics.estimate import Estimate, wilson
from mechint.statistics.seeds import generator

NO_MISTAKE = -1
"""The prediction that all steps are right."""


@dataclass(frozen=True)
class LocationScore:
    """Accuracies as shares, from 0 to 1, with 95 % intervals."""

    acc1: Estimate
    """On solutions with a mistake."""
    acc2: Estimate
    """On solutions without."""
    f1: Estimate | None
    """None where too few solutions without a mistake make one number of it dishonest."""
    unanswered: int
    """Predictions of None, which count as wrong."""

    def __str__(self) -> str:
        said = f"acc1 {self.acc1}; acc2 {self.acc2}; "
        if self.f1 is None:
            return f"{said}no F1: {self.acc2.n} solutions without a mistake are fewer than {FEW}"
        return f"{said}F1 {self.f1}"


def f1_locate(
    predictions: Sequence[int | None],
    mistakes: Sequence[int | None],
    groups: Clusters = None,
    *,
    few: bool = False,
    n_resamples: int = 10_000,
    seed: int = 0,
) -> LocationScore:
    """Score where mistakes were said to be.

    Args:
        predictions: for each solution the index of its first wrong step, -1 for no mistake, or None for an answer
            that could not be read, which is wrong on either kind.
        mistakes: the true index; None or -1 where there is no mistake.
        groups: the problem of each solution; those of one problem are drawn together. By default each is its own.
        few: whether to give one F1 although fewer than 30 solutions are without a mistake.
        n_resamples: draws for the interval of F1.
        seed: of the draws.

    Returns:
        acc1 and acc2 with Wilson's intervals (with groups: BCa cluster bootstrap), and F1 with a percentile bootstrap
        interval over problems. An accuracy on no solutions is NaN, and so is F1 then.

    Raises:
        PromptError: lists of different lengths, no solutions, or an index below -1.

    Examples:
        >>> score = f1_locate([1, -1, 2, None], [1, None, 3, None], few=True)
        >>> score.acc1.value, score.acc2.value, score.f1.value, score.unanswered
        (0.5, 0.5, 0.5, 1)
    """
    if len(predictions) != len(mistakes) or not predictions:
        raise PromptError(
            f"{len(predictions)} predictions for {len(mistakes)} solutions. Give one for each, for at least one."
        )
    low = [at for at in (*predictions, *mistakes) if at is not None and at < NO_MISTAKE]
    if low:
        raise PromptError(f"Index {low[0]} was given. Expected steps from 0, or -1 for no mistake.")
    truth = np.array([NO_MISTAKE if at is None else at for at in mistakes])
    hit = np.array([said is not None and said == at for said, at in zip(predictions, truth.tolist(), strict=True)])
    faulty = truth != NO_MISTAKE
    acc1, acc2 = (_accuracy(hit[kind], _of(groups, kind), seed) for kind in (faulty, ~faulty))
    f1 = None
    if few or acc2.n >= FEW:
        sides = [column.astype(float) for column in (hit & faulty, faulty, hit & ~faulty, ~faulty)]
        sums = cluster_sums(np.stack(sides, axis=1), cluster_index(groups, len(hit)))
        f1 = _f1(sums, len(hit), n_resamples, seed)
    return LocationScore(acc1, acc2, f1, sum(said is None for said in predictions))


def _of(groups: Clusters, kind: np.ndarray) -> Clusters:
    return None if groups is None else np.asarray(groups)[kind]


def _accuracy(hit: np.ndarray, groups: Clusters, seed: int) -> Estimate:
    if groups is None or not len(hit):
        low, high = wilson(int(hit.sum()), len(hit))
        return Estimate(float(hit.mean()) if len(hit) else float("nan"), low, high, None, len(hit))
    value, low, high = (float(end[0]) for end in bootstrap_mean(hit.astype(float)[:, None], groups, seed=seed))
    return Estimate(value, low, high, None, len(hit))


def _f1(sums: Float[np.ndarray, "cluster statistic"], n: int, n_resamples: int, seed: int) -> Estimate:
    """Return F1 with its interval; sums of hits and numbers, with a mistake and without, one row a problem."""
    from scipy.stats import DegenerateDataWarning, bootstrap

    value = float(_harmonic(sums.sum(axis=0)))
    if len(sums) < 2 or np.isnan(value):
        return Estimate(value, float("nan"), float("nan"), None, n)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DegenerateDataWarning)  # a constant prediction scores 0 in every draw
        drawn = bootstrap(
            (np.arange(len(sums)),),
            lambda at, axis: _harmonic(sums[at].sum(axis=axis - 1)),  # behind the axis of draws: the four sums
            method="percentile",
            n_resamples=n_resamples,
            batch=max(1, 1_000_000 // sums.size),
            vectorized=True,
            rng=generator(seed, "f1"),
        )
    # Draws without any solution of one kind have no F1; they are rare unless those are few.
    low, high = np.nanquantile(drawn.bootstrap_distribution, [0.025, 0.975])
    return Estimate(value, float(low), float(high), None, n)


def _harmonic(sums: Float[np.ndarray, "... statistic"]) -> Float[np.ndarray, "..."]:
    hits1, n1, hits2, n2 = np.moveaxis(sums, -1, 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        acc1, acc2 = hits1 / n1, hits2 / n2
        return np.where(acc1 + acc2 == 0, 0.0, 2 * acc1 * acc2 / (acc1 + acc2))
