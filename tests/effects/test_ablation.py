"""The fast sweep equals the obvious loop, on every family and with every baseline."""

import pytest
import torch
from torch import Tensor

from mechint.effects import baselines
from mechint.effects.ablation import Component, all_heads, baseline_sites, sweep
from mechint.effects.baselines import Baseline
from mechint.errors import InterventionError, SiteError
from mechint.model.base import Logits
from mechint.model.transformer_lens import TransformerLensModel
from mechint.positions import TokenBatch
from mechint.sites import Site
from tests.families import CONFIGS, FAMILIES, VOCAB, plain, random_rows, tiny

# Shared beginnings of different lengths, so that the prefix tree branches; at most 8 tokens, the tiny Gemmas' window.
_STEM = random_rows(1, 8)[0]
ROWS = [
    _STEM,
    [*_STEM[:6], 9, 11],
    [*_STEM[:3], 5, 6, 7],
    random_rows(1, 5, seed=4)[0],
]
COLUMNS = torch.randint(0, VOCAB, (len(ROWS), 2), generator=torch.Generator().manual_seed(5))
_PROJECTIONS = ("self_attn.o_proj", "attn.c_proj", "attention.dense", "attn.out_proj")


def uncapped(model: TransformerLensModel, logits: Tensor) -> Tensor:
    cap = model.facts.logit_cap
    return logits if cap is None else cap * torch.atanh(logits / cap)


def zero_ablated_by_plain_hooks(family: str, layer: int, head: int) -> Tensor:
    """Logits of COLUMNS with one head's part of the output projection's input set to zero."""
    model = plain(family)
    projection = [m for name, m in model.named_modules() if name.endswith(_PROJECTIONS)][layer]
    n_heads = CONFIGS[family]().num_attention_heads

    def cut(_: object, args: tuple[Tensor]) -> tuple[Tensor]:
        z = args[0].clone()
        size = z.shape[-1] // n_heads
        z[..., head * size : (head + 1) * size] = 0
        return (z,)

    projection.register_forward_pre_hook(cut)
    with torch.no_grad():
        rows = [model(torch.tensor([row])).logits[0, -1][columns] for row, columns in zip(ROWS, COLUMNS, strict=True)]
    return uncapped(tiny(family), torch.stack(rows))


def one_by_one(model: TransformerLensModel, component: Component, baseline: Baseline) -> Tensor:
    """The same ablation with one full forward pass, no prefix sharing and no restart."""
    batch = TokenBatch.from_rows(ROWS)
    everything = batch.real
    write = {site: baseline.intervention(site, 1, everywhere_in(everything)) for site in component.sites}
    logits = model.run(batch, write=write, logits=Logits(columns=COLUMNS[:, None], capped=False)).logits
    assert logits is not None
    return logits[:, 0]


def everywhere_in(real: Tensor):
    from mechint.positions import Positions

    return Positions("everywhere", lambda _: real)


@pytest.mark.parametrize("family", FAMILIES)
def test_zero_ablation_of_every_head_equals_plain_hooks(family: str) -> None:
    model = tiny(family)

    result = sweep(model, ROWS, all_heads(model.facts), Baseline(), COLUMNS)

    for component, logits in zip(result.components, result.ablated, strict=True):
        assert component.head is not None
        expected = zero_ablated_by_plain_hooks(family, component.layer, component.head)
        torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ["zero", "mean", "resample"])
@pytest.mark.parametrize("family", ["gpt2", "gptj", "gemma3"])
def test_the_sweep_equals_one_full_pass_a_component(family: str, kind: str) -> None:
    model = tiny(family)
    components = [*all_heads(model.facts), *(Component.parse(f"{p}{i}") for i in range(3) for p in "ML")]
    sites = baseline_sites(components)
    baseline = Baseline()
    if kind == "mean":
        baseline = baselines.mean_baseline(model, ROWS, sites)
    if kind == "resample":
        others = [[0, *[(t + 3) % VOCAB for t in row[1:]]] for row in ROWS]
        baseline = baselines.resample_baseline(model, ROWS, others, sites)

    result = sweep(model, ROWS, components, baseline, COLUMNS)

    for component, logits in zip(result.components, result.ablated, strict=True):
        torch.testing.assert_close(logits, one_by_one(model, component, baseline), rtol=1e-4, atol=1e-4)


def test_means_are_taken_position_by_position_over_the_prompts_that_reach_it() -> None:
    model = tiny("gpt2")
    site = Site("z", 1)

    means = baselines.mean_baseline(model, ROWS, [site]).values[site]

    alone = [model.run([row], read=[site])[site][0] for row in ROWS]
    torch.testing.assert_close(means[2], torch.stack([z[2] for z in alone]).mean(0), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(means[6], torch.stack([z[6] for z in alone if len(z) > 6]).mean(0), rtol=1e-5, atol=1e-6)


def test_a_position_that_one_prompt_alone_reaches_is_not_set_to_its_own_value() -> None:
    model = tiny("gpt2")
    site = Site("z", 1)
    rows = [random_rows(1, 9, seed=7)[0], *random_rows(3, 5, seed=8)]

    baseline = baselines.mean_baseline(model, rows, [site])

    own = model.run([rows[0]], read=[site])[site][0]
    assert (baseline.values[site][8] - own[8]).abs().max() > 1e-3
    assert "4 positions that one prompt alone reaches" in baseline.note


def test_resampling_needs_equal_lengths() -> None:
    with pytest.raises(InterventionError, match=r"Prompt 0 has 8 tokens, and the prompt to resample it from 5"):
        baselines.resample_baseline(tiny("gpt2"), ROWS[:1], [ROWS[3]], [Site("z", 0)])


def test_a_prompt_without_partner_of_its_length_cannot_be_resampled() -> None:
    generator = torch.Generator().manual_seed(0)

    with pytest.raises(InterventionError, match="the only one of 6 tokens"):
        baselines.resample_sources(ROWS, [None] * 4, generator)


def test_a_derangement_never_resamples_a_prompt_from_itself() -> None:
    rows = random_rows(9, 6)
    for seed in range(20):
        sources = baselines.resample_sources(rows, [None] * 9, torch.Generator().manual_seed(seed))

        assert all(source != row for source, row in zip(sources, rows, strict=True))
        assert sorted(map(tuple, sources)) == sorted(map(tuple, rows))


def test_an_unknown_component_is_refused_with_examples() -> None:
    with pytest.raises(SiteError, match="Or an MLP"):
        Component.parse("17-2")
    with pytest.raises(SiteError, match="has blocks L0 to L2"):
        sweep(tiny("gpt2"), ROWS, [Component(3, 0)], Baseline(), COLUMNS)
