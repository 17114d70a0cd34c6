"""Weights of trained organisms: files in half precision whose header says how they were made, and their models."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from mechint.errors import CorruptModelError
from mechint.model.backends import behind
from mechint.model.base import Model
from mechint.organisms import ORGANISMS, PREFIX
from mechint.organisms.words import word_tokenizer

HEADER = "mechint"
"""Key of the header in the metadata of a weights file."""
FOLDER = Path(__file__).parent / "weights"
"""Where the files are that come with this package."""


def read(path: Path, remedy: str = "") -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the header and the tensors of a file that a trainer wrote.

    Args:
        path: of the file.
        remedy: the command that makes it, for the message; by default that of the organisms here.

    Raises:
        CorruptModelError: it is missing, or something else.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata: dict[str, str] = file.metadata() or {}
            return json.loads(metadata[HEADER]), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise corrupt(path.stem, f"{type(error).__name__}: {error}", remedy) from error


def corrupt(name: str, why: str, remedy: str = "") -> CorruptModelError:
    """Say that the weights of an organism are not what they should be, and what makes them."""
    remedy = remedy or f"mechint.organisms.training {name}"
    return CorruptModelError(
        f"The weights of organism {name!r} cannot be read ({why}). Expected the file of this package; install it "
        f"again, or make it: python -m {remedy} OUT."
    )


def save_half(tensors: Mapping[str, Tensor], header: dict[str, Any], path: Path) -> None:
    """Write weights in half precision, with their header: what is loaded is rounded, and is what was measured."""
    from safetensors.torch import save_file

    halves = {name: tensor.half().contiguous() for name, tensor in tensors.items()}
    save_file(halves, path, metadata={HEADER: json.dumps(header, sort_keys=True)})


def fill(
    model: Any, stem: str, remedy: str, own: Callable[[str], str | None] = lambda name: name, *, tied: bool = False
) -> dict[str, Any]:
    """Put shipped weights into a transformers model, and return the header of their file.

    Args:
        model: of the shape that the file is for.
        stem: of the file's name.
        remedy: the command that makes the file, for the message.
        own: from the name of a tensor in the file to that in the model; None: it belongs to another organism.
        tied: whether the unembedding may be missing, being the embedding.

    Raises:
        CorruptModelError: the file is missing, or is not what the trainer wrote.
    """
    header, tensors = read(FOLDER / f"{stem}.safetensors", remedy)
    named = {name: tensor.float() for key, tensor in tensors.items() if (name := own(key)) is not None}
    try:
        left = model.load_state_dict(named, strict=False)
    except RuntimeError as error:
        raise corrupt(stem, str(error), remedy) from error
    if left.unexpected_keys or set(left.missing_keys) - ({"lm_head.weight"} if tied else set()):
        raise corrupt(stem, f"tensors {left.unexpected_keys + left.missing_keys} do not fit", remedy)
    return header


def organism(
    model: Any, name: str, data: str, words: Sequence[str], backend: str, remote: bool | str, **special: str
) -> Model:
    """Return a transformers model as the organism of a name.

    Args:
        model: the transformers model.
        name: of the organism, without its prefix.
        data: what it was made from, for the manifest.
        words: of its language, in the order of their tokens.
        backend: what runs it (see `backends.behind`).
        remote: where it runs, with nnsight.
        special: special tokens among the words, such as pad_token="<pad>".
    """
    model.config._attn_implementation = "eager"
    model.requires_grad_(False)
    with torch.random.fork_rng():
        tokenizer = word_tokenizer(words, **special)
    described = ORGANISMS[name][-1] if name in ORGANISMS else data
    source = {"kind": "organism", "description": described, "data": data}
    return behind(backend, model, tokenizer, name=f"{PREFIX}{name}", source=source, remote=remote)
