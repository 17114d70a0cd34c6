"""Evaluations of steering: effect against dose beside every control, what it costs, the test, and texts to read."""

import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from mechint.plots.figures_style import (
    BLUE,
    GREEN,
    GRID,
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
)
from mechint.plots.rows import groups, known, records


@dataclass(frozen=True)
class _Arm:
    name: str
    colour: str
    dash: str = "solid"


_ARMS = {
    "vector": _Arm("the vector", BLUE),
    "random": _Arm("random directions", MUTED, "dot"),
    "random_covariance": _Arm("random, with the activations' covariance", ORANGE, "dot"),
    "shuffled_labels": _Arm("fitted to shuffled labels", PURPLE, "dot"),
    "orthogonal": _Arm("the vector without the scored words' own direction", GREEN),
    "other_concept": _Arm("vector of another concept", VERMILLION),
    "prompt_only": _Arm("no steering, an instruction in the prompt", INK, "dash"),
}
"""Nulls of many draws are dotted; the colour of an arm is the same in every panel."""
_COSTS = {
    "kl_p95": ("KL, 95th percentile (nats)", "log", None),
    "perplexity_ratio": ("Perplexity, steered / clean (ratio)", "log", 1.0),
    "repetition": ("Repeated 4-grams (share, 0 to 1)", "linear", None),
    "distinct_2": ("Distinct 2-grams (share, 0 to 1)", "linear", None),
}
"""Title and scale of the axis, and the value without steering where it is known and can be drawn."""
_MOST_PROMPTS, _TEXT_WIDTH = 3, 108


def dose_response(tables: Mapping[str, pd.DataFrame]) -> go.Figure | None:
    """Draw the effect of each arm against the dose, and below it the damage on the same doses."""
    table = tables.get("doses")
    if table is None or not usable(table, "dose", "effect"):
        return None
    costs = [name for name in _COSTS if usable(table, name)]
    across, down = max(1, len(costs)), 2 if costs else 1
    figure = make_subplots(
        rows=down, cols=across, row_heights=[0.66, 0.34][:down], vertical_spacing=0.13,
        horizontal_spacing=0.27 / across, specs=[[{"colspan": across}, *[None] * (across - 1)], [{}] * across][:down],
        subplot_titles=["", *(f"<b>{_COSTS[name][0].split(' (')[0]}</b>" for name in costs)],
    )  # fmt: skip
    unbounded = any(math.isinf(value) for name in costs for value in table[name])
    dress(
        figure,
        "What steering does, dose by dose, and what it costs",
        "Single vectors with 95 % intervals; bands: the middle 95 % of many draws. Thin line: no steering (dose 0)."
        + (" Infinite costs are not drawn." if unbounded else ""),
        height=820 if costs else 540,
        margin={"t": 168, "r": 30},
    )
    highest = max(float(dose) for dose in table["dose"])
    arms = sorted(groups(table, "arm"), key=_is_vector)  # the vector last, so that it lies on top
    for arm in arms:
        _effects(figure, arm, highest)
    _costs(figure, arms, costs)
    figure.add_hline(y=0, line_color=INK, line_width=1, **_at(1, 1))
    _mark_tested(figure, tables.get("tests"), len(costs))
    figure.update_xaxes(range=[-0.03 * highest, 1.05 * highest])
    figure.update_xaxes(title_text="Dose (median |h| of the site)", row=1, col=1)
    figure.update_yaxes(title_text=_axis(table), row=1, col=1)
    figure.update_layout(showlegend=True, legend={"y": 1.02})
    return figure


