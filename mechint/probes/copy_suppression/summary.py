"""From rows a prompt and head to a table of heads with intervals, tests and a verdict in words."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from mechint.model.model_facts import ModelFacts
from mechint.probes.copy_suppression.criteria import LEAST_PROMPTS, OV_CRITERION, judge
from mechint.probes.copy_suppression.words import interval, listed, number
from mechint.sites import head_label
from mechint.statistics import bootstrap_mean, bootstrap_median, holm, sign_flip_test, wilson

# Means over prompts with an interval; True where a two-sided test goes with it, as a string where one-sided.
_MEANS: dict[str, str | None] = {
    "cs_score": "greater",
    "cs_control": None,
    "cs_excess": "greater",
    "cs_over_layer": "greater",
    "attention": None,
    "direct_effect_target": "two-sided",
    "direct_effect_difference": "two-sided",
    "ablation_effect": "two-sided",
    "ablation_effect_target": "two-sided",
    "self_repair": "two-sided",
}
BOTTOM = 0.05
"""Share of the vocabulary that counts as its bottom in the static OV circuit."""


def heads_table(
    facts: ModelFacts, raw: Mapping[str, pd.DataFrame], clusters: Mapping[str, str], seed: int
) -> pd.DataFrame:
    """Summarise everything that was measured, one row a head."""
    heads = pd.MultiIndex.from_product([range(facts.n_layers), range(facts.n_heads)], names=["layer", "head"])
    table = pd.DataFrame(index=heads)
    table["label"] = [head_label(layer, head) for layer, head in heads]
    wide = _with_derived(_wide(raw["edges"], heads) | _wide(raw["ablation"], heads), facts)
    table["n_prompts"] = len(wide["cs_score"])
    table["n_with_target"] = wide["cs_score"].notna().sum().astype(int)
    for name, alternative in _MEANS.items():
        _add_mean(table, name, wide[name], clusters, alternative, seed)
    induction = _wide(raw["induction"], heads)["anti_induction_score"]
    _add_mean(table, "anti_induction_score", induction, None, "two-sided", seed)
    _add_ov(table, raw["ov"], facts, seed)
    for constant in ("ablation", "metric"):
        table[constant] = raw["ablation"][constant].iloc[0]
    table["d_vocab"] = facts.d_vocab
    return judge(table.reset_index())


def _wide(rows: pd.DataFrame, heads: pd.MultiIndex) -> dict[str, pd.DataFrame]:
    """Turn rows a prompt and head into one table [prompt, head] a measure."""
    measures = [c for c in rows.columns if c not in ("id", "layer", "head", "ablation", "metric")]
    pivot: Any = rows.pivot(index="id", columns=["layer", "head"], values=measures)
    return {name: pivot[name].reindex(columns=heads) for name in measures}


def _with_derived(wide: dict[str, pd.DataFrame], facts: ModelFacts) -> dict[str, pd.DataFrame]:
    score = wide["cs_score"]
    by_layer = score.T.groupby(level="layer").transform("sum").T
    others = (by_layer - score) / (facts.n_heads - 1) if facts.n_heads > 1 else score * np.nan
    return wide | {"cs_excess": score - wide["cs_control"], "cs_over_layer": score - others}


def _add_mean(
    table: pd.DataFrame,
    name: str,
    values: pd.DataFrame,
    clusters: Mapping[str, str] | None,
    alternative: str | None,
    seed: int,
) -> None:
    array = values.to_numpy(dtype=float)
    labels = [str(i) if clusters is None else clusters[str(i)] for i in values.index]
    mean, low, high = bootstrap_mean(array, labels, seed=seed)
    table[name], table[f"{name}_low"], table[f"{name}_high"] = mean, low, high
    if alternative in ("greater", "less", "two-sided"):
        # Holm multiplies the smallest p by the number of heads, so the draws must grow with it.
        draws = max(10_000, 200 * array.shape[1])
        p = sign_flip_test(array, labels, alternative=alternative, n_resamples=draws, seed=seed)
        table[f"{name}_p"] = holm(p)


def _add_ov(table: pd.DataFrame, rows: Any, facts: ModelFacts, seed: int) -> None:
    ranks = rows.pivot(index="token", columns=["layer", "head"], values="rank").reindex(columns=table.index)
    median, low, high = bootstrap_median(ranks.to_numpy(dtype=float), seed=seed)
    table["ov_rank_median"], table["ov_rank_median_low"], table["ov_rank_median_high"] = median, low, high
    hits: list[int] = (ranks < BOTTOM * facts.d_vocab).sum().tolist()
    intervals = [wilson(k, len(ranks)) for k in hits]
    table["ov_bottom_share"] = [k / len(ranks) for k in hits]
    table["ov_bottom_share_low"] = [low for low, _ in intervals]
    table["ov_bottom_share_high"] = [high for _, high in intervals]
    table["ov_rows"] = len(ranks)
    ties = rows.groupby(["layer", "head"])["ties"].sum().reindex(table.index)
    table["ov_ties"] = ties.astype(int)


def overview(heads: pd.DataFrame) -> pd.DataFrame:
    """Return one row about the whole model, to be compared with what is known of it."""
    score: Any = heads["cs_score"]
    largest = None if score.isna().all() else heads["label"].iloc[int(score.argmax())]
    return pd.DataFrame(
        {
            "n_heads": [len(heads)],
            "n_suppressing": [heads["suppresses"].tolist().count(True)],
            "largest_cs_score": [float(score.max())],
            "largest_label": [largest],
        }
    )


def verdict(model: str, data: str, heads: Any, parts: pd.DataFrame) -> str:
    """Say in plain words whether this model has copy-suppression heads on this data."""
    n_prompts, n_with = int(heads["n_prompts"].iloc[0]), int(heads["n_with_target"].max())
    where = f"on these {n_prompts} prompts ({data})"
    called = f"all five conditions for a copy-suppression head {where}"
    if n_with < LEAST_PROMPTS:
        return (
            f"Nothing can be said about copy suppression in {model} {where}: the target occurs earlier in the text of "
            f"{n_with} of them, and at least {LEAST_PROMPTS} are needed."
        )
    ranked = heads.sort_values("cs_score", ascending=False)
    found = ranked[ranked["suppresses"]]
    if found.empty:
        best = ranked.iloc[0]
        return (
            f"None found: no head of {model} meets {called}. The one with the largest CS score, {best['label']} "
            f"({interval(best, 'cs_score')} logits), fails: {best['failed']}."
        )
    count = f"{len(found)} of {len(heads)} heads of {model} {'meets' if len(found) == 1 else 'meet'}"
    top = found.iloc[0]
    which = "It" if len(found) == 1 else f"The strongest of them, {top['label']},"
    sentences = [
        f"{count} {called}: {', '.join(found['label'])}.",
        f"{which} attends to the target's earlier occurrence (weight {top['attention']:.2f}), "
        f"and that one edge lowers the target's logit by {interval(top, 'cs_score')} (a random other token's by "
        f"{interval(top, 'cs_control')}); the attended token is among the 5 % most lowered of the vocabulary for "
        f"{top['ov_bottom_share']:.0%} of {int(top['ov_rows'])} sampled tokens.",
        f"Ablating it ({top['ablation']}) changes the {top['metric']} by "
        f"{interval(top, 'ablation_effect', signed=True)}.",
    ]
    if near := ranked[(ranked["failed"] == OV_CRITERION)]["label"].tolist():
        sentences.append(
            f"{listed(near)} {'lowers' if len(near) == 1 else 'lower'} the target as specifically here, but "
            "the static OV circuit does not do so for most tokens."
        )
    if not parts.empty and top["label"] in set(parts["ablated"]):
        mine = parts[parts["ablated"] == top["label"]].set_index("part")
        total = mine.loc["total"]
        split = ", ".join(f"{part} {number(mine.loc[part, 'repair'])}" for part in ("heads", "MLPs", "final norm"))
        sentences.append(
            f"On the {int(total['n_prompts'])} prompts kept for this, its own direct effect changes it by "
            f"{number(total['direct_effect_change'])}, and the rest of the model adds "
            f"{interval(total, 'repair', signed=True)} ({split}): together {number(total['logit_change'])}."
        )
    return " ".join(sentences)
