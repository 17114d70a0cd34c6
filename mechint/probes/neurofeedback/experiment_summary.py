"""From rows to tables: learning curves, comparisons with readers, and states within a text beside lone ones."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from mechint.probes.neurofeedback.axes import mismatch
from mechint.probes.neurofeedback.judgement import named, numbers, paired
from mechint.probes.neurofeedback.readers import text_ceiling
from mechint.statistics import bootstrap_mean, mcnemar_p

_KEYS = ["model", "trial", "axis"]


def curves(raw: Mapping[str, pd.DataFrame], seed: int) -> pd.DataFrame:
    """Return what the model gets right after n examples, its loss, label mass and format, n in bins of a power of 2."""
    reports, rows = raw["reports"], list[dict[str, Any]]()
    n = reports["shown"].to_numpy()
    begins = np.where(n > 0, 2 ** np.floor(np.log2(np.maximum(n, 1))), 0).astype(int)
    for _, part in reports.assign(bin=begins).groupby([*_KEYS, "bin"], sort=False):
        names, first = named(part), int(numbers(part, "bin")[0])
        measured = part[["right", "label_loss", "label_mass", "formatted"]].astype(float)
        where = part["context"].astype(str).tolist()
        value, low, high = bootstrap_mean(measured.to_numpy(), where, seed=seed)
        rows.append(
            {
                **names, "n_from": first, "n_to": int(numbers(part, "shown").max()),
                "right_share": value[0], "right_share_low": low[0], "right_share_high": high[0],
                "label_loss": value[1], "label_mass": value[2], "formatted": value[3],
                **{f"right_{name}": float(numbers(part.loc[part["flipped"] == flip], "right").mean())
                   for name, flip in (("as_is", False), ("exchanged", True))},
            }
        )  # fmt: skip
    return pd.DataFrame(rows)


def comparisons(raw: Mapping[str, pd.DataFrame], tested: int, noise: float, seed: int) -> pd.DataFrame:
    """Return, at the tested places, accuracies of the model and of every reader, and the model's less the reader's."""
    table, rows = paired(raw, tested), list[dict[str, Any]]()
    readers = [str(column) for column in table.columns if ": " in str(column)]
    for _, part in table.groupby(_KEYS, sort=False):
        names, right = named(part), numbers(part, "right")
        where = part["context"].astype(str).tolist()
        for column in ("right", *(one for one in readers if bool(part[one].notna().all()))):
            reader, _, examples = column.partition(": ")
            other = numbers(part, column)
            both = np.stack([other, right - other], 1)
            value, low, high = bootstrap_mean(both, where, seed=seed)
            own = column == "right"
            ends = {"above_reader": value[1], "above_reader_low": low[1], "above_reader_high": high[1]}
            rows.append(
                {
                    **names, "reader": "the model" if own else reader, "examples": "the same" if own else examples,
                    "right_share": value[0], "right_share_low": low[0], "right_share_high": high[0],
                    **({key: float("nan") for key in ends} if own else ends),
                    "mcnemar_exact": float("nan") if own else _mcnemar(right, other),
                    "n": len(part),
                }
            )  # fmt: skip
        if names["trial"] == "hidden noise":
            rows.append({**names, "reader": "best possible, of the text", "examples": "any number",
                         "right_share": text_ceiling(noise), "n": len(part)})  # fmt: skip
    return pd.DataFrame(rows)


def states(raw: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Return, for every axis, how scores of lone sentences and of the same within a text agree."""
    rows: list[dict[str, Any]] = []
    for _, part in raw["reports"].loc[~raw["reports"]["flipped"]].groupby(_KEYS, sort=False):
        alone, within = numbers(part, "score"), numbers(part, "score_within")
        same = float(((alone > 0) == (within > 0)).mean())
        rows.append({**named(part), "correlation": mismatch(alone.tolist(), within.tolist()), "same_label": same,
                     "n": len(part)})  # fmt: skip
    return pd.DataFrame(rows)


def twins_table(raw: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Return how often twins are right, and what a coin with the model's habit would get."""
    rows: list[dict[str, Any]] = []
    for _, part in raw.groupby(["model", "axis"], sort=False):
        right = part[["both_right", "right_up", "right_down"]].to_numpy(float)
        value, low, high = bootstrap_mean(right, part["context"].astype(str).tolist(), seed=seed)
        q = float(numbers(part, "says_up").mean())
        rows.append({**named(part, ("model", "axis")), "both_right": value[0], "both_right_low": low[0],
                     "both_right_high": high[0], "coin": q * (1 - q), "right_up": value[1], "right_down": value[2],
                     "n": len(part)})  # fmt: skip
    return pd.DataFrame(rows)


def _mcnemar(own: Float[np.ndarray, " at"], other: Float[np.ndarray, " at"]) -> float:
    """Return the exact p of McNemar's test, places taken for independent; a place right in one labelling is left out.

    Readers say the same of both labellings, so where the model is right in one alone there is no pair to compare.
    """
    clear = np.isin(own, [0.0, 1.0]) & np.isin(other, [0.0, 1.0])
    return mcnemar_p(own[clear] == 1, other[clear] == 1)
