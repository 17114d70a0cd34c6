"""From sums of each document to heads with intervals: over-confidence, calibration error, entropy changes."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from mechint.effects.calibration import (
    CLEAN,
    CONTROL,
    DIFFERENCE,
    HEAD,
    MARGINAL,
    expected_calibration_error,
    overconfidence,
)
from mechint.sites import head_label
from mechint.statistics import bootstrap_mean, generator, holm, sign_flip_test, wilson

LEAST_CLUSTERS, LEVEL = 8, 0.05
_DRAWS = 1000
_KEYS = ["output", "layer", "head"]


class Counts:
    """Binned predictions of every output, by cluster of documents, and draws of clusters.

    Args:
        rows: as `calibration_sums` gives them.
        counted: `BINNED` or `BINNED_FIRST`.
        n_bins: how many bins they were put into.
        clusters: the cluster of each document id.
        seed: of the draws.
    """

    def __init__(self, rows: pd.DataFrame, counted: str, n_bins: int, clusters: Mapping[str, str], seed: int) -> None:
        mine: Any = rows[rows["counted"] == counted]
        self.names = sorted(set(clusters.values()))
        cluster = mine["id"].map(clusters).map({name: i for i, name in enumerate(self.names)})
        sums = mine.assign(cluster=cluster).groupby([*_KEYS, "cluster", "bin"])[["n", "correct", "total"]].sum()
        self._sums = {key: _dense(own, len(self.names), n_bins) for key, own in sums.groupby(level=_KEYS)}
        drawn = generator(seed, "calibration").multinomial(
            len(self.names), np.full(len(self.names), 1 / len(self.names)), size=_DRAWS
        )
        self._weights = np.concatenate([np.ones((1, len(self.names))), drawn])

    def drawn(self, output: str, layer: int, head: int) -> Float[np.ndarray, "3 resample column"]:
        """Return predictions, hits and summed probabilities of every bin: first as observed, then of every draw."""
        return np.einsum("kcb,rc->krb", self._sums[output, layer, head], self._weights)


def _dense(sums: pd.DataFrame, n_clusters: int, n_bins: int) -> Float[np.ndarray, "3 cluster column"]:
    table = np.zeros((3, n_clusters, n_bins))
    cluster, where = sums.index.get_level_values("cluster"), sums.index.get_level_values("bin")
    table[:, cluster, where] = sums[["n", "correct", "total"]].to_numpy(dtype=float).T
    return table


def _ends(draws: Float[np.ndarray, " resample"], n_clusters: int) -> tuple[float, float, float]:
    """Return the observed value and the percentile interval of the draws behind it."""
    if n_clusters < 2 or np.isnan(draws[1:]).all():
        return float(draws[0]), np.nan, np.nan
    low, high = np.nanquantile(draws[1:], [LEVEL / 2, 1 - LEVEL / 2])
    return float(draws[0]), float(low), float(high)


def clean_table(top: Counts, first: Counts, rows: pd.DataFrame) -> pd.DataFrame:
    """Return what the model's own predictions are worth, one row."""
    n, correct, _ = top.drawn(CLEAN, -1, -1)
    over = _ends(overconfidence(n, correct), len(top.names))
    error = _ends(expected_calibration_error(*first.drawn(CLEAN, -1, -1)), len(top.names))
    about: dict[str, Any] = {"n_documents": rows["id"].nunique(), "n_clusters": len(top.names)}
    about |= {"n_predictions": int(n[0].sum()), "n_positions": int(first.drawn(CLEAN, -1, -1)[0, 0].sum())}
    return pd.DataFrame([about | _named("overconfidence", over) | _named("calibration_error", error)])


def _named(name: str, ends: Sequence[float]) -> dict[str, float]:
    return dict(zip((name, f"{name}_low", f"{name}_high"), ends, strict=True))


def heads_table(rows: pd.DataFrame, top: Counts, first: Counts, clusters: Mapping[str, str], seed: int) -> pd.DataFrame:
    """Return one row a head: the intact model's numbers minus those without the head, beside a random direction."""
    mine: Any = rows[rows["output"] == HEAD][["layer", "head"]]
    heads = mine.drop_duplicates().sort_values(["layer", "head"])
    n, correct, _ = top.drawn(CLEAN, -1, -1)
    clean, clean_error = overconfidence(n, correct), expected_calibration_error(*first.drawn(CLEAN, -1, -1))
    # A ratio to a number that may be 0 says nothing (Fieller 1954).
    unclear = bool((clean[1:] * np.sign(clean[0]) <= 0).mean() > LEVEL / 2)
    told: list[dict[str, Any]] = []
    for layer, head in heads.itertuples(index=False):
        line: dict[str, Any] = {"layer": layer, "head": head, "label": head_label(layer, head)}
        for output, end in ((HEAD, ""), (CONTROL, "_control")):
            n, correct, _ = top.drawn(output, layer, head)
            ablated = overconfidence(n, correct)
            share = np.full_like(ablated, np.nan) if unclear else 1 - ablated / clean
            error = clean_error - expected_calibration_error(*first.drawn(output, layer, head))
            line |= _named(f"overconfidence_added{end}", _ends(clean - ablated, len(top.names)))
            line |= _named(f"overconfidence_marginal{end}", _ends(share, len(top.names)))
            line |= _named(f"calibration_error_added{end}", _ends(error, len(top.names)))
        told.append(line)
    table = pd.DataFrame(told)
    for name in (MARGINAL, DIFFERENCE):
        _add_entropy(table, rows, name, clusters, seed)
    return judge(table, len(top.names))


