"""Telling how far a long preparation has come: a bar in a terminal, and log lines."""

import logging
from collections.abc import Callable, Generator
from contextlib import contextmanager

from tqdm.auto import tqdm

log = logging.getLogger(__name__)


@contextmanager
def stages(title: str, total: int, progress: bool | None = None) -> Generator[Callable[[str], None], None, None]:
    """Give a function to call at the start of each stage. Nothing is shown if it is never called.

    Args:
        title: what is being prepared.
        total: how many stages there are.
        progress: show a bar on standard error; by default only in a terminal.

    Examples:
        >>> with stages("demo", 2, progress=False) as stage:
        ...     stage("reading")
        ...     stage("writing")
    """
    bar: tqdm | None = None

    def stage(name: str) -> None:
        nonlocal bar
        log.info("%s: %s", title, name)
        if bar is None:
            hidden = None if progress is None else not progress
            bar = tqdm(total=total, disable=hidden, bar_format="{desc} |{bar:20}| {elapsed}")
        else:
            bar.update(1)
        bar.set_description_str(f"{title}: {name}")

    try:
        yield stage
        if bar is not None:
            bar.update(1)
            bar.set_description_str(f"{title}: ready")
    finally:
        if bar is not None:
            bar.close()
