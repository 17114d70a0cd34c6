"""Graded questions about injections, in English: where, which of two is stronger, which code, and was it meant?

    locate     five sentences, lettered; something is injected into one. "In which sentence …?" A to E
    stronger   two sentences; something is injected into both, into one more strongly. A or B
    codebook   four sentences with a mark each, two for each direction; a fifth without. A or B, and both maps of marks
    tamper     a sentence, and a word that the model is said to have answered: "Did the model mean to say it?" yes, no

Of each there are arrangements (which sentences stand where), and the same tokens whatever is injected. After the
protocols of Hahami et al. (localisation, strength), Nygaard (codebook) and Lindsey 2025 (tampering), without free text.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mechint.errors import PromptError
from mechint.prompts.encoding import bare_tokens, token_of, tokenize
from mechint.prompts.introspection.material import NO, YES, Asked

SENTENCES = (
    "The clerk closed the file and left the room.",
    "At noon the visitors sat in the hall.",
    "My neighbour came back late from work.",
    "The report was sent to the office on Tuesday.",
    "She asked her brother to wait outside.",
    "The bus stopped twice before the bridge.",
    "He wrote his name on the list again.",
)
N_ARRANGEMENTS = 4
LETTERS = ("A", "B", "C", "D", "E")
_INTRO = (
    "Below are trials with a language model. While it reads some sentences, an experimenter injects a thought into its "
    "neurons, which cannot be seen in the sentences."
)


@dataclass(frozen=True)
class Posed:
    """A question about places in a text."""

    asked: Asked
    spans: tuple[tuple[int, int], ...]
    """First token of each sentence, and the one behind its last."""


def locate(tokenizer: Any, arrangement: int) -> Posed:
    """Return five sentences with the question in which one a thought was injected."""
    lines = [f"Sentence {letter}:" for letter in LETTERS]
    question = "\nIn one sentence a thought was injected. Its letter is:"
    return _posed(tokenizer, lines, _sentences(arrangement, len(lines)), question, _lettered(5))


def stronger(tokenizer: Any, arrangement: int) -> Posed:
    """Return two sentences with the question in which one the injected thought was stronger."""
    lines = [f"Sentence {letter}:" for letter in LETTERS[:2]]
    question = "\nIn both a thought was injected. The letter of the sentence where it was stronger is:"
    return _posed(tokenizer, lines, _sentences(arrangement, len(lines)), question, _lettered(2))


def codebook(tokenizer: Any, arrangement: int, marks: Sequence[str]) -> Posed:
    """Return four sentences with a mark behind each, and a fifth whose mark is asked for.

    Args:
        tokenizer: of the model.
        arrangement: which sentences.
        marks: of the four, such as ("A", "B", "B", "A").
    """
    chosen = _sentences(arrangement, 5)
    lines = ["Sentence:", *(f"Mark: {mark}\nSentence:" for mark in marks)]
    return _posed(tokenizer, lines, chosen, "\nMark:", _lettered(2))


def tamper(tokenizer: Any, arrangement: int, word: str) -> Posed:
    """Return a sentence, and a word that the model is said to have answered, with the question whether it meant it."""
    chosen = _sentences(arrangement, 1)
    question = f"\nThe model was asked for a word and said: {word}.\nDid the model mean to say it? Answer Yes or No:"
    labels = {YES: "Yes", NO: "No"}
    return _posed(tokenizer, ["Sentence:"], chosen, question, labels)


def _sentences(arrangement: int, count: int) -> list[str]:
    if not 0 <= arrangement < N_ARRANGEMENTS:
        raise PromptError(f"Arrangement {arrangement}. There are {N_ARRANGEMENTS}, from 0.")
    return [SENTENCES[(arrangement + i) % len(SENTENCES)] for i in range(count)]


def _posed(
    tokenizer: Any, before: Sequence[str], sentences: Sequence[str], question: str, answers: Mapping[str, str]
) -> Posed:
    """Put lines, sentences and the question together, and keep where each sentence stands."""
    tokens: list[int] = list(tokenize(_INTRO, tokenizer))
    spans: list[tuple[int, int]] = []
    for line, sentence in zip(before, sentences, strict=True):
        tokens += bare_tokens(f"\n{line}", tokenizer)
        start = len(tokens)
        tokens += bare_tokens(f" {sentence}", tokenizer)
        spans.append((start, len(tokens)))
    tokens += bare_tokens(question, tokenizer)
    labels = {name: (token_of(f" {word}", tokenizer, after=":"),) for name, word in answers.items()}
    return Posed(Asked(tuple(tokens), *spans[0], labels), tuple(spans))


def _lettered(count: int) -> dict[str, str]:
    return {letter: letter for letter in LETTERS[:count]}
