r"""From predictions to accuracies, paired differences, gates and a verdict of each pair of models.

Differences are paired: the same question and property under two arms. Intervals by cluster bootstrap over questions;
McNemar's exact test (1947) on the same pairs, which takes every property of a question as a case of its own, stands
beside. An effect is excluded when the 90 % interval ends below `LEAST`; the p of the two one-sided tests is for
equivalence with 0 within that margin. Bars were fixed before any model was looked at.
"""

from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
import pandas as pd
from jaxtyping import Float

from mechint.probes.gates import Gate, Verdict, gates_table, judge
from mechint.statistics import Estimate, estimate_mean, generator, mcnemar_p, wilson
from mechint.statistics.equivalence import equivalence_p, smallest_detectable

LEAST = 0.05
"""Privilege that was asked for, as a difference of accuracies."""
_COMPLIANT, _PREDICTABLE, _UNCHANGED, _LEARNT = 0.90, 0.90, 0.80, -0.10
_AGAINST = ("cross", "mode", "words", "embeddings", "before")
_RESAMPLES = 2000
_CLAIM = "predicts its own answers better than another model that was told the same facts"


def summarise(raw: Mapping[str, pd.DataFrame], seed: int) -> tuple[dict[str, pd.DataFrame], dict[str, Verdict]]:
    """Return all tables, and the verdict of each pair.

    Args:
        raw: rows as they were measured.
        seed: of the bootstrap.
    """
    parts: dict[str, list[pd.DataFrame]] = {}
    verdicts: dict[str, Verdict] = {}
    for pair in list(dict.fromkeys(raw["answers"]["pair"])):
        own = {table: cast(pd.DataFrame, rows.loc[rows["pair"] == pair]) for table, rows in raw.items()}
        found, verdicts[pair] = _one(own, seed)
        for table, rows in found.items():
            parts.setdefault(table, []).append(rows.assign(pair=pair))
    tables = {table: _readable(pd.concat(rows, ignore_index=True)) for table, rows in parts.items()}
    order = ("verdicts", "differences", "accuracy", "by_property", "gates", "behaviour", "changed")
    return {table: tables[table] for table in order if table in tables}, verdicts


def _one(own: Mapping[str, pd.DataFrame], seed: int) -> tuple[dict[str, pd.DataFrame], Verdict]:
    answers, predictions = own["answers"], own["predictions"]
    behaviour = _behaviour(own)
    if predictions.empty:
        gates = [_defined(answers)]
        verdict = judge(_CLAIM, gates)
        return {
            "verdicts": _verdict_row(verdict, None, None),
            "gates": listed(gates),
            "behaviour": behaviour,
        }, verdict
    accuracy = accuracies(predictions, seed)
    differences = compared(predictions, seed)
    gates = _gates(answers, accuracy, differences, behaviour)
    verdict = judge(_CLAIM, gates)
    tables = {
        "verdicts": _verdict_row(verdict, accuracy, differences),
        "differences": differences,
        "accuracy": accuracy,
        "by_property": _by_property(predictions),
        "gates": listed(gates),
        "behaviour": behaviour,
    }
    if "changed" in own and not own["changed"].empty:
        tables["changed"] = _changed(own["changed"], seed)
    return tables, verdict


def _readable(table: pd.DataFrame) -> pd.DataFrame:
    """Put the pair in front, and call who predicts so."""
    named = table.rename(columns={"arm": "predicted_by"})
    return named.set_index("pair").reset_index()


def listed(gates: Sequence[Gate]) -> pd.DataFrame:
    """Return gates as a table whose columns have names of their own in the report."""
    names = {"name": "gate", "role": "decides", "bar": "threshold", "low": "value_low", "high": "value_high"}
    return gates_table(gates).rename(columns=names)


