"""Arithmetic word problems of our own, with solutions in steps whose equations are all true.

A number of things goes through two to four moves (+, −, ×, ÷), one step of the solution for each. Every number that
occurs is an integer from 1 to 999, and every division comes out even.
"""

from dataclasses import dataclass

import numpy as np

from mechint.errors import PromptError
from mechint.prompts.prompt import check_number
from mechint.prompts.reasoning import stories
from mechint.statistics.seeds import generator

_SIGN = {"+": "+", "-": "-", "*": "×", "/": "÷"}
_MOST = 999


@dataclass(frozen=True)
class Problem:
    """A question with its solution in steps.

    Raises:
        PromptError: a blank question, or a solution without steps.
    """

    id: str
    question: str
    steps: tuple[str, ...]
    answer: str

    def __post_init__(self) -> None:
        if not self.question.strip() or not self.steps or not all(step.strip() for step in self.steps):
            raise PromptError(
                f"Problem {self.id!r} has a question of {len(self.question)} characters and {len(self.steps)} steps. "
                "Give a question and at least one step, none of them blank."
            )


def arithmetic_problems(n: int = 64, seed: int = 0) -> tuple[Problem, ...]:
    """Return n word problems with solutions of two to four steps; problem i depends on the seed and on i, not on n.

    Raises:
        PromptError: n is not positive.

    Examples:
        >>> problem = arithmetic_problems(1)[0]
        >>> problem.answer in problem.steps[-1]
        True
    """
    check_number(n)
    return tuple(_problem(index, seed) for index in range(n))


def _problem(index: int, seed: int) -> Problem:
    rng = generator(seed, "arithmetic", index)
    words = {"name": _one(stories.NAMES, rng), "things": _one(stories.THINGS, rng)}
    now = int(rng.integers(12, 100))
    told, steps = [_one(stories.BEGINNINGS, rng).format(now=now, **words)], list[str]()
    last = ""
    for step in range(int(rng.integers(2, 5))):
        operation, by, result = _move(now, last, rng)
        event, says = stories.MOVES[operation][int(rng.integers(len(stories.MOVES[operation])))]
        opening = _one(stories.NEXT if step else stories.FIRST, rng)
        equation = f"{now} {_SIGN[operation]} {by} = {result}"
        told.append(event.format(by=by, **words))
        steps.append(f"{opening} {_one(says, rng).format(by=by, equation=equation, **words)}")
        now, last = result, operation
    told.append(_one(stories.ENDINGS, rng).format(**words))
    return Problem(f"arithmetic-{seed}-{index:05d}", " ".join(told), tuple(steps), str(now))


def _move(now: int, last: str, rng: np.random.Generator) -> tuple[str, int, int]:
    """Draw an operator that is not the last one, its number, and the result, all within bounds."""
    choices: dict[str, list[int]] = {
        "+": list(range(3, min(99, _MOST - now) + 1)),
        "-": list(range(3, min(99, now - 4) + 1)),
        "*": [by for by in range(2, 10) if now * by <= _MOST],
        "/": [by for by in range(2, 10) if now % by == 0 and now // by >= 4],
    }
    operation = _one(tuple(sign for sign, numbers in choices.items() if numbers and sign != last), rng)
    by = int(rng.choice(choices[operation]))
    return operation, by, {"+": now + by, "-": now - by, "*": now * by, "/": now // by}[operation]


def _one(among: tuple[str, ...], rng: np.random.Generator) -> str:
    return among[int(rng.integers(len(among)))]
