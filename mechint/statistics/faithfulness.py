r"""Faithful calibration: does an expressed confidence D say how sure the answers are, I? Both in [0, 1].

    F = 1 - |D - I|             MFG: mean F         cMFG: mean over bins of I of the mean F of a bin

(MetaFaith, Liu et al. 2025; RLMF.) MFG rewards whoever always says what is common. cMFG asks for every degree of I, but
what "says always the same" comes to depends on what is said: with I spread evenly, D = d gives 1 - (d² + (1 - d)²) / 2,
which is 1/2 at d = 0 and d = 1, and 3/4 at d = 1/2. It is no chance level that could be named without D.

The released code of RLMF puts I = 1, the commonest value, into no bin, and lets empty bins count as 0. Here I = 1
belongs to the last bin, and empty bins are left out and counted. cMFG* has bins of equal mass, which are never empty,
each weighted by its width on the axis of I (edges half way between neighbours of two bins, the first and last I at the
ends), with the variance of a stratified mean (Cochran 1977, section 5.3), s_b² that of F in a bin:

    cMFG* = Σ_b w_b F_b / Σ_b w_b          var = Σ_b (w_b / Σ w)² s_b² / n_b
"""

import itertools
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from mechint.statistics.confidence import bin_index


@dataclass(frozen=True)
class Faithfulness:
    """How faithful expressed confidences are; 1 is perfect."""

    mfg: float
    cmfg: float
    cmfg_star: float
    variance: float
    """Of cMFG*; NaN where a bin with width holds one answer only."""
    empty: int
    """Bins of equal width in which no I is, left out of cMFG."""


def faithful_calibration(
    expressed: Float[np.ndarray, " sample"], intrinsic: Float[np.ndarray, " sample"], n_bins: int = 10
) -> Faithfulness:
    """Return MFG, cMFG and cMFG*.

    Args:
        expressed: D of each answer, 0 to 1.
        intrinsic: I of each answer, 0 to 1, such as the share of samples that agree with it.
        n_bins: of both kinds; of equal mass there are no more than answers.

    Raises:
        ValueError: other numbers, none, or not as many of both.

    Examples:
        >>> one = faithful_calibration(np.array([1.0, 1.0, 0.5]), np.array([1.0, 1.0, 0.5]))
        >>> one.mfg, one.cmfg, one.cmfg_star, one.empty
        (1.0, 1.0, 1.0, 8)
    """
    both = np.concatenate([expressed, intrinsic])
    if len(expressed) != len(intrinsic) or len(expressed) == 0 or not ((both >= 0) & (both <= 1)).all():
        raise ValueError(
            f"{len(expressed)} expressed and {len(intrinsic)} intrinsic confidences. Expected as many of both, at "
            "least one, from 0 to 1; leave out what is not known first."
        )
    f = 1 - np.abs(expressed - intrinsic)
    index = bin_index(intrinsic, n_bins)
    filled = np.unique(index)
    star, variance = _stratified(f, intrinsic, n_bins)
    cmfg = float(np.mean([f[index == one].mean() for one in filled]))
    return Faithfulness(float(f.mean()), cmfg, star, variance, n_bins - len(filled))


def _stratified(
    f: Float[np.ndarray, " sample"], intrinsic: Float[np.ndarray, " sample"], n_bins: int
) -> tuple[float, float]:
    """Return cMFG* and its variance."""
    order = np.argsort(intrinsic, kind="stable")
    parts = np.array_split(order, min(n_bins, len(order)))
    inner = [(intrinsic[a[-1]] + intrinsic[b[0]]) / 2 for a, b in itertools.pairwise(parts)]
    widths = np.diff([intrinsic[order[0]], *inner, intrinsic[order[-1]]])
    if not widths.sum() > 0:  # one I only: nothing to weight by
        return float(f.mean()), float(f.var(ddof=1) / len(f)) if len(f) > 1 else float("nan")
    weights = widths / widths.sum()
    means = np.array([f[part].mean() for part in parts])
    spreads = [f[part].var(ddof=1) / len(part) if len(part) > 1 else np.nan for part in parts]
    # A bin without width has no weight, whatever its spread.
    variance = sum(float(w**2 * s) for w, s in zip(weights, spreads, strict=True) if w > 0)
    return float(weights @ means), variance