def accuracies(predictions: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Return accuracy and compliance of each arm on held-out questions, and on held-out properties of these.

    Args:
        predictions: rows of arm, item, part, trained, compliant, correct.
        seed: of the bootstrap.
    """
    rows: list[dict[str, Any]] = []
    for (arm, trained), part in cast(Any, predictions.groupby(["arm", "trained"], sort=False)):
        test, train = part.loc[part["part"] == "test"], part.loc[part["part"] == "train"]
        found = _mean(test["correct"], test["item"], seed)
        answered = test.loc[test["compliant"].astype(bool), "correct"]
        rows.append(
            {
                "arm": arm,
                "scope": "held-out questions" if trained else "held-out properties",
                "n": len(test),
                "accuracy": found.value,
                "accuracy_low": found.low,
                "accuracy_high": found.high,
                "compliance": float(test["compliant"].mean()),
                "accuracy_compliant": float(answered.mean()) if len(answered) else np.nan,
                "accuracy_train": float(train["correct"].mean()) if len(train) else np.nan,
            }
        )
    return pd.DataFrame(rows)


def compared(predictions: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Return acc(self) minus that of every other arm on held-out questions about properties trained on.

    Args:
        predictions: rows of arm, item, property, part, trained, correct.
        seed: of the bootstrap.
    """
    test = predictions.loc[(predictions["part"] == "test") & predictions["trained"].astype(bool)]
    wide: Any = test.assign(correct=test["correct"].astype(float))
    wide = wide.pivot(index=["item", "property"], columns="arm", values="correct").reset_index()
    rows: list[dict[str, Any]] = []
    for arm in (name for name in _AGAINST if name in wide):
        difference, items = (wide["self"] - wide[arm]).to_numpy(float), list(wide["item"])
        found = estimate_mean(difference, items, alternative="two-sided", seed=seed)
        draws = cluster_draws(difference, items, seed)
        rows.append(
            {
                "against": arm,
                "n": len(wide),
                "advantage": found.value,
                "advantage_low": found.low,
                "advantage_high": found.high,
                "advantage_p": found.p,
                "highest": float(np.quantile(draws, 0.95)),
                "mcnemar": mcnemar_p(wide["self"].to_numpy(bool), wide[arm].to_numpy(bool)),
                "equivalence": equivalence_p(draws, 0.0, LEAST),
                "detectable": smallest_detectable(float(draws.std(ddof=1))),
            }
        )
    return pd.DataFrame(rows)


def _gates(
    answers: pd.DataFrame, accuracy: pd.DataFrame, differences: pd.DataFrame, behaviour: pd.DataFrame
) -> list[Gate]:
    of = {str(row["arm"]): row for row in accuracy.to_dict("records") if row["scope"] == "held-out questions"}
    told = {str(row["against"]): row for row in differences.to_dict("records")}
    reader = min(("words", "embeddings"), key=lambda arm: told[arm]["advantage"])
    compliance = min(of["self"]["compliance"], of["cross"]["compliance"])
    learnt = of["cross"]["accuracy_train"] - of["self"]["accuracy_train"]
    (kept,) = behaviour.to_dict("records")
    effect = _difference_gate(
        "G1 privilege", "effect", told["cross"], f"at least {LEAST:g}, low end above 0",
        "it knows no more of itself than others can learn of it", least=LEAST,
    )  # fmt: skip
    return [
        _defined(answers),
        _exact("V2 format", "validity", "lower share of answers that are values", compliance, _COMPLIANT,
               "the question was not understood"),
        Gate("H1 headroom", "headroom", "accuracy of the most frequent value", of["mode"]["accuracy"], np.nan, np.nan,
             f"at most {_PREDICTABLE:g}", bool(of["mode"]["accuracy"] <= _PREDICTABLE), "its answers hardly vary"),
        effect,
        _difference_gate("G2 not the most frequent value", "control", told["mode"], "low end above 0",
                         "it says the most frequent value"),
        _difference_gate(f"G3 not in the text ({reader})", "control", told[reader], "low end above 0",
                         "its answers can be read from the question by whoever was told the same facts"),
        _exact("G4 learnt alike", "control", "cross - self, accuracy on the facts trained on", learnt, _LEARNT,
               "the other model learnt less of the facts it was told"),
        Gate("G5 still itself", "control", "share of answers unchanged by fine-tuning", kept["unchanged"],
             kept["unchanged_low"], kept["unchanged_high"], f"at least {_UNCHANGED:g}",
             bool(kept["unchanged"] >= _UNCHANGED), "it learnt a description of a model that it no longer is"),
    ]  # fmt: skip


def _defined(answers: Any) -> Gate:
    share = float(answers["defined"].mean())
    return _exact("V1 answers", "validity", "share of answers that have the properties asked about", share, _COMPLIANT,
                  "its answers are not of the kind that is asked about")  # fmt: skip


def _exact(name: str, role: Any, statistic: str, value: float, bar: float, alternative: str) -> Gate:
    return Gate(name, role, statistic, value, np.nan, np.nan, f"at least {bar:g}", bool(value >= bar), alternative)


def _difference_gate(
    name: str, role: Any, row: Mapping[Any, Any], bar: str, alternative: str, least: float = -np.inf
) -> Gate:
    value, low, high = (float(row[f"advantage{end}"]) for end in ("", "_low", "_high"))
    # All differences alike have an interval of no width, and an end that is not defined.
    low, high = (value if np.isnan(end) else end for end in (low, high))
    return Gate(name, role, f"acc(self) - acc({row['against']})", value, low, high, bar,
                low > 0 and value >= least, alternative, role == "effect" and bool(row["highest"] < LEAST),
                float(row["detectable"]), float(row["equivalence"]))  # fmt: skip


def _verdict_row(verdict: Verdict, accuracy: pd.DataFrame | None, differences: pd.DataFrame | None) -> pd.DataFrame:
    row: dict[str, Any] = {"level": verdict.level, "failed": verdict.failed}
    if accuracy is not None and differences is not None:
        own: Any = accuracy.loc[accuracy["scope"] == "held-out questions"].set_index("arm")["accuracy"]
        cross = next(one for one in differences.to_dict("records") if one["against"] == "cross")
        row |= {f"accuracy_{arm}": own[arm] for arm in ("self", "cross", "mode")}
        row["accuracy_readers"] = max(own["words"], own["embeddings"])
        row |= {"privilege": cross["advantage"]} | {
            f"privilege_{end}": cross[f"advantage_{end}"] for end in ("low", "high", "p")
        }
    return pd.DataFrame([{**row, "sentence": verdict.sentence}])


def _behaviour(own: Mapping[str, Any]) -> pd.DataFrame:
    kept, answers = own["behaviour"], own["answers"]
    same = int((kept["answer"] == kept["answer_tuned"]).sum())
    low, high = wilson(same, len(kept))
    alike = float((answers["answer"] == answers["answer_other"]).mean())
    row = {"n": len(kept), "unchanged": same / len(kept), "unchanged_low": low, "unchanged_high": high, "alike": alike}
    return pd.DataFrame([row])


def _changed(changed: Any, seed: int) -> pd.DataFrame:
    """Return how often the new and the old property is told, where they differ and the answer did change."""
    rows: Any = changed.loc[(changed["old"] != changed["new"]) & changed["object_changed"].astype(bool)]
    row: dict[str, Any] = {"n": len(rows), "object_changed": float(changed["object_changed"].mean())}
    for which in ("new", "old"):
        found = _mean(rows["said"] == rows[which], rows["item"], seed)
        row |= {f"told_{which}": found.value, f"told_{which}_low": found.low, f"told_{which}_high": found.high}
    return pd.DataFrame([row])


def _by_property(predictions: pd.DataFrame) -> pd.DataFrame:
    test: Any = predictions.loc[predictions["part"] == "test"]
    test = test.assign(correct=test["correct"].astype(float))
    found = test.groupby(["property", "trained", "arm"], sort=False)["correct"].agg(["mean", "count"]).reset_index()
    return found.rename(columns={"mean": "accuracy", "count": "n"})


def _mean(values: Any, clusters: Any, seed: int) -> Estimate:
    return estimate_mean(values.to_numpy(float), list(clusters), seed=seed)


def cluster_draws(
    values: Float[np.ndarray, " prompt"], clusters: Sequence[str], seed: int
) -> Float[np.ndarray, " resample"]:
    """Return means of draws in which clusters stand or fall together."""
    names, inverse = np.unique(np.asarray(clusters), return_inverse=True)
    sums, counts = np.bincount(inverse, values), np.bincount(inverse)
    drawn = generator(seed, "privilege").multinomial(len(names), np.full(len(names), 1 / len(names)), _RESAMPLES)
    return (drawn @ sums) / (drawn @ counts)
