"""Neurons add up to their MLP on every family, and those that repair are found where they were planted."""

import pytest
import torch
from torch import Tensor

from mechint.effects import attribution
from mechint.effects.ablation import Component, ablated_runs
from mechint.effects.baselines import Baseline
from mechint.effects.neurons import erasure, neuron_effects
from mechint.effects.text_ablation import TextAblation
from mechint.effects.text_repair import clean_text
from mechint.errors import SiteError
from mechint.model.transformer_lens import TransformerLensModel
from mechint.positions import everywhere
from mechint.sites import Site
from tests.effects.test_text_repair import DOCUMENTS
from tests.families import FAMILIES, VOCAB, plain, random_rows, tiny, tokenizer

ROWS = random_rows(3, 7)


def _columns(seed: int) -> Tensor:
    return torch.randint(0, VOCAB, (3, 7), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("family", FAMILIES)
def test_neurons_and_bias_add_up_to_the_mlp_in_every_block(family: str) -> None:
    model = tiny(family)
    layers = range(model.facts.n_layers)
    sites = [Site(part, layer) for layer in layers for part in ("mlp_post", "mlp_out")]
    last = Site("resid_post", model.facts.n_layers - 1)
    run = model.run(ROWS, read=[*sites, last])
    u = attribution.output_direction(model, _columns(1), run[last])

    for layer in layers:
        neurons, bias = neuron_effects(model, layer, run[Site("mlp_post", layer)], u)

        whole = (run[Site("mlp_out", layer)] * u).sum(-1)
        torch.testing.assert_close(neurons.sum(-1) + bias, whole, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_neurons_effect_is_what_goes_when_it_alone_is_silenced_at_the_frozen_scale(family: str) -> None:
    """An independent road: silence one neuron in the weights' own formula and take the difference."""
    model, layer, neuron = tiny(family), 1, 17
    last = Site("resid_post", model.facts.n_layers - 1)
    run = model.run(ROWS, read=[Site("mlp_post", layer), last])
    activations, u = run[Site("mlp_post", layer)], attribution.output_direction(model, _columns(2), run[last])
    weights, bias = model.mlp_output_weights(layer)
    post = model.norm("mlp_post", layer)
    silenced = activations.clone()
    silenced[..., neuron] = 0
    whole, less = (a @ weights + bias for a in (activations, silenced))
    lost = whole - less if post is None else post.centre(whole - less) / post.scale(whole) * post.gain

    neurons, _ = neuron_effects(model, layer, activations, u)

    torch.testing.assert_close(neurons[..., neuron], (lost * u).sum(-1), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    ("family", "label"), [*((family, "L0H1") for family in FAMILIES), ("gemma3", "M1"), ("neox", "L0")]
)
def test_the_mlps_part_is_the_change_of_its_own_direct_effect(family: str, label: str) -> None:
    model, component = tiny(family), Component.parse(label)
    last = model.facts.n_layers - 1
    text = clean_text(model, DOCUMENTS)
    which = range(len(DOCUMENTS))
    baselines = TextAblation(model, DOCUMENTS, [component], "resample", draws=2).baselines(which)

    found = erasure(model, text, component, baselines, last)

    assert len(found) == 2
    for baseline, one in zip(baselines, found, strict=True):
        ((_, run),) = ablated_runs(model, text.layout, text.clean, [component], baseline, from_layer_on=True)
        site = Site("mlp_out", last)
        change = ((run[site] - text.ends[site]) * text.direction).sum(-1).view(text.places.shape)
        torch.testing.assert_close(one.mlp, change, rtol=1e-3, atol=1e-5)


def test_the_largest_rises_are_found_and_looked_at_under_the_other_draw_too() -> None:
    model, component = tiny("gpt2"), Component(0, 1)
    text = clean_text(model, DOCUMENTS)
    baselines = TextAblation(model, DOCUMENTS, [component], "resample", draws=2).baselines(range(len(DOCUMENTS)))
    everything = erasure(model, text, component, baselines, 2, top=128)

    first, second = erasure(model, text, component, baselines, 2, top=4)

    for one, other, whole in ((first, second, everything[0]), (second, first, everything[1])):
        rises = one.ablated - one.clean
        assert bool((rises.diff(dim=-1) <= 0).all())
        torch.testing.assert_close(whole.mlp, (whole.ablated - whole.clean).sum(-1), rtol=1e-3, atol=1e-5)
        order = whole.neurons.argsort(-1)
        by_neuron = [value.gather(-1, order) for value in (whole.clean, whole.ablated)]
        assert one.clean_elsewhere is not None
        assert one.ablated_elsewhere is not None
        torch.testing.assert_close(one.clean_elsewhere, by_neuron[0].gather(-1, other.neurons))
        torch.testing.assert_close(one.ablated_elsewhere, by_neuron[1].gather(-1, other.neurons))
        assert float((one.ablated_elsewhere - one.clean_elsewhere).mean()) < float(rises.mean())


def test_with_one_baseline_there_is_no_elsewhere() -> None:
    (one,) = erasure(tiny("llama"), clean_text(tiny("llama"), DOCUMENTS), Component(1, 0), [Baseline()], 2)

    assert one.clean_elsewhere is None
    assert one.ablated_elsewhere is None


@pytest.mark.parametrize(
    ("family", "label"), [("gpt2", "M2"), ("gpt2", "L2"), ("neox", "L2H0"), ("gptj", "L2H1"), ("neox", "M2")]
)
def test_an_mlp_that_cannot_see_the_component_is_refused(family: str, label: str) -> None:
    text = clean_text(tiny(family), DOCUMENTS)
    with pytest.raises(SiteError, match=f"M2 does not read what {label} writes"):
        erasure(tiny(family), text, Component.parse(label), [Baseline()], 2)


def test_a_planted_eraser_is_the_top_neuron_and_rises_towards_0() -> None:
    """A neuron of the last MLP that reads what a head writes to a direction of the logits, and writes against it."""
    hf = plain("gpt2", seed=3)
    block = hf.transformer.h[2]
    direction = torch.zeros(32)
    direction[:16], direction[16:] = 1.0, -1.0  # of mean 0, so that centring leaves it alone
    head, eraser = slice(0, 8), 5
    block.attn.c_proj.weight[head] = 0
    block.attn.c_attn.bias[64:72] = 2.0
    block.attn.c_proj.weight[head] = 0.3 * direction / 8
    block.mlp.c_fc.weight[:, eraser] = direction
    block.mlp.c_fc.bias[eraser] = 0.0
    block.mlp.c_proj.weight[eraser] = -0.5 * direction
    hf.transformer.ln_f.weight.fill_(1.0)
    hf.lm_head.weight.copy_(hf.lm_head.weight + direction)
    hf.transformer.wte.weight.copy_(hf.lm_head.weight)
    model = TransformerLensModel(hf, tokenizer(), name="eraser")
    text = clean_text(model, DOCUMENTS)

    (one,) = erasure(model, text, Component(2, 0), [Baseline()], 2)

    assert bool((one.repair.direct_effect > 0).all())
    active = one.clean[..., 0] < -0.05
    assert float(active.float().mean()) > 0.5
    assert bool((one.neurons[..., 0][active] == eraser).all())
    assert bool((one.ablated[..., 0] > one.clean[..., 0])[active].all())


def test_reading_everywhere_or_at_places_gives_the_same_effects() -> None:
    model = tiny("gemma3")
    text = clean_text(model, DOCUMENTS)
    site, last = Site("mlp_post", 3), Site("resid_post", model.facts.n_layers - 1)
    run = model.run(text.layout.batch, read={site: everywhere, last: everywhere})
    u = attribution.output_direction(model, DOCUMENTS.next_tokens, run[last][:, :-1])
    whole, _ = neuron_effects(model, 3, run[site][:, :-1], u)

    some, _ = neuron_effects(model, 3, run[site][:, 1:-1], text.direction.view(*text.places.shape, -1))

    torch.testing.assert_close(some, whole[:, 1:], rtol=1e-4, atol=1e-5)
