"""Token details are what dense tables of logits say, and what the analyses beside them say of the same positions."""

import io
import json
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

import mechint as mi
from mechint.effects.attribution import final_norm
from mechint.effects.documents import Documents
from mechint.effects.head_outputs import HeadRun, mean_outputs, read_heads
from mechint.effects.sampling import destinations
from mechint.errors import ConfigError
from mechint.model.base import Model
from mechint.probes.copy_suppression.cspa import BOTH
from mechint.probes.copy_suppression.cspa_effects import Vocabulary, cspa_effects
from mechint.probes.copy_suppression.three_steps import three_step_rows
from mechint.probes.copy_suppression.token_details import copy_suppression_kept, namer, token_details
from tests.families import FAMILIES, VOCAB, random_rows, tiny

LENGTH = 12
HEADS = [(2, 1), (1, 2)]
EXCLUDED = torch.tensor([0, 1, 5, 6, 7])


def documents(n: int, seed: int = 0) -> Documents:
    """Texts of few different words, so that words recur."""
    names = tuple(f"d{i}" for i in range(n))
    rows = torch.tensor(random_rows(n, LENGTH, seed))
    return Documents(names, names, torch.where(rows == 0, rows, 4 + rows % 8))


def means_of(model: Model) -> Tensor:
    return mean_outputs(model, documents(5, seed=1))


def lists(frame: pd.DataFrame, column: str, label: str) -> list[Any]:
    return [json.loads(text) for text in frame.loc[frame["label"] == label, column]]


def dense(model: Model, run: HeadRun, output: Tensor) -> Tensor:
    """Log-probabilities with another output of the head, the final norm's scale frozen; float64, by the definition."""
    final = final_norm(model)
    stream = (run.resid_final + output - run.output).double()
    x = final.centre(stream) / final.scale(run.resid_final) * final.gain + (0 if final.bias is None else final.bias)
    logits = x @ model.unembedding(torch.arange(VOCAB)).double().T + model.output_bias(torch.arange(VOCAB))
    cap = model.facts.logit_cap
    return (logits if cap is None else cap * torch.tanh(logits / cap)).log_softmax(-1)


@pytest.mark.parametrize("family", FAMILIES)
def test_losses_kl_and_predictions_are_those_of_the_whole_table(family: str) -> None:
    model, texts = tiny(family), documents(2)
    means = means_of(model)
    found = token_details(model, texts, HEADS, means)

    for run in read_heads(model, texts, HEADS):
        own = found[found["label"] == f"L{run.layer}H{run.head}"]
        before, after = dense(model, run, run.output), dense(model, run, means[run.layer, run.head])
        losses = [-p[:, :-1].gather(-1, texts.next_tokens[..., None])[..., 0] for p in (before, after)]
        known = own["position"].to_numpy() < LENGTH - 1
        np.testing.assert_allclose(own["loss"][known], losses[0].flatten(), rtol=1e-5, atol=1e-5)
        change = (losses[1] - losses[0]).flatten()
        np.testing.assert_allclose(own["loss_change"][known], change, rtol=1e-4, atol=1e-5)
        kl = (before.exp() * (before - after)).sum(-1)
        np.testing.assert_allclose(own["kl"], kl.flatten(), rtol=1e-3, atol=1e-6)
        assert own.loc[~known, ["loss", "loss_change", "loss_change_kept"]].isna().all(axis=None)
        for column, log_p in (("predicted", before), ("predicted_without", after)):
            best = log_p.exp().flatten(0, 1).topk(5)
            told = lists(found, column, own["label"].iloc[0])
            np.testing.assert_allclose([[p for _, p in row] for row in told], best.values, atol=2e-5)
            name = namer(model.tokenizer)
            assert [[t for t, _ in row] for row in told] == [[name(t) for t in row] for row in best.indices.tolist()]


