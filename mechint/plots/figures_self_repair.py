"""Self-repair on text: what is lost, what is put back and by whom, layer by layer and head by head."""

from collections.abc import Mapping
from typing import Any

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from mechint.plots.figures_style import (
    DEPTH,
    GREEN,
    INK,
    MUTED,
    PART_COLOURS,
    VERMILLION,
    WIDTH,
    dress,
    error_bar,
    escape,
    estimate,
    page,
    usable,
)
from mechint.plots.labels import place_labels, span
from mechint.plots.rows import groups, known, largest, records, where

_HEIGHT, _TOP, _BOTTOM, _LEFT, _RIGHT, _GAP = 520, 104, 66, 80, 110, 0.11
_KINDS = {"head": ("heads", "circle"), "mlp": ("MLPs", "diamond"), "layer": ("whole blocks", "square")}
_MOST_NAMES = 7
_LEAST_SHARE, _MOST_SHARE = -1.6, 1.3
_BARS = {
    "direct_effect": ("direct effect", "#9ca3af"),
    "direct_effect_ablated": ("after ablation", "#d1d5db"),
    "heads_part": ("other heads", PART_COLOURS["heads"]),
    "mlps_part": ("MLPs", PART_COLOURS["MLPs"]),
    "norm_part": ("final norm", PART_COLOURS["final norm"]),
}


def effect_and_change(tables: Mapping[str, pd.DataFrame]) -> go.Figure | None:
    """Draw each component's direct effect against the change of the logit when it is ablated, on condensed tokens."""
    table = _average(tables.get("condensed"), "condensed")
    if table is None or not usable(table, "direct_effect", "logit_change"):
        return None
    kinds = [kind for kind in _KINDS if kind in set(table["part"])]
    figure = make_subplots(
        cols=len(kinds), rows=1, horizontal_spacing=_GAP, subplot_titles=[f"<b>{_KINDS[kind][0]}</b>" for kind in kinds]
    )
    dress(
        figure,
        "What a component does directly, and what happens when it is taken away",
        f"On the dashed line nothing makes good the loss. Means over the tokens where it writes most{_how(table)}.",
        height=_HEIGHT,
        margin={"l": _LEFT, "r": _RIGHT, "t": _TOP, "b": _BOTTOM},
    )
    deepest = max(int(layer) for layer in table["layer"])
    for column, kind in enumerate(kinds, start=1):
        shown = known(where(table, table["part"] == kind), "direct_effect", "logit_change").reset_index(drop=True)
        _panel(figure, shown, column, len(kinds), _KINDS[kind][1])
    figure.update_layout(
        showlegend=False,
        coloraxis={
            "colorscale": DEPTH, "cmin": 0, "cmax": max(1, deepest),
            "colorbar": {"title": {"text": "Layer"}, "thickness": 14, "len": 0.8, "tickformat": "d"},
        },
    )  # fmt: skip
    figure.update_yaxes(title_text="Change of the logit on ablation (logits)", col=1)
    return figure


