"""Tables and texts as lines of a terminal."""

from collections.abc import Mapping
from typing import Any


def aligned(shown: Any) -> str:
    """Return a table as text in columns."""
    lines = [list(shown.titles)] + [
        [" ".join(word for word in (cell.text, cell.interval) if word) for cell in row] for row in shown.rows
    ]
    widths = [max(len(line[place]) for line in lines) for place in range(len(shown.titles))]
    return "\n".join(
        "  ".join(word.ljust(width) for word, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def print_columns(title: str, columns: Mapping[str, str]) -> None:
    """Print texts beside each other, each wrapped in its own column."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(title), box=box.SIMPLE_HEAD, title_justify="left", expand=True, title_style="bold")
    for name in columns:
        table.add_column(Text(name), ratio=1)
    # As plain text: a model may write [square brackets], which rich would take for its own markup.
    table.add_row(*map(Text, columns.values()))
    Console().print(table)
