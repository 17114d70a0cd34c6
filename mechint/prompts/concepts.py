"""Concepts to steer by: contrast pairs, openings on which an effect is measured, and words that tell it.

Everything here is made from small lists that are written out, so a set is the same on every machine. The words by which
an effect is measured occur in none of the contrast texts: a vector that only repeats what it was fitted on scores
nothing.
"""

from collections.abc import Callable
from dataclasses import dataclass

from mechint.errors import PromptError
from mechint.prompts.contrast import ContrastPairs, contrast
from mechint.prompts.prompt import Prompt, PromptSet, check_number
from mechint.statistics.seeds import generator

_SUBJECTS = [
    "film",
    "meal",
    "hotel",
    "concert",
    "book",
    "journey",
    "garden",
    "party",
    "lecture",
    "holiday",
    "play",
    "dinner",
    "museum",
    "song",
    "novel",
    "festival",
    "exhibition",
    "breakfast",
    "market",
    "picture",
    "story",
    "show",
    "restaurant",
    "weekend",
    "performance",
    "wedding",
    "picnic",
    "café",
]
_GOOD = ["wonderful", "excellent", "delightful", "superb", "charming", "marvellous", "lovely", "splendid"]
_BAD = ["terrible", "awful", "dreadful", "horrible", "miserable", "nasty", "appalling", "hideous"]
_LIKED = ["loved", "enjoyed", "adored", "admired"]
_DISLIKED = ["hated", "loathed", "despised", "regretted"]
_NAMES = ["Anna", "Peter", "Laura", "Mark", "Julia", "David", "Emma", "Paul", "Sarah", "Tom"]
_DEEDS = (
    ("painted", "paint"),
    ("cleaned", "clean"),
    ("repaired", "repair"),
    ("opened", "open"),
    ("visited", "visit"),
    ("moved", "move"),
    ("closed", "close"),
    ("checked", "check"),
)
_THINGS = ["house", "kitchen", "window", "door", "office", "bridge", "shop", "station"]
_PLACES = [
    "cinema",
    "gallery",
    "bakery",
    "library",
    "theatre",
    "park",
    "bar",
    "hall",
    "zoo",
    "pool",
    "shop",
    "club",
    "castle",
    "beach",
    "harbour",
    "studio",
]
_OPENINGS = (
    "Yesterday we went to the new {}. I thought it was",
    "My sister told me about the {} in our town. She said it was",
    "After an hour at the {} he wrote in his diary that it was",
    "We talked about the {} on the way home. Everyone agreed that it was",
)


@dataclass(frozen=True)
class Concept:
    """Something a model's text can have more or less of."""

    name: str
    """What more of it means."""
    pairs: Callable[[int, int], ContrastPairs]
    """From number and seed to contrast pairs."""
    positive: tuple[str, ...]
    """Words, with their leading space, that become likelier with more of it; in no contrast text."""
    negative: tuple[str, ...]
    instruction: str
    """What one would write before a prompt to ask for more of it."""


def openings(n: int = 48, seed: int = 0) -> PromptSet:
    """Return beginnings of sentences that call for a judgement and suggest none; places are clusters.

    Raises:
        PromptError: more than there are.
    """
    check_number(n)
    every = [(place, i, text.format(place)) for place in _PLACES for i, text in enumerate(_OPENINGS)]
    if n > len(every):
        raise PromptError(f"There are {len(every)} openings; {n} were asked for.")
    order = generator(seed, "openings").permutation(len(every))[:n]
    chosen = [every[i] for i in order]
    return PromptSet("openings", tuple(Prompt(f"{place}-{i}", text, cluster=place) for place, i, text in chosen))


def sentiment(n: int = 96, seed: int = 0) -> ContrastPairs:
    """Return sentences that praise a thing beside sentences that condemn it; things are groups."""
    rng = generator(seed, "sentiment")
    rows = [
        (subject, i, good, bad) for subject in _SUBJECTS for i, (good, bad) in enumerate(zip(_GOOD, _BAD, strict=True))
    ]
    texts: list[tuple[str, str, str]] = []
    for k in rng.permutation(len(rows))[:n]:
        subject, i, good, bad = rows[k]
        liked, disliked = _LIKED[i % len(_LIKED)], _DISLIKED[i % len(_DISLIKED)]
        texts.append(
            (f"The {subject} was {good}. I {liked} it.", f"The {subject} was {bad}. I {disliked} it.", subject)
        )
    return _paired("sentiment", texts, n)


def tense(n: int = 96, seed: int = 0) -> ContrastPairs:
    """Return sentences about yesterday beside the same about tomorrow; deeds are groups."""
    rng = generator(seed, "tense")
    rows = [(name, deed, thing) for name in _NAMES for deed in _DEEDS for thing in _THINGS]
    texts: list[tuple[str, str, str]] = []
    for k in rng.permutation(len(rows))[:n]:
        name, (past, present), thing = rows[k]
        texts.append((f"Yesterday {name} {past} the {thing}.", f"Tomorrow {name} will {present} the {thing}.", past))
    return _paired("tense", texts, n)


CONCEPTS: dict[str, Concept] = {
    "sentiment": Concept(
        "positive sentiment",
        sentiment,
        (" great", " good", " beautiful", " amazing", " fantastic", " perfect", " fun", " interesting"),
        (" bad", " boring", " ugly", " poor", " disappointing", " sad", " cold", " empty"),
        "The following is a very positive, enthusiastic review.\n\n",
    ),
    "tense": Concept(
        "past tense",
        tense,
        (" was", " had", " went", " saw", " came"),
        (" is", " shall", " can", " may", " must"),
        "The following happened a long time ago.\n\n",
    ),
}
"""By name."""


def _paired(name: str, texts: list[tuple[str, str, str]], n: int) -> ContrastPairs:
    check_number(n)
    if n > len(texts):
        raise PromptError(f"There are {len(texts)} pairs of {name}; {n} were asked for.")
    positive, negative, groups = zip(*texts, strict=True)
    return contrast(positive, negative, groups=groups, name=name)
