r"""How good confidences are: calibration, sharpness and ranking, from confidences c in [0, 1] and answers y in {0, 1}.

With answers in bins b of n_b, conf_b the mean of c and acc_b that of y in a bin, ȳ the mean of all N,

    ECE = Σ_b (n_b / N) |acc_b - conf_b|        bins of equal width (Guo et al. 2017); ACE: of equal mass
    reliability  R = Σ_b (n_b / N) (acc_b - conf_b)²        resolution S = Σ_b (n_b / N) (acc_b - ȳ)²
    uncertainty  U = ȳ (1 - ȳ)                              within W = mean[(c - conf_b)² - 2 (c - conf_b)(y - acc_b)]
    Brier score  mean (c - y)² = R - S + U + W, exactly     skill = 1 - Brier / U

(Murphy 1973; W is what binning leaves out, Stephenson, Coelho and Jolliffe 2008, and 0 where every bin holds one
confidence.) Both errors are biased up, by about sqrt(B / N) for B bins: a forecaster without fault has one as well.
`calibrated_errors` draws what it would be, y ~ Bernoulli(c) (Bröcker and Smith 2007); and without bias, squared,

    Σ_b (n_b / N) [(acc_b - conf_b)² - acc_b (1 - acc_b) / (n_b - 1)]        (Kumar, Liang and Ma 2019; n_b > 1)

Risk and coverage (El-Yaniv and Wiener 2010): the share of wrong answers among the k that are surest, against k / N;
AURC is the mean over k. Where confidences tie, risks are those expected of a random order.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from mechint.statistics.seeds import generator


@dataclass(frozen=True)
class Brier:
    """The Brier score and its parts: score = reliability - resolution + uncertainty + within."""

    score: float
    reliability: float
    """0 where confidence and accuracy agree in every bin."""
    resolution: float
    """How far the accuracy of bins is from that of all: what confidences tell apart."""
    uncertainty: float
    """The score of always saying the share that is right."""
    within: float
    """What bins leave out; may be negative."""

    @property
    def skill(self) -> float:
        """1: perfect; 0: no better than always saying the share that is right; NaN where all answers are alike."""
        return 1 - self.score / self.uncertainty if self.uncertainty > 0 else float("nan")


def bin_index(p: Float[np.ndarray, " column"], n_bins: int) -> Int[np.ndarray, " column"]:
    """Return the bin [i/n, (i+1)/n) of each probability; p = 1 belongs to the last.

    Examples:
        >>> bin_index(np.array([0.0, 0.05, 0.999, 1.0]), 10).tolist()
        [0, 0, 9, 9]
    """
    return np.minimum((p * n_bins).astype(int), n_bins - 1)


def equal_mass_index(c: Float[np.ndarray, " sample"], n_bins: int) -> Int[np.ndarray, " sample"]:
    """Return the bin of each confidence, of as equal a number as ties allow: equal confidences share a bin.

    Examples:
        >>> equal_mass_index(np.array([0.1, 0.9, 0.5, 0.5, 0.5, 0.2]), 3).tolist()
        [0, 2, 1, 1, 1, 0]
    """
    from scipy.stats import rankdata

    middle = rankdata(c) - 0.5
    return np.minimum((middle / len(c) * n_bins).astype(int), n_bins - 1)


def expected_calibration_error(
    n: Float[np.ndarray, "*batch column"],
    correct: Float[np.ndarray, "*batch column"],
    confidence: Float[np.ndarray, "*batch column"],
) -> Float[np.ndarray, "*batch"]:
    """Return the expected calibration error of predictions in bins (last axis); NaN where there are none.

    Args:
        n: predictions in each bin.
        correct: how many of them came true.
        confidence: sum of their probabilities.

    Examples:
        >>> float(expected_calibration_error(np.array([4.0, 4]), np.array([1.0, 3]), np.array([1.0, 4])))
        0.125
    """
    total = n.sum(-1)
    error = np.abs(correct - confidence).sum(-1)
    return np.divide(error, total, out=np.full_like(error, np.nan), where=total > 0)


def calibration_error(
    c: Float[np.ndarray, " sample"], y: Int[np.ndarray, " sample"], n_bins: int = 10, *, equal_mass: bool = False
) -> float:
    """Return ECE, or ACE with bins of equal mass.

    Raises:
        ValueError: confidences outside of 0 to 1, answers that are not 0 or 1, or none.

    Examples:
        >>> calibration_error(np.array([1.0, 1.0, 0.0]), np.array([1, 0, 0]))
        0.3333333333333333
    """
    return float(expected_calibration_error(*_sums(_indexed(c, y, n_bins, equal_mass), c, y)))


def calibrated_errors(
    c: Float[np.ndarray, " sample"],
    n_bins: int = 10,
    *,
    equal_mass: bool = False,
    n_resamples: int = 1000,
    seed: int = 0,
) -> Float[np.ndarray, " resample"]:
    """Return draws of the error of a forecaster who says c and is perfectly calibrated: what bias alone gives."""
    index = _indexed(c, np.zeros(len(c), dtype=int), n_bins, equal_mass)
    rng = generator(seed, "calibrated")
    weights = np.equal.outer(index, np.unique(index)).astype(float)
    y = (rng.random((n_resamples, len(c))) < c).astype(float)
    return np.abs((y - c) @ weights).sum(1) / len(c)


def squared_error_unbiased(c: Float[np.ndarray, " sample"], y: Int[np.ndarray, " sample"], n_bins: int = 10) -> float:
    """Return the squared calibration error without its bias, bins of equal mass; below 0 by chance.

    Bins of one answer tell nothing of their spread and are left out; NaN where no other is there.
    """
    n, correct, total = _sums(_indexed(c, y, n_bins, True), c, y)
    kept = n > 1
    if not kept.any():
        return float("nan")
    n, correct, total = n[kept], correct[kept], total[kept]
    accuracy = correct / n
    found = (accuracy - total / n) ** 2 - accuracy * (1 - accuracy) / (n - 1)
    return float((n * found).sum() / n.sum())


def brier(c: Float[np.ndarray, " sample"], y: Int[np.ndarray, " sample"], n_bins: int = 10) -> Brier:
    """Return the Brier score with Murphy's parts, bins of equal width.

    Raises:
        ValueError: as in `calibration_error`.

    Examples:
        >>> one = brier(np.array([1.0, 1.0, 0.0, 0.0]), np.array([1, 0, 0, 0]))
        >>> one.score, one.reliability, one.resolution, one.uncertainty, one.within
        (0.25, 0.125, 0.0625, 0.1875, 0.0)
    """
    index = _indexed(c, y, n_bins, False)
    n, correct, total = _sums(index, c, y)
    accuracy, confidence = correct / n, total / n
    _, own = np.unique(index, return_inverse=True)
    off = c - confidence[own]
    return Brier(
        score=float(((c - y) ** 2).mean()),
        reliability=float((n * (accuracy - confidence) ** 2).sum() / len(c)),
        resolution=float((n * (accuracy - y.mean()) ** 2).sum() / len(c)),
        uncertainty=float(y.mean() * (1 - y.mean())),
        within=float((off**2 - 2 * off * (y - accuracy[own])).mean()),
    )


def risk_coverage(
    c: Float[np.ndarray, " sample"], y: Int[np.ndarray, " sample"]
) -> tuple[Float[np.ndarray, " sample"], Float[np.ndarray, " sample"]]:
    """Return coverage k / N and the risk among the k surest, for k = 1 to N.

    Examples:
        >>> [part.tolist() for part in risk_coverage(np.array([0.9, 0.5, 0.5, 0.1]), np.array([1, 1, 0, 0]))]
        [[0.25, 0.5, 0.75, 1.0], [0.0, 0.25, 0.3333333333333333, 0.5]]
    """
    order = np.argsort(-c, kind="stable")
    wrong = 1.0 - y[order]
    # Of answers that tie, each is any of them: every one counts as their mean.
    _, tied, n = np.unique(-c[order], return_inverse=True, return_counts=True)
    k = np.arange(1, len(c) + 1)
    return k / len(c), np.cumsum((np.bincount(tied, weights=wrong) / n)[tied]) / k


def aurc(c: Float[np.ndarray, " sample"], y: Int[np.ndarray, " sample"]) -> float:
    """Return the area under risk and coverage; confidences that tell nothing give the share that is wrong.

    Examples:
        >>> aurc(np.full(4, 0.5), np.array([1, 1, 0, 0]))
        0.5
    """
    return float(risk_coverage(c, y)[1].mean())


def _indexed(
    c: Float[np.ndarray, " sample"], y: Int[np.ndarray, " sample"], n_bins: int, equal_mass: bool
) -> Int[np.ndarray, " sample"]:
    if len(c) != len(y) or len(c) == 0 or not ((c >= 0) & (c <= 1)).all() or not np.isin(y, (0, 1)).all():
        raise ValueError(
            f"{len(c)} confidences and {len(y)} answers. Expected as many of both, at least one, confidences from 0 "
            "to 1 and answers 0 (wrong) or 1 (right); leave out what is not known first."
        )
    return equal_mass_index(c, n_bins) if equal_mass else bin_index(c, n_bins)


def _sums(
    index: Int[np.ndarray, " sample"], c: Float[np.ndarray, " sample"], y: Int[np.ndarray, " sample"]
) -> tuple[Float[np.ndarray, " column"], Float[np.ndarray, " column"], Float[np.ndarray, " column"]]:
    """Return number, right answers and summed confidences of every bin that is not empty, in their order."""
    _, own = np.unique(index, return_inverse=True)
    n, correct, total = (np.bincount(own, weights=values) for values in (np.ones(len(c)), y, c))
    return n, correct, total
