"""Critique: what can be read layer by layer beside what the words tell, and what steering does beside chance."""

from collections.abc import Mapping
from typing import Any

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from mechint.plots.figures_style import (
    BLUE,
    DIVERGING,
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
from mechint.plots.rows import flagged, groups, known, records, where

_PLACES = {
    "result": ("at the result (R)", BLUE, "circle"),
    "stub": ("at the stub (S)", VERMILLION, "diamond"),
    "answer": ("at the answer (A)", GREEN, "square"),
}
_SIDES = {
    "difference": ("Wrong minus true", BLUE),
    "wrong": ("Rows with an error", VERMILLION),
    "true": ("Rows without", GREEN),
}
_NULLS = {
    "random": ("random directions", MUTED),
    "random_covariance": ("random, with the activations' covariance", ORANGE),
    "shuffled_labels": ("fitted to shuffled labels", PURPLE),
}
_MEASURES = {"recompute": "step computed again", "answer": "answer", "verdict": "verdict in words"}
_MOST_DAMAGE = 0.1


def reading(tables: Mapping[str, pd.DataFrame]) -> go.Figure | None:
    """Draw the AUROC of probes on test problems, layer by layer, beside the best baseline and shuffled labels."""
    table = tables.get("layers")
    if table is None or not usable(table, "auroc"):
        return None
    figure = page(
        "Can a probe tell wrong results from true ones?",
        "Problems not learnt from, with 95 % intervals. Small: mean with labels exchanged. Large: the chosen layer.",
        height=520,
        top=110,
    )
    for rows in groups(table, "read_at"):
        name, colour, symbol = _PLACES.get(str(rows["read_at"].iloc[0]), (str(rows["read_at"].iloc[0]), INK, "circle"))
        labels = [str(site).split(".")[0] for site in rows["site"]]
        sizes = [15 if chosen else 8 for chosen in flagged(rows, "chosen")]
        hover = [f"<b>{escape(row['site'])}</b>, {name}<br>{estimate(row, 'auroc')}" for row in records(rows)]
        figure.add_scatter(
            x=labels, y=rows["auroc"], error_y=error_bar(rows, "auroc", colour=colour), mode="lines+markers", name=name,
            line={"color": colour, "width": 2.5}, marker={"size": sizes, "symbol": symbol, "color": colour},
            text=hover, hovertemplate="%{text}<extra></extra>",
        )  # fmt: skip
        if usable(rows, "shuffled"):
            figure.add_scatter(
                x=labels, y=rows["shuffled"], mode="lines+markers", name=f"labels exchanged, {name}",
                line={"color": colour, "width": 1, "dash": "dot"}, marker={"size": 4, "color": colour},
                hovertemplate="%{x}: %{y:.3f}<extra></extra>",
            )  # fmt: skip
    _surface(figure, tables.get("baselines"))
    figure.add_hline(y=0.5, line_color=INK, line_width=1)
    figure.update_xaxes(title_text="Output of block (embed: the tokens alone)", type="category")
    figure.update_yaxes(title_text="AUROC (0.5: chance, 1: perfect)")
    return figure


def _surface(figure: go.Figure, baselines: pd.DataFrame | None) -> None:
    """Draw the best surface baseline as a level with its interval."""
    if baselines is None or not usable(baselines, "auroc"):
        return
    best = max(records(where(baselines, flagged(baselines, "from_text"))), key=lambda row: row["auroc"], default=None)
    if best is None:
        return
    figure.add_hrect(
        y0=best["auroc_low"], y1=best["auroc_high"], fillcolor=ORANGE, opacity=0.13, line_width=0, layer="below"
    )
    figure.add_hline(
        y=best["auroc"], line_color=ORANGE, line_dash="dash", line_width=1.5,
        annotation_text=f"best surface baseline: {escape(best['what'])} {best['auroc']:.2f}",
        annotation_position="bottom right", annotation_font_color="#8a5a00",
    )  # fmt: skip


def baselines(tables: Mapping[str, pd.DataFrame]) -> go.Figure | None:
    """Draw the AUROC of the probes beside that of every baseline, and for the pairs that the model knows."""
    strata, table = tables.get("strata"), tables.get("baselines")
    if strata is None or table is None or not usable(strata, "auroc"):
        return None
    rows = [(f"baseline: {row['what']}", row, ORANGE if row["from_text"] else MUTED) for row in records(table)]
    for row in records(strata):
        place, colour, _ = _PLACES.get(row["read_at"], (row["read_at"], INK, ""))
        rows.append((f"{place}: {row['stratum']}", row, colour))
    figure = page(
        "The probes beside what needs no probe",
        "Test problems, 95 % intervals. Orange: known from the text alone. Knows: the true result is the likelier one.",
        height=34 * len(rows) + 170,
    )
    for name, row, colour in rows:
        figure.add_scatter(
            x=[row["auroc"]], y=[name], mode="markers", marker={"size": 11, "color": colour}, showlegend=False,
            error_x=error_bar(pd.DataFrame([row]), "auroc", colour=colour),
            text=[f"{escape(name)}<br>{estimate(row, 'auroc')}, {row['n']} rows"],
            hovertemplate="%{text}<extra></extra>",
        )  # fmt: skip
    figure.add_vline(x=0.5, line_color=INK, line_width=1)
    figure.update_xaxes(title_text="AUROC (0.5: chance, 1: perfect)")
    figure.update_yaxes(categoryorder="array", categoryarray=[name for name, _, _ in rows][::-1], type="category")
    return figure


def dose_response(tables: Mapping[str, pd.DataFrame]) -> go.Figure | None:
    """Draw what the vector changes against the dose, side by side for every measure, and the damage below."""
    table = tables.get("doses")
    if table is None or not usable(table, "dose", "effect"):
        return None
    added = where(table, table["mode"] == "add")
    measures = list(dict.fromkeys(str(name) for name in added["outcome"]))
    damaged = usable(added, "loss_rise")
    rows = len(measures) + damaged
    specs: list[list[Any]] = [[{}, {}, {}] for _ in measures] + ([[{"colspan": 3}, None, None]] if damaged else [])
    titles = [f"<b>{side}</b><br>{_MEASURES.get(name, name)}" for name in measures for side, _ in _SIDES.values()]
    figure = make_subplots(
        rows=rows, cols=3, specs=specs, subplot_titles=[*titles, "<b>Damage</b>"], vertical_spacing=0.36 / rows,
        horizontal_spacing=0.09, shared_yaxes=False,
    )  # fmt: skip
    dress(
        figure,
        "What adding the vector changes, and what it costs",
        "Vector: 95 % intervals over problems. Bars: the middle 95 % of the draws of each null, at the tested dose.",
        height=290 * rows + 150,
        margin={"t": 165, "r": 30},
    )
    for down, name in enumerate(measures, start=1):
        for across, side in enumerate(_SIDES, start=1):
            part = where(added, (added["outcome"] == name) & (added["side"] == side))
            _effects(figure, part, side, down, across, first=down == 1 and across == 1)
        unit = escape(added["unit"].iloc[0])
        figure.update_yaxes(title_text=f"Change ({unit})", row=down, col=1)
    if damaged:
        _damage(figure, added, rows)
    figure.update_xaxes(title_text="Dose (median |h|)")
    figure.update_layout(showlegend=True, legend={"y": 1.0 + 64 / (290 * rows), "yanchor": "bottom"})
    return figure


def _effects(figure: go.Figure, part: pd.DataFrame, side: str, down: int, across: int, *, first: bool) -> None:
    place: dict[str, Any] = {"row": down, "col": across}
    own = where(part, part["arm"] == "vector").sort_values(by=["dose"])
    curve = pd.concat([own, pd.DataFrame([dict.fromkeys(("dose", "effect", "effect_low", "effect_high"), 0.0)])])
    curve, colour = curve.sort_values(by=["dose"]), _SIDES[side][1]
    figure.add_scatter(
        x=curve["dose"], y=curve["effect"], error_y=error_bar(curve, "effect", colour=colour), mode="lines+markers",
        line={"color": colour, "width": 2.5}, marker={"size": 7, "color": colour}, showlegend=False,
        text=[f"dose {row['dose']:.3g}<br>{estimate(row, 'effect')}" for row in records(curve)],
        hovertemplate="%{text}<extra></extra>", **place,
    )  # fmt: skip
    highest = max((abs(float(dose)) for dose in own["dose"]), default=1.0)
    for nudge, (arm, (name, grey)) in enumerate(_NULLS.items(), start=1):
        for row in records(where(part, part["arm"] == arm)):
            figure.add_scatter(
                x=[row["dose"] + 0.07 * nudge * highest], y=[row["effect"]], mode="markers", name=name, legendgroup=arm,
                showlegend=first, marker={"size": 7, "color": grey, "symbol": "line-ew", "line": {"width": 2,
                                                                                                 "color": grey}},
                error_y=error_bar(pd.DataFrame([row]), "effect", colour=grey, width=3),
                text=[f"{name}, {row['draws']} draws<br>{estimate(row, 'effect')}"],
                hovertemplate="%{text}<extra></extra>", **place,
            )  # fmt: skip
    figure.add_hline(y=0, line_color=INK, line_width=1, **place)


def _damage(figure: go.Figure, added: pd.DataFrame, row: int) -> None:
    own = known(where(added, (added["arm"] == "vector") & (added["side"] == "difference")), "loss_rise")
    own = own.drop_duplicates("dose").sort_values(by=["dose"])
    figure.add_scatter(
        x=own["dose"], y=own["loss_rise"], mode="lines+markers", line={"color": INK, "width": 2}, showlegend=False,
        marker={"size": 7, "color": INK}, hovertemplate="dose %{x:.3g}: %{y:.3f} nats<extra></extra>", row=row, col=1,
    )  # fmt: skip
    guard: dict[str, Any] = {"annotation_text": "most that is allowed", "annotation_position": "top left"}
    guard |= {"row": row, "col": 1}
    figure.add_hline(y=_MOST_DAMAGE, line_color=VERMILLION, line_dash="dash", line_width=1, **guard)
    figure.update_yaxes(title_text="Loss on clean text (nats more)", row=row, col=1)


def angles(tables: Mapping[str, pd.DataFrame]) -> go.Figure | None:
    """Draw the cosine of every two directions, at the steered layer if it is known."""
    table, candidates = tables.get("cosines"), tables.get("candidates")
    if table is None or not usable(table, "cosine"):
        return None
    site = str(table["site"].iloc[len(table) // 2])
    if candidates is not None and flagged(candidates, "chosen").any():
        site = str(where(candidates, flagged(candidates, "chosen"))["site"].iloc[0])
    rows = records(where(table, table["site"] == site))
    names = list(dict.fromkeys([*(row["one"] for row in rows), *(row["other"] for row in rows)]))
    of = {(row["one"], row["other"]): float(row["cosine"]) for row in rows}
    values = [[1.0 if a == b else of.get((a, b), of.get((b, a))) for b in names] for a in names]
    figure = page(
        f"Which directions agree, at {escape(site)}",
        "Cosine of every two. Near 1 for a vector and a value or a length: it may be about that, not about errors.",
        height=58 * len(names) + 190,
    )
    figure.add_heatmap(
        z=values, x=names, y=names, colorscale=DIVERGING, zmid=0, zmin=-1, zmax=1, xgap=2, ygap=2,
        texttemplate="%{z:.2f}", hovertemplate="%{y} and %{x}: %{z:.3f}<extra></extra>",
        colorbar={"title": {"text": "Cosine"}},
    )  # fmt: skip
    figure.update_yaxes(autorange="reversed")
    return figure
