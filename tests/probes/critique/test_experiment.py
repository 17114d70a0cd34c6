"""On a random model nothing is claimed; what is reported on chooses nothing; what makes no sense is refused."""

import functools
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from mechint.errors import ConfigError, InterventionError, PromptError, SiteError, TokenError
from mechint.experiment.columns import meaning
from mechint.experiment.config import parse_config
from mechint.experiment.guides import GENERAL, guide
from mechint.experiment.leading import LEADING
from mechint.experiment.registry import ANALYSES, AnalysisKind
from mechint.experiment.runner import run
from mechint.experiment.session import Interrupted
from mechint.plots.figures import FIGURES
from mechint.probes.critique import choosing
from mechint.probes.critique.causal_summary import MOST_DAMAGE
from mechint.probes.critique.choosing import Chosen, candidate, choose
from mechint.probes.critique.experiment import CritiqueExperiment
from mechint.probes.critique.experiment_summary import Outcome, corrected, verdict
from mechint.probes.critique.measures import TokenMargin
from mechint.probes.critique.parts import divide, questions
from mechint.probes.critique.recording import record_twins
from mechint.probes.critique.settings import CritiqueExperimentSettings
from mechint.probes.critique.vectors import critique_vector
from mechint.prompts.reasoning import Pairs, arithmetic_errors, twins
from mechint.results import Findings, Unit, complete
from mechint.vectors.damage import NeutralTexts
from tests.probes.critique.letters import model

SETTINGS = CritiqueExperimentSettings(
    measures=("recompute", "answer"),
    test_pairs=2,
    select_pairs=2,
    clean_texts=4,
    clean_positions=4,
    clean_length=16,
    shuffles=20,
    resamples=200,
    candidates=(0.02, 0.05),
)


@functools.cache
def pairs() -> Pairs:
    """Worked arithmetic with short questions, since every letter is a token."""
    return Pairs("short", tuple(replace(p, question="How many are there?") for p in arithmetic_errors(80, 0)))


def experiment(given: Pairs | None = None, **changes: Any) -> CritiqueExperiment:
    return CritiqueExperiment(model(), given or pairs(), replace(SETTINGS, **changes), seed=0)


@pytest.fixture(scope="module")
def found() -> Findings:
    return complete(experiment(), progress=False)


def test_of_a_random_model_nothing_is_claimed(found: Findings) -> None:
    assert found.verdict.startswith(
        "Wrong results are not readable at the result nor at the stub; steering on recompute"
    )
    assert not found.to_frame("signals")["found"].any()
    assert not found.to_frame("criteria").groupby("outcome")["met"].all().any()
    assert "o effect beyond random" in found.verdict
    assert any(note.startswith("Described beside random directions, not tested (answer)") for note in found.notes)


def test_what_the_tokens_alone_tell_is_chance(found: Findings) -> None:
    layers = found.to_frame("layers").set_index(["read_at", "site"])
    checks = found.to_frame("checks").set_index("check")

    for at in ("result", "stub"):
        # Of a derangement a literal tells nothing either: each is as often wrong as true, also within folds.
        assert layers.loc[(at, "embed"), ["cv_auroc", "auroc"]].tolist() == pytest.approx([0.5, 0.5], abs=0.05)
    assert layers.loc[("stub", "embed"), ["cv_auroc", "auroc", "auroc_low", "auroc_high", "auroc_p"]].tolist() == [
        0.5,
        0.5,
        0.5,
        0.5,
        1.0,
    ]
    assert checks.loc["embedding of the stub", "met"]
    assert checks.loc["embedding of the result", "met"]


def test_what_is_known_is_what_the_margins_say(found: Findings) -> None:
    knows, strata = found.to_frame("knows").set_index("operation"), found.to_frame("strata")
    n = knows["n"].drop("all")

    assert knows.loc["all", "n"] == n.sum()
    assert knows.loc["all", "known"] * n.sum() == pytest.approx((knows["known"].drop("all") * n).sum())
    assert knows.loc["all", "mean_margin"] * n.sum() == pytest.approx((knows["mean_margin"].drop("all") * n).sum())
    of = strata.loc[strata["read_at"] == "result"].set_index("stratum")["n"]
    assert of["knows"] + of["does not know"] == of["all"] == of["surprisal regressed out"]


def test_only_tested_measures_have_every_null(found: Findings) -> None:
    tests = found.to_frame("tests")
    nulls = {name: set(rows["null"]) for name, rows in tests.groupby("outcome")}

    assert nulls == {"recompute": {"random", "random_covariance", "shuffled_labels"}, "answer": {"random"}}
    assert tests.loc[tests["tested"], "outcome"].unique().tolist() == ["recompute"]
    assert (tests.loc[tests["null"] == "random", "draws"] == 50).all()


