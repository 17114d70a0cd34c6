r"""What each component writes to the residual stream, and so to the logits: exactly, on every architecture.

The final residual stream r is a sum of terms: the embedding, every query head of every block, the biases, every MLP.
With the scales of the norms frozen at what they were in this run, each head's term is

    c_h = C_post(z_h W_O^h) / s_post * g_post          (no post-norm: c_h = z_h W_O^h)

where s_post belongs to the whole attention output of its block (Gemma 2 and 3, OLMo 2 normalise it before they add
it; leaving that out gets every head wrong while the sum of heads and "rest" still matches). Its direct effect on the
logit of token t is DE_c = c · u_t, with u_t = C_final(g_final * W_U[:, t]) / s_final, and

    logit_t = sum_c c · u_t + b_final · W_U[:, t] + b_U[t]              (before a final soft-cap)

The part of a head that comes from one source token s is A_ds v_s W_O^h through the same map; over s they add up to
c_h. Direct logit attribution: Elhage et al. 2021, "A Mathematical Framework for Transformer Circuits"; McDougall et
al. 2023, "Copy Suppression", section 2.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from weakref import WeakSet

import torch
from einops import einsum
from jaxtyping import Float, Int
from torch import Tensor

from mechint.errors import UnsupportedModelError
from mechint.model.base import Model, Rows, Run
from mechint.model.weights import Norm
from mechint.positions import Positions, everywhere, prompt
from mechint.sites import Site

_TOLERANCE = 1e-4
_exact: "WeakSet[Model]" = WeakSet()


@dataclass(frozen=True)
class Contributions:
    """The terms of the final residual stream at some positions."""

    embed: Float[Tensor, "batch at d_model"]
    """What enters block 0: token embedding, and position embedding where there is one."""
    heads: Float[Tensor, "layer batch at head d_model"]
    attn_biases: Float[Tensor, "layer batch at d_model"]
    """What attention writes whatever its heads do: output bias and post-norm bias."""
    mlps: Float[Tensor, "layer batch at d_model"]
    resid_final: Float[Tensor, "batch at d_model"]
    """What the terms add up to: the stream before the final norm."""


@dataclass(frozen=True)
class DirectEffects:
    """Direct effects on one logit (or difference of logits) a row and position, in logits before a soft-cap."""

    embed: Float[Tensor, "batch at"]
    heads: Float[Tensor, "layer batch at head"]
    attn_biases: Float[Tensor, "layer batch at"]
    mlps: Float[Tensor, "layer batch at"]
    logit: Float[Tensor, "batch at"]
    """The logit itself; all terms and `constant` add up to it."""
    constant: Float[Tensor, "batch at"]
    """What does not depend on the stream: final norm bias and output bias."""


def stream_sites(model: Model, at: Positions, from_layer: int = 0) -> dict[str | Site, Positions]:
    """List what must be read to know every term of the stream at some positions, for blocks from `from_layer` on."""
    layers = range(from_layer, model.facts.n_layers)
    sites: dict[str | Site, Positions] = {}
    for layer in layers:
        sites[Site("z", layer)] = at
        sites[Site("mlp_out", layer)] = at
    sites[Site("resid_post", model.facts.n_layers - 1)] = at
    return sites


def head_outputs(
    model: Model, layer: int, z: Float[Tensor, "batch at head d_head"]
) -> tuple[Float[Tensor, "batch at head d_model"], Float[Tensor, "batch at d_model"]]:
    """Return what every query head of a block adds to the residual stream, and what its biases add."""
    weights, bias = model.output_weights(layer)
    raw = einsum(z, weights, "batch at head d_head, head d_head d_model -> batch at head d_model")
    post = model.norm("attn_post", layer)
    if post is None:
        return raw, bias.expand(*raw.shape[:2], -1)
    scale = post.scale(raw.sum(2) + bias)
    heads = post.centre(raw) / scale[:, :, None] * post.gain
    constant = post.centre(bias) / scale * post.gain
    return heads, constant if post.bias is None else constant + post.bias


def contributions(model: Model, rows: Rows, at: Positions | None = None) -> Contributions:
    """Return every term of the final residual stream.

    Memory is layers x heads x rows x positions x d_model: meant for few positions; `direct_effects` needs no such
    tensor.

    Args:
        model: the model.
        rows: token rows.
        at: positions, equally many in every row; by default the last of each prompt.
    """
    at = prompt(-1) if at is None else at
    run = model.run(rows, read={Site("resid_pre", 0): at, **stream_sites(model, at)})
    n_layers = model.facts.n_layers
    outputs = [head_outputs(model, layer, run[Site("z", layer)]) for layer in range(n_layers)]
    return Contributions(
        embed=run[Site("resid_pre", 0)],
        heads=torch.stack([heads for heads, _ in outputs]),
        attn_biases=torch.stack([bias for _, bias in outputs]),
        mlps=torch.stack([run[Site("mlp_out", layer)] for layer in range(n_layers)]),
        resid_final=run[Site("resid_post", n_layers - 1)],
    )


def output_direction(
    model: Model,
    columns: Int[Tensor, "batch at"],
    resid_final: Float[Tensor, "batch at d_model"],
    minus: Int[Tensor, "batch at"] | None = None,
) -> Float[Tensor, "batch at d_model"]:
    """Return u with c · u = direct effect of a term c, the final norm's scale frozen at `resid_final`.

    Args:
        model: the model.
        columns: the token whose logit is meant.
        resid_final: the stream that sets the scale.
        minus: a second token, for the difference of two logits.
    """
    final = final_norm(model)
    direction = model.unembedding(columns)
    if minus is not None:
        direction = direction - model.unembedding(minus)
    return final.centre(final.gain * direction) / final.scale(resid_final)


def through_post_norm(
    model: Model, layer: int, z: Float[Tensor, "batch at head d_head"], direction: Float[Tensor, "batch at d_model"]
) -> Float[Tensor, "batch at head d_head"]:
    """Return y with z_h · y_h = c_h · direction for every head: the direction as a head's own space sees it."""
    weights, bias = model.output_weights(layer)
    post = model.norm("attn_post", layer)
    if post is not None:
        total = einsum(z, weights, "batch at head d_head, head d_head d_model -> batch at d_model") + bias
        direction = post.centre(post.gain * direction) / post.scale(total)
    return einsum(weights, direction, "head d_head d_model, batch at d_model -> batch at head d_head")


