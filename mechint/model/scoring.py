r"""How a block turns queries and keys into attention: QK-norm, rotation, scale, soft-cap, mask.

With q_i and k_j as they leave W_Q and W_K (sites `q` and `k`), N_Q and N_K the norms that some families put on every
head's queries and keys (Gemma 3, Qwen 3; otherwise the identity), and T(p) the rotation of position p,

    S_ij = scale * N_Q(q_i) T(i) · N_K(k_j) T(j) = scale * N_Q(q_i) R_{i-j} N_K(k_j)^T        R_D = T(i) T(i-D)^T
    A_i  = softmax over visible j of cap(S_ij)         cap(x) = c tanh(x / c) in Gemma 2, otherwise the identity

Vectors are rows. T(p) turns the plane of two dimensions (a, b) by the angle p f: (a cos - b sin, b cos + a sin), with
one frequency f a plane (rotary position embedding: Su et al. 2021, "RoFormer"). It is linear, so the mean of R_D over
distances is one matrix, and a circuit averaged over distances costs as much as one. Some families scale cos and sin as
well (YaRN).
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mechint.model.norms import Norm


@dataclass(frozen=True)
class Scoring:
    """From projected queries and keys (sites `q` and `k`, before QK-norm and rotation) to attention."""

    d_head: int
    q_norm: Norm | None
    """Norm of each head's query, of width d_head; None where there is none."""
    k_norm: Norm | None
    frequencies: Float[Tensor, " plane"]
    """Radians a position by which each plane turns; empty in models without rotation. It covers the first 2 x planes
    dimensions of a head; the others are not turned."""
    adjacent: bool
    """A plane is dimensions 2i and 2i + 1 (GPT-J); otherwise i and i + planes (Llama, Gemma, NeoX)."""
    turn_factor: float
    """What cos and sin are multiplied by: 1 in most families."""
    scale: float
    """What the product of query and key is multiplied by."""
    cap: float | None
    """c where scores are c·tanh(score / c)."""
    window: int | None
    """How many positions a query sees, itself included; None for all."""

    @property
    def rotary(self) -> bool:
        """Whether distance enters the score at all."""
        return len(self.frequencies) > 0

    def normed_queries(self, q: Float[Tensor, "*batch d_head"]) -> Float[Tensor, "*batch d_head"]:
        """Apply the QK-norm to queries."""
        return q if self.q_norm is None else self.q_norm(q)

    def normed_keys(self, k: Float[Tensor, "*batch d_head"]) -> Float[Tensor, "*batch d_head"]:
        """Apply the QK-norm to keys."""
        return k if self.k_norm is None else self.k_norm(k)

    def turn(
        self, x: Float[Tensor, "*batch d_head"], positions: Int[Tensor, "*#batch"]
    ) -> Float[Tensor, "*batch d_head"]:
        """Turn normed queries or keys by their positions, which are broadcast over the axes before d_head.

        For an activation [batch, pos, head, d_head] give positions as [pos, 1].
        """
        angles = positions[..., None].float() * self.frequencies
        return self._turned(x, angles.cos(), angles.sin())

    def rotation(self, distance: int) -> Float[Tensor, "d_head d_head"]:
        """Return R_D, with score = scale * q_i R_D k_j for D = position of the query - position of the key."""
        return self.mean_rotation(torch.tensor([distance]))

    def mean_rotation(self, distances: Int[Tensor, " at"]) -> Float[Tensor, "d_head d_head"]:
        """Return the mean of R_D over distances: the circuit of the mean is the mean of the circuits."""
        angles = (distances[:, None].float() * self.frequencies).double()
        # The factor once more: the score has it from the query and from the key.
        cos, sin = ((self.turn_factor * wave.mean(0)).float() for wave in (angles.cos(), angles.sin()))
        return self._turned(torch.eye(self.d_head), cos, sin)

    def scores(
        self, q: Float[Tensor, "batch query head d_head"], k: Float[Tensor, "batch key kv_head d_head"]
    ) -> Float[Tensor, "batch head query key"]:
        """Return S of texts whose rows start at position 0: before soft-cap and mask, later keys included."""
        group = q.shape[2] // k.shape[2]
        queries = self.turn(self.normed_queries(q), torch.arange(q.shape[1])[:, None])
        keys = self.turn(self.normed_keys(k), torch.arange(k.shape[1])[:, None]).repeat_interleave(group, dim=2)
        return torch.einsum("bqhe,bkhe->bhqk", queries, keys) * self.scale

    def pattern(self, scores: Float[Tensor, "*batch query key"]) -> Float[Tensor, "*batch query key"]:
        """Return the attention of scores as `scores` gives them: soft-cap, mask, softmax."""
        return self.log_pattern(scores).exp()

    def log_pattern(self, scores: Float[Tensor, "*batch query key"]) -> Float[Tensor, "*batch query key"]:
        """Return the logarithm of `pattern`: minus infinity where a query does not look."""
        capped = scores if self.cap is None else self.cap * torch.tanh(scores / self.cap)
        return capped.masked_fill(~self.visible(scores.shape[-1]), -torch.inf).log_softmax(-1)

    def visible(self, length: int) -> Bool[Tensor, "query key"]:
        """Say which keys each query of a text sees: itself and earlier ones, within the window."""
        distance = torch.arange(length)[:, None] - torch.arange(length)
        seen = distance >= 0
        return seen if self.window is None else seen & (distance < self.window)

    def _turned(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        planes = len(self.frequencies)
        if planes == 0:
            return x
        cos, sin = cos * self.turn_factor, sin * self.turn_factor
        turned, rest = x[..., : 2 * planes], x[..., 2 * planes :]
        a, b = (turned[..., ::2], turned[..., 1::2]) if self.adjacent else turned.split(planes, dim=-1)
        pairs = (a * cos - b * sin, b * cos + a * sin)
        turned = torch.stack(pairs, -1).flatten(-2) if self.adjacent else torch.cat(pairs, -1)
        return torch.cat([turned, rest], -1)
