r"""What a score can be known from: readers of the text, and of the true state, from the same examples.

A reader is a ridge regression on labels ±1, its strength chosen among 10^{-3} … 10^3 by leave-one-out on the examples
(closed form); it is symmetric under an exchange of the labels. What it reads:

    words        bag of words of the sentence
    tf-idf       tf·(ln((1 + n) / (1 + df)) + 1), rows of length 1, df over the fitting half
    embedding    mean of the stream before block 0 (what Singh et al. 2026 compare with), standardised
    state        the true h̄, with its noise where there is some, standardised: the oracle, which is no rival but shows
                 whether anybody could have learnt the score from so few examples

Each text reader learns from the N examples that were shown, and from the whole fitting half. With T = w·h̄ normal of
standard deviation σ_T and noise of σ_Z, no reader of the text alone is right about sign(T + Z) more often than

    1/2 + arctan(σ_T / σ_Z) / π
"""

import math
from typing import Any

import numpy as np
from jaxtyping import Float, Int

_STRENGTHS = np.logspace(-3, 3, 7)
TEXT = ("words", "tf-idf", "embedding")
"""Readers of the text."""
NO_TEXT = ("majority", "state")
"""Readers of something else; what is neither is a reader of the text, such as another model."""


def text_ceiling(noise: float) -> float:
    """Return how often the best reader of the text is right, at noise of σ_Z / σ_T = `noise`.

    Examples:
        >>> round(text_ceiling(3.0), 3), round(text_ceiling(10.0), 3)
        (0.602, 0.532)
    """
    return 0.5 + math.atan(1 / noise) / math.pi


def fitted(features: Float[np.ndarray, "sentence width"], labels: Int[np.ndarray, " sentence"]) -> Any:
    """Fit a reader; if all labels are one, it says that one."""
    from sklearn.dummy import DummyClassifier
    from sklearn.linear_model import RidgeClassifierCV

    if len(set(labels.tolist())) < 2:
        return DummyClassifier(strategy="most_frequent").fit(features, labels)
    return RidgeClassifierCV(alphas=_STRENGTHS).fit(features, labels)


def after_examples(
    features: Float[np.ndarray, "sentence width"], labels: Int[np.ndarray, " sentence"], places: list[int]
) -> list[bool]:
    """Return whether a reader of the first n sentences is right about the next, for every n in `places`."""
    return [
        bool(fitted(features[:n], labels[:n]).predict(features[n : n + 1])[0] == labels[n]) for n in places
    ]  # fmt: skip


def majority(labels: Int[np.ndarray, " sentence"], places: list[int]) -> list[float]:
    """Return whether the label shown more often is right, for every number of examples; a tie counts one half."""
    counts = [labels[:n].mean() if n else 0.5 for n in places]
    return [0.5 if c == 0.5 else float((c > 0.5) == labels[n]) for c, n in zip(counts, places, strict=True)]


def word_counts(fit: list[str], test: list[str]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return bags of words and tf-idf of both halves, words and df of the fitting half."""
    from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer

    found: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    for name, maker in (("words", CountVectorizer), ("tf-idf", TfidfVectorizer)):
        vectorizer: Any = maker(token_pattern=r"\w+").fit(fit)
        found[name] = vectorizer.transform(fit).toarray().astype(float), vectorizer.transform(test).toarray() + 0.0
    return found


def standardised(
    fit: Float[np.ndarray, "sample d_model"], other: Float[np.ndarray, "sentence d_model"]
) -> Float[np.ndarray, "sentence d_model"]:
    """Return features less their mean over the fitting half, over their standard deviation there."""
    spread = fit.std(0)
    return (other - fit.mean(0)) / np.where(spread > 0, spread, 1.0)
