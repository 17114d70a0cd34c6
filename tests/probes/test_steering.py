"""A planted direction is found and said to steer; one that means nothing is not; and parts are kept apart."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from jaxtyping import Float

from mechint.errors import ConfigError, InterventionError, PromptError, SiteError
from mechint.experiment.config import ExperimentConfig, parse_config
from mechint.experiment.registry import ANALYSES, AnalysisKind
from mechint.experiment.runner import run
from mechint.experiment.session import Interrupted
from mechint.model.base import Model
from mechint.model.transformer_lens import TransformerLensModel
from mechint.probes.steering import judgement
from mechint.probes.steering.experiment import SteeringExperiment
from mechint.probes.steering.selection import choose, parts_of
from mechint.probes.steering.settings import SteeringSettings
from mechint.prompts import Concept, ContrastPairs, Prompt, PromptSet, contrast
from mechint.results import Analysis, Findings, Unit, complete
from mechint.steering.metrics import Metric
from mechint.vectors.fit import fit
from tests.families import plain, random_rows, tiny, tokenizer

SCORED = ((" w5", " w6"), (" w7", " w8"))
SETTINGS = SteeringSettings(
    pairs=48,
    layers=(0, 1),
    target_kl=0.2,
    random=20,
    passages=4,
    passage_length=10,
    passage_positions=4,
    texts=2,
    max_new_tokens=4,
)


def texts(n: int, length: int, seed: int) -> list[str]:
    """Random texts without the words that mean something here."""
    rows = random_rows(n, length, seed)
    return [" ".join(f"w{t if t not in range(5, 9) and t not in (30, 31) else 9}" for t in row[1:]) for row in rows]


def told(a: str, b: str) -> Callable[[int, int], ContrastPairs]:
    """Pairs that differ in the last word; of 16 groups."""

    def pairs(n: int, seed: int) -> ContrastPairs:
        rows = texts(n, 6, seed + 50)
        sides = [[f"{row} {word}" for row in rows] for word in (a, b)]
        return contrast(*sides, groups=[str(k % 16) for k in range(n)], name=f"{a}{b}")

    return pairs


def meaningless(n: int, seed: int) -> ContrastPairs:
    rows = texts(2 * n, 6, seed + 70)
    return contrast(rows[:n], rows[n:], groups=[str(k % 16) for k in range(n)], name="nothing")


PLANTED = Concept("w30", told("w30", "w31"), *SCORED, "w30 w30 ")
OTHER = Concept("w40", told("w40", "w41"), *SCORED, "w40 ")
NOTHING = Concept("nothing", meaningless, *SCORED, "w9 ")
PROMPTS = PromptSet("p", tuple(Prompt(f"p{i}", t, cluster=f"c{i // 2}") for i, t in enumerate(texts(24, 8, 3))))
NEUTRAL = PromptSet("n", tuple(Prompt(f"n{i}", t) for i, t in enumerate(texts(12, 12, 4))))


@pytest.fixture(scope="module")
def planted() -> Model:
    """A tiny Llama whose last attention reads w30 against w31 from every token, and writes w5 and w6 against w7 and w8.

    What it reads is how two words differ after block 1, and at right angles to what it writes, so that the vector
    itself says nothing about the words.
    """
    model = plain("llama")
    unembedding = model.lm_head.weight
    reads = fit(tiny("llama"), told("w30", "w31")(64, 9), "L1.resid_post", folds=0)["L1.resid_post"]
    writes = (unembedding[[5, 6]] - unembedding[[7, 8]]).mean(0) * model.model.norm.weight
    writes -= (writes @ reads) / (reads @ reads) * reads
    attention, gain = model.model.layers[2].self_attn, model.model.layers[2].input_layernorm.weight
    attention.v_proj.weight[0] = 4 * reads / reads.norm() / gain
    attention.o_proj.weight[:, [0, 8]] = 3 * (writes / writes.norm())[:, None]  # both query heads of KV head 0
    return TransformerLensModel(model, tokenizer(), name="planted")


def experiment(model: Model, concept: Concept = PLANTED, **changes: Any) -> SteeringExperiment:
    settings = replace(SETTINGS, **changes)
    return SteeringExperiment(model, PROMPTS, settings, concept=concept, other=OTHER, neutral=NEUTRAL)


@pytest.fixture(scope="module")
def found(planted: Model) -> Findings:
    return complete(experiment(planted), progress=False)


def test_a_planted_direction_steers_by_every_criterion(found: Findings) -> None:
    assert found.verdict.startswith("Steers at L"), found.to_frame("criteria")
    assert found.to_frame("criteria")["met"].all()
    assert found.to_frame("tests")["p"].max() <= 1 / 21
    doses = found.to_frame("doses").query("arm == 'vector'")
    assert np.all(np.diff(doses["effect"]) > 0)


def test_the_tables_are_those_of_an_evaluation_and_of_the_choice(found: Findings) -> None:
    assert list(found.tables) == ["doses", "tests", "texts", "layers", "criteria"]
    layers, doses = found.to_frame("layers"), found.to_frame("doses")
    assert layers["layer"].tolist() == [0, 1]
    assert layers["chosen"].tolist() == (layers["effect"] == layers["effect"].max()).tolist()
    dose = float(layers.loc[layers["chosen"], "dose"].iloc[0])
    assert found.to_frame("tests")["dose"].tolist() == [dose] * 3
    vector = doses[doses["arm"] == "vector"]
    assert (vector["dose"] / dose).tolist() == pytest.approx(SETTINGS.doses)
    assert set(doses["arm"]) == {*SETTINGS.draws, "vector", "prompt_only"}


def test_a_vector_of_labels_that_mean_nothing_does_not_steer(planted: Model) -> None:
    nothing = complete(experiment(planted, NOTHING), progress=False)

    assert nothing.verdict.startswith("Does not steer at L")
    assert "beyond chance" in nothing.verdict.split(". ")[0]
    assert nothing.to_frame("tests")["p"].max() > 0.05


def test_where_nothing_is_planted_the_same_direction_does_not_steer() -> None:
    assert complete(experiment(tiny("llama")), progress=False).verdict.startswith("Does not steer")


def test_a_direction_that_only_writes_the_scored_words_is_told_apart() -> None:
    """Gemma's embedding is its unembedding: a word that is read is a word that is written."""
    concept = replace(PLANTED, pairs=lambda n, seed: _ends(n, seed))
    found = complete(experiment(tiny("gemma3"), concept, layers=(5,), target_kl=0.5), progress=False)

    criteria = found.to_frame("criteria").set_index("criterion")
    effects = found.to_frame("doses").set_index(["arm", "dose"])["effect"]
    dose = found.to_frame("tests")["dose"].iloc[0]
    assert effects["vector", dose] > 0
    assert effects["orthogonal", dose] < 0.5 * effects["vector", dose]
    assert criteria.loc["has an effect", "met"]


