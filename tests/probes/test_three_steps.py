"""The conditions are those of an obvious loop; the table finds what was planted, and nothing where nothing was."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

import mechint as mi
from mechint.effects import attribution
from mechint.effects.documents import Documents
from mechint.effects.head_outputs import mean_outputs
from mechint.model.base import Model
from mechint.organisms import copy_suppression as organism
from mechint.positions import everywhere
from mechint.probes.copy_suppression.context_tokens import function_tokens
from mechint.probes.copy_suppression.three_steps import CONDITIONS, three_step_rows, three_step_table
from mechint.sites import Site
from mechint.statistics import generator
from tests.families import FAMILIES, VOCAB, random_rows, tiny

NAMES = tuple("abcdef")
# An ordinary word at position 0, so that leaving that position out matters.
DOCUMENTS = Documents(
    NAMES, NAMES, torch.tensor([[20 + i, *row[1:]] for i, row in enumerate(random_rows(6, 16, seed=3))])
)
EXCLUDED = torch.tensor([0, 1, *range(4, 20)])
HEADS = [(1, 2), (2, 0)]


def log_p(model: Model, stream: Tensor, scale_of: Tensor) -> Tensor:
    final, everything = attribution.final_norm(model), torch.arange(VOCAB)
    normalised = final.centre(stream.double()) / final.scale(scale_of.double()) * final.gain.double()
    normalised = normalised if final.bias is None else normalised + final.bias.double()
    logits = normalised @ model.unembedding(everything).double().T + model.output_bias(everything).double()
    cap = model.facts.logit_cap
    return (logits if cap is None else cap * torch.tanh(logits / cap)).log_softmax(-1)


def slow_rows(model: Model, layer: int, head: int) -> list[dict[str, Any]]:
    """The same by one loop over documents and positions, in float64, from whole tables of logits."""
    rows = DOCUMENTS.tokens.tolist()
    terms = attribution.contributions(model, rows, everywhere)
    sites = [Site("pattern", layer), Site("resid_pre", layer)]
    run = model.run(rows, read=sites)
    own, final = terms.heads[layer, :, :, head], attribution.final_norm(model)
    clean = log_p(model, terms.resid_final, terms.resid_final)
    ablated = log_p(model, terms.resid_final - own + own.mean(0), terms.resid_final)
    lens = log_p(model, run[sites[1]], run[sites[1]])
    writes = final.centre(own.double()) * final.gain.double() @ model.unembedding(torch.arange(VOCAB)).double().T
    found: list[dict[str, Any]] = []
    for b, name in enumerate(NAMES):
        for d in range(1, DOCUMENTS.length - 1):
            context = {t for t in rows[b][1 : d + 1] if t not in EXCLUDED.tolist()}
            weights = run[sites[0]][b, head, d].tolist()
            best = sorted((s for s in range(1, d + 1) if weights[s] > 0), key=lambda s: -weights[s])[:2]
            predicted = context & set(lens[b, d].topk(10).indices.tolist())
            attended = context & {rows[b][s] for s in best}
            suppressed = context & set((-writes[b, d]).topk(10).indices.tolist())
            in_the_end = context & set(ablated[b, d].topk(10).indices.tolist())
            y = rows[b][d + 1]
            found.append(
                {"id": name, "position": d, "layer": layer, "head": head, "label": f"L{layer}H{head}"}
                | {"loss": -float(clean[b, d, y]), "loss_change": float(clean[b, d, y] - ablated[b, d, y])}
                | {"predicted": bool(predicted), "attended": bool(attended), "suppressed": bool(suppressed)}
                | {"all three": bool(predicted and attended and suppressed)}
                | {"same token": bool(predicted & attended & suppressed)}
                | {"predicted in the end": bool(in_the_end)}
                | {"same token in the end": bool(in_the_end & attended & suppressed)}
            )
    return found


@pytest.mark.parametrize("family", FAMILIES)
def test_rows_are_those_of_an_obvious_loop(family: str) -> None:
    model = tiny(family)

    found = three_step_rows(model, DOCUMENTS, HEADS, mean_outputs(model, DOCUMENTS), EXCLUDED)

    expected = pd.DataFrame([row for head in HEADS for row in slow_rows(model, *head)])
    pd.testing.assert_frame_equal(found, expected, rtol=1e-3, atol=1e-5, check_dtype=False)
    shares = found[list(CONDITIONS)].mean()
    assert (shares < 1).all()  # neither side of a condition goes untested
    assert (shares.drop("same token in the end") > 0).all()
    assert (found["same token"] < found["all three"]).any()


def test_excluding_every_token_leaves_no_context() -> None:
    model = tiny("llama")

    found = three_step_rows(model, DOCUMENTS, HEADS, mean_outputs(model, DOCUMENTS), torch.arange(VOCAB))

    assert not found[list(CONDITIONS)].any(axis=None)


def test_rows_do_not_depend_on_the_batch() -> None:
    model = tiny("gemma3")
    means = mean_outputs(model, DOCUMENTS)

    together = three_step_rows(model, DOCUMENTS, HEADS[:1], means, EXCLUDED)
    apart = [three_step_rows(model, DOCUMENTS.pick([i]), HEADS[:1], means, EXCLUDED) for i in range(6)]

    pd.testing.assert_frame_equal(together, pd.concat(apart, ignore_index=True), rtol=1e-3, atol=1e-5)


def made_up(met: Any, n: int = 40, length: int = 50, seed: int = 0) -> tuple[pd.DataFrame, dict[str, str]]:
    """Rows of n documents; `met` tells from the loss change and a random number whether conditions are met."""
    rng = generator(seed, "three steps")
    change, chance = rng.normal(size=n * length), rng.random(n * length)
    ids = np.repeat([f"d{i:02d}" for i in range(n)], length)
    rows = pd.DataFrame({"id": ids, "position": np.tile(np.arange(1, length + 1), n), "layer": 3, "head": 1})
    rows = rows.assign(label="L3H1", loss_change=change, **dict.fromkeys(CONDITIONS, met(change, chance)))
    return rows, {f"d{i:02d}": f"chapter {i // 2}" for i in range(n)}


def test_the_chosen_positions_are_those_with_the_largest_loss_change() -> None:
    rows, clusters = made_up(lambda change, _: change > np.quantile(change, 0.95))

    table = three_step_table(rows, clusters).set_index(["chosen", "condition"])

    assert table.loc["top 5 %", "met_share"].tolist() == [1.0] * 7
    assert table.loc["top 1 %", "met_share"].tolist() == [1.0] * 7
    assert table.loc[("top 5 %", "predicted"), "n_positions"] == 100
    assert table.loc[("top 1 %", "predicted"), "n_positions"] == 20
    assert table.loc[("random 5 %", "predicted"), "n_positions"] == 100
    assert table.loc[("random 5 %", "predicted"), "met_share"] == pytest.approx(0.05, abs=0.06)
    assert table.loc[("top 5 %", "predicted"), "met_share_p"] < 0.01
    expected = rows["loss_change"].nlargest(20).mean()
    assert table.loc[("top 1 %", "predicted"), "loss_change"] == pytest.approx(expected)


def test_a_share_of_all_or_nothing_still_has_an_interval() -> None:
    rows, clusters = made_up(lambda change, _: change > np.quantile(change, 0.9))

    table = three_step_table(rows, clusters)

    assert (table["met_share_low"] <= table["met_share"]).all()
    assert (table["met_share"] <= table["met_share_high"]).all()
    assert (table["met_share_high"] - table["met_share_low"] > 0.02).all()


def test_positions_come_from_the_same_documents_as_the_chosen_ones() -> None:
    rows, clusters = made_up(lambda _, chance: chance < 0.3)
    # All the large changes are in one document, and only there the conditions are ever met.
    rows["loss_change"] += 100 * (rows["id"] == "d07")
    for name in CONDITIONS:
        rows[name] = rows["id"] == "d07"

    table = three_step_table(rows, clusters, shares=[0.01]).set_index(["chosen", "condition"])

    assert table.loc["random 1 %", "met_share"].tolist() == [1.0] * 7
    assert table.loc[("top 1 %", "predicted"), "met_share_p"] == 1.0


def test_conditions_without_relation_to_the_loss_are_seldom_found_to_have_one() -> None:
    p = []
    for seed in range(12):
        rows, _ = made_up(lambda _, chance: chance < 0.3, n=10, seed=seed)
        table = three_step_table(rows, {name: name for name in rows["id"]}, shares=[0.1], seed=seed)
        p.append(table["met_share_p"].min())

    assert sum(one <= 0.05 for one in p) <= 3
    assert np.median(p) > 0.15


def test_each_condition_is_corrected_for_the_heads_and_shares_that_were_tested() -> None:
    rows, clusters = made_up(lambda change, chance: (change > 1.2) & (chance < 0.4))

    alone = three_step_table(rows, clusters, shares=[0.05])
    several = three_step_table(pd.concat([rows, rows.assign(label="L3H0", head=0)]), clusters, shares=[0.05])

    first, both = (
        t[t["chosen"] == "top 5 %"].set_index(["label", "condition"])["met_share_p"] for t in (alone, several)
    )
    assert 0 < first["L3H1", "attended"] < 0.1
    assert both["L3H1", "attended"] == pytest.approx(2 * first["L3H1", "attended"], rel=0.5)


def documents_of(model: Model) -> Documents:
    return Documents.cut(organism.prompts(24), model, 10)


def organism_table(name: str) -> pd.DataFrame:
    model = mi.load(name)
    documents = documents_of(model)
    excluded = function_tokens(model.tokenizer, model.facts.d_vocab)
    rows = three_step_rows(model, documents, [(1, 2), (1, 0)], mean_outputs(model, documents), excluded)
    clusters = dict(zip(documents.ids, documents.clusters, strict=True))
    return three_step_table(rows, clusters).set_index(["label", "chosen", "condition"])


def test_the_planted_suppressor_does_all_three_with_one_token_where_it_matters() -> None:
    table = organism_table("organism:copy-suppression")

    planted = table.loc["L1H2", "top 5 %", "same token"]
    assert planted["met_share"] > 0.8
    assert planted["loss_change"] > 0.01
    assert table.loc["L1H0", "top 5 %", "same token"]["met_share"] < 0.5


def test_its_unplanted_twin_does_not() -> None:
    table = organism_table("organism:copy-suppression-unplanted")

    assert table.loc["L1H2", "top 5 %", "same token"]["met_share"] < 0.5
    assert table.loc["L1H2", "top 5 %", "same token"]["loss_change"] < 0.01
