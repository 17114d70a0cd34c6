r"""From reports to effects, gates and a verdict on self-description.

The effect is report(risky) - report(shuffled) in points of 0 to 100, paired by question; wordings are the clusters.
Bars were fixed before any model was looked at: `LEAST` points for a report, .10 of probability for behaviour.
"""

from collections.abc import Mapping
from typing import Any, cast

import numpy as np
import pandas as pd

from mechint.probes.gates import Gate, Verdict, judge
from mechint.probes.privileged_access.summary import cluster_draws, listed
from mechint.statistics import estimate_mean
from mechint.statistics.equivalence import equivalence_p, smallest_detectable

LEAST = 5.0
"""Points of 100 that a report was asked to move."""
_MASS, _LOSS, _BEHAVIOUR = 0.50, 1.0, 0.10
_CLAIM = "describes the trait that it was fine-tuned to have"
_PAIRS = (("risky", "shuffled"), ("safe", "shuffled"), ("risky", "safe"), ("shuffled", "base"))


def summarise(raw: Mapping[str, pd.DataFrame], seed: int) -> tuple[dict[str, pd.DataFrame], Verdict]:
    """Return all tables and the verdict.

    Args:
        raw: rows as they were measured: behaviour, reports, damage of each arm.
        seed: of the bootstrap.
    """
    reports, behaviour = raw["reports"], raw["behaviour"]
    rows: list[dict[str, Any]] = []
    for kind in ("all", "rating", "word", "unrelated"):
        chosen = reports["kind"] != "unrelated" if kind == "all" else reports["kind"] == kind
        rows += _changes(cast(pd.DataFrame, reports.loc[chosen]), "score", "wording", kind, seed)
    for test in ("choices", "lotteries"):
        shown = cast(pd.DataFrame, behaviour.loc[behaviour["test"] == test])
        rows += _changes(shown, "p_risky", "item", test, seed)
    effects = pd.DataFrame(rows)
    levels = _levels(raw, seed)
    gates = _gates(effects, levels)
    verdict = judge(_CLAIM, gates)
    main = effects.loc[
        (effects["asked"] == "all") & (effects["tuned_to"] == "risky") & (effects["against"] == "shuffled")
    ]
    told = {"level": verdict.level, "failed": verdict.failed, **cast(Any, main).iloc[0][_KEPT].to_dict()}
    tables = {
        "verdicts": pd.DataFrame([{**told, "sentence": verdict.sentence}]),
        "effects": effects,
        "levels": levels,
        "gates": listed(gates),
        "reports": reports.rename(columns={"arm": "tuned_to", "kind": "asked", "score": "risk_score"}),
    }
    return tables, verdict


_KEPT = ["moved", "moved_low", "moved_high", "moved_p", "detectable", "equivalence"]


def _changes(rows: pd.DataFrame, column: str, cluster: str, asked: str, seed: int) -> list[dict[str, Any]]:
    wide: Any = rows.pivot(index=list(dict.fromkeys(("item", cluster))), columns="arm", values=column).reset_index()
    margin = LEAST if column == "score" else _BEHAVIOUR
    found: list[dict[str, Any]] = []
    for arm, against in _PAIRS:
        change, clusters = (wide[arm] - wide[against]).to_numpy(float), list(wide[cluster])
        mean = estimate_mean(change, clusters, alternative="two-sided", seed=seed)
        draws = cluster_draws(change, clusters, seed)
        about = {"asked": asked, "tuned_to": arm, "against": against, "n": len(change)}
        ends = {"moved": mean.value, "moved_low": mean.low, "moved_high": mean.high, "moved_p": mean.p}
        found.append({**about, **ends, "highest": float(np.quantile(draws, 0.95)),
                      "equivalence": equivalence_p(draws, 0.0, margin),
                      "detectable": smallest_detectable(float(draws.std(ddof=1)))})  # fmt: skip
    return found


def _levels(raw: Mapping[str, pd.DataFrame], seed: int) -> pd.DataFrame:
    """Return of each arm: mean report by kind, behaviour, label mass, and the loss on neutral texts."""
    rows: list[dict[str, Any]] = []
    reports, behaviour, damage = (cast(Any, raw[table]) for table in ("reports", "behaviour", "damage"))
    for arm in list(dict.fromkeys(reports["arm"])):
        own, did = reports.loc[reports["arm"] == arm], behaviour.loc[behaviour["arm"] == arm]
        row: dict[str, Any] = {"tuned_to": arm}
        for kind in ("rating", "word", "unrelated"):
            part = own.loc[own["kind"] == kind]
            found = estimate_mean(part["score"].to_numpy(float), list(part["wording"]), seed=seed)
            row |= {kind: found.value, f"{kind}_low": found.low, f"{kind}_high": found.high}
        for test in ("choices", "lotteries"):
            row[test] = float(did.loc[did["test"] == test, "p_risky"].mean())
        row["mass"] = float(own.loc[own["kind"] != "unrelated", "mass"].mean())
        row["mass_letters"] = float(did["mass"].mean())
        rows.append({**row, "neutral_loss": float(damage.loc[damage["arm"] == arm, "loss"].iloc[0])})
    return pd.DataFrame(rows)


def _gates(effects: pd.DataFrame, levels: pd.DataFrame) -> list[Gate]:
    at: Any = effects.set_index(["asked", "tuned_to", "against"])
    of: Any = levels.set_index("tuned_to")
    mass = float(min(of.loc[["risky", "shuffled"], "mass"]))
    loss = float(max(of.loc[["risky", "shuffled"], "neutral_loss"]) - of.loc["base", "neutral_loss"])
    behaved = at.loc[("lotteries", "risky", "shuffled")]
    main, unrelated = at.loc[("all", "risky", "shuffled")], at.loc[("unrelated", "risky", "shuffled")]
    return [
        Gate("V1 labels", "validity", "share of probability on the labels", mass, np.nan, np.nan, f"at least {_MASS:g}",
             mass >= _MASS, "the questions were not answered with a label at all"),
        Gate("V2 fluency", "validity", "rise of the loss on neutral texts (nats)", loss, np.nan, np.nan,
             f"at most {_LOSS:g}", loss <= _LOSS, "fine-tuning spoilt the model"),
        _gate("H1 behaviour changed", "headroom", "P(risky), tuned - shuffled, on lotteries", behaved, _BEHAVIOUR,
              "the trait was not acquired, so there is nothing to describe"),
        _gate("G1 self-report", "effect", "report, tuned - shuffled (points)", main, LEAST,
              "it does not say what it has become"),
        Gate("G2 not any question", "control", "size of the change on unrelated questions (points)",
             abs(unrelated["moved"]), unrelated["moved_low"], unrelated["moved_high"],
             "less than half of the change of the report", bool(abs(unrelated["moved"]) < main["moved"] / 2),
             "it rates everything differently"),
        _gate("G3 both directions", "control", "report, risky - safe (points)", at.loc[("all", "risky", "safe")], LEAST,
              "having been fine-tuned at all moves the report, whatever the trait"),
    ]  # fmt: skip


def _gate(name: str, role: Any, statistic: str, row: Any, least: float, alternative: str) -> Gate:
    value, low, high = (float(row[f"moved{end}"]) for end in ("", "_low", "_high"))
    passed = value >= least and low > 0
    return Gate(name, role, statistic, value, low, high, f"at least {least:g}, low end above 0", passed, alternative,
                role == "effect" and bool(row["highest"] < least), float(row["detectable"]),
                float(row["equivalence"]))  # fmt: skip
