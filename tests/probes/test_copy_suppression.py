"""The scan finds the head that was planted, nothing where nothing was planted, and its numbers are the definition's."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor
from transformers import GPT2LMHeadModel

import mechint as mi
from mechint.effects import task
from mechint.errors import ConfigError, PromptError, TokenError
from mechint.model.base import Model
from mechint.organisms import copy_suppression as organism
from mechint.probes.copy_suppression import summary
from mechint.probes.copy_suppression.criteria import judge
from mechint.prompts import PromptSet, encode
from mechint.prompts.ioi import ioi
from mechint.results import Findings

SMALL: dict[str, Any] = {"ov_rows": 40, "induction_rows": 4, "induction_length": 8, "examples": 2, "progress": False}
ESTIMATES = (
    "cs_score",
    "cs_control",
    "cs_excess",
    "cs_over_layer",
    "anti_induction_score",
    "attention",
    "direct_effect_target",
    "direct_effect_difference",
    "ablation_effect",
    "ablation_effect_target",
    "self_repair",
)
TESTED = [name for name in ESTIMATES if name not in ("cs_control", "attention")]
PLANTED, MOVER = "L1H2", "L0H1"


@pytest.fixture(scope="module")
def model() -> Model:
    return mi.load("organism:copy-suppression")


@pytest.fixture(scope="module")
def twin() -> Model:
    return mi.load("organism:copy-suppression-unplanted")


@pytest.fixture(scope="module")
def prompts() -> PromptSet:
    return organism.prompts(16)


@pytest.fixture(scope="module")
def found(model: Model, prompts: PromptSet) -> Findings:
    return mi.copy_suppression(model, prompts, **SMALL)


@pytest.fixture(scope="module")
def heads(found: Findings) -> pd.DataFrame:
    return found.to_frame("heads").set_index("label")


@pytest.mark.parametrize("data", [organism.prompts, ioi])
def test_the_planted_head_is_found_first_and_alone(model: Model, data: Callable[[int], PromptSet]) -> None:
    findings = mi.copy_suppression(model, data(16), **SMALL)

    table = findings.to_frame().sort_values("cs_score", ascending=False)
    assert table["label"].iloc[0] == PLANTED
    assert table[table["suppresses"]]["label"].tolist() == [PLANTED]
    assert table.set_index("label").loc[PLANTED, "failed"] == ""
    assert findings.verdict.startswith("1 of 8 heads of organism:copy-suppression")
    assert f"{PLANTED}." in findings.verdict


@pytest.mark.parametrize("data", [organism.prompts, ioi])
def test_where_nothing_is_planted_nothing_is_claimed(twin: Model, data: Callable[[int], PromptSet]) -> None:
    findings = mi.copy_suppression(twin, data(16), **SMALL)

    assert not findings.to_frame()["suppresses"].any()
    assert (findings.to_frame()["failed"] != "").all()
    assert findings.verdict.startswith("None found")


def test_a_head_that_copies_is_not_one_that_suppresses(heads: pd.DataFrame) -> None:
    assert heads.loc[MOVER, "cs_score"] < -1
    assert heads.loc[MOVER, "cs_score_p"] == 1.0
    assert heads.loc[MOVER, "ov_bottom_share"] == 0.0
    assert not heads.loc[MOVER, "suppresses"]


def test_the_planted_head_is_anti_inductive_and_its_ov_circuit_puts_every_token_last(heads: pd.DataFrame) -> None:
    planted = heads.loc[PLANTED]

    assert planted["anti_induction_score"] > 0.1
    assert heads["anti_induction_score"].idxmax() == PLANTED
    assert planted["ov_rank_median"] == 0.0
    assert planted["ov_bottom_share"] == 1.0
    assert planted["ov_rows"] == 40


@pytest.mark.parametrize("row", [0, 5, 11])
@pytest.mark.parametrize("label", [PLANTED, MOVER])
def test_the_numbers_are_those_of_the_definition(
    model: Model, prompts: PromptSet, found: Findings, label: str, row: int
) -> None:
    layer, head = int(label[1]), int(label[3])
    encoded = encode(prompts, model.tokenizer)
    ids, target, distractor = encoded.tokens[row], encoded.target[row], encoded.distractor[row]
    place = encoded.target_positions[row]
    assert target is not None
    assert distractor is not None
    assert place is not None

    attention, edge, whole, u = slow_edge(model, ids, layer, head, place)

    table = found.to_frame("prompt_heads").set_index(["id", "layer", "head"]).loc[(encoded.ids[row], layer, head)]
    assert table["attention"] == pytest.approx(attention, abs=1e-5)
    assert table["cs_score"] == pytest.approx(-float(edge @ u[target]), abs=1e-4)
    assert table["direct_effect_target"] == pytest.approx(float(whole @ u[target]), abs=1e-4)
    difference = float(whole @ (u[target] - u[distractor]))
    assert table["direct_effect_difference"] == pytest.approx(difference, abs=1e-4)
    others = [t for t in set(ids[1:]) if t not in (target, distractor)]
    controls = [-float(edge @ u[t]) for t in others]
    assert min(abs(table["cs_control"] - control) for control in controls) < 1e-4


def slow_edge(
    model: Model, ids: Sequence[int], layer: int, head: int, place: int
) -> tuple[float, Tensor, Tensor, Tensor]:
    """One head's attention to a place, what that edge and what the head writes, and u: plain transformers, float64."""
    plain = GPT2LMHeadModel(plain_config(model)).eval()
    plain.load_state_dict(model._reference.state)  # type: ignore[attr-defined]
    plain = plain.double()
    block, seen = plain.transformer.h[layer], {}
    block.attn.c_attn.register_forward_hook(lambda m, i, output: seen.update(qkv=output[0]))
    plain.transformer.ln_f.register_forward_hook(lambda m, inputs, o: seen.update(final=inputs[0][0, -1]))
    with torch.no_grad():
        pattern = plain(torch.tensor([ids]), output_attentions=True).attentions[layer][0, head, -1]
    size = block.attn.head_dim
    own = slice(head * size, (head + 1) * size)
    values = seen["qkv"].chunk(3, dim=-1)[2][:, own]
    written = pattern[:, None] * values @ block.attn.c_proj.weight.detach()[own]
    norm = plain.transformer.ln_f
    sigma = (seen["final"].var(unbiased=False) + norm.eps).sqrt()
    u = plain.lm_head.weight.detach() * norm.weight.detach() / sigma
    u = u - u.mean(-1, keepdim=True)
    return float(pattern[place]), written[place], written.sum(0), u


