"""What is said of models whose knowledge is known; the readings themselves; and the words in which they are asked."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import mechint as mi
from mechint.errors import ConfigError, PromptError, TokenError
from mechint.experiment.columns import meaning
from mechint.experiment.config import read_config
from mechint.experiment.guides import GENERAL, guide
from mechint.experiment.leading import LEADING
from mechint.plots.captions import CAPTIONS
from mechint.plots.figures import FIGURES
from mechint.probes.self_knowledge.consistency import agreeing, thresholds, weighted_vote
from mechint.probes.self_knowledge.criteria import CLAIM, STRONGER
from mechint.probes.self_knowledge.experiment import ConfidenceExperiment
from mechint.probes.self_knowledge.fitted import folds_of, hidden_state
from mechint.probes.self_knowledge.reading import lens, read_last
from mechint.probes.self_knowledge.settings import ConfidenceSettings
from mechint.probes.self_knowledge.wording import Wording, divide, graded, label_ids
from mechint.prompts import Prompt, PromptSet
from mechint.prompts.two_choice import KINDS, two_choice
from mechint.results import Findings, complete
from tests.families import FAMILIES, random_rows, tiny, tokenizer
from tests.probes.self_knowledge import knowing
from tests.probes.self_knowledge.knowing import SETTINGS, questions

HALF = [0.4, 0.6]


def found_of(says: knowing.Says, knows: Callable[[int, int], bool] = knowing.known, mass: float = 0.99) -> Findings:
    return complete(ConfidenceExperiment(knowing.model(says, knows, mass), questions(), SETTINGS, 3), progress=False)


def verdicts(found: Findings, claim: str = CLAIM) -> dict[str, str]:
    rows = found.to_frame("verdicts")
    return rows.loc[rows["claim"] == claim].set_index("readout")["verdict"].to_dict()


@pytest.fixture(scope="module")
def honest() -> Findings:
    return found_of(knowing.honest)


class TestKnownModels:
    def test_who_says_what_he_knows_is_believed(self, honest: Findings) -> None:
        table = honest.to_frame().set_index("readout")

        assert verdicts(honest) == {"is_right": "evidence", "how_sure": "evidence"}
        # Known are half, and always right; half of the others are right too: P(known | right) = 2/3, ties are noise.
        assert table.loc["is_right", "auroc_right"] == pytest.approx(2 / 3 + 1 / 6, abs=0.06)
        assert table.loc[["input_only", "probe"], "auroc_right"].to_numpy() == pytest.approx(0.5, abs=0.1)

    def test_blocks_of_noise_add_nothing_to_what_is_said(self, honest: Findings) -> None:
        # It is a function of the probability of the answer, of which nothing is left.
        assert set(verdicts(honest, STRONGER).values()) == {"no evidence"}
        assert honest.to_frame("layers")["agreement_right"].mean() == pytest.approx(0.5, abs=0.06)

    def test_who_boasts_ranks_as_well_and_is_not_calibrated(self, honest: Findings) -> None:
        tables = [
            found.to_frame().set_index("readout").loc["is_right"] for found in (honest, found_of(knowing.boastful))
        ]

        assert tables[1]["auroc_right"] == pytest.approx(tables[0]["auroc_right"], abs=1e-9)
        assert tables[1]["ece"] > tables[1]["ece_calibrated"] + 0.1
        assert tables[1]["mean_confidence"] - tables[0]["mean_confidence"] > 0.2
        assert tables[0]["skill"] > 0 > tables[1]["skill"]

    def test_who_says_anything_is_not_believed(self) -> None:
        found = found_of(knowing.blind)

        assert not {"evidence", "partial"} & set(verdicts(found).values())
        assert found.to_frame().set_index("readout").loc["token", "auroc_right"] > 0.75  # it knows, and does not say

    def test_what_the_question_tells_is_no_knowledge_of_oneself(self) -> None:
        found = found_of(knowing.of_the_question, knowing.known_by_word)
        table = found.to_frame().set_index("readout")

        assert table.loc["is_right", "auroc_right"] > 0.75  # as good as the honest one, for another reason
        assert table.loc["input_only", "auroc_right"] > 0.7
        assert "evidence" not in verdicts(found).values()

    def test_who_does_not_use_the_words_is_not_judged(self) -> None:
        assert set(verdicts(found_of(knowing.honest, mass=0.3)).values()) == {"invalid"}


class TestFindings:
    def test_every_column_is_explained_and_every_figure_drawn(self, honest: Findings) -> None:
        names = {str(name) for frame in honest.tables.values() for name in frame}
        bare = {name for name in names if name.removesuffix("_low").removesuffix("_high") not in names - {name}}

        assert {name for name in bare if meaning(name, "confidence") is None} == set()
        assert list(honest.figures()) == list(FIGURES["confidence"]) == list(CAPTIONS["confidence"])
        assert set(LEADING["confidence"]) <= set(honest.to_frame())
        assert guide("confidence") != GENERAL

    def test_murphys_parts_stand_in_the_table(self, honest: Findings) -> None:
        table = honest.to_frame()

        parts = table["reliability"] - table["resolution"] + table["uncertainty"] + table["within"]
        assert table["brier"].to_numpy() == pytest.approx(parts.to_numpy())

    def test_facts_for_calibration_are_not_reported_on(self, honest: Findings) -> None:
        parts = divide(questions(), SETTINGS.shots, SETTINGS.calibrate, 3)
        facts = [{p.cluster for p in part} for part in (parts.shown["pairs"], parts.calibrate, parts.test)]

        assert sum(map(len, facts)) == len(set.union(*facts)) == 225
        assert set(honest.to_frame("answers")["cluster"]) == facts[2]

    def test_a_second_run_gives_the_same(self, honest: Findings) -> None:
        again = mi.confidence(knowing.model(knowing.honest), questions(), seed=3, progress=False, **vars(SETTINGS))

        for name, frame in honest.tables.items():
            pd.testing.assert_frame_equal(frame, again.tables[name])

    def test_another_model_that_knows_the_same_is_a_baseline(self) -> None:
        experiment = ConfidenceExperiment(
            knowing.model(knowing.honest), questions(), SETTINGS, 3, other=knowing.model(knowing.blind)
        )
        found = complete(experiment, progress=False)
        table = found.to_frame().set_index("readout")

        # The other one knows the same facts: what is said is true, and no privilege.
        assert table.loc["cross", "auroc_right"] == pytest.approx(table.loc["token", "auroc_right"])
        assert "evidence" not in verdicts(found).values()

    def test_a_random_model_is_not_believed(self) -> None:
        found = complete(ConfidenceExperiment(tiny("gemma3"), questions(120), SETTINGS, 0), progress=False)

        assert set(verdicts(found).values()) == {"invalid"}


class TestReading:
    @pytest.mark.parametrize("family", FAMILIES)
    def test_sharing_beginnings_changes_nothing(self, family: str) -> None:
        rows = [[0, 5, 6, 7, *row[1:]] for n in (3, 5) for row in random_rows(2, n)]
        labels = [[4, 9], [10, 11], [5, 6], [7, 8]]
        read = read_last(tiny(family), rows, labels, streams=True)

        for i, row in enumerate(rows):
            expected = tiny(family).all_logits([row])[0, -1].double().log_softmax(-1)[labels[i]].numpy()
            assert read.log_p[i] == pytest.approx(expected, abs=1e-4)

    @pytest.mark.parametrize("family", ["gpt2", "llama", "gemma3"])
    def test_at_the_last_block_the_lens_is_the_model(self, family: str) -> None:
        rows, labels = random_rows(5, 6), [[4, 9, 11]] * 5
        read = read_last(tiny(family), rows, labels, streams=True)

        assert lens(tiny(family), read.streams, labels)[:, -1] == pytest.approx(read.among, abs=1e-5)
        assert np.exp(read.log_p).sum(1) == pytest.approx(read.mass)

    def test_the_probe_finds_the_block_where_it_is_written_and_nothing_in_noise(self) -> None:
        rng = np.random.default_rng(0)
        y, groups = rng.integers(0, 2, 120), [str(i // 2) for i in range(120)]
        x = rng.normal(size=(120, 3, 8))
        x[:, 1, 0] += 4 * y
        folds = folds_of(y, groups, 4, 0)
        p, layers = hidden_state(x, y, groups, folds, inner_folds=3, seed=0)

        assert set(layers) == {1}
        assert ((p > 0.5) == y).mean() > 0.9
        for fitted, asked in folds:
            assert not {groups[i] for i in fitted} & {groups[i] for i in asked}
        noise, _ = hidden_state(x[:, :1], y, groups, folds, inner_folds=3, seed=0)
        assert ((noise > 0.5) == y).mean() < 0.65


class TestConsistency:
    def test_thresholds_take_out_what_a_block_prefers(self) -> None:
        rng = np.random.default_rng(0)
        right = np.tile([0, 1], 100)
        truth = 0.1 * (1 - 2 * right)
        # The block says the first label far too often, and knows nevertheless.
        first = np.clip(0.8 + truth + 0.02 * rng.normal(size=200), 0, 1)
        p = np.stack([first, 1 - first], axis=1)[:, None].repeat(2, axis=1)

        assert agreeing(p, right).mean() == pytest.approx(0.5, abs=0.02)
        assert agreeing(p, right, thresholds(p, right)).mean() == 1.0

    def test_the_threshold_is_the_quantile_of_a_balanced_set(self) -> None:
        p = np.random.default_rng(0).dirichlet(np.ones(4), size=(40, 1))
        right = np.array([0] * 25 + [1] * 5 + [2] * 5 + [3] * 5)
        kept = [*range(5), *range(25, 40)]

        assert thresholds(p, right)[0] == pytest.approx(np.quantile(p[kept, 0], 0.75, axis=0))
        with pytest.raises(PromptError, match="each at least once"):
            thresholds(p, np.minimum(right, 2))

    def test_the_last_block_does_not_vote(self) -> None:
        p = np.array([[HALF, HALF, HALF[::-1]]])

        assert agreeing(p, np.array([0])).tolist() == [[0.0, 0.0]]
        assert agreeing(np.full((1, 2, 2), 0.5), np.array([1])).tolist() == [[0.5]]

    def test_weights_can_outvote_a_majority_and_nothing_leaves_the_tie(self) -> None:
        assert weighted_vote(np.array([0, 0, 1]), np.array([1.0, 1.0, 1.0]), 1) == 0
        assert weighted_vote(np.array([0, 0, 1]), np.array([0.2, 0.2, 0.5]), 0) == 1
        assert weighted_vote(np.array([0, 1]), np.array([0.3, 0.3]), 1) == 1
        assert weighted_vote(np.array([0, 0]), np.zeros(2), 1) == 1


class TestWording:
    def test_confidence_is_the_mean_of_the_labels(self) -> None:
        assert graded(np.log(np.array([[1.0, 1e-12, 1e-12], [0.1, 0.1, 0.1]]))) == pytest.approx([0.0, 0.5], abs=1e-9)
        assert graded(np.log([[0.02, 0.01, 0.05]])) == pytest.approx(graded(np.log([[0.2, 0.1, 0.5]])))

    def test_half_of_the_answers_shown_are_right_and_are_called_so(self) -> None:
        shown = [Prompt(str(i), f"q{i}\nA:", f" right{i}", f" wrong{i}") for i in range(4)]
        wording = Wording(shown, ConfidenceSettings(shots=4))
        text = wording.is_right(Prompt("x", "ask\nA:", " yes", " no"), " no")

        assert text.split("\n\n")[0] == "q0\nA: right0\nThis answer is right"
        assert text.split("\n\n")[1] == "q1\nA: wrong1\nThis answer is wrong"
        assert text.endswith("ask\nA: no\nThis answer is")
        sure = wording.how_sure(Prompt("x", "ask\nA:", " yes", " no"), " no").split("\n\n")
        assert [part.rsplit(" ", 1)[1] for part in sure[:-1]] == ["highest", "lowest", "high", "low"]

    def test_a_chain_stands_before_the_answer_in_everything_that_is_asked(self) -> None:
        wording, asked = Wording([], ConfidenceSettings()), Prompt("x", "ask\nA:", " yes", " no")

        assert wording.question(asked, " hm") == "ask\nLet me think: hm\nA:"
        assert wording.is_right(asked, " no", " hm") == "ask\nLet me think: hm\nA: no\nThis answer is"
        assert wording.think(asked) == ("ask\nLet me think:", "\nA:")

    def test_a_label_that_is_no_token_in_its_place_is_refused(self) -> None:
        assert label_ids("w5", (" w6", " w7"), tokenizer()) == ((0, 5), (6, 7))
        with pytest.raises(TokenError, match="not one token behind"):
            label_ids("w5", (" w6 w7",), tokenizer())
        with pytest.raises(TokenError, match="not one token behind"):
            label_ids("w5", ("6",), tokenizer())  # the text becomes another word
        with pytest.raises(TokenError, match="not different known tokens"):
            label_ids("w5", (" w6", " strange"), tokenizer())
        with pytest.raises(TokenError, match="not different known tokens"):
            label_ids("w5", (" w6", " w6"), tokenizer())

    @pytest.mark.real
    def test_gemmas_blank_before_a_digit_is_refused_as_a_label(self, gemma_tokenizer: Any) -> None:
        with pytest.raises(TokenError, match="put it at the end of the text"):
            label_ids("Q: What is 3 + 4?\nA:", (" 7", " 8"), gemma_tokenizer)
        row, ids = label_ids("Q: What is 3 + 4?\nA: ", ("7", "8"), gemma_tokenizer)
        assert gemma_tokenizer.decode([row[-1], ids[0]]).strip() == "7"
        for p in two_choice(200):
            label_ids(p.prompt, (str(p.target), str(p.distractor)), gemma_tokenizer)


@pytest.fixture(scope="session")
def gemma_tokenizer() -> Any:
    from mechint.organisms import load

    return load("gemma3-270m").tokenizer


class TestQuestions:
    def test_answers_are_right_and_wrong(self) -> None:
        for make in KINDS.values():
            for _, _, right, wrong in make():
                assert right not in wrong
        for p in two_choice(300, 1):
            if (p.cluster or "").startswith("division"):
                a, b = str(p.cluster).split("/", 1)[1].split("/")
                assert int(a) == int(b) * int(str(p.target)) != int(b) * int(str(p.distractor))
            if (p.cluster or "").startswith("second letter"):
                assert str(p.target).strip().lower() == str(p.cluster).split("/")[1][1]

    def test_kinds_are_equally_many_and_no_question_comes_twice(self) -> None:
        found = two_choice(205, 4)

        assert len({(p.prompt, p.distractor) for p in found}) == len(found) == 205
        counts = pd.Series([str(p.cluster).split("/")[0] for p in found]).value_counts()
        assert set(counts) == {20, 21}
        assert two_choice(205, 4) == found != two_choice(205, 5)
        with pytest.raises(PromptError, match="ask for 860 or less"):
            two_choice(10_000)


class TestSettings:
    @pytest.mark.parametrize(
        "given",
        [
            {"shots": 3},
            {"calibrate": 1.0},
            {"resamples": 10},
            {"confidence_labels": (" a", " b")},
            {"truth_labels": (" a", " a")},
            {"folds": 1},
        ],
    )
    def test_what_makes_no_sense_is_refused(self, given: dict[str, Any]) -> None:
        with pytest.raises(ConfigError, match=next(iter(given))):
            ConfidenceSettings(**given)

    def test_questions_without_two_answers_or_too_few_facts_are_refused(self) -> None:
        with pytest.raises(PromptError, match="no two answers"):
            divide(PromptSet("one", (Prompt("a", "Q\nA:", " b"),)), 2, 0.2, 0)
        with pytest.raises(PromptError, match="5 facts"):
            divide(questions(5), 2, 0.2, 0)
        with pytest.raises(ConfigError, match="has blocks 0 to"):
            ConfidenceExperiment(tiny("gemma3"), questions(), ConfidenceSettings(**{**vars(SETTINGS), "layers": (9,)}))

    def test_the_experiment_files_can_be_read(self) -> None:
        files = sorted(Path("experiments").glob("confidence_*.toml"))

        assert len(files) >= 3
        for file in files:
            assert read_config(file).analysis == "confidence"


def test_thinking_is_written_by_the_model_and_counted() -> None:
    torch.manual_seed(0)
    some = ConfidenceSettings(**{**vars(SETTINGS), "chain_tokens": 3, "chain_cue": "w30", "resamples": 200})
    experiment = ConfidenceExperiment(tiny("llama"), questions(30), some, 0)
    rows = experiment.measure(experiment.units()[0])

    assert (rows["chain_tokens"] > 0).all()
    assert (rows["chain_tokens"] <= 3).all()
