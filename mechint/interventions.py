"""Interventions: pure rewrites of an activation, each told on which tokens to act.

For an activation h at a site and a token that is selected (the rest is left exactly as it was):

    zero            h' = 0
    mean            h' = mean of h at the same position of the row, over the prompts that the means were taken on
    resample        h' = h recorded on another prompt (a derangement, or the counterfactual)
    replace         h' = a given value
    add             h' = h + coefficient * v
    project_out     h' = h - Q Q^T h, Q an orthonormal basis of the given directions
    clamp           h' = h + (clip(h·u, low, high) - h·u) u, u = v/|v|

An intervention knows neither model nor hook: it receives the activation as `Run` gives it (positions in second place;
attention scores and patterns `[batch, head, query, key]`), the place of each token in its text, and returns a tensor of
the same shape.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mechint.errors import InterventionError
from mechint.positions import Positions, everywhere


@dataclass(frozen=True, eq=False)
class Intervention:
    """A rewrite and the tokens it acts on.

    Examples:
        >>> h = torch.tensor([[[3.0, 4.0]]])
        >>> project_out(torch.tensor([0.0, 2.0]))(h, torch.tensor([[0]])).tolist()
        [[[3.0, 0.0]]]
    """

    name: str
    """How it prints, such as `zero` or `add(1.5)`."""
    rewrite: Callable[[Tensor, Tensor], Tensor] = field(repr=False, compare=False)
    """From (activation [batch, pos, ...], place in the text [batch, pos]) to the new activation."""
    where: Positions = everywhere
    """The tokens on which it acts."""

    def __call__(self, activation: Float[Tensor, "batch ..."], offset: Int[Tensor, "batch pos"]) -> Tensor:
        """Rewrite every token of an activation.

        Raises:
            InterventionError: the result has another shape, or the values do not fit this site.
        """
        new = self.rewrite(activation, offset)
        if new.shape != activation.shape:
            raise InterventionError(
                f"{self.name} made {list(new.shape)} out of an activation of shape {list(activation.shape)}. "
                "Expected the same shape: give values that fit this site."
            )
        return new

    def at(self, where: Positions) -> "Intervention":
        """Return the same rewrite on other tokens."""
        return Intervention(self.name, self.rewrite, where)


def zero(where: Positions = everywhere) -> Intervention:
    """Set to zero.

    Examples:
        >>> zero()(torch.ones(1, 2, 3), torch.tensor([[0, 1]])).sum().item()
        0.0
    """
    return Intervention("zero", lambda h, _: torch.zeros_like(h), where)


def mean(values: Float[Tensor, "pos ..."], where: Positions = everywhere) -> Intervention:
    """Set to the mean at the same position of the text; `values` has one entry a position.

    Examples:
        >>> mean(torch.tensor([[1.0], [2.0]]))(torch.zeros(1, 2, 1), torch.tensor([[0, 1]])).flatten().tolist()
        [1.0, 2.0]

    Raises:
        InterventionError: when run on a text longer than the means.
    """

    def rewrite(h: Tensor, offset: Tensor) -> Tensor:
        if int(offset.max()) >= len(values):
            raise InterventionError(
                f"These means cover {len(values)} positions, the text has {int(offset.max()) + 1}. "
                "Take the means over texts at least as long."
            )
        return values[offset].to(h.dtype)

    return Intervention("mean", rewrite, where)


def replace(values: Float[Tensor, "..."], where: Positions = everywhere, name: str = "replace") -> Intervention:
    """Set to given values, which must broadcast to the activation.

    Examples:
        >>> replace(torch.tensor([1.0, 2.0]))(torch.zeros(1, 1, 2), torch.tensor([[0]])).tolist()
        [[[1.0, 2.0]]]
    """

    def rewrite(h: Tensor, _: Tensor) -> Tensor:
        try:
            return values.to(h.dtype).expand_as(h)
        except RuntimeError:
            raise InterventionError(
                f"Cannot write values of shape {list(values.shape)} over an activation of shape {list(h.shape)}."
            ) from None

    return Intervention(name, rewrite, where)


def resample(values: Float[Tensor, "batch pos ..."], where: Positions = everywhere) -> Intervention:
    """Set to what was recorded at the same place on other prompts, row by row (see `derangement`)."""
    return replace(values, where, name="resample")


def add(vector: Float[Tensor, "..."], coefficient: float = 1.0, where: Positions = everywhere) -> Intervention:
    """Add a vector, in raw units of the activation.

    Examples:
        >>> add(torch.tensor([1.0, 0.0]), 2.0)(torch.zeros(1, 1, 2), torch.tensor([[0]])).tolist()
        [[[2.0, 0.0]]]

    Raises:
        InterventionError: the vector or the coefficient is not finite; when run, a vector of another width.
    """
    _require_finite(vector, "add")
    if not math.isfinite(coefficient):
        raise InterventionError(f"add: the coefficient is {coefficient}. Expected a finite number.")
    step, name = coefficient * vector, f"add({coefficient:g})"

    def rewrite(h: Tensor, _: Tensor) -> Tensor:
        _require_width(h, step, name)
        return h + step.to(h.dtype)

    return Intervention(name, rewrite, where)


def project_out(directions: Float[Tensor, "*component width"], where: Positions = everywhere) -> Intervention:
    """Remove the span of one or several directions (rows); dependent directions do no harm.

    Raises:
        InterventionError: a direction is not finite, or all of them are zero; when run, directions of another width.
    """
    _require_finite(directions, "project_out")
    left, singular, right = torch.linalg.svd(directions.reshape(-1, directions.shape[-1]).double(), full_matrices=False)
    del left
    # Directions that are multiples of one another differ by the rounding of their own format, which is no direction.
    rounding = max(directions.shape) * torch.finfo(directions.dtype).eps
    rank = int((singular > singular.max() * rounding).sum()) if float(singular.max()) > 0 else 0
    if rank == 0:
        raise InterventionError("project_out: every direction is zero, so nothing would be removed.")
    basis = right[:rank]

    def rewrite(h: Tensor, _: Tensor) -> Tensor:
        _require_width(h, basis, "project_out")
        return h - (h @ basis.T.to(h.dtype)) @ basis.to(h.dtype)

    return Intervention("project_out", rewrite, where)


def clamp(
    direction: Float[Tensor, " width"], low: float = -math.inf, high: float = math.inf, where: Positions = everywhere
) -> Intervention:
    """Keep the component along a direction between two bounds, in raw units.

    Examples:
        >>> clamp(torch.tensor([2.0, 0.0]), high=1.0)(torch.tensor([[[5.0, 7.0]]]), torch.tensor([[0]])).tolist()
        [[[1.0, 7.0]]]

    Raises:
        InterventionError: the direction is zero or not finite, or the bounds are the wrong way round.
    """
    _require_finite(direction, "clamp")
    if float(direction.norm()) == 0 or not low <= high:
        raise InterventionError(f"clamp: expected a direction other than zero and low <= high, got {low} and {high}.")
    unit = direction / direction.norm()

    def rewrite(h: Tensor, _: Tensor) -> Tensor:
        _require_width(h, unit, "clamp")
        along = h @ unit.to(h.dtype)
        return h + (along.clamp(low, high) - along)[..., None] * unit.to(h.dtype)

    return Intervention(f"clamp({low:g}, {high:g})", rewrite, where)


def derangement(n: int, generator: torch.Generator) -> Int[Tensor, " batch"]:
    """Draw a permutation that leaves nothing in its place, so that no row is resampled from itself.

    Uniform over derangements, by rejection: a permutation is one with probability 1/e, whatever n.

    Raises:
        InterventionError: fewer than two rows, which have no derangement.
    """
    if n < 2:
        raise InterventionError(f"Cannot resample among {n} prompts: give at least two, or ablate to zero.")
    places = torch.arange(n)
    while bool(((drawn := torch.randperm(n, generator=generator)) == places).any()):
        pass
    return drawn


def _require_width(activation: Tensor, values: Tensor, name: str) -> None:
    """Refuse values that would be stretched over the last axis: one number is no direction."""
    if values.shape[-1:] != activation.shape[-1:] or values.ndim > activation.ndim:
        raise InterventionError(
            f"{name}: the values have shape {list(values.shape)}, the activation {list(activation.shape)}. "
            f"Expected vectors of width {activation.shape[-1]}: give values that fit this site."
        )


def _require_finite(values: Tensor, name: str) -> None:
    if not bool(torch.isfinite(values).all()):
        raise InterventionError(f"{name}: the values hold NaN or infinity. Expected finite numbers.")
