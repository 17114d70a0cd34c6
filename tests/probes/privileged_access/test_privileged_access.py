"""Self- against cross-prediction: arithmetic of the comparison, gates, and organisms with a known truth."""

import numpy as np
import pandas as pd
import pytest

from mechint.errors import ConfigError
from mechint.organisms import load
from mechint.probes.privileged_access import readers
from mechint.probes.privileged_access.experiment import PrivilegedAccess
from mechint.probes.privileged_access.settings import Lora, PrivilegedAccessSettings
from mechint.probes.privileged_access.summary import accuracies, compared, summarise
from mechint.probes.privileged_access.tasks import TEXT_PROPERTIES, Texts
from mechint.prompts import Prompt, PromptSet
from mechint.results import complete

_ARMS = ("self", "cross", "before", "mode", "words", "embeddings")


def _predictions(right, n=120, train=0.95):
    """Rows of two properties an item; `right` is the share that each arm answers right, the same items first."""
    rows = []
    for arm in _ARMS:
        for part, share in (("train", train), ("test", right.get(arm, 0.5))):
            for at in range(n):
                for name in ("p", "q"):
                    correct = (at * 37 % n) < share * n
                    rows.append((arm, f"{part}{at}", name, part, True, correct or arm != "self", correct))
    return pd.DataFrame(rows, columns=["arm", "item", "property", "part", "trained", "compliant", "correct"])


def _raw(predictions, defined=1.0, unchanged=1.0):
    n = 50
    answers = pd.DataFrame({"part": "test", "item": range(n), "answer": "y", "answer_other": "z", "defined": defined})
    tuned = ["y" if at < unchanged * n else "z" for at in range(n)]
    behaviour = pd.DataFrame({"item": range(n), "answer": "y", "answer_tuned": tuned})
    tables = {"answers": answers, "predictions": predictions, "behaviour": behaviour}
    return {name: table.assign(pair="one / other") for name, table in tables.items()}


def _level(raw):
    row = summarise(raw, 0)[0]["verdicts"].iloc[0]
    return row["level"], row["failed"]


def test_an_advantage_is_the_difference_of_the_accuracies():
    predictions = _predictions({"self": 0.9, "cross": 0.6, "words": 0.5})

    accuracy = accuracies(predictions, 0).set_index("arm")["accuracy"]
    advantage = compared(predictions, 0).set_index("against")["advantage"]

    for arm in ("cross", "words", "mode"):
        assert advantage[arm] == pytest.approx(accuracy["self"] - accuracy[arm])


def test_twice_the_same_properties_of_a_question_are_no_more_evidence():
    predictions = _predictions({"self": 0.9, "cross": 0.6})
    doubled = pd.concat([predictions, predictions.assign(property=predictions["property"] + "2")])

    one, two = (compared(rows, 0).set_index("against").loc["cross"] for rows in (predictions, doubled))

    assert two["advantage_low"] == pytest.approx(one["advantage_low"])
    assert two["mcnemar"] < one["mcnemar"]  # which takes them as independent


def test_answers_that_are_none_count_as_wrong_and_are_left_out_beside_it():
    predictions = _predictions({"self": 0.8})

    row = accuracies(predictions, 0).set_index("arm").loc["self"]

    assert row["accuracy"] == pytest.approx(0.8)
    assert row["compliance"] == pytest.approx(0.8)
    assert row["accuracy_compliant"] == 1.0


@pytest.mark.parametrize(
    ("right", "more", "level", "failed"),
    [
        ({"self": 0.95, "cross": 0.6}, {}, "evidence", ""),
        ({"self": 0.95, "cross": 0.95}, {}, "no evidence", "G1"),
        ({"self": 0.95, "cross": 0.6, "words": 0.95}, {}, "partial", "G3"),
        ({"self": 0.95, "cross": 0.6, "embeddings": 0.95}, {}, "partial", "G3"),
        ({"self": 0.95, "cross": 0.6, "mode": 0.92}, {}, "inconclusive", "H1"),
        ({"self": 0.95, "cross": 0.6}, {"unchanged": 0.5}, "partial", "G5"),
        ({"self": 0.95, "cross": 0.6}, {"defined": 0.5}, "invalid", "V1"),
        ({"self": 0.5, "cross": 0.3}, {}, "invalid", "V2"),
    ],
)
def test_each_other_explanation_takes_the_evidence_away(right, more, level, failed):
    found = _level(_raw(_predictions(right), **more))

    assert found[0] == level
    assert found[1].startswith(failed)