def _effects(figure: go.Figure, rows: pd.DataFrame, highest: float) -> None:
    kind = str(rows["arm"].iloc[0])
    arm = _ARMS.get(kind, _Arm(kind, INK))
    draws = max(int(count) for count in rows["draws"])
    name = arm.name + (f" ({draws} draws)" if draws > 1 else "")
    hover = [f"<b>{escape(name)}</b>, dose {row['dose']:.3g}<br>effect {_between(row, 'effect')}"
             for row in records(rows)]  # fmt: skip
    if kind == "prompt_only":  # it has no dose: a level to compare with
        (level,) = rows["effect"].head(1)
        figure.add_scatter(
            x=[0, highest], y=[level, level], mode="lines", line={"color": arm.colour, "dash": arm.dash, "width": 1.5},
            error_y=_interval(rows, arm.colour), name=name, legendgroup=kind, text=hover * 2,
            hovertemplate="%{text}<extra></extra>", row=1, col=1,
        )  # fmt: skip
        return
    if draws > 1:
        ends = [*rows["effect_low"], *rows["effect_high"][::-1]]
        figure.add_scatter(
            x=[*rows["dose"], *rows["dose"][::-1]], y=ends, fill="toself", fillcolor=_pale(arm.colour), mode="lines",
            line={"color": arm.colour, "width": 0.7}, name=name, legendgroup=kind, showlegend=False,
            hoverinfo="skip", row=1, col=1,
        )  # fmt: skip
    figure.add_scatter(
        x=rows["dose"], y=rows["effect"], mode="lines+markers", name=name, legendgroup=kind,
        legendrank=1 if kind == "vector" else 1000,
        line={"color": arm.colour, "dash": arm.dash, "width": 4 if kind == "vector" else 1.8},
        marker={"size": 9 if kind == "vector" else 6, "color": arm.colour},
        error_y=None if draws > 1 else _interval(rows, arm.colour), text=hover,
        hovertemplate="%{text}<extra></extra>", row=1, col=1,
    )  # fmt: skip


def _is_vector(arm: pd.DataFrame) -> bool:
    return str(arm["arm"].iloc[0]) == "vector"


def _costs(figure: go.Figure, arms: Sequence[pd.DataFrame], costs: Sequence[str]) -> None:
    for column, cost in enumerate(costs, start=1):
        for rows in (known(arm, cost) for arm in arms):
            if rows.empty:
                continue
            kind = str(rows["arm"].iloc[0])
            arm = _ARMS.get(kind, _Arm(kind, INK))
            figure.add_scatter(
                x=rows["dose"], y=rows[cost], mode="lines+markers", legendgroup=kind, showlegend=False, name=arm.name,
                line={"color": arm.colour, "dash": arm.dash, "width": 3 if kind == "vector" else 1.5},
                marker={"size": 6, "color": arm.colour},
                text=[f"<b>{escape(arm.name)}</b>, dose {row['dose']:.3g}<br>{number(float(row[cost]))}"
                      for row in records(rows)],
                hovertemplate="%{text}<extra></extra>", row=2, col=column,
            )  # fmt: skip
        title, scale, clean = _COSTS[cost]
        if clean is not None:
            figure.add_hline(y=clean, line_color=INK, line_width=1, **_at(2, column))
        figure.update_yaxes(
            title_text=title.split("(")[1].rstrip(")") + (", log scale" if scale == "log" else ""), type=scale,
            nticks=5, exponentformat="power", row=2, col=column,
        )  # fmt: skip
        figure.update_xaxes(title_text="Dose (median |h|)", row=2, col=column)


def _mark_tested(figure: go.Figure, tests: pd.DataFrame | None, n_costs: int) -> None:
    if tests is None or tests.empty:
        return
    dose = float(tests["dose"].iloc[0])
    panels = [(1, 1), *((2, column) for column in range(1, n_costs + 1))]
    for row, column in panels:
        figure.add_vline(x=dose, line_color=MUTED, line_dash="dash", line_width=1.5, **_at(row, column))
    figure.add_annotation(
        x=dose, y=1, yref="y domain", xref="x", text="tested dose", showarrow=False, xanchor="left", xshift=4,
        yanchor="top", font={"size": 12, "color": MUTED},
    )  # fmt: skip


