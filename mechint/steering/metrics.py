"""What an effect of steering is measured by: one number a prompt, under whatever plan is in force.

    WordPreference   log Σ p(positive words) - log Σ p(negative words) as the next token: log odds in nats, no sampling
    TextScore        a score of the text that is generated, averaged over samples

The first costs one pass and looks at one token; the second is what a reader sees. Neither asks another model.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mechint.errors import TokenError
from mechint.model.base import Logits, Model
from mechint.prompts import Prompt, token_of
from mechint.steering.generation import generate


@runtime_checkable
class Metric(Protocol):
    """How an effect is measured."""

    @property
    def name(self) -> str:
        """What is measured, in words."""
        ...

    @property
    def unit(self) -> str:
        """Of the number."""
        ...

    def __call__(self, model: Model, prompts: Sequence[Prompt]) -> Float[np.ndarray, " prompt"]:
        """Measure every prompt under the plans that are in force."""
        ...


@dataclass(frozen=True)
class WordPreference:
    """How much likelier some words are than others as the next token."""

    positive: tuple[str, ...]
    """With their leading space; each one token."""
    negative: tuple[str, ...]
    name: str = "preference for the positive words"
    unit: str = "nats"

    def __call__(self, model: Model, prompts: Sequence[Prompt]) -> Float[np.ndarray, " prompt"]:
        """Return the log odds after each prompt.

        Raises:
            TokenError: a word is not one token of this model, or stands on both sides.
        """
        sides = [self.tokens(model, side) for side in (self.positive, self.negative)]
        if shared := set(sides[0]) & set(sides[1]):
            raise TokenError(f"{model.tokenizer.decode(sorted(shared))!r} is on both sides of the preference.")
        columns, n = torch.tensor(sides[0] + sides[1]), len(sides[0])
        rows = [model.tokenize(prompt.prompt) for prompt in prompts]
        odds: dict[int, float] = {}
        order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
        for first in range(0, len(order), 16):
            part = order[first : first + 16]
            logits = model.run([rows[i] for i in part], logits=Logits(columns=columns)).logits
            assert logits is not None
            found = logits[:, 0, :n].double().logsumexp(-1) - logits[:, 0, n:].double().logsumexp(-1)
            odds |= dict(zip(part, found.tolist(), strict=True))
        return np.array([odds[i] for i in range(len(rows))])

    def tokens(self, model: Model, words: Sequence[str]) -> list[int]:
        """Return the token of each word."""
        return [token_of(word, model.tokenizer) for word in words]

    def token_direction(self, model: Model) -> Float[Tensor, " d_model"]:
        """Return what pushes the positive and against the negative words directly: a difference of mean unembeddings.

        Through the final norm (gain, and centring where it centres): the direction of the stream that logits read.
        """
        ids = [torch.tensor(self.tokens(model, side)) for side in (self.positive, self.negative)]
        difference, norm = model.unembedding(ids[0]).mean(0) - model.unembedding(ids[1]).mean(0), model.norm("final")
        return difference if norm is None else norm.centre(norm.gain * difference)


@dataclass(frozen=True)
class TextScore:
    """A score of generated text."""

    score: Callable[[str], float]
    """From the text that follows a prompt to a number."""
    name: str
    unit: str = "score"
    max_new_tokens: int = 32
    temperature: float = 0.7
    samples: int = 1
    seed: int = 0

    def __call__(self, model: Model, prompts: Sequence[Prompt]) -> Float[np.ndarray, " prompt"]:
        """Return the mean score of each prompt's samples."""
        settings: dict[str, Any] = {"max_new_tokens": self.max_new_tokens, "temperature": self.temperature}
        drawn = [generate(model, list(prompts), seed=self.seed + k, **settings).texts for k in range(self.samples)]
        return np.array([[self.score(text) for text in texts] for texts in drawn], dtype=float).mean(0)


def word_balance(positive: Sequence[str], negative: Sequence[str]) -> Callable[[str], float]:
    """Return a score of texts: the words of one list minus those of another, per 100 words.

    Examples:
        >>> word_balance(["great"], ["bad"])("A great, great and bad day.")
        16.666666666666668
    """
    good, bad = ({word.strip().lower() for word in side} for side in (positive, negative))

    def score(text: str) -> float:
        words = re.findall(r"[^\W\d_]+", text.lower())
        return 100 * (sum(w in good for w in words) - sum(w in bad for w in words)) / len(words) if words else 0.0

    return score


def distinct(text: str, n: int = 2) -> float:
    """Return the share of n-grams of words that are new (Li et al. 2016, "distinct-n"); 1 where there are none.

    Examples:
        >>> distinct("so so so so", n=2)
        0.3333333333333333
    """
    words = text.split()
    grams = [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]
    return len(set(grams)) / len(grams) if grams else 1.0


def repetition(tokens: Sequence[int], n: int = 4) -> float:
    """Return the share of n-grams of tokens that came before: 0 for fresh text, near 1 for a loop.

    Examples:
        >>> repetition([5, 6, 5, 6, 5, 6, 5, 6], n=2)
        0.7142857142857143
    """
    grams = [tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0