def test_a_small_sample_is_inconclusive_and_no_null():
    level, failed = _level(_raw(_predictions({"self": 0.92, "cross": 0.84}, n=12)))

    assert (level, failed) == ("inconclusive", "G1 privilege")


def test_without_any_fact_the_run_is_invalid():
    empty = _predictions({}).iloc[:0]

    assert _level(_raw(empty, defined=0.0))[0] == "invalid"


def test_a_reader_of_the_text_finds_what_the_text_tells_and_nothing_else():
    rng = np.random.default_rng(0)
    texts = [f"a{rng.integers(8)} b{rng.integers(8)}" for _ in range(300)]
    told, drawn = [text.split()[1] for text in texts], [str(rng.integers(8)) for _ in texts]

    def accuracy(values):
        said = readers.words(texts[:200], values[:200], texts[200:])
        return np.mean([one == other for one, other in zip(said, values[200:], strict=True)])

    assert accuracy(told) == 1.0
    assert accuracy(drawn) < 0.3


def test_properties_of_a_word():
    of = {name: prop.of for name, prop in TEXT_PROPERTIES.items()}

    assert [of[name]("apple") for name in of] == ["a", "p", "yes", "odd", "no"]
    assert of["second_character"]("a") is None
    assert of["starts_with_vowel"]("") is None


def test_a_text_s_answer_is_its_first_word_and_the_question_is_the_published_one():
    task = Texts(PromptSet("texts", tuple(Prompt(f"t{i}", f"Text {i} goes") for i in range(8))))
    (item, *_) = task.items(8, 0)

    assert task.answer(' "On and on') == "on"
    expected = f'Previously, you were asked the following question: "{item.text}" What is the second letter'
    assert task.hypothetical(item, "second_character").startswith(expected)


def test_settings_refuse_what_cannot_be():
    with pytest.raises(ConfigError, match="No model to compare with"):
        PrivilegedAccessSettings()
    with pytest.raises(ConfigError, match="p1: trained on and held out"):
        PrivilegedAccessSettings(other="organism:look-up-other", properties=("p1",), held_out=("p1",))
    with pytest.raises(ConfigError, match="rank = 0"):
        Lora(rank=0)
    settings = PrivilegedAccessSettings(other="organism:look-up-other", properties=("colour",))
    with pytest.raises(ConfigError, match="No property colour"):
        PrivilegedAccess(load("organism:look-up-self"), PromptSet("none", ()), settings)


@pytest.fixture(scope="module")
def analysis():
    settings = PrivilegedAccessSettings(
        other="organism:look-up-other",
        pairs=(("organism:look-up-self", "organism:look-up-self"),),
        properties=("p0",),
        items=120,
        lora=Lora(rank=8, steps=60, rows=32, rate=3e-3),
    )
    return PrivilegedAccess(load("organism:look-up-self"), PromptSet("none", ()), settings)


def test_a_model_is_not_better_than_itself(analysis):
    unit = {unit.name: unit for unit in analysis.units()}
    pair = "look-up-self / look-up-self"

    own, cross = (analysis.measure(unit[f"{pair}/{arm}"]).drop(columns="arm") for arm in ("self", "cross"))

    pd.testing.assert_frame_equal(own, cross)


def test_a_unit_that_is_measured_again_from_its_seed_gives_the_same_rows(analysis):
    unit = next(unit for unit in analysis.units() if unit.name.endswith("other/self"))
    first = analysis.measure(unit)

    analysis._tuned.cache_clear()

    pd.testing.assert_frame_equal(analysis.measure(unit), first)


def test_held_out_questions_give_no_fact_that_is_trained_on(analysis):
    unit = next(unit for unit in analysis.units() if unit.name.endswith("other/self"))
    rows = analysis.measure(unit)

    parts = {part: set(own["item"]) for part, own in rows.groupby("part")}
    assert not parts["train"] & parts["test"]
    assert len(parts["train"]) == len(parts["test"]) == 60


def test_an_organism_knows_itself_better_than_another_does(analysis):
    rows = complete(analysis, progress=False).tables["verdicts"].set_index("pair")

    assert rows.loc["look-up-self / look-up-other", "privilege_low"] > 0.1
    assert rows.loc["look-up-self / look-up-self", "privilege"] == 0
