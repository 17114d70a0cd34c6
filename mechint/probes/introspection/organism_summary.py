"""From gates of organisms to verdicts beside the truth, with all gates and with one left out at a time."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, cast

import pandas as pd

from mechint.probes.gates import LEVELS, Gate, Level, Verdict, judge
from mechint.probes.introspection.claims import CLAIMS
from mechint.probes.introspection.organism_truth import expected
from mechint.statistics import wilson

LEFT_OUT = ("validity", "G1", "G2", "G3", "G4", "G5", "G6")
_FIELDS = [field.name for field in fields(Gate)]


def verdicts_table(gates: pd.DataFrame) -> pd.DataFrame:
    """Return the verdict on each claim and organism beside what is so."""
    names = [str(name) for name in gates["model"].unique()]
    return pd.DataFrame([_told(gates, name, claim) for name in names for claim in CLAIMS])


def _told(gates: pd.DataFrame, name: str, claim: str) -> dict[str, Any]:
    found = judge(CLAIMS[claim], _read(gates, name, claim, held=False))
    truth = expected(name, claim)
    about = {"model": name, "claim": claim, "level": found.level, "expected": truth}
    return about | {"matches": found.level == truth, "failed": found.failed, "sentence": found.sentence}


def mutation_table(gates: pd.DataFrame, verdicts: pd.DataFrame) -> pd.DataFrame:
    """Return every verdict with each gate left out in turn."""
    told: list[dict[str, Any]] = []
    rows: Any = verdicts.itertuples()
    for row in rows:
        name, claim, truth = str(row.model), str(row.claim), str(row.expected)
        for gate in LEFT_OUT:
            found = _without(gates, name, claim, gate)
            told.append(
                {"without": gate, "model": name, "claim": claim, "level": found.level, "expected": truth}
                | {"claims_too_much": LEVELS.index(found.level) > LEVELS.index(cast(Level, truth))}
            )
    return pd.DataFrame(told)


def _read(gates: pd.DataFrame, name: str, claim: str, *, held: bool) -> list[Gate]:
    rows: Any = gates[(gates["model"] == name) & (gates["claim"] == claim) & (gates["held"] == held)]
    return [Gate(**row) for row in rows[_FIELDS].to_dict("records")]


def _without(gates: pd.DataFrame, name: str, claim: str, gate: str) -> Verdict:
    """Return the verdict with one gate left out."""
    found = _read(gates, name, claim, held=gate == "G5")
    kept = [one for one in found if not one.name.startswith(gate)]
    return judge(CLAIMS[claim], kept)


def random_table(found: pd.DataFrame) -> pd.DataFrame:
    """Return how often networks of random numbers get each verdict, and pass each gate taken alone."""
    told: list[dict[str, Any]] = []
    rows: Any = found
    n = int(rows["network"].nunique())
    for claim, some in rows.groupby("claim"):
        levels: list[Level] = []
        for _, own in some.groupby("network"):
            records: Any = own[_FIELDS].to_dict("records")
            levels.append(judge(CLAIMS[str(claim)], [Gate(**row) for row in records], skip_validity=True).level)
        told += [_share(str(claim), "verdict", level, levels.count(level), n) for level in LEVELS]
        groups: Any = some.groupby(["name", "statistic"], sort=False)
        for (name, statistic), gate in groups:
            told.append(_share(str(claim), f"{name} alone", str(statistic), int(gate["passed"].sum()), n))
    return pd.DataFrame(told)


def _share(claim: str, what: str, which: str, k: int, n: int) -> dict[str, Any]:
    low, high = wilson(k, n)
    return {"claim": claim, "what": what, "which": which, "share": k / n, "low": low, "high": high, "networks": n}


def verdict(tables: Mapping[str, pd.DataFrame]) -> str:
    """Say whether the battery told the truth, which gates it needs for that, and how often chance fools it."""
    verdicts: Any = tables["verdicts"]
    mutation: Any = tables["mutation"]
    wrong = verdicts[~verdicts["matches"]]
    told = [f"{int(verdicts['matches'].sum())} of {len(verdicts)} verdicts match the truth."]
    if len(wrong):
        told.append("Not: " + "; ".join(f"{r.model} {r.claim} ({r.level})" for r in wrong.itertuples()) + ".")
    fooled = mutation[mutation["claims_too_much"]].groupby("without")["model"].nunique()
    needed = [f"{gate} ({int(fooled[gate])} organisms)" for gate in LEFT_OUT if gate in fooled.index]
    idle = [gate for gate in LEFT_OUT if gate not in fooled.index]
    told.append(f"Left out, these gates let a verdict say too much: {', '.join(needed) or 'none'}.")
    if idle:
        told.append(f"Left out, these change nothing here: {', '.join(idle)}.")
    if "random" in tables:
        rows: Any = tables["random"]
        evidence = rows[(rows["what"] == "verdict") & (rows["which"] == "evidence")]
        most = evidence.loc[evidence["share"].idxmax()]
        count = round(most["share"] * most["networks"])
        told.append(
            f"Of {int(most['networks'])} networks of random numbers, with validity left out, "
            f"{count or 'none'} got evidence (on the claim where most did; 95 %: at most {most['high']:.3f})."
        )
    return " ".join(told)
