"""Concepts to steer by: contrast pairs, openings on which an effect is measured, and words that tell it.

Everything here is made from small lists that are written out, so a set is the same on every machine. The words by which
an effect is measured occur in none of the contrast texts: a vector that only repeats what it was fitted on scores
nothing.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mechint.errors import PromptError
from mechint.prompts import concept_words as words
from mechint.prompts.contrast import ContrastPairs, contrast
from mechint.prompts.prompt import Prompt, PromptSet, check_number
from mechint.statistics.seeds import generator

_JUDGEMENTS = (
    "Yesterday we went to the new {}. I thought it was",
    "My sister told me about the {} in our town. She said it was",
    "After an hour at the {} he wrote in his diary that it was",
    "We talked about the {} on the way home. Everyone agreed that it was",
)
_BEFORE_VERBS = (
    "The old man who owns the {}",
    "In our street near the {} the neighbours",
    "From what we know of the {} the director",
    "My best friend at the {}",
)
_BEFORE_PRONOUNS = (
    "Nobody likes the {} much because",
    "After the meeting the {} explained that",
    "We asked the {} for advice, and",
    "When the {} arrived at the party,",
)
_BEFORE_NOUNS = (
    "At the {} we talked for an hour about the",
    "The large picture in the {} showed the",
    "On the way to the {} she told me about the",
    "In a book from the {} I read about the",
)


def openings(n: int = 48, seed: int = 0) -> PromptSet:
    """Return beginnings of sentences that call for a judgement and suggest none; places are clusters.

    Raises:
        PromptError: more than there are.
    """
    return _openings(words.PLACES, _JUDGEMENTS, n, seed)


def _before_verbs(n: int = 48, seed: int = 0) -> PromptSet:
    return _openings(words.PLACES, _BEFORE_VERBS, n, seed)


def _before_pronouns(n: int = 48, seed: int = 0) -> PromptSet:
    return _openings(words.JOBS, _BEFORE_PRONOUNS, n, seed)


def _before_nouns(n: int = 48, seed: int = 0) -> PromptSet:
    return _openings(words.INLAND, _BEFORE_NOUNS, n, seed)


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
    openings: Callable[[int, int], PromptSet] = openings
    """From number and seed to beginnings after which either kind of word can follow."""


def sentiment(n: int = 96, seed: int = 0) -> ContrastPairs:
    """Return sentences that praise a thing beside sentences that condemn it; things are groups."""
    texts: list[tuple[str, str, str]] = []
    for subject in words.SUBJECTS:
        for i, (good, bad) in enumerate(zip(words.GOOD, words.BAD, strict=True)):
            liked, disliked = words.LIKED[i % len(words.LIKED)], words.DISLIKED[i % len(words.DISLIKED)]
            texts.append(
                (f"The {subject} was {good}. I {liked} it.", f"The {subject} was {bad}. I {disliked} it.", subject)
            )
    return _paired("sentiment", texts, n, seed)


def tense(n: int = 96, seed: int = 0) -> ContrastPairs:
    """Return sentences about yesterday beside the same about tomorrow; deeds are groups."""
    texts = [
        (f"Yesterday {name} {past} the {thing}.", f"Tomorrow {name} will {present} the {thing}.", past)
        for name in words.NAMES
        for past, present in words.DEEDS
        for thing in words.THINGS
    ]
    return _paired("tense", texts, n, seed)


def gender(n: int = 96, seed: int = 0) -> ContrastPairs:
    """Return sentences about women beside the same about men; pairs of names are groups."""
    texts = [
        (f"{woman} {past} the {thing}.", f"{man} {past} the {thing}.", woman)
        for woman, man in words.NAME_PAIRS
        for past, _ in words.DEEDS
        for thing in words.THINGS
    ]
    return _paired("gender", texts, n, seed)


def topic(n: int = 96, seed: int = 0) -> ContrastPairs:
    """Return sentences about the sea beside sentences about the mountains; times and deeds are groups."""
    texts = [
        (f"{time} the {one} {way} the {here}.", f"{time} the {other} {way} the {there}.", f"{time} {way}")
        for time in words.TIMES
        for way in words.WAYS
        for one, other in zip(words.PEOPLE_OF_THE_SEA, words.PEOPLE_OF_THE_MOUNTAINS, strict=True)
        for here, there in zip(words.AT_SEA, words.IN_THE_MOUNTAINS, strict=True)
    ]
    return _paired("topic", texts, n, seed)


def formality(n: int = 80, seed: int = 0) -> ContrastPairs:
    """Return formal sentences beside informal ones of the same content; things are groups."""
    texts = [(formal.format(it), informal.format(it), it) for it in words.GOODS for formal, informal in words.REGISTERS]
    return _paired("formality", texts, n, seed)


def french(n: int = 96, seed: int = 0) -> ContrastPairs:
    """Return French sentences beside their English translations; what is done is the group."""
    texts = [
        (f"{name} {fait} {la}.", f"{name} {does} {there}.", does)
        for name in words.NAMES
        for does, fait in words.ACTIONS
        for there, la in words.WHEREABOUTS
    ]
    return _paired("french", texts, n, seed)


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
        _before_verbs,
    ),
    "gender": Concept(
        "women",
        gender,
        (" she", " her", " herself"),
        (" he", " his", " him", " himself"),
        "The following is a story about women.\n\n",
        _before_pronouns,
    ),
    "topic": Concept(
        "the sea",
        topic,
        (" sea", " ocean", " ship", " boat", " water"),
        (" mountain", " forest", " snow", " valley", " hill"),
        "The following is a story about the sea.\n\n",
        _before_nouns,
    ),
    "formality": Concept(
        "formal language",
        formality,
        (" satisfactory", " acceptable", " adequate", " appropriate", " suitable"),
        (" cool", " awesome", " crazy", " weird", " dumb"),
        "The following is an official report in formal language.\n\n",
    ),
    "french": Concept(
        "French",
        french,
        (" très", " pas", " plus", " trop", " assez"),
        (" very", " not", " more", " too", " quite"),
        "The following text changes from English to French in the middle of a sentence.\n\n",
    ),
}
"""By name."""


def _openings(fillings: Sequence[str], texts: Sequence[str], n: int, seed: int) -> PromptSet:
    check_number(n)
    every = [(filling, i, text.format(filling)) for filling in fillings for i, text in enumerate(texts)]
    if n > len(every):
        raise PromptError(f"There are {len(every)} openings; {n} were asked for.")
    order = generator(seed, "openings").permutation(len(every))[:n]
    chosen = [every[i] for i in order]
    return PromptSet("openings", tuple(Prompt(f"{one}-{i}", text, cluster=one) for one, i, text in chosen))


def _paired(name: str, texts: Sequence[tuple[str, str, str]], n: int, seed: int) -> ContrastPairs:
    """Draw n pairs of all there are."""
    check_number(n)
    if n > len(texts):
        raise PromptError(f"There are {len(texts)} pairs of {name}; {n} were asked for.")
    drawn = [texts[k] for k in generator(seed, name).permutation(len(texts))[:n]]
    positive, negative, groups = zip(*drawn, strict=True)
    return contrast(positive, negative, groups=groups, name=name)
