"""Finding out how a block scores, by trying: a reading of its modules counts if it gives the attention of the block.

Rotary frequencies are looked for in every place where transformers keeps them: `inv_freq` of rotary modules, one for
each kind of layer in Gemma 3, and GPT-J's table of sines and cosines. Whether a plane is two neighbours or two halves,
and which scale is meant, nothing says; so each combination is compared with the attention of the block itself.
"""

import itertools
from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from mechint.errors import UnsupportedModelError
from mechint.model.base import Model, Restart
from mechint.model.facts import read_norm
from mechint.model.norms import Norm
from mechint.model.scoring import Scoring
from mechint.sites import Site
from mechint.statistics import generator

_TOLERANCE = 1e-4
_USUAL_LENGTH = 64
_LONGEST_WINDOW = 1024  # a text that reaches beyond a longer one would be slow; the model's own facts are trusted there
_LENGTH_DEPENDENT = ("dynamic", "longrope")  # kinds of rotation whose frequencies change with the length of the text


@torch.no_grad()
def find_scoring(model: Model, layer: int, attention: Any, norms: tuple[Any, Any], hf_model: Any) -> Scoring:
    """Return the reading of an attention module that gives its block's own pattern on a random stream.

    Args:
        model: the model, able to run.
        layer: the block.
        attention: its attention module, of transformers.
        norms: modules that normalise each head's queries and keys; None where there are none.
        hf_model: the whole model, of transformers.

    Raises:
        UnsupportedModelError: no reading does.
    """
    facts = model.facts
    q_norm, k_norm = (None if norm is None else _head_norm(norm, model, layer) for norm in norms)
    window = facts.windows[layer]
    beyond = window + 8 if window is not None and window <= _LONGEST_WINDOW else 0
    length = min(facts.n_ctx, max(_USUAL_LENGTH, beyond))
    noise = generator(0, "scoring").standard_normal((1, length, facts.d_model))
    sites = [Site(name, layer) for name in ("q", "k", "pattern")]
    stream = Restart(layer, torch.from_numpy(noise).float())
    run = model.run([[0] * length], read=sites, from_=stream, stop_after=sites[-1])
    q, k, pattern = (run[site] for site in sites)
    best, least = None, float("inf")
    rotations = [*_rotations(hf_model, attention, layer), (torch.zeros(0), 1.0)]
    cap = getattr(hf_model.config, "attn_logit_softcapping", None)
    readings = itertools.product(rotations, (False, True), _scales(attention, hf_model.config, facts.d_head, layer))
    for (frequencies, factor), adjacent, scale in readings:
        if 2 * len(frequencies) > facts.d_head:
            continue
        reading = Scoring(facts.d_head, q_norm, k_norm, frequencies, adjacent, factor, scale, cap, window)
        error = _disagreement(reading.log_pattern(reading.scores(q, k)), pattern)
        if error < least:
            best, least = reading, error
    if best is None or not least <= _TOLERANCE:
        raise UnsupportedModelError(
            f"The attention of L{layer} of {facts.name} ({facts.family}) is not given by its queries and keys through "
            f"QK-norm, rotation, scale, soft-cap and mask as understood here (relative error {least:.1e}; ALiBi, "
            "attention sinks and frequencies that depend on the length of the text are not), so QK circuits would be "
            "wrong. Refused."
        )
    return best


def _disagreement(log_rebuilt: Float[Tensor, "batch head query key"], pattern: Tensor) -> float:
    """Return the larger of the greatest difference of weights and the relative error of scores up to a constant."""
    apart = float((log_rebuilt.exp() - pattern).abs().max())
    # The logarithm tells wrong scores from right ones even where scores are small and attention is almost flat.
    seen = (pattern > 1e-6) & log_rebuilt.isfinite()
    log, rebuilt = pattern[seen].log(), log_rebuilt[seen]
    flat = -(pattern > 0).sum(-1, keepdim=True).log().expand_as(pattern)[seen]
    spread = (log - flat).pow(2).mean().sqrt().clamp(min=1e-2)
    return max(apart, float((rebuilt - log).pow(2).mean().sqrt() / spread))


def _head_norm(module: Any, model: Model, layer: int) -> Norm:
    weight, width = getattr(module, "weight", None), model.facts.d_head
    if weight is not None and tuple(weight.shape) != (width,):
        raise UnsupportedModelError(
            f"The QK-norm of L{layer} of {model.facts.name} has weights of shape {list(weight.shape)}. Expected one "
            f"norm of width {width} for every head: a norm over all heads together is not understood here."
        )
    return read_norm(module, model.facts, width)


def _rotations(hf_model: Any, attention: Any, layer: int) -> Iterator[tuple[Tensor, float]]:
    """List sets of frequencies and the factor of cos and sin, those of this kind of layer first."""
    kinds = getattr(hf_model.config, "layer_types", None)
    kind = "" if kinds is None else str(kinds[layer])
    found: list[tuple[bool, Tensor, float]] = []
    for module in hf_model.modules():
        for name, frequencies in module.named_buffers(recurse=False):
            prefix = name.removesuffix("inv_freq")
            if prefix == name or prefix.endswith("original_"):
                continue
            rope_type = getattr(module, "rope_type", "default")
            if isinstance(rope_type, dict):
                rope_type = rope_type.get(prefix.rstrip("_"), "default")
            if not any(word in str(rope_type) for word in _LENGTH_DEPENDENT):
                factor = float(getattr(module, f"{prefix}attention_scaling", 1.0))
                found.append((prefix.rstrip("_") != kind, frequencies.detach().float(), factor))
    table = getattr(attention, "embed_positions", None)
    if isinstance(table, Tensor) and table.ndim == 2 and len(table) > 1:
        sin, cos = table[1].detach().float().chunk(2)  # position 1 is turned by the frequency itself
        found.append((False, torch.atan2(sin, cos), 1.0))
    for _, frequencies, factor in sorted(found, key=lambda one: one[0]):
        yield frequencies, factor


def _scales(attention: Any, config: Any, d_head: int, layer: int) -> list[float]:
    """List what the product of query and key may be multiplied by, without repetition."""
    divisor = getattr(attention, "scale_attn", None)
    scalar = getattr(config, "query_pre_attn_scalar", None)
    usual = d_head**-0.5
    listed = [
        getattr(attention, "scaling", None),
        None if not divisor else 1 / float(divisor),
        None if not scalar else float(scalar) ** -0.5,
        usual,
        usual / (layer + 1),
        1.0,
    ]
    return list(dict.fromkeys(float(scale) for scale in listed if isinstance(scale, int | float)))
