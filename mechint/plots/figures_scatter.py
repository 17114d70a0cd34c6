"""Heads as points: direct effect against the effect of ablation, and suppression here against anti-induction."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from mechint.plots.figures_style import DEPTH, INK, MUTED, WIDTH, error_bar, escape, estimate, page, usable
from mechint.plots.labels import place_labels, span
from mechint.plots.rows import flagged, known, records

_HEIGHT, _TOP, _BOTTOM, _LEFT, _RIGHT = 600, 78, 70, 85, 130

_MEASURES = {
    "logit difference": ("direct_effect_difference", "ablation_effect", "logit difference (logits)"),
    "target logit": ("direct_effect_target", "ablation_effect_target", "target's logit (logits)"),
}


def repair_scatter(tables: Mapping[str, pd.DataFrame]) -> go.Figure | None:
    """Draw each head's direct effect against what happens when it is ablated, with the line of no repair."""
    heads = tables.get("heads")
    if heads is None or heads.empty:
        return None
    wanted = str(heads["metric"].iloc[0]) if "metric" in heads else "logit difference"
    names = [wanted, *(name for name in _MEASURES if name != wanted)]
    chosen = next((name for name in names if name in _MEASURES and usable(heads, *_MEASURES[name][:2])), None)
    if chosen is None:
        return None
    x, y, unit = _MEASURES[chosen]
    how = f" ({escape(heads['ablation'].iloc[0])} ablation)" if "ablation" in heads else ""
    return _head_scatter(
        heads,
        x,
        y,
        title="What a head does directly, and what happens when it is taken away",
        subtitle="On the dashed line nothing makes good the loss; between it and 0 on the y axis, others repair some.",
        x_title=f"Direct effect of the head on the {unit}",
        y_title=f"Change on ablation{how} of the {unit}",
        diagonal=True,
    )


def induction_scatter(tables: Mapping[str, pd.DataFrame]) -> go.Figure | None:
    """Draw suppression on these prompts against anti-induction on random repeated tokens."""
    heads = tables.get("heads")
    if heads is None or not usable(heads, "cs_score", "anti_induction_score"):
        return None
    return _head_scatter(
        heads,
        "anti_induction_score",
        "cs_score",
        title="Suppression in these prompts, and in repeated random tokens",
        subtitle="Heads up and to the right push copies down in both: in text, and where there is no meaning at all.",
        x_title="Anti-induction score on random repeats (logits; above 0: lowers the repeat)",
        y_title="Copy-suppression score (logits; above 0: lowers it)",
        diagonal=False,
    )


def _head_scatter(
    heads: pd.DataFrame, x: str, y: str, *, title: str, subtitle: str, x_title: str, y_title: str, diagonal: bool
) -> go.Figure:
    """Draw one point a head, coloured by layer, the outlying ones with their names and intervals."""
    shown = known(heads, x, y).reset_index(drop=True)
    named = _remarkable(shown, x, y)
    x_range = span(shown[x].tolist(), [0.0, *_ends(shown.loc[named], x)])
    y_range = span(shown[y].tolist(), [0.0, *_ends(shown.loc[named], y)])
    figure = page(title, subtitle, height=_HEIGHT, top=_TOP)
    figure.update_layout(margin={"l": _LEFT, "r": _RIGHT, "b": _BOTTOM}, showlegend=False)
    line = _no_repair_line(figure, x_range, y_range) if diagonal else []
    figure.add_hline(y=0, line_color=MUTED, line_width=1)
    figure.add_vline(x=0, line_color=MUTED, line_width=1)
    outlying = shown.loc[named]
    figure.add_scatter(
        x=outlying[x],
        y=outlying[y],
        error_x=error_bar(outlying, x, width=0),
        error_y=error_bar(outlying, y, width=0),
        mode="markers",
        marker={"size": 1, "color": MUTED},
        hoverinfo="skip",
        name="intervals",
    )
    figure.add_scatter(
        x=shown[x],
        y=shown[y],
        mode="markers",
        name="heads",
        marker={
            "size": 10,
            "color": shown["layer"].tolist() if "layer" in shown else INK,
            "colorscale": DEPTH,
            "line": {"color": INK, "width": 0.8},
            "colorbar": {
                "title": {"text": "Layer", "font": {"size": 13}},
                "thickness": 14,
                "len": 0.8,
                "tickformat": "d",
            },
        },
        text=[
            f"<b>{escape(row.get('label', ''))}</b><br>"
            f"{_plain(x)}: {estimate(row, x)}<br>{_plain(y)}: {estimate(row, y)}"
            for row in records(shown)
        ],
        hovertemplate="%{text}<extra></extra>",
    )
    _name_points(figure, shown, named, x, y, x_range, y_range, line)
    figure.update_xaxes(title_text=x_title, range=list(x_range))
    figure.update_yaxes(title_text=y_title, range=list(y_range))
    return figure


