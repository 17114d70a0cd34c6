"""What a part of a plan does to an activation, at a strength of its own for every token.

For an activation h, a direction v with unit vector u, and a dose c:

    add             h + c n u               n: what dose 1 is long, such as the median |h| of the site
    add to itself   h + c |h| u             each token in units of its own length
    ... preserving  h' |h| / |h'|           afterwards, so that only the direction changes
    project out     h - c (h·u) u           c = 1 takes the direction out altogether
    clamp           h + c (clip(h·u, low, high) - h·u) u
    replace         h + c (x - h)           x: given values, zero, or the mean at this place

Each is the identity at dose 0; a plan leaves such tokens untouched, bit by bit. Norm-preserving addition in units of a
token's own length is the steering of "Psychopathological computations" (2025).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from mechint.errors import InterventionError

Act = Callable[[Tensor, Tensor, Tensor], Tensor]
"""From an activation [batch, pos, ...], doses [batch, pos] and places in the text [batch, pos] to a new activation."""


@dataclass(frozen=True, eq=False)
class Recipe:
    """What an action does, in numbers: for those who have it carried out elsewhere."""

    kind: Literal["add", "add to own length", "project out", "clamp", "replace"]
    values: Float[Tensor, "..."]
    """What dose 1 adds, the unit vector, or what is put in."""
    preserve: bool = False
    """Whether each token is scaled back to the length it had."""


@dataclass(frozen=True, eq=False)
class Action:
    """A rewrite with a dose for every token."""

    name: str
    act: Act
    additive: bool = False
    """Whether it adds the same whatever else is added, so that order does not matter."""
    recipe: Recipe | None = None
    """None where no numbers say it, such as means by position."""

    def __call__(self, h: Tensor, dose: Tensor, offset: Tensor) -> Tensor:
        """Rewrite every token."""
        return self.act(h, dose, offset)


def adding(step: Float[Tensor, " width"], *, preserve: bool) -> Action:
    """Add dose times a step, which is as long as dose 1."""

    def act(h: Tensor, dose: Tensor, _: Tensor) -> Tensor:
        new = h + _wide(dose, h) * _fitting(step, h, "add")
        return _as_long_as(h, new) if preserve else new

    name = "add, preserving norms" if preserve else "add"
    return Action(name, act, additive=not preserve, recipe=Recipe("add", step, preserve))


def adding_to_own_length(unit: Float[Tensor, " width"], *, preserve: bool) -> Action:
    """Add dose times the token's own length along a unit vector."""

    def act(h: Tensor, dose: Tensor, _: Tensor) -> Tensor:
        new = h + _wide(dose, h) * h.norm(dim=-1, keepdim=True) * _fitting(unit, h, "add")
        return _as_long_as(h, new) if preserve else new

    name = "add, preserving norms" if preserve else "add"
    return Action(name, act, recipe=Recipe("add to own length", unit, preserve))


def projecting_out(unit: Float[Tensor, " width"]) -> Action:
    """Take dose times the component along a unit vector out."""

    def act(h: Tensor, dose: Tensor, _: Tensor) -> Tensor:
        direction = _fitting(unit, h, "project_out")
        return h - (dose * (h @ direction))[..., None] * direction

    return Action("project out", act, recipe=Recipe("project out", unit))


def clamping(unit: Float[Tensor, " width"], low: float, high: float) -> Action:
    """Keep the component along a unit vector between two bounds, in raw units."""

    def act(h: Tensor, dose: Tensor, _: Tensor) -> Tensor:
        direction = _fitting(unit, h, "clamp")
        along = h @ direction
        return h + (dose * (along.clamp(low, high) - along))[..., None] * direction

    return Action("clamp", act, recipe=Recipe("clamp", unit))


def replacing(values: Float[Tensor, "..."], name: str = "replace", *, by_place: bool = False) -> Action:
    """Put given values in; `by_place` takes the entry of a token's place in its text."""

    def act(h: Tensor, dose: Tensor, offset: Tensor) -> Tensor:
        if by_place and int(offset.max()) >= len(values):
            raise InterventionError(
                f"{name}: the values cover {len(values)} places, the text has {int(offset.max()) + 1} so far. "
                "Take them over texts at least as long as what is generated."
            )
        chosen = (values[offset] if by_place else values).to(h.dtype)
        try:
            chosen = chosen.expand_as(h)
        except RuntimeError:
            raise InterventionError(
                f"{name}: values of shape {list(values.shape)} do not fit an activation of shape {list(h.shape)}."
            ) from None
        strength = _wide(dose, h)
        return torch.where(strength == 1, chosen, h + strength * (chosen - h))

    return Action(name, act, recipe=None if by_place else Recipe("replace", values))


def _wide(dose: Tensor, h: Tensor) -> Tensor:
    return dose.to(h.dtype).view(*dose.shape, *[1] * (h.ndim - 2))


def _fitting(direction: Tensor, h: Tensor, name: str) -> Tensor:
    if direction.shape[-1] != h.shape[-1]:
        raise InterventionError(
            f"{name}: a direction of {direction.shape[-1]} numbers does not fit activations of width {h.shape[-1]}."
        )
    return direction.to(h.dtype)


def _as_long_as(h: Tensor, new: Tensor) -> Tensor:
    length = new.norm(dim=-1, keepdim=True)
    return torch.where(length > 0, new * (h.norm(dim=-1, keepdim=True) / length.clamp(min=1e-30)), new)