def _panel(figure: go.Figure, shown: pd.DataFrame, column: int, across: int, symbol: str) -> None:
    x, y = shown["direct_effect"].astype(float), shown["logit_change"].astype(float)
    x_range, y_range = span(x.tolist(), [0.0]), span(y.tolist(), [0.0])
    low, high = max(x_range[0], -y_range[1]), min(x_range[1], -y_range[0])
    at: dict[str, Any] = {"row": 1, "col": column}
    figure.add_scatter(
        x=[low, high], y=[-low, -high], mode="lines", hoverinfo="skip", name="no repair",
        line={"color": INK, "dash": "dash", "width": 1.5}, **at,
    )  # fmt: skip
    figure.add_hline(y=0, line_color=MUTED, line_width=1, **at)
    figure.add_vline(x=0, line_color=MUTED, line_width=1, **at)
    figure.add_scatter(
        x=x, y=y, mode="markers", name=symbol,
        marker={"size": 10, "symbol": symbol, "color": shown["layer"].tolist(), "coloraxis": "coloraxis",
                "line": {"color": INK, "width": 0.8}},
        text=[f"<b>{escape(row['label'])}</b><br>direct effect {estimate(row, 'direct_effect')}<br>"
              f"change of the logit {estimate(row, 'logit_change')}<br>self-repair {estimate(row, 'self_repair')}"
              for row in records(shown)],
        hovertemplate="%{text}<extra></extra>", **at,
    )  # fmt: skip
    figure.update_xaxes(title_text="Direct effect (logits)", range=list(x_range), **at)
    figure.update_yaxes(range=list(y_range), **at)
    named = largest(shown.assign(away=shown["direct_effect"].abs() + shown["logit_change"].abs()), "away", _MOST_NAMES)
    rest = shown.drop(named.index)
    placed = place_labels(
        named["direct_effect"].astype(float).tolist(),
        named["logit_change"].astype(float).tolist(),
        [str(label) for label in named["label"]],
        size=((WIDTH - _LEFT - _RIGHT) * (1 - _GAP * (across - 1)) / across, _HEIGHT - _TOP - _BOTTOM),
        x_range=x_range,
        y_range=y_range,
        obstacles=[
            *zip(rest["direct_effect"].astype(float), rest["logit_change"].astype(float), strict=True),
            *((low + (high - low) * step / 50, -low - (high - low) * step / 50) for step in range(51)),
        ],
    )
    for index, right, down in placed:
        row = named.iloc[index]
        figure.add_annotation(
            x=row["direct_effect"], y=row["logit_change"], text=escape(row["label"]), font={"size": 12}, ax=right,
            ay=down, showarrow=True, arrowhead=0, arrowwidth=1, arrowcolor=MUTED, standoff=5, borderpad=0, **at,
        )  # fmt: skip


def share_by_depth(tables: Mapping[str, pd.DataFrame]) -> go.Figure | None:
    """Draw the share of each head's direct effect that is put back, from the first layer to the last."""
    heads, layers = tables.get("components"), tables.get("layers")
    if heads is None or layers is None or not usable(layers, "repair_ratio_of_means"):
        return None
    if not usable(heads, "condensed_ratio", "depth"):
        return None
    shown = known(where(heads, heads["part"] == "head"), "condensed_ratio")
    if shown.empty:
        return None
    figure = page(
        "How much of a head's direct effect the rest of the model puts back",
        f"On the tokens where each head writes most{_how(heads)}. Below 0 the loss is made worse. Small points write "
        "little, so their share is wild.",
        height=500,
        top=112,
    )
    figure.add_scatter(
        x=shown["depth"], y=shown["condensed_ratio"], mode="markers", name="one head",
        marker={"size": _sizes(shown), "color": MUTED, "opacity": 0.6},
        text=[f"<b>{escape(row['label'])}</b><br>direct effect {estimate(row, 'condensed_direct_effect')}<br>"
              f"put back {estimate(row, 'condensed_ratio')}<br>"
              f"by a chance fit {estimate(row, 'chance_ratio')}" for row in records(shown)],
        hovertemplate="%{text}<extra></extra>",
    )  # fmt: skip
    for average, name, colour, dash in (
        ("condensed", "heads of a layer together, with 95 % interval", INK, "solid"),
        ("chance fit", "control: output of unrelated texts that fits by chance", VERMILLION, "dot"),
    ):
        rows = _average(where(layers, layers["part"] == "head"), average)
        if rows is None or not usable(rows, "repair_ratio_of_means"):
            continue
        rows = rows.sort_values(by=["depth"])
        figure.add_scatter(
            x=rows["depth"], y=rows["repair_ratio_of_means"], mode="lines+markers", name=name,
            error_y=error_bar(rows, "repair_ratio_of_means", colour=colour, width=3),
            line={"color": colour, "dash": dash}, marker={"size": 7, "color": colour},
            text=[f"layer {row['layer']}: {estimate(row, 'repair_ratio_of_means')}" for row in records(rows)],
            hovertemplate="%{text}<extra></extra>",
        )  # fmt: skip
    lines = _average(where(layers, layers["part"] == "head"), "condensed")
    values = [] if lines is None else lines["repair_ratio_of_means"].astype(float).tolist()
    figure.add_hline(y=0, line_color=INK, line_width=1)
    figure.update_xaxes(title_text="Depth (0: first layer, 1: last)", range=[-0.03, 1.03])
    low, high = span([*shown["condensed_ratio"].tolist(), *values], [0.0])
    figure.update_yaxes(
        title_text="Self-repair / direct effect (share)", range=[max(low, _LEAST_SHARE), min(high, _MOST_SHARE)]
    )
    return figure


