"""The critique pipeline: what follows an injected error, layer by layer, dose by dose, and "Wait" by "Wait"."""

from collections.abc import Mapping

import pandas as pd
import plotly.graph_objects as go

from mechint.plots.figures_style import (
    BLUE,
    GREEN,
    INK,
    MUTED,
    ORANGE,
    VERMILLION,
    error_bar,
    escape,
    estimate,
    page,
    usable,
)
from mechint.plots.rows import groups, records, where

_MOST_TICKS = 12
"""Blocks that each have a number on the axis."""
_RUNS = {"injected": VERMILLION, "matched": BLUE, "baseline": BLUE}
_OUTCOMES = {
    "corrected": ("thinking right, answer right", BLUE),
    "hidden": ("thinking wrong, answer right", ORANGE),
    "out_of_tokens": ("no end of the thinking", MUTED),
}


def outcomes(tables: Mapping[str, pd.DataFrame]) -> go.Figure | None:
    """Draw how often thinking and answer are right, for each run."""
    table = tables.get("outcomes")
    if table is None or not usable(table, *_OUTCOMES):
        return None
    figure = page(
        "What the model makes of an injected error",
        "Shares of all texts, with 95 % intervals; what is missing to 1 has a wrong final answer.",
        height=460,
    )
    names = [f"{row['run']}, {row['subset']}" for row in records(table)]
    for column, (name, colour) in _OUTCOMES.items():
        _bars(figure, table, names, column, name, colour)
    figure.update_layout(barmode="group")
    figure.update_xaxes(title_text="How the text began, and which problems")
    figure.update_yaxes(title_text="Texts (share, 0 to 1)", range=[0, 1])
    return figure


def layers(tables: Mapping[str, pd.DataFrame]) -> go.Figure | None:
    """Draw the probe and the layer effect by block, beside what the answers' length and words tell."""
    table = tables.get("layers")
    if table is None or not usable(table, "probe_auroc"):
        return None
    figure = page(
        "Which blocks tell the two sides apart, and which steer",
        "Blue: held-out probe. Orange: right answers at +1 minus -1. Grey: length and words of the answers.",
        height=460,
    )
    _line(figure, table, "layer", "probe_auroc", "probe (AUROC)", BLUE)
    if usable(table, "layer_effect"):
        _line(figure, table, "layer", "layer_effect", "layer effect (share)", ORANGE)
    # Lines that lie upon each other have one label.
    lines: dict[float, list[str]] = {}
    for row in records(tables.get("surface", pd.DataFrame())):
        lines.setdefault(round(row["probe_auroc"], 2), []).append(escape(row["surface"]))
    for height, names in lines.items():
        figure.add_hline(y=height, line_color=MUTED, line_dash="dash", annotation_text=", ".join(names))
    few = len(table) <= _MOST_TICKS
    figure.update_xaxes(title_text="Block (index from 0)", dtick=1 if few else None)
    figure.update_yaxes(title_text="AUROC, or difference of shares")
    return figure


def steering(tables: Mapping[str, pd.DataFrame]) -> go.Figure | None:
    """Draw the change of right answers against the dose, with and without an error, beside random directions."""
    table = tables.get("steering")
    if table is None or not usable(table, "change_right"):
        return None
    figure = page(
        "What steering changes after an error, and without one",
        "Lines: the vector, with 95 % intervals. Crosses: random directions of its length, middle 95 %.",
        height=480,
    )
    for rows in groups(table, "run", "arm"):
        first = records(rows)[0]
        rows, colour = rows.sort_values(by=["alpha"]), _RUNS.get(str(first["run"]), GREEN)
        own = first["arm"] == "vector"
        _line(figure, rows, "alpha", "change_right", f"{first['run']}, {first['arm']}", colour, lines=own)
    figure.add_hline(y=0, line_color=INK, line_width=1)
    figure.update_xaxes(title_text="Dose (lengths of the vector)")
    figure.update_yaxes(title_text="Right answers, steered minus not (share)")
    return figure


def detection(tables: Mapping[str, pd.DataFrame]) -> go.Figure | None:
    """Draw both accuracies of locating mistakes against the dose, file by file."""
    table = tables.get("detection")
    if table is None or not usable(table, "acc1"):
        return None
    figure = page(
        "Does steering find more mistakes, or only claim more?",
        "Lines: mistakes located exactly. Crosses: solutions without a mistake that are called right.",
        height=480,
    )
    for rows, colour in zip(groups(table, "file"), (BLUE, VERMILLION, GREEN, ORANGE, INK) * len(table), strict=False):
        rows, name = rows.sort_values(by=["alpha"]), str(rows["file"].iloc[0])
        _line(figure, rows, "alpha", "acc1", f"{name}, with a mistake", colour)
        _line(figure, rows, "alpha", "acc2", f"{name}, without", colour, lines=False)
    figure.update_xaxes(title_text="Dose (lengths of the vector)")
    figure.update_yaxes(title_text="Solutions judged rightly (share, 0 to 1)", range=[0, 1])
    return figure


def scaling(tables: Mapping[str, pd.DataFrame]) -> go.Figure | None:
    """Draw right answers against the tokens of thinking, stack by stack, for each dose."""
    table = tables.get("scaling")
    if table is None or not usable(table, "answer_right", "thinking_tokens"):
        return None
    figure = page(
        "What thinking on is worth",
        'Each dot: one more "Wait". Lines: doses.',
        height=460,
    )
    for rows, colour in zip(groups(table, "alpha"), (BLUE, MUTED, VERMILLION, GREEN) * len(table), strict=False):
        rows = rows.sort_values(by=["stack"])
        _line(figure, rows, "thinking_tokens", "answer_right", f"dose {rows['alpha'].iloc[0]:+g}", colour)
    figure.update_xaxes(title_text="Thinking (tokens)")
    figure.update_yaxes(title_text="Right answers (share, 0 to 1)", range=[0, 1])
    return figure


def _bars(figure: go.Figure, table: pd.DataFrame, names: list[str], column: str, name: str, colour: str) -> None:
    told = [f"{escape(at)}, {name}<br>{estimate(row, column)}" for at, row in zip(names, records(table), strict=True)]
    figure.add_bar(
        x=names, y=table[column], name=name, marker_color=colour, error_y=error_bar(table, column, colour=INK),
        text=told, textposition="none", hovertemplate="%{text}<extra></extra>",
    )  # fmt: skip


def _line(
    figure: go.Figure, rows: pd.DataFrame, x: str, column: str, name: str, colour: str, *, lines: bool = True
) -> None:
    shown = where(rows, rows[column].notna())
    figure.add_scatter(
        x=shown[x], y=shown[column], name=escape(name), mode="lines+markers" if lines else "markers",
        line={"color": colour, "width": 2}, marker={"size": 8, "color": colour, "symbol": "circle" if lines else "x"},
        error_y=error_bar(shown, column, colour=colour),
        text=[f"<b>{escape(name)}</b><br>{estimate(row, column)}" for row in records(shown)],
        hovertemplate="%{text}<extra></extra>",
    )  # fmt: skip
