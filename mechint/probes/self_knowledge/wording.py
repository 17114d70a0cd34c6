"""What the model is asked: which answer, whether it is right, how sure it is; and the tokens in which it may say so.

Before each question stand others of its kind with their answers. Where it is asked about an answer, half of the answers
shown are right: they are called right, or get one of the upper confidences; the wrong ones are called wrong, or get one
of the lower. So it is shown what the words are for, with other questions; what it says of its own answer is up to it.

A label is one token in its own place, or it is refused. `token_of` would not do: after "A:", " 7" is two tokens for
Gemma (a blank, then the digit), and a bare "7" would be looked up where the model never writes one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mechint.errors import PromptError, TokenError
from mechint.probes.self_knowledge.settings import ConfidenceSettings
from mechint.prompts import Prompt, PromptSet, tokenize
from mechint.statistics import generator

Row = tuple[int, ...]


@dataclass(frozen=True)
class Parts:
    """Questions, divided so that no fact is in two parts."""

    shown: dict[str, tuple[Prompt, ...]]
    """By kind: those whose answers stand before every question."""
    calibrate: tuple[Prompt, ...]
    test: tuple[Prompt, ...]

    @property
    def asked(self) -> dict[str, tuple[Prompt, ...]]:
        """By kind: all that are asked, those for calibration first."""
        every = (*self.calibrate, *self.test)
        return {kind: tuple(p for p in every if kind_of(p) == kind) for kind in self.shown}


def kind_of(prompt: Prompt) -> str:
    """Return the kind of a question: what stands before the slash in its cluster; empty where there is none."""
    return (prompt.cluster or "").rpartition("/")[0].split("/")[0]


def divide(prompts: PromptSet, shots: int, calibrate: float, seed: int) -> Parts:
    """Divide questions by fact, within each kind.

    Raises:
        PromptError: a question without two answers, or too few facts of a kind.
    """
    if missing := [p.id for p in prompts if p.target is None or p.distractor is None]:
        raise PromptError(
            f"{len(missing)} of {len(prompts)} questions have no two answers (first: {missing[0]!r}). Give each a "
            "target, the right answer, and a distractor, a wrong one."
        )
    shown: dict[str, tuple[Prompt, ...]] = {}
    rest: tuple[list[Prompt], list[Prompt]] = ([], [])
    for kind in dict.fromkeys(map(kind_of, prompts)):
        own = [p for p in prompts if kind_of(p) == kind]
        facts = sorted({p.cluster or p.id for p in own})
        if len(facts) < shots + 4:
            raise PromptError(
                f"{len(facts)} facts of the kind {kind!r}: {shots} are shown with their answers, and at least 4 more "
                "are needed. Give more questions, or fewer shots."
            )
        order = [facts[int(i)] for i in generator(seed, "parts", kind).permutation(len(facts))]
        shown[kind] = tuple(next(p for p in own if (p.cluster or p.id) == fact) for fact in order[:shots])
        n = max(2, round(calibrate * (len(facts) - shots)))
        for part, names in zip(rest, (order[shots : shots + n], order[shots + n :]), strict=True):
            part.extend(p for p in own if (p.cluster or p.id) in names)
    return Parts(shown, tuple(rest[0]), tuple(rest[1]))


class Wording:
    """The texts of one kind of question.

    Args:
        shown: questions with answers that stand before each.
        settings: cues and labels.
    """

    def __init__(self, shown: Sequence[Prompt], settings: ConfidenceSettings) -> None:
        self._shown, self._settings = tuple(shown), settings

    def question(self, prompt: Prompt, chain: str = "") -> str:
        """Return the text after which the answer is written."""
        return self._examples + _thought(prompt.prompt, self._settings.chain_cue, chain)

    def think(self, prompt: Prompt) -> tuple[str, str]:
        """Return the text after which the model thinks, and the text that ends thinking."""
        head, _, tail = prompt.prompt.rpartition("\n")
        return f"{self._examples}{head}\n{self._settings.chain_cue}", f"\n{tail.strip()}"

    def nothing(self, prompt: Prompt) -> str:
        """Return the text after which the answer is written if nothing was asked."""
        return self._examples + prompt.prompt.rpartition("\n")[2]

    def is_right(self, prompt: Prompt, answer: str, chain: str = "") -> str:
        """Return the text after which the model says whether an answer is right."""
        s = self._settings
        return self._judged(
            s.truth_cue, [s.truth_labels[at % 2] for at in range(len(self._shown))], prompt, answer, chain
        )

    def how_sure(self, prompt: Prompt, answer: str, chain: str = "") -> str:
        """Return the text after which the model says how sure it is."""
        labels = self._settings.confidence_labels
        half = (len(labels) + 1) // 2
        upper, lower = labels[::-1][:half], labels[:half]
        said = [(lower if at % 2 else upper)[at // 2 % half] for at in range(len(self._shown))]
        return self._judged(self._settings.confidence_cue, said, prompt, answer, chain)

    @property
    def _examples(self) -> str:
        return "".join(f"{p.prompt}{p.target}\n\n" for p in self._shown)

    def _judged(self, cue: str, said: Sequence[str], prompt: Prompt, answer: str, chain: str) -> str:
        """Return examples in which every other answer is wrong, and what was said of each; then the question."""
        pairs = enumerate(zip(self._shown, said, strict=True))
        examples = [f"{p.prompt}{p.distractor if at % 2 else p.target}{cue}{word}\n\n" for at, (p, word) in pairs]
        return f"{''.join(examples)}{_thought(prompt.prompt, self._settings.chain_cue, chain)}{answer}{cue}"


def label_ids(text: str, labels: Sequence[str], tokenizer: Any) -> tuple[Row, tuple[int, ...]]:
    """Return the tokens of a text, and the one token that each label is right behind it.

    Raises:
        TokenError: a label is not exactly one token there, or two are the same one.
    """
    row = tokenize(text, tokenizer)
    found: list[int] = []
    for label in labels:
        together = tokenize(text + label, tokenizer)
        if together[:-1] != row:
            pieces = [str(tokenizer.decode([token])) for token in together[len(row) :]]
            raise TokenError(
                f"{label!r} is not one token behind {text[-20:]!r}, but {pieces}. Give a word that is; where the blank "
                "before a digit is a token of its own, put it at the end of the text and give the bare digit."
            )
        found.append(together[-1])
    unknown = tokenizer.unk_token_id
    if len(set(found)) < len(found) or (unknown is not None and unknown in found):
        raise TokenError(f"The labels {list(labels)} are not different known tokens behind {text[-20:]!r}.")
    return row, tuple(found)


def graded(log_p: np.ndarray) -> np.ndarray:
    """Return the confidence that labels from 0 to 1 in equal steps stand for: their mean under log p [row, label].

    Examples:
        >>> graded(np.log([[0.1, 0.1, 0.2]])).round(3).tolist()
        [0.625]
    """
    p = np.exp(log_p - log_p.max(axis=1, keepdims=True))
    return (p @ np.linspace(0, 1, p.shape[1])) / p.sum(axis=1)


def _thought(text: str, cue: str, chain: str) -> str:
    """Put what was thought before the last line of a question, where the answer begins."""
    if not chain:
        return text
    head, _, tail = text.rpartition("\n")
    return f"{head}\n{cue}{chain}\n{tail}"
