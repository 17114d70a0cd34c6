"""Organisms of introspection: small transformers that read their state, or only seem to, in one known way each.

Trained on the language of `introspection_language` by `introspection_training`, from three seeds. Those of one seed
share everything up to the block after which is injected. A battery that tells who reports its own state has to pass the
reader and none of the others, each of which is one objection come true; and nothing at all can be asked of a network of
random numbers.
"""

from pathlib import Path
from typing import Any

import torch

from mechint.model.backends import behind
from mechint.model.base import Model
from mechint.organisms import ORGANISMS, PREFIX
from mechint.organisms.introspection_kinds import Kind
from mechint.organisms.introspection_language import vocabulary
from mechint.organisms.introspection_training import random_model
from mechint.organisms.trained import corrupt, read
from mechint.organisms.words import word_tokenizer

SEEDS = (0, 1, 2)
UNTRAINED = "untrained"
_FOLDER = Path(__file__).parent / "weights"


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
    model.config._attn_implementation = "eager"  # pyright: ignore[reportPrivateUsage]
    name, data = name_of(kind, seed), "random numbers"
    if kind != UNTRAINED:
        remedy = f"mechint.organisms.introspection_training {seed}"
        header, tensors = read(_FOLDER / f"introspection-{seed}.safetensors", remedy)
        own = {key.removeprefix(f"{kind}/"): value.float() for key, value in tensors.items() if _belongs(key, kind)}
        try:
            left = model.load_state_dict(own, strict=False)
        except RuntimeError as error:
            raise corrupt(name, str(error), remedy) from error
        if left.unexpected_keys or left.missing_keys:
            raise corrupt(name, f"tensors {left.unexpected_keys + left.missing_keys} do not fit", remedy)
        data = f"{header['text']} + {header['state']} steps, seed {header['seed']}"
    model.requires_grad_(False)
    with torch.random.fork_rng():
        tokenizer = word_tokenizer(vocabulary(), pad_token="<pad>")
    told = ORGANISMS[name][-1] if name in ORGANISMS else "random numbers"
    source = {"kind": "organism", "description": told, "data": data}
    return behind(backend, model, tokenizer, name=f"{PREFIX}{name}", source=source, remote=remote)


def name_of(kind: Kind | str = "reader", seed: int = 0) -> str:
    """Return the name under which it is loaded.

    Examples:
        >>> name_of(), name_of("surface", 2)
        ('introspection-reader', 'introspection-surface-2')
    """
    return f"introspection-{kind}{f'-{seed}' if seed else ''}"


def _belongs(key: str, kind: str) -> bool:
    return "/" not in key or key.startswith(f"{kind}/")
