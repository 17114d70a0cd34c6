"""What the control task allows to be said: a state that moves where it was asked to, more than elsewhere, by no words.

effect    d on the axis that was named: its interval above 0; an effect of .2 ("small") is what is asked for
aim       precision above 1: along other axes it moves less
words     the sentences are the same under both labels, so that no choice of words explains it
"""

import numpy as np
import pandas as pd

from mechint.probes.gates import Gate, judge
from mechint.probes.neurofeedback.control import GIVEN

SMALL = 0.2
"""d, in standard deviations."""


def control_verdicts(table: pd.DataFrame) -> pd.DataFrame:
    """Return `model`, `control`, `axis`, `level`, `failed` and `sentence` of every axis that was named."""
    named = table.loc[table["axis"] == table["measured_on"]]
    rows: list[dict[str, str]] = []
    for row in named.to_dict("records"):
        names = {name: str(row[name]) for name in ("model", "control", "axis")}
        claim = f"moves the state of a {names['control']} sentence along {names['axis']} when its score is asked for"
        d, low, high, aim = (float(row[name]) for name in ("shift_d", "shift_d_low", "shift_d_high", "precision"))
        verdict = judge(claim, _gates(d, low, high, aim, same=names["control"] == GIVEN))
        rows.append({**names, "level": verdict.level, "failed": verdict.failed, "sentence": verdict.sentence})
    return pd.DataFrame(rows)


def control_sentence(verdicts: pd.DataFrame) -> str:
    """Say for each model and kind of sentence along which axes what was found."""
    said: list[str] = []
    for keys, own in verdicts.groupby(["model", "control"], sort=False):
        model, task = keys if isinstance(keys, tuple) else (keys, "")
        levels = [f"{level} ({', '.join(map(str, part['axis']))})" for level, part in own.groupby("level", sort=False)]
        said.append(f"{model}, control of {task} sentences: {'; '.join(levels)}.")
    return "\n".join(said)


def _gates(d: float, low: float, high: float, aim: float, *, same: bool) -> list[Gate]:
    none = float("nan")
    return [
        Gate("sentences", "validity", "d, from at least two sentences under each label", d, none, none, "a number",
             bool(np.isfinite(d)), "nothing was written that has a state"),
        Gate("effect", "effect", "d on the axis that was named", d, low, high, "a low end above 0", low > 0,
             "states are what they would have been without being asked", excluded=high < SMALL),
        Gate("aim", "control", "its size over the mean on all axes", aim, none, none, "above 1", aim > 1,
             "the request moves states along other axes as much"),
        Gate("words", "control", "share of sentences that are the same under both labels", float(same), none, none,
             "1", same, "it chose words whose state lies there, as any writer can without looking at a state"),
    ]  # fmt: skip
