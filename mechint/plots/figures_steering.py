"""Receipts of steering: which tokens were rewritten, how far and by which part, and what the gates saw."""

import html
import itertools
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

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
    escape,
    number,
    page,
    usable,
    visible,
)
from mechint.plots.rows import flagged, groups, known, records, where

_MOST_TEXTS, _MOST_TOKENS = 8, 200
_LINE, _CHARACTERS = 25, 88
"""Height of a line in pixels, and how many characters fit one."""
_MONOSPACED = "'DejaVu Sans Mono', Menlo, Consolas, monospace"
_PALE_TO_RUST = [[0.0, "#fdf3ec"], [0.5, "#f6bd94"], [1.0, "#e8803f"]]
"""Pale enough at every point for dark letters."""
_LINES = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE, MUTED, "#56b4e9", INK)
_UNITS = {"entropy": "entropy (nats)", "certainty": "certainty (0 to 1)"}


def texts(tables: Mapping[str, pd.DataFrame]) -> go.Figure | None:
    """Draw the rewritten tokens as running text, coloured by how much their activations were changed."""
    table = tables.get("tokens")
    if table is None or not usable(table, "change", "position"):
        return None
    every = groups(table.sort_values(by=["call", "row", "position"], kind="stable"), "call", "row")
    boxes, starts, labels, top = list[dict[str, Any]](), list[tuple[float, float]](), dict[float, str](), 0
    several = len(set(table["call"])) > 1
    for rows in every[:_MOST_TEXTS]:
        first = rows.iloc[0]
        labels[top] = (f"call {first['call']}, " if several else "") + f"text {first['row']}"
        placed = _wrapped(_tokens(rows))
        boxes += [box | {"line": box["line"] + top} for box in placed]
        begin = next((box for box in placed if box["t"] >= 0), None)
        if begin is not None:
            starts.append((begin["left"], begin["line"] + top))
        top += placed[-1]["line"] + 1.6
    said = ["The darker, the more an activation was changed."]
    said += ["⋯5: five tokens left alone."] if any(box["change"] is None for box in boxes) else []
    said += ["Blue bar: the prompt ends."] if starts else []
    said += [f"The first {_MOST_TEXTS} of {len(every)} texts."] if len(every) > _MOST_TEXTS else []
    figure = page("What was rewritten, token by token", " ".join(said), height=round(top * _LINE) + 95)
    _boxes(figure, boxes)
    for left, line in starts:
        figure.add_shape(
            type="line", x0=left, x1=left, y0=line - 0.5, y1=line + 0.5, line={"color": BLUE, "width": 4}
        )  # fmt: skip
    figure.update_xaxes(visible=False, range=[-0.5, _CHARACTERS + 0.5])
    figure.update_layout(margin={"b": 10})
    figure.update_yaxes(
        range=[top - 0.6, -0.7], tickvals=list(labels), ticktext=list(labels.values()), showgrid=False, ticks=""
    )
    return figure


def _tokens(rows: pd.DataFrame) -> list[dict[str, Any]]:
    """Return a box for each token of one text, all that was done to it in its hover text, and one for each gap."""
    boxes, expected = list[dict[str, Any]](), 0
    for place in groups(rows, "position")[:_MOST_TOKENS]:
        first, most = place.iloc[0], max(float(change) for change in place["change"])
        position = int(first["position"])
        prompt_length = position - int(first["t"])
        for begin, end in ((expected, min(position, prompt_length)), (max(expected, prompt_length), position)):
            if begin < end:
                boxes.append({"text": f"⋯{end - begin}", "change": None, "t": begin - prompt_length, "hover": ""})
        done = [f"{escape(row['part_name'])} at {escape(row['site'])}: dose {number(float(row['dose']))}, "
                f"change {number(float(row['change']))}" for row in records(place)]  # fmt: skip
        shown = visible(str(first["text"]))
        hover = f"<b>{shown}</b>, t = {first['t']}, position {position}<br>" + "<br>".join(done)
        boxes.append({"text": shown, "change": most, "t": int(first["t"]), "hover": hover})
        expected = position + 1
    if len(set(rows["position"])) > _MOST_TOKENS:
        boxes.append({"text": "…", "change": None, "t": -1, "hover": ""})
    return boxes


