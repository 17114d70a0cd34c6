"""Where a head looks from the place at which it suppresses, on prompts that can be read."""

from collections.abc import Mapping

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from mechint.plots.figures_style import BLUE, MUTED, VERMILLION, dress, escape, usable, visible
from mechint.plots.rows import flagged, groups

MOST_EXAMPLES, MOST_TOKENS = 4, 28


def attention(tables: Mapping[str, pd.DataFrame]) -> go.Figure | None:
    """Draw the attention of a head over the tokens of some prompts, the target marked."""
    table = tables.get("attention_examples")
    if table is None or not usable(table, "prompt_id", "label", "position", "token", "weight"):
        return None
    examples = groups(table, "label", "prompt_id")[:MOST_EXAMPLES]
    titles = [_heading(rows) for rows in examples]
    height = len(examples) * 235 + 100
    figure = make_subplots(
        rows=len(examples), cols=1, subplot_titles=titles, vertical_spacing=min(0.3, 125 / height * 1.25)
    )
    dress(
        figure,
        "Where the head looks from the place at which it suppresses",
        "Bars: attention weight on each token (· is a blank). Rust: the target. Bold: where the head looks from.",
        height=height,
        margin={"t": 104, "b": 90},
    )
    figure.update_annotations(font={"size": 14}, x=0, xanchor="left")
    for index, rows in enumerate(examples, start=1):
        _strip(figure, _shorten(rows), index)
    figure.update_yaxes(title_text="attention weight", rangemode="tozero")
    figure.update_layout(showlegend=False, bargap=0.25)
    return figure


def _strip(figure: go.Figure, rows: pd.DataFrame, index: int) -> None:
    places = list(range(len(rows)))
    is_target, is_end = flagged(rows, "is_target"), flagged(rows, "is_destination")
    figure.add_bar(
        x=places,
        y=rows["weight"],
        marker={"color": [VERMILLION if flag else BLUE for flag in is_target]},
        text=[
            f"<b>{visible(str(token))}</b><br>position {position}<br>weight {weight:.3f}"
            for token, position, weight in zip(rows["token"], rows["position"], rows["weight"], strict=True)
        ],
        textposition="none",
        hovertemplate="%{text}<extra></extra>",
        name="attention",
        row=index,
        col=1,
    )
    names = [
        f"<b><span style='color:{VERMILLION}'>{visible(str(token))}</span></b>"
        if target
        else f"<b>{visible(str(token))}</b>"
        if end
        else visible(str(token))
        for token, target, end in zip(rows["token"], is_target, is_end, strict=True)
    ]
    figure.update_xaxes(
        tickvals=places,
        ticktext=names,
        tickangle=-45,
        tickfont={"size": 12},
        showgrid=False,
        ticks="",
        row=index,
        col=1,
    )


def _shorten(rows: pd.DataFrame) -> pd.DataFrame:
    """Keep the tokens that matter of a long prompt, in their order: marked ones, then the most attended."""
    if len(rows) <= MOST_TOKENS:
        return rows.sort_values("position")
    marked = flagged(rows, "is_target") | flagged(rows, "is_destination")
    order = rows.assign(marked=marked).sort_values(by=["marked", "weight"], ascending=False, kind="stable")
    return rows.loc[order.index[:MOST_TOKENS]].sort_values("position")


def _heading(rows: pd.DataFrame) -> str:
    parts = [f"<b>{escape(rows['label'].iloc[0])}</b>", f"prompt {escape(rows['prompt_id'].iloc[0])}"]
    if "target" in rows and pd.notna(rows["target"].iloc[0]):
        parts.append(f"target <b>{visible(str(rows['target'].iloc[0]))}</b>")
    if len(rows) > MOST_TOKENS:
        parts.append(f"<span style='color:{MUTED}'>{MOST_TOKENS} of {len(rows)} tokens</span>")
    return " · ".join(parts)
