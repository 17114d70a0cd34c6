"""What anyone could predict who was told the same facts and reads the question alone.

    mode          the most frequent value of each property among the facts trained on
    words         logistic regression on TF-IDF of the question's words and pairs of words, one a property
    embeddings    the same on the mean of the model's own token embeddings: what it knows of words, not of itself

Where these predict a model's answers as well as it does itself, its predictions show nothing about itself.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from mechint.probes.privileged_access.tuning import Plain
from mechint.prompts import tokenize

Reader = Callable[[Sequence[str], Sequence[str], Sequence[str]], list[str]]
"""From texts and values that are known, and texts that are not, to values of these."""


def readers(plain: Plain) -> Mapping[str, Reader]:
    """Return the readers by name.

    Args:
        plain: whose embeddings are read.
    """

    def embeddings(known: Sequence[str], values: Sequence[str], asked: Sequence[str]) -> list[str]:
        return _classified(_embedded(plain, known), values, _embedded(plain, asked))

    return {"mode": mode, "words": words, "embeddings": embeddings}


def mode(known: Sequence[str], values: Sequence[str], asked: Sequence[str]) -> list[str]:
    """Predict the most frequent value; of several the first in the alphabet.

    Examples:
        >>> mode(["x", "y", "z"], ["b", "a", "b"], ["w"])
        ['b']
    """
    del known
    names, counts = np.unique(np.asarray(values), return_counts=True)
    return [str(names[int(counts.argmax())])] * len(asked)


def words(known: Sequence[str], values: Sequence[str], asked: Sequence[str]) -> list[str]:
    """Predict from words and pairs of words."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    seen: Any = TfidfVectorizer(ngram_range=(1, 2), token_pattern=r"\w+|[^\w\s]")
    return _classified(seen.fit_transform(known), values, seen.transform(asked))


def _classified(known: Any, values: Sequence[str], asked: Any) -> list[str]:
    from sklearn.linear_model import LogisticRegression

    if len(set(values)) == 1:
        return [values[0]] * asked.shape[0]
    return [str(one) for one in LogisticRegression(C=10.0, max_iter=2000).fit(known, list(values)).predict(asked)]


@torch.no_grad()
def _embedded(plain: Plain, texts: Sequence[str]) -> Float[np.ndarray, "prompt d_model"]:
    table = plain.hf.get_input_embeddings()
    rows = [table(torch.tensor(tokenize(text, plain.tokenizer))).mean(0) for text in texts]
    found = torch.stack(rows).double()
    # One scale for all, so that the classifier's penalty means the same for every model.
    return (found / found.norm(dim=1).mean().clamp(min=1e-12)).numpy()
