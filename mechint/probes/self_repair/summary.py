"""From rows a component, draw and token to tables of components and layers, with intervals and tests.

Ratios of self-repair to the direct effect come in four forms, each under its own name, because they differ a lot:

    repair_ratio_of_means      mean of SR / mean of DE, over tokens (and the heads of a layer)
    repair_mean_over_heads     mean over the heads of a layer of each head's ratio of means
    repair_mean_of_ratios      mean over tokens of SR_i / DE_i
    repair_clipped             mean over tokens of SR_i / DE_i cut to 0 to 1

Rushing & Nanda 2024, "Explorations of Self-Repair in Language Models", section 3.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from mechint.probes.self_repair.averages import (
    CHANCE,
    CONDENSED,
    FULL,
    MEASURES,
    PARTS,
    Chosen,
    Measured,
    averages,
)
from mechint.probes.self_repair.criteria import judge
from mechint.probes.self_repair.resampling import cluster_sums, difference_of_ratios, mean_of_ratios, slope
from mechint.statistics import bootstrap_mean, bootstrap_ratio, holm, sign_flip_test

_LOGITS = [name for name in MEASURES if name != "norm_ratio"]

Clusters = Mapping[int, int]
"""From the number of a document to that of its cluster."""


def estimates(chosen: Chosen, clusters: Clusters, seed: int) -> dict[str, float]:
    """Return means, ratios and their intervals over some tokens, by column."""
    own = [clusters[int(document)] for document in chosen.document]
    columns: dict[str, np.ndarray] = {name: chosen.values[name] for name in _LOGITS}
    columns |= {"repair_mean_of_ratios": chosen.ratio(), "repair_clipped": chosen.clipped_ratio()}
    columns |= {f"{part}_clipped": chosen.clipped_ratio(part) for part in PARTS}
    mean, low, high = bootstrap_mean(np.stack(list(columns.values()), axis=1), own, seed=seed)
    found = {
        f"{name}{end}": float(values[i])
        for i, name in enumerate(columns)
        for end, values in (("", mean), ("_low", low), ("_high", high))
    }
    above, below = chosen.values["self_repair"][:, None], chosen.values["direct_effect"][:, None]
    for end, values in zip(("", "_low", "_high"), _ratio(above, below, own, seed), strict=True):
        found[f"repair_ratio_of_means{end}"] = float(values[0])
    return found


def _ratio(
    above: np.ndarray, below: np.ndarray, own: Sequence[int], seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return a ratio of means; NaN where the direct effect is 0 everywhere, as it is of a head that does nothing."""
    if not below.any():
        nothing = np.full(below.shape[1], np.nan)
        return nothing, nothing, nothing
    return bootstrap_ratio(above, below, own, seed=seed)


def condensed_table(found: Mapping[str, dict[str, Chosen]], about: pd.DataFrame, clusters: Clusters, seed: int) -> Any:
    """Return one row a component and average."""
    rows = [
        {"label": label, "average": average, "n_tokens": len(chosen.document)}
        | {"n_documents": len(np.unique(chosen.document))}
        | {"n_clusters": len({clusters[int(document)] for document in chosen.document})}
        | estimates(chosen, clusters, seed)
        for label, by_average in found.items()
        for average, chosen in by_average.items()
    ]
    return about.merge(pd.DataFrame(rows), on="label")


def components_table(
    found: Mapping[str, dict[str, Chosen]], averaged: pd.DataFrame, about: pd.DataFrame, clusters: Clusters, seed: int
) -> pd.DataFrame:
    """Return one row a component: means over all tokens, condensed numbers beside them, and which criteria it meets.

    Args:
        found: tokens by component and average.
        averaged: what `condensed_table` made of them.
        about: `label`, `part`, `layer`, `head` and `depth` of each component.
        clusters: the cluster of each document.
        seed: of the draws.
    """
    by_average = {str(name): rows.set_index("label") for name, rows in averaged.groupby("average")}
    full, condensed = by_average[FULL], by_average[CONDENSED]
    table = about.set_index("label")
    ends = ("", "_low", "_high")
    for name in ("n_tokens", "n_documents", *(f"{name}{end}" for name in _LOGITS for end in ends)):
        table[name] = full[name]
    table["n_condensed"], table["n_clusters"] = condensed["n_tokens"], condensed["n_clusters"]
    kept = {"direct_effect": "condensed_direct_effect", "self_repair": "condensed_self_repair"}
    for name, new in (kept | {"repair_ratio_of_means": "condensed_ratio"}).items():
        for end in ends:
            table[f"{new}{end}"] = condensed[f"{name}{end}"]
    # Holm multiplies the smallest p by the number of components, so the draws must grow with it.
    resamples = max(10_000, 200 * len(found))
    tests = [_p(by_name[CONDENSED], clusters, resamples, seed) for by_name in found.values()]
    table["condensed_self_repair_p"] = pd.Series(holm(np.array(tests)), index=pd.Index(found))
    for end in ends:
        table[f"chance_ratio{end}"] = (
            by_average[CHANCE][f"repair_ratio_of_means{end}"] if CHANCE in by_average else np.nan
        )
    excess = pd.DataFrame({label: _excess(by_name, clusters, seed) for label, by_name in found.items()}).T
    table[[f"ratio_excess{end}" for end in ends]] = excess
    return judge(table.reset_index())


