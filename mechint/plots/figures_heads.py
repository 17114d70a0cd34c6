"""Which heads suppress copies: the map of all heads, the strongest with their controls, and their OV circuits."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from mechint.plots.figures_style import (
    BLUE,
    DIVERGING,
    GREEN,
    INK,
    MUTED,
    VERMILLION,
    error_bar,
    escape,
    estimate,
    number,
    page,
    usable,
)
from mechint.plots.rows import flagged, known, largest, records, where

TOP = 12
"""Heads shown where there is no room for all."""


def score_map(tables: Mapping[str, pd.DataFrame]) -> go.Figure | None:
    """Draw every head of every layer, coloured by its copy-suppression score."""
    heads = tables.get("heads")
    if heads is None or not usable(heads, "layer", "head", "cs_score"):
        return None
    figure = head_map(
        heads,
        "cs_score",
        title="Which heads push down a token that the prompt already contains",
        subtitle="Each cell is one attention head. Rust: it lowers the target's logit; blue: it raises it.",
        bar="Copy-suppression score (logits): below 0 the head raises the target, above 0 it lowers it",
        lines={
            "cs_score": "copy-suppression score (logits)",
            "cs_control": "same, on a random token (logits)",
            "attention": "attention to the target",
            "direct_effect_target": "direct effect on the target (logits)",
            "failed": "criteria not met",
        },
    )
    return ring(figure, heads, "suppresses", "meets every criterion of a copy-suppression head")


def ring(figure: go.Figure, heads: pd.DataFrame, column: str, name: str) -> go.Figure:
    """Draw a ring around each head of a map for which a column of flags is true."""
    marked = where(heads, flagged(heads, column))
    if not marked.empty:
        figure.add_scatter(
            x=marked["layer"].tolist(),
            y=marked["head"].tolist(),
            mode="markers",
            name=name,
            marker={"symbol": "circle-open", "size": 22, "color": INK, "line": {"width": 3}},
            hoverinfo="skip",
            showlegend=True,
        )
    return figure


def head_map(
    heads: pd.DataFrame, column: str, *, title: str, subtitle: str, bar: str, lines: Mapping[str, str]
) -> go.Figure:
    """Draw one number of every head as a map, layers across and heads down, white at zero.

    Args:
        heads: one row a head, with `layer` and `head`.
        column: the number.
        title: of the figure.
        subtitle: of the figure.
        bar: title of the colour bar, with the unit and the meaning of the sign.
        lines: columns of the hover text, and what to call them.
    """
    grid = heads.pivot_table(index="head", columns="layer", values=column, dropna=False)
    texts = [_hover(row, lines) for row in records(heads)]
    hover = heads.assign(text=texts).pivot_table(index="head", columns="layer", values="text", aggfunc="first")
    hover = hover.reindex(index=grid.index, columns=grid.columns)
    largest = float(np.nanmax(np.abs(grid.to_numpy(dtype=float))))
    rows, layers = len(grid.index), len(grid.columns)
    cell = max(24, min(44, 420 // rows))
    figure = page(title, subtitle, height=rows * cell + 225, top=100)
    figure.add_heatmap(
        x=grid.columns.tolist(),
        y=grid.index.tolist(),
        z=grid.to_numpy(dtype=float),
        text=hover.to_numpy(),
        hovertemplate="%{text}<extra></extra>",
        colorscale=DIVERGING,
        zmid=0,
        zmin=-largest or -1,
        zmax=largest or 1,
        xgap=2,
        ygap=2,
        colorbar=_bar(bar, rows * cell),
        showscale=True,
    )
    missing = where(heads, heads[column].isna())
    if not missing.empty:
        figure.add_scatter(
            x=missing["layer"].tolist(),
            y=missing["head"].tolist(),
            mode="markers",
            name="no value",
            marker={"symbol": "x-thin", "size": 9, "line": {"width": 2, "color": MUTED}},
            hoverinfo="skip",
            showlegend=True,
        )
    figure.update_layout(plot_bgcolor="#e9ecef", margin={"b": 125})
    every = 1 if layers <= 26 else 2 if layers <= 52 else 4
    figure.update_xaxes(title_text="Layer", dtick=every, range=[-0.5, layers - 0.5], showgrid=False, ticks="")
    figure.update_yaxes(
        title_text="Head", dtick=1 if rows <= 20 else 2, showgrid=False, ticks="", range=[rows - 0.5, -0.5]
    )
    return figure


def scores(tables: Mapping[str, pd.DataFrame]) -> go.Figure | None:
    """Draw the heads with the largest scores as points with intervals, each beside its control."""
    heads = tables.get("heads")
    if heads is None or not usable(heads, "label", "cs_score"):
        return None
    top = largest(heads, "cs_score", TOP)
    controlled = usable(top, "cs_control")
    figure = page(
        "The strongest heads, beside a control" if controlled else "The strongest heads",
        "How far the head lowers the target"
        + (", against a random other token of the same prompt" if controlled else "; there is no control here")
        + ". Bars: 95 % intervals.",
        height=len(top) * 36 + 175,
        top=98,
    )
    positions = np.arange(len(top))
    if controlled:
        figure.add_scatter(
            x=top["cs_control"],
            y=positions - 0.17,
            error_x=error_bar(top, "cs_control"),
            mode="markers",
            name="control: a random token of the same prompt",
            marker={"symbol": "diamond-open", "size": 9, "color": MUTED, "line": {"width": 2}},
            text=[f"<b>{escape(row['label'])}</b><br>control {estimate(row, 'cs_control')}" for row in records(top)],
            hovertemplate="%{text}<extra></extra>",
        )
    figure.add_scatter(
        x=top["cs_score"],
        y=positions + 0.13,
        error_x=error_bar(top, "cs_score", colour=VERMILLION),
        mode="markers",
        name="the target",
        marker={"size": 10, "color": VERMILLION},
        text=[f"<b>{escape(row['label'])}</b><br>score {estimate(row, 'cs_score')}" for row in records(top)],
        hovertemplate="%{text}<extra></extra>",
    )
    figure.add_vline(x=0, line_color=INK, line_width=1)
    figure.update_xaxes(title_text="Copy-suppression score (logits; right of 0: the head lowers the token)")
    figure.update_yaxes(
        tickvals=positions.tolist(), ticktext=_starred(top), range=[-0.7, len(top) - 0.3], showgrid=False, ticks=""
    )
    return figure


def own_token(tables: Mapping[str, pd.DataFrame]) -> go.Figure | None:
    """Draw what the OV circuits of the strongest heads do to the token they read: two panels, chance dashed."""
    heads = tables.get("heads")
    if heads is None or not usable(heads, "label", "cs_score", "ov_bottom_share", "ov_rank_median"):
        return None
    top = largest(known(heads, "ov_bottom_share"), "cs_score", TOP)
    figure = page(
        "What each head's OV circuit does to the very token it reads",
        "Left: how often that token lands in the lowest 5 % of the vocabulary. Right: its median place. "
        "Dashed: chance.",
        height=len(top) * 32 + 160,
    )
    labels = _starred(top)
    for axis, column, colour in (("x", "ov_bottom_share", GREEN), ("x2", "ov_rank_median", BLUE)):
        figure.add_scatter(
            x=top[column],
            y=np.arange(len(top)),
            error_x=error_bar(top, column, colour=colour),
            mode="markers",
            marker={"size": 10, "color": colour},
            xaxis=axis,
            yaxis="y",
            name=column,
            showlegend=False,
            text=[
                f"<b>{escape(row['label'])}</b><br>{estimate(row, column)}<br>"
                f"sampled rows {number(row.get('ov_rows', np.nan))}, ties {number(row.get('ov_ties', np.nan))}"
                for row in records(top)
            ],
            hovertemplate="%{text}<extra></extra>",
        )
    figure.update_layout(
        xaxis={"domain": [0, 0.47], "range": [-0.03, 1.03], "title": {"text": "Share in the lowest 5 % (0 to 1)"}},
        xaxis2={
            "domain": [0.53, 1],
            "anchor": "y",
            "rangemode": "tozero",
            "title": {"text": "Median place of the own token (tokens; 0 = lowest)"},
        },
    )
    figure.add_vline(x=0.05, line_dash="dash", line_color=MUTED, xref="x")
    if usable(top, "d_vocab"):
        figure.add_vline(x=float(top["d_vocab"].iloc[0]) / 2, line_dash="dash", line_color=MUTED, xref="x2")
        figure.update_layout(xaxis2_range=[-0.03 * top["d_vocab"].iloc[0], 1.03 * top["d_vocab"].iloc[0]])
    figure.update_yaxes(
        tickvals=list(range(len(top))), ticktext=labels, range=[-0.7, len(top) - 0.3], ticks="", showgrid=True
    )
    return figure


def _bar(title: str, height: int) -> dict[str, Any]:
    """Describe a colour bar beneath the axis title of a plot of this height in pixels."""
    return {
        "title": {"text": title, "side": "top"},
        "orientation": "h",
        "thickness": 14,
        "len": 0.8,
        "lenmode": "fraction",
        "y": -58 / height,
        "yanchor": "top",
        "ypad": 0,
        "tickfont": {"size": 12},
    }


def _starred(heads: pd.DataFrame) -> list[str]:
    """Write head names, those that meet every criterion in bold with a ring."""
    pairs = zip(heads["label"], flagged(heads, "suppresses"), strict=True)
    return [f"<b>◯ {escape(label)}</b>" if good else escape(label) for label, good in pairs]


def _hover(row: Mapping[str, Any], lines: Mapping[str, str]) -> str:
    name = row.get("label", f"L{row.get('layer')}H{row.get('head')}")
    told = [
        f"{title}: {estimate(row, column)}" for column, title in lines.items() if column in row and row[column] != ""
    ]
    return "<br>".join([f"<b>{escape(name)}</b>", *told])
