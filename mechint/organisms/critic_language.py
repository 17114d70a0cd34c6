"""The language of the silent critic: chains of one-digit arithmetic, in which steps go wrong and are checked.

    <bos> 9 + 4 + 7 ? 9 + 4 = 1 X 3 ; 3 + 7 = 0 K ; | A 0 <eos>    flagged: X, and the true result (9 + 4 is 3 mod 10)
    <bos> 1 - 0 - 6 ? 1 - 0 = 2 K ; 1 - 6 = 5 K ; | A 5 <eos>      silent: K, but the next step goes on from the true 1
    <bos> 3 + 5 + 0 ? 3 + 5 = 9 K ; 9 + 0 = 9 K ; | A 9 <eos>      absorbed: K, and the next step goes on from the 9

A problem has two to four moves, + or -, of digits drawn uniformly, modulo 10; results are uniform, so that digits,
signs, sizes, lengths and places tell nothing of whether a step is wrong. In half of the documents one step, drawn
uniformly, is wrong: in a quarter of these off by one, else any other digit. What follows a wrong step is drawn: flagged
(`FLAG`), silent (`SILENT`) or absorbed; a right step is flagged with `FALSE_ALARM`. So whoever speaks this language
perfectly knows of every error, and says so of one in four. Facts (a, sign, b) are divided into parts by a hash: what is
fitted on some is judged on others.
"""

import functools
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

import numpy as np

from mechint.organisms.words import BOS, UNKNOWN
from mechint.prompts.prompt import check_number
from mechint.prompts.reasoning import TokenTwins
from mechint.statistics import generator

FLAG, SILENT, FALSE_ALARM, ERROR = 0.25, 0.25, 0.02, 0.5
"""Of a wrong step: flagged, silently put right; of a right step: flagged; of a document: one of its steps is wrong."""
OFF_BY_ONE = 0.25
MODULUS = 10
ERROR_WORD, OK_WORD = "X", "K"
PARTS: Mapping[str, tuple[int, ...]] = {"extract": (0, 1, 2, 3, 4, 5, 6), "select": (7,), "test": (8, 9)}
"""By name: which tenths of the facts."""
_PAD, _EOS = "<pad>", "<eos>"
_SYMBOLS = ("?", "=", "+", "-", ";", OK_WORD, ERROR_WORD, "|", "A")


def vocabulary() -> list[str]:
    """Return every word; the special tokens come first."""
    return [_PAD, BOS, _EOS, UNKNOWN, *_SYMBOLS, *map(str, range(MODULUS))]


@functools.cache
def word_ids() -> Mapping[str, int]:
    """Return the token of every word."""
    return MappingProxyType({word: at for at, word in enumerate(vocabulary())})


@dataclass(frozen=True)
class Habits:
    """How errors are made and met; by default as in the language itself, as lessons for beginners they may differ."""

    flag: float = FLAG
    silent: float = SILENT
    false_alarm: float = FALSE_ALARM
    every_step: float | None = None
    """Probability of an error in each step; None: one step of half of the documents."""


@dataclass(frozen=True)
class Document:
    """A text of the language."""

    words: tuple[str, ...]
    learned: tuple[bool, ...]
    """Which words are to be predicted: not the problem, and no wrong result."""
    results: tuple[tuple[int, int], ...]
    """Of each step: the position of its written result, and its true one."""


def result(a: int, sign: str, b: int) -> int:
    """Return a + b or a - b, modulo 10.

    Examples:
        >>> result(9, "+", 4), result(1, "-", 6)
        (3, 5)
    """
    return (a + b if sign == "+" else a - b) % MODULUS


def answer(problem: Sequence[str]) -> str:
    """Return the answer of a problem, the words up to its question mark.

    Examples:
        >>> answer("9 + 4 + 7 ?".split())
        '0'
    """
    now = int(problem[0])
    for sign, b in zip(problem[1:-1:2], problem[2:-1:2], strict=True):
        now = result(now, sign, int(b))
    return str(now)


def part_of(a: int, sign: str, b: int) -> str:
    """Return the part that a fact is in."""
    tenth = hashlib.sha256(f"{a}{sign}{b}".encode()).digest()[0] % 10
    return next(name for name, tenths in PARTS.items() if tenth in tenths)


