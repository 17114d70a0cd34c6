"""Self-repair token by token: the final norm's scale, single tokens, and the neurons of the last MLP."""

from collections.abc import Mapping
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
    error_bar,
    escape,
    estimate,
    number,
    page,
    usable,
    visible,
)
from mechint.plots.rows import flagged, groups, known, records, where

_COLOURS = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE)
_MOST_HEADS = 4
_AVERAGES = {"full": ("all tokens", MUTED), "condensed": ("tokens where the head writes most", VERMILLION)}


def norm_ratio(tables: Mapping[str, pd.DataFrame]) -> go.Figure | None:
    """Draw how the scale of the final norm changes when a head of the last layer is ablated."""
    table = tables.get("norm_ratio_histogram")
    if table is None or not usable(table, "norm_ratio_from", "norm_ratio_to", "share_of_tokens"):
        return None
    how = f" ({escape(table['ablation'].iloc[0])})" if "ablation" in table else ""
    figure = page(
        "How ablating a head of the last layer rescales the stream",
        "Left of 1 the final norm divides by less than before, and everything in the stream counts for more.",
        height=440,
        top=104,
    )
    for rows in groups(table, "average"):
        name, colour = _AVERAGES.get(str(rows["average"].iloc[0]), (str(rows["average"].iloc[0]), INK))
        figure.add_scatter(
            x=rows["norm_ratio_from"], y=rows["share_of_tokens"], mode="lines", name=name, line_shape="hv",
            line={"color": colour, "width": 2},
            fill="tozeroy", fillcolor=f"rgba({', '.join(str(int(colour[i : i + 2], 16)) for i in (1, 3, 5))}, 0.18)",
            text=[f"{row['norm_ratio_from']:.3f} to {row['norm_ratio_to']:.3f}: {row['share_of_tokens']:.1%}"
                  for row in records(rows)],
            hovertemplate="%{text}<extra></extra>",
        )  # fmt: skip
    figure.add_vline(x=1, line_color=INK, line_dash="dash", line_width=1.5)
    layer = int(table["layer"].iloc[0])
    figure.update_xaxes(title_text=f"Final scale after / before (ratio); one head of layer {layer} ablated{how}")
    figure.update_yaxes(title_text="Share of tokens and heads (0 to 1)", rangemode="tozero")
    return figure


