"""From judged texts to tables, a verdict and notes.

accuracy   share of right final answers, with Wilson's 95 % interval; a text that does not come to an end is wrong
effect     accuracy(alpha) - accuracy(0), paired by problem, bootstrapped over problems
p          (1 + random directions with |effect| at least as large) / (1 + random directions)
"""

from collections.abc import Mapping
from typing import Any, cast

import numpy as np
import pandas as pd

from mechint.probes.critique_pipeline.judge import CORRECT, INCORRECT, OUT_OF_TOKENS, VERDICTS
from mechint.probes.critique_pipeline.recoveries import FORCED, Found
from mechint.probes.critique_pipeline.settings import PipelineSettings
from mechint.prompts.reasoning import NO_MISTAKE, f1_locate
from mechint.statistics import draws_p, estimate_mean, mcnemar_p, wilson

VECTOR, RANDOM = "vector", "random"
LEVEL = 0.05


def best_layer(effects: pd.DataFrame) -> int:
    """Return the layer with the largest accuracy(+1) - accuracy(-1); the first of equals."""
    table = layer_effects(effects)
    return int(table["layer"].iloc[int(table["layer_effect"].to_numpy().argmax())])


def layer_effects(effects: pd.DataFrame) -> pd.DataFrame:
    """Return `layer` and `layer_effect`, with its interval, paired by problem."""
    rows: list[dict[str, Any]] = []
    for layer, own in _groups(effects, "layer"):
        up, down = (_right(_where(own, alpha=alpha)) for alpha in (1.0, -1.0))
        value, low, high = _paired(up, down, own)
        rows.append({"layer": layer, "layer_effect": value, "layer_effect_low": low, "layer_effect_high": high})
    return pd.DataFrame(rows)


def tables(
    raw: Mapping[str, pd.DataFrame], s: PipelineSettings, steered: int | None, seed: int
) -> dict[str, pd.DataFrame]:
    """Return every table for which there are rows, the outcomes of the runs first."""
    texts = raw["runs"].drop(columns=["tokens"])
    found = {"outcomes": outcomes(texts), "crossed": crossed(texts)}
    if "vectors" in raw:
        layers = raw["vectors"]
        if "layer_effect" in raw:
            layers = layers.merge(layer_effects(raw["layer_effect"]), on="layer", how="left")
        found["layers"] = layers.assign(chosen=layers["layer"] == steered)
        found |= {name: raw[name] for name in ("surface", "lens")}
    if "steering" in raw:
        found |= {"steering": steering(raw["steering"], seed), "tests": tests(raw["steering"], s.original)}
    if "damage" in raw and len(raw["damage"]):
        found["damage"] = raw["damage"]
    if "detection" in raw:
        found["detection"] = detection(raw["detection"], seed)
    if "scaling" in raw:
        found["scaling"] = scaling(raw["scaling"])
    return {**found, "stages": stages(raw, s), "texts": texts}


def outcomes(texts: pd.DataFrame) -> pd.DataFrame:
    """Return, for each run and subset, how often thinking and answer were what; shares of all texts."""
    rows: list[dict[str, Any]] = []
    for (run, subset), own in _groups(texts, "run", "subset"):
        thinking, final = own["thinking"], own["final"]
        row: dict[str, Any] = {"run": run, "subset": subset, "n": len(own)}
        row |= _share("answer_right", final == CORRECT)
        row |= _share("hidden", (thinking == INCORRECT) & (final == CORRECT))
        row |= _share("corrected", (thinking == CORRECT) & (final == CORRECT))
        row |= _share("out_of_tokens", final == OUT_OF_TOKENS)
        rows.append(row | {"thinking_tokens": float(own["thinking_tokens"].mean())})
    return pd.DataFrame(rows)


def crossed(texts: pd.DataFrame) -> pd.DataFrame:
    """Return how many texts of each run have which judgement of thinking and of final answer."""
    rows = [
        {"run": run, "thinking": thinking, "final": final,
         "n": int(((own["thinking"] == thinking) & (own["final"] == final)).sum())}
        for run, own in _groups(texts, "run") for thinking in VERDICTS for final in VERDICTS
    ]  # fmt: skip
    return pd.DataFrame(rows)


