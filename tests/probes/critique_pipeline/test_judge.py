"""The judge reads results as people do, and never takes one for another."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mechint.errors import ConfigError
from mechint.probes.critique_pipeline import judge
from mechint.probes.critique_pipeline.judge import end_of_thinking, equal, last_paragraphs, numeric, stated


@pytest.mark.parametrize(
    ("text", "result"),
    [
        (r"\boxed{12} and then 13", "12"),  # a box beats what is said later
        (r"\boxed{3}, no: \boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed{never closed 5", "5"),
        ("That makes $1,200.", "1,200"),
        ("We have 7-3", "3"),
        ("It is -3.", "-3"),
        ("Nothing here", None),
        ("", None),
    ],
)
def test_the_result_of_a_text(text, result):
    assert stated(text) == result


@pytest.mark.parametrize(
    ("a", "b"),
    [("72", "72.0"), (r"\frac{14}{4}", "3.5"), (r"\dfrac{1}{3}", "1/3"), ("1,000", "$1000"), (r"50\%", "50"),
     (r"\text{ Monday }", "monday"), (r"\frac{\frac{1}{2}}{2}", "1/4")],
)  # fmt: skip
def test_equal_results_however_written(a, b):
    assert equal(a, b)
    assert equal(b, a)


@pytest.mark.parametrize(("a", "b"), [("72", "720"), ("0.33", "1/3"), ("12", "-12"), ("x", "y"), ("", "0")])
def test_other_results_are_not_equal(a, b):
    assert not equal(a, b)


@given(st.integers(-(10**6), 10**6), st.integers(-(10**6), 10**6))
def test_a_text_is_right_exactly_if_its_last_number_is_the_answer(a, b):
    assert numeric(f"First 5, and so it is {a}", str(b)) is (a == b)


def test_thinking_is_judged_by_its_last_two_paragraphs():
    assert last_paragraphs("one\n\ntwo\n\n \n\nthree\n\n") == "two\n\nthree"


@given(st.text("ab<>/think", max_size=30), st.text("abc", max_size=10))
def test_the_end_of_the_thinking_is_the_first_token_behind_the_tag(before, behind):
    def decode(row):
        return "".join(map(chr, row))

    row = [ord("?")] * 3 + [ord(letter) for letter in f"{before}</think>{behind}"]

    at = end_of_thinking(row, 3, decode, "</think>")

    assert decode(row[3:at]).endswith("</think>")
    assert decode(row[3:at]).count("</think>") == 1


def test_a_thinking_without_an_end_has_none():
    assert end_of_thinking([1, 2, 3], 1, str, "</think>") == -1


def test_a_judge_that_is_not_installed_says_how_to_get_it(monkeypatch):
    def missing(name):
        raise ImportError(name)

    monkeypatch.setattr(judge.importlib, "import_module", missing)
    with pytest.raises(ConfigError, match="pip install math-verify"):
        judge.math_verify()
