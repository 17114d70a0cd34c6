"""What the method must reach on silent critics, fixed before any steering was looked at; and what was reached.

Thresholds follow from the best predictions of the language (P(X) .25 after a wrong result, .02 after a right one) and
from chance; none was moved afterwards. A bar is met only if it is by every trained model.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import pandas as pd
from jaxtyping import Float

from mechint.statistics import draws_p, generator

_RESAMPLES = 2000


@dataclass(frozen=True)
class Bar:
    """One number, and where it has to be."""

    id: str
    check: str
    low: float = -np.inf
    high: float = np.inf

    def met(self, value: float) -> bool:
        """Whether a number is where it has to be; none is nowhere."""
        return bool(self.low <= value <= self.high)

    @property
    def threshold(self) -> str:
        """In words."""
        if self.low == self.high:
            return f"exactly {self.low:g}"
        if np.isinf(self.low):
            return f"at most {self.high:g}"
        return f"at least {self.low:g}" if np.isinf(self.high) else f"{self.low:g} to {self.high:g}"


BARS: tuple[Bar, ...] = (
    Bar("O1a", "results computed right", low=0.99),
    Bar("O1b", "put right after X", low=0.97),
    Bar("O2a", "D: errors flagged", 0.20, 0.30),
    Bar("O2b", "F: right steps flagged", high=0.04),
    Bar("O2c", "errors flagged greedily", high=0.05),
    Bar("O3a", "probe AUROC at the result, best block", low=0.98),
    Bar("O3b", "probe AUROC at the stub, best block", low=0.95),
    Bar("O3c", "probe AUROC at the stub, embedding", 0.5, 0.5),
    Bar("O4a", "+1 v: D", low=0.70),
    Bar("O4b", "+1 v: errors flagged greedily", low=0.90),
    Bar("O4c", "+1 v: F", high=0.40),
    Bar("O4d", "+1 v: right steps flagged greedily", high=0.05),
    Bar("O5", "-1 v: D", high=0.08),
    Bar("O6a", "random directions: p of the change of D", high=0.02),
    Bar("O6b", "random directions: z of the change of the margin", low=3.0),
    Bar("O6c", "random directions: mean change of D", -0.03, 0.03),
    Bar("O7a", "shuffled labels: p of the change of D", high=0.02),
    Bar("O7b", "shuffled labels: AUROC in folds", 0.45, 0.55),
    Bar("O8a", "without the margin's gradient: share of the shift left", high=0.20),
    Bar("O8b", "without the tokens' direction: share of the shift left", low=0.50),
    Bar("O9a", "v ablated: D", high=0.08),
    Bar("O9b", "v ablated: results computed right, loss", high=0.01),
    Bar("O10", "another concept (7 against 2): |change of D|, share of v's", high=0.25),
    Bar("O11a", "K on an error, -1 v_S: next step from the true result", high=0.15),
    Bar("O11b", "the same, logit of X raised by 3 nats: change", -0.02, 0.02),
    Bar("O12a", "H: best dose is inside the range", low=1.0),
    Bar("O12b", "H at the best dose less H without: low end", low=0.0),
    Bar("O12c", "H at the best dose less H without", low=0.25),
    Bar("O13a", "+1 v: change of the margin's AUROC", -0.01, 0.01),
    Bar("O13b", "+1 v: change of the criterion: high end", high=0.0),
)
UNTRAINED: tuple[Bar, ...] = (
    Bar("O14a", "untrained: probe AUROC at the result, chosen block", 0.44, 0.56),
    Bar("O14b", "untrained: p of the change of D, random directions", low=0.02),
)


def probability(odds: Any) -> Float[np.ndarray, "*batch"]:
    """Return the probability of log odds.

    Examples:
        >>> probability([0.0])
        array([0.5])
    """
    return 1 / (1 + np.exp(-np.asarray(odds, dtype=float)))


def harmonic(d: Any, f: Any) -> Any:
    """Return H = 2 D (1 - F) / (D + 1 - F).

    Examples:
        >>> harmonic(1.0, 0.0), harmonic(0.0, 0.0)
        (1.0, 0.0)
    """
    return 2 * d * (1 - f) / (d + 1 - f)


def curve_table(curve: pd.DataFrame, groups: Mapping[str, str], seed: int) -> pd.DataFrame:
    """Return D, F and H for each model, place and dose, with intervals; `gain` is H less H at dose 0, paired."""
    rows: list[dict[str, Any]] = []
    for (model, where), part in cast(Any, curve.groupby(["model", "where"], sort=False)):
        sides = {side: part.pivot(index="id", columns="dose", values=side) for side in ("wrong", "true")}
        doses, labels = list(sides["wrong"].columns), [groups[name] for name in sides["wrong"].index]
        rates = [probability(sides[side]) for side in ("wrong", "true")]
        weights = _weights(labels, seed)
        d, f = (weights @ rate for rate in rates)
        h = harmonic(d, f)
        drawn = {"D": d, "F": f, "H": h, "gain": h - h[:, [doses.index(0.0)]]}
        greedy = [np.asarray(sides[side] > 0, float).mean(0) for side in ("wrong", "true")]
        margins = [np.asarray(sides[side], float).mean(0) for side in ("wrong", "true")]
        for at, dose in enumerate(doses):
            row: dict[str, Any] = {"model": model, "where": where, "dose": dose}
            for name, values in drawn.items():
                low, high = np.quantile(values[1:, at], [0.025, 0.975])
                row |= {name: values[0, at], f"{name}_low": low, f"{name}_high": high}
            row |= {"greedy_D": greedy[0][at], "greedy_F": greedy[1][at]}
            rows.append({**row, "margin_wrong": margins[0][at], "margin_true": margins[1][at]})
    return pd.DataFrame(rows)


def answers_table(answered: pd.DataFrame) -> pd.DataFrame:
    """Return the share of solutions that end in the right answer, by model, dose and side."""
    rows: Any = answered
    means = rows.groupby(["model", "dose"], sort=False)[["wrong", "true"]].mean().reset_index()
    return means.rename(columns={"wrong": "right_after_error", "true": "right_after_true"})


def judge(
    raw: Mapping[str, pd.DataFrame],
    curve: pd.DataFrame,
    evaluated: Mapping[str, Sequence[pd.DataFrame]],
    untrained: str,
) -> pd.DataFrame:
    """Return one row a bar: its threshold, what was `measured` of each model (`model`), and whether it is `met`.

    Args:
        raw: rows as they were measured.
        curve: see `curve_table`.
        evaluated: tables of the causal evaluations, one of each model.
        untrained: the name of the model that knows nothing.
    """
    rows: list[dict[str, Any]] = []
    for model in cast("list[str]", list(dict.fromkeys(raw["behaviour"]["model"]))):
        own: dict[str, Any] = {name: table.loc[table["model"] == model] for name, table in raw.items()}
        own |= {name: table for name, some in evaluated.items() for table in some if set(table["model"]) == {model}}
        measured = _measured(own, curve.loc[(curve["model"] == model) & (curve["where"] == "every token")])
        for bar in UNTRAINED if model == untrained else BARS:
            value = measured[bar.id]
            about = {"id": bar.id, "check": bar.check, "threshold": bar.threshold, "model": model}
            rows.append({**about, "measured": value, "met": bar.met(value)})
    return pd.DataFrame(rows)


def verdict(judged: pd.DataFrame) -> str:
    """Say how many bars are met by every model, and which are not."""
    met: dict[str, bool] = {}
    told: dict[str, str] = {}
    for row in cast(Any, judged.to_dict("records")):
        met[row["id"]] = met.get(row["id"], True) and bool(row["met"])
        told[row["id"]] = row["check"]
    said = f"{sum(met.values())} of {len(met)} bars are met by every model"
    missed = [f"{name} ({told[name]})" for name, reached in met.items() if not reached]
    if not missed:
        return f"{said}: the method finds the hidden critique, brings it out, and finds nothing where there is none."
    return f"{said}; not met: {'; '.join(missed)}."


def _measured(own: Mapping[str, Any], curve: Any) -> dict[str, float]:
    behaviour = own["behaviour"].iloc[0]
    read: dict[str, Any] = dict(list(own["reading"].groupby("place")))
    blocks = {place: part.loc[part["site"] != "embed"] for place, part in read.items()}
    at = {round(float(row["dose"]), 1): row for row in curve.to_dict("records")}
    effects, parts = own["effects"], own["parts"].set_index("part")["shift"]
    stub, ablated = own["stub"].set_index("steering")["next_true"], own["ablated"].iloc[0]
    change: Any = _changes(effects)

    def drawn(arm: str, of: str = "D", mode: str = "add") -> Float[np.ndarray, " resample"]:
        return np.asarray(change.loc[(mode, arm), of], float)

    shift, random_shifts = drawn("vector", "margin")[0], drawn("random", "margin")
    own_d, random_d, shuffled_d = drawn("vector"), drawn("random"), drawn("shuffled_labels")
    best = curve.loc[curve["H"].idxmax()]
    (after,) = own["detection"].query("mode == 'add' and dose == 1").to_dict("records")
    base = float(behaviour["D"])
    return {
        "O1a": behaviour["step_accuracy"],
        "O1b": behaviour["correction_accuracy"],
        "O2a": base,
        "O2b": behaviour["F"],
        "O2c": behaviour["greedy_D"],
        "O3a": blocks["result"]["auroc"].max(),
        "O3b": blocks["stub_last"]["auroc"].max(),
        "O3c": float(read["stub_last"].loc[read["stub_last"]["site"] == "embed", "auroc"].iloc[0]),
        "O4a": at[1.0]["D"],
        "O4b": at[1.0]["greedy_D"],
        "O4c": at[1.0]["F"],
        "O4d": at[1.0]["greedy_F"],
        "O5": at[-1.0]["D"],
        "O6a": draws_p(abs(own_d[0]), np.abs(random_d)),
        "O6b": (shift - random_shifts.mean()) / random_shifts.std(ddof=1),
        "O6c": random_d.mean(),
        "O7a": draws_p(abs(own_d[0]), np.abs(shuffled_d)),
        "O7b": float(blocks["result"].loc[blocks["result"]["chosen"].astype(bool), "shuffled"].iloc[0]),
        "O8a": parts["without the gradient"] / parts["vector"],
        "O8b": parts["without the tokens"] / parts["vector"],
        "O9a": base + drawn("vector", mode="ablate")[0],
        "O9b": ablated["step_accuracy"] - ablated["step_accuracy_ablated"],
        "O10": abs(drawn("other_concept")[0] / own_d[0]),
        "O11a": stub["-1 v_S"],
        "O11b": stub["bias of 3 nats on X"] - stub["none"],
        "O12a": float(abs(best["dose"]) < max(at)),
        "O12b": best["gain_low"],
        "O12c": best["gain"],
        "O13a": after["auroc_change"],
        "O13b": after["criterion_change_high"],
        "O14a": float(blocks["result"].loc[blocks["result"]["chosen"].astype(bool), "auroc"].iloc[0]),
        "O14b": draws_p(abs(own_d[0]), np.abs(random_d)),
    }


def _changes(effects: Any) -> pd.DataFrame:
    """Return the change of D and of the mean margin on wrong rows at dose 1, by mode, arm and draw."""
    plain = effects.loc[effects["arm"] == "none"].set_index("id")["wrong"]
    steered = effects.loc[(effects["arm"] != "none") & (effects["dose"] == 1.0)]
    before = steered["id"].map(plain)
    moved = steered.assign(D=probability(steered["wrong"]) - probability(before), margin=steered["wrong"] - before)
    return moved.groupby(["mode", "arm", "draw"])[["D", "margin"]].mean()


def _weights(labels: Sequence[str], seed: int) -> Float[np.ndarray, "resample sample"]:
    """Return weights of pairs that sum to 1: equal ones first, then of draws in which facts stand or fall together."""
    names, inverse = np.unique(labels, return_inverse=True)
    drawn = generator(seed, "facts").multinomial(len(names), np.full(len(names), 1 / len(names)), _RESAMPLES)
    weights = np.vstack([np.ones(len(labels)), drawn[:, inverse].astype(float)])
    return weights / weights.sum(1, keepdims=True)
