"""Receipts: what a plan did, token by token, and how much it changed what was there.

`change` is |h' - h| / |h| of the activation that was rewritten; 0 where h was zero.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
from torch import Tensor

from mechint.model.base import Model
from mechint.results import Findings
from mechint.sites import Site
from mechint.steering.plan import Plan


@dataclass(eq=False)
class Log:
    """What fired, as it happens."""

    calls: int = 0
    """Passes that began with the first token of their texts."""
    fired: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    looks: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])

    def add(self, *, part: int, site: Site, row: list[int], **values: Tensor) -> None:
        """Note the tokens that one part rewrote at one site in one pass."""
        self.fired.append({"call": self.calls - 1, "part": part, "site": str(site), "row": row, **values})

    def look(self, signal: str, rows: Sequence[int], values: Tensor, open_: Tensor) -> None:
        """Note what a condition saw, and decided."""
        self.looks.append({"call": self.calls - 1, "signal": signal, "row": list(rows), "value": values, "open": open_})

    def parts(self) -> set[int]:
        """List the parts that acted."""
        return {entry["part"] for entry in self.fired if entry["row"]}


class Receipt(Findings):
    """What a plan did: `table()` by part and site, `to_frame("tokens")` token by token, `plot()` to see it."""

    def table(self) -> pd.DataFrame:
        """Return one row for each part and site: tokens and rows touched, dose, and relative change."""
        return self.to_frame("parts")


def receipt(log: Log, plan: Plan, model: Model) -> Receipt:
    """Put a log into tables."""
    tokens = _frame(log.fired, ["call", "row", "position", "t", "token", "part", "site", "dose", "change"])
    tokens["part_name"] = [plan.parts[number].name for number in tokens["part"]]
    names = {int(token): model.tokenizer.decode([int(token)]) for token in tokens["token"].unique()}
    tokens["text"] = [names[int(token)] for token in tokens["token"]]
    looks = _frame(log.looks, ["call", "row", "signal", "value", "open"])
    looks["look"] = looks.groupby(["call", "row", "signal"]).cumcount()
    parts = _parts(tokens, plan)
    tables = {"parts": parts, "tokens": tokens.drop(columns="part")}
    if len(looks):
        tables["gates"] = looks
    return Receipt("steering_receipt", tables, _verdict(parts, log.calls))


def _parts(tokens: pd.DataFrame, plan: Plan) -> pd.DataFrame:
    rows: list[dict[str, Any]] = []
    for number, part in enumerate(plan.parts):
        for site in part.actions:
            mine = tokens[(tokens["part"] == number) & (tokens["site"] == str(site))]
            about = {"part": part.name, "site": str(site), "where": str(part.where)}
            about |= {"gate": "" if part.gate is None else str(part.gate), "tokens": len(mine)}
            about |= {"rows": mine.groupby(["call", "row"]).ngroups, "dose": mine["dose"].mean()}
            rows.append({**about, "change": mine["change"].mean(), "change_max": mine["change"].max()})
    return pd.DataFrame(rows)


def _frame(entries: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> pd.DataFrame:
    frames = [
        pd.DataFrame({name: v.tolist() if isinstance(v, Tensor) else v for name, v in entry.items()})
        for entry in entries
    ]
    if not frames:
        return pd.DataFrame(columns=list(columns))
    return pd.concat(frames, ignore_index=True).loc[:, list(columns)]


def _verdict(parts: pd.DataFrame, calls: int) -> str:
    said: list[str] = []
    for row in parts.to_dict("records"):
        what = "nothing, since its gate never opened" if row["gate"] else "nothing: its dose is 0, or it met no token"
        if row["tokens"]:
            what = f"{row['tokens']} tokens in {row['rows']} texts, |Δ|/|h| {row['change']:.2g} on average, at most "
            what += f"{row['change_max']:.2g}"
        said.append(f"{row['part']} at {row['site']}: {what}")
    return f"In {calls} call{'s' if calls != 1 else ''}: {'; '.join(said)}."
