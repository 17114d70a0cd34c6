"""From the rows of a confidence experiment to tables, gates and verdicts."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from mechint.probes.gates import Gate, Verdict, gates_table, judge
from mechint.probes.self_knowledge import criteria
from mechint.probes.self_knowledge.criteria import REPORTS, Evidence
from mechint.probes.self_knowledge.depth import against_depth, agreement, votes
from mechint.probes.self_knowledge.fitted import Folds, folds_of, input_only
from mechint.probes.self_knowledge.measures import SOURCES, Scores
from mechint.probes.self_knowledge.settings import ConfidenceSettings
from mechint.statistics import derive_seed, faithful_calibration, holm, wilson
from mechint.statistics.drawn import Drawn
from mechint.statistics.equivalence import smallest_detectable

_ITEMS = ("id", "kind", "cluster", "question", "target", "distractor", "answer", "correct", "chain", "chain_tokens")
_NAMES = {
    "name": "criterion",
    "role": "decides_on",
    "value": "measured",
    "low": "measured_low",
    "high": "measured_high",
    "bar": "threshold",
    "passed": "met",
    "smallest": "smallest_effect",
}
"""The words for gates that stand in other criteria tables too."""
_SHORT = {"is_right": "“this answer is right”", "how_sure": "“how sure”"}
_SAID = {
    **_SHORT,
    "token": "the probability of the answer",
    "sampling": "agreement of samples",
    "probe": "a probe of the hidden state",
    "consistency": "agreement of the blocks",
    "input_only": "question and answer as written",
    "cross": "another model",
}


def summarise(
    raw: Mapping[str, pd.DataFrame], settings: ConfidenceSettings, model: str, seed: int
) -> tuple[dict[str, pd.DataFrame], str, list[str]]:
    """Return tables, verdict and notes."""
    items = _joined(raw)
    tested = items.loc[items["part"] == "test"].reset_index(drop=True)
    y, clusters = tested["correct"].to_numpy(int), tested["cluster"].tolist()
    folds = folds_of(y, clusters, settings.folds, derive_seed(seed, "outer"))
    agreed, layers = agreement(items)
    confidences, covariates = _confidences(tested, agreed.mean(1), folds, settings.inner_folds, seed)
    scores = Scores(confidences, y, clusters, covariates, settings.resamples, seed)
    masses = {name: float(tested[f"{name}_mass"].mean()) for name in REPORTS}
    depth, ranks = against_depth(scores, tested["kind"].tolist(), folds, settings.resamples, seed)
    gates, verdicts = _judged(scores, ranks, masses)
    tables = {
        "confidences": scores.table(masses, settings.bins),
        "criteria": _criteria(gates),
        "gates": gates,
        "verdicts": verdicts,
        "reliability": scores.reliability(settings.bins),
        "risk": scores.risks(),
        "layers": layers,
        "depth": depth,
        "faithfulness": _faithfulness(confidences, settings.bins),
        "votes": votes(tested, confidences["consistency"], settings.samples),
        "kinds": _kinds(tested),
        "answers": _answers(tested, confidences),
    }
    notes = _notes(tested, scores, raw, settings)
    return tables, _verdict(model, y, scores, verdicts), notes


def _joined(raw: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    items = raw["items"].merge(raw["probe"], on="id", how="left", validate="one_to_one")
    if "cross" not in raw:
        return items
    items = items.merge(raw["cross"], on="id", how="left", validate="one_to_one")
    right = items["correct"].to_numpy() == 1
    return items.assign(cross=np.where(right, items["other_right"], 1 - items["other_right"]))


def _confidences(
    tested: pd.DataFrame, ic: Float[np.ndarray, " sample"], folds: Folds, inner_folds: int, seed: int
) -> tuple[dict[str, np.ndarray], Float[np.ndarray, "sample width"]]:
    """Return every confidence of the tested answers, and the covariates."""
    numbers = tested[["n_tokens", "answer_length", "prior", "chain_tokens"]].to_numpy(float)
    texts = [f"{q}{a}" for q, a in zip(tested["question"], tested["answer"], strict=True)]
    y = tested["correct"].to_numpy(int)
    clusters = tested["cluster"].tolist()
    words = input_only(texts, numbers, y, clusters, folds, inner_folds=inner_folds, seed=seed)
    found = {name: tested[name].to_numpy(float) for name in ("is_right", "how_sure", "token", "sampling", "probe")}
    found |= {"consistency": ic, "input_only": words}
    beyond = [numbers, _logit(found["input_only"])]
    if "cross" in tested:
        found["cross"] = tested["cross"].to_numpy(float)
        beyond.append(_logit(found["cross"]))
    return found, np.column_stack(beyond)


def _judged(
    scores: Scores, ranks: Mapping[str, tuple[Drawn, Drawn]], masses: Mapping[str, float]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the gates of both claims of both reports, and the verdicts."""
    readers = {"the probability of the answer": scores.over("token"), "the probe": scores.over("probe")}
    common = criteria.shared(int(scores.y.sum()), len(scores.y), readers)
    numbers = {name: (scores.aurocs[name], scores.over(name), scores.partial(name)) for name in REPORTS}
    bars = (criteria.BAR, criteria.HEADROOM, 0.5)
    p = np.array([[one.p_above(bar) for one, bar in zip(own, bars, strict=True)] for own in numbers.values()])
    corrected = np.stack([holm(column) for column in p.T], axis=1)
    tables, rows = list[pd.DataFrame](), list[dict[str, Any]]()
    for at, (name, own) in enumerate(numbers.items()):
        evidence = Evidence(*own, *ranks[name], masses[name], tuple(map(float, corrected[at])))  # pyright: ignore[reportArgumentType]
        for claim, gates in (
            (criteria.CLAIM, criteria.of_report(evidence, REPORTS[name], common)),
            (criteria.STRONGER, criteria.of_depth(evidence, common)),
        ):
            verdict = judge(f"{claim} ({_SHORT[name]})", gates)
            tables.append(_gates(gates).assign(readout=name, claim=claim))
            rows.append(_row(name, claim, verdict, gates))
    return pd.concat(tables, ignore_index=True), pd.DataFrame(rows)