def _add_entropy(table: pd.DataFrame, rows: pd.DataFrame, name: str, clusters: Mapping[str, str], seed: int) -> None:
    mine: Any = rows[rows["counted"] == name]
    wide = mine.assign(mean=mine["total"] / mine["n"]).pivot(index="id", columns=_KEYS, values="mean").sort_index()
    own, labels = [clusters[str(i)] for i in wide.index], list(zip(table["layer"], table["head"], strict=True))
    head, control = (wide[output].reindex(columns=pd.MultiIndex.from_tuples(labels)) for output in (HEAD, CONTROL))
    arrays = {"": head.to_numpy(dtype=float), "_control": control.to_numpy(dtype=float)}
    arrays["_excess"] = arrays[""] - arrays["_control"]
    for end, array in arrays.items():
        for part, values in zip(("", "_low", "_high"), bootstrap_mean(array, own, seed=seed), strict=True):
            table[f"{name}{end}{part}"] = values
    # Holm multiplies the smallest p by the number of heads, so the draws must grow with it.
    p = sign_flip_test(arrays["_excess"], own, n_resamples=max(10_000, 200 * len(table)), seed=seed)
    table[f"{name}_excess_p"] = holm(p)


def clusters_needed(n_heads: int) -> int:
    """Return how many clusters the sign-flip test needs to find one head of so many, corrected for all of them.

    With C clusters no two-sided p is below 2 / 2^C.

    Examples:
        >>> clusters_needed(8), clusters_needed(72)
        (9, 12)
    """
    return max(LEAST_CLUSTERS, int(np.floor(np.log2(2 * n_heads / LEVEL))) + 1)


def judge(heads: pd.DataFrame, n_clusters: int) -> pd.DataFrame:
    """Add `tempers` and `sharpens`: whether a head makes the model less, or more, certain, and over-confident.

    Fixed before any model was looked at. A head tempers if there are at least `LEAST_CLUSTERS` clusters of documents,
    its entropy_marginal is above 0 and differs from that of a random direction beyond chance (p < `LEVEL`, Holm over
    all heads), and it takes away over-confidence (95 % interval below 0). It sharpens if both have the other sign.
    """
    beyond = (heads[f"{MARGINAL}_excess_p"] < LEVEL) & (n_clusters >= LEAST_CLUSTERS)
    tempers = beyond & (heads[MARGINAL] > 0) & (heads["overconfidence_added_high"] < 0)
    sharpens = beyond & (heads[MARGINAL] < 0) & (heads["overconfidence_added_low"] > 0)
    return heads.assign(tempers=tempers, sharpens=sharpens)


def reliability_table(first: Counts, heads: pd.DataFrame, count: int) -> pd.DataFrame:
    """Return accuracy by probability of the likeliest token: of the model, and without the heads that matter most."""
    order = np.argsort(-heads["overconfidence_added"].abs().to_numpy(dtype=float), kind="stable")[:count]
    outputs: list[tuple[str, str, int, int]] = [("all heads intact", CLEAN, -1, -1)]
    outputs += [(f"{r['label']} ablated", HEAD, r["layer"], r["head"]) for _, r in heads.iloc[order].iterrows()]
    told: list[dict[str, Any]] = []
    for name, output, layer, head in outputs:
        n, correct, total = first.drawn(output, layer, head)[:, 0]
        for bin_ in np.flatnonzero(n):
            low, high = wilson(int(correct[bin_]), int(n[bin_]))
            told.append(
                {"predictions_of": name, "bin": int(bin_), "n_predictions": int(n[bin_])}
                | {"confidence": float(total[bin_] / n[bin_])}
                | _named("accuracy", (float(correct[bin_] / n[bin_]), low, high))
            )
    return pd.DataFrame(told)


def verdict(model: str, clean: pd.DataFrame, heads: pd.DataFrame) -> str:
    """Say in plain words how calibrated the model is on this text, and which heads keep it so."""
    told = clean.iloc[0]
    n_clusters, needed = int(told["n_clusters"]), clusters_needed(len(heads))
    sentences = [
        f"On {int(told['n_positions'])} positions of {int(told['n_documents'])} documents, {model} has an "
        f"over-confidence of {_interval(told, 'overconfidence')} (0: calibrated) and an expected calibration error of "
        f"{_interval(told, 'calibration_error')}."
    ]
    if n_clusters < needed:
        return (
            f"{sentences[0]} Nothing can be said about its single heads: the documents come in {n_clusters} clusters, "
            f"and at least {needed} are needed to tell one of {len(heads)} heads from chance."
        )
    for flag, how, sign in (
        ("tempers", "less certain and less over-confident", -1),
        ("sharpens", "more certain and more over-confident", 1),
    ):
        found: Any = heads[heads[flag]]
        found = found.assign(size=sign * found[MARGINAL]).sort_values("size")
        if found.empty:
            sentences.append(f"No head makes it {how} beyond a random direction of the same size.")
            continue
        first = found.iloc[0]
        count = f"{len(found)} of {len(heads)} heads {'makes' if len(found) == 1 else 'make'} it {how}"
        sentences.append(
            f"{count}; most so {first['label']}: the mean entropy without it differs by "
            f"{_interval(first, MARGINAL, -1)} nats, over-confidence by {_interval(first, 'overconfidence_added', -1)}."
        )
    return " ".join(sentences)


def _interval(row: Any, name: str, sign: int = 1) -> str:
    ends = [sign * float(row[f"{name}{end}"]) for end in ("", "_low", "_high")]
    value, low, high = ends[0], min(ends[1:]), max(ends[1:])
    return f"{value + 0.0:.4f} [{low + 0.0:.4f}, {high + 0.0:.4f}]"
