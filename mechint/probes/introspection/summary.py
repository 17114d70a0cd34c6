"""From cells and gates to tables and a sentence that somebody who is no expert can read."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from mechint.probes.gates import LEVELS, Gate, Verdict, gates_table, judge
from mechint.probes.introspection.battery import CONCEPT, NONE
from mechint.probes.introspection.cells import Cells
from mechint.prompts.introspection.material import NO, NOTHING, STATE, TEXT, YES

_LABELS = (YES, NO, STATE, TEXT, NOTHING)
_ROUNDING = 1e-9
"""Of the error of cells that are all alike, which tells nothing about what would be found."""


def as_cells(rows: pd.DataFrame) -> Float[np.ndarray, "concept carrier"]:
    """Return the column "right" as an array of concepts times carriers, in the order of `Cells`."""
    wide = rows.pivot(index="concept", columns="carrier", values="right")
    return wide.sort_index(axis=0).sort_index(axis=1).to_numpy(dtype=float)


def verdicts_table(verdicts: Mapping[str, Verdict], gates: Mapping[str, Sequence[Gate]]) -> pd.DataFrame:
    """Return one row a claim, with what would be said if the instrument were taken on trust."""
    trusting = {claim: judge(claim, found, skip_validity=True).level for claim, found in gates.items()}
    return pd.DataFrame(
        [
            {"claim": claim, "level": found.level, "failed": found.failed, "trusting": trusting[claim]}
            | {"sentence": found.sentence}
            for claim, found in verdicts.items()
        ]
    )


def all_gates(gates: Mapping[str, Sequence[Gate]]) -> pd.DataFrame:
    """Return the gates of all claims, one row each."""
    return pd.concat([gates_table(found).assign(claim=claim) for claim, found in gates.items()], ignore_index=True)


def arms_table(cells: Cells) -> pd.DataFrame:
    """Return what was said in each arm of each kind of question: shares of answers, and of what they are made."""
    rows = cells.answers.assign(family=cells.answers["question"].str.partition(" ")[0])
    told: list[dict[str, Any]] = []
    groups: Any = rows.groupby(["family", "arm", "held"], sort=False)
    for (family, arm, held), some in groups:
        said = some["said"]
        line = {"family": family, "arm": arm, "held": held, "n": len(some), "labels": float((said != "").mean())}
        line |= {f"said_{label}": float((said == label).mean()) for label in _LABELS}
        line |= {"said_concept": float((said == some["concept"]).mean())}
        named = some["named"] == some["concept"] if family == "identify" and arm != NONE else None
        line |= {"named_concept": np.nan if named is None else float(named.mean())}
        told.append(line | {name: float(some[name].mean()) for name in ("mass", "entropy", "yes_no") if name in some})
    return pd.DataFrame(told)


def unrelated_table(cells: Cells) -> pd.DataFrame:
    """Return by how much an injection raises yes, for the question about it and each that is not; nats."""
    told: list[dict[str, Any]] = []
    for question in ("detect", *cells.questions("unrelated")):
        found = cells.mean(cells.shift(question, CONCEPT))
        told.append({"question": question, "rise": found.value, "low": found.low, "high": found.high})
    return pd.DataFrame(told)


def verdict(name: str, verdicts: Mapping[str, Verdict], gates: Mapping[str, Sequence[Gate]]) -> str:
    """Say what was found, claim by claim, and how small an effect would have been found."""
    weakest = min(verdicts.values(), key=lambda found: LEVELS.index(found.level)).level
    sentences = [f"{name}: {weakest}.", *(found.sentence for found in verdicts.values())]
    small = [
        f"{gate.statistic} {gate.smallest:.2g}"
        for claim, found in verdicts.items()
        if found.level not in ("partial", "evidence")
        for gate in gates[claim]
        if gate.role == "effect" and gate.name.startswith("G5") and gate.smallest > _ROUNDING
    ]
    if small:
        sentences.append(f"Smallest differences that are found four times in five: {'; '.join(small)}.")
    return " ".join(sentences)