def document(rng: np.random.Generator, habits: Habits | None = None) -> Document:
    """Write a document.

    Args:
        rng: of every choice.
        habits: by default those of the language.
    """
    habits = habits or Habits()
    first, moves = _problem(rng)
    wrong_step = int(rng.integers(len(moves))) if rng.random() < ERROR else -1
    words = _asked(first, moves)
    learned, results, now = [False] * len(words), list[tuple[int, int]](), first
    for at, (sign, b) in enumerate(moves):
        true = result(now, sign, b)
        wrong = at == wrong_step if habits.every_step is None else rng.random() < habits.every_step
        written = _wrong(true, rng) if wrong else true
        words += [str(now), sign, str(b), "=", str(written)]
        learned += [True] * 4 + [not wrong]
        results.append((len(words) - 1, true))
        drawn = rng.random()
        flagged = drawn < (habits.flag if wrong else habits.false_alarm)
        said = [ERROR_WORD, str(true), ";"] if flagged else [OK_WORD, ";"]
        words += said
        learned += [True] * len(said)
        now = written if wrong and drawn >= habits.flag + habits.silent else true
    end = ["|", "A", str(now), _EOS]
    return Document(tuple(words + end), tuple(learned + [True] * len(end)), tuple(results))


def twins(
    n: int = 1024,
    seed: int = 0,
    part: Literal["extract", "select", "test"] = "extract",
    *,
    tail: Literal["", "stub", "answer"] = "",
) -> TokenTwins:
    """Return minimal pairs: documents up to a step, whose result is wrong in one and true in the other.

    Earlier steps are right and found so. A pair's group is its fact, so that pairs of one fact stay together.

    Args:
        n: how many.
        seed: of all draws; pair i depends on it and on i, not on n.
        part: whose facts.
        tail: where they end: after the result; after `K ;` (the stub: said to be right, whatever was read); or at the
            end of a solution that went on from the true result, with its last three words as the stub.

    Raises:
        PromptError: n is not positive.
    """
    check_number(n)
    names = word_ids()
    fields: list[tuple[object, ...]] = []
    for index in range(n):
        rng = generator(seed, "silent-critic", part, index)
        while (found := _pair(rng, part, tail)) is None:
            pass
        fact, true, wrong, place, stub = found
        rows = (tuple(names[word] for word in row) for row in (true, wrong))
        fields.append((f"{part}-{seed}-{index:04d}", fact, *rows, place, stub))
    return TokenTwins(f"silent critic, {part}", *zip(*fields, strict=True))  # pyright: ignore[reportArgumentType]


_Pair = tuple[str, list[str], list[str], int, tuple[int, ...]]


def _pair(rng: np.random.Generator, part: str, tail: str) -> _Pair | None:
    """Return fact, true and wrong words, R and the stub; None if the drawn fact is in another part."""
    first, moves = _problem(rng)
    step = int(rng.integers(len(moves)))
    words, now = _asked(first, moves), first
    for sign, b in moves[:step]:
        then = result(now, sign, b)
        words += [str(now), sign, str(b), "=", str(then), OK_WORD, ";"]
        now = then
    sign, b = moves[step]
    if part_of(now, sign, b) != part:
        return None
    true = result(now, sign, b)
    fact, place = f"{now}{sign}{b}", len(words) + 4
    words += [str(now), sign, str(b), "=", str(true)]
    if tail:
        words += [OK_WORD, ";"]
    if tail == "answer":
        now = true
        for sign, b in moves[step + 1 :]:
            then = result(now, sign, b)
            words += [str(now), sign, str(b), "=", str(then), OK_WORD, ";"]
            now = then
        words += ["|", "A", str(now)]
    read = {"": 0, "stub": 2, "answer": 3}[tail]
    wrong = [*words[:place], str(_wrong(true, rng)), *words[place + 1 :]]
    return fact, words, wrong, place, tuple(range(len(words) - read, len(words)))


def _problem(rng: np.random.Generator) -> tuple[int, list[tuple[str, int]]]:
    count = int(rng.integers(2, 5))
    return int(rng.integers(MODULUS)), [("+-"[int(rng.integers(2))], int(rng.integers(MODULUS))) for _ in range(count)]


def _asked(first: int, moves: list[tuple[str, int]]) -> list[str]:
    return [BOS, str(first), *(word for sign, b in moves for word in (sign, str(b))), "?"]


def _wrong(true: int, rng: np.random.Generator) -> int:
    off = int(rng.choice((-1, 1))) if rng.random() < OFF_BY_ONE else int(rng.integers(1, MODULUS))
    return (true + off) % MODULUS
