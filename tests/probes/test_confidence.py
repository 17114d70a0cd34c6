"""The calibration analysis finds what was planted, counts everything once, and claims nothing from too little."""

from typing import Any

import numpy as np
import pandas as pd
import pytest

import mechint as mi
from mechint.effects.calibration import BINNED, BINNED_FIRST, CLEAN, CONTROL, HEAD, MARGINAL
from mechint.errors import ConfigError, PromptError
from mechint.experiment.columns import meaning
from mechint.model.base import Model
from mechint.organisms import copy_suppression as organism
from mechint.plots.figures import FIGURES
from mechint.probes import confidence_summary as summary
from mechint.probes.confidence import CalibrationAnalysis, calibration
from mechint.probes.confidence_settings import CalibrationSettings
from mechint.results import Analysis, Findings, join_parts
from mechint.statistics import generator

SMALL: dict[str, Any] = {"length": 10, "n_bins": 20, "progress": False}


@pytest.fixture(scope="module")
def model() -> Model:
    return mi.load("organism:copy-suppression")


@pytest.fixture(scope="module")
def found(model: Model) -> Findings:
    return calibration(model, organism.prompts(24), **SMALL)


def test_the_planted_copier_sharpens_and_the_planted_suppressor_makes_less_certain(found: Findings) -> None:
    heads = found.to_frame().set_index("label")

    assert heads[heads["sharpens"]].index.tolist() == ["L0H1"]
    assert heads.loc["L1H2", "entropy_marginal"] > 0.5
    assert heads.loc["L1H2", "entropy_marginal_excess_low"] > 0.5
    assert heads.loc["L1H2", "entropy_marginal_excess_p"] < 0.01
    assert heads.loc["L1H2", "entropy_difference"] > 0.1
    # The copied name never comes next in these texts: the surer, the wronger.
    assert heads.loc["L1H2", "calibration_error_added_high"] < -0.05
    assert heads.loc["L0H1", "calibration_error_added_low"] > 0.05
    assert heads["entropy_marginal_control"].abs().max() < 0.1
    assert "1 of 8 heads makes it more certain and more over-confident; most so L0H1" in found.verdict


def test_in_the_unplanted_twin_only_the_copier_does_anything() -> None:
    found = calibration(mi.load("organism:copy-suppression-unplanted"), organism.prompts(24), **SMALL)

    heads = found.to_frame().set_index("label")
    assert heads.drop(index="L0H1")["entropy_marginal"].abs().max() < 0.01
    assert not heads["tempers"].any()
    assert "No head makes it less certain and less over-confident" in found.verdict


def test_every_prediction_is_counted_once(found: Findings) -> None:
    clean = found.to_frame("clean").iloc[0]

    assert clean["n_positions"] == 24 * 8
    assert clean["n_predictions"] == 3 * 24 * 8
    intact = found.to_frame("reliability").query("predictions_of == 'all heads intact'")
    assert intact["n_predictions"].sum() == 24 * 8
    assert found.to_frame("reliability")["predictions_of"].nunique() == 4
    weighted = (intact["n_predictions"] * (intact["accuracy"] - intact["confidence"]).abs()).sum() / (24 * 8)
    assert clean["calibration_error"] == pytest.approx(weighted, abs=1e-6)


def test_it_is_an_analysis_whose_units_may_come_in_any_order(model: Model) -> None:
    analysis = CalibrationAnalysis(model, organism.prompts(12), CalibrationSettings(length=10, n_bins=20))
    units = list(analysis.units())

    forward, backward = (
        analysis.conclude(join_parts({"sums": [analysis.measure(unit) for unit in order]}))
        for order in (units, units[::-1])
    )

    assert isinstance(analysis, Analysis)
    assert len({unit.name for unit in units}) == len(units) == 2
    for name in forward.tables:
        pd.testing.assert_frame_equal(forward.to_frame(name), backward.to_frame(name))
    assert forward.verdict == backward.verdict


def test_every_column_is_explained_and_every_figure_drawn(found: Findings) -> None:
    for frame in found.tables.values():
        for column in frame.columns:
            base = str(column).removesuffix("_low").removesuffix("_high")
            assert meaning(base) is not None, column
    assert list(found.figures()) == list(FIGURES["calibration"])


def test_too_few_clusters_support_no_claim(model: Model) -> None:
    found = calibration(model, organism.prompts(8), **SMALL)

    assert (
        "Nothing can be said about its single heads: the documents come in 8 clusters, and at least 9" in found.verdict
    )
    assert not calibration(model, organism.prompts(9), **SMALL).verdict.count("Nothing can be said")
    assert not found.to_frame()[["tempers", "sharpens"]].any(axis=None)


