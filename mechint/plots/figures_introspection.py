"""The battery of introspection: which gates were passed, what an injection does to yes, and verdicts on organisms."""

from collections.abc import Mapping
from typing import Any

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from mechint.plots.figures_style import BLUE, GREEN, INK, MUTED, VERMILLION, dress, error_bar, escape, usable
from mechint.plots.rows import groups, records

_LEVELS = ("invalid", "inconclusive", "no evidence", "partial", "evidence")
_COLOURS = ("#d9d9d9", "#f0e0b8", "#c9d8ea", "#f5c9a6", "#a9d8b8")
_CLAIMS = ("detects", "identifies", "attributes")


def gates(tables: Mapping[str, pd.DataFrame]) -> go.Figure | None:
    """Draw each gate with its interval, one panel a claim: passed in green, not passed in red."""
    table = tables.get("gates")
    if table is None or not usable(table, "value") or "model" in table:
        return None
    shown: Any = table[table["role"] != "validity"]
    parts = groups(shown, "claim")
    figure = make_subplots(rows=len(parts), cols=1, vertical_spacing=0.07, row_heights=[len(part) for part in parts],
                           subplot_titles=[f"It {part['claim'].iloc[0]}" for part in parts])  # fmt: skip
    dress(
        figure,
        "Which explanations are ruled out",
        "Each line is a gate: number, 95 % interval, and in words what was needed. All must be passed.",
        height=260 + 34 * len(shown),
        margin={"t": 130, "l": 470, "r": 170},
    )
    for row, part in enumerate(parts, start=1):
        names = [f"{line['name'].split()[0]}: {line['statistic']}" for line in records(part)]
        for passed, colour, word in ((True, GREEN, "passed"), (False, VERMILLION, "not passed")):
            lines = [(name, line) for name, line in zip(names, records(part), strict=True) if line["passed"] == passed]
            figure.add_scatter(
                x=[line["value"] for _, line in lines], y=[name for name, _ in lines], mode="markers", name=word,
                marker={"color": colour, "size": 9, "symbol": "circle" if passed else "x"}, legendgroup=word,
                showlegend=row == 1,
                error_x=_bar(pd.DataFrame([line for _, line in lines], columns=part.columns), "value", colour),
                hovertemplate=[
                    f"<b>{escape(line['name'])}</b><br>%{{x:.3f}}<br>needed: {escape(line['bar'])}<br>else: "
                    f"{escape(line['alternative'])}<extra></extra>" for _, line in lines
                ], row=row, col=1,
            )  # fmt: skip
        for name, line in zip(names, records(part), strict=True):
            figure.add_annotation(
                x=1.0, xref="x domain" if row == 1 else f"x{row} domain", y=name, yref="y" if row == 1 else f"y{row}",
                text=escape(line["bar"]), showarrow=False, xanchor="left", xshift=10, font={"size": 11, "color": MUTED},
            )  # fmt: skip
        figure.update_yaxes(
            categoryorder="array", categoryarray=names[::-1], range=[-0.6, len(names) - 0.4], row=row, col=1
        )
    figure.update_xaxes(title_text="Value of the statistic that is named", row=len(parts), col=1)
    figure.update_layout(showlegend=True, legend={"y": 1.0 + 60 / (260 + 34 * len(shown))})
    return figure


def unrelated(tables: Mapping[str, pd.DataFrame]) -> go.Figure | None:
    """Draw by how much an injection raises yes, for the question about it among all that are not."""
    table = tables.get("unrelated")
    if table is None or not usable(table, "rise"):
        return None
    ordered = table.sort_values("rise").reset_index(drop=True)
    figure = go.Figure()
    dress(
        figure,
        "Does an injection raise yes where it is asked about, or everywhere?",
        "Mean rise of the log odds of yes with 95 % intervals. Blue: 24 questions that have nothing to do with it.",
        height=460,
        margin={"t": 130},
    )
    for own, colour, words in ((False, BLUE, "unrelated question"), (True, VERMILLION, "“was a thought injected?”")):
        part: Any = ordered[(ordered["question"] == "detect") == own]
        figure.add_scatter(
            x=part.index + 1, y=part["rise"], mode="markers", name=words, marker={"color": colour, "size": 10},
            error_y=_bar(part, "rise", colour),
            customdata=part["question"], hovertemplate="%{customdata}: %{y:.3f} nats<extra></extra>",
        )  # fmt: skip
    figure.add_hline(y=0, line_color=INK, line_width=1)
    figure.update_xaxes(title_text="Questions, by how much yes rises")
    figure.update_yaxes(title_text="Rise of yes (nats)")
    figure.update_layout(showlegend=True, legend={"y": 1.12})
    return figure


