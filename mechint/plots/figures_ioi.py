"""Self-repair on two-name prompts: heads before and after the movers are gone, edits of the movers, and queries."""

from collections.abc import Mapping, Sequence
from typing import cast

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
    WIDTH,
    error_bar,
    escape,
    estimate,
    number,
    page,
    usable,
)
from mechint.plots.labels import place_labels, span
from mechint.plots.rows import known, largest, records, where

MOST_HEADS = 14
"""Heads shown where there is no room for all."""

_HEIGHT, _TOP, _BOTTOM, _LEFT, _RIGHT = 600, 102, 70, 85, 40
_ROLES = {"mover": ("name movers", BLUE), "negative": ("negative heads", VERMILLION), "other": ("all others", MUTED)}
_REMOVED = {
    "IO direction": ("without the movers' output along the target's direction", VERMILLION, "circle"),
    "rest": ("without the rest of the movers' output", BLUE, "diamond"),
    "whole output": ("without any of the movers' output", GREEN, "square-open"),
}


def before_after(tables: Mapping[str, pd.DataFrame]) -> go.Figure | None:
    """Draw every component's direct effect before and after the movers are resampled, with the line of no change."""
    table = tables.get("components")
    if table is None or not usable(table, "direct_effect_clean", "direct_effect_resampled"):
        return None
    table = where(table, ~table["component"].isin(["total", "final norm"])).reset_index(drop=True)
    groups = [(name, colour, "circle", where(table, table["role"] == r)) for r, (name, colour) in _ROLES.items()]
    return _scatter(
        groups,
        "direct_effect_resampled",
        title="Who changes when the name movers are taken away together",
        subtitle="Each point is a head or MLP; above the dashed line it does more for the target than before.",
        y_title="Direct effect with the movers resampled (logits)",
        named="change",
    )


def queries(tables: Mapping[str, pd.DataFrame]) -> go.Figure | None:
    """Draw later heads' direct effects before and after their queries lose parts of the movers' output."""
    table = tables.get("projection_test")
    if table is None or not usable(table, "direct_effect_clean", "direct_effect_after"):
        return None
    groups = [
        (name, colour, symbol, where(table, table["removed"] == part).reset_index(drop=True))
        for part, (name, colour, symbol) in _REMOVED.items()
    ]
    return _scatter(
        groups,
        "direct_effect_after",
        title="What in the movers' output later heads' queries answer to",
        subtitle="Only the head's query at the last position is changed. On the dashed line it makes no difference.",
        y_title="Direct effect with the query changed (logits)",
        named="change",
    )


def interventions(tables: Mapping[str, pd.DataFrame]) -> go.Figure | None:
    """Draw how later heads' direct effects change with each edit of the movers' output, as a map."""
    table = tables.get("interventions")
    if table is None or not usable(table, "change"):
        return None
    later = where(table, table["role"] != "mover")
    size = cast(pd.Series, later["change"]).abs().groupby(later["label"]).transform("max")
    heads = later.assign(size=size).drop_duplicates("label")
    shown = largest(heads, "size", MOST_HEADS).sort_values(by=["layer", "head"])
    if shown.empty:
        return None
    labels = shown["label"].tolist()
    edits = list(dict.fromkeys(later["intervention"]))
    grid = later.pivot(index="label", columns="intervention", values="change").loc[labels, edits]
    rows = where(later, later["label"].isin(labels))
    texts = [
        f"<b>{escape(r['label'])}</b>, {escape(r['intervention'])}<br>{estimate(r, 'change')}" for r in records(rows)
    ]
    hover = rows.assign(text=texts).pivot(index="label", columns="intervention", values="text").loc[labels, edits]
    values = grid.to_numpy(dtype=float)
    most = float(np.nanmax(np.abs(values))) or 1.0
    negative = set(where(rows, rows["role"] == "negative")["label"])
    figure = page(
        "What in the movers' output makes later heads change",
        "The movers' output at the last position is set to something else; cells: change of the head's direct effect. "
        "Bold: negative heads.",
        height=len(labels) * 30 + 215,
        top=84,
    )
    figure.add_heatmap(
        x=edits,
        y=[f"<b>{escape(label)}</b>" if label in negative else escape(label) for label in labels],
        z=values,
        text=[[number(round(value, 2) + 0.0, 2) for value in row] for row in values],
        texttemplate="%{text}",
        customdata=hover.to_numpy(),
        hovertemplate="%{customdata}<extra></extra>",
        colorscale=DIVERGING,
        zmid=0,
        zmin=-most,
        zmax=most,
        xgap=2,
        ygap=2,
        colorbar={"title": {"text": "logits", "font": {"size": 13}}, "thickness": 14, "tickfont": {"size": 12}},
    )
    figure.update_layout(margin={"b": 75})
    figure.update_xaxes(title_text="Movers' output at the last position (changes in logits)", ticks="", showgrid=False)
    figure.update_yaxes(autorange="reversed", ticks="", showgrid=False, type="category")
    return figure


