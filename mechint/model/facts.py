"""Reading an architecture's facts off its configuration and modules, and checking what can be checked.

Norms are read causally: whether a gain is w or 1 + w (Gemma) is decided by comparing with the module's own output.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch

from mechint import interventions
from mechint.errors import UnsupportedModelError
from mechint.model.base import Model
from mechint.model.model_facts import ModelFacts
from mechint.model.weights import Norm

_CONTEXT_FIELDS = ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length")


def read_facts(name: str, hf_config: Any, bridge_config: Any, points: Mapping[str, Any]) -> ModelFacts:
    """Collect the facts of a bridged model.

    Raises:
        UnsupportedModelError: it is not a decoder of equal attention blocks.
    """
    missing = [
        hook for hook in ("blocks.0.attn.hook_z", "blocks.0.hook_attn_out", "ln_final.hook_out") if hook not in points
    ]
    if missing:
        raise UnsupportedModelError(
            f"{name} ({bridge_config.architecture}) has no {', '.join(missing)}: not a decoder of attention blocks."
        )
    n_layers = int(bridge_config.n_layers)
    n_heads = int(bridge_config.n_heads)
    post_norms = "blocks.0.ln1_post.hook_out" in points
    return ModelFacts(
        name=name,
        family=str(bridge_config.architecture),
        n_layers=n_layers,
        n_heads=n_heads,
        n_kv_heads=int(bridge_config.n_key_value_heads or n_heads),
        d_model=int(bridge_config.d_model),
        d_head=int(bridge_config.d_head),
        d_vocab=int(bridge_config.d_vocab),
        n_ctx=int(next((v for f in _CONTEXT_FIELDS if (v := getattr(hf_config, f, None))), bridge_config.n_ctx)),
        parallel="blocks.0.hook_resid_mid" not in points,
        post_norms=post_norms,
        windows=_windows(hf_config, n_layers),
        logit_cap=getattr(hf_config, "final_logit_softcapping", None),
        tied=bool(getattr(hf_config, "tie_word_embeddings", False)),
        learned_positions=bridge_config.positional_embedding_type == "standard",
    )


def _windows(config: Any, n_layers: int) -> tuple[int | None, ...]:
    window = getattr(config, "sliding_window", None)
    kinds = getattr(config, "layer_types", None)
    if window is None or not getattr(config, "use_sliding_window", True):
        return (None,) * n_layers
    return tuple(window if kinds is None or kinds[i] == "sliding_attention" else None for i in range(n_layers))


@torch.no_grad()
def read_norm(module: Any, facts: ModelFacts, width: int | None = None) -> Norm:
    """Write a norm module as a `Norm`, and check that it gives what the module gives.

    Args:
        module: the module.
        facts: of the model that it belongs to.
        width: of what it normalises; d_model by default, d_head for a QK-norm.

    Raises:
        UnsupportedModelError: no reading of its weights reproduces the module.
    """
    weight = getattr(module, "weight", None)
    width = facts.d_model if width is None else width
    ones = torch.ones(width)
    bias = getattr(module, "bias", None)
    eps = float(
        next((e for n in ("eps", "variance_epsilon", "epsilon") if (e := getattr(module, n, None)) is not None), 0.0)
    )
    # Fixed, uneven numbers with a mean: they tell centring, gain and offset apart.
    x = torch.linspace(-1.0, 3.0, width).sin()[None] + 0.5
    expected = module(x)
    gains = [ones] if weight is None else [weight.detach(), ones + weight.detach()]
    for gain in gains:
        for centred in (False, True):
            norm = Norm(gain, None if bias is None else bias.detach(), eps, centred)
            if torch.allclose(norm(x), expected, rtol=1e-4, atol=1e-5):
                return norm
    raise UnsupportedModelError(
        f"A norm of {facts.name} ({type(module).__name__}) is neither LayerNorm nor RMSNorm with a known gain."
    )


def with_attention_access(model: Model) -> ModelFacts:
    """Find out by trying whether scores are scores, and whether a rewritten pattern or score is carried on.

    TransformerLens shows the pattern of some families (GPT-J) only after it was used, and the same again as scores.
    """
    rows = [[(7 * i + 3) % model.facts.d_vocab for i in range(min(6, model.facts.n_ctx))]]
    end = "L0.resid_post"
    clean = model.run(rows, read=["L0.scores", "L0.pattern"], stop_after=end)
    are_scores = torch.allclose(clean["L0.scores"].softmax(-1), clean["L0.pattern"], atol=1e-5)
    cut = model.run(rows, read=["L0.z"], write={"L0.pattern": interventions.zero()}, stop_after=end)
    flat = model.run(rows, read=["L0.pattern"], write={"L0.scores": interventions.zero()}, stop_after=end)["L0.pattern"]
    visible = clean["L0.pattern"] > 0
    carries_scores = torch.allclose(flat, visible / visible.sum(-1, keepdim=True), atol=1e-5)
    carries = {"pattern": not bool(cut["L0.z"].any()), "scores": are_scores and carries_scores}
    return replace(
        model.facts,
        hidden=() if are_scores else ("scores",),
        read_only=("resid_mid", *(name for name, carried in carries.items() if not carried)),
    )
