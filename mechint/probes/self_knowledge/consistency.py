r"""Internal consistency: do the blocks of a model, read through the lens, agree with what it says in the end?

    calibrated    ŷ^l = argmax_k (p^l_k - τ^l_k),   τ^l_k: the (C-1)/C quantile of p^l_k over a balanced set, C labels
    IC            (1/(L-1)) Σ_{l<L} 1[ŷ^l = ŷ^L]

(Xie et al. 2024, arXiv 2405.18711. Their mean keeps l = L, so that IC is at least 1/L whatever the model; here it is
left out.) The threshold takes out what early blocks prefer of themselves. Weighted self-consistency answers with

    argmax_y Σ_s IC_s 1[y_s = y]            over samples s, IC_s: the share of blocks that agree with sample s
"""

import numpy as np
from jaxtyping import Float, Int

from mechint.errors import PromptError


def thresholds(
    p: Float[np.ndarray, "prompt layer column"], right: Int[np.ndarray, " prompt"]
) -> Float[np.ndarray, "layer column"]:
    """Return τ, over as many rows of each right label: the first of them.

    Args:
        p: from `reading.lens`, labels in an order that does not depend on which is right.
        right: which label is the right one.

    Raises:
        PromptError: some label is never right, so that no set is balanced.
    """
    n_labels = p.shape[2]
    counts = np.bincount(right, minlength=n_labels)
    if counts.min() == 0:
        raise PromptError(
            f"The labels are right {counts.tolist()} times among the {len(p)} questions for calibration. A balanced "
            "set needs each at least once: give more questions."
        )
    kept = np.concatenate([np.flatnonzero(right == label)[: counts.min()] for label in range(n_labels)])
    return np.quantile(p[kept], (n_labels - 1) / n_labels, axis=0)


def agreeing(
    p: Float[np.ndarray, "prompt layer column"],
    answers: Int[np.ndarray, " prompt"],
    tau: Float[np.ndarray, "layer column"] | None = None,
) -> Float[np.ndarray, "prompt statistic"]:
    """Return whether each block but the last says the answer: 1, 0, or 1/2 where two labels tie.

    Args:
        p: from `reading.lens`.
        answers: the label that the model, or a sample, gives.
        tau: from `thresholds`; without them blocks are read as they are.

    Examples:
        >>> agreeing(np.array([[[0.4, 0.6], [0.7, 0.3], [0.9, 0.1]]]), np.array([0])).tolist()
        [[0.0, 1.0]]
    """
    score = p[:, :-1] if tau is None else p[:, :-1] - tau[:-1]
    best = score == score.max(2, keepdims=True)
    return np.take_along_axis(best, answers[:, None, None], 2)[..., 0] / best.sum(2)


def weighted_vote(answers: Int[np.ndarray, " sample"], weights: Float[np.ndarray, " sample"], tie: int) -> int:
    """Return the answer with the largest weight; `tie` where that is not one answer, or none has any.

    Examples:
        >>> weighted_vote(np.array([0, 0, 1]), np.array([0.2, 0.2, 0.9]), 0)
        1
    """
    sums = np.bincount(answers, weights=weights)
    best = np.flatnonzero(sums >= sums.max() - 1e-12)
    return int(best[0]) if len(best) == 1 and sums.max() > 0 else tie