def _sizes(heads: pd.DataFrame) -> list[float]:
    """Return the size of each head's point: the more it writes, the larger."""
    if not usable(heads, "condensed_direct_effect"):
        return [8.0] * len(heads)
    effects = [max(0.0, float(effect)) for effect in heads["condensed_direct_effect"]]
    return [4 + 12 * (effect / (max(effects) or 1)) ** 0.5 for effect in effects]


def parts_by_layer(tables: Mapping[str, pd.DataFrame]) -> go.Figure | None:
    """Draw, layer by layer, what heads do directly, what is left of it, and what puts it back."""
    layers = tables.get("layers")
    if layers is None or layers.empty:
        return None
    rows = _average(where(layers, layers["part"] == "head"), "condensed")
    if rows is None or not usable(rows, *_BARS):
        return None
    rows = rows.sort_values(by=["layer"])
    figure = page(
        "Who puts back what the heads of a layer wrote",
        f"Means over heads, on the tokens where each writes most{_how(rows)}. 95 % intervals.",
        height=480,
        top=104,
    )
    for column, (name, colour) in _BARS.items():
        figure.add_bar(
            x=rows["layer"], y=rows[column], name=name, marker={"color": colour},
            error_y=error_bar(rows, column, colour=INK, width=2),
            text=[f"layer {row['layer']}<br>{name}: {estimate(row, column)} logits" for row in records(rows)],
            textposition="none", hovertemplate="%{text}<extra></extra>",
        )  # fmt: skip
    figure.add_hline(y=0, line_color=INK, line_width=1)
    figure.update_layout(barmode="group", bargap=0.2)
    figure.update_xaxes(title_text="Layer of the ablated heads", dtick=1)
    figure.update_yaxes(title_text="Direct effect, or change of it (logits)")
    return figure


def compensation(tables: Mapping[str, pd.DataFrame]) -> go.Figure | None:
    """Draw, for MLPs and whole blocks, by how much the logit falls for each logit that was written."""
    table = tables.get("compensation")
    if table is None or not usable(table, "slope"):
        return None
    figure = page(
        "How much of a layer's direct effect is felt when it is ablated",
        f"Slope of the total effect on the direct effect, over all tokens{_how(table)}. Below 1: compensated.",
        height=440,
        top=104,
    )
    for rows, colour in zip(groups(table.sort_values(by=["part", "layer"]), "part"), (GREEN, INK), strict=False):
        name, symbol = _KINDS[str(rows["part"].iloc[0])]
        figure.add_scatter(
            x=rows["layer"], y=rows["slope"], mode="lines+markers", name=name, line={"color": colour},
            error_y=error_bar(rows, "slope", colour=colour, width=3),
            marker={"size": 9, "symbol": symbol, "color": colour},
            text=[f"<b>{escape(row['label'])}</b><br>slope {estimate(row, 'slope')}<br>R² {row['r_squared']:.2f}"
                  for row in records(rows)],
            hovertemplate="%{text}<extra></extra>",
        )  # fmt: skip
    figure.add_hline(y=1, line_color=MUTED, line_dash="dash", line_width=1.5)
    figure.update_layout(showlegend=True)
    figure.update_xaxes(title_text="Layer", dtick=1, range=[-0.6, max(float(layer) for layer in table["layer"]) + 0.6])
    figure.update_yaxes(title_text="Total on direct effect (slope)")
    return figure


def _average(table: pd.DataFrame | None, name: str) -> pd.DataFrame | None:
    if table is None or table.empty or "average" not in table:
        return None
    rows = where(table, table["average"] == name)
    return None if rows.empty else rows


def _how(table: pd.DataFrame) -> str:
    return f" ({escape(table['ablation'].iloc[0])} ablation)" if "ablation" in table else ""
