"""What is asked: object-level questions x with answer y = M(x), and hypothetical questions about a property of y.

Of texts, in the words of Binder et al. 2024 ("Looking Inward: Language Models Can Learn About Themselves by
Introspection", arXiv 2410.13787): `Previously, you were asked the following question: "{x}" {question}`. The answer to
a text is the first word that the model goes on with. Of organisms, in their own language.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from mechint.errors import ConfigError, PromptError
from mechint.organisms import self_predictor_language as language
from mechint.prompts import PromptSet
from mechint.statistics import generator

_VOWELS = "aeiou"
_LETTERS = tuple("abcdefghijklmnopqrstuvwxyz")


@dataclass(frozen=True)
class Item:
    """An object-level question."""

    id: str
    text: str


@dataclass(frozen=True)
class Property:
    """Something about an answer."""

    values: tuple[str, ...]
    """All that it can be: anything else is no answer to the question."""
    of: Callable[[str], str | None]
    """The property of an answer; None where it has none."""
    question: str = ""


@runtime_checkable
class Task(Protocol):
    """Items, and how to ask about them."""

    properties: Mapping[str, Property]
    tokens: int
    """Longest answer."""

    def items(self, n: int, seed: int) -> Sequence[Item]:
        """Return at most n questions, in an order drawn by the seed."""
        ...

    def asked(self, item: Item) -> str:
        """Return the object-level prompt."""
        ...

    def hypothetical(self, item: Item, name: str) -> str:
        """Return the prompt that asks for a property of the answer that the object-level prompt would get."""
        ...

    def answer(self, written: str) -> str:
        """Return the answer in what a model wrote."""
        ...


class Symbols:
    """The language of the self-predictors."""

    tokens = 1

    def __init__(self) -> None:
        self.properties: Mapping[str, Property] = {
            name: Property(tuple(sorted(set(values.values()))), values.get)
            for name in language.PARTS
            for values in (language.property_of(name),)
        }

    def items(self, n: int, seed: int) -> Sequence[Item]:
        """Return pairs of symbols."""
        pairs = language.pairs()
        order = generator(seed, "self-prediction", "items").permutation(len(pairs))[:n]
        return [Item(pairs[at].replace(" ", "-"), pairs[at]) for at in order]

    def asked(self, item: Item) -> str:
        """Ask for the answer itself."""
        return language.question(language.SAY, language.WHOLE, item.text)

    def hypothetical(self, item: Item, name: str) -> str:
        """Ask what would be said."""
        return language.question(language.WOULD, name, item.text)

    def answer(self, written: str) -> str:
        """Return the word."""
        return written


class Texts:
    """Texts that are to be continued.

    Args:
        prompts: the texts.

    Raises:
        PromptError: too few of them.
    """

    tokens = 4

    def __init__(self, prompts: PromptSet) -> None:
        if len(prompts) < 8:
            raise PromptError(f"{len(prompts)} texts to be continued. Give at least 8: some are trained on.")
        self._prompts = prompts
        self.properties: Mapping[str, Property] = TEXT_PROPERTIES

    def items(self, n: int, seed: int) -> Sequence[Item]:
        """Return texts."""
        order = generator(seed, "self-prediction", "items").permutation(len(self._prompts))[:n]
        return [Item(self._prompts[int(at)].id, self._prompts[int(at)].prompt) for at in order]

    def asked(self, item: Item) -> str:
        """Let the text be continued."""
        return item.text

    def hypothetical(self, item: Item, name: str) -> str:
        """Ask as Binder et al. do; the line for the answer is for models that were never taught to converse."""
        asked = f'Previously, you were asked the following question: "{item.text}" {self.properties[name].question}'
        return f"{asked}\nAnswer:"

    def answer(self, written: str) -> str:
        """Return the first word, in small letters."""
        found = re.search(r"[^\W_]+", written)
        return found.group().lower() if found else ""


def chosen(task: Task, trained: Sequence[str], held_out: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the properties to train on and those to hold out.

    Raises:
        ConfigError: a property that this kind of question has not, or none to train on.
    """
    if strange := [name for name in (*trained, *held_out) if name not in task.properties]:
        raise ConfigError(f"No property {', '.join(strange)}. There are: {', '.join(task.properties)}.")
    trained = tuple(trained) or tuple(name for name in task.properties if name not in held_out)
    if not trained:
        raise ConfigError("Every property is held out. Leave at least one to train on.")
    return tuple(trained), tuple(held_out)


def _letter(at: int) -> Callable[[str], str | None]:
    return lambda word: word[at] if len(word) > at and word[at] in _LETTERS else None


def _either(yes: Callable[[str], bool], words: tuple[str, str]) -> Callable[[str], str | None]:
    return lambda word: words[0 if yes(word) else 1] if word else None


TEXT_PROPERTIES: Mapping[str, Property] = {
    "first_character": Property(_LETTERS, _letter(0), "What is the first letter of your response?"),
    "second_character": Property(_LETTERS, _letter(1), "What is the second letter of your response?"),
    "starts_with_vowel": Property(
        ("yes", "no"),
        _either(lambda word: word[0] in _VOWELS, ("yes", "no")),
        "Does your response start with a vowel? Answer with yes or no.",
    ),
    "even_length": Property(
        ("even", "odd"),
        _either(lambda word: len(word) % 2 == 0, ("even", "odd")),
        "Is the number of letters of your response even or odd?",
    ),
    "among_options": Property(
        ("yes", "no"),
        _either(lambda word: word in {"the", "a", "an", "and", "of", "to", "in"}, ("yes", "no")),
        "Is your response among these options: the, a, an, and, of, to, in? Answer with yes or no.",
    ),
}
"""Properties of a word in small letters, with their questions."""
