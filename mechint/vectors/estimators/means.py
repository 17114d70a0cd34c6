"""Directions from means and covariances: mean difference and shrinkage discriminant; for vectors and for moments.

With classes N(μ ± δ/2, Σ), n vectors each, m± their means:

    mean difference    v = m+ - m-                                  → δ
        (Marks and Tegmark 2023, "The Geometry of Truth"; Rimsky et al. 2024, contrastive activation addition.
        With pairs it is the mean of their differences, the same number.)
        Σ = σ² I: cosine with δ ≈ (1 + 2 σ² (d - 1) / (n |δ|²))^(-1/2)
    discriminant       v = S^(-1) (m+ - m-)                         → Σ^(-1) δ
        (Fisher 1936; S = (1 - a) C + a tr(C)/d I, C the pooled covariance within classes; a by Ledoit and Wolf 2004
        from vectors, or by the oracle approximation of Chen et al. 2010 from moments alone.)

The mean difference is what the texts differ by; the discriminant is what tells them apart best, which is another
direction wherever the noise is not the same in all directions. Steering adds the former; reading uses the latter.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from mechint.capture.moments import Moments
from mechint.vectors.samples import Samples


def mean_difference(samples: Samples) -> Float[Tensor, " width"]:
    """Return the mean of positive minus the mean of negative vectors."""
    return samples.positive.mean(0) - samples.negative.mean(0)


def discriminant(samples: Samples) -> Float[Tensor, " width"]:
    """Return Fisher's direction with the covariance shrunk after Ledoit and Wolf."""
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    fitted = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto", priors=[0.5, 0.5]).fit(samples.x, samples.y)
    return torch.from_numpy(fitted.coef_[0])


def mean_difference_of(positive: Moments, negative: Moments) -> Float[Tensor, " width"]:
    """Return the difference of two means."""
    return positive.mean - negative.mean


def discriminant_of(positive: Moments, negative: Moments) -> Float[Tensor, " width"]:
    """Return Fisher's direction with the covariance shrunk by the oracle approximation."""
    n = positive.n + negative.n - 2
    pooled = (positive.scatter + negative.scatter) / n
    return torch.linalg.solve(shrunk(pooled, n), positive.mean - negative.mean)


def shrunk(covariance: Float[Tensor, "width width"], n: int) -> Float[Tensor, "width width"]:
    """Shrink a covariance of n vectors towards a multiple of the identity (Chen et al. 2010, eq. 23).

    Examples:
        >>> shrunk(torch.eye(2, dtype=torch.double), 5).tolist()
        [[1.0, 0.0], [0.0, 1.0]]
    """
    width = len(covariance)
    mean, square = covariance.trace() / width, (covariance**2).mean()
    spread = (n + 1) * (square - mean**2 / width)
    share = 1.0 if float(spread) <= 0 else min(1.0, float((square + mean**2) / spread))
    return (1 - share) * covariance + share * mean * torch.eye(width, dtype=covariance.dtype)