def plain_config(model: Model) -> Any:
    config = model._reference.config  # type: ignore[attr-defined]
    config = type(config).from_dict(config.to_dict())
    config._attn_implementation = "eager"
    return config


def test_a_direct_effect_on_the_difference_is_that_on_the_target_minus_that_on_the_distractor(
    model: Model, prompts: PromptSet, found: Findings
) -> None:
    swapped = PromptSet("swapped", tuple(replace(p, target=p.distractor, distractor=p.target) for p in prompts))

    other = mi.copy_suppression(model, swapped, **SMALL).to_frame()

    mine = found.to_frame()
    np.testing.assert_allclose(other["direct_effect_difference"], -mine["direct_effect_difference"], atol=1e-4)
    difference = mine["direct_effect_target"] - other["direct_effect_target"]
    np.testing.assert_allclose(mine["direct_effect_difference"], difference, atol=1e-4)
    np.testing.assert_allclose(other["ablation_effect"], -mine["ablation_effect"], atol=1e-4)


def test_a_target_that_does_not_occur_has_no_score_and_is_counted(model: Model, prompts: PromptSet) -> None:
    elsewhere = [replace(p, target=p.distractor, distractor=p.target) for p in prompts[:5]]
    mixed = PromptSet("mixed", (*elsewhere, *prompts[5:]))

    findings = mi.copy_suppression(model, mixed, **SMALL)

    by_prompt = findings.to_frame("prompt_heads").set_index("id")
    gone, there = [p.id for p in elsewhere], [p.id for p in prompts[5:]]
    for name in ("attention", "cs_score", "cs_control"):
        assert by_prompt.loc[gone, name].isna().all()
        assert by_prompt.loc[there, name].notna().all()
    assert by_prompt["direct_effect_target"].notna().all()
    assert (findings.to_frame()["n_with_target"] == 11).all()
    assert (findings.to_frame()["n_prompts"] == 16).all()
    assert findings.to_frame("prompts").set_index("id").loc[gone, "target_position"].isna().all()
    assert any("does not occur in the text of 5 of 16 prompts" in note for note in findings.notes)