@pytest.mark.parametrize(("name", "value"), [("length", 3), ("n_bins", 1), ("positions", 0), ("top", 0)])
def test_impossible_settings_are_refused(name: str, value: int) -> None:
    with pytest.raises(ConfigError, match=f"{name} = {value}. Expected at least"):
        CalibrationSettings(**{name: value})


def test_an_unknown_setting_and_short_texts_are_refused(model: Model) -> None:
    with pytest.raises(ConfigError, match=r"'bins' is not a setting here\. There are: length"):
        calibration(model, organism.prompts(4), bins=3)
    with pytest.raises(PromptError, match="0 of 4 texts"):
        calibration(model, organism.prompts(4), length=30)


def made_up(clean: float, ablated: float, n_documents: int = 30) -> tuple[pd.DataFrame, dict[str, str]]:
    """Rows of one head: predictions that claim p and come true with probability 1/2 + (1 - overconfidence)(p - 1/2)."""
    rng, rows = generator(0, "calibration rows"), []
    for i in range(n_documents):
        for output, head, over in ((CLEAN, -1, clean), (HEAD, 2, ablated), (CONTROL, 2, clean)):
            p = (np.arange(10) + 0.5) / 10
            right = rng.binomial(200, 0.5 + (1 - over) * (p - 0.5))
            about = {"id": f"d{i}", "output": output, "head": head, "layer": -1 if head < 0 else 1}
            for counted in (BINNED, BINNED_FIRST):
                rows += [
                    about | {"counted": counted, "bin": b, "n": 200, "correct": int(k), "total": float(200 * q)}
                    for b, (k, q) in enumerate(zip(right, p, strict=True))
                ]
    return pd.DataFrame(rows), {f"d{i}": f"chapter {i // 2}" for i in range(n_documents)}


def head_of(rows: pd.DataFrame, clusters: dict[str, str]) -> tuple[pd.Series, pd.Series]:
    entropies = pd.concat(
        [
            pd.DataFrame({"id": list(clusters), "output": output, "head": 2, "layer": 1, "counted": counted, "bin": -1})
            .assign(n=50, correct=0, total=[50 * size + 0.1 * (i % 3) for i in range(len(clusters))])
            for output, size in ((HEAD, 0.3), (CONTROL, 0.0))
            for counted in (MARGINAL, "entropy_difference")
        ]
    )  # fmt: skip
    rows = pd.concat([rows, entropies], ignore_index=True)
    top, first = (summary.Counts(rows, counted, 10, clusters, 0) for counted in (BINNED, BINNED_FIRST))
    clean = summary.clean_table(top, first, rows)
    return clean.iloc[0], summary.heads_table(rows, top, first, clusters, 0).iloc[0]


def test_a_planted_overconfidence_is_measured_with_its_interval() -> None:
    clean, head = head_of(*made_up(clean=0.4, ablated=0.7))

    assert clean["overconfidence"] == pytest.approx(0.4, abs=0.03)
    assert clean["overconfidence_low"] < 0.4 < clean["overconfidence_high"]
    assert clean["overconfidence_high"] - clean["overconfidence_low"] < 0.1
    assert clean["calibration_error"] == pytest.approx(0.4 * 0.25, abs=0.01)
    assert head["overconfidence_added"] == pytest.approx(-0.3, abs=0.04)
    assert head["overconfidence_marginal"] == pytest.approx(-0.75, abs=0.12)
    assert head["overconfidence_marginal_low"] < -0.75 < head["overconfidence_marginal_high"]
    assert head["calibration_error_added"] == pytest.approx(-0.3 * 0.25, abs=0.01)
    assert abs(head["overconfidence_added_control"]) < 0.05
    assert head["entropy_marginal"] == pytest.approx(0.302, abs=0.001)
    assert head["tempers"]
    assert not head["sharpens"]


def test_a_share_of_an_overconfidence_that_may_be_nothing_is_not_given() -> None:
    clean, head = head_of(*made_up(clean=0.0, ablated=0.3))

    assert clean["overconfidence_low"] < 0 < clean["overconfidence_high"]
    assert np.isnan(head["overconfidence_marginal"])
    assert head["overconfidence_added"] == pytest.approx(-0.3, abs=0.04)


def test_documents_of_one_cluster_have_no_interval() -> None:
    rows, clusters = made_up(clean=0.4, ablated=0.7, n_documents=4)

    clean, head = head_of(rows, dict.fromkeys(clusters, "one chapter"))

    assert clean["overconfidence"] == pytest.approx(0.4, abs=0.1)
    assert np.isnan(clean["overconfidence_low"])
    assert not head["tempers"]