def test_every_column_is_explained_and_every_figure_drawn(found: Findings) -> None:
    names = {str(name) for frame in found.tables.values() for name in frame}
    bare = {name for name in names if name.removesuffix("_low").removesuffix("_high") not in names - {name}}

    assert {name for name in bare if meaning(name) is None} == set()
    assert list(found.figures()) == list(FIGURES["critique"])
    assert guide("critique") != GENERAL
    assert set(LEADING["critique"]) <= set(found.to_frame())


def test_problems_that_are_reported_on_choose_nothing() -> None:
    test = set(divide(pairs(), model().tokenizer).test.groups)
    others = [replace(p, question=f"Something else. {p.question}") if p.group in test else p for p in pairs()]
    small = {"shuffles": 1, "resamples": 100, "layers": (1, 2), "steered": (1, 2)}
    one, other = (experiment(Pairs("p", tuple(given)), **small) for given in (pairs(), others))
    rows = [
        {unit.name: e.measure(unit) for unit in e.units() if unit.table in ("candidates", "layers")}
        for e in (one, other)
    ]

    for name, table in rows[0].items():
        mine = ["cv_auroc", "shuffled", "chosen"] if name.startswith("layers") else list(table)
        pd.testing.assert_frame_equal(table[mine], rows[1][name][mine], check_exact=True)
    assert not rows[0]["layers/result"]["auroc"].equals(rows[1]["layers/result"]["auroc"])


def test_a_run_that_was_stopped_goes_on_to_equal_tables(tmp_path: Path) -> None:
    whole = run(CONFIG, tmp_path / "whole", **doors()).findings
    with pytest.raises(Interrupted):
        run(CONFIG, tmp_path / "halves", **doors(stop_after=18))
    resumed = run(CONFIG, tmp_path / "halves", resume=True, **doors()).findings

    assert whole is not None
    assert resumed is not None
    for name, table in whole.tables.items():
        pd.testing.assert_frame_equal(table, resumed.tables[name], check_exact=True)
    assert (whole.verdict, whole.notes) == (resumed.verdict, resumed.notes)


CONFIG = parse_config(
    {
        "question": "Is an error readable?",
        "analysis": "critique",
        "model": "m",
        "prompts": {"kind": "arithmetic_errors", "n": 80},
        "settings": {
            "measures": ["answer"],
            "tested": ["answer"],
            "layers": [1, 2],
            "steered": [1],
            "candidates": [0.02],
            "clean_length": 16,
            "resamples": 100,
            "shuffles": 1,
            **dict.fromkeys(("test_pairs", "select_pairs", "clean_texts", "clean_positions"), 2),
        },
    },
    origin="test",
)


def doors(stop_after: int | None = None) -> dict[str, Any]:
    done = 0

    class Stopping(CritiqueExperiment):
        def measure(self, unit: Unit) -> pd.DataFrame:
            nonlocal done
            if done == stop_after:
                raise KeyboardInterrupt
            done += 1
            return super().measure(unit)

    kind = AnalysisKind(ANALYSES["critique"].settings, lambda m, p, s, seed: Stopping(m, p, s, seed))
    return {
        "analyses": {"critique": kind},
        "load_model": lambda config: model(),
        "make_prompts": lambda config, m: pairs(),
    }


def test_no_part_shares_a_problem_and_each_block_is_balanced() -> None:
    parts = divide(pairs(), model().tokenizer)
    groups = [set(part.groups) for part in (parts.train, parts.select, parts.test)]
    of_train: dict[str, list[Any]] = {}
    assert parts.blocks is not None
    for twin in parts.train:
        of_train.setdefault(parts.blocks[twin.pair.group], []).append(twin)

    assert sum(map(len, groups)) == len(set().union(*groups))
    assert len(of_train) > 1
    for balanced in (*of_train.values(), parts.select, parts.test):
        literals = [sorted(getattr(twin.pair, side) for twin in balanced) for side in ("true", "wrong")]
        assert literals[0] == literals[1]


def test_pairs_that_do_not_align_are_counted() -> None:
    given = arithmetic_errors(90, 0, rule="off by")
    longer = [p.with_wrong(f"1{p.true}", "given") if i < 9 else p for i, p in enumerate(given)]
    parts = divide(Pairs("p", tuple(longer)), model().tokenizer)

    assert parts.reasons == {"the two literals have different numbers of tokens": 9}
    assert parts.blocks is None
    assert sum(map(len, (parts.train, parts.select, parts.test))) == len(given) - 9


def test_too_few_problems_are_refused() -> None:
    with pytest.raises(PromptError, match="problems to select on"):
        divide(pairs()[:30], model().tokenizer)
    with pytest.raises(PromptError, match="have no answer"):
        CritiqueExperiment(model(), pairs(), SETTINGS, answers={})


