"""Minimal pairs of errors that a model made by itself: the first false result of a solution in steps, recomputed.

What stands before it is the solution as it was written, so the two texts differ in that number alone, and end with it.
"""

import re
from collections.abc import Sequence

from mechint.prompts.reasoning.expressions import TOLERANCE, number, operation, plain, value, written_like
from mechint.prompts.reasoning.pairs import MinimalPair, Pairs

_RESULT = re.compile(r"(?P<side>[^=]+)=\s*(?P<result>-?\d+(?:\.\d+)?)(?=\s*(?:=|\.?\s*$|\.\s))")
"""A side, and a number alone on the other; what follows it is a further side, or the end of a sentence."""


def natural_pairs(solutions: Sequence[tuple[str, Sequence[str]]], name: str) -> Pairs:
    """Return a pair for each solution that states a false result, and why the others have none.

    Args:
        solutions: question and steps of each.
        name: of the set; each solution is named and grouped by its place in it.

    Examples:
        >>> solutions = [("(2 + 3) * 4 =", ["A = (2 + 3) = 6.", "A * 4 = 24."]), ("1 + 1 =", ["It is 2."])]
        >>> pairs = natural_pairs(solutions, "n")
        >>> pairs[0].prefix, pairs[0].wrong, pairs[0].true, pairs.left_out
        ('A = (2 + 3) = ', '6', '5', {'n-1': 'no false result of plain arithmetic'})
    """
    kept: list[MinimalPair] = []
    left_out: dict[str, str] = {}
    for at, (question, steps) in enumerate(solutions):
        pair = _pair(question, steps, f"{name}-{at}")
        if isinstance(pair, MinimalPair):
            kept.append(pair)
        else:
            left_out[f"{name}-{at}"] = pair
    return Pairs(name, tuple(kept), left_out)


def _pair(question: str, steps: Sequence[str], name: str) -> MinimalPair | str:
    for at, step in enumerate(steps):
        for found in _RESULT.finditer(step):
            expression, wrong = plain(found["side"]).strip(), found["result"]
            true = value(expression)
            if true is None or abs(true - number(wrong)) < TOLERANCE:
                continue
            written = written_like(true, wrong)
            if written is None or number(written) != true:
                return "the true result cannot be written in the form of the stated one"
            return MinimalPair(
                id=name,
                group=name,
                question=question,
                prefix="\n".join([*steps[:at], step[: found.start("result")]]),
                wrong=wrong,
                true=written,
                tail="",
                expression=expression,
                operation=operation(expression),
                rule="natural",
                step=at,
            )
    return "no false result of plain arithmetic"