def against_chance(tables: Mapping[str, pd.DataFrame]) -> go.Figure | None:
    """Draw the effect at the tested dose beside each null arm, with the p-value of each."""
    table = tables.get("tests")
    if table is None or not usable(table, "effect", "mean"):
        return None
    rows, own = records(table), records(table)[0]
    names = ["<b>the vector</b>", *(_ARMS.get(row["null"], _Arm(row["null"], INK)).name for row in rows)]
    figure = page(
        f"The effect at the tested dose ({own['dose']:.3g}) against chance",
        "Blue: 95 % interval over prompts. Grey: mean and middle 95 % of the null's draws. p: share of draws that "
        "reach the vector, itself counted.",
        height=46 * len(names) + 165,
    )
    points = [(float(own["effect"]), float(own["effect_low"]), float(own["effect_high"]), BLUE, "")]
    points += [(float(row["mean"]), float(row["mean_low"]), float(row["mean_high"]), MUTED, f"p = {row['p']:.2g}, "
                f"{row['draws']} draws") for row in rows]  # fmt: skip
    for name, (value, low, high, colour, note) in zip(names, points, strict=True):
        figure.add_scatter(
            x=[value], y=[name], mode="markers", marker={"size": 12, "color": colour}, showlegend=False, name=name,
            error_x={"type": "data", "symmetric": False, "array": [max(0.0, high - value)],
                     "arrayminus": [max(0.0, value - low)], "color": colour, "thickness": 2, "width": 6},
            text=[f"{name}<br>{number(value)} [{number(low)}, {number(high)}]"],
            hovertemplate="%{text}<extra></extra>",
        )  # fmt: skip
        if note:
            figure.add_annotation(
                x=1.01, xref="paper", y=name, text=note, showarrow=False, xanchor="left", font={"size": 13}
            )  # fmt: skip
    figure.add_vline(x=0, line_color=INK, line_width=1)
    figure.add_vline(x=float(own["effect"]), line_color=BLUE, line_dash="dash", line_width=1)
    figure.update_layout(margin={"r": 150})
    figure.update_xaxes(title_text=_axis(table))
    figure.update_yaxes(categoryorder="array", categoryarray=names[::-1], type="category")
    return figure


def texts(tables: Mapping[str, pd.DataFrame]) -> go.Figure | None:
    """Show what the model writes after a few prompts, dose by dose."""
    table = tables.get("texts")
    if table is None or table.empty:
        return None
    prompts = groups(table.sort_values(by=["dose"], kind="stable"), "id")[:_MOST_PROMPTS]
    doses, words, lines, colours = list[str](), list[str](), 0, list[str]()
    for rows in prompts:
        entries = [("", f"<b>{_lines(str(rows['prompt'].iloc[0]), _TEXT_WIDTH - 6)} …</b>", GRID)]
        entries += [("none" if row["dose"] == 0 else f"{row['dose']:.3g}",
                     _lines(str(row["text"]), _TEXT_WIDTH), "white") for row in records(rows)]  # fmt: skip
        for dose, text, colour in entries:
            doses.append(dose)
            words.append(text)
            colours.append(colour)
            lines += text.count("<br>") + 1
    figure = page(
        "What the model writes, dose by dose",
        "The prompt in bold, what follows it below; without steering first. Read them before you trust a number.",
        height=19 * lines + 10 * len(words) + 170,
    )
    figure.add_table(
        columnwidth=[80, 740],
        header={"values": ["<b>Dose</b><br>(median |h|)", "<b>Text</b>"], "align": "left", "fill": {"color": "white"},
                "line": {"color": MUTED}, "font": {"size": 13}},
        cells={"values": [doses, words], "align": "left", "fill": {"color": [colours, colours]},
               "line": {"color": GRID}, "font": {"size": 13}, "height": 24},
    )  # fmt: skip
    figure.update_layout(margin={"l": 14, "r": 14, "b": 10})
    return figure


def _lines(text: str, width: int) -> str:
    r"""Break a text into lines, its own ends of lines shown and its markup made harmless.

    Examples:
        >>> _lines("so <b>it\n goes", 8)
        'so<br>&lt;b&gt;it↵<br>goes'
    """
    return "<br>".join(escape(line) for line in textwrap.wrap(text.strip(" ").replace("\n", "↵ "), width)) or "∅"


def _between(row: Mapping[str, Any], column: str) -> str:
    return (
        f"{number(float(row[column]))} [{number(float(row[f'{column}_low']))}, {number(float(row[f'{column}_high']))}]"
    )


def _axis(table: pd.DataFrame) -> str:
    return f"Effect ({table['unit'].iloc[0]})" if usable(table, "unit") else "Effect"


def _interval(rows: pd.DataFrame, colour: str) -> dict[str, Any]:
    above, below = rows["effect_high"] - rows["effect"], rows["effect"] - rows["effect_low"]
    return {
        "type": "data", "symmetric": False, "array": above.clip(lower=0), "arrayminus": below.clip(lower=0),
        "color": colour, "thickness": 1.5, "width": 4,
    }  # fmt: skip


def _at(row: int, column: int) -> dict[str, Any]:
    return {"row": row, "col": column}


def _pale(colour: str) -> str:
    return f"rgba({', '.join(str(int(colour[i : i + 2], 16)) for i in (1, 3, 5))}, 0.09)"