def _ends(n: int, seed: int) -> ContrastPairs:
    rows = texts(n, 6, seed + 50)
    return contrast([f"{r} w5" for r in rows], [f"{r} w7" for r in rows], groups=[str(k % 16) for k in range(n)])


def test_it_is_an_analysis_and_what_is_chosen_follows_the_choice(planted: Model) -> None:
    analysis = experiment(planted)
    units = analysis.units()
    layers = pd.concat([analysis.measure(unit) for unit in units], ignore_index=True)
    later = analysis.follow_up({"layers": layers})

    assert isinstance(analysis, Analysis)
    assert [unit.name for unit in units] == ["layers/0", "layers/1"]
    best = int(layers.loc[layers["effect"].idxmax(), "layer"])
    assert {unit.inputs["chosen"]["layer"] for unit in later} == {best}
    draws = [unit for unit in later if unit.table == "effects"]
    assert len(draws) == 1 + 1 + 20 + 20 + 20 + 1 + 1 + 1  # none, vector, three nulls, orthogonal, other, instruction


class Watched:
    """A metric that remembers the clusters of what it was shown."""

    name, unit = "watched", "nats"

    def __init__(self, metric: Metric) -> None:
        self.metric, self.seen = metric, list[set[str | None]]()

    def __call__(self, model: Model, prompts: Sequence[Prompt]) -> Float[np.ndarray, " prompt"]:
        self.seen.append({p.cluster for p in prompts})
        return self.metric(model, prompts)


