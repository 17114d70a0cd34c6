"""Gates that a claim has to pass, all of them, and the verdict that they give together.

A report of an inner state can be right for many reasons, and each gate shuts out one of them. So a verdict is never a
single p-value, and names what failed:

    invalid           the instrument did not work here (labels, receipts, fluency): nothing was learnt about the model
    inconclusive      nobody could have passed (no headroom), or the effect is neither shown nor excluded (power)
    no evidence       the effect, at the size that was asked for, is excluded: its 90 % interval ends below the bar, as
                      it does whenever two one-sided tests at .05 place it within the margin (`statistics.equivalence`)
    partial           there is an effect, and a gate did not rule out what else would explain it
    evidence          of a report that depends on the state: every gate was passed

Even the last says nothing about a representation of the representation (Singh, Linzen and Ravfogel 2026, "Can LLMs
Introspect? A Reality Check", arXiv 2605.26242).
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal

import pandas as pd

Level = Literal["invalid", "inconclusive", "no evidence", "partial", "evidence"]
Role = Literal["validity", "headroom", "effect", "control"]

LEVELS: tuple[Level, ...] = ("invalid", "inconclusive", "no evidence", "partial", "evidence")
"""From the least that can be said to the most."""


@dataclass(frozen=True)
class Gate:
    """One condition, what was measured for it, and what else explains the reports when it is not met."""

    name: str
    """Such as "G1 effect"."""
    role: Role
    """Which part of the verdict hangs on it."""
    statistic: str
    """What was measured, in words."""
    value: float
    low: float
    high: float
    """Ends of the 95 % interval; NaN where the number is exact."""
    bar: str
    """The condition in words, such as "low end above .55"."""
    passed: bool
    alternative: str
    """What would explain the reports just as well, if this gate is not passed."""
    excluded: bool = False
    """Of effects: whether one of the size that was asked for is ruled out."""
    smallest: float = float("nan")
    """Of effects: the smallest that is found with a power of .8, as a difference from the null."""
    equivalence_p: float = float("nan")
    """Of effects: p of the two one-sided tests against "it differs from the null by the margin"."""


@dataclass(frozen=True)
class Verdict:
    """What can be said of one claim about one model."""

    claim: str
    level: Level
    failed: str
    """The gate that decided; empty where all were passed."""
    sentence: str


def judge(claim: str, gates: Sequence[Gate], *, skip_validity: bool = False) -> Verdict:
    """Return the verdict on a claim.

    Args:
        claim: in words that finish "that it …", such as "detects an injected concept".
        gates: in the order in which a failure is named within a role.
        skip_validity: leave the checks of the instrument out, to see how often the other gates err.

    Examples:
        >>> effect = Gate("G1 effect", "effect", "AUROC", 0.9, 0.85, 0.95, "low end above .55", True, "chance")
        >>> control = Gate("G2", "control", "net shift", 0.1, -0.2, 0.4, "low end above 0", False, "it says yes to all")
        >>> judge("detects", [effect, control]).level
        'partial'
    """
    failed: dict[Role, list[Gate]] = {role: [] for role in ("validity", "headroom", "effect", "control")}
    for gate in gates:
        if not gate.passed:
            failed[gate.role].append(gate)
    if failed["validity"] and not skip_validity:
        return _verdict(claim, "invalid", failed["validity"][0], "The instrument did not work")
    if failed["headroom"]:
        return _verdict(claim, "inconclusive", failed["headroom"][0], "No reader could have shown it")
    if failed["effect"]:
        excluded = [gate for gate in failed["effect"] if gate.excluded]
        if excluded:
            return _verdict(claim, "no evidence", excluded[0], "The effect is excluded at the size asked for")
        return _verdict(claim, "inconclusive", failed["effect"][0], "The effect is neither shown nor excluded")
    if failed["control"]:
        return _verdict(claim, "partial", failed["control"][0], "There is an effect, and it has another explanation")
    sentence = f"Evidence that it {claim}: all {len(gates)} gates passed. This shows a report that depends on the state"
    return Verdict(claim, "evidence", "", f"{sentence}, not a representation of having that state.")


def gates_table(gates: Sequence[Gate]) -> pd.DataFrame:
    """Return gates as a table, one row each."""
    return pd.DataFrame([asdict(gate) for gate in gates])


def _verdict(claim: str, level: Level, gate: Gate, why: str) -> Verdict:
    ends = "" if gate.low != gate.low else f" [{gate.low:.3g}, {gate.high:.3g}]"
    head = "Partial evidence" if level == "partial" else level[0].upper() + level[1:]
    sentence = (
        f"{head} on whether it {claim}. {why}: {gate.name} failed ({gate.statistic} {gate.value:.3g}{ends}, needed "
        f"{gate.bar}). What explains this as well: {gate.alternative}."
    )
    return Verdict(claim, level, gate.name, sentence)
