"""Means and covariances of activations that are too many to keep, added up bucket by bucket in float64.

Two sets of n and m vectors with means a and b and scatter S and T (sums of outer products about their means) are one
set with (Chan, Golub and LeVeque 1983, "Algorithms for computing the sample variance"):

    mean = a + d m/(n+m)        scatter = S + T + d d^T n m/(n+m)        d = b - a

Sums of raw squares would lose the digits in which residual streams, whose means are large, differ.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from mechint.capture.activations import LAST, MOST_BYTES, Activations, identity, median_norms
from mechint.capture.passes import Passes, Pooled, Sites
from mechint.capture.texts import AnyTexts
from mechint.errors import ConfigError, PromptError, SiteError
from mechint.model.base import Model
from mechint.positions import Positions
from mechint.sites import Site


@dataclass(frozen=True, eq=False)
class Moments:
    """Number, mean and scatter of some vectors, in float64.

    Examples:
        >>> both = Moments.of(torch.tensor([[0.0], [2.0]])) + Moments.of(torch.tensor([[7.0]]))
        >>> both.n, both.mean.item(), both.covariance.item()
        (3, 3.0, 13.0)
    """

    n: int
    mean: Float[Tensor, " width"]
    scatter: Float[Tensor, "width width"]
    """Sum of (x - mean)(x - mean)^T."""

    @classmethod
    def of(cls, vectors: Float[Tensor, "sample width"]) -> "Moments":
        """Take the moments of vectors that are at hand, at least one."""
        mean = vectors.double().mean(0)
        centred = vectors.double() - mean
        return cls(len(vectors), mean, centred.T @ centred)

    def __add__(self, other: "Moments") -> "Moments":
        n = self.n + other.n
        difference = other.mean - self.mean
        between = torch.outer(difference, difference) * (self.n * other.n / n)
        return Moments(n, self.mean + difference * (other.n / n), self.scatter + other.scatter + between)

    @property
    def covariance(self) -> Float[Tensor, "width width"]:
        """The unbiased estimate: scatter / (n - 1).

        Raises:
            PromptError: fewer than two vectors, which have no covariance.
        """
        if self.n < 2:
            raise PromptError(f"{self.n} vectors have no covariance. Record at least two texts.")
        return self.scatter / (self.n - 1)


@dataclass(frozen=True, eq=False)
class RecordedMoments:
    """Moments of each side of contrast data, at each site; fields as in `Activations`."""

    moments: Mapping[Site, Mapping[int, Moments]]
    """By site and label: 1 positive, 0 negative; texts without sides are all 0."""
    groups: tuple[str, ...]
    at: str
    norms: Mapping[Site, float]
    model: Mapping[str, str]
    data: Mapping[str, Any]

    @classmethod
    def of(cls, recorded: Activations) -> "RecordedMoments":
        """Take the moments of recorded activations; every position counts as one vector."""
        labels = torch.tensor(recorded.labels or (0,) * len(recorded))
        moments = {
            site: {label: Moments.of(values[labels == label].flatten(0, 1)) for label in sorted(set(labels.tolist()))}
            for site, values in recorded.values.items()
        }
        return cls(moments, recorded.groups, recorded.at, recorded.norms, recorded.model, recorded.data)

    def side(self, site: str | Site) -> Mapping[int, Moments]:
        """Return the moments at a site, by label.

        Raises:
            SiteError: nothing was recorded there.
        """
        site = Site.parse(site)
        if site not in self.moments:
            raise SiteError(f"{site} was not recorded. Recorded: {', '.join(map(str, self.moments))}.")
        return self.moments[site]


def record_moments(
    model: Model,
    texts: AnyTexts,
    sites: Sites,
    at: Positions = LAST,
    *,
    pooled: Pooled = None,
    most_bytes: int = MOST_BYTES,
    progress: bool | None = None,
) -> RecordedMoments:
    """Run a model on texts and keep means and covariances only, so that memory does not grow with the texts.

    Arguments and errors as in `record`; `most_bytes` bounds the covariances, 8 x width² bytes a site and side.
    """
    plan = Passes.plan(model, texts, sites, at, pooled)
    labels = plan.texts.labels or (0,) * len(plan.tokens)
    needed = 8 * len(set(labels)) * sum(width**2 for width in plan.widths)
    if needed > most_bytes:
        raise ConfigError(
            f"Covariances at {len(plan.sites)} sites are {needed / 2**30:.3g} GiB; the limit is "
            f"{most_bytes / 2**30:.3g} GiB. Record fewer sites, or raise most_bytes."
        )
    moments: dict[Site, dict[int, Moments]] = {site: {} for site in plan.sites}
    norms: dict[Site, list[Tensor]] = {site: [] for site in plan.sites}
    for bucket in plan.run(progress):
        sides = torch.tensor([labels[row] for row in bucket.rows])
        for site in plan.sites:
            norms[site].append(bucket.norms[site])
            for label in set(sides.tolist()):
                new = Moments.of(bucket.values[site][sides == label].flatten(0, 1))
                known = moments[site].get(label)
                moments[site][label] = new if known is None else known + new
    groups, norm = plan.texts.groups, median_norms(norms)
    return RecordedMoments(moments, groups, plan.where, norm, identity(model), plan.data)
