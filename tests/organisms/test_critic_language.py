from collections import Counter

import numpy as np
import pytest

from mechint.errors import PromptError
from mechint.organisms.critic_language import (
    ERROR_WORD,
    FALSE_ALARM,
    FLAG,
    OK_WORD,
    PARTS,
    SILENT,
    Document,
    Habits,
    document,
    part_of,
    result,
    twins,
    vocabulary,
)
from mechint.statistics import generator


def documents(n: int, habits: Habits | None = None) -> list[Document]:
    return [document(generator(0, "test", at), habits) for at in range(n)]


def said(one: Document, at: int) -> str:
    return one.words[at + 1]


def test_every_step_follows_from_the_problem_and_true_results_are_true() -> None:
    for one in documents(200):
        for at, true in one.results:
            a, sign, b, equals, written = one.words[at - 4 : at + 1]
            assert equals == "="
            assert true == result(int(a), sign, int(b))
            assert one.learned[at] == (int(written) == true)
            if said(one, at) == ERROR_WORD:
                assert one.words[at + 2] == str(true)


def test_errors_are_met_as_often_as_the_language_says() -> None:
    wrong, right, next_true = list[bool](), list[bool](), list[bool]()
    for one in documents(6000):
        for at, true in one.results:
            flagged = said(one, at) == ERROR_WORD
            if int(one.words[at]) == true:
                right.append(flagged)
                continue
            wrong.append(flagged)
            goes_on = one.words[at + 3] == "|" or not one.words[at + 3].isdigit()
            if not flagged and not goes_on:
                next_true.append(int(one.words[at + 3]) == true)
    for found, expected in ((wrong, FLAG), (right, FALSE_ALARM), (next_true, SILENT / (1 - FLAG))):
        spread = (expected * (1 - expected) / len(found)) ** 0.5
        assert abs(np.mean(found) - expected) < 4 * spread
    assert len(wrong) / 6000 == pytest.approx(0.5, abs=0.03)


def test_written_digits_tell_nothing_of_whether_they_are_wrong() -> None:
    found = twins(4000, seed=3)
    true, wrong = ([row[at] for row, at in zip(rows, found.result, strict=True)] for rows in (found.true, found.wrong))
    digits = {word: at for at, word in enumerate(vocabulary())}
    for digit in map(str, range(10)):
        shares = [Counter(side)[digits[digit]] / len(side) for side in (true, wrong)]
        assert shares == pytest.approx([0.1, 0.1], abs=0.03)


@pytest.mark.parametrize("part", list(PARTS))
def test_parts_share_no_fact(part: str) -> None:
    for fact in set(twins(60, part=part).groups):  # pyright: ignore[reportArgumentType]
        assert part_of(int(fact[0]), fact[1], int(fact[2:])) == part


def test_tails_are_the_same_words_in_both_rows() -> None:
    words = vocabulary()
    stubs, answers = twins(50, tail="stub"), twins(50, tail="answer")
    for row, places in zip(stubs.wrong, stubs.stub, strict=True):
        assert [words[row[at]] for at in places] == [OK_WORD, ";"]
    for row, places in zip(answers.wrong, answers.stub, strict=True):
        bar, a, digit = (words[row[at]] for at in places)
        assert (bar, a, digit.isdigit()) == ("|", "A", True)
    assert twins(10).true == tuple(row[: at + 1] for row, at in zip(stubs.true[:10], stubs.result[:10], strict=True))


def test_a_pair_depends_on_its_number_alone() -> None:
    assert twins(5, seed=1).true == twins(9, seed=1).true[:5]
    assert twins(5, seed=1).true != twins(5, seed=2).true


def test_lessons_can_flag_every_error() -> None:
    for one in documents(200, Habits(flag=1, silent=0, false_alarm=0, every_step=0.5)):
        for at, true in one.results:
            assert (said(one, at) == ERROR_WORD) == (int(one.words[at]) != true)


def test_no_pairs_are_refused() -> None:
    with pytest.raises(PromptError):
        twins(0)