def _wrapped(boxes: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Give each box its line, left edge and width, in characters."""
    line, left, placed = 0, 0.0, list[dict[str, Any]]()
    for box in boxes:
        width = _width(box["text"]) + (0.8 if box["change"] is None else 0.2)
        if left + width > _CHARACTERS:
            line, left = line + 1, 0.0
        placed.append(box | {"line": line, "left": left, "width": width})
        left += width
    return placed


def _width(text: str) -> int:
    """Return how many columns a text takes: wide letters, such as Chinese ones, take two.

    Examples:
        >>> _width("&lt;b&gt;"), _width("·日本")
        (3, 5)
    """
    return sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in html.unescape(text))


def _boxes(figure: go.Figure, boxes: Sequence[Mapping[str, Any]]) -> None:
    changes = [box["change"] for box in boxes if box["change"] is not None]
    for kept, marker in (
        (True, {"color": changes, "coloraxis": "coloraxis", "line": {"color": "white", "width": 1}}),
        (False, {"color": "rgba(0, 0, 0, 0)"}),
    ):
        chosen = [box for box in boxes if (box["change"] is not None) == kept]
        figure.add_bar(
            base=[box["left"] for box in chosen], x=[box["width"] for box in chosen],
            y=[box["line"] for box in chosen], orientation="h", width=0.9, marker=marker, showlegend=False,
            name="rewritten" if kept else "left alone", text=[box["text"] for box in chosen],
            textposition="inside", insidetextanchor="middle", textangle=0, constraintext="none",
            insidetextfont={"family": _MONOSPACED, "size": 13, "color": INK if kept else MUTED},
            customdata=[box["hover"] for box in chosen],
            hovertemplate="%{customdata}<extra></extra>" if kept else None, hoverinfo=None if kept else "skip",
        )  # fmt: skip
    figure.update_layout(
        barmode="overlay",
        coloraxis={
            "colorscale": _PALE_TO_RUST, "cmin": 0, "cmax": max(changes) or 1,
            "colorbar": {"title": {"text": "|Δ| / |h|"}, "thickness": 12, "len": 120, "lenmode": "pixels", "y": 1,
                         "yanchor": "top", "nticks": 4},
        },
    )  # fmt: skip


def gates(tables: Mapping[str, pd.DataFrame]) -> go.Figure | None:
    """Draw what each condition of a gate saw, pass by pass, and where it held."""
    table, parts = tables.get("gates"), tables.get("parts")
    if table is None or parts is None or not usable(table, "value") or not usable(parts, "gate"):
        return None
    signals = groups(table.sort_values(by=["call", "row", "look"], kind="stable"), "signal")
    gated = where(parts, parts["gate"] != "").drop_duplicates(["part", "gate"])
    rules = [f"<b>{escape(row['part'])}</b> when {escape(row['gate'])}" for row in records(gated)]
    figure = make_subplots(
        rows=len(signals), cols=1, vertical_spacing=0.28 / len(signals),
        subplot_titles=[f"<b>{escape(rows['signal'].iloc[0])}</b>" for rows in signals],
    )  # fmt: skip
    top = 86 + 18 * len(rules)
    dress(
        figure,
        "What the gates saw",
        "Filled: the condition held. Dashed: its threshold.<br>" + "<br>".join(rules),
        height=230 * len(signals) + top + 40,
        margin={"t": top, "r": 110},
    )
    for panel, rows in enumerate(signals, start=1):
        signal, at = str(rows["signal"].iloc[0]), dict[str, Any](row=panel, col=1)
        _traces(figure, rows, panel)
        for threshold in sorted(set(rows["threshold"])):
            figure.add_hline(y=threshold, line_color=INK, line_dash="dash", line_width=1.5, **at)
        figure.update_yaxes(title_text=_unit(signal), row=panel, col=1)
    figure.update_xaxes(title_text="Pass of the model (0: the prompt, then one token each)", row=len(signals), col=1)
    figure.update_layout(showlegend=True, legend={"orientation": "v", "x": 1.01, "y": 1, "yanchor": "top"})
    return figure


def _unit(signal: str) -> str:
    return "text found (1: yes)" if signal.startswith("text has ") else _UNITS.get(signal, "signal (median |h|)")


def _traces(figure: go.Figure, rows: pd.DataFrame, panel: int) -> None:
    several = len(set(rows["call"])) > 1
    for colour, line in zip(itertools.cycle(_LINES), groups(rows, "call", "row"), strict=False):
        name = (f"call {line['call'].iloc[0]}, " if several else "") + f"text {line['row'].iloc[0]}"
        held = flagged(line, "open")
        figure.add_scatter(
            x=line["look"], y=line["value"], mode="lines+markers", name=name, legendgroup=name, showlegend=panel == 1,
            line={"color": colour, "width": 1.2},
            marker={"size": 7, "color": [colour if is_open else "white" for is_open in held],
                    "line": {"color": colour, "width": 1.5}},
            text=[f"<b>{name}</b>, pass {row['look']}<br>{number(float(row['value']))}: "
                  f"{'held' if is_open else 'did not hold'}" for row, is_open in zip(records(line), held, strict=True)],
            hovertemplate="%{text}<extra></extra>", row=panel, col=1,
        )  # fmt: skip


def parts(tables: Mapping[str, pd.DataFrame]) -> go.Figure | None:
    """Draw how much each part of a plan changed at each of its sites, those that never acted included."""
    table = tables.get("parts")
    if table is None or table.empty:
        return None
    names = [f"{escape(row['part'])} · {escape(row['site'])}" for row in records(table)]
    acted = known(table.assign(name=names), "change")
    figure = page(
        "How much each part changed, site by site",
        "Dot: mean over the rewritten tokens. Line: up to the token that was changed most.",
        height=34 * len(table) + 160,
    )
    figure.add_scatter(
        x=acted["change"], y=acted["name"], mode="markers", name="mean", showlegend=False,
        marker={"size": 11, "color": BLUE},
        error_x={"type": "data", "symmetric": False, "array": acted["change_max"] - acted["change"],
                 "arrayminus": [0.0] * len(acted), "color": BLUE, "thickness": 1.5, "width": 5},
        text=[f"<b>{row['name']}</b><br>{row['tokens']} tokens in {row['rows']} texts, on {escape(row['where'])}<br>"
              f"mean dose {number(float(row['dose']))} {escape(row['unit'])}<br>"
              f"|Δ|/|h| {number(float(row['change']))}, at most {number(float(row['change_max']))}"
              for row in records(acted)],
        hovertemplate="%{text}<extra></extra>",
    )  # fmt: skip
    for name, row in zip(names, records(table), strict=True):
        counted = f"{row['tokens']} tokens in {row['rows']} text{'' if row['rows'] == 1 else 's'}"
        idle = (
            "its gate was open on none of its tokens" if row["gate"] else "no token: dose 0, or none at its positions"
        )
        figure.add_annotation(
            x=0 if pd.isna(row["change_max"]) else row["change_max"], y=name, showarrow=False, xanchor="left",
            xshift=10, text=counted if row["tokens"] else idle, font={"size": 12, "color": MUTED}, bgcolor="white",
        )  # fmt: skip
    largest = max((float(change) for change in acted["change_max"]), default=1.0)
    figure.update_xaxes(title_text="|Δ| / |h|: length of the change / length of the activation (ratio)",
                        range=[-0.02 * largest, 1.4 * largest])  # fmt: skip
    figure.update_yaxes(categoryorder="array", categoryarray=names[::-1], type="category")
    return figure
