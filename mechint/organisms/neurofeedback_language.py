"""The language of the neurofeedback organisms: sentences of two topics, each followed by a score, A or B.

    <bos> w03 w11 score A w30 w19 score B …

A sentence has `WORDS` words, each of its own topic (one half of the words) with probability `OWN_TOPIC`, else of the
other. What the score means is not in the language: it is the side on which the sentence's state lies along an axis that
is drawn anew for every text, and has to be found out from the scores shown so far (`neurofeedback_training`).
"""

from collections.abc import Sequence

import numpy as np

from mechint.organisms.words import BOS, UNKNOWN

WORDS, TOPIC_WORDS, OWN_TOPIC = 2, 16, 0.85
"""Words of a sentence; words of a topic; probability that a word is of the sentence's own topic."""
LABELS = ("A", "B")
CUE = "score"
"""The word after which a label comes."""
_PAD = "<pad>"


def vocabulary() -> list[str]:
    """Return every word; the special tokens come first."""
    return [_PAD, BOS, UNKNOWN, CUE, *LABELS, *(f"w{i:02d}" for i in range(2 * TOPIC_WORDS))]


def sentence(rng: np.random.Generator) -> tuple[tuple[str, ...], int]:
    """Write a sentence, and say of which topic it is (0 or 1).

    Args:
        rng: of every choice.
    """
    topic = int(rng.integers(2))
    other = rng.random(WORDS) >= OWN_TOPIC
    places = rng.integers(TOPIC_WORDS, size=WORDS) + TOPIC_WORDS * (topic ^ other)
    return tuple(f"w{int(place):02d}" for place in places), topic


def episode(sentences: Sequence[Sequence[str]], labels: Sequence[int]) -> list[str]:
    """Return a text of sentences and their labels.

    Examples:
        >>> episode([["w01", "w02"], ["w03"]], [0, 1])
        ['<bos>', 'w01', 'w02', 'score', 'A', 'w03', 'score', 'B']
    """
    words = [BOS]
    for one, label in zip(sentences, labels, strict=True):
        words += [*one, CUE, LABELS[label]]
    return words
