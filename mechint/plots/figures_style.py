"""How every figure looks: one template, given by argument, and the words for axes and tokens.

The colours are those of Okabe and Ito, which stay apart for colour-blind readers and in grey print. Nothing here
touches Plotly's global defaults.
"""

import html
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

WIDTH = 900
"""Pixels: fits a laptop's window, and A4 at three quarters of the size."""

INK = "#1f2933"
MUTED = "#6b7280"
GRID = "#e5e7eb"
BLUE = "#0072b2"
VERMILLION = "#d55e00"
GREEN = "#009e73"
PURPLE = "#a4508b"
ORANGE = "#e69f00"

DIVERGING = [[0.0, "#08519c"], [0.25, "#6baed6"], [0.5, "#f7f7f7"], [0.75, "#f4a574"], [1.0, "#b3400a"]]
"""Blue below zero, white at zero, rust above: told apart with any colour vision."""

DEPTH = [[0.0, "#c7d3e3"], [0.5, "#4c7fb0"], [1.0, "#0b2545"]]
"""Pale for early layers, dark for late ones."""

PART_COLOURS = {
    "heads": BLUE,
    "MLPs": ORANGE,
    "final norm": PURPLE,
    "total": INK,
}

TEMPLATE = go.layout.Template(
    layout=go.Layout(
        width=WIDTH,
        paper_bgcolor="white",
        plot_bgcolor="white",
        colorway=[BLUE, VERMILLION, GREEN, PURPLE, ORANGE, MUTED],
        font={"family": "Inter, 'Segoe UI', 'Helvetica Neue', Arial, sans-serif", "size": 13, "color": INK},
        title={"font": {"size": 17}, "x": 0.0, "xanchor": "left", "xref": "container", "pad": {"l": 12}},
        margin={"l": 80, "r": 30, "t": 80, "b": 65},
        hoverlabel={"bgcolor": "white", "font": {"size": 13, "color": INK}, "align": "left"},
        legend={"font": {"size": 13}, "orientation": "h", "x": 0, "xanchor": "left", "y": 1.0, "yanchor": "bottom"},
        xaxis={"gridcolor": GRID, "zeroline": False, "linecolor": MUTED, "ticks": "outside", "tickcolor": MUTED,
               "title": {"standoff": 10, "font": {"size": 14}}, "automargin": True},
        yaxis={"gridcolor": GRID, "zeroline": False, "linecolor": MUTED,
               "title": {"standoff": 10, "font": {"size": 14}}, "automargin": True},
    )
)  # fmt: skip


def heading(title: str, subtitle: str) -> dict[str, Any]:
    """Return Plotly's description of a title in plain words and a line beneath it that says how to read the figure."""
    text = f"<b>{title}</b><br><span style='font-size:13px;color:{MUTED}'>{subtitle}</span>"
    return {"text": text, "y": 1.0, "yanchor": "top", "yref": "container", "pad": {"t": 18, "l": 12}}


def page(title: str, subtitle: str, *, height: int, top: int = 78) -> go.Figure:
    """Return an empty figure with a heading."""
    return dress(go.Figure(), title, subtitle, height=height, margin={"t": top})


def dress(figure: go.Figure, title: str, subtitle: str, *, height: int, margin: dict[str, int]) -> go.Figure:
    """Give a figure the template, a heading and a size; return it."""
    return figure.update_layout(template=TEMPLATE, height=height, margin=margin, title=heading(title, subtitle))


def visible(token: str) -> str:
    r"""Write a token so that its blanks can be seen and Plotly does not read it as markup.

    Examples:
        >>> visible(" Mary"), visible("<bos>"), visible("\n")
        ('·Mary', '&lt;bos&gt;', '↵')
    """
    shown = token.replace("\n", "↵").replace("\t", "⇥").replace(" ", "·").replace("▁", "·")
    if len(shown) > 16:
        shown = f"{shown[:15]}…"
    return html.escape(shown, quote=False) or "∅"


def escape(text: object) -> str:
    """Keep Plotly from reading text as markup."""
    return html.escape(str(text), quote=False)


def usable(frame: pd.DataFrame | None, *columns: str) -> bool:
    """Whether a table is there, has rows, and has a finite number in each of these columns.

    Examples:
        >>> usable(pd.DataFrame({"x": [float("nan")]}), "x"), usable(None), usable(pd.DataFrame({"x": [1.0]}), "x")
        (False, False, True)
    """
    if frame is None or frame.empty or any(name not in frame for name in columns):
        return False
    return all(bool(frame[name].notna().any()) for name in columns)


def main_table(tables: Mapping[str, pd.DataFrame], name: str) -> pd.DataFrame | None:
    """Return the table of this name, or else the first one."""
    return tables.get(name, next(iter(tables.values()), None))


def error_bar(frame: pd.DataFrame, column: str, *, colour: str = MUTED, width: int = 4) -> dict[str, object] | None:
    """Return Plotly's description of the interval `column_low` to `column_high`, or nothing if there is none."""
    low, high = f"{column}_low", f"{column}_high"
    if low not in frame or high not in frame:
        return None
    value = frame[column].to_numpy(dtype=float)
    above = np.clip(frame[high].to_numpy(dtype=float) - value, 0.0, None)
    below = np.clip(value - frame[low].to_numpy(dtype=float), 0.0, None)
    return {
        "type": "data", "symmetric": False, "array": above, "arrayminus": below,
        "color": colour, "thickness": 1.5, "width": width,
    }  # fmt: skip


def number(value: Any, digits: int = 3) -> str:
    """Write a number for a hover text.

    Examples:
        >>> number(0.12345), number(float("nan")), number(3)
        ('0.123', 'not defined', '3')
    """
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    if isinstance(value, int | np.integer):
        return str(int(value))
    if not isinstance(value, float | np.floating):
        return escape(value)
    plain = float(value)
    if math.isnan(plain):
        return "not defined"
    return f"{plain:.{digits}g}" if 0 < abs(plain) < 0.001 else f"{plain:.{digits}f}"


def estimate(row: Mapping[str, Any], column: str) -> str:
    """Write an estimate with its interval and its p-value, as far as the row has them.

    Examples:
        >>> estimate({"x": 0.5, "x_low": 0.25, "x_high": 0.75}, "x")
        '0.500 [0.250, 0.750]'
    """
    text = number(row.get(column, math.nan))
    low, high, p = (row.get(f"{column}_{end}", math.nan) for end in ("low", "high", "p"))
    if pd.notna(low) and pd.notna(high):
        text += f" [{number(low)}, {number(high)}]"
    if pd.notna(p):
        text += f", p {number(p)}"
    return text
