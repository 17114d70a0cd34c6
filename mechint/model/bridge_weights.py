"""The weights behind TransformerLens' bridge, each checked against what the modules themselves compute."""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mechint.errors import UnsupportedModelError
from mechint.model.base import Model, Restart
from mechint.model.bridge_scoring import find_scoring
from mechint.model.facts import read_norm
from mechint.model.products import product
from mechint.model.scoring import Scoring
from mechint.model.weights import Norm, Projections
from mechint.sites import Site

_NORMS = {"attn_in": "ln1", "mlp_in": "ln2", "attn_post": "ln1_post", "mlp_post": "ln2_post"}
_TOLERANCE = 1e-4


class BridgeWeights(Model):
    """The weights of a bridged model; the class that builds the bridge fills in the attributes, and runs it."""

    _bridge: Any
    _head: Any
    """The unembedding, a linear module."""
    _logit_scale: float
    _norms: dict[tuple[str, int | None], Norm | None]
    _projections: dict[int, Projections]
    _scorings: dict[int, Scoring]
    _hf: Any
    """The transformers model that the bridge wraps."""

    def unembed(self, normalised: Float[Tensor, "*batch d_model"]) -> Float[Tensor, "*batch d_vocab"]:
        """Turn the output of the final norm into logits, before the soft-cap."""
        logits = product(normalised, self._head.weight.detach())
        if self._head.bias is not None:
            logits = logits + self._head.bias.detach()
        return logits if self._logit_scale == 1 else logits * self._logit_scale

    def unembedding(self, columns: Int[Tensor, "*batch"] | slice) -> Float[Tensor, "*batch d_model"]:
        """Return the output direction of vocabulary entries."""
        directions = self._head.weight.detach()[columns]
        return directions if self._logit_scale == 1 else directions * self._logit_scale

    def output_bias(self, columns: Int[Tensor, "*batch"] | slice) -> Float[Tensor, "*batch"]:
        """Return the bias of the unembedding at vocabulary entries."""
        if self._head.bias is None:
            return self._head.weight.new_zeros(1).expand(self.facts.d_vocab)[columns]  # one number, seen d_vocab times
        return self._head.bias.detach()[columns] * self._logit_scale

    def output_weights(self, layer: int) -> tuple[Float[Tensor, "head d_head d_model"], Float[Tensor, " d_model"]]:
        """Return W_O of every query head of a block, and the bias of the attention output."""
        linear = unwrap(self._bridge.blocks[layer].attn.o)
        weight = linear.weight.detach()
        inputs_first = weight if type(linear).__name__ == "Conv1D" else weight.T
        bias = linear.bias.detach() if linear.bias is not None else weight.new_zeros(self.facts.d_model)
        return inputs_first.reshape(self.facts.n_heads, -1, self.facts.d_model), bias

    def norm(self, where: str, layer: int | None = None) -> Norm | None:
        """Return a norm; see `Weights.norm`."""
        if (where, layer) not in self._norms:
            self._norms[where, layer] = self._read_norm(where, layer)
        return self._norms[where, layer]

    def _read_norm(self, where: str, layer: int | None) -> Norm | None:
        if where == "final":
            return read_norm(unwrap(self._bridge.ln_final), self.facts)
        block = self._bridge.blocks[layer]
        # Blocks in which attention and MLP read one and the same norm (GPT-J) have no second.
        norm = getattr(block, _NORMS[where], None) or (block.ln1 if where == "mlp_in" else None)
        return None if norm is None else read_norm(unwrap(norm), self.facts)

    def projections(self, layer: int) -> Projections:
        """Return W_Q, W_K, W_V of every head of a block, with their biases."""
        if layer not in self._projections:
            found = self._read_projections(layer)
            self._check_projections(found, layer)
            self._projections[layer] = found
        return self._projections[layer]

    def _read_projections(self, layer: int) -> Projections:
        attention, sizes = self._bridge.blocks[layer].attn, (self.facts.n_heads, self.facts.n_kv_heads)
        parts: list[Tensor] = []
        for letter, n_heads in zip("QKV", (sizes[0], sizes[1], sizes[1]), strict=True):
            weight, bias = getattr(attention, f"W_{letter}"), getattr(attention, f"b_{letter}")
            nothing = weight.new_zeros(n_heads, self.facts.d_head)
            parts += [weight.detach(), nothing if bias is None else bias.detach().reshape(n_heads, self.facts.d_head)]
        return Projections(*parts)

    @torch.no_grad()
    def _check_projections(self, found: Projections, layer: int) -> None:
        norm = self.norm("attn_in", layer)
        # Uneven numbers, and different ones for each row, so that no head or bias can be mistaken for another.
        size = 2 * self.facts.d_model
        stream = torch.linspace(-1.0, 3.0, size).sin().mul(2).reshape(2, 1, -1)
        x = stream if norm is None else norm(stream)
        sites = [Site(name, layer) for name in "qkv"]
        run = self.run([[0], [0]], read=sites, from_=Restart(layer, stream), stop_after=sites[-1])
        for site, weight, bias in (
            (sites[0], found.W_Q, found.b_Q),
            (sites[1], found.W_K, found.b_K),
            (sites[2], found.W_V, found.b_V),
        ):
            expected = run[site]
            error = (torch.einsum("bpd,hde->bphe", x, weight) + bias - expected).norm() / expected.norm().clamp(
                min=1e-6
            )
            if not float(error) <= _TOLERANCE:
                raise UnsupportedModelError(
                    f"{site} of {self.facts.name} ({self.facts.family}) is not its input through the weights that the "
                    f"backend shows (relative error {float(error):.1e}), so circuits would be wrong. Refused."
                )

    def scoring(self, layer: int) -> Scoring:
        """Return how a block turns queries and keys into attention."""
        if layer not in self._scorings:
            attention = self._bridge.blocks[layer].attn
            norms = [getattr(attention, name, None) for name in ("q_norm", "k_norm")]
            q_norm, k_norm = (None if norm is None else unwrap(norm) for norm in norms)
            self._scorings[layer] = find_scoring(self, layer, unwrap(attention), (q_norm, k_norm), self._hf)
        return self._scorings[layer]

    def mlp_output_weights(self, layer: int) -> tuple[Float[Tensor, "d_mlp d_model"], Float[Tensor, " d_model"]]:
        """Return what each neuron of an MLP writes when it is 1, and the bias of its output; before a post-norm."""
        linear = unwrap(self._bridge.blocks[layer].mlp.out)
        weight = linear.weight.detach()
        inputs_first = weight if type(linear).__name__ == "Conv1D" else weight.T
        bias = linear.bias.detach() if linear.bias is not None else weight.new_zeros(self.facts.d_model)
        return inputs_first, bias


def unwrap(module: Any) -> Any:
    """Return the transformers module that a part of the bridge wraps."""
    return getattr(module, "original_component", None) or module


def logit_scale(config: Any) -> float:
    """Cohere multiplies logits by `logit_scale`, Granite divides them by `logits_scaling`."""
    return float(getattr(config, "logit_scale", None) or 1.0) / float(getattr(config, "logits_scaling", None) or 1.0)
