"""Erasure of a concept with the least change (Belrose et al. 2023, "LEACE: Perfect linear concept erasure").

With d = mean(x+) - mean(x-), S the covariance of all x and m their mean,

    r(x) = x - d w·(x - m)        w = S^- d / (d·S^- d)        (S^-: pseudo-inverse)

The two means become one, and therefore no linear predictor, of whatever loss, does better than a constant. Among all
affine maps for which this holds, r changes x least in every norm, in the mean of squares. What is removed (d) and what
is read to remove it (w) are two directions; projecting d out (`interventions.project_out`)
also makes the means one, but removes with it what of x has nothing to do with the concept.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from mechint.capture.activations import Activations
from mechint.capture.moments import Moments, RecordedMoments
from mechint.errors import InterventionError, PromptError
from mechint.interventions import Intervention
from mechint.positions import Positions, everywhere
from mechint.sites import Site


@dataclass(frozen=True, eq=False)
class Eraser:
    """The map r at one site."""

    site: Site
    removed: Float[Tensor, " width"]
    """d: along this the activation is changed; the unscaled mean difference."""
    read: Float[Tensor, " width"]
    """w: with read·removed = 1."""
    mean: Float[Tensor, " width"]
    concept: str

    def __call__(self, h: Float[Tensor, "*batch width"]) -> Float[Tensor, "*batch width"]:
        """Return activations from which the concept is erased, in their own number format.

        Raises:
            InterventionError: they have another width.
        """
        if h.shape[-1] != len(self.mean):
            raise InterventionError(
                f"Erasing {self.concept!r} at {self.site}: expected {len(self.mean)} numbers a token, got "
                f"{h.shape[-1]}. Use it at the site, and in the model, where it was fitted."
            )
        along = (h.to(self.mean.dtype) - self.mean) @ self.read
        return h - (along[..., None] * self.removed).to(h.dtype)

    def intervention(self, where: Positions = everywhere) -> Intervention:
        """Return the map as an intervention, to be written at its site."""
        return Intervention(f"erase({self.concept})", lambda h, _: self(h), where)


def fit_eraser(data: Activations | RecordedMoments, site: str | Site, concept: str | None = None) -> Eraser:
    """Fit the map at one site of recorded contrast data.

    Raises:
        PromptError: one side is missing.
        SiteError: nothing was recorded there.
        InterventionError: the two sides do not differ, so there is nothing to erase.
    """
    moments, site = RecordedMoments.of(data) if isinstance(data, Activations) else data, Site.parse(site)
    sides = moments.side(site)
    if set(sides) != {0, 1}:
        raise PromptError("One side of the contrast is missing. Record contrast data (mechint.prompts.contrast).")
    both: Moments = sides[0] + sides[1]
    difference = sides[1].mean - sides[0].mean
    if float(difference.norm()) == 0:
        raise InterventionError(f"The two sides have the same mean at {site}: there is nothing to erase.")
    covariance = both.covariance
    # d lies in the range of S, which holds the scatter between the means; the rest of S may well be singular.
    reader = torch.linalg.pinv(covariance, hermitian=True) @ difference
    return Eraser(
        site, difference, reader / (reader @ difference), both.mean, concept or str(moments.data.get("name", "concept"))
    )