def test_what_is_reported_on_was_neither_fitted_nor_chosen_on(planted: Model) -> None:
    analysis = experiment(planted)
    watched = Watched(analysis._metric)
    analysis._metric = watched
    analysis.measure(analysis.units()[0])
    chosen_on = set[str | None]().union(*watched.seen)
    ids = analysis.measure(_first(analysis, "effects"))["id"]

    assert chosen_on
    assert not chosen_on & {p.cluster for p in PROMPTS if p.id in set(ids)}
    assert len(ids) > len(PROMPTS) / 2
    one, other = analysis._neutral_texts
    assert not {p.id for p in one} & {p.id for p in other}


def _first(analysis: SteeringExperiment, table: str) -> Unit:
    layers = pd.DataFrame([_layer(0, 1.0), _layer(1, 0.5)])
    return next(unit for unit in analysis.follow_up({"layers": layers}) if unit.table == table)


def _layer(layer: int, effect: float, problem: str = "") -> dict[str, Any]:
    return {"layer": layer, "effect": effect, "dose": 0.2, "dose_low": 0.1, "dose_high": 0.3, "problem": problem}


def test_the_layer_of_the_largest_effect_is_chosen_whatever_the_order_of_rows() -> None:
    rows = pd.DataFrame([_layer(4, 1.0), _layer(2, 3.0), _layer(0, np.nan, "no dose"), _layer(3, 3.0)])

    assert choose(rows, 0.5) == choose(rows.iloc[::-1], 0.5)
    assert choose(rows, 0.5).layer == 2
    with pytest.raises(InterventionError, match="no dose"):
        choose(rows.iloc[2:3], 0.5)


def test_parts_share_no_cluster_and_lose_no_prompt() -> None:
    one, two = parts_of(PROMPTS, (1, 2), 0)

    assert not {p.cluster for p in one} & {p.cluster for p in two}
    assert sorted(p.id for p in (*one, *two)) == sorted(p.id for p in PROMPTS)
    assert (len(one), len(two)) == (8, 16)
    assert [p.id for p in parts_of(PROMPTS, (1, 2), 1)[0]] != [p.id for p in one]
    assert [len(part) for part in parts_of(PROMPTS[:8], (1, 1000), 0)] == [4, 4]  # two clusters at least
    with pytest.raises(PromptError, match="3 clusters, too few"):
        parts_of(PROMPTS[:6], (1, 2), 0)


@pytest.mark.parametrize("left_out", ["orthogonal", "other_concept"])
def test_a_criterion_whose_arm_was_left_out_is_not_met(planted: Model, left_out: str) -> None:
    draws = {"random": 20, "random_covariance": 20, "shuffled_labels": 20, "texts": 0}
    found = complete(experiment(planted, layers=(1,), **draws, **{left_out: False}), progress=False)

    name = {"orthogonal": "not by its tokens", "other_concept": "specific"}[left_out]
    assert found.to_frame("criteria").set_index("criterion")["met"].loc[[name]].tolist() == [False]
    assert found.verdict.startswith(f"Moves the metric at L1.resid_post, but not said to steer; not met: {name}.")


@pytest.mark.parametrize("left_out", ["random", "random_covariance", "shuffled_labels"])
def test_without_one_of_the_nulls_chance_is_not_beaten(planted: Model, left_out: str) -> None:
    draws = {"random": 20, "random_covariance": 20, "shuffled_labels": 20, "texts": 0} | {left_out: 0}
    found = complete(experiment(planted, layers=(1,), **draws), progress=False)

    assert found.verdict.startswith("Does not steer at L1.resid_post; not met: beyond chance.")


def test_the_verdict_names_what_is_not_met_and_needs_chance_to_be_beaten() -> None:
    criteria = pd.DataFrame({"criterion": [c.name for c in judgement.CRITERIA], "met": True})
    assert judgement.verdict("L1", criteria, "So.") == "Steers at L1: every criterion is met. So."

    costly = criteria.assign(met=criteria["criterion"] != "damage as calibrated")
    assert judgement.verdict("L1", costly, "").startswith("Moves the metric at L1, but not said to steer")
    chance = criteria.assign(met=criteria["criterion"] != "beyond chance")
    assert judgement.verdict("L1", chance, "").startswith("Does not steer at L1; not met: beyond chance.")


def config(**settings: Any) -> ExperimentConfig:
    given = {"question": "Does it steer?", "analysis": "steering", "model": "toy", "settings": settings}
    return parse_config(given | {"prompts": {"kind": "openings", "name": "sentiment"}}, origin="x.toml")


