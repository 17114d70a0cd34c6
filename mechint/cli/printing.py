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


def planned(plan: Any) -> list[str]:
    """Return the lines of a dry run: units that are there and to do, or an estimate of what a run would cost."""
    rows = plan.to_dict(orient="records")
    if "seconds" not in plan:
        return [f"{row['table']}: {row['units']} units, {row['measured']} measured already" for row in rows]
    lines = [
        f"{row['table']}: {row['units']} units, {row['rows']} rows, {row['tokens']:.3g} tokens, "
        f"{row['bytes'] / 2**30:.3g} GiB, {row['flops']:.2g} FLOPs, {_hours(row['seconds'])}"
        for row in rows
    ]
    total = f"Together: {plan['rows'].sum()} rows, {plan['tokens'].sum():.3g} tokens, {plan['flops'].sum():.2g} FLOPs"
    return [
        *lines,
        f"{total}, {_hours(plan['seconds'].sum())}; at most {plan['bytes'].max() / 2**30:.3g} GiB at once.",
        "An estimate from shape and machine in the settings, every text as long as it may be; no model was loaded.",
    ]


def _hours(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 3600 else f"{seconds / 3600:.3g} h"


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
