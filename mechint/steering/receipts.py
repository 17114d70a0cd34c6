"""Receipts: what a plan did, token by token, and how much it changed what was there.

`change` is |h' - h| / |h| of the activation that was rewritten; 0 where h was zero.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from mechint.model.base import Model
from mechint.results import Findings
from mechint.sites import Site
from mechint.steering.gates import Condition
from mechint.steering.plan import Plan


@dataclass(eq=False)
class Log:
    """What fired, as it happens."""

    calls: int = 0
    """Passes that began with the first token of their texts."""
    fired: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    looks: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])

    def add(self, *, part: int, site: Site, **values: Tensor) -> None:
        """Note the tokens that one part rewrote at one site in one pass; one value of each kind a token."""
        self.fired.append({"call": self.calls - 1, "part": part, "site": str(site), **values})

    def look(self, number: int, condition: Condition, rows: Tensor, values: Tensor, open_: Tensor) -> None:
        """Note what a condition of the plan saw, and decided."""
        about = {"call": self.calls - 1, "condition": number}
        about |= {"signal": condition.name, "threshold": condition.threshold}
        self.looks.append({**about, "row": rows, "value": values, "open": open_})

    def parts(self) -> set[int]:
        """List the parts that acted."""
        return {entry["part"] for entry in self.fired if len(entry["row"])}


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
    looks = _frame(log.looks, ["call", "row", "condition", "signal", "value", "threshold", "open"])
    looks["look"] = looks.groupby(["call", "row", "condition"]).cumcount()
    parts = _parts(tokens, plan)
    tables = {"parts": parts, "tokens": tokens.drop(columns="part")}
    if len(looks):
        tables["gates"] = looks.drop(columns="condition")
    return Receipt("steering_receipt", tables, _verdict(parts, log.calls))


def _parts(tokens: pd.DataFrame, plan: Plan) -> pd.DataFrame:
    rows: list[dict[str, Any]] = []
    for number, part in enumerate(plan.parts):
        for site in part.actions:
            mine = tokens[(tokens["part"] == number) & (tokens["site"] == str(site))]
            about = {"part": part.name, "site": str(site), "where": str(part.where)}
            about |= {"gate": "" if part.gate is None else str(part.gate), "tokens": len(mine)}
            about |= {"rows": mine.groupby(["call", "row"]).ngroups, "dose": mine["dose"].mean(), "unit": part.unit}
            rows.append({**about, "change": mine["change"].mean(), "change_max": mine["change"].max()})
    return pd.DataFrame(rows)


def _frame(entries: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> pd.DataFrame:
    """Put entries below each other: tensors as they are, single values repeated."""
    if not entries:
        return pd.DataFrame(columns=list(columns))
    sizes = [len(entry["row"]) for entry in entries]
    found: dict[str, Any] = {}
    for name in columns:
        values = [entry[name] for entry in entries]
        found[name] = torch.cat(values).numpy() if isinstance(values[0], Tensor) else np.repeat(values, sizes)
    return pd.DataFrame(found)


def _verdict(parts: pd.DataFrame, calls: int) -> str:
    said: list[str] = []
    for row in parts.to_dict("records"):
        what = "nothing: its dose is 0, or it met no token" + (" while its gate was open" if row["gate"] else "")
        if row["tokens"]:
            what = f"{row['tokens']} tokens in {row['rows']} texts, |Δ|/|h| {row['change']:.2g} on average, at most "
            what += f"{row['change_max']:.2g}"
        said.append(f"{row['part']} at {row['site']}: {what}")
    return f"In {calls} call{'s' if calls != 1 else ''}: {'; '.join(said)}."
