"""What a head does on text: the three steps, where it puts the attended token, its effects on the loss, calibration."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from mechint.plots.figures_heads import head_map
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
    page,
    usable,
)
from mechint.plots.rows import groups, records, where

MOST_HEADS = 4
_MARGIN = {"t": 124, "b": 75}
_CONDITIONS = {
    "predicted": "1 in the logit<br>lens' top 10",
    "attended": "2 at one of two<br>top sources",
    "suppressed": "3 among the 10<br>most lowered",
    "all three": "all three,<br>any tokens",
    "same token": "<b>one token is<br>all three</b>",
    "predicted in the end": "in the final top<br>10 without it",
    "same token in the end": "<b>one token is<br>that, 2 and 3</b>",
}
_CHOICES = [VERMILLION, ORANGE, MUTED, "#b8bec7"]
_LOSSES = {
    "loss_change": "Change of the loss (nats)",
    "absolute_loss_change": "Its absolute value (nats)",
    "kl": "KL, intact to ablated (nats)",
}
_SCALES = {"frozen": BLUE, "recomputed": ORANGE}
_OUTPUTS = [INK, VERMILLION, BLUE, GREEN, PURPLE, ORANGE]


def three_steps(tables: Mapping[str, pd.DataFrame]) -> go.Figure | None:
    """Draw how often each condition is met where the head matters most, beside random positions; a panel a head."""
    table = tables.get("three_steps")
    if table is None or not usable(table, "label", "chosen", "condition", "met_share"):
        return None
    heads = groups(table, "label")[:MOST_HEADS]
    figure = _panels(
        [f"<b>{escape(own['label'].iloc[0])}</b>" for own in heads],
        "Prediction, attention, suppression: where the head helps most",
        "Share of positions at which a content word of the text so far is … Bars: 95 % intervals.",
    )
    for row, own in enumerate(heads, start=1):
        for choice, chosen in enumerate(_by_choice(own)):
            lines = records(chosen)
            figure.add_bar(
                x=[_CONDITIONS.get(line["condition"], escape(line["condition"])) for line in lines],
                y=chosen["met_share"],
                error_y=error_bar(chosen, "met_share", colour=INK),
                name=f"{escape(lines[0]['chosen'])} of positions",
                legendgroup=str(choice),
                showlegend=row == 1,
                marker={"color": _CHOICES[choice % len(_CHOICES)]},
                text=[
                    f"<b>{escape(line['label'])}, {escape(line['chosen'])}</b><br>{escape(line['condition'])}: "
                    f"{estimate(line, 'share')}<br>{line.get('n_positions', '')} positions"
                    for line in lines
                ],
                textposition="none",
                hovertemplate="%{text}<extra></extra>",
                row=row,
                col=1,
            )
    figure.update_yaxes(title_text="share of positions", range=[0, 1.04], tickformat=".0%")
    return figure.update_layout(barmode="group", bargap=0.22)


def dynamic_ranks(tables: Mapping[str, pd.DataFrame]) -> go.Figure | None:
    """Draw how often the attended token stands at each place among all tokens that the head lowers; a panel a head."""
    table = tables.get("rank_histogram")
    if table is None or not usable(table, "label", "ranks", "edge_share"):
        return None
    heads = groups(table, "label")[:MOST_HEADS]
    order = list(dict.fromkeys(name for own in heads for name in own["ranks"]))
    order.sort(key=lambda name: int(str(name).split("-")[0]))
    figure = _panels(
        [f"<b>{escape(own['label'].iloc[0])}</b>, {sum(own['n_edges'].tolist()):,} edges" for own in heads],
        "Where the attended token stands among all tokens that the head lowers",
        "Edges with attention above 0.1. Rust: the attended token itself is lowered most. Bars: 95 % intervals.",
    )
    for row, own in enumerate(heads, start=1):
        figure.add_bar(
            x=[_dash(name) for name in own["ranks"]],
            y=own["edge_share"],
            error_y=error_bar(own, "edge_share", colour=INK),
            marker={"color": [VERMILLION if str(name) == "0" else BLUE for name in own["ranks"]]},
            text=[
                f"<b>rank {_dash(line['ranks'])}</b><br>{estimate(line, 'share')} of edges<br>{line['n_edges']} edges"
                for line in records(own)
            ],
            textposition="none",
            hovertemplate="%{text}<extra></extra>",
            showlegend=False,
            row=row,
            col=1,
        )
    figure.update_xaxes(type="category", categoryorder="array", categoryarray=[_dash(name) for name in order])
    figure.update_xaxes(range=[-0.6, len(order) - 0.4])
    figure.update_xaxes(title_text="rank of the attended token (tokens; 0 = lowered most)", row=len(heads))
    figure.update_yaxes(title_text="share of edges", range=[0, 1.04], tickformat=".0%")
    return figure.update_layout(bargap=0.15)


def loss_effects(tables: Mapping[str, pd.DataFrame]) -> go.Figure | None:
    """Draw what setting a head to its mean does to the loss, directly and through the rest of the model."""
    table = tables.get("loss_effects")
    if table is None or not usable(table, "label", "effect", "scale", *_LOSSES):
        return None
    heads = groups(table, "label")[:MOST_HEADS]
    figure = make_subplots(
        rows=len(heads),
        cols=len(_LOSSES),
        shared_yaxes=True,
        horizontal_spacing=0.05,
        vertical_spacing=_spacing(len(heads), 65),
        subplot_titles=[
            f"<b>{escape(own['label'].iloc[0])}</b>" if i == 0 else "" for own in heads for i in range(len(_LOSSES))
        ],
    )
    dress(
        figure,
        "What setting the head to its mean does to the loss, and by which way",
        "Direct: through the head's own term alone. Indirect: through what answers it. Bars: 95 % intervals.",
        height=_height(len(heads)),
        margin=_MARGIN,
    )
    _name_panels(figure, len(heads))
    for row, own in enumerate(heads, start=1):
        for scale, colour in _SCALES.items():
            part = where(own, own["scale"] == scale)
            for column, name in enumerate(_LOSSES, start=1):
                figure.add_bar(
                    x=part[name],
                    y=[escape(effect) for effect in part["effect"]],
                    orientation="h",
                    error_x=error_bar(part, name, colour=INK),
                    marker={"color": colour},
                    name=f"scale of the final norm {scale}",
                    legendgroup=scale,
                    showlegend=row == column == 1,
                    text=[f"<b>{escape(r['effect'])}</b>, {scale}<br>{estimate(r, name)} nats" for r in records(part)],
                    textposition="none",
                    hovertemplate="%{text}<extra></extra>",
                    row=row,
                    col=column,
                )
    figure.add_vline(x=0, line_color=INK, line_width=1)
    for column, axis in enumerate(_LOSSES.values(), start=1):
        figure.update_xaxes(title_text=axis, row=len(heads), col=column)
    figure.update_xaxes(nticks=5, exponentformat="power")
    figure.update_yaxes(autorange="reversed", ticks="")
    return figure.update_layout(barmode="group", bargap=0.25)


def overconfidence_map(tables: Mapping[str, pd.DataFrame]) -> go.Figure | None:
    """Draw what every head adds to the model's over-confidence: as a share of it, or where it may be 0, itself."""
    heads = tables.get("heads")
    if usable(heads, "layer", "head", "overconfidence_marginal"):
        column, bar = "overconfidence_marginal", "Share of the model's over-confidence that the head adds"
    else:
        column, bar = "overconfidence_added", "Over-confidence that the head adds (0: none, 1: right half of the time)"
    if heads is None or not usable(heads, "layer", "head", column):
        return None
    return head_map(
        heads,
        column,
        title="Which heads make the model surer than it is right",
        subtitle="Each cell is one head, set to its mean along the direct path. Blue: it keeps over-confidence down.",
        bar=f"{bar}; below 0 it takes away",
        lines={
            column: "added",
            f"{column}_control": "random direction",
            "calibration_error_added": "expected calibration error, added",
        },
    )


