"""Critique on organisms: what steering does to flagging, what can be read where, and the vector beside chance."""

from collections.abc import Mapping

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from mechint.plots.figures_style import BLUE, GREEN, INK, MUTED, VERMILLION, dress, error_bar, escape, estimate, usable
from mechint.plots.rows import groups, records

_LINES = {
    "D": ("errors flagged (D)", VERMILLION, "solid"),
    "F": ("right steps flagged (F)", BLUE, "solid"),
    "H": ("H, both together", GREEN, "solid"),
    "greedy_D": ("errors flagged at temperature 0", VERMILLION, "dot"),
    "greedy_F": ("right steps flagged at temperature 0", BLUE, "dot"),
}
_PLACES = {"result": ("at the result", BLUE), "stub_last": ("at the stub (K ;)", VERMILLION)}
_STATED = "every token"


def curve(tables: Mapping[str, pd.DataFrame]) -> go.Figure | None:
    """Draw how often steps are flagged against the dose, one panel a model."""
    table = tables.get("curve")
    if table is None or not usable(table, "dose", "D"):
        return None
    parts = groups(table.loc[table["where"] == _STATED], "model")
    figure = make_subplots(rows=1, cols=len(parts), shared_yaxes=True, horizontal_spacing=0.02,
                           subplot_titles=[_short(part) for part in parts])  # fmt: skip
    dress(
        figure,
        "What the critique vector does to flagging",
        "Added at every token. Bands: 95 % intervals over facts. Dose 1 is the vector as it was estimated.",
        height=520,
        margin={"t": 170, "r": 30},
    )
    for column, part in enumerate(parts, start=1):
        for name, (words, colour, dash) in _LINES.items():
            if f"{name}_low" in part:
                ends = [*part[f"{name}_low"], *part[f"{name}_high"][::-1]]
                figure.add_scatter(
                    x=[*part["dose"], *part["dose"][::-1]], y=ends, fill="toself", mode="none", opacity=0.25,
                    fillcolor=colour, legendgroup=name, showlegend=False, hoverinfo="skip", row=1, col=column,
                )  # fmt: skip
            figure.add_scatter(
                x=part["dose"], y=part[name], mode="lines", name=words, legendgroup=name, showlegend=column == 1,
                line={"color": colour, "dash": dash, "width": 2.5 if dash == "solid" else 1.5},
                hovertemplate=f"{words}<br>dose %{{x}}: %{{y:.3f}}<extra></extra>", row=1, col=column,
            )  # fmt: skip
        figure.add_vline(x=0, line_color=INK, line_width=1, row=1, col=column)  # pyright: ignore[reportArgumentType]
        figure.update_xaxes(title_text="Dose (|v|)", row=1, col=column)
    figure.update_yaxes(title_text="Share, 0 to 1", range=[-0.02, 1.02], row=1, col=1)
    figure.update_layout(showlegend=True, legend={"y": 1.1})
    return figure


def reading(tables: Mapping[str, pd.DataFrame]) -> go.Figure | None:
    """Draw the AUROC of probes block by block, one panel a model."""
    table = tables.get("reading")
    if table is None or not usable(table, "auroc"):
        return None
    parts = groups(table, "model")
    figure = make_subplots(rows=1, cols=len(parts), shared_yaxes=True, horizontal_spacing=0.02,
                           subplot_titles=[_short(part) for part in parts])  # fmt: skip
    dress(
        figure,
        "Where the error can be read",
        "Probes on facts not learnt from, with 95 % intervals. Dotted: labels exchanged within pairs.",
        height=480,
        margin={"t": 150, "r": 30},
    )
    for column, part in enumerate(parts, start=1):
        for rows in groups(part, "place"):
            words, colour = _PLACES.get(str(rows["place"].iloc[0]), (str(rows["place"].iloc[0]), INK))
            ends = rows.rename(columns={"low": "auroc_low", "high": "auroc_high"})
            hover = [f"<b>{escape(row['site'])}</b>, {words}<br>{estimate(row, 'auroc')}" for row in records(ends)]
            labels = [str(site).split(".")[0] for site in rows["site"]]
            figure.add_scatter(
                x=labels, y=ends["auroc"], error_y=error_bar(ends, "auroc", colour=colour), mode="lines+markers",
                name=words, legendgroup=words, showlegend=column == 1, line={"color": colour, "width": 2.5},
                text=hover, hovertemplate="%{text}<extra></extra>", row=1, col=column,
            )  # fmt: skip
            figure.add_scatter(
                x=labels, y=rows["shuffled"], mode="lines", legendgroup=words, showlegend=False, name=words,
                line={"color": colour, "width": 1, "dash": "dot"}, hoverinfo="skip", row=1, col=column,
            )  # fmt: skip
        figure.update_xaxes(title_text="Output of block", type="category", row=1, col=column)
    figure.update_yaxes(title_text="AUROC (0.5: chance)", range=[0.3, 1.03], row=1, col=1)
    figure.update_layout(showlegend=True, legend={"y": 1.1})
    return figure


def against_chance(tables: Mapping[str, pd.DataFrame]) -> go.Figure | None:
    """Draw the difference at the tested dose beside the middle 95 % of vectors that mean nothing."""
    table = tables.get("tests")
    if table is None or not usable(table, "effect"):
        return None
    shown = table.loc[(table["mode"] == "add") & (table["side"] == "difference")]
    names = [f"{_name(row['model'])}: {str(row['null']).replace('_', ' ')}" for row in records(shown)]
    figure = go.Figure()
    dress(
        figure,
        "The vector beside vectors that mean nothing",
        "Change of the log odds of X at dose 1, wrong rows less right ones. Bars: the middle 95 % of the draws.",
        height=170 + 26 * len(names),
        margin={"t": 130, "l": 300, "r": 30},
    )
    middle = [float(row["mean"]) for row in records(shown)]
    spread = {
        "type": "data", "symmetric": False, "color": MUTED, "thickness": 5, "width": 0,
        "array": [float(row["mean_high"]) - m for row, m in zip(records(shown), middle, strict=True)],
        "arrayminus": [m - float(row["mean_low"]) for row, m in zip(records(shown), middle, strict=True)],
    }  # fmt: skip
    figure.add_scatter(
        x=middle, y=names, mode="markers", error_x=spread, name="draws", marker={"color": MUTED, "size": 7},
        hovertemplate="%{y}<br>mean %{x:.3g} nats<extra></extra>",
    )  # fmt: skip
    figure.add_scatter(
        x=shown["effect"], y=names, mode="markers", name="the vector",
        marker={"color": VERMILLION, "size": 12, "symbol": "diamond"},
        text=[f"p = {float(row['p']):.3g}" for row in records(shown)],
        hovertemplate="%{y}<br>%{x:.3g} nats, %{text}<extra></extra>",
    )  # fmt: skip
    figure.add_vline(x=0, line_color=INK, line_width=1)
    figure.update_xaxes(title_text="Difference (nats)")
    figure.update_yaxes(autorange="reversed")
    figure.update_layout(showlegend=True, legend={"y": 1.05})
    return figure


def _name(model: object) -> str:
    return str(model).removeprefix("organism:")


def _short(part: pd.DataFrame) -> str:
    return f"<b>{escape(_name(part['model'].iloc[0]))}</b>"
