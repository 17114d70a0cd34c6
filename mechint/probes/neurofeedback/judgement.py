"""What is asked of a model before its reports count as evidence, fixed before looking.

Every gate is on the mean over the tested places of all texts, labels as they are and exchanged together, with 95 %
bootstrap intervals over texts. With "text" the best of the text's readers that learnt from the same examples:

    labels       the likeliest token is a label, .90                   the labels' mass is at least .50
    receipt      the noise arrived, to 1e-3 of its length, and changed nothing elsewhere             (hidden noise)
    G6 headroom  oracle - text > .05
    G1 effect    natural: accuracy > .55                               hidden noise: accuracy > 1/2 + arctan(1/σ)/π
    G4 text      accuracy - text > 0
    G4 twins     both right > q (1 - q), a coin's, with q the share of "high" said; a reader of the text has 0

Twins have noise along the axis and are asked for in both arms. A state without noise is a function of the text, and a
model that was trained on texts may know more of them than any reader with a few examples: the organism that reports the
text and nothing else passes every other gate along the component that it was trained on. So without twins along the
very axis the natural arm can be "partial" at best.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from mechint.probes.gates import Gate, Role, Verdict, judge
from mechint.probes.neurofeedback.readers import NO_TEXT, text_ceiling
from mechint.statistics import bootstrap_mean, holm, sign_flip_test
from mechint.statistics.equivalence import smallest_detectable

FORMAT, MASS, RECEIPT, HEADROOM, EFFECT = 0.90, 0.50, 1e-3, 0.05, 0.05
_KEYS = ("model", "trial", "axis")
_SHOWN = {
    "name": "gate", "role": "decides_on", "statistic": "statistic", "value": "measured", "low": "measured_low",
    "high": "measured_high", "bar": "needed", "passed": "passed", "alternative": "alternative",
}  # fmt: skip
"""Fields of a gate, and how they are called in the table."""


def paired(raw: Mapping[str, pd.DataFrame], tested: int) -> pd.DataFrame:
    """Return one row a tested place: what the model got right (mean of both labellings), and what each reader did."""
    reports = raw["reports"]
    places = reports["shown"].max()
    keys = [*_KEYS, "context", "shown"]
    own = reports.loc[reports["shown"] > places - tested].groupby(keys, sort=False, as_index=False)
    means = own[["right", "label_loss", "label_mass", "formatted"]].mean()
    names = raw["readers"]["reader"] + ": " + raw["readers"]["examples"]
    others = raw["readers"].assign(name=names).pivot_table(index=keys, columns="name", values="right").reset_index()
    return means.merge(others, on=keys, how="left", validate="one_to_one")


def numbers(table: pd.DataFrame, column: str) -> Float[np.ndarray, " row"]:
    """Return a column as numbers; flags count 0 and 1."""
    return np.asarray(table[column], dtype=float)


def named(part: pd.DataFrame, keys: Sequence[str] = _KEYS) -> dict[str, str]:
    """Return what all rows of a part have in common."""
    return {key: str(part[key].iloc[0]) for key in keys}


def best_text(rows: pd.DataFrame) -> str:
    """Return the column of the reader of the text that is right most often, of those with the same examples."""
    asked = [str(name) for name in rows.columns if str(name).endswith(": the same") and bool(rows[name].notna().all())]
    texts = [name for name in asked if name.removesuffix(": the same") not in NO_TEXT]
    return max(texts, key=lambda column: numbers(rows, column).mean())


def gates_of(rows: pd.DataFrame, twins: pd.DataFrame, receipt: pd.DataFrame, noise: float, seed: int) -> list[Gate]:
    """Return the gates of one axis of one model.

    Args:
        rows: of `paired`, of this axis and arm.
        twins: of this axis; empty if there were none, and then nothing tells state from text.
        receipt: of the noise; empty in the natural arm.
        noise: σ_Z / σ_T.
        seed: of the bootstrap.
    """
    hidden, text = str(rows["trial"].iloc[0]) == "hidden noise", best_text(rows)
    where = rows["context"].astype(str).tolist()
    chance = text_ceiling(noise) if hidden else 0.5 + EFFECT
    largest = chance + EFFECT if hidden else chance

    def gate(name: str, role: Role, statistic: str, values: np.ndarray, bar: float, alternative: str) -> Gate:
        value, low, high = _interval(values, where, seed)
        passed = low > bar if role != "validity" else value >= bar
        words = f"a low end above {bar:.3g}" if role != "validity" else f"at least {bar:.2f}"
        excluded = role == "effect" and _interval(values, where, seed, 0.90)[2] < largest
        return Gate(name, role, statistic, value, low, high, words, passed, alternative, excluded)

    reader, right = text.removesuffix(": the same"), numbers(rows, "right")
    found = [
        gate("format", "validity", "share of places where a label is likeliest", numbers(rows, "formatted"), FORMAT,
             "the model does not answer in the format, so what it prefers among two labels means little"),
        gate("label mass", "validity", "probability of both labels together", numbers(rows, "label_mass"), MASS,
             "the model hardly thinks of answering with a label"),
    ]  # fmt: skip
    found += [_receipt(row) for row in receipt.to_dict("records")]
    found += [
        gate("G6 headroom", "headroom", f"accuracy of the oracle less that of the text ({reader})",
             numbers(rows, "state: the same") - numbers(rows, text), HEADROOM,
             "from so few examples the score is not to be learnt better from the state than from the words"),
        gate("G1 effect", "effect", "accuracy of the model's reports", right, chance,
             "reports are no better than the best reader of the text could be" if hidden
             else "reports are no better than guessing"),
        gate("G4 text", "control", f"accuracy less that of a reader of the text ({reader})",
             right - numbers(rows, text), 0.0, "a reader of the words alone, with the same examples, does as well"),
    ]  # fmt: skip
    return [*found, *_twins(twins, seed)]


def _interval(values: np.ndarray, where: list[str], seed: int, level: float = 0.95) -> tuple[float, float, float]:
    value, low, high = (float(end[0]) for end in bootstrap_mean(values[:, None], where, level=level, seed=seed))
    # With every value the same there is nothing to draw from, and the interval is that value.
    return (value, value, value) if float(values.std()) == 0 else (value, low, high)


def _receipt(row: Mapping[Any, Any]) -> Gate:
    error, none = float(row["receipt_error"]), float("nan")
    passed = bool(error < RECEIPT and row["elsewhere"] == 0)
    return Gate(
        "receipt", "validity", "error of the noise that arrived, over its length", error, none,
        none, f"below {RECEIPT:g}, and no change elsewhere", passed,
        "the noise did not arrive as it was meant",
    )  # fmt: skip


def _twins(twins: pd.DataFrame, seed: int) -> list[Gate]:
    alternative = "the state is a function of the text, and the model may know more of texts than these readers"
    if twins.empty:
        none = float("nan")
        asked = "twins along this axis, of which there were none: both right"
        return [Gate("G4 twins", "control", asked, none, none, none, "twins", False, alternative)]
    q, both = float(numbers(twins, "says_up").mean()), numbers(twins, "both_right")
    value, low, high = _interval(both, twins["context"].astype(str).tolist(), seed)
    return [
        Gate("G4 twins", "control", "twins both of which are right", value, low, high,
             f"a low end above {q * (1 - q):.3g}", low > q * (1 - q),
             "it says the same of one text whatever its state, or tosses a coin; " + alternative)
    ]  # fmt: skip


def claim_of(trial: str, axis: str) -> str:
    """Return what is claimed, in words that finish "it …"."""
    if trial == "natural":
        return f"reports where its state lies along {axis}, from scores shown to it"
    return f"reports noise that was added to its state along {axis}, which is in no text"


def judge_all(
    raw: Mapping[str, pd.DataFrame], tested: int, noise: float, seed: int
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the verdicts, one a model, arm and axis, and all their gates.

    p is of a sign-flip test over texts, of accuracy less that of the text; corrected by Holm over a model's claims.
    """
    rows, verdicts, gates = paired(raw, tested), list[dict[str, Any]](), list[dict[str, Any]]()
    for _, part in rows.groupby(list(_KEYS), sort=False):
        names = named(part)
        twins = _of(raw["twins"], names) if "twins" in raw else pd.DataFrame()
        receipt = _of(raw["receipt"], names) if names["trial"] == "hidden noise" else pd.DataFrame()
        asked = gates_of(part, twins, receipt, noise, seed)
        verdict: Verdict = judge(claim_of(names["trial"], names["axis"]), asked)
        right = numbers(part, "right")
        against = right - numbers(part, best_text(part))
        where = part["context"].astype(str).tolist()
        _, low, high = (float(end[0]) for end in bootstrap_mean(right[:, None], where, seed=seed))
        verdicts.append(
            {
                **names,
                "level": verdict.level,
                "failed": verdict.failed,
                "above_text_p": float(sign_flip_test(against[:, None], where, alternative="greater", seed=seed)[0]),
                "detectable": smallest_detectable((high - low) / (2 * 1.96)),
                "sentence": verdict.sentence,
            }
        )
        gates += [
            {**names, **{_SHOWN[key]: value for key, value in asdict(one).items() if key in _SHOWN}} for one in asked
        ]
    table = pd.DataFrame(verdicts)
    for _, own in table.groupby("model", sort=False):
        table.loc[own.index, "above_text_p"] = holm(numbers(own, "above_text_p"))
    return table, pd.DataFrame(gates)


def _of(table: pd.DataFrame, names: Mapping[str, str]) -> pd.DataFrame:
    return table.loc[(table["model"] == names["model"]) & (table["axis"] == names["axis"])]
