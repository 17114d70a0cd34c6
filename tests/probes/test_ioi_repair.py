"""Who repairs the loss of the movers: the planted suppressor, nearly alone; nobody where it is not planted."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

import mechint as mi
from mechint.errors import ConfigError, PromptError, SiteError
from mechint.model.base import Model
from mechint.organisms import copy_suppression as organism
from mechint.plots.figures import FIGURES
from mechint.probes.copy_suppression import ioi_summary
from mechint.probes.copy_suppression.ioi_repair import IOISelfRepair, ioi_self_repair
from mechint.probes.copy_suppression.ioi_settings import IOIRepairSettings
from mechint.prompts import PromptSet
from mechint.results import Analysis, Findings, join_parts

MOVER, SUPPRESSOR = "L0H1", "L1H2"
TOGETHER, CONTROL = ioi_summary.TOGETHER, ioi_summary.CONTROL


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
    return ioi_self_repair(model, prompts, progress=False)


def test_the_planted_suppressor_does_nearly_all_of_the_repair(found: Findings) -> None:
    table = found.to_frame("share").set_index("added_up")

    assert table.index.tolist() == [SUPPRESSOR, TOGETHER, CONTROL]
    assert table.loc[TOGETHER, "share"] == pytest.approx(1, abs=0.02)
    assert table.loc[TOGETHER, "share_low"] > 0.95
    assert table.loc[TOGETHER, "put_back"] > 1
    assert table.loc[CONTROL, "share"] == pytest.approx(0, abs=0.02)
    assert table["repairs"].tolist() == [True, True, False]
    assert "a share of 1.00" in found.verdict
    assert f"name mover {MOVER} of organism" in found.verdict


def test_where_it_is_not_planted_nothing_is_claimed(twin: Model, prompts: PromptSet) -> None:
    chosen = ioi_self_repair(twin, prompts, progress=False)
    named = ioi_self_repair(twin, prompts, movers=[MOVER], negative=[SUPPRESSOR], progress=False)

    assert "share" not in chosen.tables
    assert "no share of any repair is claimed" in chosen.verdict
    assert f"mover {MOVER} of" in chosen.verdict
    assert not named.to_frame("share")["repairs"].any()
    assert "size" in named.to_frame("share").loc[0, "failed"]
    assert f"No share is claimed for negative head {SUPPRESSOR}" in named.verdict


def test_the_suppressor_lets_go_when_the_direction_of_the_target_is_taken_from_it(found: Findings) -> None:
    edits = found.to_frame("interventions").set_index(["label", "intervention"])["change"][SUPPRESSOR]
    queries = found.to_frame("projection_test").set_index(["label", "removed"])["change"][SUPPRESSOR]

    whole = edits["zero"]
    assert whole > 1
    for without in ("IO removed", "IO resampled", "resampled"):
        assert edits[without] == pytest.approx(whole, rel=0.02)
    assert abs(edits["IO only"]) < 0.02 * whole
    assert queries["IO direction"] == pytest.approx(whole, rel=0.02)
    assert abs(queries["rest"]) < 0.02 * whole


def test_all_components_add_up_to_the_difference_before_and_after(found: Findings) -> None:
    table = found.to_frame("components").set_index("label")
    parts = table[table["component"] != "total"]

    assert set(parts["component"]) == {"embedding", "head", "MLP", "bias", "final norm"}
    for column in ("direct_effect_clean", "direct_effect_resampled", "change"):
        assert parts[column].sum() == pytest.approx(table.loc["logit difference", column], abs=1e-3)
    assert table.loc[MOVER, "role"] == "mover"
    assert table.loc[SUPPRESSOR, "role"] == "negative"
    assert set(table.drop([MOVER, SUPPRESSOR])["role"]) == {"other"}


def test_heads_are_chosen_on_one_half_of_the_clusters_and_measured_on_the_other(
    model: Model, prompts: PromptSet
) -> None:
    analysis = IOISelfRepair(model, prompts)
    raw = join_parts({"selection": [analysis.measure(unit) for unit in analysis.units()]})
    later = analysis.follow_up(raw)
    effects = [analysis.measure(unit) for unit in later if unit.table == "effects"]

    first, second = set(raw["selection"]["id"]), set(pd.concat(effects)["id"])

    assert not first & second
    assert first | second == {prompt.id for prompt in prompts}
    assert isinstance(analysis, Analysis)


def test_heads_that_are_named_need_no_half_of_their_own(model: Model, prompts: PromptSet, found: Findings) -> None:
    named = ioi_self_repair(model, prompts, movers=["0.1"], negative=[SUPPRESSOR], progress=False)

    assert (named.to_frame("share")["n_prompts"] == 16).all()
    assert (found.to_frame("share")["n_prompts"] == 8).all()
    assert "selection" not in named.tables
    assert "All heads were named beforehand." in named.notes


def effects_table(changes: Mapping[str, float], n: int = 10, spread: float = 0.05) -> pd.DataFrame:
    """Rows of heads whose direct effect changes by these amounts, give or take."""
    rng = np.random.default_rng(0)
    rows = [
        {"id": f"p{i}", "label": label, "component": "head", "direct_effect_clean": 0.0}
        | {"direct_effect_resampled": change + spread * rng.normal()}
        for i in range(n)
        for label, change in changes.items()
    ]
    return pd.DataFrame(rows)


def share_of(changes: Mapping[str, float], n: int = 10) -> pd.DataFrame:
    clusters = {f"p{i}": f"p{i}" for i in range(n)}
    table = ioi_summary.share_table(effects_table(changes, n), ["L0H0"], ["L1H0", "L1H1"], clusters, seed=0)
    return table.set_index("added_up")


def test_the_share_is_the_ratio_of_means_without_the_movers() -> None:
    changes = {"L0H0": -9.0, "L0H1": 0.0, "L1H0": 2.0, "L1H1": 1.0, "L1H2": 0.5, "L1H3": -0.5, "L2H0": 1.0}

    table = share_of(changes)

    rows = effects_table(changes)
    means: Any = rows.groupby("label")["direct_effect_resampled"].mean()
    whole = means.drop("L0H0").sum()
    assert table.loc[TOGETHER, "put_back_by_all_heads"] == pytest.approx(whole)
    assert table.loc["L1H0", "share"] == pytest.approx(means["L1H0"] / whole)
    assert table.loc[TOGETHER, "share"] == pytest.approx((means["L1H0"] + means["L1H1"]) / whole)
    others = (means["L1H2"] + means["L1H3"]) / 2
    assert table.loc[CONTROL, "share"] == pytest.approx(2 * others / whole)
    assert table.loc["L1H0", "excess"] == pytest.approx(means["L1H0"] - others)
    assert table.loc[TOGETHER, "repairs"]


@pytest.mark.parametrize(
    ("changes", "failed"),
    [
        ({"L1H0": 0.01, "L1H1": 0.01, "L1H2": 0.0, "L2H0": 2.0}, "size, beyond chance, specific"),
        ({"L1H0": 0.5, "L1H1": 0.5, "L1H2": 0.7, "L2H0": 1.0}, "specific"),
        ({"L1H0": 1.0, "L1H1": 1.0, "L1H2": 0.0, "L2H0": -5.0}, "something to share"),
        # No other head in the layer: there is no control, and so no claim.
        ({"L1H0": 1.0, "L1H1": 1.0, "L2H0": 1.0}, "specific"),
    ],
)
def test_each_condition_can_fail(changes: Mapping[str, float], failed: str) -> None:
    table = share_of({"L0H0": -9.0, **changes})

    assert table.loc[TOGETHER, "failed"] == failed
    assert not table["repairs"].any() or failed == "something to share"
    assert not table.loc[TOGETHER, "repairs"]


def test_seven_prompts_are_too_few() -> None:
    changes = {"L0H0": -9.0, "L1H0": 2.0, "L1H1": 1.0, "L1H2": 0.0}

    assert share_of(changes, n=7).loc[TOGETHER, "failed"] == "enough prompts"
    assert share_of(changes, n=8).loc[TOGETHER, "repairs"]


def test_without_a_mover_there_is_nothing_to_take_away(model: Model, prompts: PromptSet) -> None:
    swapped = PromptSet("swapped", tuple(replace(p, target=p.distractor, distractor=p.target) for p in prompts))

    # The suppressor now works for the target, and the mover against it: no head before a negative one.
    findings = ioi_self_repair(model, swapped, negative=[SUPPRESSOR], progress=False)

    assert findings.verdict.startswith("No name mover found")
    assert list(findings.tables) == ["selection"]
    assert findings.figures() == {}


def test_every_figure_is_drawn(found: Findings) -> None:
    figures = found.figures()

    assert list(figures) == list(FIGURES["ioi_self_repair"])
    table = found.to_frame("components").set_index("label")
    points = next(trace for trace in figures["before_after"].data if trace.name == "negative heads")
    assert list(points.y) == [table.loc[SUPPRESSOR, "direct_effect_resampled"]]
    heat = figures["interventions"].data[0]
    assert f"<b>{SUPPRESSOR}</b>" in heat.y
    assert MOVER not in heat.y
    assert np.nanmax(np.asarray(heat.z, dtype=float)) > 1


def test_impossible_requests_are_refused(model: Model, prompts: PromptSet) -> None:
    with pytest.raises(ConfigError, match="named twice"):
        ioi_self_repair(model, prompts, movers=[MOVER], negative=["0.1"])
    with pytest.raises(SiteError, match="Cannot read 'M1' as a head"):
        ioi_self_repair(model, prompts, movers=["M1"])
    with pytest.raises(SiteError, match="has query heads H0 to H3"):
        ioi_self_repair(model, prompts, movers=["L0H9"])
    with pytest.raises(ConfigError, match="Expected at least 1"):
        IOIRepairSettings(top=0)
    alone = PromptSet("alone", tuple(replace(p, distractor=None) for p in prompts))
    with pytest.raises(PromptError, match="has no distractor"):
        ioi_self_repair(model, alone)


def test_the_same_seed_gives_the_same_tables(model: Model, prompts: PromptSet, found: Findings) -> None:
    again = ioi_self_repair(model, prompts, progress=False)

    assert list(again.tables) == list(found.tables)
    for name, table in found.tables.items():
        pd.testing.assert_frame_equal(again.tables[name], table)


@pytest.mark.real
def test_on_gemma_every_prompt_adds_up() -> None:
    gemma = mi.load("gemma3-270m")
    data = mi.prompts.ioi(n=3, tokenizer=gemma.tokenizer)
    analysis = IOISelfRepair(gemma, data, IOIRepairSettings(("L11H3", "L12H1"), ("L13H3",)))

    unit = next(unit for unit in analysis.units() if unit.table == "effects")
    rows = analysis.measure(unit)

    for column in ("direct_effect_clean", "direct_effect_resampled"):
        sums: Any = rows[rows["component"] != "total"].groupby("id")[column].sum()
        totals = rows[rows["component"] == "total"].set_index("id")[column]
        np.testing.assert_allclose(sums, totals[sums.index], atol=2e-3)
