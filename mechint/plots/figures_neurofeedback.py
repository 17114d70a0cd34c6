"""Neurofeedback: who is right about the next label, how that grows with examples, and what the control task moves."""

from collections.abc import Mapping

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from mechint.plots.figures_style import (
    BLUE,
    GREEN,
    INK,
    MUTED,
    ORANGE,
    PURPLE,
    VERMILLION,
    dress,
    error_bar,
    escape,
    estimate,
    usable,
)
from mechint.plots.rows import groups, records

_READERS: dict[tuple[str, str], tuple[str, str, str]] = {
    ("majority", "the same"): ("label shown more often", MUTED, "line-ns-open"),
    ("words", "the same"): ("words of the text, same examples", BLUE, "circle"),
    ("tf-idf", "the same"): ("tf-idf, same examples", BLUE, "square"),
    ("embedding", "the same"): ("embeddings, same examples", BLUE, "triangle-up"),
    ("words", "half of all"): ("words, half of all sentences", MUTED, "circle-open"),
    ("state", "the same"): ("oracle: the true state, same examples", GREEN, "star"),
    ("the model", "the same"): ("the model", VERMILLION, "diamond"),
    ("best possible, of the text", "any number"): ("best possible reader of the text", INK, "line-ns-open"),
}
_COLOURS = (VERMILLION, BLUE, GREEN, PURPLE, ORANGE, MUTED)


def accuracy(tables: Mapping[str, pd.DataFrame]) -> go.Figure | None:
    """Draw what the model and every reader get right, a line a trial and axis, one panel a model."""
    table = tables.get("comparisons")
    if table is None or not usable(table, "right_share"):
        return None
    parts = groups(table, "model")
    lines = [_line(row) for row in records(parts[0].drop_duplicates(["trial", "axis"]))]
    figure = make_subplots(rows=len(parts), cols=1, shared_xaxes=True, vertical_spacing=0.28 / (len(parts) + 2),
                           subplot_titles=[_short(part) for part in parts])  # fmt: skip
    dress(
        figure, "Who predicts the next label",
        "Share of labels that are right, with 95 % intervals over texts. Dotted line: a guess.",
        height=220 + (70 + 42 * len(lines)) * len(parts), margin={"t": 190, "l": 170, "r": 30},
    )  # fmt: skip
    for place, part in enumerate(parts, start=1):
        for key, (words, colour, symbol) in _READERS.items():
            own = part.loc[(part["reader"] == key[0]) & (part["examples"] == key[1])]
            figure.add_scatter(
                x=own["right_share"], y=[_line(row) for row in records(own)], mode="markers", name=words,
                error_x=error_bar(own, "right_share", colour=colour) if key[0] in ("the model", "state") else None,
                legendgroup=words, showlegend=place == 1,
                marker={"color": colour, "symbol": symbol, "size": 12 if key[0] == "the model" else 9,
                        "line": {"width": 2, "color": colour}},
                text=[f"{words}<br>{estimate(row, 'right_share')}" for row in records(own)],
                hovertemplate="%{y}<br>%{text}<extra></extra>", row=place, col=1,
            )  # fmt: skip
        figure.add_vline(x=0.5, line_color=INK, line_dash="dot", line_width=1, row=place, col=1)  # pyright: ignore[reportArgumentType]
        figure.update_yaxes(autorange="reversed", row=place, col=1)
        figure.update_xaxes(range=[0.0, 1.03], row=place, col=1)
    figure.update_xaxes(title_text="Labels that are right (share, 0 to 1)", row=len(parts), col=1)
    return figure.update_layout(showlegend=True, legend={"y": 1.0 + 45 / (60 * len(parts) * len(lines) + 100)})


