"""Norms, projections and MLP outputs are those of the plain transformers model, on every family."""

from typing import Any

import pytest
import torch
from torch import Tensor

from mechint.errors import UnsupportedModelError
from mechint.model.loading import load
from mechint.model.transformer_lens import TransformerLensModel
from mechint.sites import Site
from tests.families import FAMILIES, plain, random_rows, tiny, tokenizer

ROWS = random_rows(2, 9)
LAYER = 1
# Where each family keeps its norms; the last of a block's own first, None where it has no such norm.
_ONE_NORM = {"attn_in": "ln_1", "mlp_in": "ln_1", "attn_post": None, "mlp_post": None}
_GPT2 = {"attn_in": "ln_1", "mlp_in": "ln_2", "attn_post": None, "mlp_post": None}
_LLAMA = {"attn_in": "input_layernorm", "mlp_in": "post_attention_layernorm", "attn_post": None, "mlp_post": None}
_GEMMA = {
    "attn_in": "input_layernorm",
    "mlp_in": "pre_feedforward_layernorm",
    "attn_post": "post_attention_layernorm",
    "mlp_post": "post_feedforward_layernorm",
}
NORMS = {
    "gpt2": _GPT2,
    "gptj": _ONE_NORM,
    "llama": _LLAMA,
    "qwen3": _LLAMA,
    "neox": _LLAMA,
    "neox-sequential": _LLAMA,
    "gemma2": _GEMMA,
    "gemma3": _GEMMA,
}


def blocks(hf_model: Any) -> Any:
    body = hf_model.base_model
    return body.layers if hasattr(body, "layers") else body.h


def passing(family: str, pick: Any) -> tuple[Tensor, Tensor]:
    """What enters and leaves a module of the plain model, picked from its block."""
    model, seen = plain(family), []
    pick(blocks(model)[LAYER]).register_forward_hook(lambda _, args, out: seen.append((args[0], out)))
    with torch.no_grad():
        model(torch.tensor(ROWS), use_cache=False)
    return seen[0]


@pytest.mark.parametrize("where", ["attn_in", "mlp_in", "attn_post", "mlp_post"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_norm_gives_what_the_plain_module_gives(family: str, where: str) -> None:
    norm, name = tiny(family).norm(where, LAYER), NORMS[family][where]
    if name is None:
        assert norm is None
        return
    entering, leaving = passing(family, lambda block: getattr(block, name))

    assert norm is not None
    torch.testing.assert_close(norm(entering), leaving, rtol=1e-4, atol=1e-5)


def test_every_family_has_its_norms_listed() -> None:
    assert set(NORMS) == set(FAMILIES)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_norm_is_linear_once_its_scale_is_frozen(family: str) -> None:
    norm = tiny(family).norm("attn_in", LAYER)
    assert norm is not None
    a, b = torch.randn(2, 5, 32, generator=torch.Generator().manual_seed(0))
    scale, bias = norm.scale(a + b), 0.0 if norm.bias is None else norm.bias

    parts = sum(norm.centre(x) / scale * norm.gain for x in (a, b))

    torch.testing.assert_close(parts + bias, norm(a + b), rtol=1e-5, atol=1e-5)


def plain_projections(family: str) -> dict[str, Tensor]:
    """Queries, keys and values of the plain model's own modules: [batch, pos, head, d_head]."""
    facts = tiny(family).facts
    if family == "gpt2":
        _, fused = passing(family, lambda block: block.attn.c_attn)
        parts = fused.chunk(3, -1)
    elif family.startswith("neox"):
        _, fused = passing(family, lambda block: block.attention.query_key_value)
        heads = fused.unflatten(-1, (facts.n_heads, 3, facts.d_head))
        return {letter: heads[..., i, :] for i, letter in enumerate("qkv")}
    else:
        attention = "attn" if family == "gptj" else "self_attn"
        parts = [passing(family, lambda b, n=n: getattr(getattr(b, attention), f"{n}_proj"))[1] for n in "qkv"]
    return {letter: part.unflatten(-1, (-1, facts.d_head)) for letter, part in zip("qkv", parts, strict=True)}


@pytest.mark.parametrize("family", FAMILIES)
def test_projections_give_the_queries_keys_and_values_of_the_plain_model(family: str) -> None:
    model, expected = tiny(family), plain_projections(family)
    x = model.run(ROWS, read=[Site("resid_pre", LAYER)])[Site("resid_pre", LAYER)]
    norm, found = model.norm("attn_in", LAYER), model.projections(LAYER)
    assert norm is not None

    for letter, weight, bias in zip(
        "qkv", (found.W_Q, found.W_K, found.W_V), (found.b_Q, found.b_K, found.b_V), strict=True
    ):
        got = torch.einsum("bpd,hde->bphe", norm(x), weight) + bias
        assert weight.shape[0] == (model.facts.n_heads if letter == "q" else model.facts.n_kv_heads)
        torch.testing.assert_close(got, expected[letter], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", ["gpt2", "neox", "neox-sequential"])
def test_projections_have_the_biases_of_families_that_have_any(family: str) -> None:
    found = tiny(family).projections(LAYER)

    assert min(bias.abs().max() for bias in (found.b_Q, found.b_K, found.b_V)) > 0.1


@pytest.mark.parametrize("part", ["q_proj", "k_proj", "v_proj"])
def test_projections_that_are_not_the_whole_story_are_refused(part: str) -> None:
    hf_model = plain("llama")
    changed = getattr(hf_model.model.layers[LAYER].self_attn, part)
    changed.register_forward_hook(lambda _, args, out: 1.01 * out)
    model = TransformerLensModel(hf_model, tokenizer(), name="scaled")

    model.projections(0)
    with pytest.raises(
        UnsupportedModelError, match=rf"L1\.{part[0]} of scaled .* is not its input through the weights"
    ):
        model.projections(LAYER)


@pytest.mark.parametrize("family", FAMILIES)
def test_neurons_through_their_output_weights_are_what_the_mlp_writes(family: str) -> None:
    model, hidden, out = tiny(family), Site("mlp_post", LAYER), Site("mlp_out", LAYER)
    run = model.run(ROWS, read=[hidden, out])
    weight, bias = model.mlp_output_weights(LAYER)
    post = model.norm("mlp_post", LAYER)

    written = run[hidden] @ weight + bias

    assert weight.shape == (run[hidden].shape[-1], model.facts.d_model)
    torch.testing.assert_close(written if post is None else post(written), run[out], rtol=1e-4, atol=1e-5)


@pytest.mark.real
def test_the_weights_of_the_real_gemma_give_its_queries_and_its_mlp() -> None:
    model, layer = load("gemma3-270m"), 5
    sites = {name: Site(name, layer) for name in ("resid_pre", "q", "mlp_post", "mlp_out")}
    run = model.run([[2, 651, 5765, 576, 573]], read=list(sites.values()))
    norm, post = model.norm("attn_in", layer), model.norm("mlp_post", layer)
    assert norm is not None
    assert post is not None

    found = model.projections(layer)
    queries = torch.einsum("bpd,hde->bphe", norm(run[sites["resid_pre"]]), found.W_Q) + found.b_Q
    weight, bias = model.mlp_output_weights(layer)
    written = post(run[sites["mlp_post"]] @ weight + bias)

    for got, name in ((queries, "q"), (written, "mlp_out")):
        assert (got - run[sites[name]]).norm() / run[sites[name]].norm() < 1e-5
