"""A study: every line of evidence about a planted head, each beside its control; nothing is claimed of its twin."""

import pandas as pd
import pytest

import mechint as mi
from mechint.errors import ConfigError, PromptError, SiteError
from mechint.organisms import copy_suppression as organism
from mechint.plots.figures import FIGURES
from mechint.probes.copy_suppression.study import copy_suppression_study
from mechint.probes.copy_suppression.study_settings import StudySettings
from mechint.results import Findings

SMALL = {"length": 9, "positions": 5, "scanned_positions": 4, "two_name_prompts": 24, "ov_rows": 60, "qk_rows": 60}
FEW = {"induction_rows": 4, "shown_documents": 2, "top": 1}


def study(name: str, **settings: object) -> Findings:
    texts = organism.prompts(24, seed=5)
    return copy_suppression_study(mi.load(f"organism:{name}"), texts, progress=False, **SMALL, **FEW, **settings)


@pytest.fixture(scope="module")
def planted() -> Findings:
    return study("copy-suppression")


@pytest.fixture(scope="module")
def unplanted() -> Findings:
    return study("copy-suppression-unplanted", heads=("L1H2",))


def test_the_planted_head_is_examined_and_beyond_every_control_of_cspa(planted: Findings) -> None:
    heads = planted.to_frame().set_index("label")
    own = heads.loc["L1H2"]

    assert planted.to_frame("evidence")["label"].unique().tolist() == ["L1H2"]
    # The planted head also looks at words that are not predicted, which the QK half does not keep; its OV half is pure.
    scores = planted.to_frame("cspa").set_index("rule")
    assert scores.loc["ov", "score_low"] > 0.8
    for control in ("random_token", "shuffled_targets", "positive_only"):
        assert own["cspa_score_low"] > own[f"cspa_{control}_high"]
    assert not heads.drop(index="L1H2")["cspa_explained"].any()


def test_nothing_is_claimed_of_the_twin(unplanted: Findings) -> None:
    assert not unplanted.to_frame()["cspa_explained"].any()
    assert not unplanted.to_frame()["suppresses"].any()
    assert "explains most of" not in unplanted.verdict.replace("does not explain most of", "")


def test_every_line_of_evidence_has_an_interval_and_a_control(planted: Findings) -> None:
    table = planted.to_frame("evidence")

    assert (table["value_low"] <= table["value"] + 1e-9).all()
    assert (table["value"] <= table["value_high"] + 1e-9).all()
    assert table["control_value"].notna().all()
    assert (table["n"] > 0).all()


def test_the_planted_head_is_beyond_its_control_in_each_step(planted: Findings) -> None:
    table = planted.to_frame("evidence").set_index("measure")
    for measure in (
        "static QK: own token among the 5 % best keys",
        "static OV: own token in lowest 5 %",
        "dynamic OV: attended token among the 10 most lowered",
        "copy-suppression score, two-name sentences",
        "anti-induction score, random tokens repeated",
        "CSPA",
    ):
        assert table.loc[measure, "value_low"] > table.loc[measure, "control_value"], measure


def test_qk_alone_stands_beside_both_and_is_called_no_evidence(planted: Findings) -> None:
    for table in (planted.to_frame("cspa"), planted.to_frame("evidence")):
        column = "rule" if "rule" in table else "measure"
        names = table[column].tolist()
        assert any(name in ("qk", "CSPA, QK only (no evidence by itself)") for name in names)
        assert any(name in ("both", "CSPA") for name in names)
    assert any("QK-only is no evidence" in note for note in planted.notes)


def test_every_figure_is_drawn(planted: Findings) -> None:
    assert list(planted.figures()) == list(FIGURES["copy_suppression_study"])


def test_equal_seeds_give_equal_tables(planted: Findings) -> None:
    again = study("copy-suppression")
    for name, table in planted.tables.items():
        pd.testing.assert_frame_equal(table, again.to_frame(name))


def test_what_cannot_be_studied_is_refused() -> None:
    model, texts = mi.load("organism:copy-suppression"), organism.prompts(4)
    with pytest.raises(SiteError, match="L7H0"):
        copy_suppression_study(model, texts, heads=("L7H0",), length=8)
    with pytest.raises(PromptError, match="0 of 4 texts"):
        copy_suppression_study(model, texts, length=40)
    with pytest.raises(ConfigError, match=r"positions = 0\. Expected at least 1"):
        StudySettings(positions=0)
