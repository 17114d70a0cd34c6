"""The sentence of a causal evaluation: what the vector does, that it is a bias, or that nothing was found.

critique                    all criteria are met
no effect beyond random     the nulls that the difference does not beat are named
a bias                      the wrong side moves beyond every null, and the true side with it (`ALIKE`)
no claim                    the difference is beyond every null, but another criterion is not met
"""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from mechint.probes.critique.causal_summary import ALIKE, Cell, records

_BIAS = "A bias {towards} saying wrong, not better discrimination"


def verdict(
    concept: str,
    measure: tuple[str, str],
    cell: Cell,
    doses: pd.DataFrame,
    tested: pd.DataFrame,
    criteria: pd.DataFrame,
    detection: pd.DataFrame | None,
) -> str:
    """Say in one breath what was found at the tested dose; `measure` is the name of the metric and its unit."""
    (name, unit), at = measure, {"mode": cell.mode, "dose": cell.dose}
    sides = {row["side"]: row for row in records(doses, arm="vector", **at)}
    nulls = records(tested, side="difference", **at)
    said = f"{outcome(sides, records(tested, **at), criteria)}: at dose {cell.dose:.3g} "
    said += f"({sides['wrong']['relative_dose']:.3g} of the median |h|), {concept} changes the {name} by "
    said += f"{_effect(sides['wrong'], unit)} on rows with an error and by {_effect(sides['true'], unit)} on rows "
    said += f"without; difference {_effect(sides['difference'], unit)}"
    if nulls:
        said += " (" + ", ".join(f"{_words(row)} p = {row['p_corrected']:.2g}" for row in nulls) + ")"
    said += f".{_ablation(doses, unit)}{_cost(sides['wrong'])}"
    return said + ("" if detection is None else _discrimination(detection, cell))


def outcome(sides: Mapping[str, dict[str, Any]], tested: list[dict[str, Any]], criteria: pd.DataFrame) -> str:
    """Return the kind of finding, in words; `tested` are the rows of one cell."""
    missing = [row["criterion"] for row in records(criteria) if not row["met"]]
    if not missing:
        return "Critique: rows with an error are moved beyond every null, those without are not as much"
    if not tested:
        return "No evidence: no null was measured"
    wrong, difference = sides["wrong"], sides["difference"]
    left = {side: [_words(row) for row in tested if row["side"] == side and not row["beaten"]] for side in sides}
    if not left["wrong"] and _clear(wrong) and _alike(wrong, difference):
        return _BIAS.format(towards="toward" if wrong["effect"] > 0 else "against")
    if left["difference"] or not _clear(difference):
        return f"No effect beyond random (not told from {' and '.join(left['difference']) or 'nothing at all'})"
    if difference["effect"] < 0:
        return "The contrary: rows without an error are moved more than rows with one, beyond every null"
    names = ", ".join(f"'{name}'" for name in missing)
    return f"No claim: the difference is beyond every null, but {names} is not met"


def _clear(effect: dict[str, Any]) -> bool:
    """Whether an interval leaves out 0."""
    return effect["effect_low"] > 0 or effect["effect_high"] < 0


def _alike(wrong: dict[str, Any], difference: dict[str, Any]) -> bool:
    return not _clear(difference) or abs(difference["effect"]) <= ALIKE * abs(wrong["effect"])


def _effect(row: dict[str, Any], unit: str) -> str:
    return f"{row['effect']:.3g} {unit} [{row['effect_low']:.3g}, {row['effect_high']:.3g}]"


def _words(row: dict[str, Any]) -> str:
    return row["null"].replace("_", " ")


def _ablation(doses: pd.DataFrame, unit: str) -> str:
    own = {row["side"]: _effect(row, unit) for row in records(doses, arm="vector", mode="ablate")}
    return f" Ablated, rows with an error change by {own['wrong']}, those without by {own['true']}." if own else ""


def _cost(row: dict[str, Any]) -> str:
    loss = row.get("loss_rise")
    if loss is None or pd.isna(loss):
        return " What it costs on clean text was not measured."
    return f" The loss on clean text rises by {loss:.2g} nats."


def _discrimination(detection: pd.DataFrame, cell: Cell) -> str:
    (before,) = records(detection, mode="none")
    (after,) = records(detection, mode=cell.mode, dose=cell.dose)
    rates = {"Hits": "hit_rate", "false alarms": "false_alarm_rate", "criterion": "criterion"}
    said = ", ".join(f"{word} {before[name]:.2f} to {after[name]:.2f}" for word, name in rates.items())
    said = f" {said}, AUROC {before['auroc']:.3f} to {after['auroc']:.3f}, change {after['auroc_change']:.2g} "
    return said + f"[{after['auroc_change_low']:.2g}, {after['auroc_change_high']:.2g}]."
