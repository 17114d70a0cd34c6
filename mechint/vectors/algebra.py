"""Vectors combined with vectors, site by site; both must be of the same sites of the same weights."""

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from mechint.errors import InterventionError

if TYPE_CHECKING:
    from mechint.vectors.vector import SteeringVector
else:
    SteeringVector = Any  # vectors import this module for their own operators

Rule = Callable[[Float[Tensor, " width"], Float[Tensor, " width"]], Float[Tensor, " width"]]


def combined(one: SteeringVector, other: SteeringVector, sign: str, rule: Rule) -> SteeringVector:
    """Return a vector made of two, computed in float64, without the calibration of either.

    Raises:
        InterventionError: they differ in sites, weights or widths, or nothing is left.
    """
    require_alike(one, other, sign)
    concept = f"{one.concept} {sign} {other.concept}"
    return replace(
        one,
        directions={site: rule(v.double(), other[site].double()) for site, v in one.directions.items()},
        norms={**other.norms, **one.norms},
        concept=concept,
        method=one.method if one.method == other.method else f"{one.method} {sign} {other.method}",
        provenance={"expression": concept, "parts": [source(one), source(other)]},
        calibration=None,
    )


def without(v: Float[Tensor, " width"], w: Float[Tensor, " width"]) -> Float[Tensor, " width"]:
    """Return v - (v·u) u with u = w/|w|; zeros if v is parallel to w."""
    u = w / w.norm()
    left = v - (v @ u) * u
    # What is left of a parallel vector is the rounding of float32, which is no direction.
    return left if float(left.norm()) > 1e-6 * float(v.norm()) else torch.zeros_like(v)


def source(vector: SteeringVector) -> dict[str, Any]:
    """Return what a vector says of itself to those that are made of it."""
    return {"concept": vector.concept, "method": vector.method, "provenance": dict(vector.provenance)}


def opposite(concept: str) -> str:
    """Name the other end of a concept.

    Examples:
        >>> opposite("cheer"), opposite("less cheer")
        ('less cheer', 'cheer')
    """
    return concept.removeprefix("less ") if concept.startswith("less ") else f"less {concept}"


def require_alike(one: SteeringVector, other: SteeringVector, what: str) -> None:
    """Refuse vectors of different sites, weights or widths.

    Raises:
        InterventionError: they differ; says in what.
    """
    for name, mine, theirs in (
        ("sites", ", ".join(map(str, one.sites)), ", ".join(map(str, other.sites))),
        ("weights", one.model.get("weights"), other.model.get("weights")),
        ("widths", [len(v) for v in one.directions.values()], [len(v) for v in other.directions.values()]),
    ):
        if mine != theirs:
            raise InterventionError(
                f"{what}: {one.concept!r} has {name} {mine}, {other.concept!r} has {theirs}. Expected the same "
                "sites of one model: restrict both with at(...)."
            )