def _p(chosen: Chosen, clusters: Clusters, n_resamples: int, seed: int) -> float:
    """Return p of "the condensed self-repair is not above 0"."""
    own = [clusters[int(document)] for document in chosen.document]
    values = chosen.values["self_repair"][:, None]
    return float(sign_flip_test(values, own, alternative="greater", n_resamples=n_resamples, seed=seed)[0])


def _excess(by_name: dict[str, Chosen], clusters: Clusters, seed: int) -> tuple[float, float, float]:
    if CHANCE not in by_name:
        return float("nan"), float("nan"), float("nan")
    pair = [by_name[CONDENSED], by_name[CHANCE]]
    above, below = (cluster_sums(pair, clusters, name) for name in ("self_repair", "direct_effect"))
    return difference_of_ratios(above, below, seed)


def layers_table(found: Mapping[str, dict[str, Chosen]], about: pd.DataFrame, clusters: Clusters, seed: int) -> Any:
    """Return one row a layer, kind of component and average: means over its components, and both ratios."""
    rows: list[dict[str, Any]] = []
    for _, members in about.groupby(["layer", "part"]):
        layer, part = int(members["layer"].iloc[0]), str(members["part"].iloc[0])
        labels = [str(label) for label in members["label"]]
        for average in found[labels[0]]:
            own = [found[label][average] for label in labels]
            joined = Chosen(
                np.concatenate([one.document for one in own]),
                {name: np.concatenate([one.values[name] for one in own]) for name in MEASURES},
            )
            above, below = (cluster_sums(own, clusters, name) for name in ("self_repair", "direct_effect"))
            value, low, high = mean_of_ratios(above, below, seed)
            rows.append(
                {"layer": layer, "part": part, "average": average, "depth": members["depth"].iloc[0]}
                | {"n_components": len(labels), "n_tokens": len(joined.document)}
                | estimates(joined, clusters, seed)
                | {"repair_mean_over_heads": value, "repair_mean_over_heads_low": low}
                | {"repair_mean_over_heads_high": high}
            )
    return pd.DataFrame(rows)


def compensation_table(components: Sequence[Measured], clusters: Clusters, seed: int) -> pd.DataFrame:
    """Regress the total effect of ablating MLPs and blocks on their direct effect, over all tokens.

    TE = -(logit change), DE = direct effect, with the clean final scale; CE = DE - TE is compensated. A slope of 1
    means that nothing is; below 1, that a part of the direct effect is. McGrath et al. 2023, "The Hydra Effect".
    """
    rows: list[dict[str, Any]] = []
    for one in components:
        if one.part == "head":
            continue
        direct, total = one.values["direct_effect"].mean(1), -one.values["logit_change"].mean(1)
        own = np.unique([clusters[int(document)] for document in one.document], return_inverse=True)[1]
        (value, low, high), intercept, fit = slope(direct, total, own, seed)
        rows.append(
            {"label": one.label, "part": one.part, "layer": one.layer, "slope": value, "slope_low": low}
            | {"slope_high": high, "intercept": intercept, "r_squared": fit, "n_tokens": len(direct)}
            | {"total_effect": float(total.mean()), "compensation": float((direct - total).mean())}
        )
    return pd.DataFrame(rows)


def chosen_tokens(components: Sequence[Measured], share: float) -> dict[str, dict[str, Chosen]]:
    """Return the tokens of every average, by component."""
    return {one.label: averages(one, share) for one in components}


def about_components(components: Sequence[Measured], n_layers: int) -> pd.DataFrame:
    """Name the components: `label`, `part`, `layer`, `head`, and `depth` from 0 (first block) to 1 (last)."""
    return pd.DataFrame(
        [
            {"label": one.label, "part": one.part, "layer": one.layer, "head": one.head}
            | {"depth": one.layer / max(1, n_layers - 1)}
            for one in components
        ]
    )
