"""T9: self-repair is exactly its three parts, on every family and for heads, MLPs and blocks."""

import pytest
import torch

from mechint.effects import baselines
from mechint.effects.ablation import Component, all_heads, baseline_sites, sweep
from mechint.effects.attribution import output_direction
from mechint.effects.baselines import Baseline
from mechint.effects.self_repair import repair
from mechint.positions import prompt
from mechint.sites import Site
from tests.effects.test_ablation import COLUMNS, ROWS
from tests.families import FAMILIES, tiny


@pytest.mark.parametrize("kind", ["zero", "mean"])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_three_parts_add_up(family: str, kind: str) -> None:
    model = tiny(family)
    components = [*all_heads(model.facts), Component.parse("M0"), Component.parse("M1"), Component.parse("L1")]
    baseline = Baseline()
    if kind == "mean":
        baseline = baselines.mean_baseline(model, ROWS, baseline_sites(components))

    found = repair(model, ROWS, components, baseline, COLUMNS[:, 0], COLUMNS[:, 1])
    swept = sweep(model, ROWS, components, baseline, COLUMNS)

    for i, one in enumerate(found):
        torch.testing.assert_close(one.total, one.heads_part + one.mlp_part + one.norm, rtol=1e-4, atol=1e-5)
        # The sweep knows logits and direct effects only; both roads must meet.
        difference = swept.self_repair[i, :, 0] - swept.self_repair[i, :, 1]
        torch.testing.assert_close(one.total, difference, rtol=1e-3, atol=2e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_after_the_last_block_nothing_but_its_mlp_and_the_norm_can_react(family: str) -> None:
    model = tiny(family)
    last = model.facts.n_layers - 1

    one = repair(model, ROWS, [Component(last, 0)], Baseline(), COLUMNS[:, 0])[0]

    if not model.facts.post_norms:  # a shared post-norm scale lets the other heads of the block change
        assert one.heads.abs().max() == 0
    if model.facts.parallel:
        assert one.mlp_part.abs().max() == 0
    else:
        assert one.mlp_part.abs().max() > 0


@pytest.mark.parametrize("family", ["gpt2", "gemma3", "neox"])
def test_the_norm_part_has_its_closed_form(family: str) -> None:
    model = tiny(family)
    last = Site("resid_post", model.facts.n_layers - 1)
    component = Component(1, 2)
    final = model.norm("final")
    assert final is not None

    one = repair(model, ROWS, [component], Baseline(), COLUMNS[:, 0])[0]

    for i, row in enumerate(ROWS):
        clean = model.run([row], read={last: prompt(-1)})[last]
        ablated = model.run(
            [row],
            read={last: prompt(-1)},
            write={component.sites[0]: Baseline().intervention(component.sites[0], 1, prompt())},
        )[last]
        w = output_direction(model, COLUMNS[i : i + 1, :1], clean) * final.scale(clean)
        closed = (ablated * w).sum() * (1 / final.scale(ablated) - 1 / final.scale(clean)).squeeze()
        torch.testing.assert_close(one.norm[i], closed, rtol=1e-3, atol=1e-5)


def test_blocks_below_the_ablated_one_repair_nothing() -> None:
    one = repair(tiny("llama"), ROWS, [Component(2, 1)], Baseline(), COLUMNS[:, 0])[0]

    assert one.heads[:2].abs().max() == 0
    assert one.mlps[:2].abs().max() == 0
