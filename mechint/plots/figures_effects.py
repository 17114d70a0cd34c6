"""Effects measured on their own: direct effects of components, ablations, and the logit lens."""

from collections.abc import Mapping

import pandas as pd
import plotly.graph_objects as go

from mechint.plots.figures_heads import head_map
from mechint.plots.figures_style import BLUE, INK, VERMILLION, error_bar, escape, estimate, main_table, page, usable
from mechint.plots.rows import largest, records, where

TOP = 20


def direct_effect_map(tables: Mapping[str, pd.DataFrame]) -> go.Figure | None:
    """Draw the direct effect of every head as a map."""
    table = main_table(tables, "direct_effects")
    if table is None or not usable(table, "layer", "head", "direct_effect"):
        return None
    return head_map(
        where(table, table["head"].notna() & (table["head"] >= 0)),
        "direct_effect",
        title="What each head writes towards the target",
        subtitle="Each cell is one attention head. Rust: it raises the logit; blue: it lowers it.",
        bar="Direct effect (logits): below 0 the head lowers the logit, above 0 it raises it",
        lines={"direct_effect": "direct effect (logits)"},
    )


def direct_effects(tables: Mapping[str, pd.DataFrame]) -> go.Figure | None:
    """Draw the components with the largest direct effects, with intervals."""
    table = main_table(tables, "direct_effects")
    if table is None or not usable(table, "direct_effect"):
        return None
    return _dots(
        _named(table),
        "direct_effect",
        title="The components that write most towards or against the target",
        subtitle=f"The {TOP} largest direct effects. Bars: 95 % intervals.",
        axis="Direct effect (logits; left of 0: lowers the logit)",
    )


def ablations(tables: Mapping[str, pd.DataFrame]) -> go.Figure | None:
    """Draw what each ablation changes, with intervals."""
    table = main_table(tables, "ablation")
    if table is None or not usable(table, "ablation_effect"):
        return None
    return _dots(
        _named(table),
        "ablation_effect",
        title="What changes when a component is taken away",
        subtitle=f"The {TOP} largest effects: ablated minus intact. Bars: 95 % intervals.",
        axis="Effect of the ablation (logits; left of 0: the logit falls)",
    )


def lens_rank(tables: Mapping[str, pd.DataFrame]) -> go.Figure | None:
    """Draw the place of the target in the vocabulary, read from each layer."""
    return _lens(
        tables,
        "target_rank_median",
        "At which layer the target comes up",
        "Median rank of the target (tokens; 0 = first)",
    )


def lens_logit(tables: Mapping[str, pd.DataFrame]) -> go.Figure | None:
    """Draw the logit of the target, read from each layer."""
    return _lens(
        tables, "target_logit", "How the target's logit grows from layer to layer", "Logit of the target (logits)"
    )


def _lens(tables: Mapping[str, pd.DataFrame], column: str, title: str, axis: str) -> go.Figure | None:
    table = main_table(tables, "logit_lens")
    if table is None or not usable(table, "layer", column):
        return None
    rows = table.sort_values(by=["layer"])
    figure = page(title, "The residual stream after each layer, read with the unembedding (logit lens).", height=440)
    figure.add_scatter(
        x=rows["layer"],
        y=rows[column],
        error_y=error_bar(rows, column, colour=BLUE),
        mode="lines+markers",
        marker={"size": 8, "color": BLUE},
        line={"color": BLUE},
        name=column,
        text=[f"layer {row['layer']}: {estimate(row, column)}" for row in records(rows)],
        hovertemplate="%{text}<extra></extra>",
    )
    figure.update_xaxes(title_text="Layer")
    figure.update_yaxes(title_text=axis, autorange="reversed" if "rank" in column else True)
    return figure


def _named(table: pd.DataFrame) -> pd.DataFrame:
    """Return the table with a `label`, made of `component`, or of layer and head, where it has none."""
    if "label" in table:
        return table
    if "component" in table:
        return table.assign(label=table["component"])
    return table.assign(label=[f"L{layer}H{head}" for layer, head in zip(table["layer"], table["head"], strict=True)])


def _dots(table: pd.DataFrame, column: str, *, title: str, subtitle: str, axis: str) -> go.Figure:
    rows = largest(table, column, TOP)
    figure = page(title, subtitle, height=len(rows) * 28 + 155)
    figure.add_scatter(
        x=rows[column],
        y=[escape(label) for label in rows["label"]],
        error_x=error_bar(rows, column),
        mode="markers",
        marker={"size": 10, "color": [VERMILLION if value < 0 else BLUE for value in rows[column]]},
        text=[f"<b>{escape(row['label'])}</b><br>{estimate(row, column)} logits" for row in records(rows)],
        hovertemplate="%{text}<extra></extra>",
        name=column,
    )
    figure.add_vline(x=0, line_color=INK, line_width=1)
    figure.update_xaxes(title_text=axis)
    figure.update_yaxes(ticks="", type="category")
    return figure