def development(tables: Mapping[str, pd.DataFrame]) -> go.Figure | None:
    """Draw what the choice of layer and dose was made from."""
    table = tables.get("development")
    if table is None or not usable(table, "detected"):
        return None
    panels = {
        "detected": "Detected (AUROC)", "named": "Named, injection off", "named_held": "Named, injection held",
        "nll_rise": "Surprise at what follows (nats)",
    }  # fmt: skip
    figure = make_subplots(
        rows=1, cols=4, shared_yaxes=True, horizontal_spacing=0.03, subplot_titles=[*panels.values()]
    )
    dress(
        figure,
        "Where and how strongly to inject",
        "On concepts that are not reported on. A dose that raises the surprise by more than 1 nat was not eligible.",
        height=420,
        margin={"t": 140},
    )
    for column, name in enumerate(panels, start=1):
        wide = table.pivot(index="layer", columns="dose", values=name)
        figure.add_heatmap(
            z=wide.to_numpy(), x=[f"{dose:g}" for dose in wide.columns], y=[f"L{layer}" for layer in wide.index],
            text=wide.round(2).to_numpy(), texttemplate="%{text}", colorscale="Blues", showscale=False,
            hovertemplate="L%{y}, dose %{x}: %{z:.3f}<extra></extra>", row=1, col=column,
        )  # fmt: skip
        figure.update_xaxes(title_text="Dose (times ‖h‖)", type="category", row=1, col=column)
    figure.update_yaxes(title_text="Block", row=1, col=1)
    return figure


def graded(tables: Mapping[str, pd.DataFrame]) -> go.Figure | None:
    """Draw graded questions beside chance, with concepts and with random directions."""
    table = tables.get("graded")
    if table is None or not usable(table, "value", "chance"):
        return None
    words = {
        "locate": "Which of five sentences?<br>(share right)",
        "stronger": "Which of two was stronger?<br>(share right)",
        "codebook": "Which code?<br>(share right both ways)", "tamper": "Was it meant?<br>(rise of yes, nats)",
    }  # fmt: skip
    parts = groups(table, "task")
    figure = make_subplots(rows=1, cols=len(parts), horizontal_spacing=0.08,
                           subplot_titles=[words[str(part["task"].iloc[0])] for part in parts])  # fmt: skip
    dress(
        figure,
        "Graded questions",
        "Mean with 95 % intervals, concepts and texts both drawn. Dotted: chance. No gate hangs on these.",
        height=440,
        margin={"t": 160},
    )
    for column, part in enumerate(parts, start=1):
        colours = [VERMILLION if injected == "concept" else BLUE for injected in part["injected"]]
        figure.add_scatter(
            x=part["injected"], y=part["value"], mode="markers", showlegend=False,
            marker={"color": colours, "size": 11},
            error_y=_bar(part, "value", MUTED),
            hovertemplate="%{x}: %{y:.3f}<extra></extra>", row=1, col=column,
        )  # fmt: skip
        figure.add_hline(y=float(part["chance"].iloc[0]), line_dash="dot", line_color=INK, row=1, col=column)  # pyright: ignore[reportArgumentType]
        if part["task"].iloc[0] != "tamper":
            figure.update_yaxes(range=[-0.03, 1.03], row=1, col=column)
        figure.update_xaxes(range=[-0.6, 1.6], row=1, col=column)
    return figure


def verdicts(tables: Mapping[str, pd.DataFrame]) -> go.Figure | None:
    """Draw the verdict on each claim about each organism, beside the truth where it is another."""
    table = tables.get("verdicts")
    if table is None or "expected" not in table:
        return None
    names = [*dict.fromkeys(table["model"])]
    wide = table.pivot(index="model", columns="claim", values="level").reindex(index=names, columns=[*_CLAIMS])
    truth = table.pivot(index="model", columns="claim", values="expected").reindex(index=names, columns=[*_CLAIMS])
    text = [
        [level if level == so else f"{level}<br>(is: {so})" for level, so in zip(levels, sos, strict=True)]
        for levels, sos in zip(wide.to_numpy(), truth.to_numpy(), strict=True)
    ]
    figure = go.Figure()
    dress(
        figure,
        "Verdicts on organisms whose truth is known",
        "A second line says what is true where the verdict is not.",
        height=190 + 30 * len(names),
        margin={"t": 120, "l": 270},
    )
    figure.add_heatmap(
        z=[[_LEVELS.index(level) for level in levels] for levels in wide.to_numpy()], x=[*_CLAIMS],
        y=[_short(name) for name in names], text=text, texttemplate="%{text}", showscale=False, zmin=0, zmax=4,
        colorscale=_steps(), xgap=2, ygap=2, hovertemplate="%{y} %{x}: %{text}<extra></extra>",
    )  # fmt: skip
    figure.update_yaxes(autorange="reversed")
    figure.update_xaxes(side="top")
    return figure


