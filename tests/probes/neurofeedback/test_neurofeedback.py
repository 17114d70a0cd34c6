"""Neurofeedback on tiny random models: texts, noise, axes, readers, gates."""

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from mechint.errors import ConfigError, PromptError, TokenError
from mechint.model.base import Model
from mechint.organisms.neurofeedback import sentences
from mechint.positions import TokenBatch
from mechint.probes.gates import judge
from mechint.probes.neurofeedback import reporting
from mechint.probes.neurofeedback.another_model import AnotherModel
from mechint.probes.neurofeedback.axes import Halves, find, mismatch
from mechint.probes.neurofeedback.bench import Bench
from mechint.probes.neurofeedback.control import END, INSTRUCTION, control_table, effect_size, given, written
from mechint.probes.neurofeedback.control_judgement import control_verdicts
from mechint.probes.neurofeedback.episodes import Episode, Wording, episode, noise
from mechint.probes.neurofeedback.experiment import Neurofeedback
from mechint.probes.neurofeedback.judgement import best_text, gates_of, numbers, paired
from mechint.probes.neurofeedback.readers import after_examples, fitted, majority, text_ceiling
from mechint.probes.neurofeedback.said import said
from mechint.probes.neurofeedback.settings import NeurofeedbackSettings
from mechint.prompts import Prompt, PromptSet, deeds
from mechint.results import complete
from mechint.statistics import generator
from tests import families

SETTINGS = NeurofeedbackSettings(
    layer=1, axes=("LR",), noise_axes=("null",), shots=4, tested=2, contexts=2, twins=2, control=2, written=2,
    components=8,
    before="", cue=" w2", labels=(" w3", " w4"), after="",
)  # fmt: skip


@pytest.fixture(scope="module")
def model() -> Model:
    return families.tiny("llama")


@pytest.fixture(scope="module")
def prompts() -> PromptSet:
    rng, found = generator(0, "test"), dict[str, str]()
    while len(found) < 40:
        side = len(found) % 2
        text = " ".join(f"w{int(i)}" for i in rng.integers(5, 25, size=3) + 22 * side)
        found.setdefault(text, f"class {side}")
    return PromptSet("two classes", tuple(Prompt(f"s{i}", t, cluster=c) for i, (t, c) in enumerate(found.items())))


@pytest.fixture(scope="module")
def bench(model: Model, prompts: PromptSet) -> Bench:
    return Bench(model, prompts, SETTINGS, 0)


def test_labels_are_predicted_at_the_cue_before_them_and_sentences_keep_their_tokens() -> None:
    wording = Wording((0, 9), (7, 8), (1, 2), (3,))
    made = episode(wording, [[10, 11], [12]], [1, 0])
    assert made.tokens == (0, 9, 10, 11, 7, 8, 2, 3, 12, 7, 8, 1, 3)
    assert [made.tokens[at + 1] for at in made.cues] == [2, 1]
    assert [made.tokens[a:b] for a, b in made.spans] == [(10, 11), (12,)]


def test_the_prediction_of_a_label_does_not_see_it(bench: Bench) -> None:
    drawn = bench.draw("natural", "LR", 0)
    whole, without = bench.write(drawn, False), bench.write(drawn, False, 3)
    assert whole.tokens[: len(without.tokens)] == without.tokens
    assert whole.cues[2] < len(without.tokens) - 1


def test_a_label_of_two_tokens_is_refused(model: Model) -> None:
    with pytest.raises(TokenError, match="not one token"):
        Wording.of(model, "", " w2", (" w3 w3", " w4"), "")


@pytest.mark.parametrize("left", [False, True])
def test_noise_arrives_at_sentences_in_its_amount_and_nowhere_else(model: Model, bench: Bench, left: bool) -> None:
    """I1 and I4: rows of different lengths, padded on either side."""
    wording, axis = bench.wording, torch.nn.functional.normalize(torch.arange(32.0) - 7, dim=0)
    rows = [episode(wording, [[5, 6, 7], [8]], [0, 1]), episode(wording, [[9, 10]], [1])]
    batch = TokenBatch.from_rows([row.tokens for row in rows], pad_left=left)
    amounts = [[1.5, -2.0], [0.25]]
    clean = model.run(batch, read=[bench.site])[bench.site]
    noisy = model.run(batch, read=[bench.site], write={bench.site: [noise(rows, amounts, axis)]})[bench.site]
    wanted = torch.zeros(clean.shape[:2])
    for row, (one, own) in enumerate(zip(rows, amounts, strict=True)):
        shift = clean.shape[1] - len(one.tokens) if left else 0
        for (start, stop), size in zip(one.spans, own, strict=True):
            wanted[row, start + shift : stop + shift] = size
    torch.testing.assert_close(noisy - clean, wanted[..., None] * axis, atol=1e-5, rtol=0)
    off = (wanted == 0) & batch.real
    assert torch.equal(noisy[off], clean[off])