@pytest.mark.parametrize("family", FAMILIES)
def test_what_a_head_pushes_down_and_up_is_the_extremes_of_its_direct_effect(family: str) -> None:
    model, texts = tiny(family), documents(2)
    found, name, final = token_details(model, texts, HEADS, means_of(model)), namer(model.tokenizer), final_norm(model)

    for run in read_heads(model, texts, HEADS):
        # The definition, other than in the code: what is lost of each logit when the head's output is taken out.
        with_it, without = (
            final.centre(stream) / final.scale(run.resid_final) * final.gain
            for stream in (run.resid_final, run.resid_final - run.output)
        )
        effects = (model.unembed(with_it) - model.unembed(without)).flatten(0, 1)
        for column, largest in (("suppressed", False), ("boosted", True)):
            best = effects.topk(10, largest=largest)
            told = lists(found, column, f"L{run.layer}H{run.head}")
            np.testing.assert_allclose([[v for _, v in row] for row in told], best.values, rtol=1e-3, atol=1e-4)
            differs = [
                (row, places)
                for row, places in zip(told, best.indices.tolist(), strict=True)
                if [t for t, _ in row] != [name(t) for t in places]
            ]
            assert len(differs) <= 1  # where two values differ in their last bits only


@pytest.mark.parametrize("family", FAMILIES)
def test_attention_lists_the_largest_weights_and_the_text_its_tokens_by_the_lens(family: str) -> None:
    model, texts = tiny(family), documents(2)
    found, name = token_details(model, texts, HEADS, means_of(model), excluded=EXCLUDED), namer(model.tokenizer)

    for run in read_heads(model, texts, HEADS):
        label = f"L{run.layer}H{run.head}"
        attention, in_context = (lists(found, column, label) for column in ("attention", "in_context"))
        lens = model.unembed(final_norm(model)(run.resid_pre))
        for i, row in enumerate(texts.tokens.tolist()):
            for d in range(LENGTH):
                weights = run.attention[i, d]
                told = attention[i * LENGTH + d]
                expected = weights[weights > 0].sort(descending=True).values[:8]
                np.testing.assert_allclose([w for _, w in told], expected, atol=1e-5)
                np.testing.assert_allclose([w for _, w in told], weights[[s for s, _ in told]], atol=1e-5)
                eligible = {t for t in row[1 : d + 1] if t not in EXCLUDED}
                best = sorted(eligible, key=lambda t: -float(lens[i, d, t]))[:5]
                told = in_context[i * LENGTH + d]
                assert [(t, s) for t, s, _ in told] == [(name(t), row.index(t, 1)) for t in best]
                np.testing.assert_allclose([v for _, _, v in told], lens[i, d, best], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_steps_of_a_position_are_those_of_the_three_step_analysis(family: str) -> None:
    model, texts = tiny(family), documents(4)
    means = means_of(model)
    found = token_details(model, texts, HEADS, means, excluded=EXCLUDED)
    rows = three_step_rows(model, texts, HEADS, means, EXCLUDED)

    inner = found[(found["position"] > 0) & (found["position"] < LENGTH - 1)].reset_index(drop=True)
    for condition, step in (("predicted",) * 2, ("attended",) * 2, ("suppressed",) * 2, ("same token", "same")):
        told = [bool(json.loads(text)[step]) for text in inner["steps"]]
        assert told == rows[condition].tolist()
        assert 0 < sum(told) < len(told) or step == "same"
    assert rows["label"].tolist() == inner["label"].tolist()


@pytest.mark.parametrize("family", FAMILIES)
def test_what_copy_suppression_keeps_is_what_the_ablation_of_that_name_keeps(family: str) -> None:
    model, texts = tiny(family), documents(3)
    means = means_of(model)
    cspa = copy_suppression_kept(model, EXCLUDED)
    found = token_details(model, texts, sorted(HEADS), means, cspa=cspa, excluded=EXCLUDED)
    rows = cspa_effects(model, texts, HEADS, [BOTH], means, destinations(texts), Vocabulary(EXCLUDED))

    inner = found[(found["position"] > 0) & (found["position"] < LENGTH - 1)]
    np.testing.assert_allclose(inner["loss_change_kept"], rows["loss_change"], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(inner["loss_change"], rows["loss_change_ablated"], rtol=1e-4, atol=1e-5)
    assert (inner["loss_change_kept"] - inner["loss_change"]).abs().max() > 1e-4


def test_position_0_is_a_source_of_attention_but_no_token_of_the_text() -> None:
    model = tiny("qwen3")
    found = token_details(model, documents(2), HEADS, means_of(model))

    start = found[found["position"] == 0]
    assert set(start["attention"]) == {"[[0, 1.0]]"}
    assert set(start["in_context"]) == {"[]"}
    assert not any(any(json.loads(text).values()) for text in start["steps"])
    assert not found["in_context"].str.contains("<bos>").any()


def test_keeping_all_changes_nothing_and_keeping_nothing_is_the_ablation() -> None:
    model, texts = tiny("gemma3"), documents(2)
    means = means_of(model)
    everything = token_details(model, texts, HEADS, means, cspa=lambda run, mean: run.output)
    nothing = token_details(model, texts, HEADS, means, cspa=lambda run, mean: mean.expand_as(run.output))

    known = everything["position"] < LENGTH - 1
    assert (everything["loss_change_kept"][known] == 0).all()
    np.testing.assert_allclose(nothing["loss_change_kept"], nothing["loss_change"], atol=1e-6)
    assert token_details(model, texts, HEADS, means)["loss_change_kept"].isna().all()


def test_a_head_that_always_does_the_same_is_not_missed() -> None:
    model, texts = tiny("llama"), documents(1)
    twice = Documents(("a", "b"), ("a", "b"), texts.tokens.repeat(2, 1))

    found = token_details(model, twice, HEADS, mean_outputs(model, twice))

    assert found["kl"].abs().max() < 1e-9
    assert found["loss_change"].abs().max() < 1e-5


def test_there_is_one_row_a_head_document_and_position_in_the_order_given() -> None:
    model, texts = tiny("gpt2"), documents(3)
    found = token_details(model, texts, HEADS, means_of(model))

    keys = [(f"L{layer}H{h}", i, p) for layer, h in HEADS for i in texts.ids for p in range(LENGTH)]
    assert list(found[["label", "document", "position"]].itertuples(index=False, name=None)) == keys
    first = found[: LENGTH - 1]
    assert first["next_token"].tolist() == found["token"][1:LENGTH].tolist()
    assert (found["token"][0], found["next_token"][LENGTH - 1]) == ("<bos>", "")


def test_passes_do_not_change_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    model, texts = tiny("gemma2"), documents(5)
    means = means_of(model)
    expected = token_details(model, texts, HEADS, means)

    monkeypatch.setattr("mechint.effects.documents.TOKENS_A_PASS", 2 * LENGTH)
    found = token_details(model, texts, HEADS, means)

    pd.testing.assert_frame_equal(found.drop(columns=found.columns[9:]), expected.drop(columns=found.columns[9:]))
    assert found["steps"].tolist() == expected["steps"].tolist()


def test_the_table_goes_to_a_file_and_back() -> None:
    found = token_details(tiny("neox"), documents(2), HEADS, means_of(tiny("neox")))
    file = io.BytesIO()

    found.to_parquet(file)

    pd.testing.assert_frame_equal(pd.read_parquet(file), found)


def test_no_heads_are_an_error() -> None:
    with pytest.raises(ConfigError, match="No heads"):
        token_details(tiny("gpt2"), documents(2), [], means_of(tiny("gpt2")))


def test_a_blank_that_a_tokenizer_drops_is_put_back_and_half_a_character_has_its_name() -> None:
    entries = {0: ("▁Mary", "Mary"), 1: ("ĠMary", " Mary"), 2: ("ing", "ing"), 3: ("<0xE2>", "�"), 4: ("▁", "")}
    tokenizer = SimpleNamespace(
        decode=lambda ids, **_: entries[ids[0]][1], convert_ids_to_tokens=lambda token: entries[token][0]
    )
    name = namer(tokenizer)

    assert [name(token) for token in entries] == [" Mary", " Mary", "ing", "<0xE2>", " "]


@pytest.mark.real
def test_on_gemma_the_lists_are_full_and_the_losses_those_of_the_model() -> None:
    model = mi.load("gemma3-270m")
    texts = Documents.cut(mi.prompts.natural(2, min_words=60, joined=True), model, 12)
    found = token_details(model, texts, [(11, 3)], mean_outputs(model, texts))

    log_p = model.all_logits(texts.tokens.tolist()).log_softmax(-1)[:, :-1]
    losses = -log_p.gather(-1, texts.next_tokens[..., None])[..., 0]
    np.testing.assert_allclose(found["loss"].dropna(), losses.flatten(), rtol=1e-3, atol=1e-4)
    assert {len(json.loads(text)) for text in found["suppressed"]} == {10}
    for down, up in zip(lists(found, "suppressed", "L11H3"), lists(found, "boosted", "L11H3"), strict=True):
        values = [v for _, v in down] + [v for _, v in reversed(up)]
        assert values == sorted(values)
    assert found["kl"].min() >= 0