SMALL = {"pairs": 48, "layers": [1], "target_kl": 0.2, "passages": 4, "passage_length": 10, "passage_positions": 4} | {
    "random": 3,
    "random_covariance": 2,
    "shuffled_labels": 2,
    "texts": 2,
    "max_new_tokens": 4,
}


def doors(model: Model, stop_after: int | None = None) -> dict[str, Any]:
    def build(given: Any, prompts: Any, settings: Any, seed: int) -> Analysis:
        analysis = SteeringExperiment(given, prompts, settings, seed, concept=PLANTED, other=OTHER, neutral=NEUTRAL)
        measure, done = analysis.measure, []

        def counted(unit: Unit) -> pd.DataFrame:
            if len(done) == stop_after:
                raise KeyboardInterrupt
            done.append(unit.name)
            return measure(unit)

        analysis.measure = counted  # type: ignore[method-assign]
        return analysis

    kinds = {"steering": AnalysisKind(ANALYSES["steering"].settings, build)}
    return {"analyses": kinds, "load_model": lambda c: model, "make_prompts": lambda c, m: PROMPTS, "progress": False}


@pytest.mark.parametrize("stop_after", [0, 4, 15])
def test_a_run_that_was_stopped_goes_on_to_equal_tables(planted: Model, tmp_path: Path, stop_after: int) -> None:
    whole = run(config(**SMALL), tmp_path / "whole", **doors(planted)).findings
    with pytest.raises(Interrupted):
        run(config(**SMALL), tmp_path / "halves", **doors(planted, stop_after))
    resumed = run(config(**SMALL), tmp_path / "halves", resume=True, **doors(planted)).findings

    assert whole is not None
    assert resumed is not None
    assert list(whole.tables) == list(resumed.tables)
    for name, table in whole.tables.items():
        pd.testing.assert_frame_equal(table, resumed.tables[name], check_exact=True)
    assert (whole.verdict, whole.notes) == (resumed.verdict, resumed.notes)


def test_a_dry_run_says_what_there_is_to_do_first_and_writes_nothing(planted: Model, tmp_path: Path) -> None:
    plan = run(config(**SMALL | {"layers": [0, 2]}), tmp_path / "out", dry_run=True, **doors(planted)).plan

    assert plan.to_dict("records") == [{"table": "layers", "units": 2, "measured": 0}]
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"concept": "sentimnet"}, "concept = 'sentimnet'. There are: sentiment, tense"),
        ({"other": "sentiment"}, "is the concept itself"),
        ({"doses": [0.5, 1.0, 1.5, 2.0]}, "Expected 5 or more"),
        ({"doses": [0.2, 0.4, 0.6, 0.8, 1.2]}, "with 1 among them"),
        ({"doses": [-1.0, 0.5, 1.0, 1.5, 2.0]}, "positive numbers"),
        ({"target_kl": 0.0}, "positive number of nats"),
        ({"where": "generated"}, "would see nothing"),
        ({"where": "nowhere"}, "'everywhere', 'prompt'"),
        ({"layers": [-1]}, "counted from 0"),
        ({"shuffled_labels": -1}, "at least 0"),
        ({"dose": 1.0}, "Did you mean 'doses'"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message.replace(".", r"\.")):
        config(**settings)


def test_openings_need_a_concept_that_there_is() -> None:
    given = {"question": "Does it steer?", "analysis": "steering", "model": "toy"}
    with pytest.raises(ConfigError, match="needs name"):
        parse_config(given | {"prompts": {"kind": "openings"}}, origin="x.toml")
    with pytest.raises(ConfigError, match="is no concept; there are: sentiment"):
        parse_config(given | {"prompts": {"kind": "openings", "name": "mood"}}, origin="x.toml")


def test_a_layer_that_is_not_there_and_pairs_too_few_to_shuffle_are_refused(planted: Model) -> None:
    with pytest.raises(SiteError, match=r"L7\.resid_post: planted has blocks L0 to L2"):
        experiment(planted, layers=(1, 7))
    few = replace(PLANTED, pairs=lambda n, seed: _few(n))
    with pytest.raises(PromptError, match="too few for a control"):
        experiment(planted, few)


def _few(n: int) -> ContrastPairs:
    rows = texts(n, 6, 1)
    return contrast([f"{r} w30" for r in rows], [f"{r} w31" for r in rows], groups=[str(k % 6) for k in range(n)])