def _gates(gates: list[Gate]) -> pd.DataFrame:
    frame: Any = gates_table(gates)
    return frame.rename(columns=_NAMES)


def _criteria(gates: pd.DataFrame) -> pd.DataFrame:
    """Return the gates as they fit a page, those of both reports or claims once."""
    said = [_SHORT[name] for name in gates["readout"]]
    columns = ["criterion", "statistic", "measured", "measured_low", "measured_high", "threshold", "met", "alternative"]
    shown: Any = gates[columns].assign(readout=said)
    rows: list[dict[str, Any]] = []
    for _, same in shown.groupby(columns, sort=False, dropna=False):
        row = dict(same.iloc[0])
        row["readout"] = ", ".join(dict.fromkeys(same["readout"]))
        rows.append(row)
    return pd.DataFrame(rows, columns=["criterion", "readout", *columns[1:]])


def _row(name: str, claim: str, verdict: Verdict, gates: list[Gate]) -> dict[str, Any]:
    effect = next(gate for gate in gates if gate.role == "effect")
    return {
        "readout": name, "claim": claim, "verdict": verdict.level, "failed": verdict.failed,
        "smallest_effect": effect.smallest, "equivalence_p": effect.equivalence_p, "sentence": verdict.sentence,
    }  # fmt: skip


def _faithfulness(confidences: Mapping[str, np.ndarray], n_bins: int) -> pd.DataFrame:
    """Return how faithful reports are to the agreement of samples, beside reports that say always the same."""
    intrinsic = confidences["sampling"]
    said = {name: confidences[name] for name in REPORTS}
    said |= {"always 1": np.ones(len(intrinsic)), "always the mean": np.full(len(intrinsic), intrinsic.mean())}
    rows: list[dict[str, Any]] = []
    for name, expressed in said.items():
        one = faithful_calibration(expressed, intrinsic, n_bins)
        rows.append(
            {"readout": name, "mfg": one.mfg, "cmfg": one.cmfg, "empty_bins": one.empty}
            | {"cmfg_star": one.cmfg_star, "cmfg_star_error": one.variance**0.5}
        )
    return pd.DataFrame(rows)


