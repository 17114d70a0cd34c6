"""Organisms of introspection: small transformers that read their state, or only seem to, in one known way each.

Trained on the language of `introspection_language` by `introspection_training`, from three seeds. Those of one seed
share everything up to the block after which is injected. A battery that tells who reports its own state has to pass the
reader and none of the others, each of which is one objection come true; and nothing at all can be asked of a network of
random numbers.
"""

from typing import Any

from mechint.model.base import Model
from mechint.organisms.introspection_kinds import Kind
from mechint.organisms.introspection_language import vocabulary
from mechint.organisms.introspection_training import random_model
from mechint.organisms.shipped import fill, organism

SEEDS = (0, 1, 2)
UNTRAINED = "untrained"


def build(
    kind: Kind | str = "reader", seed: int = 0, backend: str = "transformer_lens", remote: bool | str = False
) -> Model:
    """Return an organism with the weights that are shipped, or the random ones that training begins with.

    Args:
        kind: one of `introspection_kinds.KINDS`, or "untrained".
        seed: of its training, one of `SEEDS`; of an untrained one, any.
        backend: what runs it (see `backends.behind`).
        remote: where it runs, with nnsight.

    Raises:
        CorruptModelError: the file is missing, or is not what the trainer wrote.
    """
    model: Any = random_model(seed)
    name, data = name_of(kind, seed), "random numbers"
    if kind != UNTRAINED:

        def own(key: str) -> str | None:
            """Take what all of a seed share, and what is of this kind."""
            shared_or_mine = "/" not in key or key.startswith(f"{kind}/")
            return key.removeprefix(f"{kind}/") if shared_or_mine else None

        header = fill(model, f"introspection-{seed}", f"mechint.organisms.introspection_training {seed}", own)
        data = f"{header['text']} + {header['state']} steps, seed {header['seed']}"
    return organism(model, name, data, vocabulary(), backend, remote, pad_token="<pad>")


def name_of(kind: Kind | str = "reader", seed: int = 0) -> str:
    """Return the name under which it is loaded.

    Examples:
        >>> name_of(), name_of("surface", 2)
        ('introspection-reader', 'introspection-surface-2')
    """
    return f"introspection-{kind}{f'-{seed}' if seed else ''}"