def entropy_marginal_map(tables: Mapping[str, pd.DataFrame]) -> go.Figure | None:
    """Draw how every head changes the entropy of the model's predictions."""
    return _entropy_map(
        tables,
        "entropy_marginal",
        "Which heads make the model's predictions less certain",
        "The model's entropy minus that without the head. Rust: less certain through it; blue: more certain.",
    )


def entropy_difference_map(tables: Mapping[str, pd.DataFrame]) -> go.Figure | None:
    """Draw how every head changes the entropy of what the stream before it would predict."""
    return _entropy_map(
        tables,
        "entropy_difference",
        "What each head does to the certainty of the stream that it reads",
        "Entropy of the logit lens with the head's term, minus that without. Rust: less certain; blue: more certain.",
    )


def reliability(tables: Mapping[str, pd.DataFrame]) -> go.Figure | None:
    """Draw how often the likeliest token is right against its probability, with the line of perfect calibration."""
    table = tables.get("reliability")
    if table is None or not usable(table, "predictions_of", "confidence", "accuracy"):
        return None
    figure = page(
        "How sure the model is, and how often it is right",
        "Likeliest token of each position, in bins of equal width. Below the dashed line: surer than right. "
        "Bars: 95 % intervals.",
        height=560,
        top=100,
    )
    figure.add_scatter(
        x=[0, 1], y=[0, 1], mode="lines", name="calibrated", hoverinfo="skip", line={"color": INK, "dash": "dash"}
    )
    for i, own in enumerate(groups(table, "predictions_of")):
        colour = _OUTPUTS[i % len(_OUTPUTS)]
        figure.add_scatter(
            x=own["confidence"],
            y=own["accuracy"],
            error_y=error_bar(own, "accuracy", colour=colour, width=3),
            mode="lines+markers",
            name=escape(own["predictions_of"].iloc[0]),
            line={"color": colour, "width": 2 if i == 0 else 1.2},
            marker={"size": 8 if i == 0 else 6, "color": colour, "symbol": i},
            text=[
                f"<b>{escape(line['predictions_of'])}</b><br>probability {line['confidence']:.3f}<br>right "
                f"{estimate(line, 'accuracy')}<br>{line.get('n_predictions', '')} predictions"
                for line in records(own)
            ],
            hovertemplate="%{text}<extra></extra>",
        )
    figure.update_xaxes(title_text="Mean probability of the likeliest token (0 to 1)", range=[-0.01, 1.01])
    figure.update_yaxes(title_text="Share that is right (0 to 1)", range=[-0.02, 1.02])
    return figure