def steering(raw: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Return accuracy and its change from dose 0, for each run, arm and dose; draws of random directions together."""
    rows: list[dict[str, Any]] = []
    for (run, arm, alpha), own in _groups(raw, "run", "arm", "alpha"):
        clean = _right(_where(raw, run=run, arm=VECTOR, alpha=0.0))
        row: dict[str, Any] = {"run": run, "arm": arm, "alpha": alpha, "draws": int(own["draw"].nunique())}
        if arm == VECTOR:
            row |= _share("answer_right", own["final"] == CORRECT)
            value, low, high = _paired(_right(own), clean, own, seed)
        else:  # the middle 95 % of the draws
            drawn = np.array([float(_right(one).mean() - clean.mean()) for _, one in _groups(own, "draw")])
            row["answer_right"] = float((own["final"] == CORRECT).mean())
            value, low, high = float(drawn.mean()), *map(float, np.quantile(drawn, [0.025, 0.975]))
        row |= {"change_right": value, "change_right_low": low, "change_right_high": high}
        if arm == VECTOR and alpha:
            row |= _flips(_right(own), clean)
        rows.append(row | {"out_of_tokens": float((own["final"] == OUT_OF_TOKENS).mean())})
    return pd.DataFrame(rows)


def tests(raw: pd.DataFrame, original: str) -> pd.DataFrame:
    """Compare the vector with random directions of its length, at the largest doses: error minus original, and each."""
    rows: list[dict[str, Any]] = []
    random = _where(raw, arm=RANDOM)
    for alpha in dict.fromkeys(random["alpha"].tolist()):
        drawn = [_effects(_where(random, alpha=alpha, draw=draw), raw, original) for draw in random["draw"].unique()]
        own = _effects(_where(raw, arm=VECTOR, alpha=alpha), raw, original)
        for what, value in own.items():
            nulls = np.array([one[what] for one in drawn])
            # A hair of tolerance: equal shares may differ in their last digit.
            p = draws_p(abs(value) - 1e-12, np.abs(nulls))
            rows.append({"alpha": alpha, "contrast": what, "change_right": value, "mean": float(nulls.mean()), "p": p})
    return pd.DataFrame(rows, columns=["alpha", "contrast", "change_right", "mean", "p"])


def detection(raw: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Return acc1, acc2 and F1 for each file and dose; no F1 where too few solutions are without a mistake."""
    rows: list[dict[str, Any]] = []
    for (file, alpha), own in _groups(raw, "file", "alpha"):
        said = [None if np.isnan(one) else int(one) for one in own["said"].to_numpy(dtype=float)]
        truth = [None if np.isnan(one) else int(one) for one in own["mistake"].to_numpy(dtype=float)]
        score = f1_locate(said, truth, own["group"].tolist(), seed=seed)
        row: dict[str, Any] = {"file": file, "alpha": alpha, "n": len(own), "unanswered": score.unanswered}
        row["n_without"] = sum(one in (None, NO_MISTAKE) for one in truth)
        for name, one in (("acc1", score.acc1), ("acc2", score.acc2), ("f1", score.f1)):
            value, low, high = (np.nan, np.nan, np.nan) if one is None else (one.value, one.low, one.high)
            row |= {name: value, f"{name}_low": low, f"{name}_high": high}
        rows.append(row)
    return pd.DataFrame(rows)


def scaling(raw: pd.DataFrame) -> pd.DataFrame:
    """Return accuracy and thinking tokens for each dose and stack."""
    rows: list[dict[str, Any]] = []
    for (alpha, stack), own in _groups(raw, "alpha", "stack"):
        row: dict[str, Any] = {"alpha": alpha, "stack": stack, "n": len(own)}
        row |= _share("answer_right", own["final"] == CORRECT) | _share("thinking_right", own["thinking"] == CORRECT)
        row["closed_by_force"] = float(own["closed_by_force"].mean())
        rows.append(row | {"thinking_tokens": float(own["thinking_tokens"].mean())})
    return pd.DataFrame(rows)


def stages(raw: Mapping[str, pd.DataFrame], s: PipelineSettings) -> pd.DataFrame:
    """Return which stages ran, on how many rows, and why one did not."""
    why: dict[str, str] = dict.fromkeys(
        ("vectors", "lens", "surface", "layer_effect", "steering", "damage", "scaling"), "no vector"
    )
    if "vectors" in raw:
        why |= {"layer_effect": f"layer = {s.layer} is given", "damage": "the neutral texts are foreign to the model"}
    why["detection"] = "no vector" if s.bbm + s.processbench else "no files are given"
    done = {name: len(raw[name]) if name in raw else 0 for name in ("runs", *why)}
    rows = [(name, count, "" if count else why.get(name, "")) for name, count in done.items()]
    return pd.DataFrame(rows, columns=["stage", "n", "problem"])


def verdict(found: Mapping[str, pd.DataFrame], pairs: Found, s: PipelineSettings, steered: int | None) -> str:
    """Say what was found, or that there is no vector."""
    own = _where(found["outcomes"], run="injected", subset="train").iloc[0]
    said = [f"After an injected error {own['hidden']:.1%} of {own['n']} problems are answered rightly although the "
            f"thinking is wrong ({pairs.recoveries} pairs with a right original)."]  # fmt: skip
    if pairs.answers is None:
        neither = ", and so few teacher-forced ones fit and differ" if s.teacher_forced else ""
        said.append(f"{pairs.recoveries} pairs: no vector (at least {s.fewest_pairs} are needed{neither}).")
        return " ".join(said)
    layers, surface = found["layers"], found["surface"]
    best = layers.iloc[int(layers["probe_auroc"].to_numpy().argmax())]
    words = surface.iloc[int(surface["probe_auroc"].to_numpy().argmax())]
    said.append(
        f"Vector from {len(pairs.answers)} {pairs.source}. Held out, a probe tells its sides apart with an AUROC of at "
        f"most {best['probe_auroc']:.3f} (L{best['layer']}); from the {words['surface']} of the "
        f"answers alone one reaches {words['probe_auroc']:.3f}."
    )
    tested = _where(found["tests"], contrast="difference")
    for row in tested[tested["alpha"] > 0].to_dict("records"):
        beyond = "beyond" if row["p"] < LEVEL else "not beyond"
        said.append(
            f"Steering L{steered} by {row['alpha']:+g} changes accuracy after an error, minus that without, by "
            f"{100 * row['change_right']:+.1f} points: {beyond} random directions (p = {row['p']:.2g})."
        )
    return " ".join(said)


def notes(raw: Mapping[str, pd.DataFrame], s: PipelineSettings, pairs: Found) -> list[str]:
    """Return what a reader must know."""
    said = [f"Judge: {s.judge}, by rule; a text without an end of its thinking counts as wrong."]
    if pairs.source == FORCED:
        said.append(
            f"Only {pairs.recoveries} hidden recoveries: the vector is from the right answer written behind both "
            "solutions, which is not the paper's contrast. What follows shows that the stages run."
        )
    waiting = stages(raw, s)
    idle = [f"{name} ({why})" for name, why in zip(waiting["stage"], waiting["problem"], strict=True) if why]
    return [*said, f"Not run: {', '.join(idle)}."] if idle else said


def _effects(own: pd.DataFrame, raw: pd.DataFrame, original: str) -> dict[str, float]:
    """Return the change of accuracy after an error, without one, and their difference."""
    found: dict[str, float] = {}
    for what, run in (("error", "injected"), ("original", original)):
        clean = _right(_where(raw, run=run, arm=VECTOR, alpha=0.0))
        found[what] = float(_right(_where(own, run=run)).mean() - clean.mean())
    return {"difference": found["error"] - found["original"], **found}


def _right(rows: Any) -> Any:
    return (rows["final"] == CORRECT).astype(float).set_axis(rows["id"])


def _paired(a: Any, b: Any, rows: Any, seed: int = 0) -> tuple[float, float, float]:
    ids = list(dict.fromkeys(rows["id"]))
    groups = rows.drop_duplicates("id").set_index("id")["group"].loc[ids].tolist()
    change = np.array([float(a[one]) - float(b[one]) for one in ids])
    found = estimate_mean(change, groups, seed=seed)
    return found.value, found.low, found.high


def _flips(after: Any, before: Any) -> dict[str, float]:
    now, then = (right.loc[before.index].to_numpy() == 1 for right in (after, before))
    return {"put_right": int((now & ~then).sum()), "put_wrong": int((then & ~now).sum()),
            "mcnemar_exact": mcnemar_p(now, then)}  # fmt: skip


def _share(name: str, hits: Any) -> dict[str, float]:
    count, n = int(hits.sum()), len(hits)
    low, high = wilson(count, n)
    return {name: count / n if n else float("nan"), f"{name}_low": low, f"{name}_high": high}


def _where(frame: Any, **values: Any) -> Any:
    chosen = pd.Series(True, index=frame.index)
    for column, value in values.items():
        chosen &= frame[column] == value
    return frame[chosen]


def _groups(frame: Any, *columns: str) -> list[tuple[Any, Any]]:
    by: Any = list(columns) if columns[1:] else columns[0]
    return cast(Any, list(frame.groupby(by, sort=False)))