def share(tables: Mapping[str, pd.DataFrame]) -> go.Figure | None:
    """Draw what each negative head puts back, all of them together, and the control."""
    table = tables.get("share")
    if table is None or not usable(table, "put_back"):
        return None
    rows = table.iloc[::-1].reset_index(drop=True)
    colours = [_bar_colour(row["added_up"], bool(row["repairs"])) for row in records(rows)]
    whole = estimate(records(rows)[0], "put_back_by_all_heads")
    figure = page(
        "What the negative heads put back of what the name movers took",
        f"All heads but the movers together put back {whole} logits. Filled: meets every condition. 95 % intervals.",
        height=len(rows) * 42 + 165,
        top=84,
    )
    figure.add_bar(
        x=rows["put_back"],
        y=[escape(name) for name in rows["added_up"]],
        orientation="h",
        marker={"color": colours, "line": {"color": INK, "width": 1}},
        error_x=error_bar(rows, "put_back", colour=INK),
        text=[
            f"<b>{escape(row['added_up'])}</b><br>{estimate(row, 'put_back')} logits<br>share {estimate(row, 'share')}"
            for row in records(rows)
        ],
        textposition="none",
        hovertemplate="%{text}<extra></extra>",
    )
    figure.add_vline(x=0, line_color=INK, line_width=1)
    figure.update_xaxes(title_text="Change of the direct effect when the movers are resampled (logits)")
    figure.update_yaxes(ticks="", type="category")
    return figure


def _bar_colour(name: str, repairs: bool) -> str:
    if name.startswith("other heads"):
        return MUTED
    return VERMILLION if repairs else "white"


def _scatter(
    groups: Sequence[tuple[str, str, str, pd.DataFrame]],
    y: str,
    *,
    title: str,
    subtitle: str,
    y_title: str,
    named: str,
) -> go.Figure:
    """Draw groups of points, before against after, with y = x and the names of those that change most."""
    x = "direct_effect_clean"
    everything = pd.concat([known(rows, x, y) for _, _, _, rows in groups], ignore_index=True)
    ends = [
        float(value) for column in (f"{x}_low", f"{x}_high", f"{y}_low", f"{y}_high") if column in everything
        for value in everything[column]
    ]  # fmt: skip
    reach = span([*everything[x], *everything[y]], [0.0, *ends])
    figure = page(title, subtitle, height=_HEIGHT, top=_TOP)
    figure.update_layout(margin={"l": _LEFT, "r": _RIGHT, "b": _BOTTOM})
    figure.add_hline(y=0, line_color=MUTED, line_width=1)
    figure.add_vline(x=0, line_color=MUTED, line_width=1)
    figure.add_scatter(
        x=list(reach), y=list(reach), mode="lines", name="no change", hoverinfo="skip",
        line={"color": INK, "dash": "dash", "width": 1.5},
    )  # fmt: skip
    for name, colour, symbol, rows in reversed(groups):
        shown = known(rows, x, y)
        if shown.empty:
            continue
        figure.add_scatter(
            x=shown[x],
            y=shown[y],
            error_x=error_bar(shown, x, colour=colour, width=0),
            error_y=error_bar(shown, y, colour=colour, width=0),
            mode="markers",
            name=name,
            marker={"size": 9, "color": colour, "symbol": symbol, "line": {"width": 1.5, "color": colour}},
            text=[
                f"<b>{escape(row['label'])}</b>, {escape(name)}<br>before: {estimate(row, x)}<br>"
                f"after: {estimate(row, y)}<br>change: {estimate(row, 'change')}"
                for row in records(shown)
            ],
            hovertemplate="%{text}<extra></extra>",
        )
    _name(figure, everything, x, y, named, reach)
    figure.update_layout(legend={"traceorder": "reversed"})
    figure.update_xaxes(title_text="Direct effect in the clean run (logits)", range=list(reach))
    figure.update_yaxes(title_text=y_title, range=list(reach))
    return figure


def _name(
    figure: go.Figure, points: pd.DataFrame, x: str, y: str, named: str, reach: tuple[float, float], most: int = 12
) -> None:
    """Write the names of the points that change most, each head once."""
    order = cast(pd.Series, points[named]).abs().sort_values(ascending=False, kind="stable").index
    ranked = points.loc[order].drop_duplicates("label")
    far = ranked[named].abs() >= 0.05 * float(ranked[named].abs().max() or 1.0)
    chosen = where(ranked, far).head(most)
    rest = points.drop(chosen.index)
    along = np.linspace(*reach, 60).tolist()
    placed = place_labels(
        chosen[x].astype(float).tolist(),
        chosen[y].astype(float).tolist(),
        [str(label) for label in chosen["label"]],
        size=(WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM),
        x_range=reach,
        y_range=reach,
        obstacles=[*zip(rest[x].astype(float), rest[y].astype(float), strict=True), *zip(along, along, strict=True)],
    )
    for index, right, down in placed:
        row = chosen.iloc[index]
        figure.add_annotation(
            x=row[x], y=row[y], text=escape(row["label"]), font={"size": 12}, ax=right, ay=down,
            showarrow=True, arrowhead=0, arrowwidth=1, arrowcolor=MUTED, standoff=5, borderpad=0,
        )  # fmt: skip
