"""When a vector is said to steer: criteria fixed before looking, and what was measured of each.

All are judged at the calibrated dose, on prompts and neutral texts that played no part in fitting, in the choice of the
layer or in the calibration. A vector that meets the first two moves the metric beyond chance; it is said to steer only
if it meets all. A criterion whose arm was left out is not met.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from mechint.probes.criterion import Criterion, criteria_table
from mechint.statistics import bootstrap_mean
from mechint.steering.arms import NULLS
from mechint.steering.evaluation_summary import LEVEL, differences

MOST_DAMAGE = 2.0
CRITERIA: tuple[Criterion, ...] = (
    Criterion("has an effect", "effect > 0 (lower end)", "Steering raises the metric on prompts it was not chosen on."),
    Criterion(
        "beyond chance",
        f"p < {LEVEL} against the hardest null",
        "Hardly any vector that means nothing (random, of the activations' covariance, of shuffled labels) does as "
        "much at the same length.",
    ),
    Criterion(
        "not by its tokens",
        "effect without the part along the scored words > 0 (lower end)",
        "The vector does not merely write the scored words to the output.",
    ),
    Criterion(
        "specific",
        "effect - effect of another concept's vector > 0 (lower end)",
        "A vector of something else, as long, does less.",
    ),
    Criterion(
        "grows with the dose",
        "least rise from dose to dose, up to the tested one, > 0",
        "More of the vector brings more of the effect.",
    ),
    Criterion(
        "damage as calibrated",
        f"KL that 5 % of neutral tokens exceed < {MOST_DAMAGE:g} times the target",
        "The damage on new texts is about what was asked for; the verdict says what it does to perplexity.",
    ),
)
"""In the order of `judge`."""
CHANCE = 2
"""How many of the first criteria make an effect beyond chance."""


def judge(
    doses: pd.DataFrame,
    tests: pd.DataFrame,
    effects: pd.DataFrame,
    dose: float,
    target_kl: float,
    clusters: Mapping[str, str],
    seed: int,
) -> pd.DataFrame:
    """Return the criteria with what was `measured` (NaN: nothing) and whether they are `met`.

    Args:
        doses: table of the evaluation.
        tests: the same.
        effects: its raw rows.
        dose: the tested one.
        target_kl: what the dose was calibrated to, in nats.
        clusters: of each prompt.
        seed: of the bootstrap.
    """
    here = doses.loc[np.isclose(doses["dose"], dose)].to_dict("records")
    at_dose: dict[str, dict[str, Any]] = {row["arm"]: row for row in here}
    rising = doses.loc[(doses["arm"] == "vector") & (doses["dose"] <= dose * (1 + 1e-9))].sort_values("dose")
    found: list[tuple[float, bool]] = [
        _above(at_dose["vector"]["effect_low"]),
        _below(np.max(np.asarray(tests["p"], float)) if set(NULLS) <= set(tests["null"]) else np.nan, LEVEL),
        _above(at_dose.get("orthogonal", {}).get("effect_low", np.nan)),
        _above(_excess(effects, dose, clusters, seed)),
        _above(np.diff(np.asarray(rising["effect"], float), prepend=0.0).min()),
        _below(at_dose["vector"].get("kl_p95", np.nan), MOST_DAMAGE * target_kl),
    ]
    measured, met = zip(*found, strict=True)
    return criteria_table(CRITERIA).assign(measured=measured, met=met)


def verdict(site: str, criteria: pd.DataFrame, said: str) -> str:
    """Say first whether the vector steers; `said` is the verdict of the evaluation."""
    failed = [str(name) for name in criteria.loc[~criteria["met"], "criterion"]]
    if not failed:
        first = f"Steers at {site}: every criterion is met."
    elif criteria["met"].iloc[:CHANCE].all():
        first = f"Moves the metric at {site}, but not said to steer; not met: {', '.join(failed)}."
    else:
        first = f"Does not steer at {site}; not met: {', '.join(failed)}."
    return f"{first} {said}"


def _above(value: Any) -> tuple[float, bool]:
    return float(value), bool(value > 0)


def _below(value: Any, bound: float) -> tuple[float, bool]:
    return float(value), bool(value < bound)


def _excess(effects: pd.DataFrame, dose: float, clusters: Mapping[str, str], seed: int) -> float:
    """Return the lower end of the effect minus that of the other concept's vector, prompt by prompt."""
    found = differences(effects)
    here = found.loc[np.isclose(found["dose"], dose)]
    own, other = (here.loc[here["arm"] == arm].set_index("id")["effect"] for arm in ("vector", "other_concept"))
    if other.empty:
        return np.nan
    excess = own - other.reindex(own.index)
    labels = [clusters[str(name)] for name in own.index]
    return float(bootstrap_mean(np.asarray(excess, float)[:, None], labels, seed=seed)[1][0])
