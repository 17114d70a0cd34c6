r"""One side of a head's attention scores, linear in the residual stream once the scales of its norms are frozen.

With s and s' the scales of the block's input norm and of the head's QK-norm in a run (no norm: 1, C the identity), the
query of stream x (keys alike) is

    q = C'((C x / s * g + b_norm) W_Q + b_Q) / s' * g' + b'
      = linear(x) + constants          linear(x) = C'(C x * g) W_Q * g' / (s s')
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from mechint.errors import PositionError
from mechint.model.base import Model, Rows
from mechint.model.norms import Norm
from mechint.positions import TokenBatch


@dataclass(frozen=True)
class FrozenSide:
    """From the stream before a block to one head's queries, or keys, at the positions of a run; before rotation."""

    norm: Norm | None
    weight: Float[Tensor, "d_model d_head"]
    bias: Float[Tensor, " d_head"]
    head_norm: Norm | None
    factor: Float[Tensor, "batch pos 1"]
    """1 / (s s'): what the frozen scales multiply every position's input by."""
    head_factor: Float[Tensor, "batch pos 1"]
    """1 / s'."""

    def direction(self, x: Float[Tensor, "*batch d_model"]) -> Float[Tensor, "*batch d_head"]:
        """Map parts of the stream, without the factor of a position."""
        if self.norm is not None:
            x = self.norm.centre(x) * self.norm.gain
        return self._into_head(x @ self.weight)

    def linear(self, x: Float[Tensor, "batch pos component d_model"]) -> Float[Tensor, "batch pos component d_head"]:
        """Map parts of the stream at each position; parts that add up to the stream give all but the constants."""
        return self.direction(x) * self.factor[:, :, None]

    @property
    def constants(self) -> Float[Tensor, "batch pos component d_head"]:
        """Return the two terms that the stream has nothing to do with: of the norm's bias, and of b_Q or b_K."""
        nothing = torch.zeros_like(self.bias)
        of_norm = nothing if self.norm is None or self.norm.bias is None else self.norm.bias @ self.weight
        terms = self._into_head(torch.stack([of_norm, self.bias])) * self.head_factor[:, :, None]
        if self.head_norm is not None and self.head_norm.bias is not None:
            terms = terms + torch.stack([nothing, self.head_norm.bias])
        return terms

    def _into_head(self, projected: Float[Tensor, "*batch d_head"]) -> Float[Tensor, "*batch d_head"]:
        return projected if self.head_norm is None else self.head_norm.centre(projected) * self.head_norm.gain


def frozen_sides(
    model: Model, layer: int, head: int, resid_pre: Float[Tensor, "batch pos d_model"]
) -> tuple[FrozenSide, FrozenSide]:
    """Return the query side and the key side of a head, their scales those of this stream before its block.

    Args:
        model: the model.
        layer: the block.
        head: the query head; its keys are those of its group.
        resid_pre: the stream before the block.
    """
    weights, scoring, norm = model.projections(layer), model.scoring(layer), model.norm("attn_in", layer)
    kv_head = head // (model.facts.n_heads // model.facts.n_kv_heads)
    x = resid_pre if norm is None else norm(resid_pre)
    one = torch.ones(*resid_pre.shape[:2], 1)
    scale = one if norm is None else norm.scale(resid_pre)
    sides: list[FrozenSide] = []
    for weight, bias, head_norm in (
        (weights.W_Q[head], weights.b_Q[head], scoring.q_norm),
        (weights.W_K[kv_head], weights.b_K[kv_head], scoring.k_norm),
    ):
        head_scale = one if head_norm is None else head_norm.scale(x @ weight + bias)
        sides.append(FrozenSide(norm, weight, bias, head_norm, 1 / (scale * head_scale), 1 / head_scale))
    return sides[0], sides[1]


def counted_from_first_column(model: Model, rows: Rows) -> TokenBatch:
    """Make a batch of rows in which the position of a token is its column, as rotations here take for granted.

    Raises:
        PositionError: rows padded on the left, or with an attention structure of their own.
    """
    batch = model.batch(rows)
    if batch.padded_left or batch.visible is not None:
        raise PositionError("Scores are taken apart on plain rows, padded on the right if at all. These are not.")
    return batch
