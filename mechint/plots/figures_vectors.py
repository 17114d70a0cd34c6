"""How well a steering vector tells held-out texts apart, site by site, and the tokens that it points at."""

from collections.abc import Mapping

import pandas as pd
import plotly.graph_objects as go

from mechint.plots.figures_style import (
    BLUE,
    INK,
    MUTED,
    VERMILLION,
    error_bar,
    escape,
    estimate,
    main_table,
    number,
    page,
    usable,
    visible,
)
from mechint.plots.rows import records, where


def auroc(tables: Mapping[str, pd.DataFrame]) -> go.Figure | None:
    """Draw the AUROC at every site, beside what the words alone reach."""
    rows = main_table(tables, "sites")
    if rows is None or not usable(rows, "auroc"):
        return None
    figure = page(
        "How well the direction tells held-out texts apart",
        "Blue: the vector, with 95 % intervals over groups. Grey ring: a probe that sees the words only. Line: chance.",
        height=440,
    )
    # A ring around the dot, so that both can be seen where they are equal.
    for column, name, colour, symbol, size in (
        ("words_auroc", "words alone", MUTED, "circle-open", 17),
        ("auroc", "along the vector", BLUE, "circle", 10),
    ):
        if usable(rows, column):
            figure.add_scatter(
                x=rows["site"],
                y=rows[column],
                error_y=error_bar(rows, column, colour=colour),
                mode="markers",
                marker={"size": size, "symbol": symbol, "color": colour, "line": {"color": colour, "width": 2}},
                name=name,
                text=[f"<b>{escape(row['site'])}</b>, {name}<br>{estimate(row, column)}" for row in records(rows)],
                hovertemplate="%{text}<extra></extra>",
            )
    figure.add_hline(y=0.5, line_color=INK, line_width=1)
    figure.update_xaxes(title_text="Site, in forward order", type="category")
    figure.update_yaxes(title_text="AUROC (1 = perfect, 0.5 = chance)")
    return figure


def tokens(tables: Mapping[str, pd.DataFrame]) -> go.Figure | None:
    """Draw the tokens that the direction raises and lowers most, at the last site."""
    table = tables.get("tokens")
    if table is None or not usable(table, "value"):
        return None
    site = table["site"].iloc[-1]
    rows = where(table, table["site"] == site).sort_values(by=["value"], kind="stable")
    figure = page(
        "The tokens that the direction points at",
        f"{escape(site)} through the final norm's gain and the unembedding (logit lens); the scale is arbitrary.",
        height=len(rows) * 24 + 155,
    )
    figure.add_bar(
        x=rows["value"],
        y=[f"{visible(row['token'])} ({row['id']})" for row in records(rows)],
        orientation="h",
        marker={"color": [VERMILLION if value < 0 else BLUE for value in rows["value"]]},
        text=[f"{visible(row['token'])}: {number(row['value'])}" for row in records(rows)],
        textposition="none",
        hovertemplate="%{text}<extra></extra>",
    )
    figure.update_xaxes(title_text="Change of the logit (arbitrary scale; left of 0: lowered)")
    figure.update_yaxes(ticks="", type="category")
    return figure
