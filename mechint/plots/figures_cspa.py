"""How much of a head copy suppression explains: all heads, the rules and controls, and where in the text it counts."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from mechint.plots.figures_heads import head_map, ring
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
from mechint.plots.rows import groups, known, records, where

MOST_HEADS = 4
_RULES = {
    "both": ("copy suppression (both halves)", VERMILLION),
    "ov": ("OV half alone", ORANGE),
    "qk": ("QK half alone: no evidence by itself", PURPLE),
    "word forms": ("all along the word's forms", GREEN),
    "both, from zero": ("both halves, from zero", ORANGE),
    "random token": ("control: a random token of the text", MUTED),
    "shuffled targets": ("control: shuffled vocabulary", MUTED),
    "positive only": ("control: upwards instead of downwards", MUTED),
    "shuffled mean": ("sensitivity: mean of another position", MUTED),
}


def cspa_map(tables: Mapping[str, pd.DataFrame]) -> go.Figure | None:
    """Draw the CSPA score of every head that does something on the text."""
    heads = tables.get("heads")
    if heads is None or not usable(heads, "cspa_score", "cspa_kl_ablated"):
        return None
    shown = heads.assign(cspa_score=heads["cspa_score"].where(heads["cspa_kl_ablated_low"] > _LEAST).clip(-1, 1))
    if not usable(shown, "cspa_score"):
        return None
    figure = head_map(
        shown,
        "cspa_score",
        title="How much of each head's effect on predictions copy suppression explains",
        subtitle="Share of the KL of mean ablation that CSPA keeps. ×: the head does next to nothing on these texts.",
        bar="CSPA score (share of KL): 1 all of it, 0 none; below 0 CSPA is farther off than ablation",
        lines={
            "cspa_score": "CSPA score",
            "cspa_random_token": "control, random token",
            "cspa_shuffled_targets": "control, shuffled vocabulary",
            "cspa_positive_only": "control, upwards",
            "cspa_kl_ablated": "KL of mean ablation (nats)",
            "cs_score": "copy-suppression score (logits)",
        },
    )
    return ring(figure, heads, "cspa_explained", "meets the criteria of CSPA")


_LEAST = 1e-4
"""Nats: below it the ratio is one of two noises."""


def cspa_rules(tables: Mapping[str, pd.DataFrame]) -> go.Figure | None:
    """Draw the score of every rule and control of the chosen heads, with intervals."""
    table = tables.get("cspa")
    if table is None or not usable(table, "label", "rule", "score"):
        return None
    heads = groups(table, "label")[:MOST_HEADS]
    figure = page(
        "What is kept of the head's effect, by rule",
        "Share of the KL of mean ablation that is kept. Bars: 95 % intervals over documents. Grey: controls.",
        height=len(heads) * (26 * len(_RULES) + 40) + 130,
    )
    ticks: list[float] = []
    names: list[str] = []
    at = 0.0
    for rows in heads:
        by_rule = rows.set_index("rule")
        present = [rule for rule in _RULES if rule in by_rule.index]
        for rule in present:
            text, colour = _RULES[rule]
            own = by_rule.loc[[rule]]
            figure.add_scatter(
                x=own["score"],
                y=[at],
                error_x=error_bar(own, "score", colour=colour),
                mode="markers",
                marker={"size": 10, "color": colour, "symbol": "diamond-open" if colour == MUTED else "circle"},
                text=[f"<b>{escape(rows['label'].iloc[0])}</b> {escape(text)}<br>{estimate(records(own)[0], 'score')}"],
                hovertemplate="%{text}<extra></extra>",
                showlegend=False,
            )
            ticks.append(at)
            names.append(escape(text))
            at += 1
        figure.add_annotation(
            x=0, xref="paper", xanchor="left", y=at - len(present) - 0.75,
            text=f"<b>{escape(rows['label'].iloc[0])}</b>",
            showarrow=False, font={"size": 14},
        )  # fmt: skip
        at += 1.4
    figure.add_vline(x=0, line_color=INK, line_width=1)
    figure.add_vline(x=1, line_color=MUTED, line_width=1, line_dash="dash")
    low = float(np.nanmin(table["score"].to_numpy(dtype=float)))
    figure.update_xaxes(
        title_text="CSPA score (share of KL kept; 1 = all)", range=[max(-1.0, min(-0.1, low - 0.1)), 1.1]
    )
    figure.update_yaxes(tickvals=ticks, ticktext=names, range=[at - 0.6, -1.4], showgrid=False, ticks="")
    return figure


def cspa_buckets(tables: Mapping[str, pd.DataFrame]) -> go.Figure | None:
    """Draw what is kept against what full ablation does, over positions sorted by the latter."""
    table = tables.get("buckets")
    if table is None or not usable(table, "bucket_ablated", "bucket_cspa"):
        return None
    chosen = where(table, (table["measure"] == "kl") & table["rule"].isin(["both", "random token"]))
    heads = groups(chosen, "label")[:MOST_HEADS]
    if not heads:
        return None
    figure = make_subplots(rows=1, cols=len(heads), subplot_titles=[str(rows["label"].iloc[0]) for rows in heads])
    dress(
        figure,
        "Where in the text copy suppression explains the head",
        "Each point: positions of similar effect. On the dashed line nothing is kept, at 0 everything.",
        height=430,
        margin={"t": 120, "b": 65},
    )
    for place, rows in enumerate(heads, start=1):
        most = max(rows["bucket_ablated"].tolist())
        figure.add_scatter(
            x=[0, most], y=[0, most], mode="lines", line={"color": INK, "dash": "dash", "width": 1.2}, hoverinfo="skip",
            showlegend=False, row=1, col=place,
        )  # fmt: skip
        for rule, colour in (("random token", MUTED), ("both", VERMILLION)):
            own = where(rows, rows["rule"] == rule)
            figure.add_scatter(
                x=own["bucket_ablated"], y=own["bucket_cspa"], mode="markers", name=_RULES[rule][0], legendgroup=rule,
                marker={"size": 6, "color": colour}, showlegend=place == 1,
                hovertemplate="ablated %{x:.4f}<br>CSPA %{y:.4f} nats<extra></extra>", row=1, col=place,
            )  # fmt: skip
        figure.update_xaxes(title_text="KL, ablated (nats)", row=1, col=place)
    figure.update_yaxes(title_text="KL, with the rule's part kept (nats)", col=1)
    figure.update_layout(legend={"y": 1.1})
    return figure


def qk_grid(tables: Mapping[str, pd.DataFrame]) -> go.Figure | None:
    """Draw the table of own-key ranks for three kinds of query and of key, one panel a head."""
    table = tables.get("qk_grid")
    if table is None or not usable(table, "rank_median"):
        return None
    heads = groups(table, "label")[:MOST_HEADS]
    titles = [str(rows["label"].iloc[0]) for rows in heads]
    figure = make_subplots(rows=1, cols=len(heads), subplot_titles=titles, shared_yaxes=True, horizontal_spacing=0.06)
    dress(
        figure,
        "Does the head look for the very token that its query stands for?",
        "Median place of the own key among all keys (1 = first of the vocabulary), by kind of query and key.",
        height=360,
        margin={"t": 105, "b": 70},
    )
    most = float(np.log10(table["rank_median"].max()))
    for place, rows in enumerate(heads, start=1):
        grid = rows.pivot(index="query", columns="key", values="rank_median").reindex(
            index=list(_KINDS), columns=[kind for kind in _KINDS if kind in set(rows["key"])]
        )
        grid = grid.dropna(how="all")
        figure.add_heatmap(
            x=[_KINDS[kind] for kind in grid.columns],
            y=[_KINDS[kind] for kind in grid.index],
            z=np.log10(grid.to_numpy(dtype=float)),
            text=[[f"{value:,.0f}" for value in line] for line in grid.to_numpy(dtype=float)],
            texttemplate="%{text}",
            hovertemplate="query: %{y}<br>key: %{x}<br>median place %{text}<extra></extra>",
            colorscale=[[0, BLUE], [1, "#f1f5f9"]],
            zmin=0,
            zmax=most,
            showscale=False,
            row=1,
            col=place,
        )
    figure.update_xaxes(title_text="key", tickfont={"size": 11})
    figure.update_yaxes(title_text="query", col=1)
    return figure


_KINDS = {"unembed": "unembedding", "block0": "after block 0", "mlp0": "MLP 0 only", "embed": "embedding"}


def evidence(tables: Mapping[str, pd.DataFrame]) -> go.Figure | None:
    """Draw every line of evidence that is a share, beside its control, one panel a head."""
    table = tables.get("evidence")
    if table is None or not usable(table, "label", "value"):
        return None
    shares = known(where(table, table["unit"].astype(str).str.startswith("share")), "value")
    heads = groups(shares, "label")[:MOST_HEADS]
    if not heads:
        return None
    names = list(dict.fromkeys(shares["measure"]))
    titles = [str(rows["label"].iloc[0]) for rows in heads]
    figure = make_subplots(rows=1, cols=len(heads), subplot_titles=titles, shared_yaxes=True, horizontal_spacing=0.03)
    dress(
        figure,
        "Line by line, beside its control",
        "Filled: the head. Open diamonds: its control (see the table). Bars: 95 % intervals.",
        height=30 * len(names) + 190,
        margin={"t": 118, "b": 65},
    )
    for place, rows in enumerate(heads, start=1):
        at = [names.index(name) for name in rows["measure"]]
        for name, value, colour, symbol, shift in (
            ("control", "control_value", MUTED, "diamond-open", 0.18),
            ("the head", "value", VERMILLION, "circle", -0.14),
        ):
            figure.add_scatter(
                x=rows[value].clip(-0.5, 1),
                y=np.array(at) + shift,
                error_x=error_bar(rows, value, colour=colour),
                mode="markers",
                name=name,
                legendgroup=name,
                showlegend=place == 1,
                marker={"size": 9, "color": colour, "symbol": symbol},
                text=[
                    f"{escape(row['measure'])}<br>{name}: {estimate(row, value)}<br>control: {escape(row['control'])}"
                    for row in records(rows)
                ],
                hovertemplate="%{text}<extra></extra>",
                row=1,
                col=place,
            )
    figure.add_vline(x=0, line_color=INK, line_width=1)
    figure.update_xaxes(range=[-0.55, 1.08], title_text="share", nticks=5)
    figure.update_yaxes(
        tickvals=list(range(len(names))), ticktext=[escape(name) for name in names], range=[len(names) - 0.5, -0.6],
        showgrid=True, ticks="", tickfont={"size": 12},
    )  # fmt: skip
    figure.update_layout(legend={"y": 1.06})
    return figure