def test_targets_that_occur_nowhere_are_no_evidence_either_way(model: Model, prompts: PromptSet) -> None:
    elsewhere = PromptSet("nowhere", tuple(replace(p, target=p.distractor, distractor=p.target) for p in prompts))

    findings = mi.copy_suppression(model, elsewhere, **SMALL)

    assert findings.verdict.startswith("Nothing can be said about copy suppression")
    assert not findings.to_frame()["suppresses"].any()
    assert findings.to_frame()["cs_score"].isna().all()
    assert "repair" not in findings.tables


def test_seven_targets_are_too_few_to_speak_of(heads: pd.DataFrame) -> None:
    few = heads.reset_index().assign(n_with_target=7)

    assert judge(few)["failed"].str.contains("enough prompts").all()
    assert "7 of them, and at least 8 are needed" in summary.verdict("m", "d", few, pd.DataFrame())


def test_without_distractors_the_target_alone_is_watched(model: Model, prompts: PromptSet) -> None:
    alone = PromptSet("alone", tuple(replace(p, distractor=None) for p in prompts))

    findings = mi.copy_suppression(model, alone, **SMALL)

    table = findings.to_frame()
    assert (table["metric"] == "target logit").all()
    assert table["direct_effect_difference"].isna().all()
    assert table["ablation_effect"].tolist() == table["ablation_effect_target"].tolist()
    assert table[table["suppresses"]]["label"].tolist() == [PLANTED]
    assert any("changes of the target logit" in note for note in findings.notes)


def test_the_same_seed_gives_the_same_tables(model: Model, prompts: PromptSet, found: Findings) -> None:
    again = mi.copy_suppression(model, prompts, **SMALL)

    assert list(again.tables) == list(found.tables)
    for name, table in found.tables.items():
        pd.testing.assert_frame_equal(again.tables[name], table, check_exact=True)
    assert again.verdict == found.verdict


def test_another_seed_draws_other_controls(model: Model, prompts: PromptSet, found: Findings) -> None:
    other = mi.copy_suppression(model, prompts, seed=1, **SMALL).to_frame()

    assert other["cs_control"].tolist() != found.to_frame()["cs_control"].tolist()
    np.testing.assert_allclose(other["cs_score"], found.to_frame()["cs_score"], atol=1e-6)


