"""Directions that mean nothing, of the same length: what an effect has to beat.

    isotropic            v = |w| g/|g|,         g ~ N(0, I)
    covariance-matched   v = |w| X^T g/|X^T g|, g ~ N(0, I) over vectors, X their centred matrix: X^T g ~ N(0, n S)

An isotropic direction hardly touches the few directions in which activations vary; a covariance-matched one does, and
is the harder control.
"""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mechint.capture.activations import Activations
from mechint.errors import InterventionError
from mechint.sites import Site
from mechint.statistics import generator
from mechint.vectors.vector import SteeringVector


def random_like(vector: SteeringVector, seed: int, covariance: Activations | None = None) -> SteeringVector:
    """Return a random vector with the sites, lengths and norms of another.

    Args:
        vector: what it is compared with.
        seed: of the draw; each site has a draw of its own.
        covariance: recorded activations whose covariance the draw shall have; by default the draw is isotropic.

    Raises:
        InterventionError: the activations have another width, or do not vary.
        SiteError: the activations were not recorded at a site of the vector.

    Examples:
        >>> one = SteeringVector({Site.parse("L0H0.z"): torch.tensor([3.0, 4.0])}, {}, "x", "y")
        >>> round(float(random_like(one, seed=0)[one.sites[0]].norm()), 5)
        5.0
    """
    method = "random" if covariance is None else "random_covariance"
    directions: dict[Site, Tensor] = {}
    for site, direction in vector.directions.items():
        rng = generator(seed, method, site)
        if covariance is None:
            drawn = torch.from_numpy(rng.standard_normal(len(direction)))
        else:
            drawn = _of_covariance(covariance[site].flatten(0, 1).double(), rng)
        if len(drawn) != len(direction) or not float(drawn.norm()) > 0:
            raise InterventionError(
                f"{site}: no random direction of width {len(direction)} could be drawn from activations of width "
                f"{len(drawn)}. Expected activations of the same model that vary."
            )
        directions[site] = drawn * (direction.double().norm() / drawn.norm())
    return SteeringVector(
        directions,
        vector.norms,
        f"nothing (random, like {vector.concept})",
        method,
        vector.model,
        {"seed": seed, "like": vector.concept},
    )


def _of_covariance(values: Float[Tensor, "sample width"], rng: np.random.Generator) -> Float[Tensor, " width"]:
    return (values - values.mean(0)).T @ torch.from_numpy(rng.standard_normal(len(values)))
