"""Self-predictors: small transformers that answer pairs of symbols, each by a table of its own.

Trained on the object-level questions of `self_predictor_language` by `self_predictor_training`; hypothetical questions
are new to all of them. A `look-up` organism keeps a table that nothing in the text tells, a `surface` organism one that
the second symbol tells. So it is known who can predict whom:

    look-up-self of itself     by its own table: privileged access, by construction
    look-up-other of it        not on pairs that it was told nothing about: its table is another
    look-up-twin of it         as well as itself: the same table, learnt from another seed
    surface-…                  whoever reads the text, an input-only classifier included
    untrained-predictor        nobody: its answers are those of random weights
"""

from typing import Any

from mechint.model.base import Model
from mechint.organisms.self_predictor_language import vocabulary
from mechint.organisms.self_predictor_training import random_model
from mechint.organisms.shipped import fill, organism


def build(name: str, backend: str = "transformer_lens", remote: bool | str = False) -> Model:
    """Return a self-predictor with the weights that are shipped, or the one that was never trained.

    Args:
        name: of the organism.
        backend: what runs it (see `backends.behind`).
        remote: where it runs, with nnsight.

    Raises:
        CorruptModelError: the file is missing, or is not what the trainer wrote.
    """
    model: Any = random_model(1)
    data = "random numbers"
    if name != "untrained-predictor":
        header = fill(model, name, f"mechint.organisms.self_predictor_training {name}")
        data = f"{header['kind']} table {header['table']}, {header['steps']} steps, seed {header['seed']}"
    return organism(model, name, data, vocabulary(), backend, remote, eos_token="<eos>", pad_token="<pad>")
