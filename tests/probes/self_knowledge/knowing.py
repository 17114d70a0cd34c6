"""A stub of a model that knows half of the facts, by heart and not by rule, and says of its answers what it is told to.

A question "a b" with two words is answered by w20 where a + b is even, else by w21. Which pairs are known is drawn for
each: no reader of the question can tell. Of a known pair the right answer has p = .9, of the others one of both has
.55 to .65, at random.
"""

import functools
from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
import torch

from mechint.model.base import Model, Run
from mechint.model.transformer_lens import TransformerLensModel
from mechint.probes.self_knowledge.settings import ConfidenceSettings
from mechint.prompts import Prompt, PromptSet
from mechint.statistics import generator
from tests.families import VOCAB, tiny

ASK, CHECK, RIGHT, WRONG, SURE, LABELS = 4, 40, 41, 42, 43, (44, 45, 46)
YES, NO = 20, 21
SETTINGS = ConfidenceSettings(
    shots=2,
    truth_cue=f" w{CHECK}",
    truth_labels=(f" w{RIGHT}", f" w{WRONG}"),
    confidence_cue=f" w{SURE}",
    confidence_labels=tuple(f" w{label}" for label in LABELS),
    resamples=400,
    inner_folds=2,
    layers=(0, 2),
)
Says = Callable[[int, int, int], float]
"""From both words of a question and the answer to what is said of it, 0 to 1."""


def questions(n: int = 225) -> PromptSet:
    pairs = [(a, b) for a, b in product(range(5, 20), range(22, 37))][:n]
    answers = {pair: ((YES, NO) if sum(pair) % 2 == 0 else (NO, YES)) for pair in pairs}
    return PromptSet(
        "pairs",
        tuple(
            Prompt(f"{a}-{b}", f"w{a} w{b}\nw{ASK}", *(f" w{w}" for w in answers[a, b]), cluster=f"pairs/{a} {b}")
            for a, b in pairs
        ),
    )


@functools.cache
def drawn(a: int, b: int) -> tuple[float, float, float]:
    one, two, three = generator(0, "knowing", a, b).random(3)
    return float(one), float(two), float(three)


def known(a: int, b: int) -> bool:
    return drawn(a, b)[0] < 0.5


def known_by_word(a: int, b: int) -> bool:
    """The same, to be seen in the question: of pairs that begin with one of these words."""
    return a % 2 == 0


def honest(a: int, b: int, answer: int) -> float:
    return 0.85 if known(a, b) else 0.5 + 0.1 * drawn(a, b)[2]


def blind(a: int, b: int, answer: int) -> float:
    return 0.4 + 0.5 * generator(1, "blind", a, b).random()


def boastful(a: int, b: int, answer: int) -> float:
    return 0.99 if known(a, b) else 0.95 + 0.02 * drawn(a, b)[2]


def of_the_question(a: int, b: int, answer: int) -> float:
    return 0.85 if known_by_word(a, b) else 0.5 + 0.1 * drawn(a, b)[2]


class Knowing(TransformerLensModel):
    """As much of a model as confidence needs; its streams are noise."""

    def __init__(self, says: Says, knows: Callable[[int, int], bool] = known, mass: float = 0.99) -> None:
        vars(self).update(vars(tiny("gemma3")))  # weights, tokenizer and facts; nothing of it is changed
        self._says, self._knows, self._mass = says, knows, mass

    def new_past(self) -> Any:
        return self

    def fork(self, rows: list[int]) -> Any:
        return self

    def run(
        self, tokens: Any, read: Any = (), write: Any = None, logits: Any = None, *rest: Any, past: Any = None
    ) -> Run:
        rows = tokens.ids.tolist()
        noise = {
            site: torch.tensor(
                np.stack(
                    [
                        generator(i, *row[-4:], str(site)).normal(size=(1, self.facts.d_model))
                        for i, row in enumerate(rows)
                    ]
                )
            ).float()
            for site in read
        }
        return Run(noise, None if logits is None else torch.stack([self._said(row) for row in rows])[:, None])

    def _said(self, row: list[int]) -> torch.Tensor:
        p = torch.full((VOCAB,), (1 - self._mass) / VOCAB)
        if row[-1] == ASK:
            a, b = row[-3:-1]
            right = YES if (a + b) % 2 == 0 else NO
            share = 0.9 if self._knows(a, b) else 0.55 + 0.1 * drawn(a, b)[2]
            first = right if self._knows(a, b) or drawn(a, b)[1] < 0.5 else YES + NO - right
            words = {first: share, YES + NO - first: 1 - share}
        else:
            a, b, _, answer, _ = row[-5:]
            c = self._says(a, b, answer)
            words = {RIGHT: c, WRONG: 1 - c} if row[-1] == CHECK else {LABELS[0]: 1 - c, LABELS[1]: 0.0, LABELS[2]: c}
        for word, share in words.items():
            p[word] += self._mass * share
        return p.log()


def model(says: Says, knows: Callable[[int, int], bool] = known, mass: float = 0.99) -> Model:
    return Knowing(says, knows, mass)