def _kinds(tested: pd.DataFrame) -> pd.DataFrame:
    rows: list[dict[str, Any]] = []
    for kind, own in tested.groupby("kind", sort=False):
        right = own["correct"].to_numpy()
        low, high = wilson(int(right.sum()), len(right))
        row = {"question_kind": kind, "n": len(own), "accuracy": float(right.mean()), "accuracy_low": low}
        means = {f"mean_{name}": own[name].mean() for name in (*REPORTS, "token")}
        rows.append(row | {"accuracy_high": high} | means)
    return pd.DataFrame(rows)


def _answers(tested: pd.DataFrame, confidences: Mapping[str, np.ndarray]) -> pd.DataFrame:
    names = {"kind": "question_kind", "question": "prompt", "answer": "given", "chain": "thought"}
    shown: Any = tested[list(_ITEMS)]
    return shown.rename(columns=names).assign(**confidences)


def _notes(
    tested: pd.DataFrame, scores: Scores, raw: Mapping[str, pd.DataFrame], settings: ConfidenceSettings
) -> list[str]:
    error = scores.aurocs["how_sure"].error
    layers = tested["probe_layer"].value_counts()
    blocks = ", ".join(f"{layer} ({n})" for layer, n in layers.items())
    baseline = "question and answer as written" + (" and another model" if "cross" in raw else "")
    return [
        "Two criteria were made stricter after a first look, at models whose truth is known and at Gemma-3-270m: what "
        "is stated must exceed the baseline by a margin, and go with depth within one kind of question.",
        f"The baseline is {baseline}: what they tell, nobody needs to know the model for. It knows nothing of how hard "
        "a kind of question is but what it learns from other facts of that kind.",
        f"With {len(tested)} answers of {tested['cluster'].nunique()} facts, an AUROC of "
        f"{0.5 + smallest_detectable(error):.3f} would have been told from .5 with 80 % power.",
        f"Both answers together have {tested['answer_mass'].mean():.2f} of the probability on average: which one the "
        "model prefers is known, not that it would have written either.",
        f"Samples are {settings.samples} draws from the probabilities of both answers, so sampling is the probability "
        "of the answer with noise.",
        f"The probe chose these blocks, in training folds only (answers read there): {blocks}.",
    ]


def _verdict(model: str, y: np.ndarray, scores: Scores, verdicts: pd.DataFrame) -> str:
    low, high = wilson(int(y.sum()), len(y))
    told: dict[str, list[str]] = {}
    for name, one in scores.aurocs.items():
        words = f"{_SAID[name]} {one.value:.2f} [{one.ends()[0]:.2f}, {one.ends()[1]:.2f}]"
        told.setdefault(SOURCES[name], []).append(words)
    sentences: dict[str, list[str]] = {}
    for row in verdicts.loc[verdicts["claim"] == criteria.CLAIM].to_dict(orient="records"):
        said = _SHORT[str(row["readout"])]
        # Reports that fail at one gate, which is shared, are told of once.
        sentences.setdefault(str(row["sentence"]).replace(f" ({said})", ""), []).append(said)
    depth = "; ".join(
        f"{_SHORT[str(row['readout'])]}: {row['verdict']}" + (f" (failed: {row['failed']})" if row["failed"] else "")
        for row in verdicts.loc[verdicts["claim"] == criteria.STRONGER].to_dict(orient="records")
    )
    return "\n".join(
        [
            f"{model} gives the right one of two answers to {100 * y.mean():.0f} % [{100 * low:.0f}, {100 * high:.0f}] "
            f"of {len(y)} questions.",
            "How well confidences tell right from wrong answers (AUROC, .5 is chance). "
            + " ".join(f"{source[0].upper()}{source[1:]}: {', '.join(words)}." for source, words in told.items()),
            *(f"What it states ({' and '.join(said)}). {sentence}" for sentence, said in sentences.items()),
            f"Whether it {criteria.STRONGER}? {depth}.",
        ]
    )


def _logit(p: Float[np.ndarray, " sample"]) -> Float[np.ndarray, " sample"]:
    return np.log(np.clip(p, 1e-6, None)) - np.log(np.clip(1 - p, 1e-6, None))
