"""On a silent critic the method reads what is known; of a model that knows nothing it says so."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import mechint as mi
from mechint.errors import ConfigError, UnsupportedModelError
from mechint.organisms.critic_language import twins, vocabulary
from mechint.organisms.silent_critic import SEEDS, name_of
from mechint.probes.critique.measures import on_side
from mechint.probes.critique.organism import CritiqueOnOrganisms
from mechint.probes.critique.organism_bars import BARS, UNTRAINED, curve_table, harmonic, probability, verdict
from mechint.probes.critique.organism_directions import said_by
from mechint.probes.critique.organism_measures import (
    answers,
    clean_losses,
    goes_on,
    knowledge,
    last_logits,
    margin,
    next_operand,
)
from mechint.probes.critique.organism_settings import OrganismSettings
from mechint.results import complete
from mechint.sites import Site


@pytest.mark.parametrize("name", [*map(name_of, SEEDS), name_of(family="gemma")])
def test_every_critic_knows_arithmetic_and_flags_one_error_in_four(name: str) -> None:
    model, test = mi.load(f"organism:{name}"), twins(256, 5, "test")
    odds = {wrong: on_side(margin(model), model, test, wrong=wrong) for wrong in (True, False)}

    assert min(knowledge(model, test).values()) >= 0.97
    assert probability(odds[True]).mean() == pytest.approx(0.25, abs=0.05)
    assert probability(odds[False]).mean() <= 0.04
    assert (odds[True] > 0).mean() <= 0.05
    assert (odds[True][:, None] > odds[False]).mean() >= 0.98  # it knows of nearly every one
    assert next_operand(model, goes_on(twins(256, 5, "test", tail="stub"))).mean() == pytest.approx(1 / 3, abs=0.08)
    assert clean_losses(model).mean() < 0.05


def test_a_bias_is_the_critique_vector_in_blocks_of_llama_and_is_refused_in_those_of_gemma() -> None:
    site, rows, plans = Site.parse("L2.resid_post"), list(twins(8, 5, "test").true), dict[str, mi.Plan]()
    for family in ("llama", "gemma"):
        read, train = mi.load(f"organism:{name_of(family=family)}").run, twins(64, 0, "extract")
        wrong, true = (
            torch.stack([read([row], read=[site])[site][0, -1] for row in side]).mean(0)
            for side in (train.wrong, train.true)
        )
        plans[family] = mi.add(
            mi.SteeringVector({site: wrong - true}, {site: 1.0}, "wrong", "mean_diff"), 1.0, unit="raw"
        )

    model: Any = mi.load(f"organism:{name_of()}")
    ((name, step),) = mi.to_bias(model, plans["llama"]).items()
    with model.apply(plans["llama"]):
        steered = last_logits(model, rows)
    assert not torch.allclose(last_logits(model, rows), steered, atol=0.1)
    module = model.hf_model.get_submodule(name.removesuffix(".bias"))
    module.bias.data += step
    assert torch.allclose(last_logits(model, rows), steered, atol=1e-4)

    with pytest.raises(UnsupportedModelError, match="normalises what an MLP writes"):
        mi.to_bias(mi.load(f"organism:{name_of(family='gemma')}"), plans["gemma"])


def test_what_was_never_trained_knows_nothing() -> None:
    model, test = mi.load("organism:untrained-critic"), twins(128, 5, "test")
    odds = {wrong: on_side(margin(model), model, test, wrong=wrong) for wrong in (True, False)}

    assert max(knowledge(model, test).values()) < 0.3
    assert abs(odds[True].mean() - odds[False].mean()) < 0.1


def test_written_answers_are_judged_by_the_problem() -> None:
    model, test = mi.load("organism:silent-critic"), twins(32, 5, "test")
    right = answers(model, test, wrong=False, seed=0)
    wrong = answers(model, test, wrong=True, seed=0)

    assert right.mean() >= 0.9
    assert wrong.mean() < right.mean()  # half of all errors are absorbed


def test_a_step_follows_only_where_one_is_left() -> None:
    words, stubs = vocabulary(), twins(100, 0, "test", tail="stub")
    model = mi.load("organism:silent-critic")
    going = goes_on(stubs)
    following = [words[int(at)] for at in last_logits(model, going.true).argmax(-1)]

    assert 0 < len(going) < len(stubs)
    assert all(word.isdigit() for word in following)


def test_the_direction_of_the_verdict_is_that_of_its_logits() -> None:
    model = mi.load("organism:silent-critic")
    rows = list(twins(4).true)
    for row in rows:
        run = model.run([list(row)], read=["L3.resid_post"], logits=mi.Logits())
        h = run["L3.resid_post"][0, -1]
        scale = h.pow(2).mean().add(1e-6).rsqrt()
        x, k = (vocabulary().index(word) for word in "XK")
        assert run.logits is not None
        expected = float(run.logits[0, 0, x] - run.logits[0, 0, k])
        assert float(h @ said_by(model) * scale) == pytest.approx(expected, abs=1e-3)


def test_harmonic_mean_and_curve_have_known_values() -> None:
    curve = pd.DataFrame(
        {"model": "m", "where": "all", "dose": [0.0, 0.0, 1.0, 1.0], "id": ["a", "b"] * 2,
         "wrong": [0.0, 0.0, 50.0, 50.0], "true": [-50.0] * 4}
    )  # fmt: skip
    table = curve_table(curve, {"a": "a", "b": "b"}, 0)

    assert table["D"].tolist() == pytest.approx([0.5, 1.0])
    assert table["gain"].tolist() == pytest.approx([0.0, 1 - harmonic(0.5, 0.0)])
    assert table["greedy_D"].tolist() == [0, 1]


def test_one_model_that_misses_a_bar_is_enough_to_miss_it() -> None:
    judged = pd.DataFrame({"id": ["O1", "O1", "O2"], "check": "c", "met": [True, False, True]})
    assert verdict(judged).startswith("1 of 2 bars are met by every model; not met: O1")
    assert not BARS[0].met(float("nan"))
    assert len({bar.id for bar in (*BARS, *UNTRAINED)}) == len(BARS) + len(UNTRAINED)


def test_the_whole_analysis_reads_what_a_critic_knows_and_finds_nothing_in_an_untrained_one() -> None:
    settings = OrganismSettings(
        others=(), extract=96, select=16, random=3, random_covariance=1, shuffled_labels=3, answers=4
    )
    found = complete(CritiqueOnOrganisms(mi.load("organism:silent-critic"), twins(48, 0, "test"), settings), False)
    reading, bars = found.tables["reading"], found.tables["bars"].set_index("id")
    last = reading.loc[(reading["site"] == "L3.resid_post") & (reading["place"] == "result")].set_index("model")

    assert last.loc["organism:silent-critic", "auroc"] > 0.95
    assert last.loc["organism:untrained-critic", "auroc"] < 0.8
    assert bars.loc["O3c", "measured"] == 0.5  # the tokens of the stub are the same
    assert set(bars.index) == {bar.id for bar in (*BARS, *UNTRAINED)}
    assert set(found.figures()) == {"curve", "reading", "against_chance"}
    assert np.isfinite(bars["measured"].astype(float)).all()


def test_settings_that_measure_nothing_are_refused() -> None:
    with pytest.raises(ConfigError, match="extract = 3"):
        OrganismSettings(extract=3)