def curves(tables: Mapping[str, pd.DataFrame]) -> go.Figure | None:
    """Draw what is right after how many examples, a line an axis, dashed with hidden noise, one panel a model."""
    table = tables.get("curves")
    if table is None or not usable(table, "right_share"):
        return None
    parts = groups(table, "model")
    figure = make_subplots(rows=1, cols=len(parts), shared_yaxes=True, horizontal_spacing=0.03,
                           subplot_titles=[_short(part) for part in parts])  # fmt: skip
    dress(figure, "What is learnt from examples",
          "Share of labels that are right, in bins of examples. Dashed: with hidden noise. Bars: 95 % intervals.",
          height=520, margin={"t": 170, "r": 30})  # fmt: skip
    axes = list(dict.fromkeys(table["axis"]))
    for place, part in enumerate(parts, start=1):
        for own in groups(part, "trial", "axis"):
            first = records(own)[0]
            hidden, colour = first["trial"] == "hidden noise", _COLOURS[axes.index(first["axis"]) % len(_COLOURS)]
            bins = [f"{a}" if a == b else f"{a}–{b}" for a, b in zip(own["n_from"], own["n_to"], strict=True)]
            figure.add_scatter(
                x=bins, y=own["right_share"], error_y=error_bar(own, "right_share", colour=colour),
                mode="lines+markers", name=_line(first), legendgroup=_line(first), showlegend=place == 1,
                line={"color": colour, "dash": "dash" if hidden else "solid", "width": 2},
                text=[f"{escape(_line(row))}<br>{estimate(row, 'right_share')}" for row in records(own)],
                hovertemplate="%{x} examples<br>%{text}<extra></extra>", row=1, col=place,
            )  # fmt: skip
        figure.add_hline(y=0.5, line_color=INK, line_dash="dot", line_width=1, row=1, col=place)  # pyright: ignore[reportArgumentType]
        figure.update_xaxes(title_text="Examples shown before", type="category", row=1, col=place)
    figure.update_yaxes(title_text="Labels that are right", range=[0.2, 1.03], row=1, col=1)
    return figure.update_layout(showlegend=True, legend={"y": 1.1})


def control(tables: Mapping[str, pd.DataFrame]) -> go.Figure | None:
    """Draw d of the control task's sentences on the axis that was asked for, and on the others."""
    table = tables.get("control")
    if table is None or not usable(table, "shift_d"):
        return None
    names = [
        f"{str(row['model']).removeprefix('organism:')}: {row['axis']}, {row.get('control', 'given')}"
        for row in records(table)
    ]
    figure = go.Figure()
    dress(figure, "What asking for a score does to the state of a sentence: given, or written by the model",
          "Cohen's d of high less low scores asked for. Bars: 95 % intervals over texts.",
          height=200 + 30 * len(set(names)), margin={"t": 130, "l": 200, "r": 30})  # fmt: skip
    same = table["axis"] == table["measured_on"]
    for mask, words, colour, symbol in (
        (~same, "on other axes", MUTED, "circle-open"),
        (same, "on the axis asked for", VERMILLION, "diamond"),
    ):
        own = table.loc[mask]
        figure.add_scatter(
            x=own["shift_d"], y=[name for name, kept in zip(names, mask, strict=True) if kept], mode="markers",
            name=words, marker={"color": colour, "symbol": symbol, "size": 10},
            error_x=error_bar(own, "shift_d", colour=colour) if symbol == "diamond" else None,
            text=[f"on {row['measured_on']}: {estimate(row, 'shift_d')}" for row in records(own)],
            hovertemplate="%{y}<br>%{text}<extra></extra>",
        )  # fmt: skip
    figure.add_vline(x=0, line_color=INK, line_width=1)
    figure.update_xaxes(title_text="d (standard deviations)")
    figure.update_yaxes(autorange="reversed")
    return figure.update_layout(showlegend=True, legend={"y": 1.05})


def _line(row: Mapping[str, object]) -> str:
    return f"{row['axis']}, {row['trial']}"


def _short(part: pd.DataFrame) -> str:
    return f"<b>{escape(str(part['model'].iloc[0]).removeprefix('organism:'))}</b>"
