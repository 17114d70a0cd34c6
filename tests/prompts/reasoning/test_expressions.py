from fractions import Fraction
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mechint.errors import PromptError
from mechint.prompts.reasoning.expressions import (
    equalities,
    last_equation,
    literals,
    number,
    operation,
    plain,
    shape,
    value,
    written_like,
)

SMALL = st.integers(-99, 99)


@given(SMALL, SMALL, SMALL, st.sampled_from("+-*"), st.sampled_from("+-*"))
def test_values_are_those_of_pythons_own_integers(a: int, b: int, c: int, one: str, two: str) -> None:
    text = f"({a} {one} {b}) {two} {c}"

    assert value(text) == eval(text)


@given(SMALL, st.integers(1, 99))
def test_division_is_exact(a: int, b: int) -> None:
    assert value(f"{a} / {b}") == Fraction(a, b)


@pytest.mark.parametrize(
    "text", ["", "2 apples", "1 / 0", "2 ^ 99", "2 ^ 0.5", "(3", "3 // 2", "f(2)", "True", "(3)(4)"]
)
def test_what_cannot_be_computed_has_no_value(text: str) -> None:
    assert value(text) is None


@pytest.mark.parametrize(
    ("text", "expression", "stated", "true"),
    [
        ("so 3 + 4 = 6.", "3 + 4", 6, 7),
        ("that is $1,200 × 3 = $3,500", "1200 * 3", 3500, 3600),
        ("10 ÷ 4 equals 2.5, then 2 − 5 is -4", "2 - 5", -4, -3),
        ("2 x 3 gives 7", "2*3", 7, 6),
        (r"2 \times 3 + 1 = 8", "2 * 3 + 1", 8, 7),
    ],
)
def test_the_last_equation_is_read_in_whatever_signs(text: str, expression: str, stated: int, true: int) -> None:
    found = last_equation(text)

    assert found is not None
    assert (found.expression, found.stated, found.true) == (expression, stated, true)
    assert found.wrong


def test_a_rounded_result_is_not_wrong() -> None:
    rounded, wrong = last_equation("1 / 3 = 0.33"), last_equation("1 / 3 = 0.35")

    assert rounded is not None
    assert not rounded.wrong
    assert wrong is not None
    assert wrong.wrong


def test_without_an_equation_there_is_none() -> None:
    assert last_equation("Half of 48 is 24.") is None


@given(st.lists(SMALL, min_size=2, max_size=6))
def test_a_chain_has_one_equality_less_than_sides(numbers: list[int]) -> None:
    chain = " = ".join(f"({at} + 0)" for at in numbers)

    assert list(equalities(chain)) == list(pairwise(numbers))


def test_letters_break_a_chain_and_sentences_end_it() -> None:
    assert list(equalities("A = 2 + 2 = 4. So B = 5 = C = 6")) == [(4, 4)]


@pytest.mark.parametrize(
    ("expression", "name"), [("3 * -4", "*"), ("-3 - 4", "-"), ("2^4", "^"), ("1 + 2 + 3", "multi"), ("7", "multi")]
)
def test_the_sign_of_a_number_is_no_operator(expression: str, name: str) -> None:
    assert operation(expression) == name


@given(st.integers(-(10**7), 10**7))
def test_a_number_is_read_back_from_how_it_is_written(at: int) -> None:
    for form in (f"{at}", f"{at:,}", f"{at}.00"):
        (found,) = literals(f"it is {form}, or")
        assert found.group() == form
        assert number(form) == at


def test_a_comma_after_a_number_is_no_part_of_it() -> None:
    found = literals("2^4 = 18, so n = 4, 12,345 or 1,2")

    assert [match.group() for match in found] == ["2", "4", "18", "4", "12,345", "1", "2"]


def test_a_value_is_written_in_the_form_of_another_or_not_at_all() -> None:
    assert written_like(Fraction(1234567), "9,999") == "1,234,567"
    assert written_like(Fraction(1, 3), "0.5") == "0.3"
    assert written_like(Fraction(1, 3), "5") is None


def test_a_shape_hides_digits_only() -> None:
    assert shape("-1,204.5") == shape("-9,999.0") != shape("1,204.5")


def test_what_is_no_number_is_refused() -> None:
    with pytest.raises(PromptError, match="'x' is no number"):
        number("x")


def test_signs_are_written_plainly_and_lists_keep_their_commas() -> None:
    assert plain("$1,000 × 2 ÷ 5 − 1") == "1000 * 2 / 5 - 1"
    assert plain("1, 2,34") == "1, 2,34"
