"""T1 and T4: the terms of the stream are exact, each by itself, on every family."""

from typing import Any

import pytest
import torch
from torch import Tensor

from mechint.effects import attribution
from mechint.model.base import Logits
from mechint.positions import everywhere
from mechint.sites import Site
from tests.families import CONFIGS, FAMILIES, VOCAB, plain, random_rows, tiny

_OUTPUT_PROJECTIONS = ("self_attn.o_proj", "attn.c_proj", "attention.dense", "attn.out_proj")
ROWS = random_rows(3, 7)


def heads_from_plain_hooks(family: str) -> Tensor:
    """Each head's contribution, from hooks on the plain transformers model: [layer, batch, pos, head, d_model]."""
    model = plain(family)
    inputs: list[Tensor] = []
    post: list[tuple[Tensor, Any]] = []
    projections: list[Any] = []
    for name, module in model.named_modules():
        if name.endswith(_OUTPUT_PROJECTIONS):
            projections.append(module)
            module.register_forward_pre_hook(lambda _, args: inputs.append(args[0]))
        if family.startswith("gemma") and name.endswith("post_attention_layernorm"):
            module.register_forward_pre_hook(lambda m, args: post.append((args[0], m)))
    with torch.no_grad():
        model(torch.tensor(ROWS), use_cache=False)
        n_heads = CONFIGS[family]().num_attention_heads
        layers = []
        for layer, (z, project) in enumerate(zip(list(inputs), projections, strict=True)):
            size = z.shape[-1] // n_heads
            zero = project(torch.zeros_like(z))
            heads = []
            for head in range(n_heads):
                alone = torch.zeros_like(z)
                alone[..., head * size : (head + 1) * size] = z[..., head * size : (head + 1) * size]
                out = project(alone) - zero
                if post:
                    whole, norm = post[layer]
                    out = out * torch.rsqrt(whole.pow(2).mean(-1, keepdim=True) + norm.eps) * (1 + norm.weight)
                heads.append(out)
            layers.append(torch.stack(heads, dim=2))
    return torch.stack(layers)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_head_equals_an_independent_hook_based_value(family: str) -> None:
    terms = attribution.contributions(tiny(family), ROWS, everywhere)

    torch.testing.assert_close(terms.heads, heads_from_plain_hooks(family), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_terms_add_up_to_the_final_residual_stream(family: str) -> None:
    terms = attribution.contributions(tiny(family), ROWS, everywhere)

    total = terms.embed + terms.heads.sum((0, 3)) + terms.attn_biases.sum(0) + terms.mlps.sum(0)
    assert (total - terms.resid_final).norm() / terms.resid_final.norm() < 1e-6


@pytest.mark.parametrize("family", FAMILIES)
def test_direct_effects_add_up_to_the_logits_of_the_plain_model(family: str) -> None:
    columns = torch.randint(0, VOCAB, (3, 7), generator=torch.Generator().manual_seed(1))
    minus = (columns + 5) % VOCAB

    effects = attribution.direct_effects(tiny(family), ROWS, columns, minus, at=everywhere)

    total = effects.embed + effects.heads.sum((0, 3)) + effects.attn_biases.sum(0) + effects.mlps.sum(0)
    total = total + effects.constant
    with torch.no_grad():
        logits = plain(family)(torch.tensor(ROWS)).logits
    cap = tiny(family).facts.logit_cap
    if cap is not None:
        logits = cap * torch.atanh(logits / cap)
    expected = logits.gather(2, columns[..., None]) - logits.gather(2, minus[..., None])
    torch.testing.assert_close(total, expected[..., 0], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(effects.logit, total, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_heads_direct_effect_is_its_contribution_along_the_output_direction(family: str) -> None:
    columns = torch.randint(0, VOCAB, (3, 7), generator=torch.Generator().manual_seed(2))
    terms = attribution.contributions(tiny(family), ROWS, everywhere)

    effects = attribution.direct_effects(tiny(family), ROWS, columns, at=everywhere)

    u = attribution.output_direction(tiny(family), columns, terms.resid_final)
    torch.testing.assert_close(effects.heads, (terms.heads * u[:, :, None]).sum(-1), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_source_tokens_add_up_to_the_head(family: str) -> None:
    model = tiny(family)
    columns = torch.randint(0, VOCAB, (3, 7), generator=torch.Generator().manual_seed(3))
    layers = range(model.facts.n_layers)
    sites = [Site(c, layer) for layer in layers for c in ("z", "v", "pattern", "mlp_out")]
    run = model.run(ROWS, read=[*sites, Site("resid_post", model.facts.n_layers - 1)])
    u = attribution.output_direction(model, columns, run[Site("resid_post", model.facts.n_layers - 1)])

    effects = attribution.head_effects(model, run, u)

    for layer in layers:
        parts = attribution.source_effects(model, run, layer, u)
        torch.testing.assert_close(parts.sum(-1), effects[layer], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(run[Site("pattern", layer)].sum(-1), torch.ones(3, 4, 7))


def test_leaving_out_the_post_norm_would_be_noticed() -> None:
    model = tiny("gemma3")
    z = model.run(ROWS, read=["L0.z"])["L0.z"]
    weights, _ = model.output_weights(0)
    without = torch.einsum("bahe,hed->bahd", z, weights)

    exact, _ = attribution.head_outputs(model, 0, z)

    assert (without - exact).abs().max() > 0.1 * exact.abs().max()


@pytest.mark.parametrize("family", FAMILIES)
def test_require_exact_accepts_every_family(family: str) -> None:
    attribution.require_exact(tiny(family))


@pytest.mark.parametrize("family", FAMILIES)
def test_the_lens_of_the_final_stream_is_the_logits(family: str) -> None:
    model = tiny(family)
    final = model.norm("final")
    assert final is not None
    stream = model.run(ROWS, read=[Site("resid_post", model.facts.n_layers - 1)])
    logits = model.run(ROWS, logits=Logits(at=everywhere, capped=False)).logits

    lens = model.unembed(final(stream[Site("resid_post", model.facts.n_layers - 1)]))

    assert logits is not None
    torch.testing.assert_close(lens, logits, rtol=1e-4, atol=1e-5)
