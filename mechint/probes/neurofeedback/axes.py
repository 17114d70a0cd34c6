r"""Axes whose scores are shown: fitted on one half of the sentences, and cut at the median of their scores.

With h̄ the mean of the stream over a sentence's tokens and w a unit vector, the score is a = w·h̄ and the label 1 where
a is above the median over the fitting half (or above 0, as in published code).

    LR               weights of a logistic regression of the sentences' classes on h̄, each dimension standardised
    PCk              k-th principal component of h̄
    null             u = Σ_{i≤m} g_i PC_i / |g|, g ~ N(0, 1): a direction that means nothing, of the variance that the
                     first m components have; of `CANDIDATES` draws the first whose labels a bag-of-words reader of the
                     whole fitting half gets right, on the other half, at most .55 of the time; if there is none, the
                     one it does worst on, and that is said
    random labels    LR on labels drawn at random, as published: with fewer sentences than dimensions it finds
                     directions of tiny variance, and is a control for that, not for meaning

Scores are shown in units of their own standard deviation, which is the same as giving every axis the scale of LR's; no
label depends on it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from mechint.errors import ConfigError
from mechint.probes.neurofeedback.readers import fitted
from mechint.statistics import generator

CANDIDATES = 50
PREDICTABLE = 0.55
"""Largest accuracy of a bag-of-words reader on labels of a null axis."""


@dataclass(frozen=True)
class Axis:
    """A direction, and where its labels change."""

    name: str
    direction: Float[np.ndarray, " d_model"]
    """Of length 1."""
    cut: float
    spread: float
    """Standard deviation of scores over the fitting half, in raw units."""
    words: float
    """Share of labels of the other half that a bag-of-words reader of the whole fitting half gets right."""
    variance: float
    """Of the scores, as a share of the variance of states in all directions."""

    def scores(self, states: Float[np.ndarray, "sentence d_model"]) -> Float[np.ndarray, " sentence"]:
        """Return w·h̄ less the cut, in raw units: above 0 where the label is 1."""
        return states @ self.direction - self.cut


@dataclass(frozen=True)
class Halves:
    """Sentences' states and words, those that axes are fitted on and those that are shown and asked."""

    fit_states: Float[np.ndarray, "sample d_model"]
    fit_words: Float[np.ndarray, "sample word"]
    classes: Int[np.ndarray, " sample"]
    """Of the fitting half, 0 or 1."""
    test_states: Float[np.ndarray, "sentence d_model"]
    test_words: Float[np.ndarray, "sentence word"]


def find(name: str, halves: Halves, *, components: int, zero: bool, seed: int) -> Axis:
    """Fit an axis.

    Args:
        name: see the module.
        halves: what it is fitted on, and what words say of the other half's labels.
        components: m of the null axis.
        zero: cut at 0 instead of the median.
        seed: of null directions and random labels.

    Raises:
        ConfigError: a principal component that there is not.
    """
    states = halves.fit_states
    if name == "null":
        drawn = [
            _axis(name, _null(states, components, seed, draw), halves, zero) for draw in range(CANDIDATES)
        ]  # fmt: skip
        return next((one for one in drawn if one.words <= PREDICTABLE), min(drawn, key=lambda one: one.words))
    if name.startswith("PC"):
        ordinal = int(name.removeprefix("PC"))
        found = _components(states)
        if ordinal > len(found):
            raise ConfigError(f"{name}: these {len(states)} sentences have {len(found)} principal components.")
        return _axis(name, found[ordinal - 1], halves, zero)
    rng = generator(seed, "neurofeedback", "random labels")
    labels = halves.classes if name == "LR" else rng.permutation(np.arange(len(states)) % 2)
    return _axis(name, _logistic(states, labels), halves, zero)


def _axis(name: str, direction: Float[np.ndarray, " d_model"], halves: Halves, zero: bool) -> Axis:
    direction = direction / np.linalg.norm(direction)
    scores = halves.fit_states @ direction
    cut = 0.0 if zero else float(np.median(scores))
    shown, asked = (scores > cut).astype(int), (halves.test_states @ direction > cut).astype(int)
    words = float((fitted(halves.fit_words, shown).predict(halves.test_words) == asked).mean())
    share = float(scores.var() / halves.fit_states.var(0).sum())
    return Axis(name, direction, cut, float(scores.std()), words, share)


def _components(states: Float[np.ndarray, "sentence d_model"]) -> Float[np.ndarray, "component d_model"]:
    _, sizes, rows = np.linalg.svd(states - states.mean(0), full_matrices=False)
    found = rows[sizes > sizes[0] * 1e-6]
    # The sign of a component is arbitrary: the largest entry is made positive.
    return found * np.sign(found[np.arange(len(found)), np.abs(found).argmax(1)])[:, None]


def _null(
    states: Float[np.ndarray, "sentence d_model"], components: int, seed: int, draw: int
) -> Float[np.ndarray, " d_model"]:
    rows = _components(states)[:components]
    return generator(seed, "neurofeedback", "null", draw).standard_normal(len(rows)) @ rows


def _logistic(
    states: Float[np.ndarray, "sentence d_model"], labels: Int[np.ndarray, " sentence"]
) -> Float[np.ndarray, " d_model"]:
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler().fit(states)
    weights = LogisticRegression(max_iter=5000).fit(scaler.transform(states), labels).coef_[0]
    return weights / np.asarray(scaler.scale_)


def mismatch(alone: Sequence[float], within: Sequence[float]) -> float:
    """Return the correlation of scores of lone sentences with those of the same sentences within a text.

    Labels are made of the former, and what the model has while it reads is the latter.
    """
    if len(alone) < 3 or np.std(alone) == 0 or np.std(within) == 0:
        return float("nan")
    return float(np.corrcoef(np.asarray(alone), np.asarray(within))[0, 1])
