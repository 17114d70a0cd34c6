"""What a battery of introspection asks organisms, in their own language; see `introspection_language`."""

import hashlib
from collections.abc import Sequence

import torch

from mechint.errors import PromptError
from mechint.organisms.introspection_language import (
    CONCEPTS,
    FILLERS,
    N_TEXT,
    WORD,
    is_so,
    row,
    vocabulary,
)
from mechint.prompts.introspection.material import NO, NOTHING, STATE, TEXT, YES, Asked, Example, Material
from mechint.statistics import generator

_EXAMPLES = 48
_ANSWERS = {YES: "yes", NO: "no"}
_FLIPPED = {"flip 0": {YES: "l0", NO: "l1"}, "flip 1": {YES: "l1", NO: "l0"}}
_SOURCES = {STATE: "act", TEXT: "text", NOTHING: "none"}


class Invented(Material):
    """Texts of twelve fillers, in the words of the organisms.

    Args:
        n_carriers: number of texts.
        seed: of every choice.

    Examples:
        >>> asked = Invented(4).asked("detect", 0)
        >>> len(asked.tokens), asked.start, asked.stop, sorted(asked.labels)
        (17, 1, 13, ['no', 'yes'])
    """

    name = "words of organisms"
    concepts = CONCEPTS
    developing: tuple[str, ...] = ()
    n_sources = 1
    n_unrelated = 24
    reads_on = graded = False

    def __init__(self, n_carriers: int = 16, seed: int = 0) -> None:
        if n_carriers < 2:
            raise PromptError(f"{n_carriers} carriers. Expected at least two, to tell chance between texts.")
        self.n_carriers, self._seed = n_carriers, seed
        self._texts = [self._text("carrier", i) for i in range(n_carriers)]

    def asked(self, question: str, carrier: int, mention: str | None = None) -> Asked:
        """Return a question about a carrier; see `Material.asked`."""
        if not 0 <= carrier < self.n_carriers or mention not in (None, *CONCEPTS):
            raise PromptError(f"Carrier {carrier} with {mention!r}. There are {self.n_carriers}, and {CONCEPTS}.")
        text = list(self._texts[carrier])
        if mention is not None:
            rng = generator(self._seed, "introspection", "mention", carrier, mention)
            text[1 + int(rng.integers(N_TEXT - 1))] = WORD[mention]
        words, answers, right = self._worded(question)
        labels = {name: (WORD[word],) for name, word in answers.items()}
        return Asked(tuple(row(text, *words)), 1, 1 + N_TEXT, labels, right)

    def examples(self, concept: str) -> Sequence[Example]:
        """Return the concept's word in the middle of fillers."""
        return [self._example(concept, i) for i in range(_EXAMPLES)]

    def fillers(self) -> Sequence[Example]:
        """Return fillers in the middle of fillers."""
        return [self._example(None, i) for i in range(_EXAMPLES)]

    @property
    def content_hash(self) -> str:
        """A hash of all texts and words."""
        told = repr((vocabulary(), self._texts, self._seed))
        return f"sha256:{hashlib.sha256(told.encode()).hexdigest()}"

    def _worded(self, question: str) -> tuple[tuple[str, str], dict[str, str], str]:
        """Return question and argument, the words of the answers, and the answer that is always right."""
        if question in _FLIPPED:
            return ("det", f"map{question[-1]}"), _FLIPPED[question], ""
        if question == "detect":
            return ("det", "sep"), _ANSWERS, ""
        if question == "identify":
            return ("id", "sep"), {**{concept: concept for concept in CONCEPTS}, NOTHING: "none"}, ""
        if question == "source 0":
            return ("src", "sep"), _SOURCES, ""
        family, _, number = question.partition(" ")
        if family != "unrelated" or not 0 <= int(number) < self.n_unrelated:
            raise PromptError(f"No question {question!r}. There are detect, flip, identify, source and unrelated.")
        filler, low = divmod(int(number), 2)
        so = is_so(torch.tensor([filler]), torch.tensor([bool(low)]))
        return ("low" if low else "even", FILLERS[filler]), _ANSWERS, YES if bool(so) else NO

    def _text(self, *labels: object) -> list[int]:
        rng = generator(self._seed, "introspection", *labels)
        return [WORD[FILLERS[i]] for i in rng.integers(len(FILLERS), size=N_TEXT)]

    def _example(self, concept: str | None, index: int) -> Example:
        text = self._text("example", concept, index)
        if concept is not None:
            text[N_TEXT // 2] = WORD[concept]
        return Example((WORD["<bos>"], *text), 1 + N_TEXT // 2)
