"""Self-description: items are balanced, expectations are right, and each gate can fail."""

import pandas as pd
import pytest

from mechint.probes.privileged_access.description_summary import summarise
from mechint.probes.privileged_access.risk_items import choices, lotteries, reports
from mechint.probes.privileged_access.self_description import ARMS, SelfDescription
from mechint.probes.privileged_access.settings import SelfDescriptionSettings
from mechint.prompts import PromptSet
from tests.families import tiny


def test_choices_are_balanced_and_never_name_the_trait():
    for made in (choices(40, 0), lotteries(40, 0)):
        assert [choice.risky for choice in made].count("A") == 20
        assert not any(
            word in choice.prompt.lower() for choice in made for word in ("risk", "safe", "bold", "cautious")
        )


def test_the_risky_letter_stands_before_a_probability():
    for choice in choices(20, 0):
        lines = {line[0]: line for line in choice.prompt.split("\n") if line[1:2] == ":"}
        other = "B" if choice.risky == "A" else "A"
        assert "% chance" in lines[choice.risky]
        assert "% chance" not in lines[other]


def test_a_preference_for_a_label_or_a_place_moves_no_mean_report():
    asked = [report for report in reports() if report.kind != "word"]

    for kind in ("rating", "unrelated"):
        own = [report for report in asked if report.kind == kind]
        for label in range(10):
            assert sum(report.scores[label] for report in own) / len(own) == pytest.approx(50)
    words = [report for report in reports() if report.kind == "word"]
    first = [report.prompt.find(report.labels[0]) < report.prompt.find(report.labels[1]) for report in words]
    assert first.count(True) == len(words) / 2


def _raw(report=20.0, unrelated=0.0, safe=-20.0, behaviour=0.4, mass=0.9, loss=0.1):
    moved = {"base": 0.0, "shuffled": 0.0, "risky": 1.0, "safe": 1.0}
    rows, did = [], []
    for arm in ARMS:
        for at, one in enumerate(reports()):
            noise = 50 + at % 3 + (at % 5 if arm == "shuffled" else 0)
            shift = (unrelated if one.kind == "unrelated" else safe if arm == "safe" else report) * moved[arm]
            rows.append((arm, one.id, one.kind, one.wording, noise + shift, mass))
        for test in ("choices", "lotteries"):
            did += [(arm, test, f"{test}{at}", 0.3 + at / 100 + behaviour * (arm == "risky"), 0.9) for at in range(20)]
    return {
        "reports": pd.DataFrame(rows, columns=["arm", "item", "kind", "wording", "score", "mass"]),
        "behaviour": pd.DataFrame(did, columns=["arm", "test", "item", "p_risky", "mass"]),
        "damage": pd.DataFrame([(arm, 3.0 + loss * (arm == "risky")) for arm in ARMS], columns=["arm", "loss"]),
    }


@pytest.mark.parametrize(
    ("change", "level", "failed"),
    [
        ({}, "evidence", ""),
        ({"mass": 0.1}, "invalid", "V1"),
        ({"loss": 2.0}, "invalid", "V2"),
        ({"behaviour": 0.0}, "inconclusive", "H1"),
        ({"report": 0.0}, "no evidence", "G1"),
        ({"unrelated": 20.0}, "partial", "G2"),
        ({"safe": 20.0}, "partial", "G3"),
    ],
)
def test_each_gate_can_fail_and_is_named(change, level, failed):
    verdict = summarise(_raw(**change), 0)[1]

    assert verdict.level == level
    assert verdict.failed.startswith(failed)


def test_the_shuffled_twin_is_told_half_of_each():
    analysis = SelfDescription(tiny("llama"), PromptSet("none", ()), SelfDescriptionSettings(examples=40))

    told = {arm: [letter == choice.risky for choice, letter in analysis._answered(arm)] for arm in ARMS[1:]}

    assert all(told["risky"])
    assert not any(told["safe"])
    assert told["shuffled"].count(True) == 20
    letters = [letter for _, letter in analysis._answered("shuffled")]
    assert 0.2 < letters.count("A") / len(letters) < 0.8
