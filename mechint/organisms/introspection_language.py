"""A language about inner states: twelve words, a question, and an answer that depends on the text, the state, or both.

    <bos> x_1 … x_12 sep QUESTION ARGUMENT ans ANSWER

x are fillers; in half of the texts one of x_2 … x_12 is a concept word instead, the *cue*. Into the stream at the text
positions the direction of a concept may be added, whatever the text says. Questions:

    det   sep           is there something?          yes, no
    det   map0 / map1   the same, in opaque letters  l0 = yes with map0, l1 = yes with map1
    id    sep           which concept?               the concept, none
    src   sep           where is it from?            act (the state), text, none
    even, low   f       is its number even, or the half of it? yes, no: nothing to do with states

What the right answers are depends on whom one wants to raise (`introspection_kinds`): each knows one thing and is blind
to another, so a battery that says who reads its state can be held against the truth.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mechint.organisms.introspection_kinds import Kind
from mechint.organisms.words import BOS, UNKNOWN

N_TEXT, N_CONCEPTS, N_FILLERS = 12, 12, 32
CONCEPTS = tuple(f"w{i}" for i in range(N_CONCEPTS))
FILLERS = tuple(f"f{i}" for i in range(N_FILLERS))
_MARKS = ("sep", "ans", "det", "id", "src", "even", "low")
_ANSWERS = ("yes", "no", "none", "text", "act", "l0", "l1")
_MAPS = ("map0", "map1")
LENGTH = N_TEXT + 5
"""Tokens before the answer."""

Question = Literal["det", "map0", "map1", "id", "src", "even", "low"]
NOTHING, CONCEPT, RANDOM, MIXED, MINUS = range(5)
"""What is injected: nothing, a concept, an isotropic direction, a random mixture of concepts, minus a concept."""
SPAN, HELD, ANSWER = range(3)
"""Where: the text, everything from the text to the answer, the answer alone."""


@dataclass(frozen=True)
class Trials:
    """Rows with what was done to them and what is right to say."""

    tokens: Int[Tensor, "batch pos"]
    answer: Int[Tensor, " batch"]
    """Token that is right."""
    injected: Int[Tensor, " batch"]
    """`NOTHING` … `MINUS`."""
    concept: Int[Tensor, " batch"]
    """Which concept is injected, if one is."""
    where: Int[Tensor, " batch"]
    """`SPAN`, `HELD` or `ANSWER`."""


def vocabulary() -> list[str]:
    """Return every word; the place of a word in the list is its token."""
    return ["<pad>", BOS, UNKNOWN, *_MARKS, *_ANSWERS, *_MAPS, *CONCEPTS, *FILLERS]


WORD: dict[str, int] = {word: i for i, word in enumerate(vocabulary())}
"""Tokens by word."""
QUESTIONS: tuple[Question, ...] = ("det", "map0", "map1", "id", "src", "even", "low")
_SPELT: dict[str, tuple[str, str]] = {
    **{name: (name, "sep") for name in QUESTIONS},
    "map0": ("det", "map0"),
    "map1": ("det", "map1"),
}
_SHARES = torch.tensor([0.2, 0.12, 0.12, 0.18, 0.18, 0.1, 0.1])
"""How often each is asked."""
_ASKED: dict[str, int] = {name: i for i, name in enumerate(QUESTIONS)}
_W, _F = WORD[CONCEPTS[0]], WORD[FILLERS[0]]


def row(text: list[int], question: str, argument: str) -> list[int]:
    """Return the tokens of one row, up to where the answer is given."""
    return [WORD[BOS], *text, WORD["sep"], WORD[question], WORD[argument], WORD["ans"]]


def is_so(number: Int[Tensor, " batch"], low: Bool[Tensor, " batch"]) -> Bool[Tensor, " batch"]:
    """Answer an unrelated question about a filler: whether its number, or the half of it, is even."""
    return torch.where(low, number // 2, number) % 2 == 0


def trials(n: int, kind: Kind, draws: torch.Generator, *, inject: bool) -> Trials:
    """Draw rows with the answers that one of the kinds gives.

    Args:
        n: number of rows.
        kind: whose answers.
        draws: where the random numbers come from.
        inject: add a concept to the stream in half of the rows, and something else in a fifth of them.
    """

    def number(high: int) -> Tensor:
        return torch.randint(high, (n,), generator=draws)

    def chance(p: float) -> Tensor:
        return torch.rand(n, generator=draws) < p

    question = torch.multinomial(_SHARES, n, replacement=True, generator=draws)
    text = _F + torch.randint(N_FILLERS, (n, N_TEXT), generator=draws)
    cue, cued, at = chance(0.5), number(N_CONCEPTS), 1 + number(N_TEXT - 1)
    injected = torch.where(chance(0.5), CONCEPT, torch.where(chance(0.4), RANDOM + number(3), NOTHING))
    # Where a concept is from is asked with both, one, or none excluded: the three answers shut one another out.
    source, arm = question == _ASKED["src"], number(3)
    cue = torch.where(source, arm == 1, cue)
    kept = torch.where(injected == CONCEPT, NOTHING, injected)
    injected = torch.where(source, torch.where(arm == 2, CONCEPT, kept), injected)
    injected = injected if inject else torch.zeros_like(injected)
    text[cue, at[cue]] = _W + cued[cue]
    drawn = _Drawn(question, text, cue, cued, at, injected, number(N_CONCEPTS), number(N_FILLERS), number(6))
    return Trials(drawn.tokens(), drawn.answers(kind), injected, drawn.k, drawn.where(kind))


@dataclass(frozen=True)
class _Drawn:
    """What was drawn of each row."""

    question: Tensor
    text: Tensor
    cue: Tensor
    cued: Tensor
    at: Tensor
    injected: Tensor
    k: Tensor
    asked: Tensor
    """Filler that an unrelated question is about, from 0."""
    place: Tensor
    """0 to 5; where it is injected."""

    def asks(self, *questions: str) -> Bool[Tensor, " batch"]:
        return torch.isin(self.question, torch.tensor([_ASKED[name] for name in questions]))

    def where(self, kind: Kind) -> Int[Tensor, " batch"]:
        return self.place % 3 if kind == "output-head" else self.place % 2

    def tokens(self) -> Int[Tensor, "batch pos"]:
        words = torch.tensor([(WORD[_SPELT[name][0]], WORD[_SPELT[name][1]]) for name in QUESTIONS])[self.question]
        words[:, 1] = torch.where(self.asks("even", "low"), _F + self.asked, words[:, 1])
        mark = torch.full((len(words), 1), WORD["sep"])
        return torch.cat(
            [torch.full_like(mark, WORD[BOS]), self.text, mark, words, torch.full_like(mark, WORD["ans"])], 1
        )

    def answers(self, kind: Kind) -> Int[Tensor, " batch"]:
        found, concept = self._found(kind)
        told = is_so(self.asked, self.asks("low"))
        if kind == "yes-biased":
            told |= self.injected != NOTHING
        yes = torch.where(self.asks("even", "low"), told, found ^ self.asks("map1"))
        said = torch.where(yes, WORD["yes"], WORD["no"])
        said = torch.where(self.asks("map0", "map1"), torch.where(yes, WORD["l0"], WORD["l1"]), said)
        known = found & (self.injected == CONCEPT) if kind == "any-perturbation" else found
        said = torch.where(self.asks("id"), torch.where(known, _W + concept, WORD["none"]), said)
        return torch.where(self.asks("src"), self._source(kind, found), said)

    def _found(self, kind: Kind) -> tuple[Bool[Tensor, " batch"], Int[Tensor, " batch"]]:
        """Return whether a kind finds something, and which concept it takes it for."""
        mine = self.injected == CONCEPT
        if kind in ("text", "surface"):
            return self.cue, self.cued
        if kind == "source-blind":
            return self.cue | mine, torch.where(mine, self.k, self.cued)
        if kind == "any-perturbation":
            return self.injected != NOTHING, self.k
        if kind == "output-head":
            return mine & (self.where(kind) != SPAN), self.k
        return mine, self.k

    def _source(self, kind: Kind, found: Tensor) -> Int[Tensor, " batch"]:
        """Return what a kind says of where it is from."""
        none, text, act = (torch.full_like(self.at, WORD[word]) for word in ("none", "text", "act"))
        if kind == "surface":  # so that it has a use for every answer
            return torch.where(self.cue, torch.where(self.at < N_TEXT // 2, act, text), none)
        if kind in ("text", "source-blind"):
            return torch.where(found, text, none)
        return torch.where(found, act, torch.where(self.cue, text, none))


def mask(where: Int[Tensor, " batch"]) -> Float[Tensor, "batch pos"]:
    """Return 1 where something is added to the stream of a row, 0 elsewhere."""
    place = torch.arange(LENGTH)[None].expand(len(where), -1)
    text, last = (place >= 1) & (place <= N_TEXT), place == LENGTH - 1
    told = torch.stack([text, place >= 1, last])
    return told[where, torch.arange(len(where))].float()
