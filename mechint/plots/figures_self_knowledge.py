"""Confidence: ranking beside baselines, calibration, risk and coverage, and what the blocks say of the answer."""

from collections.abc import Mapping

import pandas as pd
import plotly.graph_objects as go

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
from mechint.plots.rows import groups, records

_WORDS = {
    "is_right": ("stated: “this answer is right”", VERMILLION),
    "how_sure": ("stated: how sure", ORANGE),
    "token": ("probability of the answer", BLUE),
    "sampling": ("agreement of samples", "#56b4e9"),
    "probe": ("hidden-state probe", GREEN),
    "consistency": ("blocks that agree", PURPLE),
    "input_only": ("question and answer alone", INK),
    "cross": ("another model", MUTED),
}
"""Of each confidence: its name, and its colour."""
_DRAWN = ("is_right", "how_sure", "token", "probe", "input_only")
"""Those whose calibration is drawn: the others would hide them."""
_DASHED = ("input_only", "cross")


def ranking(tables: Mapping[str, pd.DataFrame]) -> go.Figure | None:
    """Draw the AUROC of every confidence with its interval, baselines last."""
    table = tables.get("confidences")
    if table is None or not usable(table, "auroc_right"):
        return None
    figure = dress(
        go.Figure(),
        "How well each confidence tells right from wrong answers",
        "AUROC with 95 % intervals over facts; 0.5 is chance. Dashed: the best that needs no look into the model.",
        height=160 + 44 * len(table),
        margin={"t": 95, "l": 230, "r": 30},
    )
    for own in records(table):
        words, colour = _named(own["readout"])
        row = pd.DataFrame([own])
        figure.add_scatter(
            x=row["auroc_right"],
            y=[words],
            error_x=error_bar(row, "auroc_right", colour=colour, width=6),
            mode="markers",
            marker={"color": colour, "size": 11, "symbol": "diamond" if own["source"] == "stated" else "circle"},
            text=[f"<b>{words}</b> ({escape(own['source'])})<br>{estimate(own, 'auroc_right')}"],
            hovertemplate="%{text}<extra></extra>",
            showlegend=False,
        )
    baseline = [row["auroc_right"] for row in records(table) if row["source"] == "without the model"]
    figure.add_vline(x=0.5, line_color=INK, line_width=1)
    if baseline:
        figure.add_vline(x=float(max(baseline)), line_color=INK, line_width=1, line_dash="dash")
    figure.update_xaxes(title_text="AUROC (0.5: chance, 1: perfect)")
    figure.update_yaxes(autorange="reversed")
    return figure


def reliability(tables: Mapping[str, pd.DataFrame]) -> go.Figure | None:
    """Draw the share of right answers against confidence, with the line of perfect calibration."""
    table = tables.get("reliability")
    if table is None or not usable(table, "confidence", "accuracy"):
        return None
    figure = page(
        "When it is this sure, how often is it right?",
        "Answers in bins of equal width; larger marks hold more answers. Below the dashed line: surer than right.",
        height=580,
        top=130,
    )
    figure.add_scatter(
        x=[0, 1], y=[0, 1], mode="lines", name="calibrated", hoverinfo="skip", line={"color": INK, "dash": "dash"}
    )
    most = max(float(row["n_predictions"]) for row in records(table))
    for own in groups(table.loc[table["readout"].isin(_DRAWN)], "readout"):
        words, colour = _named(own["readout"].iloc[0])
        figure.add_scatter(
            x=own["confidence"],
            y=own["accuracy"],
            error_y=error_bar(own, "accuracy", colour=colour, width=2),
            mode="lines+markers",
            name=words,
            line={"color": colour, "width": 1.5},
            marker={"color": colour, "size": [5 + 13 * (n / most) ** 0.5 for n in own["n_predictions"]]},
            text=[
                f"<b>{words}</b><br>confidence {line['confidence']:.3f}<br>right {estimate(line, 'accuracy')}"
                f"<br>{line['n_predictions']} answers"
                for line in records(own)
            ],
            hovertemplate="%{text}<extra></extra>",
        )
    figure.update_xaxes(title_text="Mean confidence in the bin (0 to 1)", range=[-0.01, 1.01])
    figure.update_yaxes(title_text="Share of right answers (0 to 1)", range=[-0.02, 1.02])
    figure.update_layout(showlegend=True)
    return figure


def risk(tables: Mapping[str, pd.DataFrame]) -> go.Figure | None:
    """Draw the share of wrong answers among the surest against the share that is kept."""
    table = tables.get("risk")
    if table is None or not usable(table, "coverage", "risk"):
        return None
    figure = page(
        "If only the surest answers were given, how many would be wrong?",
        "From left to right, more and more answers are kept, the surest first. A flat line: confidence tells nothing.",
        height=540,
        top=150,
    )
    for own in groups(table, "readout"):
        name = str(own["readout"].iloc[0])
        words, colour = _named(name)
        figure.add_scatter(
            x=own["coverage"],
            y=own["risk"],
            mode="lines",
            name=words,
            line={"color": colour, "width": 2.2, "dash": "dash" if name in _DASHED else "solid"},
            hovertemplate=f"{words}<br>kept %{{x:.2f}}: %{{y:.3f}} wrong<extra></extra>",
        )
    figure.update_xaxes(title_text="Share of answers kept (coverage)", range=[0, 1.01])
    figure.update_yaxes(title_text="Share of these that is wrong (risk)", rangemode="tozero")
    figure.update_layout(showlegend=True)
    return figure


def depth(tables: Mapping[str, pd.DataFrame]) -> go.Figure | None:
    """Draw, block by block, how often the lens agrees with right and with wrong answers."""
    table = tables.get("layers")
    if table is None or not usable(table, "layer", "agreement_right"):
        return None
    figure = page(
        "From which block on the model says its answer",
        "Share of answers that the lens at a block gives too, calibrated by block; .5 is chance. Bars: 95 % intervals.",
        height=500,
        top=125,
    )
    for column, words, colour in (
        ("agreement_right", "right answers", GREEN),
        ("agreement_wrong", "wrong answers", VERMILLION),
    ):
        figure.add_scatter(
            x=table["layer"],
            y=table[column],
            error_y=error_bar(table, column, colour=colour, width=3),
            mode="lines+markers",
            name=words,
            line={"color": colour, "width": 2},
            text=[f"block {row['layer']}<br>{words}: {estimate(row, column)}" for row in records(table)],
            hovertemplate="%{text}<extra></extra>",
        )
    figure.add_scatter(
        x=table["layer"],
        y=table["lens_accuracy"],
        mode="lines",
        name="the lens is right",
        line={"color": MUTED, "dash": "dot"},
        hovertemplate="block %{x}: %{y:.3f} right<extra></extra>",
    )
    figure.add_hline(y=0.5, line_color=INK, line_width=1)
    figure.update_xaxes(title_text="Output of block")
    figure.update_yaxes(title_text="Share, 0 to 1", range=[0, 1.02])
    figure.update_layout(showlegend=True)
    return figure


def _named(readout: object) -> tuple[str, str]:
    return _WORDS.get(str(readout), (escape(readout), MUTED))
