"""Who makes good the loss of a head: other heads, MLPs, or the final norm; and which of them most."""

from collections.abc import Mapping
from typing import Any, cast

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from mechint.plots.figures_style import MUTED, PART_COLOURS, dress, error_bar, escape, estimate, usable
from mechint.plots.rows import largest, records, where

MOST_HEADS, MOST_COMPONENTS = 6, 8
_PARTS = {
    "heads": "other heads",
    "MLPs": "MLPs",
    "final norm": "final norm",
    "total": "all repair",
}
_LOST, _REMAINS = "the loss itself", "change that remains"


def parts(tables: Mapping[str, pd.DataFrame]) -> go.Figure | None:
    """Draw, for each ablated head, its lost direct effect, the repair by each part, and the change that remains."""
    table = _first_average(tables.get("repair_parts"))
    if table is None or not usable(table, "ablated", "part", "repair"):
        return None
    ablated = list(dict.fromkeys(table["ablated"]))[:MOST_HEADS]
    across = min(3, len(ablated))
    down = -(-len(ablated) // across)
    figure = _panels(
        [f"<b>{escape(head)} ablated</b>" for head in ablated],
        down,
        across,
        title="Who makes good the loss of a head",
        subtitle=f"The loss itself + all repair = the change that remains. 95 % intervals; {_average(table)}.",
        height=down * 265 + 140,
        shared=True,
    )
    for index, head in enumerate(ablated):
        bars = _bars(where(table, table["ablated"] == head))
        _add_bars(figure, bars, index // across + 1, index % across + 1)
    order = [_LOST, *_PARTS.values(), _REMAINS]
    figure.update_yaxes(categoryorder="array", categoryarray=order[::-1], ticks="")
    return _finish(figure, down)


def components(tables: Mapping[str, pd.DataFrame]) -> go.Figure | None:
    """Draw, for each ablated head, the components that change most in answer to its loss."""
    table = _first_average(tables.get("repair"))
    if table is None or not usable(table, "ablated", "component", "repair"):
        return None
    ablated = list(dict.fromkeys(table["ablated"]))[:MOST_HEADS]
    across = min(3, len(ablated))
    down = -(-len(ablated) // across)
    figure = _panels(
        [f"<b>{escape(head)} ablated</b>" for head in ablated],
        down,
        across,
        title="Which components change most when a head is taken away",
        subtitle="Blue: heads, orange: MLPs, purple: final norm. 95 % intervals; "
        f"the {MOST_COMPONENTS} largest of each; {_average(table)}.",
        height=down * (MOST_COMPONENTS * 27 + 60) + 130,
        shared=False,
    )
    for index, head in enumerate(ablated):
        rows = where(table, table["ablated"] == head)
        rows = largest(rows, "repair", MOST_COMPONENTS)
        bars = rows.assign(name=rows["component"], colour=[PART_COLOURS.get(part, MUTED) for part in rows["part"]])
        _add_bars(figure, bars, index // across + 1, index % across + 1)
    figure.update_yaxes(ticks="", type="category")
    return _finish(figure, down)


def _bars(rows: pd.DataFrame) -> pd.DataFrame:
    """Arrange one ablated head's rows as bars: loss, repairs in their order, what remains."""
    lines = records(rows)
    bars = [
        _bar(lines[0], column, name, MUTED)
        for column, name in (("direct_effect_change", _LOST), ("logit_change", _REMAINS))
        if usable(rows, column)
    ]
    bars += [
        _bar(line, "repair", _PARTS[line["part"]], PART_COLOURS[line["part"]])
        for line in lines
        if line["part"] in _PARTS
    ]
    return pd.DataFrame(bars)


def _bar(line: Mapping[str, Any], column: str, name: str, colour: str) -> dict[str, Any]:
    return {
        "name": name,
        "colour": colour,
        "repair": line[column],
        "repair_low": line.get(f"{column}_low"),
        "repair_high": line.get(f"{column}_high"),
    }


def _add_bars(figure: go.Figure, bars: pd.DataFrame, row: int, column: int) -> None:
    figure.add_bar(
        x=bars["repair"],
        y=[escape(name) for name in bars["name"]],
        orientation="h",
        marker={"color": bars["colour"]},
        error_x=error_bar(bars, "repair", colour="#111827"),
        text=[f"<b>{escape(line['name'])}</b><br>{estimate(line, 'repair')} logits" for line in records(bars)],
        textposition="none",
        hovertemplate="%{text}<extra></extra>",
        showlegend=False,
        row=row,
        col=column,
    )


def _panels(
    titles: list[str], down: int, across: int, *, title: str, subtitle: str, height: int, shared: bool
) -> go.Figure:
    """Return a page divided into panels, their axes comparable."""
    grid = make_subplots(
        rows=down,
        cols=across,
        subplot_titles=titles,
        shared_yaxes=shared,
        shared_xaxes=cast(bool, "all"),
        horizontal_spacing=0.04 if shared else 0.11,
        vertical_spacing=0.2 if down > 1 else 0,
    )
    dress(grid, title, subtitle, height=height, margin={"t": 100, "b": 70})
    grid.update_annotations(font={"size": 14})
    return grid


def _finish(figure: go.Figure, down: int) -> go.Figure:
    figure.add_vline(x=0, line_color="#111827", line_width=1)
    figure.update_xaxes(title_text="change of the logit (logits)", row=down)
    figure.update_xaxes(showticklabels=True, nticks=6)
    return figure


def _first_average(table: pd.DataFrame | None) -> pd.DataFrame | None:
    """Keep one way of averaging: the first named."""
    if table is None or table.empty or "average" not in table:
        return table
    return where(table, table["average"] == table["average"].iloc[0])


def _average(table: pd.DataFrame) -> str:
    return escape(table["average"].iloc[0]) if "average" in table else "mean over prompts"