def tokens(tables: Mapping[str, pd.DataFrame]) -> go.Figure | None:
    """Draw the self-repair of single tokens against the direct effect, for a few heads."""
    table = tables.get("per_token")
    if table is None or not usable(table, "direct_effect", "self_repair"):
        return None
    heads = groups(table, "label")[:_MOST_HEADS]
    across = min(2, len(heads))
    down = -(-len(heads) // across)
    figure = make_subplots(
        rows=down,
        cols=across,
        subplot_titles=[f"<b>{escape(rows['label'].iloc[0])} ablated</b>" for rows in heads],
        horizontal_spacing=0.1,
        vertical_spacing=0.17,
    )
    dress(
        figure,
        "Self-repair from token to token",
        "Each point is a token that follows. Dashed: all of the direct effect is put back. Rust: the largest effects.",
        height=330 * down + 110,
        margin={"t": 124, "b": 66},
    )
    for index, rows in enumerate(heads):
        at = _at(index // across + 1, index % across + 1)
        most = flagged(rows, "condensed")
        for name, chosen, colour, size in (
            ("a sample of the others", where(rows, ~most), MUTED, 4),
            ("tokens with the largest direct effect", where(rows, most), VERMILLION, 6),
        ):
            figure.add_scatter(
                x=chosen["direct_effect"], y=chosen["self_repair"], mode="markers", name=name, legendgroup=name,
                showlegend=index == 0, marker={"size": size, "color": colour, "opacity": 0.6},
                text=[f"<b>{visible(str(row['token']))}</b><br>direct effect {number(row['direct_effect'])}<br>"
                      f"self-repair {number(row['self_repair'])}" for row in records(chosen)],
                hovertemplate="%{text}<extra></extra>", **at,
            )  # fmt: skip
        (low, high), (bottom, top) = (_extent(rows, name) for name in ("direct_effect", "self_repair"))
        ends = [max(low, bottom), min(high, top)]
        figure.add_scatter(
            x=ends, y=ends, mode="lines", hoverinfo="skip", showlegend=False, name="all put back",
            line={"color": INK, "dash": "dash", "width": 1.5}, **at,
        )  # fmt: skip
        figure.add_hline(y=0, line_color=INK, line_width=1, **at)
    figure.update_xaxes(title_text="Direct effect (logits)", row=down)
    figure.update_yaxes(title_text="Self-repair (logits)", col=1)
    figure.update_layout(legend={"y": 1.045})
    return figure


def erasure(tables: Mapping[str, pd.DataFrame]) -> go.Figure | None:
    """Draw what the last MLP and its neurons do when a head is ablated: four views."""
    heads, ranks, single = (tables.get(name) for name in ("neurons", "neuron_ranks", "neuron_tokens"))
    if heads is None or ranks is None or single is None or not usable(heads, "top5_share"):
        return None
    if not usable(ranks, "tokens_above") or not usable(single, "mlp_share_of_token", "top_clean", "top_ablated"):
        return None
    layer = int(heads["mlp"].iloc[0])
    first = str(heads["label"].iloc[0])
    figure = make_subplots(
        rows=2,
        cols=2,
        horizontal_spacing=0.13,
        vertical_spacing=0.2,
        subplot_titles=[
            f"<b>Share of M{layer}</b> in each token's repair",
            f"<b>How many neurons matter</b> ({escape(first)} ablated)",
            "<b>Five neurons</b> against the whole MLP",
            f"<b>The top neuron</b> ({escape(first)} ablated)",
        ],
    )
    dress(
        figure,
        "Does the last MLP write against a head, and stop when the head is gone?",
        "On the tokens where the head writes most. 95 % intervals.",
        height=820,
        margin={"t": 112, "b": 66, "r": 150},
    )
    _shares(figure, single)
    _ranks(figure, where(ranks, ranks["label"] == first))
    _five(figure, heads)
    _top_neuron(figure, where(single, single["label"] == first))
    figure.update_annotations(font={"size": 14})
    figure.update_layout(legend=_beside("Five neurons found", 0.4), legend2=_beside("It rises by more than", 1.0))
    return figure


def _shares(figure: go.Figure, single: pd.DataFrame) -> None:
    for colour, rows in zip(_COLOURS, groups(single, "label"), strict=False):
        figure.add_box(
            x=rows["mlp_share_of_token"].clip(-2.0, 2.0), name=escape(rows["label"].iloc[0]), boxpoints="all",
            jitter=0.5, pointpos=0, marker={"color": colour, "size": 4, "opacity": 0.6}, line={"width": 1.5},
            showlegend=False, row=1, col=1,
        )  # fmt: skip
    figure.add_vline(x=0, line_color=INK, line_width=1, **_at(1, 1))
    figure.update_xaxes(title_text="MLP's part / all self-repair (share; cut at −2 and 2)", row=1, col=1)
    figure.update_yaxes(title_text="Ablated head", row=1, col=1)


def _ranks(figure: go.Figure, ranks: pd.DataFrame) -> None:
    for colour, rows in zip(_COLOURS, groups(ranks, "share_of_effect"), strict=False):
        figure.add_scatter(
            x=rows["rank"], y=rows["tokens_above"], mode="lines+markers", legend="legend2",
            name=f"{100 * float(rows['share_of_effect'].iloc[0]):g} % of the effect", line={"color": colour},
            error_y=error_bar(rows, "tokens_above", colour=colour, width=0),
            text=[f"rank {row['rank']}: {estimate(row, 'tokens_above')}" for row in records(rows)],
            hovertemplate="%{text}<extra></extra>", row=1, col=2,
        )  # fmt: skip
    figure.update_xaxes(title_text="Neuron, the one that puts back most first (rank)", row=1, col=2)
    figure.update_yaxes(title_text="Share of tokens (0 to 1)", range=[0, 1.03], row=1, col=2)


def _five(figure: go.Figure, heads: pd.DataFrame) -> None:
    if usable(heads, "top5_share_low"):  # where the MLP's part is not clearly of one sign, a share of it says nothing
        heads = known(heads, "top5_share_low")
    for column, name, colour in (
        ("top5_share", "under the same draw", MUTED),
        ("top5_share_elsewhere", "under another draw", BLUE),
    ):
        if not usable(heads, column):
            continue
        figure.add_bar(
            x=[escape(label) for label in heads["label"]], y=heads[column], name=name, marker={"color": colour},
            error_y=error_bar(heads, column, colour=INK), offsetgroup=column,
            text=[f"{escape(row['label'])}: {estimate(row, column)}" for row in records(heads)],
            textposition="none", hovertemplate="%{text}<extra></extra>", row=2, col=1,
        )  # fmt: skip
    figure.add_hline(y=1, line_color=INK, line_dash="dash", line_width=1, **_at(2, 1))
    figure.update_xaxes(title_text="Ablated head", row=2, col=1)
    figure.update_yaxes(title_text="Five top neurons / whole MLP (share)", row=2, col=1)
    figure.update_layout(barmode="group")


def _top_neuron(figure: go.Figure, single: pd.DataFrame) -> None:
    both = [_extent(single, name) for name in ("top_clean", "top_ablated")]
    ends = [min(low for low, _ in both), max(high for _, high in both)]
    figure.add_scatter(
        x=ends, y=ends, mode="lines", hoverinfo="skip", showlegend=False, name="no change",
        line={"color": INK, "dash": "dash", "width": 1.5}, row=2, col=2,
    )  # fmt: skip
    figure.add_scatter(
        x=single["top_clean"], y=single["top_ablated"], mode="markers", showlegend=False, name="tokens",
        marker={"size": 7, "color": ORANGE, "line": {"color": INK, "width": 0.5}},
        text=[f"{number(row['top_clean'])} → {number(row['top_ablated'])}" for row in records(single)],
        hovertemplate="%{text}<extra></extra>", row=2, col=2,
    )  # fmt: skip
    figure.add_hline(y=0, line_color=MUTED, line_width=1, **_at(2, 2))
    figure.add_vline(x=0, line_color=MUTED, line_width=1, **_at(2, 2))
    figure.update_xaxes(title_text="Its direct effect before (logits)", row=2, col=2)
    figure.update_yaxes(title_text="And after ablation (logits)", row=2, col=2)


def _extent(rows: pd.DataFrame, column: str) -> tuple[float, float]:
    values = [float(value) for value in rows[column]]
    return min(values), max(values)


def _at(row: int, column: int) -> dict[str, Any]:
    return {"row": row, "col": column}


def _beside(title: str, y: float) -> dict[str, Any]:
    """Describe a legend to the right of the panels."""
    place = {"x": 1.02, "xanchor": "left", "y": y, "yanchor": "top", "orientation": "v"}
    return place | {"title": {"text": title, "font": {"size": 13}}}
