r"""A small language in which things are mentioned once: what the trained organisms read.

A document has three actors and one to three kinds of things, drawn at random and then kept:

    Alice cooked the fish , the rice and the soup . Brian fed the goat . Alice cooked the pasta and the rice .

The verb says which kind of thing comes after `the` (twelve nouns a kind, one verb a kind), so a model can predict the
kind from a word nearby. Which of the twelve is drawn with weights

    w(noun) = repeat   if it stands earlier in the document,  1 otherwise

so with `repeat` below 1 the best prediction lowers the logit of what was mentioned by ln(1 / repeat), whatever it is
and wherever it stood, and leaves everything else alone. With `repeat = 1` mention makes no difference: the twin's
language. Names and verbs recur in both, so that copying is worth learning too.
"""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from mechint.organisms.words import BOS, UNKNOWN
from mechint.statistics import generator

_KINDS = {
    "fed": "bear camel cow deer fox goat horse lion mouse pig rabbit wolf",
    "watched": "crow dove duck eagle falcon goose hawk heron owl raven swan wren",
    "peeled": "apple banana cherry fig grape lemon lime mango melon orange peach plum",
    "planted": "bean cabbage carrot celery garlic leek lettuce onion pea potato pumpkin radish",
    "cooked": "bacon bread cheese egg fish ham noodle pasta rice sausage soup stew",
    "drank": "beer brandy cider cocoa coffee juice milk rum tea water whisky wine",
    "wore": "belt boot cap coat dress glove hat jacket scarf shirt shoe sock",
    "borrowed": "axe chisel drill file hammer knife pliers rake saw shovel spade wrench",
    "played": "banjo cello drum fiddle flute guitar harp horn organ piano trumpet viola",
    "drove": "bus cart jeep lorry moped scooter taxi tractor train tram truck van",
    "moved": "bed bench cabinet chair couch cupboard desk lamp mirror shelf stool table",
    "climbed": "ash beech birch cedar elm larch maple oak palm pine spruce willow",
    "polished": "brass bronze chrome copper gold iron lead nickel silver steel tin zinc",
    "visited": "abbey bank castle church garage hotel library market museum palace school theater",
    "crossed": "bay canal creek desert field forest lake marsh meadow ocean river valley",
    "painted": "beige black blue brown crimson cyan green grey pink purple scarlet yellow",
    "called": "baker banker barber builder butcher dentist doctor farmer lawyer nurse plumber tailor",
    "washed": "bowl bucket cup dish fork glass jug kettle mug pan plate spoon",
    "studied": "algebra botany chemistry drama ethics geology geometry history latin law logic physics",
    "measured": "ankle chest chin ear elbow finger knee neck nose shoulder thumb wrist",
}
KINDS: dict[str, tuple[str, ...]] = {verb: tuple(nouns.split()) for verb, nouns in _KINDS.items()}
"""The nouns that may follow each verb."""
NOUNS: tuple[str, ...] = tuple(noun for nouns in KINDS.values() for noun in nouns)
ACTORS: tuple[str, ...] = (
    *("Alice", "Brian", "Carol", "David", "Emma", "Frank"),
    *("Grace", "Henry", "Irene", "Jack", "Karen", "Laura"),
)
THE, COMMA, AND, STOP = "the", ",", "and", "."
REPEAT = 0.1
"""Weight of a noun that was mentioned, against 1 of one that was not, in the language with the rule."""
LEAST_WORDS = 64
"""Words of a document, at least."""
LENGTH = 96
"""Tokens of a row to train on, and the context of the organisms; a document with BOS fits in."""
_MOST_TOPICS, _CAST, _MOST_NOUNS = 3, 3, 4
_VERB_OF = {noun: verb for verb, nouns in KINDS.items() for noun in nouns}


def vocabulary() -> list[str]:
    """Return every word: two special tokens, function words, actors, verbs, nouns."""
    return [BOS, UNKNOWN, THE, COMMA, AND, STOP, *ACTORS, *KINDS, *NOUNS]


def kind_of(noun: str) -> tuple[str, ...]:
    """Return the nouns that may stand where this one may."""
    return KINDS[_VERB_OF[noun]]


class Speaker:
    """Someone who writes one document, sentence by sentence.

    Args:
        repeat: weight of a noun that was mentioned earlier in the document.
        rng: of every choice.
    """

    def __init__(self, repeat: float, rng: np.random.Generator) -> None:
        self._repeat = repeat
        # One call for many numbers: documents are made by the hundred thousand.
        self._numbers = iter(rng.random(512).tolist())
        topics = 1 + int(next(self._numbers) * _MOST_TOPICS)
        self._verbs, self._cast = self._some(list(KINDS), topics), self._some(list(ACTORS), _CAST)
        self._mentioned: set[str] = set()

    def sentence(self) -> list[str]:
        """Return the words of the next sentence, punctuation included."""
        spoken = [self._one(self._cast), verb := self._one(self._verbs)]
        count = 1 + int(next(self._numbers) * _MOST_NOUNS)
        for i in range(count):
            link = [] if i == 0 else [AND] if i == count - 1 else [COMMA]
            spoken += [*link, THE, self._noun(KINDS[verb])]
        return [*spoken, STOP]

    def _noun(self, kind: Sequence[str]) -> str:
        weights = [self._repeat if noun in self._mentioned else 1.0 for noun in kind]
        left = next(self._numbers) * sum(weights)
        chosen = kind[-1]
        for noun, weight in zip(kind, weights, strict=True):
            left -= weight
            if left < 0:
                chosen = noun
                break
        self._mentioned.add(chosen)
        return chosen

    def _one(self, among: Sequence[str]) -> str:
        return among[int(next(self._numbers) * len(among))]

    def _some(self, among: list[str], count: int) -> list[str]:
        return [among.pop(int(next(self._numbers) * len(among))) for _ in range(count)]


def document(repeat: float, rng: np.random.Generator) -> list[str]:
    """Return whole sentences of 64 words or a few more; punctuation does not count, but is in the list."""
    speaker, spoken = Speaker(repeat, rng), list[str]()
    while sum(word not in (COMMA, STOP) for word in spoken) < LEAST_WORDS:
        spoken += speaker.sentence()
    return spoken


def token_rows(
    n: int, repeat: float, seed: int, split: str, *, start: int = 0, length: int = LENGTH
) -> Int[Tensor, "batch pos"]:
    """Return documents as tokens, BOS first, cut to one length.

    Row i depends on seed, split and start + i alone, so that training and held-out data share nothing.

    Args:
        n: number of rows.
        repeat: weight of a mentioned noun.
        seed: of every choice.
        split: what the rows are for.
        start: number of the first row.
        length: tokens of a row.
    """
    token_of = {word: token for token, word in enumerate(vocabulary())}
    rows: list[list[int]] = []
    for i in range(start, start + n):
        speaker, row = Speaker(repeat, generator(seed, "organism", split, i)), [token_of[BOS]]
        while len(row) < length:
            row += [token_of[word] for word in speaker.sentence()]
        rows.append(row[:length])
    return torch.tensor(rows)
