"""Files that are either whole or not there: written beside, then renamed."""

import os
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def beside(path: Path) -> Generator[Path]:
    """Give a place to write to, in the folder of a file, which becomes that file if the context is left without error.

    Until then, and after an error or a crash, whoever reads finds the old content or none.

    Args:
        path: of the file; its folder is made.

    Raises:
        OSError: the folder or the file cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    place = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield place
        place.replace(path)
    finally:
        with suppress(OSError):
            place.unlink(missing_ok=True)
