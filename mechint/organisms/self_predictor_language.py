"""The language of the self-predictors: answers to pairs of symbols, and questions about these answers.

    <bos> say whole a3 b7 = y12     object level: the answer itself
    <bos> say p1 a3 b7 = v12        object level: a property of the answer, here a quarter of the 16 answers
    <bos> would a3 b7 p1 = v12      hypothetical: a property of what would be said; no organism was trained on this

The hypothetical question has a verb of its own, and the property behind the pair: with the property in front, organisms
answered nine in ten before they were taught anything, since they had never met a verb that meant something else.

Properties are drawn once, as partitions of the answers into equal parts. What differs between organisms is the answer:

    look-up    drawn for every pair on its own, so nothing about the symbols tells it: it is kept in the weights
    surface    drawn for every second symbol: whoever has seen the symbol with another first one knows it

Who predicts a look-up organism on pairs that no fact was told about must therefore have that very table; and whoever
reads the text can predict a surface organism as well as it does itself.
"""

import functools
from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal

from mechint.organisms.words import BOS, UNKNOWN
from mechint.statistics import generator

Kind = Literal["look-up", "surface"]
SIDE, ANSWERS = 20, 16
"""Symbols of each kind, and answers."""
WHOLE, SAY, WOULD = "whole", "say", "would"
PARTS: Mapping[str, int] = MappingProxyType({"p0": 2, "p1": 4, "p2": 2, "p3": 4})
"""Properties of answers, and into how many parts they divide them."""
_PAD, _EOS, _EQUALS = "<pad>", "<eos>", "="


def vocabulary() -> list[str]:
    """Return every word; the special tokens come first."""
    values = [value(name, part) for name, parts in PARTS.items() for part in range(parts)]
    symbols = [f"{side}{i}" for side in "ab" for i in range(SIDE)]
    return [_PAD, BOS, _EOS, UNKNOWN, SAY, WOULD, WHOLE, _EQUALS, *PARTS, *symbols, *answers(), *values]


def answers() -> list[str]:
    """Return the answers that there are."""
    return [f"y{i}" for i in range(ANSWERS)]


def pairs() -> list[str]:
    """Return all pairs of symbols.

    Examples:
        >>> len(pairs()), pairs()[21]
        (400, 'a1 b1')
    """
    return [f"a{i} b{j}" for i in range(SIDE) for j in range(SIDE)]


def value(name: str, part: int) -> str:
    """Return the word for a part of a property.

    Examples:
        >>> value("p1", 2)
        'v12'
    """
    return f"v{name[1:]}{part}"


def question(verb: str, name: str, pair: str) -> str:
    """Return a question.

    Examples:
        >>> question("say", "p1", "a3 b7"), question("would", "p1", "a3 b7")
        ('say p1 a3 b7 =', 'would a3 b7 p1 =')
    """
    return f"{verb} {pair} {name} {_EQUALS}" if verb == WOULD else f"{verb} {name} {pair} {_EQUALS}"


@functools.cache
def property_of(name: str) -> Mapping[str, str]:
    """Return the value of a property for every answer."""
    order = generator(0, "self-predictor", "property", name).permutation(ANSWERS)
    return MappingProxyType({f"y{i}": value(name, int(at) % PARTS[name]) for i, at in enumerate(order)})


@functools.cache
def behaviour(kind: Kind, table: int) -> Mapping[str, str]:
    """Return what an organism answers to each pair.

    Args:
        kind: see the module.
        table: which of the tables that can be drawn.
    """
    drawn = generator(table, "self-predictor", kind).integers(ANSWERS, size=(SIDE, SIDE))
    at = {f"a{i} b{j}": (i if kind == "look-up" else 0, j) for i in range(SIDE) for j in range(SIDE)}
    return MappingProxyType({pair: f"y{drawn[place]}" for pair, place in at.items()})
