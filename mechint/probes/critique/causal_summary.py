"""From the rows of a causal evaluation to tables, criteria and one sentence.

For every pair, c = metric under steering minus metric without, on each side. Three numbers stand side by side:

    wrong         mean of c over rows with an error
    true          mean of c over rows without: what it costs those that are right
    difference    mean of c(wrong) - c(true), pair by pair: what a push of everything towards "wrong" does not do

with BCa intervals, problems drawn together, the same draws for all three. Of an arm with many draws the table has the
mean over draws and the middle 95 % of them.

A tested cell is compared with each null arm of n draws: p = (1 + #{|draw| >= |vector|}) / (1 + n), Holm-corrected over
the tested cells. A null is beaten at p <= 0.02 by 50 random directions, and at p < 0.05 by the others, of which 20
reach 1/21. Thresholds were fixed before anything was looked at.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import pandas as pd
from jaxtyping import Float

from mechint.probes.criterion import Criterion, criteria_table
from mechint.statistics import bootstrap_mean, draws_p, holm
from mechint.statistics.signal_detection import signal_change, signal_detection
from mechint.steering.arms import NULLS

SIDES = ("difference", "wrong", "true")
LEVEL, LEVEL_OF_RANDOM = 0.05, 0.02
"""Below the first a null is beaten; of random directions, of which there are more, p may be the second at most."""
ALIKE = 0.1
"""Both sides move alike if their difference is less than this share of what the wrong side moves."""
MOST_DAMAGE = 0.1
"""Nats by which the loss on clean text may rise."""
FEWEST_DOSES = 3
"""Doses other than 0 that a rise from dose to dose needs."""
CRITERIA: tuple[Criterion, ...] = (
    Criterion("difference", "wrong - true > 0 (lower end)", "Rows with an error are moved more than rows without."),
    Criterion(
        "not alike",
        f"difference > {ALIKE:g} of what the wrong side moves",
        "What is moved is not everything by about as much, which would be a bias.",
    ),
    Criterion(
        "beyond every null",
        "p <= 0.02 (random), p < 0.05 (others), corrected",
        "Hardly any vector that means nothing moves the difference as much at the same length.",
    ),
    Criterion("changes sign", "difference at minus the dose < 0 (upper end)", "Less of the vector does the opposite."),
    Criterion(
        "grows with the dose",
        f"least rise between minus and plus the dose > 0, over {FEWEST_DOSES} doses or more",
        "More of the vector brings more of the effect.",
    ),
    Criterion(
        "little damage",
        f"loss on clean text rises by {MOST_DAMAGE:g} nats at most",
        "The model still reads ordinary text at this dose.",
    ),
)
"""In the order of `judge`."""
_TESTED = ["mode", "dose", "null", "side", "draws", "mean", "mean_low", "mean_high", "effect", "p"]
_ORDER = ("vector", "random", "random_covariance", "shuffled_labels", "orthogonal", "other_concept")


@dataclass(frozen=True)
class Cell:
    """Where is tested."""

    mode: str
    dose: float


def changes(effects: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of steered arms with what steering changed: one column for each side and their difference."""
    plain = effects[effects["arm"] == "none"].set_index("id")
    steered = effects.loc[effects["arm"] != "none"]
    moved = {side: steered[side] - steered["id"].map(plain[side]) for side in ("wrong", "true")}
    return steered.assign(**moved, difference=moved["wrong"] - moved["true"])


def dose_response(
    effects: pd.DataFrame, damage: pd.DataFrame | None, groups: Mapping[str, str], relative: float, seed: int
) -> pd.DataFrame:
    """Return one row for each arm, mode, dose and side; `relative` is |v| / median |h|."""
    rows: list[dict[str, Any]] = []
    for (arm, mode, dose), part in _parts(changes(effects)):
        means = _by_draw(part)
        if len(means) > 1:
            value, (low, high) = means.mean(0), np.quantile(means, [0.025, 0.975], axis=0)
        else:
            labels = [groups[name] for name in part["id"]]
            value, low, high = bootstrap_mean(np.asarray(part[list(SIDES)], float), labels, seed=seed)
        about = {"arm": arm, "mode": mode, "dose": dose, "relative_dose": dose * relative if mode == "add" else np.nan}
        for at, side in enumerate(SIDES):
            ends = {"effect": value[at], "effect_low": low[at], "effect_high": high[at]}
            rows.append({**about, "side": side, "draws": len(means), **ends})
    found = pd.DataFrame(rows)
    found["place"] = [_ORDER.index(arm) for arm in found["arm"]]
    if damage is not None:
        found = found.merge(_averages(damage), on=["arm", "mode", "dose"], how="left")
    return found.sort_values(["mode", "place", "dose"], ignore_index=True, kind="stable").drop(columns="place")


def tests(effects: pd.DataFrame, cells: Sequence[Cell]) -> pd.DataFrame:
    """Return one row for each tested cell, null arm and side (difference and wrong), with p and corrected p."""
    found = changes(effects)
    rows: list[dict[str, Any]] = []
    for cell in cells:
        here = found.loc[(found["mode"] == cell.mode) & (found["dose"] == cell.dose)]
        own = _by_draw(here.loc[here["arm"] == "vector"])[0]
        for null in NULLS:
            means = _by_draw(here.loc[here["arm"] == null])
            if len(means) == 0:
                continue
            for at, side in enumerate(SIDES[:2]):
                low, high = np.quantile(means[:, at], [0.025, 0.975])
                about = {"mode": cell.mode, "dose": cell.dose, "null": null, "side": side, "draws": len(means)}
                drawn = {"mean": means[:, at].mean(), "mean_low": low, "mean_high": high, "effect": own[at]}
                rows.append({**about, **drawn, "p": draws_p(abs(own[at]), np.abs(means[:, at]))})
    for null in NULLS:
        for side in SIDES[:2]:
            beside = [row for row in rows if (row["null"], row["side"]) == (null, side)]
            for row, p in zip(beside, holm(np.array([row["p"] for row in beside])), strict=True):
                row |= {"p_corrected": float(p), "beaten": beaten(null, float(p))}
    return pd.DataFrame(rows, columns=[*_TESTED, "p_corrected", "beaten"])


