import re
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mechint.errors import PromptError
from mechint.prompts.reasoning import Problem, arithmetic_problems
from mechint.prompts.reasoning.expressions import last_equation, operation

MANY = arithmetic_problems(400)


def test_every_step_states_one_equation_and_it_is_true() -> None:
    for problem in MANY:
        assert 2 <= len(problem.steps) <= 4
        for step in problem.steps:
            equation = last_equation(step)
            assert equation is not None
            assert step.count("=") == 1
            assert equation.stated == equation.true
            assert equation.true.denominator == 1
            assert 1 <= equation.true <= 999


def test_each_step_goes_on_from_the_one_before_and_the_last_gives_the_answer() -> None:
    for problem in MANY:
        equations = [last_equation(step) for step in problem.steps]
        results = [str(equation.true) for equation in equations if equation]
        starts = [equation.expression.split()[0] for equation in equations if equation]
        assert starts[1:] == results[:-1]
        assert results[-1] == problem.answer


def test_the_question_gives_every_number_that_the_solution_uses() -> None:
    for problem in MANY:
        told = re.findall(r"\d+", problem.question)
        equations = [last_equation(step) for step in problem.steps]
        used = [equations[0].expression.split()[0]] if equations[0] else []
        assert told == used + [equation.expression.split()[2] for equation in equations if equation]


def test_all_four_operators_occur_often_and_stories_differ() -> None:
    equations = [last_equation(step) for problem in MANY for step in problem.steps]
    counts = Counter(operation(equation.expression) for equation in equations if equation)

    assert set(counts) == {"+", "-", "*", "/"}
    assert min(counts.values()) > sum(counts.values()) / 8
    assert len({re.sub(r"\d+", "", problem.question) for problem in MANY}) > 390
    assert len({problem.question for problem in MANY}) == len(MANY)


@given(st.integers(1, 20), st.integers(0, 5))
def test_a_problem_depends_on_its_seed_and_place_alone(n: int, seed: int) -> None:
    assert arithmetic_problems(n, seed) == arithmetic_problems(20, seed)[:n]
    assert arithmetic_problems(n, seed) != arithmetic_problems(n, seed + 1)


def test_none_and_blank_ones_are_refused() -> None:
    with pytest.raises(PromptError, match="Ask for at least 1"):
        arithmetic_problems(0)
    with pytest.raises(PromptError, match=r"question of 0 characters and 1 steps\. Give a question"):
        Problem("p", "", ("1 + 1 = 2",), "2")
    with pytest.raises(PromptError, match="at least one step"):
        Problem("p", "How many?", (), "2")