def _remarkable(shown: pd.DataFrame, x: str, y: str, most: int = 10) -> list[int]:
    """Choose the points worth a name: marked heads first, then the farthest from the middle of the cloud."""
    away = np.zeros(len(shown))
    for column in (x, y):
        values = shown[column].to_numpy(dtype=float)
        distance = np.abs(values - np.median(values))
        away = np.maximum(away, distance / (distance.max() or 1.0))
    away += 2.0 * flagged(shown, "suppresses").to_numpy(dtype=float)
    order = np.argsort(-away, kind="stable")
    return [int(index) for index in order[:most] if away[index] >= 0.15]


def _name_points(
    figure: go.Figure,
    shown: pd.DataFrame,
    named: Sequence[int],
    x: str,
    y: str,
    x_range: tuple[float, float],
    y_range: tuple[float, float],
    avoid: Sequence[tuple[float, float]],
) -> None:
    if "label" not in shown:
        return
    points, rest = shown.loc[list(named)], shown.drop(list(named))
    placed = place_labels(
        points[x].astype(float).tolist(),
        points[y].astype(float).tolist(),
        [str(label) for label in points["label"]],
        size=(WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM),
        x_range=x_range,
        y_range=y_range,
        obstacles=[*zip(rest[x].astype(float), rest[y].astype(float), strict=True), *avoid],
        lines=_intervals(points, x, y),
    )
    for index, right, down in placed:
        row = points.iloc[index]
        figure.add_annotation(
            x=row[x], y=row[y], text=escape(row["label"]), font={"size": 12}, ax=right, ay=down,
            showarrow=True, arrowhead=0, arrowwidth=1, arrowcolor=MUTED, standoff=5, borderpad=0,
        )  # fmt: skip


def _no_repair_line(
    figure: go.Figure, x_range: tuple[float, float], y_range: tuple[float, float]
) -> list[tuple[float, float]]:
    """Draw y = -x where it is inside the plot, named at the end farther from zero; return points on it."""
    low, high = max(x_range[0], -y_range[1]), min(x_range[1], -y_range[0])
    along = np.linspace(low, high, 60).tolist()
    figure.add_scatter(
        x=[low, high], y=[-low, -high], mode="lines", name="no repair", hoverinfo="skip",
        line={"color": INK, "dash": "dash", "width": 1.5},
    )  # fmt: skip
    end, side = (high, "right") if abs(high) >= abs(low) else (low, "left")
    figure.add_annotation(
        x=end, y=-end, text="no repair", showarrow=False, font={"size": 13},
        xanchor=side, yanchor="bottom" if side == "right" else "top", xshift=-26 if side == "right" else 26,
    )  # fmt: skip
    return [(u, -u) for u in along]


def _intervals(points: pd.DataFrame, x: str, y: str) -> list[tuple[float, float, float, float]]:
    """Return the drawn intervals as lines from one point to another."""
    lines: list[tuple[float, float, float, float]] = []
    for row in records(points):
        if f"{x}_low" in row and f"{x}_high" in row:
            lines.append((row[f"{x}_low"], row[y], row[f"{x}_high"], row[y]))
        if f"{y}_low" in row and f"{y}_high" in row:
            lines.append((row[x], row[f"{y}_low"], row[x], row[f"{y}_high"]))
    return [line for line in lines if not any(np.isnan(end) for end in line)]


def _ends(frame: pd.DataFrame, column: str) -> list[float]:
    names = [name for name in (f"{column}_low", f"{column}_high") if name in frame]
    return [float(value) for name in names for value in frame[name]]


def _plain(column: str) -> str:
    return column.replace("cs_", "copy-suppression ").replace("_", " ")
