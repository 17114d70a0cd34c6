"""Corrections for having tested many things: Holm 1979 (any error), Benjamini and Yekutieli 2001 (share of errors).

Both hold under any dependence, as heads of one model need it. A NaN p-value is a test that was not made: it stays
NaN and is not counted.
"""

import numpy as np
from jaxtyping import Float


def holm(p: Float[np.ndarray, " statistic"]) -> Float[np.ndarray, " statistic"]:
    """Return p corrected so that the chance of any false finding is controlled.

    Examples:
        >>> holm(np.array([0.01, 0.04, np.nan])).tolist()
        [0.02, 0.04, nan]
    """
    return _corrected(p, "holm")


def benjamini_yekutieli(p: Float[np.ndarray, " statistic"]) -> Float[np.ndarray, " statistic"]:
    """Return p corrected so that the expected share of false findings is controlled, under any dependence.

    Examples:
        >>> benjamini_yekutieli(np.array([0.01, 0.04])).round(4).tolist()
        [0.03, 0.06]
    """
    return _corrected(p, "fdr_by")


def _corrected(p: Float[np.ndarray, " statistic"], method: str) -> Float[np.ndarray, " statistic"]:
    from statsmodels.stats.multitest import multipletests

    tested = ~np.isnan(p)
    corrected = np.full(len(p), np.nan)
    if tested.any():
        corrected[tested] = multipletests(p[tested], method=method)[1]
    return corrected
