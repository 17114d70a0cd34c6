"""Files that are either whole or not there: write beside, flush, then rename. And the hash of a table's content."""

import hashlib
import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mechint.errors import OutputError
from mechint.whole_files import beside


def write_atomic(path: Path, content: bytes | str) -> None:
    """Write a file so that a reader, or a crash, finds the old content or the new, never a half.

    Raises:
        OutputError: the disk is full, or the place cannot be written to.
    """
    data = content.encode() if isinstance(content, str) else content
    try:
        with beside(path) as place, place.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise OutputError(
            f"Cannot write {path}: {error.strerror or error}. Make room or choose another folder; everything "
            "measured so far is kept, and --resume goes on from it."
        ) from error


def write_frame(path: Path, frame: pd.DataFrame) -> pd.DataFrame:
    """Write a table as parquet, whole or not at all, and return it as it will be read back.

    Raises:
        OutputError: it cannot be written.
    """
    data = _parquet(frame)
    write_atomic(path, data)
    return pd.read_parquet(io.BytesIO(data))


def as_stored(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a table as it comes back from a file: parquet has fewer types than pandas."""
    return pd.read_parquet(io.BytesIO(_parquet(frame)))


def _parquet(frame: pd.DataFrame) -> bytes:
    buffer = io.BytesIO()
    frame.to_parquet(buffer, index=False)
    return buffer.getvalue()


def read_frame(path: Path) -> pd.DataFrame:
    """Read a table.

    Raises:
        OutputError: it is missing or damaged.
    """
    try:
        return pd.read_parquet(path)
    except FileNotFoundError as error:
        raise OutputError(f"{path} is missing. Run the experiment again with --resume to have it made.") from error
    except (OSError, ValueError) as error:  # pyarrow's errors are ValueErrors
        raise OutputError(f"{path} is damaged ({error}). Run the experiment again with --resume.") from error


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        OutputError: it is missing or damaged.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise OutputError(f"{path.parent} holds no {path.name}: it is not a folder of mechint results.") from error
    except (OSError, ValueError) as error:
        raise OutputError(f"{path} cannot be read: {error}.") from error


def canonical(value: Any) -> str:
    """Return JSON that is the same for equal values.

    Examples:
        >>> canonical({"b": 1, "a": (2,)})
        '{"a":[2],"b":1}'
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), default=str, ensure_ascii=False)


def digest(*values: Any) -> str:
    """Return the SHA-256 of some values, as 64 hexadecimal digits."""
    return hashlib.sha256(canonical(values).encode()).hexdigest()


def content_hash(frame: pd.DataFrame) -> str:
    """Return a hash of a table's columns, order and values, whatever file or library version held it.

    Examples:
        >>> one = pd.DataFrame({"x": [1.0, float("nan")], "name": ["a", None]})
        >>> content_hash(one) == content_hash(one.copy()), content_hash(one) == content_hash(one[::-1])
        (True, False)
    """
    hasher = hashlib.sha256()
    for name in frame.columns:
        column = frame[name]
        kind = next((kind for kind, is_kind in _KINDS.items() if is_kind(column.dtype)), "text")
        hasher.update(f"{name}\x00{kind}\x00{len(column)}\x00".encode())
        hasher.update(_column_bytes(column, kind))
    return hasher.hexdigest()


_KINDS: dict[str, Callable[[Any], bool]] = {
    "flag": pd.api.types.is_bool_dtype,
    "whole": pd.api.types.is_integer_dtype,
    "real": pd.api.types.is_float_dtype,
}


def _column_bytes(column: Any, kind: str) -> bytes:
    if kind == "text" or bool(column.isna().any() and kind != "real"):
        values = [None if _missing(value) else _plain(value) for value in column]
        return canonical(values).encode()
    if kind == "real":
        numbers = column.to_numpy(dtype="<f8") + 0.0  # -0.0 becomes 0.0
        return np.where(np.isnan(numbers), np.nan, numbers).astype("<f8").tobytes()
    return column.to_numpy(dtype="<i8" if kind == "whole" else "u1").tobytes()


def _missing(value: Any) -> bool:
    return value is None or value is pd.NA or (isinstance(value, float) and bool(np.isnan(value)))


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value