def test_the_layer_with_the_largest_difference_is_chosen_and_none_without_a_dose() -> None:
    sites, effects, rises = ["L1.resid_post", "L2.resid_post", "L3.resid_post"], [0.1, 0.3, np.nan], [0.1, 0.05, 0.9]
    about = {"site": sites, "layer": [1, 2, 3], "dose": [0.4, 0.1, np.nan]}
    rows = pd.DataFrame({**about, "difference": effects, "loss_rise": rises})

    assert choose(rows) == Chosen("L2.resid_post", 0.1)
    with pytest.raises(InterventionError, match="Give smaller candidates"):
        choose(rows.iloc[2:])


def test_the_largest_dose_that_does_little_damage_both_ways_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    # Damage that only taking away does: a dose of 0.1 costs 0.1 nats.
    monkeypatch.setattr(choosing, "_rise", lambda model, vector, dose, clean: -dose)
    select = divide(pairs(), model().tokenizer).select
    vector, metric = critique_vector(model(), pairs()[:30], layers=(1,)), TokenMargin((5,), (6,))
    clean = NeutralTexts(model(), questions(select, 4), length=16, positions=4)
    taken, refused = (
        candidate(model(), vector, select[:2].tokens, metric, doses, clean).iloc[0]
        for doses in ((0.05, 0.1, 0.2), (0.2, 0.4))
    )

    assert (taken["dose"], taken["loss_rise"]) == (MOST_DAMAGE, MOST_DAMAGE)
    assert np.isfinite(taken["difference"])
    assert (refused["loss_rise"], np.isnan(refused["dose"]), np.isnan(refused["difference"])) == (0.2, True, True)


def test_tested_measures_are_corrected_for_each_other_and_others_are_not() -> None:
    about = {"null": "random", "side": "difference", "beaten": True}
    tests = pd.DataFrame([{**about, "outcome": name, "p": p, "p_corrected": p}
                          for name, p in (("recompute", 0.02), ("answer", 0.015), ("verdict", 0.015))])  # fmt: skip
    found = corrected(tests, ("recompute", "answer")).set_index("outcome")

    assert found["p_corrected"].tolist() == [0.03, 0.03, 0.015]  # Holm: 2 * 0.015, then at least as much
    assert found["beaten"].tolist() == [False, False, True]
    assert found["tested"].tolist() == [True, True, False]


@pytest.mark.parametrize(
    ("readable", "met", "begins"),
    [
        ((True, True), True, "Wrong results are readable at the result and at the stub; the vector is a cause of"),
        ((True, False), False, "Wrong results are readable at the result, not at the stub; steering on recompute: no"),
        ((False, False), False, "Wrong results are not readable at the result nor at the stub; steering on recompute"),
    ],
)
def test_the_verdict_says_first_what_is_readable_and_what_is_a_cause(
    readable: tuple[bool, bool], met: bool, begins: str
) -> None:
    signals = pd.DataFrame({"read_at": ["result", "stub"], "found": readable, "sentence": ["One.", "Two."]})
    outcomes = {
        "recompute": Outcome(True, met, "No effect beyond random (…): at dose"),
        "answer": Outcome(False, True, ""),
    }

    assert verdict(signals, outcomes).startswith(begins)


def test_a_critique_vector_is_the_mean_difference_at_one_layer() -> None:
    given = arithmetic_errors(40, 1, rule="off by")
    vector = critique_vector(model(), given, layers=(1, 2))
    recorded = record_twins(model(), twins(given, model().tokenizer).tokens, vector.sites)
    (site,) = vector.sites

    half = len(recorded) // 2
    expected = recorded.single(site)[:half].double().mean(0) - recorded.single(site)[half:].double().mean(0)
    assert torch.allclose(vector[site].double(), expected, atol=1e-6)
    assert set(vector.provenance["groups"]) == set(given.groups)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"measures": ("recompute", "guess")}, "one or more of recompute, answer, verdict"),
        ({"measures": ("answer",)}, "recompute is not measured"),
        ({"tested": ("recompute", "answer")}, "no corrected p could come to 0.02. Draw 99 or more"),
        ({"shuffled_labels": 10}, "Draw 19 or more"),
        ({"doses": (0.5, 1.0)}, "three or more different positive numbers"),
        ({"doses": (0.5, 0.75, 1.5)}, "with 1 among them"),
        ({"candidates": (-0.1,)}, "one or more positive doses"),
        ({"layers": (-1,)}, "counted from 0"),
        ({"layers": (1,), "steered": (2,)}, "none of the layers that are read"),
        ({"test_pairs": 1}, "Expected 2 to"),
        ({"verdict_words": 4}, "Expected 1 to 3"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message.replace(".", r"\.")):
        CritiqueExperimentSettings(**settings)


def test_layers_and_words_that_the_model_has_not_are_refused() -> None:
    with pytest.raises(SiteError):
        experiment(layers=(1, 9))
    with pytest.raises(ConfigError, match="one or more of these"):
        experiment(steered=(3, 7))
    with pytest.raises(ConfigError, match="first and the last"):
        experiment(layers=(0, 3))
    with pytest.raises(TokenError):
        experiment(measures=("recompute", "verdict"))
