from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mechint.errors import PromptError
from mechint.prompts.reasoning import (
    Derangement,
    DigitSwap,
    MinimalPair,
    OffBy,
    OperandSwap,
    Pairs,
    Problem,
    Rule,
    arithmetic_errors,
    arithmetic_problems,
    derange,
    inject,
)
from mechint.prompts.reasoning.expressions import number, shape, value

PROBLEMS = arithmetic_problems(120)
RULES: list[Rule] = [OffBy(), DigitSwap(), OperandSwap(), Derangement()]
EVERY_RULE = pytest.mark.parametrize("rule", RULES, ids=lambda rule: type(rule).__name__)


def results(*stated: int) -> list[Problem]:
    """Problems of one step each, with these results."""
    return [Problem(f"p{i}", "How many?", (f"It is {at + 1} - 1 = {at}",), "") for i, at in enumerate(stated)]


def of_results(*stated: int) -> Pairs:
    pairs = [
        MinimalPair(f"p{i}", f"p{i}", "How many?", "So ", f"{at}0", f"{at}", ".", f"{at + 5} - 5", "-")
        for i, at in enumerate(stated)
    ]
    return Pairs("given", tuple(pairs))


@EVERY_RULE
def test_the_true_literal_is_true_the_wrong_one_never_and_all_else_is_the_same(rule: Rule) -> None:
    made = inject(PROBLEMS, rule)

    assert len(made) > 80
    for pair in made:
        assert value(pair.expression) == number(pair.true) != number(pair.wrong)
        assert shape(pair.true) == shape(pair.wrong)
        for wrong in (False, True):
            text, (start, end) = pair.text(wrong=wrong), pair.span(wrong=wrong)
            assert text[start:end] == (pair.wrong if wrong else pair.true)
            assert text[:start] == pair.head + pair.prefix
            assert text[end:] == pair.tail


@EVERY_RULE
def test_a_pair_is_its_problem_up_to_the_step(rule: Rule) -> None:
    by_id = {problem.id: problem for problem in PROBLEMS}
    for pair in inject(PROBLEMS, rule):
        problem = by_id[pair.id]
        assert pair.group == problem.id
        assert pair.text(wrong=False) == f"Question: {problem.question}\nAnswer: " + "\n\n".join(
            problem.steps[: pair.step + 1]
        )


@EVERY_RULE
def test_every_problem_is_a_pair_or_left_out_with_a_reason(rule: Rule) -> None:
    made = inject([*PROBLEMS, Problem("odd", "How many?", ("Nobody knows.",), "")], rule)

    assert {pair.id for pair in made} | set(made.left_out) == {*(p.id for p in PROBLEMS), "odd"}
    assert made.left_out["odd"] == "no step with one true integer result that is written once"
    assert sum(made.reasons.values()) == len(made.left_out)


@EVERY_RULE
def test_the_same_seed_gives_the_same_pairs_and_another_one_others(rule: Rule) -> None:
    assert inject(PROBLEMS, rule, seed=3) == inject(PROBLEMS, rule, seed=3)
    assert inject(PROBLEMS, rule, seed=3) != inject(PROBLEMS, rule, seed=4)


@pytest.mark.parametrize("rule", RULES[:3], ids=lambda rule: type(rule).__name__)
def test_more_problems_do_not_change_the_pairs_before_them(rule: Rule) -> None:
    few = inject(PROBLEMS[:30], rule).pairs

    assert inject(PROBLEMS, rule).pairs[: len(few)] == few


@given(st.integers(0, 30), st.integers(2, 60))
def test_off_by_is_as_often_above_as_below_and_of_no_other_size(seed: int, n: int) -> None:
    made = inject(PROBLEMS[:n], OffBy((1, 2, 10)), seed=seed)
    signs = Counter(pair.delta > 0 for pair in made)

    assert abs(signs[True] - signs[False]) <= 1
    assert {abs(pair.delta) for pair in made} <= {1, 2, 10}


def test_a_result_that_only_one_sign_can_move_is_left_out() -> None:
    made = inject(results(9, 10, 99, 5, 50), OffBy((1,)))

    assert [pair.true for pair in made] == ["5", "50"]


def test_a_digit_swap_exchanges_neighbours() -> None:
    for pair in inject(PROBLEMS, DigitSwap()):
        assert sorted(pair.wrong) == sorted(pair.true)
        differing = [at for at, (a, b) in enumerate(zip(pair.wrong, pair.true, strict=True)) if a != b]
        assert differing == [differing[0], differing[0] + 1]
        assert pair.wrong[0] != "0"


def test_an_operand_swap_takes_its_operand_from_the_problem() -> None:
    for pair in inject(PROBLEMS, OperandSwap()):
        numbers = [word.strip(".") for word in (pair.question + " " + pair.prefix).split()]
        operands = pair.expression.split()
        swapped = [
            value(" ".join([*operands[:at], other, *operands[at + 1 :]]))
            for at in (0, 2)
            for other in numbers
            if other.isdigit()
        ]
        assert number(pair.wrong) in swapped