def head_effects(
    model: Model, run: Run, direction: Float[Tensor, "batch at d_model"], from_layer: int = 0
) -> Float[Tensor, "layer batch at head"]:
    """Return the direct effect of every head, from a run that read `stream_sites`."""
    effects: list[Tensor] = []
    for layer in range(from_layer, model.facts.n_layers):
        z = run[Site("z", layer)]
        effects.append((z * through_post_norm(model, layer, z, direction)).sum(-1))
    return torch.stack(effects)


def mlp_effects(
    model: Model, run: Run, direction: Float[Tensor, "batch at d_model"], from_layer: int = 0
) -> Float[Tensor, "layer batch at"]:
    """Return the direct effect of every MLP, from a run that read `stream_sites`."""
    layers = range(from_layer, model.facts.n_layers)
    return torch.stack([(run[Site("mlp_out", layer)] * direction).sum(-1) for layer in layers])


def source_effects(
    model: Model, run: Run, layer: int, direction: Float[Tensor, "batch at d_model"]
) -> Float[Tensor, "batch at head key"]:
    """Return the part of each head's direct effect that comes from each source token.

    The run must have read `z` and `pattern` of the block at these positions, and `v` everywhere. Over the source
    tokens the parts add up to the head's direct effect. Where one position was read, several directions may be given.
    """
    z = run[Site("z", layer)].expand(-1, direction.shape[1], -1, -1)
    y = through_post_norm(model, layer, z, direction)
    values = run[Site("v", layer)].repeat_interleave(model.facts.n_heads // model.facts.n_kv_heads, dim=2)
    along = einsum(values, y, "batch key head d_head, batch at head d_head -> batch at head key")
    return along * run[Site("pattern", layer)].transpose(1, 2)


def direct_effects(
    model: Model,
    rows: Rows,
    columns: Int[Tensor, "batch at"],
    minus: Int[Tensor, "batch at"] | None = None,
    at: Positions | None = None,
) -> DirectEffects:
    """Return the direct effect of every component on a logit, or on the difference of two.

    Args:
        model: the model.
        rows: token rows.
        columns: the token whose logit is meant, for every row and position.
        minus: the token whose logit is subtracted.
        at: positions, equally many in every row; by default the last of each prompt.
    """
    at = prompt(-1) if at is None else at
    run = model.run(rows, read={Site("resid_pre", 0): at, **stream_sites(model, at)})
    resid_final = run[Site("resid_post", model.facts.n_layers - 1)]
    u = output_direction(model, columns, resid_final, minus)
    biases: list[Tensor] = []
    for layer in range(model.facts.n_layers):
        _, bias = head_outputs(model, layer, run[Site("z", layer)])
        biases.append((bias * u).sum(-1))
    constant = constant_logit(model, columns)
    if minus is not None:
        constant = constant - constant_logit(model, minus)
    return DirectEffects(
        embed=(run[Site("resid_pre", 0)] * u).sum(-1),
        heads=head_effects(model, run, u),
        attn_biases=torch.stack(biases),
        mlps=mlp_effects(model, run, u),
        logit=(resid_final * u).sum(-1) + constant,
        constant=constant,
    )


def constant_logit(model: Model, columns: Int[Tensor, "batch at"]) -> Float[Tensor, "batch at"]:
    """Return the part of a logit that does not depend on the stream: final norm bias and output bias."""
    final = final_norm(model)
    constant = model.output_bias(columns)
    return constant if final.bias is None else constant + model.unembedding(columns) @ final.bias


def require_exact(model: Model) -> None:
    """Check once for each model that its terms add up to its stream, and its source tokens to its heads.

    Raises:
        UnsupportedModelError: they do not: the block adds something that is not modelled here.
    """
    if model in _exact:
        return
    row = [(7 * i + 3) % model.facts.d_vocab for i in range(min(8, model.facts.n_ctx))]
    terms = contributions(model, [row], everywhere)
    total = terms.embed + terms.heads.sum((0, 3)) + terms.attn_biases.sum(0) + terms.mlps.sum(0)
    error = float((total - terms.resid_final).norm() / terms.resid_final.norm())
    layers = range(model.facts.n_layers)
    run = model.run([row], read=[Site(c, layer) for layer in layers for c in ("z", "v", "pattern")])
    group = model.facts.n_heads // model.facts.n_kv_heads
    for layer in layers:
        v = run[Site("v", layer)].repeat_interleave(group, dim=2)
        rebuilt = einsum(
            run[Site("pattern", layer)], v, "batch head query key, batch key head d_head -> batch query head d_head"
        )
        z = run[Site("z", layer)]
        error = max(error, float((rebuilt - z).norm() / z.norm().clamp(min=1e-6)))
    if not error <= _TOLERANCE:
        raise UnsupportedModelError(
            f"The residual stream of {model.facts.name} ({model.facts.family}) is not the sum of its heads, biases and "
            f"MLPs as understood here (relative error {error:.1e}), so head attribution would be wrong. Refused."
        )
    _exact.add(model)


def pad_columns(tokens: Sequence[int]) -> Int[Tensor, "batch at"]:
    """Turn one token a row into the shape that goes with one position a row.

    Examples:
        >>> pad_columns([3, 5]).tolist()
        [[3], [5]]
    """
    return torch.tensor(tokens, dtype=torch.long)[:, None]


def final_norm(model: Model) -> Norm:
    """Return the norm before the unembedding."""
    norm = model.norm("final")
    if norm is None:
        raise UnsupportedModelError(f"{model.facts.name} has no final norm.")
    return norm