def detection(
    effects: pd.DataFrame, groups: Mapping[str, str], threshold: float, matched: float, seed: int
) -> pd.DataFrame:
    """Return d', criterion, AUROC and matched hit rate of the vector at each mode and dose, and at none.

    `criterion_change` and `auroc_change` are against no steering, with intervals of paired draws.
    """
    plain = effects.loc[effects["arm"] == "none"].dropna(subset=["wrong", "true"])
    ids = list(plain["id"])
    labels, y = [groups[name] for name in ids] * 2, np.repeat([1, 0], len(ids))
    how: dict[str, Any] = {"threshold": threshold, "matched": matched, "seed": seed}
    before = _scores(plain, ids)
    rows = [signal_detection(before, y, labels, **how).to_frame().assign(mode="none", dose=0.0)]
    for (_, mode, dose), part in _parts(effects.loc[effects["arm"] == "vector"]):
        after = _scores(part, ids)
        change = signal_change(before, after, y, labels, **how)
        row = signal_detection(after, y, labels, **how).to_frame().assign(mode=mode, dose=dose)
        for name, one in (("criterion", change.criterion), ("auroc", change.auroc)):
            row[f"{name}_change"], row[f"{name}_change_low"], row[f"{name}_change_high"] = one.value, one.low, one.high
        rows.append(row)
    found = pd.concat(rows, ignore_index=True)
    return found.reindex(columns=["mode", "dose", *(name for name in found.columns if name not in ("mode", "dose"))])


def judge(doses: pd.DataFrame, tested: pd.DataFrame, cell: Cell) -> pd.DataFrame:
    """Return the criteria at a cell of mode "add", with what was `measured` (NaN: nothing) and whether it is `met`."""
    curve = {row["dose"]: row for row in records(doses, arm="vector", mode=cell.mode, side="difference")}
    (moved,) = records(doses, arm="vector", mode=cell.mode, side="wrong", dose=cell.dose)
    nulls, own = records(tested, mode=cell.mode, dose=cell.dose, side="difference"), curve[cell.dose]
    opposite = curve[-cell.dose]["effect_high"] if -cell.dose in curve else np.nan
    within = {dose: row["effect"] for dose, row in curve.items() if abs(dose) <= cell.dose}
    steps = np.diff([effect for _, effect in sorted({**within, 0.0: 0.0}.items())])
    rise = float(steps.min()) if len(within) >= FEWEST_DOSES else np.nan
    loss = own.get("loss_rise", np.nan)
    share = own["effect"] / abs(moved["effect"]) if moved["effect"] else np.nan
    p = max((row["p_corrected"] for row in nulls), default=np.nan)
    measured = [own["effect_low"], share, p, opposite, rise, loss]
    all_beaten = len(nulls) > 0 and all(row["beaten"] for row in nulls)
    met = [own["effect_low"] > 0, share > ALIKE, all_beaten, opposite < 0, rise > 0, loss <= MOST_DAMAGE]
    return criteria_table(CRITERIA).assign(measured=np.array(measured, float), met=np.array(met, bool))


def records(table: pd.DataFrame, **wanted: object) -> list[dict[str, Any]]:
    """Return the rows of a table with these values."""
    rows = cast("list[dict[str, Any]]", table.to_dict("records"))
    return [row for row in rows if all(row[name] == value for name, value in wanted.items())]


def beaten(null: str, p: float) -> bool:
    """Whether a corrected p is small enough for a null."""
    return p <= LEVEL_OF_RANDOM if null == "random" else p < LEVEL


def _parts(rows: pd.DataFrame) -> list[tuple[tuple[str, str, float], pd.DataFrame]]:
    """Divide rows by arm, mode and dose, in the order in which they were measured."""
    return cast(Any, list(rows.groupby(["arm", "mode", "dose"], sort=False)))


def _averages(damage: pd.DataFrame) -> pd.DataFrame:
    rows: list[dict[str, Any]] = []
    for (arm, mode, dose), part in _parts(damage.assign(arm="vector")):
        means = {name: float(np.asarray(part[name], float).mean()) for name in ("loss_rise", "kl")}
        rows.append({"arm": arm, "mode": mode, "dose": dose, **means})
    return pd.DataFrame(rows)


def _by_draw(part: pd.DataFrame) -> Float[np.ndarray, "resample statistic"]:
    """Return the mean change of each draw of an arm, by side."""
    return np.asarray(part.groupby("draw")[list(SIDES)].mean(), float)


def _scores(part: pd.DataFrame, ids: Sequence[str]) -> Float[np.ndarray, " sample"]:
    """Return the metric of some pairs: the wrong rows, then the true ones."""
    of = {row["id"]: row for row in records(part)}
    return np.array([of[name][side] for side in ("wrong", "true") for name in ids], float)