def test_the_receipt_is_met_and_would_not_be_by_half_the_noise(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = bench.draw("hidden noise", "null", 0)
    found = reporting.receipt(bench, drawn)
    assert numbers(found, "receipt_error").max() < 1e-4
    assert numbers(found, "elsewhere").max() == 0
    whole = reporting.written
    monkeypatch.setattr(reporting, "written", lambda b, d, r, a: whole(b, d, r, (np.array(a) / 2).tolist()))
    assert reporting.receipt(bench, drawn).iloc[0]["receipt_error"] == pytest.approx(0.5, abs=1e-3)


def test_reports_are_those_of_plain_passes(bench: Bench) -> None:
    drawn = bench.draw("natural", "LR", 1)
    table = reporting.reports(bench, drawn)
    row = bench.write(drawn, flipped=True)
    logits = bench.model.all_logits([row.tokens])[0]
    for place, shown in table.loc[table["flipped"]].set_index("shown").iterrows():
        p = torch.softmax(logits[row.cues[int(str(place))]].double(), -1)[list(bench.wording.labels)]
        assert shown["label_mass"] == pytest.approx(float(p.sum()), rel=1e-4)
        label = int(drawn.labels[int(str(place))]) ^ 1
        assert shown["label_loss"] == pytest.approx(-math.log(float(p[label] / p.sum())), rel=1e-3)


def test_whoever_says_one_label_always_is_right_half_of_the_time(bench: Bench) -> None:
    gap = torch.zeros(5, 50)
    gap[:, 3] = 4.0
    labels = bench.draw("natural", "LR", 0).labels
    right = [said(gap, (3, 4), labels ^ flip)["right"] for flip in (0, 1)]
    assert np.mean(right) == 0.5


def test_twins_of_a_model_that_does_not_see_the_noise_are_never_both_right(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reader of the text says the same of both, and exactly one of the two is right."""
    monkeypatch.setattr(reporting, "written", lambda *_: {})
    found = reporting.twins(bench, bench.draw("hidden noise", "null", 0), 0)
    assert set(numbers(found, "both_right")) == {0.0}
    assert set(numbers(found, "right_up") + numbers(found, "right_down")) == {1.0}


def test_twins_with_a_past_are_those_of_whole_rows(bench: Bench) -> None:
    drawn = bench.draw("hidden noise", "null", 1)
    n, found = SETTINGS.shots, reporting.twins(bench, drawn, 1)
    before, size = bench.write(drawn, True, n), SETTINGS.noise * drawn.axis.spread
    for at, row in zip(bench.others(drawn, 1), found.to_dict("records"), strict=True):
        start = len(before.tokens)
        tokens = (*before.tokens, *bench.tokens[at], *bench.wording.cue)
        one = Episode(tokens, (*before.spans, (start, start + len(bench.tokens[at]))), ())
        for name, sign in (("right_up", 1), ("right_down", -1)):
            write = reporting.written(bench, drawn, [one], [[*drawn.noise[:n].tolist(), sign * size]])
            whole = bench.model.run([tokens], write=write, logits=reporting.Logits()).logits
            assert whole is not None
            a, b = whole[0, 0, list(bench.wording.labels)].tolist()
            assert row[name] == float((b > a) == ((sign > 0) ^ True))


def test_the_ceiling_is_that_of_the_best_reader_of_the_text() -> None:
    rng = generator(0, "ceiling")
    text, hidden = rng.standard_normal(200_000), 3 * rng.standard_normal(200_000)
    assert text_ceiling(3.0) == pytest.approx(float(((text > 0) == (text + hidden > 0)).mean()), abs=0.005)
    assert text_ceiling(1e9) == pytest.approx(0.5)


def test_axes_find_what_is_planted_and_the_null_has_the_variance_of_its_components() -> None:
    rng = generator(0, "axes")
    classes = np.arange(400) % 2
    states = rng.standard_normal((400, 12)) * np.linspace(3, 0.5, 12)
    states[:, 6] += 6 * classes
    halves = Halves(states[:200], rng.random((200, 5)), classes[:200], states[200:], rng.random((200, 5)))
    lr = find("LR", halves, components=4, zero=False, seed=0)
    assert abs(lr.direction[6]) > 0.8
    assert np.mean((lr.scores(halves.test_states) > 0) == classes[200:]) > 0.95
    first = find("PC1", halves, components=4, zero=False, seed=0)
    last = find("PC12", halves, components=4, zero=False, seed=0)
    null = find("null", halves, components=4, zero=False, seed=0)
    assert last.spread < null.spread <= first.spread
    assert null.words <= 0.55  # words are noise here, so a draw is found
    assert np.mean(null.scores(halves.fit_states) > 0) == pytest.approx(0.5, abs=0.01)


def test_zero_as_threshold_leaves_a_majority_and_the_median_does_not() -> None:
    rng = generator(0, "zero")
    states = rng.standard_normal((4000, 6)) + np.array([2.0, 0, 0, 0, 0, 0])
    states[:, 0] *= 3
    halves = Halves(states[:2000], states[:2000], np.arange(2000) % 2, states[2000:], states[2000:])
    for zero, low, high in ((True, 0.95, 1.0), (False, 0.45, 0.55)):
        axis = find("PC1", halves, components=2, zero=zero, seed=0)
        assert low < np.mean(axis.scores(halves.test_states) > 0) <= high


def test_a_component_that_there_is_not_is_refused() -> None:
    states = np.eye(6)
    halves = Halves(states, states, np.arange(6) % 2, states, states)
    with pytest.raises(ConfigError, match="principal components"):
        find("PC7", halves, components=2, zero=False, seed=0)


def test_readers_say_the_opposite_when_labels_are_exchanged() -> None:
    rng = generator(0, "readers")
    x, y = rng.standard_normal((30, 4)), rng.integers(2, size=30)
    assert (fitted(x, y).predict(x) == 1 - fitted(x, 1 - y).predict(x)).all()
    assert after_examples(x, y, [10, 20]) == after_examples(x, 1 - y, [10, 20])


def test_a_reader_of_one_label_says_that_one_and_ties_of_the_majority_count_half() -> None:
    assert fitted(np.zeros((3, 2)), np.ones(3, dtype=int)).predict(np.zeros((1, 2)))[0] == 1
    assert majority(np.array([1, 0, 1, 1]), [1, 2, 3]) == [0.0, 0.5, 1.0]


def test_mismatch_is_one_for_scores_that_differ_in_scale_alone() -> None:
    assert mismatch([1.0, 2.0, 4.0], [3.0, 5.0, 9.0]) == pytest.approx(1.0)
    assert math.isnan(mismatch([1.0, 1.0, 1.0], [1.0, 2.0, 3.0]))


def test_effect_size_is_cohens_d_with_the_published_interval() -> None:
    d, half = effect_size(np.array([2.0, 4.0, 6.0]), np.array([1.0, 3.0, 5.0]))
    assert d == pytest.approx(0.5)
    assert half == pytest.approx(1.96 * math.sqrt(6 / 9 + 0.25 / 12))


def test_control_reads_the_prefilled_sentence_and_turns_around_with_its_label(bench: Bench) -> None:
    drawn = bench.draw("natural", "LR", 0)
    found = given(bench, drawn, 0)
    assert sorted(found["target"].unique()) == [0, 1]
    whole = pd.concat([found.assign(model="m", axis="LR", control="given", context=c) for c in (0, 1)])
    there = control_table(whole, 0)["shift_d"].to_numpy()
    back = control_table(whole.assign(target=1 - whole["target"]), 0)["shift_d"].to_numpy()
    np.testing.assert_allclose(there, -back)


def test_a_model_that_is_shown_what_its_twin_is_shown_is_right_where_that_is(bench: Bench) -> None:
    drawn, places = bench.draw("natural", "LR", 0), [3, 4]
    found = reporting.reports(bench, drawn)
    own = found.loc[found["shown"].isin(places)].groupby("shown")["right"].mean()

    assert AnotherModel(families.tiny("llama"), bench).right(drawn, places) == own.tolist()


def test_another_model_is_a_reader_of_the_text_whatever_its_tokens(bench: Bench) -> None:
    drawn = bench.draw("natural", "LR", 0)
    rows = reporting.readers(bench, drawn, {"gpt2": AnotherModel(families.tiny("gpt2"), bench)})
    other = rows.loc[rows["reader"] == "gpt2"]

    assert len(other) == SETTINGS.tested
    assert set(other["right"]) <= {0.0, 0.5, 1.0}
    table = pd.DataFrame({"words: the same": [0.2], "gpt2: the same": [0.9], "state: the same": [1.0]})
    assert best_text(table) == "gpt2: the same"
    assert best_text(table.assign(**{"gpt2: the same": np.nan})) == "words: the same"


def test_a_written_sentence_is_read_where_it_stands_and_ends_before_the_cue(bench: Bench) -> None:
    drawn, model = bench.draw("natural", "LR", 1), bench.model
    found, again = (written(bench, drawn, 1) for _ in range(2))
    pd.testing.assert_frame_equal(found, again)
    assert set(found["measured_on"]) == {"LR"}

    row = found.iloc[0]
    text = model.tokenizer.encode(row["text"], add_special_tokens=False)
    assert text
    assert "w2" not in row["text"].split()
    asked = model.tokenizer.encode(INSTRUCTION, add_special_tokens=False)
    label = bench.wording.labels[1 - int(row["target"])]  # in odd texts labels are exchanged
    end = model.tokenizer.encode(END, add_special_tokens=False)
    whole = [*bench.write(drawn, True, SETTINGS.shots).tokens, *asked, label, *end, *text]
    state = model.run([whole], read=["L1.resid_post"])["L1.resid_post"][0, -len(text) :].double().mean(0).numpy()
    axis = bench.axis("LR")
    assert row["score"] == pytest.approx(float(axis.scores(state[None])[0] / axis.spread), abs=1e-5)


def controlled(on_axis: float, elsewhere: float, control: str, n: int = 40) -> pd.DataFrame:
    """Scores of sentences that move by so many standard deviations on the axis named, and on another."""
    draws = generator(0, "controlled").standard_normal((2, n))
    rows = [
        {"model": "m", "control": control, "axis": "LR", "measured_on": name, "context": i, "sentence": "s",
         "target": target, "score": draws[target, i] + shift * target}
        for name, shift in (("LR", on_axis), ("PC1", elsewhere)) for i in range(n) for target in (0, 1)
    ]  # fmt: skip
    return control_table(pd.DataFrame(rows), 0)


@pytest.mark.parametrize(
    ("table", "level", "failed"),
    [
        (controlled(3, 0, "given"), "evidence", ""),
        (controlled(3, 0, "written"), "partial", "words"),
        (controlled(3, 5, "given"), "partial", "aim"),
        (controlled(-3, 0, "given"), "no evidence", "effect"),
        (controlled(3, 0, "given", n=1), "invalid", "sentences"),
    ],
)
def test_a_control_verdict_names_what_is_missing(table: pd.DataFrame, level: str, failed: str) -> None:
    (verdict,) = control_verdicts(table).to_dict("records")
    assert (verdict["level"], verdict["failed"]) == (level, failed)


SEEN = pd.DataFrame({"context": np.repeat(range(40), 10), "both_right": 1.0, "says_up": 0.5})
"""Twins of a model that reads its state."""


def _rows(right: float, text: float, oracle: float, trial: str, n: int = 40) -> pd.DataFrame:
    def share(rate: float, name: str) -> np.ndarray:
        return (generator(0, name).random(n * 4) < rate).astype(float)

    return pd.DataFrame(
        {
            "model": "m", "trial": trial, "axis": "LR", "context": np.repeat(range(n), 4), "shown": [1, 2, 3, 4] * n,
            "right": share(right, "right"), "formatted": 1.0, "label_mass": 1.0, "label_loss": 0.5,
            "state: the same": share(oracle, "oracle"),
            **{f"{name}: the same": share(text, name) for name in ("words", "tf-idf", "embedding")},
        }
    )  # fmt: skip


@pytest.mark.parametrize(
    ("right", "text", "oracle", "trial", "level"),
    [
        (0.95, 0.55, 0.97, "natural", "evidence"),
        (0.75, 0.75, 0.97, "natural", "partial"),
        (0.75, 0.75, 0.75, "natural", "inconclusive"),
        (0.40, 0.55, 0.97, "natural", "no evidence"),
        (0.60, 0.60, 0.97, "hidden noise", "no evidence"),
        (0.95, 0.60, 0.97, "hidden noise", "evidence"),
    ],
)
def test_every_verdict_is_reached_by_what_it_stands_for(
    right: float, text: float, oracle: float, trial: str, level: str
) -> None:
    rows = _rows(right, text, oracle, trial, n=120)
    verdict = judge("does", gates_of(rows, SEEN, pd.DataFrame(), 3.0, 0))
    assert verdict.level == level
    assert "introspects" not in verdict.sentence
    broken = gates_of(rows.assign(formatted=0.0), SEEN, pd.DataFrame(), 3.0, 0)
    assert judge("does", broken).level == "invalid"


@pytest.mark.parametrize("trial", ["natural", "hidden noise"])
def test_without_twins_there_is_no_evidence_however_right_a_model_is(trial: str) -> None:
    verdict = judge("does", gates_of(_rows(1.0, 0.5, 1.0, trial), pd.DataFrame(), pd.DataFrame(), 3.0, 0))
    assert (verdict.level, verdict.failed) == ("partial", "G4 twins")


def test_a_coin_and_a_reader_of_the_text_fail_the_gate_of_twins() -> None:
    rows = _rows(0.95, 0.6, 0.97, "hidden noise")
    up = generator(0, "coin").integers(2, size=400).astype(float)
    down = generator(1, "coin").integers(2, size=400).astype(float)
    coin = {"context": np.repeat(range(40), 10), "both_right": up * down, "says_up": (up + 1 - down) / 2}
    text = {"context": np.repeat(range(40), 10), "both_right": 0.0, "says_up": 0.5}
    for pairs, level in ((coin, "partial"), (text, "partial"), (SEEN, "evidence")):
        verdict = judge("does", gates_of(rows, pd.DataFrame(pairs), pd.DataFrame(), 3.0, 0))
        assert verdict.level == level


def test_a_run_gives_the_same_tables_for_the_same_seed_in_any_order(model: Model, prompts: PromptSet) -> None:
    first = complete(Neurofeedback(model, prompts, SETTINGS, 3), progress=False)
    again, other = Neurofeedback(model, prompts, SETTINGS, 3), list[pd.DataFrame]()
    parts: dict[str, list[pd.DataFrame]] = {}
    units = list(again.units())
    measured = {unit.name: again.measure(unit) for unit in reversed(units)}
    for unit in units:
        parts.setdefault(unit.table, []).append(measured[unit.name])
        other.append(measured[unit.name])
    second = again.conclude({name: pd.concat(frames, ignore_index=True) for name, frames in parts.items()})
    for name, table in first.tables.items():
        pd.testing.assert_frame_equal(table, second.tables[name])
    rows = paired({name: pd.concat(frames, ignore_index=True) for name, frames in parts.items()}, SETTINGS.tested)
    assert len(rows) == 2 * SETTINGS.contexts * SETTINGS.tested
    assert first.figures().keys() == {"accuracy", "curves", "control"}


def test_sentences_that_cannot_be_used_are_refused(model: Model, prompts: PromptSet) -> None:
    with pytest.raises(PromptError, match="two classes"):
        Bench(model, PromptSet("one", tuple(replace(p, cluster="x") for p in prompts)), SETTINGS, 0)
    with pytest.raises(PromptError, match="at least"):
        Bench(model, prompts[:8], SETTINGS, 0)


@pytest.mark.parametrize(
    "change",
    [
        {"axes": ("PC0",)},
        {"labels": (" A", " A")},
        {"tested": 32},
        {"noise": 0.0},
        {"control": 1, "twins": 0},
        {"written": 1},
    ],
)
def test_impossible_settings_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        NeurofeedbackSettings(**change)  # pyright: ignore[reportArgumentType]


def test_deeds_are_different_balanced_and_stay_what_they_are() -> None:
    some = deeds(400, 1)
    assert len({one.prompt for one in some}) == 400
    assert sum(one.cluster == "kind" for one in some) == 200
    assert some.content_hash == deeds(400, 1).content_hash != deeds(400, 2).content_hash
    with pytest.raises(PromptError):
        deeds(3)


def test_the_organisms_language_gives_different_sentences() -> None:
    some = sentences(300)
    assert len({one.prompt for one in some}) == 300
    with pytest.raises(PromptError):
        sentences(10_000)
