"""Small models whose mechanism is known, because it was planted; and the door through which every model is loaded."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from mechint.errors import UnknownModelError
from mechint.model.base import Model
from mechint.organisms import copy_suppression

PREFIX = "organism:"
ORGANISMS: dict[str, Callable[[], Model]] = {
    "copy-suppression": partial(copy_suppression.build, planted=True),
    "copy-suppression-unplanted": partial(copy_suppression.build, planted=False),
}


def load(spec: str | Path, *, progress: bool | None = None) -> Model:
    """Load a model: an embedded name, `organism:NAME`, a folder, a GGUF file, or a Hugging Face id.

    Args:
        spec: what to load.
        progress: show progress bars on standard error; by default only in a terminal.

    Raises:
        UnknownModelError: there is no such model here; the message lists what was tried.
        CorruptModelError: files are truncated, altered or missing.
        UnsupportedModelError: not a causal language model that is understood exactly.
        CacheError: the converted copy of an embedded or GGUF model cannot be written.
    """
    if not str(spec).startswith(PREFIX):
        from mechint.model import loading

        return loading.load(spec, progress=progress)
    name = str(spec).removeprefix(PREFIX)
    if name not in ORGANISMS:
        raise UnknownModelError(f"No organism {name!r}. There are: {', '.join(PREFIX + known for known in ORGANISMS)}.")
    return ORGANISMS[name]()
