"""What a null is worth: whether an effect of a given size is excluded, and which size would have been found.

Two one-sided tests (Schuirmann 1987): a statistic θ is equivalent to θ0 within a margin m when both "θ <= θ0 - m" and
"θ >= θ0 + m" are rejected; the larger p of the two is the p of the test. At level α that is the same as the interval
of coverage 1 - 2α lying inside θ0 ± m. From draws θ* of a bootstrap, each one-sided p is (b + 1) / (B + 1), b draws
lying beyond that end.

The smallest effect that is found with a given power by a two-sided test at level α, when the standard error is s:

    (z[1 - α/2] + z[power]) · s
"""

import numpy as np
from jaxtyping import Float


def equivalence_p(draws: Float[np.ndarray, " resample"], centre: float, margin: float) -> float:
    """Return p of "it is at least a margin away from the centre", from draws of a bootstrap.

    NaN draws (a statistic that is not defined in them) count against equivalence.

    Examples:
        >>> equivalence_p(np.linspace(-0.01, 0.01, 99), 0.0, 0.1), equivalence_p(np.full(99, 0.3), 0.0, 0.1)
        (0.01, 1.0)

    Raises:
        ValueError: a margin that is not positive, which nothing can be within.
    """
    if not margin > 0:
        raise ValueError(f"The margin is {margin}. Expected a positive number, in the unit of the statistic.")
    below = 1 + int((~(draws > centre - margin)).sum())
    above = 1 + int((~(draws < centre + margin)).sum())
    return max(below, above) / (1 + len(draws))


def smallest_detectable(standard_error: float, *, power: float = 0.8, alpha: float = 0.05) -> float:
    """Return the smallest effect that a two-sided test finds with this power; in the unit of the statistic.

    Examples:
        >>> round(smallest_detectable(1.0), 2)
        2.8
    """
    from scipy.special import ndtri

    return float((ndtri(1 - alpha / 2) + ndtri(power)) * standard_error)
