"""Movers taken away, parts of what they write, and queries without them: against identities and plain hooks."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from mechint import interventions
from mechint.effects import attribution, baselines
from mechint.effects.ablation import Component, baseline_sites
from mechint.effects.baselines import Baseline
from mechint.effects.name_movers import (
    EDITS,
    REMOVED,
    Clean,
    edit_outputs,
    edited,
    joint_ablation,
    project_queries,
    run_clean,
)
from mechint.model.base import Logits, Model
from mechint.positions import prompt
from mechint.sites import Site
from tests.effects.test_patching import Plain
from tests.families import FAMILIES, VOCAB, random_rows, tiny

LENGTHS = (7, 5, 6)
ROWS, OTHERS = ([row[:n] for row, n in zip(random_rows(3, 7, seed=seed), LENGTHS, strict=True)] for seed in (0, 9))
TARGET, DISTRACTOR = torch.randint(2, VOCAB, (2, 3), generator=torch.Generator().manual_seed(5))
MOVERS = [Component(0, 1), Component(1, 0), Component(1, 3)]


def prepared(family: str) -> tuple[Model, Clean, Baseline]:
    model = tiny(family)
    baseline = baselines.resample_baseline(model, ROWS, OTHERS, baseline_sites(MOVERS))
    return model, run_clean(model, ROWS, TARGET, DISTRACTOR), baseline


def metric(model: Model, write: Any = None) -> Tensor:
    columns = torch.stack([TARGET, DISTRACTOR], 1)[:, None]
    logits = model.run(ROWS, write=write, logits=Logits(columns=columns, capped=False)).logits
    assert logits is not None
    return logits[:, 0, 0] - logits[:, 0, 1]


def close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_all_changes_and_the_norm_add_up_to_the_change_of_the_difference(family: str) -> None:
    model, clean, baseline = prepared(family)

    found = joint_ablation(clean, MOVERS, baseline)

    write = {s: baseline.intervention(s, 1, prompt()) for mover in MOVERS for s in mover.sites}
    close(found.difference_before, metric(model))
    close(found.difference_after, metric(model, write))
    before, after = found.before, found.after
    parts = (after.heads - before.heads).sum((0, 2)) + (after.biases - before.biases).sum(0)
    parts = parts + (after.mlps - before.mlps).sum(0) + found.norm
    close(parts, found.difference_after - found.difference_before)


@pytest.mark.parametrize("family", FAMILIES)
def test_before_and_after_are_direct_effects_of_whole_runs(family: str) -> None:
    model, clean, baseline = prepared(family)
    layers = range(model.facts.n_layers)

    found = joint_ablation(clean, MOVERS[1:], baseline)

    expected = attribution.direct_effects(model, ROWS, TARGET[:, None], DISTRACTOR[:, None])
    close(found.before.heads, expected.heads[:, :, 0])
    close(found.before.mlps, expected.mlps[:, :, 0])
    write = {s: baseline.intervention(s, 1, prompt()) for mover in MOVERS[1:] for s in mover.sites}
    run = model.run(ROWS, read={Site("z", i): prompt(-1) for i in layers}, write=write)
    for layer in layers:
        heads, _ = attribution.head_outputs(model, layer, run[Site("z", layer)])
        close(found.after.heads[layer], (heads * clean.u[:, :, None]).sum(-1)[:, 0])


def test_the_edits_are_their_formulas() -> None:
    c, x, w = torch.tensor([3.0, 4.0]), torch.tensor([1.0, 2.0]), torch.tensor([0.0, 1.0])

    found = {name: value.tolist() for name, value in edited(c, x, w).items()}

    assert found == {
        "zero": [0, 0],
        "IO only": [0, 4],
        "rest resampled": [1, 4],
        "IO removed": [3, 0],
        "IO resampled": [3, 2],
        "resampled": [1, 2],
    }


@pytest.mark.parametrize("family", FAMILIES)
def test_an_edit_equals_putting_the_movers_new_output_into_the_stream_block_by_block(family: str) -> None:
    model, clean, baseline = prepared(family)
    own, there = (attribution.contributions(model, rows).heads[:, :, 0] for rows in (ROWS, OTHERS))
    u, w = clean.u[:, 0], clean.towards[:, 0]

    found = edit_outputs(clean, MOVERS, baseline)

    assert tuple(found) == EDITS
    for name in EDITS:
        write: dict[str | Site, Any] = {}
        for layer in range(model.facts.n_layers):
            sites = [Site("z", layer), Site("attn_out", layer)]
            run = model.run(ROWS, read=dict.fromkeys(sites, prompt(-1)), write=write)
            now = attribution.head_outputs(model, layer, run[sites[0]])[0][:, 0]
            new, value = run[sites[1]], now.clone()
            for head in [mover.head or 0 for mover in MOVERS if mover.layer == layer]:
                value[:, head] = edited(own[layer, :, head], there[layer, :, head], w)[name]
                new = new + (value[:, head] - now[:, head])[:, None]
                write[sites[1]] = interventions.replace(new, prompt(-1))
            close(found[name][layer], (value * u[:, None]).sum(-1))


@pytest.mark.parametrize("family", ["gpt2", "gemma3", "neox"])
def test_without_a_difference_between_the_two_runs_resampling_edits_change_nothing(family: str) -> None:
    model = tiny(family)
    clean = run_clean(model, ROWS, TARGET, DISTRACTOR)
    same = baselines.resample_baseline(model, ROWS, ROWS, baseline_sites(MOVERS))

    found, ablated = edit_outputs(clean, MOVERS, same), joint_ablation(clean, MOVERS, same)

    for name in ("rest resampled", "IO resampled", "resampled"):
        close(found[name], ablated.before.heads)
    assert (found["zero"] - ablated.before.heads)[2:].abs().max() > 1e-3
    close(ablated.after.heads, ablated.before.heads)


@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma3"])
def test_a_query_without_the_movers_equals_hooks_on_the_plain_model(family: str) -> None:
    _, clean, _ = prepared(family)
    row, oracle = 0, Plain(family)  # the only full-length row

    found = project_queries(clean, MOVERS)

    assert tuple(found) == REMOVED
    blocks = [1, 2]
    terms = attribution.contributions(tiny(family), [ROWS[row]]).heads[:, 0, 0]
    u, w, recorded = clean.u[row, 0], clean.towards[row, 0], oracle.record([ROWS[row]])
    for layer in blocks:
        m = torch.stack([terms[mover.layer, mover.head] for mover in MOVERS if mover.layer < layer]).sum(0)
        along = (m @ w) * w
        for name, part in zip(REMOVED, (along, m - along, m), strict=True):
            for head in (0, 3):
                z = query_read_without(oracle, ROWS[row], layer, head, part)
                weights, _ = tiny(family).output_weights(layer)
                written = z.view(4, -1)[head] @ weights[head]
                post = tiny(family).norm("attn_post", layer)
                if post is not None:
                    whole = recorded["z", layer][0, -1]
                    total = torch.einsum("he,hed->d", whole.view(4, -1), weights)
                    written = written / post.scale(total) * post.gain
                close(found[name][layer, row, head], written @ u)
    close(
        found[REMOVED[0]][0],
        attribution.direct_effects(tiny(family), ROWS, TARGET[:, None], DISTRACTOR[:, None]).heads[0, :, 0],
    )


def query_read_without(oracle: Plain, row: Sequence[int], layer: int, head: int, part: Tensor) -> Tensor:
    """z at the last position when one head's query there reads the normalised stream less a part of it."""
    module, begin = oracle.projection("q", layer)
    block = oracle.blocks[layer]
    norm = block.ln_1 if oracle.family == "gpt2" else block.input_layernorm
    own = slice(begin + head * oracle.size, begin + (head + 1) * oracle.size)
    seen: dict[str, Tensor] = {}

    def keep(name: str) -> Callable[[Tensor], Tensor]:
        return lambda h: seen.__setitem__(name, h.clone()) or h

    oracle.run([row], [(norm, True, keep("stream")), (norm, False, keep("normed"))])
    x, y = seen["stream"][0, -1], seen["normed"][0, -1]
    if oracle.family == "gpt2":
        scale = (x.var(unbiased=False) + norm.eps).sqrt()
        less = y - (part - part.mean()) / scale * norm.weight
    else:
        eps = norm.eps if oracle.family == "gemma3" else norm.variance_epsilon
        gain = norm.weight + 1 if oracle.family == "gemma3" else norm.weight
        less = y - part / (x.pow(2).mean() + eps).sqrt() * gain
    with torch.no_grad():
        new = module(less[None, None])[0, 0, own]

    def write(h: Tensor) -> Tensor:
        h = h.clone()
        h[0, -1, own] = new
        return h

    oracle.run([row], [(module, False, write), (oracle.out(layer), True, keep("z"))])
    return seen["z"][0, -1]


@pytest.mark.parametrize("family", FAMILIES)
def test_heads_that_no_mover_comes_before_keep_their_query_and_later_ones_do_not(family: str) -> None:
    _, clean, baseline = prepared(family)
    before = joint_ablation(clean, MOVERS[1:], baseline).before.heads

    found = project_queries(clean, MOVERS[1:])

    for name in REMOVED:
        torch.testing.assert_close(found[name][:2], before[:2], rtol=0, atol=0)
        assert (found[name][2] - before[2]).abs().max() > 1e-5
