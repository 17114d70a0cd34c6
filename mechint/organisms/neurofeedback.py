"""The neurofeedback pair: one transformer that reports its own state, and one that reports what the text says.

Both are trained on the language of `neurofeedback_language` by `neurofeedback_training`, with noise added to the stream
along an axis that is drawn for every text. The reader's labels count the noise, which is in no text, so it can only be
right by reading its own stream; those of the text organism are the sentence's topic, whatever the noise. A test of
neurofeedback must find evidence in the first and none in the second; and an untrained twin answers nothing at all.
"""

from typing import Any

from mechint.errors import PromptError
from mechint.model.base import Model
from mechint.organisms.neurofeedback_language import TOPIC_WORDS, WORDS, sentence, vocabulary
from mechint.organisms.neurofeedback_training import random_model
from mechint.organisms.shipped import fill, organism
from mechint.prompts import Prompt, PromptSet
from mechint.prompts.prompt import check_number
from mechint.statistics import generator

MOST = 600
"""Sentences that can be had."""


def build(kind: str = "reader", backend: str = "transformer_lens", remote: bool | str = False) -> Model:
    """Return an organism with the weights that are shipped, or the random ones that training began with.

    Args:
        kind: "reader", "text", or "untrained".
        backend: what runs it (see `backends.behind`).
        remote: where it runs, with nnsight.

    Raises:
        CorruptModelError: the file is missing, or is not what the trainer wrote.
    """
    model: Any = random_model(0)
    name, data = f"neurofeedback-{kind}", "random numbers"
    if kind != "untrained":
        header = fill(model, name, f"mechint.organisms.neurofeedback_training {kind} 0")
        data = f"{header['steps']} steps, seed {header['seed']}"
    return organism(model, name, data, vocabulary(), backend, remote, pad_token="<pad>")


def sentences(n: int = 400, seed: int = 0) -> PromptSet:
    """Return different sentences of the language; their cluster is their topic.

    Args:
        n: how many.
        seed: of every choice.

    Raises:
        PromptError: fewer than one, or so many that chance would hardly find them.
    """
    check_number(n)
    if n > MOST:
        raise PromptError(
            f"{n} sentences were asked for. Expected at most {MOST}: there are {(2 * TOPIC_WORDS) ** WORDS}."
        )
    rng, found = generator(seed, "neurofeedback", "sentences"), dict[str, str]()
    while len(found) < n:
        words, topic = sentence(rng)
        found.setdefault(" ".join(words), f"topic {topic}")
    chosen = [Prompt(f"sentence-{seed}-{i:04d}", text, cluster=topic) for i, (text, topic) in enumerate(found.items())]
    return PromptSet("sentences of two topics", tuple(chosen))
