"""Put one error into a worked solution: the result of one step is replaced, and the solution stops there.

| rule | wrong literal | cue that remains |
|---|---|---|
| `OffBy` | true ± a size; both signs equally often | the size |
| `DigitSwap` | two neighbouring digits exchanged | none in the digits' sum, some in the order |
| `OperandSwap` | the result with another number of the problem as an operand | the size of the result |
| `Derangement` | the true literal of another problem | none: as often as in the true texts |

Wrong literals have the digits of the true one in number, so that tokens stay in their places. For a derangement the
wrong literals are a permutation of the true ones without a fixed value: a reader of the literal alone is at chance.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from mechint.errors import PromptError
from mechint.prompts.reasoning.expressions import (
    NUMBER,
    last_equation,
    literals,
    number,
    operation,
    plain,
    shape,
    value,
)
from mechint.prompts.reasoning.pairs import MinimalPair, Pairs
from mechint.prompts.reasoning.problems import Problem, arithmetic_problems
from mechint.statistics.seeds import generator


@dataclass(frozen=True)
class OffBy:
    """Off by one of these sizes, as often upwards as downwards.

    Raises:
        PromptError: no sizes, or one that is not positive.
    """

    sizes: tuple[int, ...] = (1, 2, 10)

    def __post_init__(self) -> None:
        if not self.sizes or min(self.sizes) < 1:
            raise PromptError(f"Sizes {self.sizes} were given. Give at least one, all positive: OffBy((1, 2, 10)).")


@dataclass(frozen=True)
class DigitSwap:
    """Two neighbouring digits exchanged: 72 becomes 27."""


@dataclass(frozen=True)
class OperandSwap:
    """The result that the step would have with another number of the problem in place of an operand."""


@dataclass(frozen=True)
class Derangement:
    """The true literal of another problem, assigned as a permutation of them all."""


Rule = OffBy | DigitSwap | OperandSwap | Derangement
RULES: Mapping[str, type[Rule]] = {
    "off by": OffBy,
    "digit swap": DigitSwap,
    "operand swap": OperandSwap,
    "derangement": Derangement,
}
"""By name, wherever one is asked for."""
_NAMES = {rule: name for name, rule in RULES.items()}
NOT_FOUND = "no step with one true integer result that is written once"
_BY_NUMBER = re.compile(NUMBER)


def arithmetic_errors(n: int = 400, seed: int = 0, rule: str | Rule = "derangement") -> Pairs:
    """Return minimal pairs of n word problems of our own (see `arithmetic_problems`), with one error in each.

    Args:
        n: problems; a few may have no pair (`Pairs.left_out` says why).
        seed: of problems and errors.
        rule: "derangement", "off by", "digit swap" or "operand swap", or one with settings of its own.

    Raises:
        PromptError: n is not positive, or there is no such rule.
    """
    if isinstance(rule, str):
        if rule not in RULES:
            raise PromptError(f"rule={rule!r}. There are: {', '.join(RULES)}.")
        rule = RULES[rule]()
    return inject(arithmetic_problems(n, seed), rule, seed=seed)


def inject(
    problems: Sequence[Problem], rule: Rule | None = None, *, step: int | None = None, seed: int = 0, name: str = ""
) -> Pairs:
    """Make a minimal pair of each problem: its solution up to one step, with the true and with a wrong result.

    What is drawn for a problem depends on the seed and its id, not on the others; two things need the others: the
    signs of `OffBy` alternate in twos (+− or −+), and a `Derangement` is one permutation of them all.

    Args:
        problems: with ids of their own; steps with equations, such as `arithmetic_problems` makes.
        rule: by default `OffBy()`.
        step: which step, from 0 or, if negative, from the end; by default drawn among those that can be used.
        seed: of all draws.
        name: of the set; by default that of the rule.

    Returns:
        The pairs, in the order of the problems, and why the other problems are left out.

    Raises:
        PromptError: two problems have one id.
    """
    rule = rule or OffBy()
    kept: list[MinimalPair] = []
    left_out: dict[str, str] = {}
    for problem in problems:
        candidates = _candidates(problem, step)
        if problem.id in left_out:
            raise PromptError(f"Id {problem.id!r} occurs twice. Give each problem its own.")
        if not candidates:
            left_out[problem.id] = NOT_FOUND
            continue
        drawn = candidates[int(generator(seed, "step", problem.id).integers(len(candidates)))]
        if isinstance(rule, Derangement):
            kept.append(drawn)
            continue
        up = _sign(len(kept), seed) > 0
        wrong = _wrong(rule, drawn, problem, generator(seed, _NAMES[type(rule)], problem.id), up)
        if wrong is None:
            left_out[problem.id] = f"{_NAMES[type(rule)]}: no wrong result with as many digits"
        else:
            kept.append(drawn.with_wrong(wrong, _NAMES[type(rule)]))
    made = Pairs(name or _NAMES[type(rule)], tuple(kept), left_out)
    return derange(made, seed=seed, name=made.name) if isinstance(rule, Derangement) else made


def derange(pairs: Pairs, *, seed: int = 0, name: str = "derangement") -> Pairs:
    """Give each pair the true literal of another problem as its wrong one: a permutation without a fixed value.

    Literals are exchanged among those of one shape: as many digits, commas and decimals at the same places. Where one
    value has more than half of its shape, pairs with it are left out, drawn at random, until the rest can be permuted.
    Literals are as frequent among the wrong as among the true in this set; a part of it has no such balance, so split
    first and derange each part.

    Args:
        pairs: one for each problem; their own wrong literals are forgotten.
        seed: of all draws.
        name: of the set.

    Raises:
        PromptError: two pairs are of one problem.
    """
    if len(pairs.groups) < len(pairs):
        raise PromptError(
            f"{len(pairs)} pairs of {len(pairs.groups)} problems were given; a literal may only come from another "
            "problem. Give one pair for each."
        )
    classes: dict[str, list[MinimalPair]] = defaultdict(list)
    for pair in pairs:
        classes[shape(pair.true)].append(pair)
    wrong: dict[str, str] = {}
    for form, members in classes.items():
        wrong |= _permuted(members, generator(seed, "derangement", form))
    left_out = {p.id: "derangement: too few other results of this form" for p in pairs if p.id not in wrong}
    kept = tuple(p.with_wrong(wrong[p.id], "derangement") for p in pairs if p.id in wrong)
    return Pairs(name, kept, {**pairs.left_out, **left_out})


def _permuted(members: Sequence[MinimalPair], rng: np.random.Generator) -> dict[str, str]:
    """Return a wrong literal for each pair that can have one: blocks of equal values, moved on by the largest block."""
    drawn = [members[int(at)] for at in rng.permutation(len(members))]
    (top, most), *_ = Counter(number(pair.true) for pair in drawn).most_common()
    surplus = max(0, 2 * most - len(drawn))
    without = {pair.id for pair in [pair for pair in drawn if number(pair.true) == top][:surplus]}
    drawn = [pair for pair in drawn if pair.id not in without]
    first = {number(pair.true): at for at, pair in reversed(list(enumerate(drawn)))}
    drawn.sort(key=lambda pair: first[number(pair.true)])  # blocks in random order
    shift = most - surplus
    return {pair.id: drawn[(at + shift) % len(drawn)].true for at, pair in enumerate(drawn)}


def _candidates(problem: Problem, step: int | None) -> list[MinimalPair]:
    steps = range(len(problem.steps)) if step is None else [step % len(problem.steps)]
    if step is not None and not -len(problem.steps) <= step < len(problem.steps):
        return []
    return [pair for at in steps if (pair := _candidate(problem, at)) is not None]


def _candidate(problem: Problem, at: int) -> MinimalPair | None:
    """Return the solution up to a step, if that states one integer that is true, once; the wrong literal is a stub."""
    text = problem.steps[at]
    equation = last_equation(text)
    if equation is None or equation.true != equation.stated or equation.true.denominator != 1 or equation.true < 1:
        return None
    found = [match for match in literals(text) if number(match.group()) == equation.true]
    if len(found) != 1 or "." in found[0].group():
        return None
    return MinimalPair(
        id=problem.id,
        group=problem.id,
        question=problem.question,
        prefix="\n\n".join([*problem.steps[:at], text[: found[0].start()]]),
        wrong=f"{found[0].group()}0",
        true=found[0].group(),
        tail=text[found[0].end() :],
        expression=equation.expression,
        operation=operation(equation.expression),
        step=at,
    )


def _wrong(rule: Rule, pair: MinimalPair, problem: Problem, rng: np.random.Generator, up: bool) -> str | None:
    match rule:
        case OffBy():
            found = _off_by(rule, pair.true, up)
        case DigitSwap():
            found = _digit_swaps(pair.true)
        case _:
            found = _operand_swaps(pair, problem)
    return found[int(rng.integers(len(found)))] if found else None


def _off_by(rule: OffBy, true: str, up: bool) -> list[str]:
    """List what either sign could reach: a number that only one sign can move would tell the sign."""
    form, at = shape(true), int(number(true))
    comma = "," if "," in true else ""
    moved = [(f"{at + size:{comma}}", f"{at - size:{comma}}") for size in rule.sizes if at > size]
    return [above if up else below for above, below in moved if shape(above) == shape(below) == form]


def _sign(rank: int, seed: int) -> int:
    """Return the sign of the rank-th pair: drawn for even ranks, the opposite of the one before for odd ones."""
    drawn = 1 if generator(seed, "sign", rank // 2).random() < 0.5 else -1
    return drawn if rank % 2 == 0 else -drawn


def _digit_swaps(true: str) -> list[str]:
    places = [at for at, character in enumerate(true) if character.isdigit()]
    swapped: list[str] = []
    for a, b in pairwise(places):
        digits = list(true)
        digits[a], digits[b] = digits[b], digits[a]
        if digits[a] != digits[b] and digits[places[0]] != "0":
            swapped.append("".join(digits))
    return swapped


def _operand_swaps(pair: MinimalPair, problem: Problem) -> list[str]:
    others = [match.group() for match in _BY_NUMBER.finditer(plain(f"{problem.question} {pair.prefix}"))]
    found: dict[str, None] = {}
    for operand in _BY_NUMBER.finditer(pair.expression):
        for other in dict.fromkeys(others):
            result = value(pair.expression[: operand.start()] + other + pair.expression[operand.end() :])
            if result is not None and result.denominator == 1 and result != number(pair.true):
                literal = f"{result.numerator:{',' if ',' in pair.true else ''}}"
                if shape(literal) == shape(pair.true):
                    found[literal] = None
    return list(found)
