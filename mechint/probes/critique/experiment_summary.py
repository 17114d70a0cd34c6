"""From the rows of a critique experiment to tables, checks and one verdict: readable? a cause? beyond what?

strata      AUROC on test problems: of all rows, of pairs whose true result the model holds for likelier (m > 0) and
            of the others, and of what surprisal does not tell (`scores.partial_auroc`)
checks      the embedding of the stub at exactly .5; that of a deranged result within .5 ± .05; labels exchanged
            within problems at a mean of .5 ± .03 at every layer: where one fails, the pipeline leaks
Holm        over the tested measures, null by null
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from mechint.probes.critique.causal_summary import Cell, beaten, changes, judge, records
from mechint.probes.critique.causal_verdict import verdict as causal_verdict
from mechint.probes.critique.choosing import Chosen
from mechint.probes.critique.questions import Questions
from mechint.probes.critique.questions import recovery as recovery_of
from mechint.probes.critique.reading import estimates
from mechint.probes.critique.recordings import CONCEPT
from mechint.probes.critique.scores import partial_auroc, scored
from mechint.results import Findings
from mechint.statistics import bootstrap_mean, derive_seed, holm, wilson

EMBEDDING, TOLERANCE, SHUFFLED = "embed", 0.05, 0.03
_SIDES = ("difference", "wrong", "true")
_READ = {"low": "auroc_low", "high": "auroc_high", "p": "auroc_p", "p_holm": "auroc_p_holm"}
_HALVES = {
    "low": "split_half_low",
    "high": "split_half_high",
    "lda_low": "lda_split_half_low",
    "lda_high": "lda_split_half_high",
}
"""Ends of an interval bear the name of what they are the ends of."""
_AT = {"result": "at the result", "stub": "at the stub"}


@dataclass(frozen=True)
class Outcome:
    """What steering did to one measure."""

    tested: bool
    met: bool
    """Whether every criterion is met."""
    said: str


def reading_tables(
    raw: Mapping[str, pd.DataFrame], deranged: bool, n_resamples: int, seed: int
) -> dict[str, pd.DataFrame]:
    """Return the tables signals, layers, baselines, strata, knows, checks; geometry, cosines, tokens; transfer."""
    margins = _margins(raw["surprisal"])
    tables = {
        "signals": raw["signals"],
        "layers": raw["layers"],
        "baselines": raw["baselines"].rename(columns={"baseline": "what", "surface": "from_text"}),
        "strata": _strata(raw["scores"], raw["surprisal"], margins, n_resamples, seed),
        **{name: raw[name] for name in ("transfer",) if name in raw},
    }
    tables = {name: table.rename(columns=_READ) for name, table in tables.items()}
    tables |= {"knows": _knows(margins), "checks": _checks(raw["layers"], deranged)}
    tables["geometry"] = raw["geometry"].rename(columns=_HALVES)
    return tables | {name: raw[name] for name in ("cosines", "tokens")}


def causal_tables(
    found: Mapping[str, Findings], tested: Sequence[str], chosen: Chosen, metrics: Mapping[str, Questions]
) -> tuple[dict[str, pd.DataFrame], dict[str, Outcome]]:
    """Return the tables doses, tests, criteria and detection of all measures, and what came out of each.

    The p-values of the tested measures are corrected for each other; those of the others stand as they are.
    """
    cell, outcomes = Cell("add", chosen.dose), dict[str, Outcome]()
    tests = pd.concat([one.tables["tests"].assign(outcome=name) for name, one in found.items()], ignore_index=True)
    tests = corrected(tests, tested)
    tables: dict[str, list[pd.DataFrame]] = {"doses": [], "criteria": [], "detection": []}
    for name, one in found.items():
        own, doses = tests.loc[tests["outcome"] == name], one.tables["doses"]
        criteria, detection = judge(doses, own, cell), one.tables.get("detection")
        about = (metrics[name].name, metrics[name].unit)
        said = causal_verdict(CONCEPT, about, cell, doses, own, criteria, detection)
        outcomes[name] = Outcome(name in tested, bool(criteria["met"].all()), said)
        for table, rows in (("doses", doses), ("criteria", criteria), ("detection", detection)):
            tables[table] += [] if rows is None else [rows.assign(outcome=name)]
    joined = {name: pd.concat(rows, ignore_index=True) for name, rows in tables.items() if rows}
    return {"doses": joined["doses"], "tests": tests, **joined}, outcomes


def corrected(tests: pd.DataFrame, tested: Sequence[str]) -> pd.DataFrame:
    """Mark the tested measures, and correct their p-values for each other (Holm), null by null and side by side."""
    tests = tests.assign(tested=tests["outcome"].isin(tested))
    for null in tests["null"].unique():
        for side in tests["side"].unique():
            here = tests["tested"] & (tests["null"] == null) & (tests["side"] == side)
            if here.any():
                p = holm(tests.loc[here, "p"].to_numpy(float))
                tests.loc[here, "p_corrected"] = p
                tests.loc[here, "beaten"] = [beaten(str(null), float(one)) for one in p]
    return tests


def effects_by_knowledge(
    raw: Mapping[str, pd.DataFrame], measures: Sequence[str], dose: float, groups: Mapping[str, str], seed: int
) -> pd.DataFrame:
    """Return what the vector changes at the tested dose, for pairs that the model knows and for the others."""
    margins = _margins(raw["surprisal"]).set_index("id")["margin"]
    rows: list[dict[str, Any]] = []
    for measure in measures:
        found = changes(raw[f"effects_{measure}"])
        own = found.loc[(found["arm"] == "vector") & (found["mode"] == "add") & (found["dose"] == dose)]
        margin = own["id"].map(margins)
        for stratum, part in (("knows", own.loc[margin > 0]), ("does not know", own.loc[margin <= 0])):
            if not len(part):
                continue
            values = np.asarray(part[list(_SIDES)], float)
            ends = zip(_SIDES, *bootstrap_mean(values, [groups[name] for name in part["id"]], seed=seed), strict=True)
            for side, value, low, high in ends:
                one = {"outcome": measure, "stratum": stratum, "side": side, "n": len(part), "effect": value}
                rows.append({**one, "effect_low": low, "effect_high": high})
    return pd.DataFrame(rows)


def recovered(effects: pd.DataFrame, groups: Mapping[str, str], seed: int) -> pd.DataFrame:
    """Return rho of the answer at each dose of the vector: the share of what errors cost that is given back."""
    plain = effects.loc[effects["arm"] == "none"].set_index("id")
    rows: list[dict[str, Any]] = []
    own = effects.loc[(effects["arm"] == "vector") & (effects["mode"] == "add")]
    for dose, part in own.groupby("dose"):
        before, labels = plain.loc[part["id"]], [groups[name] for name in part["id"]]
        true, wrong = before["true"].to_numpy(float), before["wrong"].to_numpy(float)
        one = recovery_of(true, wrong, part["wrong"].to_numpy(float), labels, seed=seed)
        share = {"recovered": one.share.value, "recovered_low": one.share.low, "recovered_high": one.share.high}
        lost = float(np.nanmean(one.lost))
        rows.append({"dose": dose, **share, "lost": lost, "n": one.share.n, "skipped": one.skipped})
    return pd.DataFrame(rows)


def verdict(signals: pd.DataFrame, outcomes: Mapping[str, Outcome]) -> str:
    """Say first whether an error is readable and whether its direction is a cause; then the sentences of both."""
    found = {str(row["read_at"]): bool(row["found"]) for row in records(signals)}
    readable = [_AT[place] for place, yes in found.items() if yes]
    not_readable = [_AT[place] for place, yes in found.items() if not yes]
    first = f"Wrong results are readable {' and '.join(readable)}" if readable else "Wrong results are not readable"
    first += f"{', not' if readable else ''} {' nor '.join(not_readable)}" if not_readable else ""
    tested = {name: one for name, one in outcomes.items() if one.tested}
    causes = [name for name, one in tested.items() if one.met]
    others = [f"{name}: {_lowered(one.said)}" for name, one in tested.items() if not one.met]
    steered = [f"the vector is a cause of critique ({', '.join(causes)})"] if causes else []
    second = "; ".join(steered + [f"steering on {one}" for one in others])
    sentences = " ".join(str(row["sentence"]) for row in records(signals))
    return f"{first}; {second}. {sentences} " + " ".join(f"{name}: {one.said}" for name, one in tested.items())


def _lowered(said: str) -> str:
    kind = said.split(":")[0]
    return kind[:1].lower() + kind[1:]


def _margins(surprisal: pd.DataFrame) -> pd.DataFrame:
    """Return M1 of each pair: surprisal of the wrong minus that of the true result, in nats."""
    sides = {wrong: part.set_index("id") for wrong, part in surprisal.groupby("wrong")}
    true, wrong = sides[False], sides[True]
    found = wrong[["group", "operation", "part"]].assign(margin=wrong["surprisal"] - true["surprisal"])
    return found.reset_index()


def _knows(margins: pd.DataFrame) -> pd.DataFrame:
    """Return in how many pairs the true result is the likelier one, by operation."""
    rows: list[dict[str, Any]] = []
    parts = [("all", margins), *((str(name), part) for name, part in margins.groupby("operation"))]
    for operation, part in parts:
        margin = part["margin"].to_numpy(float)
        known, n = int((margin > 0).sum()), len(margin)
        low, high = wilson(known, n)
        one = {"operation": operation, "known": known / n, "known_low": low, "known_high": high}
        rows.append({**one, "mean_margin": float(margin.mean()), "n": n})
    return pd.DataFrame(rows)


def _strata(
    scores: pd.DataFrame, surprisal: pd.DataFrame, margins: pd.DataFrame, n_resamples: int, seed: int
) -> pd.DataFrame:
    margin, tables = margins.set_index("id")["margin"], list[pd.DataFrame]()
    for place, rows in scores.groupby("read_at", sort=False):
        train, test = (rows.loc[rows["part"] == part] for part in ("train", "test"))
        covariate = {
            part: surprisal.loc[surprisal["part"] == part, "surprisal"].to_numpy(float) for part in ("train", "test")
        }
        known = (test["id"].map(margin) > 0).to_numpy()
        how: dict[str, Any] = {"n_resamples": n_resamples, "seed": derive_seed(seed, "strata", place)}
        masks = {"all": np.ones(len(test), dtype=bool), "knows": known, "does not know": ~known}
        found = {
            name: scored(*_labelled(test.loc[mask]), **how)
            for name, mask in masks.items()
            if len(set(test.loc[mask, "group"])) > 1
        }
        found["surprisal regressed out"] = partial_auroc(
            *_labelled(test),
            covariate["test"],
            train_scores=train["score"].to_numpy(float),
            train_covariate=covariate["train"],
            **how,
        )
        tables.append(estimates(list(found), list(found.values()), "stratum", "auroc").assign(read_at=place))
    return pd.concat(tables, ignore_index=True)


def _labelled(rows: pd.DataFrame) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return scores, labels and groups."""
    _, groups = np.unique(rows["group"].to_numpy(str), return_inverse=True)
    return rows["score"].to_numpy(float), rows["wrong"].to_numpy().astype(np.int64), groups


def _checks(layers: pd.DataFrame, deranged: bool) -> pd.DataFrame:
    embedded = {place: part.iloc[0] for place, part in layers.loc[layers["site"] == EMBEDDING].groupby("read_at")}
    stub = float(embedded["stub"]["auroc"])
    rows = [("embedding of the stub", "AUROC is exactly .5", stub, stub == 0.5)]
    if deranged:
        result = float(embedded["result"]["auroc"])
        rows.append(("embedding of the result", f"AUROC is .5 ± {TOLERANCE:g}", result, _near(result, TOLERANCE)))
    for place, part in layers.groupby("read_at", sort=False):
        away = part["shuffled"].to_numpy(float)
        worst = float(away[np.abs(away - 0.5).argmax()])
        words = f"mean AUROC is .5 ± {SHUFFLED:g} at every layer"
        rows.append((f"labels exchanged, {place}", words, worst, _near(worst, SHUFFLED)))
    return pd.DataFrame(rows, columns=["check", "threshold", "measured", "met"])


def _near(value: float, by: float) -> bool:
    return abs(value - 0.5) <= by
