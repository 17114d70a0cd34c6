"""T8: direct and indirect effects add up to both, on every family, and what must be zero is zero."""

from typing import Any

import pandas as pd
import pytest
import torch
from torch import Tensor

from mechint import interventions
from mechint.effects import attribution
from mechint.effects.documents import Documents
from mechint.effects.head_outputs import mean_outputs
from mechint.effects.loss_effects import (
    BOTH,
    CONTROL,
    DIRECT,
    EXCLUDING,
    FROZEN,
    INDIRECT,
    RECOMPUTED,
    changed_streams,
    loss_effect_sums,
    loss_effect_table,
)
from mechint.effects.sampling import destinations
from mechint.errors import ConfigError
from mechint.model.base import Model, Run
from mechint.positions import everywhere
from mechint.sites import Site
from tests.effects.test_attribution import ROWS, heads_from_plain_hooks
from tests.families import FAMILIES, VOCAB, plain, tiny

NAMES = tuple("abc")
DOCUMENTS = Documents(NAMES, NAMES, torch.tensor(ROWS))
AT = destinations(DOCUMENTS)
HEAD = (1, 2)
PARALLEL = [family for family in FAMILIES if tiny(family).facts.parallel]
SEQUENTIAL = [family for family in FAMILIES if not tiny(family).facts.parallel]


def clean_run(model: Model, layers: list[int] | None = None) -> Run:
    sites = [Site(part, layer) for layer in layers or [HEAD[0]] for part in ("resid_pre", "z", "attn_out", "mlp_out")]
    return model.run(ROWS, read=[*sites, Site("resid_post", model.facts.n_layers - 1)])


def streams_of(model: Model, head: tuple[int, int] = HEAD, mean: Tensor | None = None) -> dict[str, Tensor]:
    run = clean_run(model, [head[0]])
    mean = mean_outputs(model, DOCUMENTS)[head] if mean is None else mean
    return changed_streams(model, DOCUMENTS, head, mean, run) | {
        "clean": run[Site("resid_post", model.facts.n_layers - 1)]
    }


def final_stream_by_plain_hooks(family: str, away: Tensor) -> Tensor:
    """The stream before the final norm when `away` is added to what attention of one block adds to the stream."""
    model, seen = plain(family), {}
    names = ("post_attention_layernorm",) if family.startswith("gemma") else ("self_attn", "attn", "attention")
    places = [m for name, m in model.named_modules() if name.split(".")[-1] in names]

    def move(_: object, __: object, output: Any) -> Any:
        return (output[0] + away, *output[1:]) if isinstance(output, tuple) else output + away

    places[HEAD[0]].register_forward_hook(move)
    norms = [m for n, m in model.named_modules() if n.endswith(("ln_f", "final_layer_norm", "model.norm"))]
    assert len(norms) == 1
    norms[0].register_forward_pre_hook(lambda _, args: seen.update(stream=args[0]))
    with torch.no_grad():
        model(torch.tensor(ROWS), use_cache=False)
    return seen["stream"]


