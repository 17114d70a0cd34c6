"""Privileged access: who predicts a model's answers, and how much better it does so itself; self-description."""

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
    page,
    usable,
)
from mechint.plots.rows import groups, records, where

_WHO = {
    "self": ("the model itself", VERMILLION),
    "cross": ("the other model", BLUE),
    "embeddings": ("classifier of embeddings", GREEN),
    "words": ("classifier of words", PURPLE),
    "mode": ("most frequent value", MUTED),
    "before": ("itself, told nothing", ORANGE),
}
_REPORTS = {"rating": "rating of risk", "word": "choice of words", "unrelated": "other traits"}
_ARMS = {
    "base": (INK, "circle"),
    "shuffled": (MUTED, "square"),
    "safe": (BLUE, "diamond"),
    "risky": (VERMILLION, "star"),
}


def accuracy(tables: Mapping[str, pd.DataFrame]) -> go.Figure | None:
    """Draw the accuracy of every predictor on held-out questions, one panel a pair of models."""
    table = tables.get("accuracy")
    if table is None or not usable(table, "accuracy"):
        return None
    parts = groups(where(table, table["scope"] == "held-out questions"), "pair")
    titles = [f"<b>{escape(part['pair'].iloc[0]).replace(' / ', '</b><br>told about by<br><b>')}</b>" for part in parts]
    figure = make_subplots(
        rows=1,
        cols=len(parts),
        shared_yaxes=True,
        horizontal_spacing=0.03,
        subplot_titles=titles if len(parts) > 1 else None,
    )
    dress(
        figure,
        "Who predicts a model's answers",
        "Held-out questions; all were told the same facts. 95 % intervals over questions.",
        height=520,
        margin={"t": 160, "r": 30},
    )
    figure.update_annotations(font_size=11)
    for column, part in enumerate(parts, start=1):
        rows = {str(row["predicted_by"]): row for row in records(part)}
        for who, (words, colour) in _WHO.items():
            if who not in rows:
                continue
            own = part.loc[part["predicted_by"] == who]
            figure.add_scatter(
                x=own["accuracy"], y=[words], error_x=error_bar(own, "accuracy", colour=colour), mode="markers",
                marker={"color": colour, "size": 11}, showlegend=False, row=1, col=column,
                text=[f"<b>{words}</b><br>{estimate(rows[who], 'accuracy')}"], hovertemplate="%{text}<extra></extra>",
            )  # fmt: skip
        figure.update_xaxes(range=[-0.03, 1.05], title_text="Share right", row=1, col=column)
    figure.update_yaxes(autorange="reversed")
    return figure


def privilege(tables: Mapping[str, pd.DataFrame]) -> go.Figure | None:
    """Draw how much better a model predicts itself than the other model and the best classifiers do."""
    table = tables.get("differences")
    if table is None or not usable(table, "advantage"):
        return None
    shown = where(table, table["against"].isin(["cross", "words", "embeddings", "mode"]))
    pairs = list(dict.fromkeys(shown["pair"]))
    figure = page(
        "How much better it knows its own answers",
        "Share right of the model itself minus that of others, question by question. 95 % intervals over questions.",
        height=230 + 70 * len(pairs),
        top=130,
    )
    for own in groups(shown, "against"):
        words, colour = _WHO[str(own["against"].iloc[0])]
        hover = [f"<b>{escape(r['pair'])}</b><br>against {words}: {estimate(r, 'advantage')}" for r in records(own)]
        figure.add_scatter(
            x=own["advantage"], y=[escape(pair) for pair in own["pair"]], name=f"against {words}", mode="markers",
            error_x=error_bar(own, "advantage", colour=colour), marker={"color": colour, "size": 10},
            text=hover, hovertemplate="%{text}<extra></extra>",
        )  # fmt: skip
    figure.add_vline(x=0, line_color=INK, line_width=1)
    figure.update_xaxes(title_text="Difference of shares right")
    figure.update_yaxes(autorange="reversed")
    figure.update_layout(showlegend=True, legend={"y": 1.02})
    return figure


def changed(tables: Mapping[str, pd.DataFrame]) -> go.Figure | None:
    """Draw whether the new or the old answer is told after an answer was changed."""
    table = tables.get("changed")
    if table is None or not usable(table, "told_new"):
        return None
    figure = page(
        "After its answers were changed, what does it say of itself?",
        "Properties of the new and of the old answer, where they differ; nothing was said of the new one.",
        height=220 + 60 * len(table),
        top=120,
    )
    for which, words, colour in (("told_new", "as it is now", GREEN), ("told_old", "as it was", ORANGE)):
        figure.add_bar(
            x=table[which], y=[escape(pair) for pair in table["pair"]], orientation="h", name=words,
            marker={"color": colour}, error_x=error_bar(table, which, colour=INK),
            text=[estimate(row, which) for row in records(table)], textposition="none",
            hovertemplate=f"{words}: %{{text}}<extra></extra>",
        )  # fmt: skip
    figure.update_xaxes(title_text="Share told", range=[0, 1.05])
    figure.update_yaxes(autorange="reversed")
    figure.update_layout(showlegend=True, barmode="group", legend={"y": 1.02})
    return figure


def reports(tables: Mapping[str, pd.DataFrame]) -> go.Figure | None:
    """Draw what each model says of itself, beside unrelated traits, and how often it chooses the risk."""
    table = tables.get("levels")
    if table is None or not usable(table, "rating"):
        return None
    figure = make_subplots(
        rows=1, cols=2, column_widths=[0.6, 0.4], horizontal_spacing=0.1,
        subplot_titles=["<b>What it says of itself</b>", "<b>What it does</b>"],
    )  # fmt: skip
    dress(
        figure,
        "Does it describe what it was made to be?",
        "Left: 0 no risk, 100 all risk; 95 % intervals over wordings. Right: probability of the risky option.",
        height=440,
        margin={"t": 160, "r": 30, "l": 120},
    )
    for row, (at, own) in zip(records(table), enumerate(groups(table, "tuned_to")), strict=True):
        name = str(row["tuned_to"])
        colour, symbol = _ARMS[name]
        shift = 0.12 * (at - 1.5)
        marker = {"color": colour, "size": 11, "symbol": symbol}
        for place, (column, words) in enumerate(_REPORTS.items()):
            figure.add_scatter(
                x=own[column], y=[place + shift], error_x=error_bar(own, column, colour=colour), mode="markers",
                name=name, legendgroup=name, showlegend=place == 0, marker=marker, row=1, col=1,
                text=[f"<b>{name}</b>, {words}: {estimate(row, column)}"], hovertemplate="%{text}<extra></extra>",
            )  # fmt: skip
        for place, column in enumerate(("choices", "lotteries")):
            figure.add_scatter(
                x=own[column], y=[place + shift], mode="markers", name=name, legendgroup=name, showlegend=False,
                marker=marker, hovertemplate=f"<b>{name}</b>: %{{x:.3f}}<extra></extra>", row=1, col=2,
            )  # fmt: skip
    figure.update_xaxes(title_text="Points, 0 to 100", row=1, col=1)
    figure.update_xaxes(title_text="P(risky option)", range=[-0.03, 1.03], row=1, col=2)
    figure.update_yaxes(tickvals=[0, 1, 2], ticktext=list(_REPORTS.values()), range=[2.5, -0.5], row=1, col=1)
    figure.update_yaxes(tickvals=[0, 1], ticktext=["choices", "lotteries"], range=[1.5, -0.5], row=1, col=2)
    figure.update_layout(showlegend=True, legend={"y": 1.12})
    return figure