def test_neither_order_nor_chunks_of_the_prompts_matter(
    model: Model, prompts: PromptSet, found: Findings, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = task.chunks
    monkeypatch.setattr(task, "chunks", lambda rows: whole(rows, 40))
    backwards = PromptSet(prompts.name, tuple(prompts)[::-1])

    other = mi.copy_suppression(model, backwards, **SMALL)

    for name in ("heads", "repair", "repair_parts"):
        # A p-value of heads that do nothing ranks the rounding errors of their zeros.
        numbers = [column for column in found.tables[name] if not column.endswith("_p")]
        pd.testing.assert_frame_equal(other.tables[name][numbers], found.tables[name][numbers], rtol=1e-5, atol=1e-5)
    assert other.verdict == found.verdict


@pytest.mark.parametrize("ablation", ["zero", "resample"])
def test_every_ablation_gives_every_number_and_its_own(
    model: Model, prompts: PromptSet, heads: pd.DataFrame, ablation: str
) -> None:
    table = mi.copy_suppression(model, prompts, ablation=ablation, **SMALL).to_frame().set_index("label")

    assert (table["ablation"] == ablation).all()
    assert np.isfinite(table[["ablation_effect", "ablation_effect_target", "self_repair"]].to_numpy()).all()
    assert table.loc[MOVER, "ablation_effect"] < -0.5
    assert table.loc[PLANTED, "ablation_effect"] > 0.5
    assert (table["ablation_effect"] - heads["ablation_effect"]).abs().max() > 1e-3
    np.testing.assert_allclose(table["cs_score"], heads["cs_score"], atol=1e-6)


def test_every_promised_column_is_there(heads: pd.DataFrame, found: Findings) -> None:
    promised = {"layer", "head", "n_prompts", "n_with_target", "ov_rows", "ov_ties", "ablation", "metric", "d_vocab"}
    promised |= {"suppresses", "failed"} | {f"{name}_p" for name in TESTED}
    promised |= {
        f"{name}{end}" for name in (*ESTIMATES, "ov_rank_median", "ov_bottom_share") for end in ("", "_low", "_high")
    }

    assert promised <= set(heads.columns)
    assert len(heads) == 8
    assert {"ablated", "component", "part", "layer", "repair", "repair_low", "repair_high", "average"} <= set(
        found.tables["repair"]
    )
    parts = found.tables["repair_parts"]
    assert {"repair", "direct_effect_change", "logit_change", "logit_change_low", "average"} <= set(parts)
    assert parts.groupby("ablated")["part"].apply(list).tolist() == [["heads", "MLPs", "final norm", "total"]] * 3
    assert {"prompt_id", "label", "position", "token", "weight", "is_target", "is_destination", "target"} <= set(
        found.tables["attention_examples"]
    )
    assert {"id", "prompt", "target", "distractor", "n_tokens", "target_position", "logit_target", "correct"} <= set(
        found.tables["prompts"]
    )
    assert list(found.tables["criteria"]) == ["criterion", "threshold", "meaning"]


def test_every_estimate_lies_in_its_interval(heads: pd.DataFrame) -> None:
    for name in ESTIMATES:
        assert (heads[f"{name}_low"] <= heads[name]).all()
        assert (heads[name] <= heads[f"{name}_high"]).all()
    for name in TESTED:
        assert heads[f"{name}_p"].between(0, 1).all()


def test_the_attention_that_is_shown_is_a_pattern_and_marks_the_target(found: Findings) -> None:
    shown = found.to_frame("attention_examples")

    for _, example in shown.groupby(["prompt_id", "label"]):
        assert example["weight"].sum() == pytest.approx(1.0, abs=1e-5)
        target = example[example["is_target"]].iloc[0]
        assert f" {target['token'].strip()}" == target["target"]
        assert example["is_destination"].tolist() == [False] * (len(example) - 1) + [True]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"ablation": "noise"}, "Expected one of zero, mean, resample"),
        ({"ov_rows": 0}, "ov_rows = 0. Expected at least 1"),
        ({"top": -1}, "top = -1"),
        ({"tops": 3}, "'tops' is not a setting here. There are: ablation, ov_rows"),
    ],
)
def test_settings_that_make_no_sense_are_refused(
    model: Model, prompts: PromptSet, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        mi.copy_suppression(model, prompts, **settings)


def test_a_prompt_without_target_is_refused_by_name(model: Model, prompts: PromptSet) -> None:
    bad = PromptSet("bad", (*prompts[:2], replace(prompts[2], target=None, distractor=None)))

    with pytest.raises(PromptError, match=f"{prompts[2].id!r} has no target"):
        mi.copy_suppression(model, bad)


def test_a_target_of_two_tokens_is_refused(model: Model, prompts: PromptSet) -> None:
    bad = PromptSet("bad", (replace(prompts[0], target=" Mary John"),))

    with pytest.raises(TokenError, match="is 2 tokens"):
        mi.copy_suppression(model, bad)
