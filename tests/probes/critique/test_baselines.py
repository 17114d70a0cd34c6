from dataclasses import replace

import numpy as np
import pytest
import torch

from mechint.capture.activations import Activations
from mechint.errors import PromptError
from mechint.probes.critique.baselines import Baseline, compare, surprisal, twin_baselines
from mechint.probes.critique.recording import record_twins
from mechint.prompts.reasoning import Derangement, TokenTwins, arithmetic_problems, inject, twins
from tests.families import tiny
from tests.probes.critique.toy import SITES, WIDTH, recorded, token_twins
from tests.prompts.toy import bytes_like_gpt2

N = 60
TRAIN, TEST = (recorded(N, {SITES[1]: torch.zeros(WIDTH)}, seed=k) for k in (1, 2))
Y = np.repeat([1, 0], N)


def labelled(given: TokenTwins) -> Activations:
    """A recording with the labels and problems of twins, and nothing else."""
    n = len(given)
    empty = recorded(n, {SITES[1]: torch.zeros(WIDTH)})
    return replace(empty, ids=given.ids * 2, groups=given.groups * 2)


def test_the_length_of_twins_is_exactly_at_chance() -> None:
    train, test = token_twins(30, seed=1), token_twins(30, seed=2)
    assert len({len(row) for row in train.true}) > 3

    table = compare(twin_baselines(train, test, tiny("gemma3").tokenizer), labelled(train), labelled(test)).set_index(
        "baseline"
    )
    assert table.loc["length", ["cv_auroc", "auroc", "low", "high", "p"]].tolist() == [0.5, 0.5, 0.5, 0.5, 1.0]
    assert table.index.tolist() == ["length", "literal", "words"]
    assert table["surface"].all()


def test_the_length_of_natural_errors_is_found() -> None:
    rng = np.random.default_rng(0)
    lengths = [6.0 + 3.0 * Y + rng.standard_normal(2 * N) for _ in range(2)]
    table = compare([Baseline("length", *lengths)], TRAIN, TEST, n_resamples=200)

    assert table.loc[0, "low"] > 0.9
    assert table.loc[0, "cv_auroc"] > 0.9


def test_the_direction_is_learnt_and_not_chosen_on_the_test() -> None:
    train, test = 6.0 + 3.0 * Y, 6.0 - 3.0 * Y
    table = compare([Baseline("length", train, test)], TRAIN, TEST, n_resamples=50)

    assert (table.loc[0, "cv_auroc"], table.loc[0, "auroc"]) == (1.0, 0.0)


def test_a_literal_that_is_wrong_by_habit_is_read_from_its_tokens_alone() -> None:
    """Wrong results that always end in one of a few tokens, as those of a writer with a habit."""

    def habit(seed: int) -> TokenTwins:
        one = token_twins(40, seed=seed, vocabulary=30)
        rng = np.random.default_rng(seed)
        wrong = tuple(
            (*row[:at], int(rng.integers(40, 43)), *row[at + 1 :])
            for row, at in zip(one.wrong, one.result, strict=True)
        )
        return replace(one, wrong=wrong)

    train, test = habit(1), habit(2)
    table = compare(
        twin_baselines(train, test, tiny("gemma3").tokenizer), labelled(train), labelled(test), n_resamples=200
    ).set_index("baseline")

    assert table.loc["literal", "auroc"] == 1.0
    assert table.loc["words", "low"] > 0.6


def test_where_wrong_literals_are_those_of_others_their_tokens_tell_nothing() -> None:
    tokenizer = bytes_like_gpt2()
    train, test = (twins(inject(arithmetic_problems(80, seed=k), Derangement()), tokenizer).tokens for k in (1, 2))
    test = replace(test, ids=tuple(f"t{i}" for i in test.ids), groups=tuple(f"t{g}" for g in test.groups))
    table = compare(twin_baselines(train, test, tokenizer), labelled(train), labelled(test), n_resamples=300)

    for _, row in table.iterrows():
        assert row["low"] <= 0.5 <= row["high"]


def test_in_folds_of_whole_derangements_literals_are_exactly_at_chance_and_in_other_folds_below() -> None:
    problems = arithmetic_problems(120)
    blocks = [inject(problems[start : start + 20], Derangement(), seed=start) for start in range(0, 120, 20)]
    pairs = [pair for block in blocks for pair in block]
    block_of = {pair.group: str(k) for k, block in enumerate(blocks) for pair in block}
    literals = [pair.wrong for pair in pairs] + [pair.true for pair in pairs]
    train = recorded(len(pairs), {SITES[1]: torch.zeros(WIDTH)})
    train = replace(train, groups=tuple(pair.group for pair in pairs) * 2)
    test = replace(TEST, groups=tuple(f"test-{group}" for group in TEST.groups))
    one = [Baseline("literal", literals, [literals[0]] * len(test))]
    whole, cut = (compare(one, train, test, blocks=b, n_resamples=10)["cv_auroc"].iloc[0] for b in (block_of, None))

    assert whole == pytest.approx(0.5, abs=1e-12)
    assert cut < 0.45


@pytest.mark.parametrize("family", ["gemma2", "gpt2"])
def test_surprisal_is_the_log_probability_of_the_result_where_it_differs(family: str) -> None:
    model, given = tiny(family), token_twins(5)
    found = surprisal(model, given)

    for i, row in enumerate((*given.wrong, *given.true)):
        end = given.result[i % 5]
        log_p = model.all_logits([row])[0].double().log_softmax(-1)
        expected = -sum(float(log_p[at - 1, row[at]]) for at in (end - 1, end))  # results of two tokens, both differ
        assert found[i] == pytest.approx(expected, abs=1e-4)


def test_a_token_that_twins_share_adds_nothing() -> None:
    model, given = tiny("llama"), token_twins(1)
    at = given.result[0]
    shared = replace(given, wrong=((*given.wrong[0][: at - 1], given.true[0][at - 1], *given.wrong[0][at:]),))
    log_p = model.all_logits([shared.wrong[0]])[0].double().log_softmax(-1)

    assert surprisal(model, shared)[0] == pytest.approx(-float(log_p[at - 1, shared.wrong[0][at]]), abs=1e-4)


def test_rows_are_in_the_order_of_the_recording() -> None:
    given = token_twins(6)
    kept = record_twins(tiny("llama"), given, "embed")
    words = twin_baselines(given, given, tiny("llama").tokenizer)[2]

    assert words.train == list(kept.texts)


def test_one_row_of_a_baseline_is_wanted_for_each_recorded_one_and_problems_are_kept_apart() -> None:
    with pytest.raises(PromptError, match="3 rows of the baseline 'x' and 120"):
        compare([Baseline("x", np.zeros(3), np.zeros(2 * N))], TRAIN, TEST)
    with pytest.raises(PromptError, match="groups are in both"):
        compare([], TRAIN, TRAIN)