def test_the_step_can_be_chosen_from_either_end() -> None:
    assert {pair.step for pair in inject(PROBLEMS, step=0)} == {0}
    last = inject(PROBLEMS, step=-1)
    assert {pair.id: pair.step for pair in last} == {
        p.id: len(p.steps) - 1 for p in PROBLEMS if p.id not in last.left_out
    }
    assert len(inject(PROBLEMS, step=7)) == 0


def test_a_step_that_is_false_or_says_its_result_twice_is_not_used() -> None:
    steps = ("2 + 2 = 5, or 4 cups", "3 + 4 = 7, so 7", "1 / 2 = 0.5", "It is 20 + 3 = 23 cups.")
    (pair,) = inject([Problem("p", "How many?", steps, "23")])

    assert (pair.step, pair.true, pair.tail) == (3, "23", " cups.")


@given(st.lists(st.integers(1, 400), min_size=1, max_size=40), st.integers(0, 9))
def test_a_derangement_permutes_the_literals_of_each_shape_and_leaves_none_in_place(
    stated: list[int], seed: int
) -> None:
    given_pairs = of_results(*stated)
    made = derange(given_pairs, seed=seed)

    assert Counter(pair.wrong for pair in made) == Counter(pair.true for pair in made)
    assert all(pair.wrong != pair.true and len(pair.wrong) == len(pair.true) for pair in made)
    assert {pair.id for pair in made} | set(made.left_out) == {pair.id for pair in given_pairs}
    assert sum(pair.delta for pair in made) == 0


@given(st.lists(st.integers(10, 15), min_size=1, max_size=30))
def test_no_more_pairs_are_left_out_of_a_derangement_than_must_be(stated: list[int]) -> None:
    most = Counter(stated).most_common(1)[0][1]

    assert len(derange(of_results(*stated)).left_out) == max(0, 2 * most - len(stated))


def test_nothing_about_a_deranged_literal_tells_whether_it_is_wrong() -> None:
    made = inject(PROBLEMS, Derangement())
    off = inject(PROBLEMS, OffBy((1,)))

    assert sorted(pair.true for pair in made) == sorted(pair.wrong for pair in made)
    assert sorted(pair.true for pair in off) != sorted(pair.wrong for pair in off)


def test_a_literal_may_only_come_from_another_problem() -> None:
    one, two = of_results(10, 20)
    twice = Pairs("x", (one, MinimalPair(**{**vars(two), "group": one.group})))

    with pytest.raises(PromptError, match="2 pairs of 1 problems"):
        derange(twice)


def test_bad_rules_and_problems_are_refused() -> None:
    with pytest.raises(PromptError, match="all positive"):
        OffBy((0,))
    with pytest.raises(PromptError, match="at least one"):
        OffBy(())
    with pytest.raises(PromptError, match="Ids occur twice in 'off by'"):
        inject([PROBLEMS[0], PROBLEMS[0]])


def test_a_pair_that_is_not_what_it_says_is_refused() -> None:
    with pytest.raises(PromptError, match=r"'3 \* 4' does not come to '13'"):
        MinimalPair("p", "p", "?", "", "12", "13", "", "3 * 4", "*")
    with pytest.raises(PromptError, match=r"'12.0' is not wrong for '3 \* 4'"):
        MinimalPair("p", "p", "?", "", "12.0", "12", "", "3 * 4", "*")


@given(st.integers(0, 20))
def test_a_split_cuts_no_group(seed: int) -> None:
    pairs = inject(PROBLEMS)
    doubled = Pairs("x", (*pairs, *(MinimalPair(**{**vars(p), "id": f"{p.id}b"}) for p in pairs)))
    parts = doubled.split(train=0.6, test=0.4, seed=seed)

    assert not set(parts["train"].groups) & set(parts["test"].groups)
    assert sorted(p.id for part in parts.values() for p in part) == sorted(p.id for p in doubled)


def test_contrast_data_has_the_wrong_text_as_positive() -> None:
    pairs = inject(PROBLEMS[:5])
    contrast = pairs.contrast()

    assert contrast.paired
    assert [side.text for side in contrast.positive] == [pair.text(wrong=True) for pair in pairs]
    assert [side.text for side in contrast.negative] == [pair.text(wrong=False) for pair in pairs]


def test_arithmetic_errors_are_problems_with_a_rule_by_name() -> None:
    found = arithmetic_errors(20, 3)
    assert found.pairs == inject(arithmetic_problems(20, 3), Derangement(), seed=3).pairs
    assert arithmetic_errors(20, 3, "off by").pairs == inject(arithmetic_problems(20, 3), OffBy(), seed=3).pairs
    assert found.content_hash != arithmetic_errors(20, 4).content_hash
    with pytest.raises(PromptError, match="There are: off by"):
        arithmetic_errors(20, rule="typo")
