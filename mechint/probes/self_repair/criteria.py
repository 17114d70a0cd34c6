"""When a component is said to be repaired: five conditions, fixed before any model was looked at.

The published shares of the direct effect that is put back, on the 2 % of tokens where it is largest and as means over
the heads of a layer, lie between 0.15 and 0.65 in the later layers of GPT-2 and Pythia (Rushing & Nanda 2024, stored
results). The size threshold lies below them; whether it is reached beyond what any lucky fit would have had put back is
a condition of its own.
"""

import pandas as pd

from mechint.probes.criterion import Criterion

LEAST_TOKENS = 20
LEAST_CLUSTERS = 8
LEAST_EFFECT = 0.1
LEAST_RATIO = 0.1
LEVEL = 0.05


CRITERIA: tuple[Criterion, ...] = (
    Criterion(
        "enough tokens",
        f"at least {LEAST_TOKENS} condensed tokens, from at least {LEAST_CLUSTERS} clusters of documents",
        "With fewer, nothing can be said.",
    ),
    Criterion(
        "needed",
        f"condensed mean of the direct effect at least {LEAST_EFFECT} logits",
        "There is something to be repaired.",
    ),
    Criterion(
        "size",
        f"condensed self-repair at least {LEAST_RATIO:.0%} of the direct effect (ratio of means)",
        "What is put back is noticeable beside what was lost.",
    ),
    Criterion(
        "beyond chance",
        f"condensed self-repair > 0, sign-flip test over clusters of documents, Holm-corrected, p < {LEVEL}",
        "The sign is not an accident of these documents.",
    ),
    Criterion(
        "more than for a chance fit",
        "that share minus the share for the same component with the output of unrelated documents: 95 % interval "
        "above 0 (resample ablation with two draws or more)",
        "An output that fits the next token by accident is repaired less: the repair is about what the component does "
        "here, not about any large direct effect.",
    ),
)


def judge(table: pd.DataFrame) -> pd.DataFrame:
    """Add `repaired` and `failed` (the names of the conditions that are not met) to a table of components."""
    met = {
        "enough tokens": (table["n_condensed"] >= LEAST_TOKENS) & (table["n_clusters"] >= LEAST_CLUSTERS),
        "needed": table["condensed_direct_effect"] >= LEAST_EFFECT,
        "size": table["condensed_ratio"] >= LEAST_RATIO,
        "beyond chance": table["condensed_self_repair_p"] < LEVEL,
        "more than for a chance fit": table["ratio_excess_low"] > 0,
    }
    passed = pd.DataFrame(met)
    failed = [", ".join(name for name in passed if not row[name]) for row in passed.to_dict("records")]
    return table.assign(repaired=passed.all(axis=1), failed=failed)