def _entropy_map(tables: Mapping[str, pd.DataFrame], column: str, title: str, subtitle: str) -> go.Figure | None:
    heads = tables.get("heads")
    if heads is None or not usable(heads, "layer", "head", column):
        return None
    lines = {column: "entropy change (nats)", f"{column}_control": "random direction (nats)"}
    bar = "Entropy change (nats): above 0 the head makes the prediction less certain"
    return head_map(heads, column, title=title, subtitle=subtitle, bar=bar, lines=lines)


def _panels(titles: list[str], title: str, subtitle: str) -> go.Figure:
    """Return a page with one panel beneath the other."""
    spacing = _spacing(len(titles), 85)
    figure = make_subplots(rows=len(titles), cols=1, subplot_titles=titles, vertical_spacing=spacing)
    dress(figure, title, subtitle, height=_height(len(titles)), margin=_MARGIN)
    return _name_panels(figure, len(titles))


def _height(panels: int) -> int:
    return panels * 250 + _MARGIN["t"] + _MARGIN["b"]


def _spacing(panels: int, pixels: int) -> float:
    """Return a distance between panels as a share of the plot's height."""
    return pixels / (panels * 250)


def _name_panels(figure: go.Figure, panels: int) -> go.Figure:
    """Write the panels' names at their left, and the legend above them all."""
    figure.update_annotations(font={"size": 14}, x=0, xanchor="left")
    return figure.update_layout(legend={"y": 1 + 28 / (panels * 250)})


def _by_choice(table: pd.DataFrame) -> list[pd.DataFrame]:
    """Divide by choice of positions: the chosen ones first, then what they are compared with."""
    parts = groups(table, "chosen")
    order = np.argsort([str(part["chosen"].iloc[0]).startswith("random") for part in parts], kind="stable")
    return [parts[i] for i in order]


def _dash(ranks: object) -> str:
    """Write a range of numbers with the dash of ranges.

    Examples:
        >>> _dash("10-99")
        '10–99'
    """
    return str(ranks).replace("-", "–")
