"""Tensors with a JSON header in one safetensors file: written whole or not at all, read only if it is what it says.

The header is one entry of the file's metadata, under `mechint`: its `kind`, a `format` number, and what the kind adds.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from mechint.errors import OutputError
from mechint.whole_files import beside

_KEY = "mechint"


def write_tensors(
    path: Path, tensors: Mapping[str, Tensor], header: Mapping[str, Any], *, overwrite: bool = False
) -> Path:
    """Write tensors and header, and return the path.

    Raises:
        OutputError: the file exists and may not be replaced, or it cannot be written.
    """
    if path.exists() and not overwrite:
        raise OutputError(f"{path} exists. Give another name, or overwrite=True.")
    metadata = {_KEY: json.dumps(header, allow_nan=False, ensure_ascii=False)}
    content = save({name: tensor.contiguous() for name, tensor in tensors.items()}, metadata)
    try:
        with beside(path) as place:
            place.write_bytes(content)
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror or error}.") from error
    return path


def read_tensors(path: Path, kind: str, formats: tuple[int, ...]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read tensors and header of a file of this kind, in one of these formats.

    Raises:
        OutputError: the file is missing, damaged, of another kind, or of a format that is not known here.
    """
    try:
        with safe_open(str(path), framework="pt") as file:
            header = json.loads((file.metadata() or {}).get(_KEY, "null"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (not a dict)
    except FileNotFoundError as error:
        raise OutputError(f"There is no file {path}. Check the path; the current folder is {Path.cwd()}.") from error
    except (OSError, SafetensorError, ValueError) as error:
        raise OutputError(f"{path} is damaged, or no safetensors file ({error}). Get it, or make it, again.") from error
    if not isinstance(header, dict) or header.get("kind") != kind:
        raise OutputError(f"{path} holds no {kind.replace('_', ' ')} of mechint. Was another file meant?")
    if header.get("format") not in formats:
        raise OutputError(
            f"{path} has format {header.get('format')}; known here: {', '.join(map(str, formats))}. "
            "It was written by another version of mechint: use that one."
        )
    return tensors, header