@pytest.mark.parametrize("family", FAMILIES)
def test_the_rerun_equals_plain_transformers_with_the_mean_in_the_heads_place(family: str) -> None:
    own = heads_from_plain_hooks(family)[HEAD[0], :, :, HEAD[1]]

    both = streams_of(tiny(family))[BOTH]

    expected = final_stream_by_plain_hooks(family, own.mean(0) - own)
    torch.testing.assert_close(both, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_direct_and_indirect_add_up_to_both(family: str) -> None:
    model = tiny(family)
    heads = attribution.contributions(model, ROWS, everywhere).heads[HEAD[0], :, :, HEAD[1]]

    found = streams_of(model)

    torch.testing.assert_close(found[DIRECT] - found["clean"], heads.mean(0) - heads, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found[DIRECT] + found[INDIRECT] - found["clean"], found[BOTH], rtol=1e-5, atol=1e-5)
    assert (found[INDIRECT] - found["clean"]).abs().max() > 1e-3


def log_p(model: Model, normalised: Tensor) -> Tensor:
    everything = torch.arange(VOCAB)
    logits = normalised @ model.unembedding(everything).double().T + model.output_bias(everything).double()
    cap = model.facts.logit_cap
    return (logits if cap is None else cap * torch.tanh(logits / cap)).log_softmax(-1)


def through(model: Model, stream: Tensor, scale_of: Tensor) -> Tensor:
    final = attribution.final_norm(model)
    out = final.centre(stream.double()) / final.scale(scale_of.double()) * final.gain.double()
    return out if final.bias is None else out + final.bias.double()


@pytest.mark.parametrize("family", FAMILIES)
def test_losses_and_divergences_are_those_of_dense_logits(family: str) -> None:
    model = tiny(family)

    found = loss_effect_sums(model, DOCUMENTS, [HEAD], mean_outputs(model, DOCUMENTS), AT)

    streams, truth = streams_of(model), DOCUMENTS.tokens[:, 2:, None]
    before = log_p(model, through(model, streams["clean"], streams["clean"]))[:, 1:-1]
    table = found.set_index(["effect", "scale"]).sort_index()
    for effect in (BOTH, DIRECT, INDIRECT):
        for scale, of in ((FROZEN, streams["clean"]), (RECOMPUTED, streams[effect])):
            after = log_p(model, through(model, streams[effect], of))[:, 1:-1]
            change = (before - after).gather(2, truth)[..., 0]
            expected = {
                "loss": -before.gather(2, truth)[..., 0].sum(1),
                "loss_change": change.sum(1),
                "absolute_loss_change": change.abs().sum(1),
                "kl": (before.exp() * (before - after)).sum((1, 2)),
            }
            for name, values in expected.items():
                got = torch.tensor(table.loc[(effect, scale), name].to_numpy())
                torch.testing.assert_close(got, values, rtol=1e-3, atol=2e-5)
    assert (found["n"] == 5).all()


@pytest.mark.parametrize("family", PARALLEL)
def test_a_head_of_the_last_block_has_no_indirect_effect_where_the_mlp_runs_beside_it(family: str) -> None:
    model = tiny(family)
    last = (model.facts.n_layers - 1, 1)

    found = loss_effect_sums(model, DOCUMENTS, [last], mean_outputs(model, DOCUMENTS), AT).set_index("effect")

    assert found.loc[INDIRECT, "kl"].abs().max() < 1e-9
    assert found.loc[INDIRECT, "absolute_loss_change"].abs().max() < 1e-4
    assert found.loc[DIRECT, "kl"].min() > 1e-5


@pytest.mark.parametrize("family", SEQUENTIAL)
def test_the_indirect_effect_of_a_head_of_the_last_block_is_what_its_mlp_changes(family: str) -> None:
    model = tiny(family)
    layer = model.facts.n_layers - 1
    run, own = clean_run(model, [layer]), heads_from_plain_hooks(family)[layer, :, :, 1]
    write = interventions.add(own.mean(0) - own)
    site = Site("mlp_out", layer)
    changed = model.run(ROWS, read=[site], write={Site("attn_out", layer): write})[site]

    found = streams_of(model, (layer, 1))

    change = found[INDIRECT] - found["clean"]
    torch.testing.assert_close(change, changed - run[site], rtol=1e-3, atol=2e-5)
    assert change.abs().max() > 1e-3


@pytest.mark.parametrize("family", FAMILIES)
def test_in_the_last_block_a_change_at_one_position_moves_that_position_alone(family: str) -> None:
    model, alone = tiny(family), DOCUMENTS.pick([0])
    layer = model.facts.n_layers - 1
    mean = mean_outputs(model, alone)[layer, 1]
    mean[3] += 1

    run = model.run(ROWS[:1], read=[Site(p, layer) for p in ("resid_pre", "z", "attn_out", "resid_post")])
    found = changed_streams(model, alone, (layer, 1), mean, run)

    for stream in found.values():
        change = (stream - run[Site("resid_post", layer)])[0].abs().amax(-1)
        assert change[torch.arange(7) != 3].max() < 1e-4
    assert (found[BOTH] - run[Site("resid_post", layer)])[0, 3].abs().max() > 0.1


@pytest.mark.parametrize("family", FAMILIES)
def test_a_head_that_is_set_to_what_it_wrote_changes_nothing(family: str) -> None:
    model, alone = tiny(family), DOCUMENTS.pick([0])

    found = loss_effect_sums(model, alone, [HEAD], mean_outputs(model, alone), AT[:1])

    assert found["absolute_loss_change"].max() < 2e-4
    assert found["kl"].max() < 1e-8


@pytest.mark.parametrize("family", PARALLEL)
def test_excluding_a_last_head_takes_exactly_that_heads_answer_away(family: str) -> None:
    model = tiny(family)
    other = Site("z", model.facts.n_layers - 1, 3)
    mean, last = mean_outputs(model, DOCUMENTS)[HEAD], Site("resid_post", model.facts.n_layers - 1)
    parts = [Site(p, HEAD[0]) for p in ("resid_pre", "z", "attn_out")]
    run = model.run(ROWS, read=[*parts, other, other.whole, last])

    found = changed_streams(model, DOCUMENTS, HEAD, mean, run, [other])

    written, _ = attribution.head_outputs(model, HEAD[0], run[Site("z", HEAD[0])])
    away = interventions.add(mean - written[:, :, HEAD[1]])
    z = model.run(ROWS, read=[other.whole], write={Site("attn_out", HEAD[0]): away})[other.whole]
    answer = [attribution.head_outputs(model, other.layer or 0, values)[0][:, :, 3] for values in (run[other.whole], z)]
    torch.testing.assert_close(found[INDIRECT] - found[EXCLUDING], answer[1] - answer[0], rtol=1e-3, atol=2e-5)
    assert (answer[1] - answer[0]).abs().max() > 1e-3


@pytest.mark.parametrize("family", FAMILIES)
def test_excluding_equals_a_full_run_with_the_other_head_held_fast(family: str) -> None:
    model = tiny(family)
    other, means = (2, 0), mean_outputs(model, DOCUMENTS)

    found = loss_effect_sums(model, DOCUMENTS, [HEAD], means, AT, excluding=other)

    own = heads_from_plain_hooks(family)[HEAD[0], :, :, HEAD[1]]
    last, site = Site("resid_post", model.facts.n_layers - 1), Site("z", *other)
    clean = model.run(ROWS, read=[site, last])
    write = {
        Site("attn_out", HEAD[0]): interventions.add(means[HEAD] - own),
        site: interventions.replace(clean[site]),
    }
    stream = model.run(ROWS, read=[last], write=write)[last] - (means[HEAD] - own)
    before, after = (log_p(model, through(model, x, clean[last]))[:, 1:-1] for x in (clean[last], stream))
    expected = (before.exp() * (before - after)).sum((1, 2))
    got = found.set_index(["effect", "scale"]).sort_index().loc[(EXCLUDING, FROZEN), "kl"]
    torch.testing.assert_close(torch.tensor(got.to_numpy()), expected, rtol=1e-3, atol=1e-5)


def test_a_head_that_does_not_come_later_cannot_be_excluded() -> None:
    model = tiny("llama")

    with pytest.raises(ConfigError, match=r"excluding L1H0: expected a head of a later block than all of L1H2"):
        loss_effect_sums(model, DOCUMENTS, [HEAD], mean_outputs(model, DOCUMENTS), AT, excluding=(1, 0))


def test_the_control_is_there_once_and_does_something_else() -> None:
    model = tiny("llama")

    found = loss_effect_sums(model, DOCUMENTS, [HEAD], mean_outputs(model, DOCUMENTS), AT)

    table = found.set_index(["effect", "scale"])["kl"].groupby(level=[0, 1]).sum()
    assert table[CONTROL, FROZEN] > 0
    assert (CONTROL, RECOMPUTED) not in table.index
    assert table[CONTROL, FROZEN] != pytest.approx(table[DIRECT, FROZEN], rel=0.01)


def test_means_are_over_positions_and_intervals_over_clusters() -> None:
    rows = pd.DataFrame(
        {"id": ["a", "b", "c", "d"], "layer": 1, "head": 2, "label": "L1H2", "effect": DIRECT, "scale": FROZEN}
        | {"n": [1, 3, 2, 2], "loss": [3.0, 6, 4, 4], "loss_change": [1.0, 0, 2, 1]}
        | {"absolute_loss_change": [1.0, 3, 2, 1], "kl": [0.5, 0.3, 0.2, 0.1]}
    )

    each = loss_effect_table(rows, {name: name for name in "abcd"}).iloc[0]
    one = loss_effect_table(rows, dict.fromkeys("abcd", "chapter")).iloc[0]

    assert (each["loss_change"], each["absolute_loss_change"], each["loss"], each["n_positions"]) == (
        0.5,
        0.875,
        17 / 8,
        8,
    )
    assert each["kl_low"] < 1.1 / 8 < each["kl_high"]
    assert one["kl"] == each["kl"]
    assert pd.isna(one["kl_low"])
