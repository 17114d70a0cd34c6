"""Effects over a whole set of prompts, where the mechanism is known because it was planted."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

import mechint as mi
from mechint.effects.findings import with_statistics
from mechint.errors import ConfigError, PromptError, SiteError
from mechint.model.base import Logits, Model
from mechint.organisms import copy_suppression as organism
from mechint.plots.figures import FIGURES
from mechint.prompts import PromptSet, encode
from mechint.results import Findings

MOVER, SUPPRESSOR = "L0H1", "L1H2"


@pytest.fixture(scope="module")
def model() -> Model:
    return mi.load("organism:copy-suppression")


@pytest.fixture(scope="module")
def prompts() -> PromptSet:
    return organism.prompts(12)


@pytest.fixture(scope="module")
def direct(model: Model, prompts: PromptSet) -> pd.DataFrame:
    return mi.direct_effects(model, prompts, progress=False).to_frame().set_index("label")


@pytest.fixture(scope="module")
def repaired(model: Model, prompts: PromptSet) -> Findings:
    return mi.self_repair(model, prompts, ablate=[MOVER, SUPPRESSOR], ablation="zero", progress=False)


@pytest.fixture(scope="module")
def ablated(model: Model, prompts: PromptSet) -> pd.DataFrame:
    return mi.ablate_heads(model, prompts, ablation="zero", progress=False).to_frame().set_index("label")


def logit_difference(model: Model, prompts: PromptSet) -> float:
    encoded = encode(prompts, model.tokenizer)
    columns = torch.tensor([encoded.target, encoded.distractor]).T[:, None]
    logits = model.run(encoded.tokens, logits=Logits(columns=columns)).logits
    assert logits is not None
    return float((logits[:, 0, 0] - logits[:, 0, 1]).mean())


def test_the_mover_writes_for_the_target_and_the_suppressor_against_it(direct: pd.DataFrame) -> None:
    assert direct["direct_effect"].idxmax() == MOVER
    assert direct["direct_effect"].idxmin() == SUPPRESSOR
    assert direct.loc[MOVER, "direct_effect"] > 5
    assert direct.loc[SUPPRESSOR, "direct_effect"] < -2
    assert (direct.drop(index=[MOVER, SUPPRESSOR])["direct_effect"].abs() < 0.1).all()


def test_direct_effects_add_up_to_the_logit_difference(model: Model, prompts: PromptSet, direct: pd.DataFrame) -> None:
    assert direct["direct_effect"].sum() == pytest.approx(logit_difference(model, prompts), abs=1e-3)


def test_what_has_an_effect_is_tested_as_having_one_and_what_has_none_is_not(direct: pd.DataFrame) -> None:
    assert (direct.loc[[MOVER, SUPPRESSOR], "direct_effect_p"] < 0.05).all()
    assert direct.loc["L0H0", "direct_effect_p"] > 0.05


def test_ablating_mover_and_suppressor_moves_the_logit_difference_either_way(ablated: pd.DataFrame) -> None:
    assert ablated["ablation_effect"].idxmin() == MOVER
    assert ablated["ablation_effect"].idxmax() == SUPPRESSOR
    assert ablated.loc[MOVER, "ablation_effect_high"] < -5
    assert ablated.loc[SUPPRESSOR, "ablation_effect_low"] > 0.5
    assert (ablated.loc[[MOVER, SUPPRESSOR], "ablation_effect_p"] < 0.05).all()
    assert ablated.loc["L0H0", "ablation_effect_p"] > 0.05


def test_effect_is_direct_change_plus_repair(ablated: pd.DataFrame) -> None:
    total = ablated["direct_effect_change"] + ablated["self_repair"]

    np.testing.assert_allclose(ablated["ablation_effect"], total, atol=1e-4)


def test_an_ablated_head_loses_its_direct_effect(ablated: pd.DataFrame, direct: pd.DataFrame) -> None:
    np.testing.assert_allclose(ablated["direct_effect_change"], -direct.loc[ablated.index, "direct_effect"], atol=1e-4)


def test_the_suppressor_repairs_the_loss_of_the_mover(repaired: Findings) -> None:
    parts = repaired.to_frame("repair_parts").set_index(["ablated", "part"])["repair"]
    by_component = repaired.to_frame("repair").set_index(["ablated", "component"])["repair"]

    assert parts[MOVER, "heads"] > 1
    assert by_component[MOVER, SUPPRESSOR] == pytest.approx(parts[MOVER, "heads"], abs=0.05)
    assert by_component[MOVER].drop(["final norm"]).idxmax() == SUPPRESSOR
    assert parts[SUPPRESSOR, "heads"] == pytest.approx(0.0, abs=1e-5)  # no head stands behind the last block


def test_the_parts_of_the_repair_add_up(repaired: Findings, ablated: pd.DataFrame) -> None:
    parts = repaired.to_frame("repair_parts").set_index(["ablated", "part"])["repair"].unstack()
    components = repaired.to_frame("repair").groupby(["ablated", "part"])["repair"].sum().unstack()

    np.testing.assert_allclose(parts["total"], parts["heads"] + parts["MLPs"] + parts["final norm"], atol=1e-4)
    for part in ("heads", "MLPs", "final norm"):
        np.testing.assert_allclose(components[part], parts[part], atol=1e-5)
    np.testing.assert_allclose(parts["total"], ablated.loc[parts.index, "self_repair"], atol=1e-4)


def test_the_last_layer_of_the_lens_is_the_logits(model: Model, prompts: PromptSet) -> None:
    lens = mi.logit_lens(model, prompts, progress=False).to_frame()

    encoded = encode(prompts, model.tokenizer)
    logits = model.run(encoded.tokens, logits=Logits()).logits
    assert logits is not None
    own = logits[:, 0].gather(1, torch.tensor(encoded.target)[:, None])
    last = lens.iloc[-1]
    assert lens["site"].tolist() == ["L0.resid_pre", "L0.resid_post", "L1.resid_post"]
    assert last["target_logit"] == pytest.approx(float(own.mean()), abs=1e-4)
    assert last["target_rank_median"] == float((logits[:, 0] > own).sum(1).double().median())


def test_the_lens_sees_the_target_come_with_the_mover_and_lose_with_the_suppressor(
    model: Model, prompts: PromptSet
) -> None:
    findings = mi.logit_lens(model, prompts, progress=False)

    lens = findings.to_frame()["target_logit"].tolist()
    assert abs(lens[0]) < 0.1
    assert lens[1] > lens[2] > 5
    assert "from L0.resid_post on" in findings.verdict


MADE: dict[str, Callable[[Model, PromptSet], Findings]] = {
    "direct_effect": lambda m, p: mi.direct_effects(m, p, progress=False),
    "ablation_effect": lambda m, p: mi.ablate_heads(m, p, heads=[MOVER, "M1", "L1"], progress=False),
    "repair": lambda m, p: mi.self_repair(m, p, ablate="M0", progress=False),
    "target_logit": lambda m, p: mi.logit_lens(m, p, progress=False),
}


@pytest.mark.parametrize("name", MADE)
def test_every_number_has_its_interval_and_every_finding_its_sentence(
    model: Model, prompts: PromptSet, name: str
) -> None:
    findings = MADE[name](model, prompts)

    for table in findings.tables.values():
        assert (table[f"{name}_low"] <= table[name]).all()
        assert (table[name] <= table[f"{name}_high"]).all()
        assert (table["n_prompts"] == 12).all()
        if name in ("direct_effect", "ablation_effect"):
            assert table[f"{name}_p"].between(0, 1).all()
    assert findings.verdict.endswith(".")


@pytest.mark.parametrize("name", MADE)
def test_every_figure_of_a_finding_can_be_drawn_from_its_own_tables(
    model: Model, prompts: PromptSet, name: str
) -> None:
    findings = MADE[name](model, prompts)

    assert list(findings.figures()) == list(FIGURES[findings.kind])
    assert findings.plot().data


def test_intervals_are_of_clusters_and_not_of_rows(model: Model) -> None:
    rows = pd.DataFrame({"id": [f"p{i}" for i in range(40)], "layer": 0, "x": [float(i % 4) for i in range(40)]})
    alone = {f"p{i}": f"p{i}" for i in range(40)}
    in_four = {f"p{i}": f"c{i % 4}" for i in range(40)}

    narrow, wide = (with_statistics(rows, ["layer"], "x", clusters, 0).iloc[0] for clusters in (alone, in_four))

    assert narrow["x"] == wide["x"] == 1.5
    assert wide["x_high"] - wide["x_low"] > 2 * (narrow["x_high"] - narrow["x_low"])


@pytest.mark.parametrize("component", ["L2H0", "L0H4", "M2", "L7"])
def test_a_component_that_is_not_there_is_refused(model: Model, prompts: PromptSet, component: str) -> None:
    with pytest.raises(SiteError, match=r"has (blocks L0 to L1|query heads H0 to H3)"):
        mi.self_repair(model, prompts, ablate=component, progress=False)
    with pytest.raises(SiteError, match=r"has (blocks L0 to L1|query heads H0 to H3)"):
        mi.ablate_heads(model, prompts, heads=[component], progress=False)


def test_an_unknown_ablation_is_refused(model: Model, prompts: PromptSet) -> None:
    with pytest.raises(ConfigError, match="Expected one of zero, mean, resample"):
        mi.ablate_heads(model, prompts, ablation="noise", progress=False)
    with pytest.raises(ConfigError, match="Expected one of zero, mean, resample"):
        mi.self_repair(model, prompts, ablate=MOVER, ablation="noise", progress=False)


def test_without_prompts_nothing_is_measured(model: Model) -> None:
    with pytest.raises(PromptError, match="no prompts"):
        mi.direct_effects(model, PromptSet("none", ()))


def test_where_all_logits_are_equal_the_target_is_in_the_middle_and_not_first(model: Model, prompts: PromptSet) -> None:
    lens = mi.logit_lens(model, prompts, progress=False).to_frame().set_index("site")

    assert lens.loc["L0.resid_pre", "target_rank_median"] == (model.facts.d_vocab - 1) / 2
    assert lens.loc["L0.resid_post", "target_rank_median"] == 0


def test_a_target_that_is_first_for_a_while_is_not_said_to_stay(model: Model, prompts: PromptSet) -> None:
    lost = PromptSet("lost", tuple(replace(p, target=p.distractor, distractor=p.target) for p in prompts))

    assert "nowhere to the end" in mi.logit_lens(model, lost, progress=False).verdict
