import math

import pytest

from mechint.errors import PromptError
from mechint.prompts.reasoning import Audit, ErrorTrace, Measure, StepSolution, audit_steps, first_false_step
from mechint.prompts.reasoning.rows import ErrorTraces
from tests.prompts.toy import bytes_like_gpt2


def traces(*searches: str, answer: str = "28") -> ErrorTraces:
    return ErrorTraces("t", tuple(ErrorTrace(i, "How many?", answer, text) for i, text in enumerate(searches)))


KNOWN = traces(
    "First, 3.\n\nSo 3 + 4 = 8.\n\n",  # too small by nothing: 7 is true, 8 is too large
    "So 3 × 40 = 110 cups.\n\n",
    "So 2 + 2 = 4.\n\n",
    "Half of 6 is 4.\n\n",
    "Sorry, I can't provide that. Brief result: 28 kilograms.",
    "I cannot assist, 1 + 1 = 3.",
    "So 3 + 4 = 8, which is 8.\n\n",
    "So 7 / 2 = 3 cups.\n\n",
    "So 6 / 8 = 0.8 cups.\n\n",
    "So 5 + 4 = 10.\n\n",
)


def test_each_trace_is_a_pair_or_left_out_for_what_is_wrong_with_it() -> None:
    pairs = KNOWN.pairs()

    assert [(pair.id, pair.wrong, pair.true, pair.tail) for pair in pairs] == [
        ("t-0", "8", "7", "."),
        ("t-1", "110", "120", " cups."),
        ("t-9", "10", "9", "."),
    ]
    assert pairs.left_out == {
        "t-2": "its last equation is right",
        "t-3": "no equation that can be computed",
        "t-4": "a refusal",
        "t-5": "a refusal",
        "t-6": "its result does not stand exactly once in the paragraph",
        "t-7": "the true result cannot be written in the form of the stated one",
        "t-8": "the true result, rounded as the stated one is, is that one",
    }


def test_a_pair_of_a_trace_is_that_trace() -> None:
    for pair in KNOWN.pairs():
        search = KNOWN.rows[int(pair.id.removeprefix("t-"))].search
        assert pair.text(wrong=True) == f"Question: How many?\nAnswer: {search.strip()}"


def test_the_audit_of_known_traces_counts_what_is_in_them() -> None:
    audit = KNOWN.audit(bytes_like_gpt2())
    counts = {measure.name: (measure.count, measure.of) for measure in audit.measures}

    assert counts["refusals"] == (2, 10)
    assert counts["refusals that state the answer"] == (1, 2)
    assert counts["other traces that state the answer"] == (0, 8)
    assert counts["with a last equation"] == (8, 10)
    assert counts["really wrong"] == (7, 8)
    assert counts["too small"] == (2, 7)  # 110 for 120, and 3 for 3.5
    assert counts["off by 1"] == (4, 7)
    assert counts["last digit right"] == (1, 7)
    assert counts["operation +"] == (4, 6)
    assert counts["ends at the literal"] == (4, 6)
    assert counts["recomputed texts"] == (4, 10)
    assert counts["minimal pairs"] == (3, 10)
    assert counts["token-aligned"] == counts["integer and token-aligned"] == (2, 3)  # 10 and 9 differ in length
    assert "1: the two literals have different numbers of tokens" in str(audit)


def test_an_answer_that_is_no_number_is_looked_for_as_text() -> None:
    (trace,) = traces("So it is \\frac{1}{2}.", answer="\\frac{1}{2}").rows
    (number,) = traces("So it is 280 or 1,028.", answer="28").rows

    assert trace.states_the_answer
    assert not number.states_the_answer


def test_a_trace_without_text_is_reported_and_breaks_nothing() -> None:
    audit = traces("", "\n\n").audit()

    assert audit["with a last equation"].count == 0
    assert math.isnan(audit["too small"].value)
    assert "2: no equation that can be computed" in str(audit)


def solution(n: int, mistake: int | None, right: bool = True, step: str = "thus") -> StepSolution:
    return StepSolution((step,) * n, mistake, right)


def test_length_alone_is_measured_and_is_one_half_where_lengths_are_equal() -> None:
    even = [solution(3, 1), solution(3, None)] * 4
    longer = [solution(4, 1), solution(3, None)] * 4

    assert audit_steps(even, "x")["AUROC of the number of steps"].value == 0.5
    assert audit_steps(longer, "x")["AUROC of the number of steps"].value == 1


def test_the_index_is_compared_with_earlier_steps_only() -> None:
    # Mistakes at 1 and 2; earlier steps at 0 and at 0, 1: of six comparisons one is a tie and none is lost.
    audit = audit_steps([solution(9, 1), solution(3, 2), solution(50, None)], "x")

    assert audit["AUROC of the index of a step"].value == pytest.approx(5.5 / 6)


def test_label_noise_and_the_checker_are_counted() -> None:
    rows = [
        StepSolution(("2 + 2 = 4", "4 + 1 = 6"), 1, False),
        StepSolution(("2 + 2 = 5", "5 + 1 = 6"), 1, True),
        StepSolution(("2 + 2 = 4 = 3 + 1",), None, True),
        StepSolution(("2 + 2 = 5",), None, False),
    ]
    audit = audit_steps(rows, "x")
    counts = {name: (audit[name].count, audit[name].of) for name in (m.name for m in audit.measures[1:5])}

    assert counts["no mistake, wrong answer"] == (1, 2)
    assert counts["a mistake, right answer"] == (1, 2)
    assert (audit["checker finds the labelled step"].count, audit["no mistake, wrong equality"].count) == (1, 1)
    assert (audit["right equalities"].count, audit["wrong equalities"].count) == (4, 3)
    assert first_false_step(rows[1].steps) == 0
    assert "too few (under 30) for one F1" in str(audit)


def test_where_nothing_can_be_checked_no_rate_is_given() -> None:
    audit = audit_steps([solution(3, 1), solution(3, None)], "x")

    assert math.isnan(audit["checker finds the labelled step"].value)
    assert "cannot be checked by rule" in str(audit)


def test_one_kind_of_solution_has_no_auroc() -> None:
    audit = audit_steps([solution(3, 1)], "x")

    assert math.isnan(audit["AUROC of the number of steps"].value)
    assert math.isnan(audit["half-width without a mistake"].value)


def test_an_audit_is_a_table_too() -> None:
    table = KNOWN.audit().to_frame().set_index("measure")

    assert table.loc["refusals", "count"] == 2
    assert table.loc["refusals", "low"] < 0.2 < table.loc["refusals", "high"]


def test_what_was_not_measured_and_what_is_no_count_is_refused() -> None:
    audit = Audit("x", (Measure("AUROC", 0.5),), ())
    with pytest.raises(PromptError, match=r"'size' was not measured\. There are: AUROC"):
        _ = audit["size"]
    with pytest.raises(PromptError, match="counts nothing"):
        _ = audit["AUROC"].count
