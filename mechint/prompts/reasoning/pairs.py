r"""Minimal pairs: one worked solution that stops after a result, once with the true number and once with a wrong one.

    text = "Question: {question}\nAnswer: " + prefix + literal + tail

The two texts of a pair are identical, character for character, outside the literal.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from fractions import Fraction
from typing import overload

from mechint.errors import PromptError
from mechint.prompts.contrast import ContrastPairs, Side
from mechint.prompts.reasoning.expressions import number, value, written_like


@dataclass(frozen=True)
class MinimalPair:
    """A solution up to one result, with the true and a wrong number for it.

    Raises:
        PromptError: the true literal is not what the expression comes to, or the wrong one is.

    Examples:
        >>> pair = MinimalPair("p1", "p1", "How much is 3 times 4?", "It is 3 × 4 = ", "13", "12", ".", "3 * 4", "*")
        >>> pair.text(wrong=True).splitlines()[1], pair.span(wrong=True), pair.delta
        ('Answer: It is 3 × 4 = 13.', (55, 57), Fraction(1, 1))
    """

    id: str
    group: str
    """The problem: pairs of one group never stand in two parts of a split."""
    question: str
    prefix: str
    """What the answer says before the literal."""
    wrong: str
    true: str
    tail: str
    """What the answer says after the literal; it ends there."""
    expression: str
    """What the true literal is the value of, in the signs + - * / ^."""
    operation: str
    """Its operator, or "multi"."""
    rule: str = "given"
    """How the wrong literal was made."""
    step: int = 0
    """Which step of the solution the literal stands in, from 0."""

    def __post_init__(self) -> None:
        true = value(self.expression)
        if true is None or written_like(true, self.true) != self.true:
            raise PromptError(
                f"Pair {self.id!r}: {self.expression!r} does not come to {self.true!r}. Give the true literal of it."
            )
        if number(self.wrong) in (number(self.true), true):
            raise PromptError(f"Pair {self.id!r}: {self.wrong!r} is not wrong for {self.expression!r}. Give another.")

    @property
    def head(self) -> str:
        """The text before the answer."""
        return f"Question: {self.question}\nAnswer: "

    def text(self, *, wrong: bool) -> str:
        """Return the whole text with one of the two literals."""
        return f"{self.head}{self.prefix}{self.wrong if wrong else self.true}{self.tail}"

    def span(self, *, wrong: bool) -> tuple[int, int]:
        """Return where the literal stands in that text: the first character, and the one after the last."""
        start = len(self.head) + len(self.prefix)
        return start, start + len(self.wrong if wrong else self.true)

    @property
    def delta(self) -> Fraction:
        """Wrong minus true."""
        return number(self.wrong) - number(self.true)

    @property
    def integer(self) -> bool:
        """Whether the expression comes to an integer and both literals are written as one."""
        return "." not in self.true + self.wrong and number(self.true).denominator == 1

    def with_wrong(self, literal: str, rule: str) -> "MinimalPair":
        """Return the pair with another wrong literal."""
        return replace(self, wrong=literal, rule=rule)


@dataclass(frozen=True)
class Pairs(Sequence[MinimalPair]):
    """Minimal pairs, and why the other candidates are none.

    Raises:
        PromptError: an id occurs twice, among pairs and those left out together.
    """

    name: str
    pairs: tuple[MinimalPair, ...]
    left_out: Mapping[str, str] = field(default_factory=dict[str, str])
    """From the id of a candidate to the reason why there is no pair of it."""

    def __post_init__(self) -> None:
        seen = Counter([*(pair.id for pair in self.pairs), *self.left_out])
        if twice := [name for name, count in seen.items() if count > 1]:
            raise PromptError(f"Ids occur twice in {self.name!r}: {', '.join(twice[:5])}. Give each pair its own.")

    def __len__(self) -> int:
        return len(self.pairs)

    def __iter__(self) -> Iterator[MinimalPair]:
        return iter(self.pairs)

    @overload
    def __getitem__(self, index: int) -> MinimalPair: ...
    @overload
    def __getitem__(self, index: slice) -> "Pairs": ...
    def __getitem__(self, index: int | slice) -> "MinimalPair | Pairs":
        return self.pairs[index] if isinstance(index, int) else replace(self, pairs=self.pairs[index])

    def __repr__(self) -> str:
        return f"Pairs {self.name!r}: {len(self)} in {len(self.groups)} groups, {len(self.left_out)} left out"

    @property
    def content_hash(self) -> str:
        """SHA-256 of all that can change a number."""
        told = json.dumps([asdict(pair) for pair in self.pairs], sort_keys=True)
        return f"sha256:{hashlib.sha256(told.encode()).hexdigest()}"

    @property
    def groups(self) -> tuple[str, ...]:
        """The problems, in the order in which they first occur."""
        return tuple(dict.fromkeys(pair.group for pair in self.pairs))

    @property
    def reasons(self) -> dict[str, int]:
        """How many candidates were left out for which reason, the most frequent first."""
        return dict(Counter(self.left_out.values()).most_common())

    def pick(self, groups: Collection[str], name: str | None = None) -> "Pairs":
        """Return the pairs of some groups, in their order."""
        wanted = set(groups)
        return Pairs(name or self.name, tuple(pair for pair in self.pairs if pair.group in wanted))

    def contrast(self) -> ContrastPairs:
        """Return the texts as contrast data: with the wrong literal positive, with the true one negative.

        Raises:
            PromptError: there are no pairs.
        """
        sides = [tuple(Side(p.id, p.text(wrong=wrong), p.group) for p in self.pairs) for wrong in (True, False)]
        return ContrastPairs(self.name, *sides)

    def split(self, *, train: float = 0.0, select: float = 0.0, test: float = 0.0, seed: int = 0) -> "dict[str, Pairs]":
        """Divide the groups at random, both texts of a pair and all pairs of a problem staying together.

        Args:
            train: share to fit on; shares add up to 1, and a part with share 0 is not made.
            select: share to choose settings on.
            test: share to judge on.
            seed: of the draw.

        Raises:
            PromptError: shares that do not add up to 1, or too few groups for the parts.
        """
        parts = self.contrast().split(train=train, select=select, test=test, seed=seed).parts
        return {name: self.pick(part.groups, f"{self.name}/{name}") for name, part in parts.items()}