def mutation(tables: Mapping[str, pd.DataFrame]) -> go.Figure | None:
    """Draw how many verdicts say too much when a gate is left out."""
    table = tables.get("mutation")
    if table is None or not usable(table, "claims_too_much"):
        return None
    counts: Any = table.groupby("without", sort=False)["claims_too_much"].sum()
    who: Any = table[table["claims_too_much"]]
    named = {gate: ", ".join(dict.fromkeys(_kind(m) for m in rows["model"])) for gate, rows in who.groupby("without")}
    figure = go.Figure()
    dress(
        figure,
        "What each gate is for",
        "Verdicts that claim more than is true when one gate is left out. Without G5 the injection stays on.",
        height=420,
        margin={"t": 110, "r": 40},
    )
    figure.add_bar(
        x=counts.to_numpy(), y=counts.index, orientation="h", marker_color=VERMILLION,
        text=[named.get(str(gate), "") for gate in counts.index], textposition="outside", cliponaxis=False,
        hovertemplate="without %{y}: %{x} verdicts say too much<extra></extra>",
    )  # fmt: skip
    most = max(1, int(counts.max()))
    figure.update_xaxes(title_text="Verdicts that say too much", range=[0, 1.6 * most], dtick=1 + most // 8)
    figure.update_yaxes(title_text="Gate left out", autorange="reversed")
    return figure


def chance(tables: Mapping[str, pd.DataFrame]) -> go.Figure | None:
    """Draw how often networks of random numbers pass each gate alone, and all of them."""
    table = tables.get("random")
    if table is None or not usable(table, "share"):
        return None
    wanted = (table["what"] == "verdict") & (table["which"] == "evidence")
    alone = table["what"].str.endswith("alone") & ~table["what"].str.startswith(("validity", "G6"))
    single: Any = table[alone]
    shown: Any = pd.concat([table[wanted], single.drop_duplicates(["what", "which"])])
    names = [
        f"all gates: {line['claim']}" if line["what"] == "verdict" else f"{line['what'].split()[0]}: {line['which']}"
        for line in records(shown)
    ]
    figure = go.Figure()
    dress(
        figure,
        "How often chance passes a gate",
        f"Share of {int(shown['networks'].iloc[0])} networks of random numbers, with 95 % intervals (Wilson).",
        height=200 + 30 * len(shown),
        margin={"t": 110, "l": 430},
    )
    figure.add_scatter(
        x=shown["share"], y=names, mode="markers", marker={"color": BLUE, "size": 9},
        error_x=_bar(shown, "share", BLUE),
        hovertemplate="%{y}: %{x:.3f}<extra></extra>",
    )  # fmt: skip
    figure.add_vline(x=0.05, line_dash="dot", line_color=MUTED, annotation_text="1 in 20")
    figure.update_xaxes(title_text="Share of networks", range=[-0.02, 1.02])
    figure.update_yaxes(autorange="reversed")
    return figure


def doses(tables: Mapping[str, pd.DataFrame]) -> go.Figure | None:
    """Draw how much the reader reports at small doses."""
    table = tables.get("doses")
    if table is None or not usable(table, "said_yes_concept"):
        return None
    figure = go.Figure()
    dress(
        figure,
        "The more there is, the more is reported",
        "Texts of which the reader says yes, by what was injected.",
        height=400,
        margin={"t": 120},
    )
    for name, words, colour in (
        ("said_yes_concept", "a concept", VERMILLION),
        ("said_yes_random", "a random direction", BLUE),
        ("said_yes_none", "nothing", MUTED),
    ):
        figure.add_scatter(
            x=table["dose"], y=table[name], mode="lines+markers", name=words, line={"color": colour},
            hovertemplate=f"{words}<br>dose %{{x}}: %{{y:.3f}}<extra></extra>",
        )  # fmt: skip
    figure.update_xaxes(title_text="Dose (times ‖h‖)")
    figure.update_yaxes(title_text="Says yes (share)", range=[-0.02, 1.02])
    figure.update_layout(showlegend=True, legend={"y": 1.12})
    return figure


def _bar(frame: pd.DataFrame, column: str, colour: str) -> dict[str, object] | None:
    """Return the bars of a column whose ends are called "low" and "high"."""
    return error_bar(frame.rename(columns={"low": f"{column}_low", "high": f"{column}_high"}), column, colour=colour)


def _steps() -> list[list[Any]]:
    """Return a colour scale of five plain steps."""
    return [[(i + end) / len(_COLOURS), colour] for i, colour in enumerate(_COLOURS) for end in (0, 1)]


def _short(name: object) -> str:
    return str(name).removeprefix("organism:introspection-")


def _kind(name: object) -> str:
    """Return the name without the number of its seed."""
    first, _, last = _short(name).rpartition("-")
    return first if last.isdigit() else _short(name)
