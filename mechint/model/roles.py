"""Which module of a transformers model plays which part, whatever its family calls it.

A backend that runs the transformers modules themselves needs this table, and so do formulas over weights. Families
share a small vocabulary of names; how one matrix that makes queries, keys and values is divided among them cannot be
seen from its shape, so such matrices are known by the class that uses them, and others are not shown.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mechint.errors import UnsupportedModelError

_ATTENTION = ("self_attn", "attn", "attention")
_NORM_IN = ("input_layernorm", "ln_1")
_NORM_MIDDLE = ("pre_feedforward_layernorm", "post_attention_layernorm", "ln_2")
_ATTENTION_OUT = ("o_proj", "c_proj", "out_proj", "dense")
_MLP_OUT = ("down_proj", "c_proj", "fc_out", "fc2", "dense_4h_to_h")
_NORM_FINAL = ("norm", "ln_f", "final_layer_norm", "final_layernorm")
_FUSED = {"GPT2Attention": "c_attn", "GPTNeoXAttention": "query_key_value", "Phi3Attention": "qkv_proj"}


@dataclass(frozen=True, eq=False)
class Projection:
    """A linear module, or the part of it, that makes the queries, keys or values of a block."""

    linear: nn.Module
    columns: Tensor | None
    """Which of its outputs are meant, head after head; None for all of them."""
    n_heads: int

    @property
    def weight(self) -> Float[Tensor, "head d_model d_head"]:
        """The matrix of each head, for row vectors."""
        matrix = _inputs_first(self.linear)
        matrix = matrix if self.columns is None else matrix[:, self.columns]
        return matrix.unflatten(1, (self.n_heads, -1)).movedim(1, 0)

    @property
    def bias(self) -> Float[Tensor, "head d_head"]:
        """The bias of each head, zero where there is none."""
        weight, found = self.weight, getattr(self.linear, "bias", None)
        if found is None:
            return weight.new_zeros(self.n_heads, weight.shape[2])
        found = found.detach()
        return (found if self.columns is None else found[self.columns]).unflatten(0, (self.n_heads, -1))


@dataclass(frozen=True, eq=False)
class Attention:
    """The attention of a block."""

    original_component: nn.Module
    """The transformers module."""
    o: nn.Module
    q_norm: nn.Module | None
    k_norm: nn.Module | None
    projections: Mapping[str, Projection]
    """`q`, `k` and `v`; empty where one matrix makes them in an order that is not known here."""


@dataclass(frozen=True, eq=False)
class Block:
    """One block."""

    original_component: nn.Module
    """The transformers module."""
    attn: Attention
    mlp: Any
    """`original_component`, and `out`, its last linear module."""
    ln1: nn.Module | None
    ln2: nn.Module | None
    ln1_post: nn.Module | None
    ln2_post: nn.Module | None


@dataclass(frozen=True, eq=False)
class Roles:
    """The modules of a model by what they do, under the names that TransformerLens' bridge gives them."""

    embed: nn.Module
    pos_embed: nn.Module | None
    blocks: tuple[Block, ...]
    ln_final: nn.Module
    parallel: bool
    """Attention and MLP read the same stream."""


def read_roles(hf_model: Any) -> Roles:
    """Find the parts of a transformers model.

    Raises:
        UnsupportedModelError: it has no blocks of attention and MLP under a known name.
    """
    body, config = hf_model.base_model, hf_model.config
    lists = [m for m in body.children() if isinstance(m, nn.ModuleList) and len(m) == config.num_hidden_layers]
    if len(lists) != 1:
        raise UnsupportedModelError(
            f"{type(hf_model).__name__} has {len(lists)} lists of {config.num_hidden_layers} blocks; expected one. "
            'Its parts are not known here: load it with backend="transformer_lens".'
        )
    blocks = tuple(_block(block, config) for block in lists[0])
    alone = all(block.ln2 is None and block.ln1_post is None for block in blocks)
    return Roles(
        hf_model.get_input_embeddings(),
        getattr(body, "wpe", None),
        blocks,
        _named(body, _NORM_FINAL),
        parallel=bool(getattr(config, "use_parallel_residual", alone)),
    )


def _block(block: nn.Module, config: Any) -> Block:
    attention, mlp = _named(block, _ATTENTION), _named(block, ("mlp",))
    has_posts = hasattr(block, "post_feedforward_layernorm")
    # Where outputs are normalised too, this name means the norm after attention, not the one before the MLP.
    middle = _NORM_MIDDLE[:1] if has_posts else _NORM_MIDDLE
    return Block(
        block,
        Attention(
            attention,
            _named(attention, _ATTENTION_OUT),
            getattr(attention, "q_norm", None),
            getattr(attention, "k_norm", None),
            _projections(attention, config),
        ),
        SimpleNamespace(original_component=mlp, out=_named(mlp, _MLP_OUT)),
        _found(block, _NORM_IN),
        _found(block, middle),
        getattr(block, "post_attention_layernorm", None) if has_posts else None,
        getattr(block, "post_feedforward_layernorm", None),
    )


def _projections(attention: nn.Module, config: Any) -> dict[str, Projection]:
    n_heads = config.num_attention_heads
    heads = {"q": n_heads, "k": (n_kv := getattr(config, "num_key_value_heads", None) or n_heads), "v": n_kv}
    if all(hasattr(attention, f"{name}_proj") for name in heads):
        return {name: Projection(getattr(attention, f"{name}_proj"), None, n) for name, n in heads.items()}
    if (kind := type(attention).__name__) not in _FUSED:
        return {}
    linear = getattr(attention, _FUSED[kind])
    together = torch.arange(_inputs_first(linear).shape[1])
    if kind == "GPTNeoXAttention":  # query, key and value of one head stand side by side
        parts = together.unflatten(0, (n_heads, 3, -1)).movedim(1, 0).flatten(1).unbind()
    else:
        width = len(together) // sum(heads.values())
        parts = together.split([n * width for n in heads.values()])
    return {name: Projection(linear, part, heads[name]) for name, part in zip(heads, parts, strict=True)}


def _inputs_first(linear: Any) -> Tensor:
    weight = linear.weight.detach()
    return weight if type(linear).__name__ == "Conv1D" else weight.T


def _found(parent: nn.Module, names: tuple[str, ...]) -> nn.Module | None:
    return next((child for name in names if (child := getattr(parent, name, None)) is not None), None)


def _named(parent: nn.Module, names: tuple[str, ...]) -> nn.Module:
    if (child := _found(parent, names)) is None:
        raise UnsupportedModelError(
            f"{type(parent).__name__} has no part called {' or '.join(names)}, so it is not understood here. "
            'Load the model with backend="transformer_lens".'
        )
    return child
