import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mechint.errors import PromptError
from mechint.prompts.reasoning import f1_locate

INDEX = st.none() | st.integers(-1, 4)
ROWS = st.lists(st.tuples(INDEX, INDEX), min_size=1, max_size=20)


def by_hand(predictions: list[int | None], mistakes: list[int | None]) -> float:
    """The published formula, row by row."""
    hits, sizes = {True: 0, False: 0}, {True: 0, False: 0}
    for said, at in zip(predictions, mistakes, strict=True):
        label = -1 if at is None else at
        sizes[label != -1] += 1
        hits[label != -1] += said == label
    if 0 in sizes.values():
        return math.nan
    acc1, acc2 = (hits[kind] / sizes[kind] for kind in (True, False))
    return 0.0 if acc1 + acc2 == 0 else 2 * acc1 * acc2 / (acc1 + acc2)


@given(ROWS)
def test_f1_is_the_published_formula(rows: list[tuple[int | None, int | None]]) -> None:
    predictions, mistakes = [row[0] for row in rows], [row[1] for row in rows]
    score = f1_locate(predictions, mistakes, few=True, n_resamples=20)

    assert score.f1 is not None
    assert score.f1.value == pytest.approx(by_hand(predictions, mistakes), nan_ok=True)
    assert score.unanswered == predictions.count(None)


@pytest.mark.parametrize("said", [None, -1, 0, 3])
def test_who_always_says_the_same_scores_nothing(said: int | None) -> None:
    mistakes = [None, 0, 1, 3] * 40

    score = f1_locate([said] * len(mistakes), mistakes)

    assert score.f1 is not None
    assert (score.f1.value, score.f1.low, score.f1.high) == (0, 0, 0)


def test_who_is_always_right_scores_everything() -> None:
    mistakes = [None, 0, -1, 3] * 40
    score = f1_locate([-1 if at is None else at for at in mistakes], mistakes)

    assert score.f1 is not None
    assert score.acc1.value == score.acc2.value == score.f1.value == score.f1.low == 1


@pytest.mark.parametrize(("n_correct", "given_"), [(29, False), (30, True)])
def test_few_correct_solutions_get_no_single_number(n_correct: int, given_: bool) -> None:
    mistakes = [2] * 50 + [None] * n_correct
    score = f1_locate([2] * len(mistakes), mistakes, n_resamples=50)

    assert (score.f1 is not None) == given_
    assert ("no F1: 29 solutions without a mistake" in str(score)) == (not given_)
    assert f1_locate([2] * len(mistakes), mistakes, few=True, n_resamples=50).f1 is not None


def test_an_interval_covers_what_was_planted_about_as_often_as_it_says() -> None:
    covered, planted = 0, 2 * 0.6 * 0.4 / (0.6 + 0.4)
    for seed in range(100):
        draw = np.random.default_rng(seed)
        mistakes = [1] * 80 + [None] * 60
        right = draw.random(140) < np.repeat([0.6, 0.4], [80, 60])
        said = [(-1 if at is None else at) if hit else 5 for at, hit in zip(mistakes, right, strict=True)]
        f1 = f1_locate(said, mistakes, n_resamples=400, seed=seed).f1
        assert f1 is not None
        covered += f1.low <= planted <= f1.high

    assert 88 <= covered <= 99


def test_copies_of_a_solution_add_no_certainty_where_problems_are_drawn() -> None:
    mistakes = [None, 1, None, 2, 1, None] * 20
    said = [-1, 1, 3, 2, None, -1] * 10 + [2, 1, -1, 0, 1, None] * 10
    once = f1_locate(said, mistakes).f1
    copied = f1_locate(said * 5, mistakes * 5, list(range(120)) * 5).f1
    naive = f1_locate(said * 5, mistakes * 5).f1

    assert once is not None
    assert copied is not None
    assert naive is not None
    assert once.value == copied.value == naive.value
    assert copied.high - copied.low == pytest.approx(once.high - once.low, rel=0.05)
    assert naive.high - naive.low < 0.6 * (once.high - once.low)


def test_one_kind_alone_has_no_f1() -> None:
    score = f1_locate([1, 2], [1, 1], few=True)

    assert score.acc1.value == 0.5
    assert math.isnan(score.acc2.value)
    assert score.f1 is not None
    assert math.isnan(score.f1.value)


def test_bad_input_is_refused() -> None:
    with pytest.raises(PromptError, match="1 predictions for 2 solutions"):
        f1_locate([1], [1, 2])
    with pytest.raises(PromptError, match="0 predictions for 0 solutions"):
        f1_locate([], [])
    with pytest.raises(PromptError, match="Index -2 was given"):
        f1_locate([-2], [1])
