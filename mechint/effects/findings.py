"""Effects as findings: one call each, over a whole set of prompts, with intervals, tests and a sentence.

    direct_effects   what every head and MLP writes to the target's logit, or to the logit difference
    ablate_heads     what changes when a component is ablated
    self_repair      who makes good the loss of a component
    logit_lens       what the stream says after every block

All at the last position of each prompt, in logits; intervals are 95 % BCa bootstrap over prompt clusters, p-values are
two-sided sign-flip tests over clusters, Holm-corrected over the rows of the table.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor
from tqdm.auto import tqdm

from mechint.effects import attribution
from mechint.effects.ablation import Component, all_heads, chosen, sweep
from mechint.effects.self_repair import AVERAGE, Repair, repair
from mechint.effects.task import LOGIT_DIFFERENCE, Task, labels, required
from mechint.model.base import Model
from mechint.positions import TokenBatch, prompt
from mechint.prompts import PromptSet
from mechint.results import Findings
from mechint.sites import Site, head_label
from mechint.statistics import bootstrap_mean, holm, sign_flip_test

_PARTS = ("heads", "MLPs", "final norm")


def with_statistics(
    rows: pd.DataFrame, keys: Sequence[str], value: str, clusters: Mapping[str, str], seed: int
) -> pd.DataFrame:
    """Turn rows a prompt and component into one row a component: mean, interval, corrected p and n.

    Args:
        rows: columns `id`, the keys and the value.
        keys: what names a component.
        value: the column to summarise, in logits.
        clusters: the cluster of each prompt id.
        seed: of the draws.
    """
    wide = rows.pivot(index="id", columns=list(keys), values=value).sort_index()
    array, own = wide.to_numpy(dtype=float), [clusters[str(i)] for i in wide.index]
    mean, low, high = bootstrap_mean(array, own, seed=seed)
    # Holm multiplies the smallest p by the number of rows, so the draws must grow with it.
    p = holm(sign_flip_test(array, own, n_resamples=max(10_000, 200 * array.shape[1]), seed=seed))
    table = wide.columns.to_frame(index=False)
    return table.assign(
        **{value: mean, f"{value}_low": low, f"{value}_high": high, f"{value}_p": p, "n_prompts": len(wide)}
    )


def direct_effects(model: Model, prompts: PromptSet, *, seed: int = 0, progress: bool | None = None) -> Findings:
    """Measure what every component writes to the target's logit; to the logit difference, if all have a distractor.

    Examples:
        >>> from mechint import organisms
        >>> found = direct_effects(organisms.load("organism:copy-suppression"), organisms.copy_suppression.prompts(4))
        >>> found.to_frame().query("label == 'L0H1'")["direct_effect"].item() > 0
        True
    """
    task = Task(model, prompts, seed)
    frames: list[pd.DataFrame] = []
    for which in _bar(task.chunks(), "direct effects", progress):
        encoded = task.pick(which)
        minus = required(encoded.distractor)[:, None] if task.metric == LOGIT_DIFFERENCE else None
        rows = TokenBatch.from_rows(encoded.tokens)
        effects = attribution.direct_effects(model, rows, required(encoded.target)[:, None], minus)
        terms: list[tuple[str, str, int, int, Tensor]] = [("embedding", "embedding", -1, -1, effects.embed)]
        for layer in range(model.facts.n_layers):
            heads = effects.heads[layer]
            terms += [(head_label(layer, h), "head", layer, h, heads[..., h]) for h in range(model.facts.n_heads)]
            terms.append((f"M{layer}", "MLP", layer, -1, effects.mlps[layer]))
        terms.append(("biases", "bias", -1, -1, effects.attn_biases.sum(0) + effects.constant))
        frames += [
            pd.DataFrame(
                {"id": encoded.ids, "label": label, "component": kind, "layer": layer, "head": head}
                | {"direct_effect": values[:, 0].numpy().astype(float)}
            )
            for label, kind, layer, head, values in terms
        ]
    rows_table = pd.concat(frames, ignore_index=True)
    keys = ["label", "component", "layer", "head"]
    table = with_statistics(rows_table, keys, "direct_effect", task.clusters, seed).assign(metric=task.metric)
    top = table.iloc[table["direct_effect"].abs().argmax()]
    words = (
        f"Of {len(table)} components of {model.facts.name}, {top['label']} has the largest direct effect on the "
        f"{task.metric}: {_interval(top, 'direct_effect')} logits."
    )
    note = "Post-norms are applied and the final norm's scale is that of the clean run; all terms add up to the logits."
    return Findings("direct_effects", {"direct_effects": table}, words, [note])


def ablate_heads(
    model: Model,
    prompts: PromptSet,
    *,
    ablation: str = "mean",
    heads: Sequence[str | Component] | None = None,
    seed: int = 0,
    progress: bool | None = None,
) -> Findings:
    """Ablate heads one at a time, and say what changes.

    Args:
        model: the model.
        prompts: prompts with a target each.
        ablation: `zero`, `mean` (at its position over these prompts), or `resample` (counterfactual or derangement).
        heads: which, such as `["L17H2", "M3", "L4"]` (MLPs and whole blocks too); by default every head.
        seed: of every random choice.
        progress: show a progress bar; by default in a terminal only.

    Raises:
        ConfigError: an unknown ablation.
        SiteError: a component that this model has not.
    """
    task = Task(model, prompts, seed)
    components = all_heads(model.facts) if heads is None else chosen(model.facts, heads)
    frames: list[pd.DataFrame] = []
    for which in _bar(task.chunks(), "ablation", progress):
        encoded = task.pick(which)
        baseline = task.baseline(ablation, which, components)
        result = sweep(model, encoded.tokens, components, baseline, labels(encoded))
        for i, component in enumerate(result.components):
            frames.append(
                pd.DataFrame(
                    {"id": encoded.ids, "label": component.label, "layer": component.layer}
                    | {"head": -1 if component.head is None else component.head}
                    | {"ablation_effect": task.in_metric(result.logit_change[i]).numpy().astype(float)}
                    | {"direct_effect_change": task.in_metric(result.direct_change[i]).numpy().astype(float)}
                    | {"self_repair": task.in_metric(result.self_repair[i]).numpy().astype(float)}
                )
            )
    rows, keys = pd.concat(frames, ignore_index=True), ["label", "layer", "head"]
    table = with_statistics(rows, keys, "ablation_effect", task.clusters, seed)
    for name in ("direct_effect_change", "self_repair"):
        more = with_statistics(rows, keys, name, task.clusters, seed).drop(columns="n_prompts")
        table = table.merge(more, on=keys)
    table = table.sort_values(["layer", "head"]).reset_index(drop=True).assign(ablation=ablation, metric=task.metric)
    top = table.iloc[table["ablation_effect"].abs().argmax()]
    words = (
        f"Of {len(table)} components of {model.facts.name}, ablating {top['label']} ({ablation}) changes the "
        f"{task.metric} most: by {_interval(top, 'ablation_effect')} logits."
    )
    return Findings("ablation", {"ablation": table}, words, [task.ablation_note(ablation)])


def self_repair(
    model: Model,
    prompts: PromptSet,
    *,
    ablate: str | Sequence[str],
    ablation: str = "mean",
    seed: int = 0,
    progress: bool | None = None,
) -> Findings:
    """Ablate components one at a time, and say who makes good the loss: heads, MLPs or the final norm.

    Args:
        model: the model.
        prompts: prompts with a target each.
        ablate: a head (`"L17H2"`), an MLP (`"M3"`), a whole block (`"L3"`), or several of them.
        ablation: `zero`, `mean` or `resample`.
        seed: of every random choice.
        progress: show a progress bar; by default in a terminal only.

    Raises:
        ConfigError: an unknown ablation.
        SiteError: a component that this model has not.
    """
    task = Task(model, prompts, seed)
    components = chosen(model.facts, ablate)
    frames = [repair_rows(task, which, components, ablation) for which in _bar(task.chunks(), "self-repair", progress)]
    table, parts = repair_tables(pd.concat(frames, ignore_index=True), task.clusters, seed)
    sentences: list[str] = []
    for label, group in parts.groupby("ablated", sort=False):
        total = group.set_index("part").loc["total"]
        sentences.append(
            f"Ablating {label} ({ablation}) takes {_interval(total, 'direct_effect_change')} from the {task.metric} "
            f"directly; the rest of {model.facts.name} adds {_interval(total, 'repair')}, so it changes by "
            f"{_interval(total, 'logit_change')}."
        )
    tables = {"repair_parts": parts, "repair": table}
    return Findings("self_repair", tables, " ".join(sentences), [task.ablation_note(ablation)])


def logit_lens(model: Model, prompts: PromptSet, *, seed: int = 0, progress: bool | None = None) -> Findings:
    """Read the residual stream after every block through the final norm and the unembedding.

    Gives the target's logit and its rank in the vocabulary (0: the first), at the last position.
    """
    task = Task(model, prompts, seed)
    final = attribution.final_norm(model)
    sites = [Site("resid_pre", 0), *(Site("resid_post", layer) for layer in range(model.facts.n_layers))]
    frames: list[pd.DataFrame] = []
    for which in _bar(task.chunks(), "logit lens", progress):
        encoded = task.pick(which)
        run = model.run(TokenBatch.from_rows(encoded.tokens), read=dict.fromkeys(sites, prompt(-1)))
        target = required(encoded.target)[:, None]
        for i, site in enumerate(sites):
            logits = model.unembed(final(run[site][:, 0]))
            own = logits.gather(1, target)
            frames.append(
                pd.DataFrame(
                    {"id": encoded.ids, "layer": i - 1, "site": str(site)}
                    | {"target_logit": own[:, 0].numpy().astype(float)}
                    # Half of the ties count: where all logits are equal the target is in the middle, not first.
                    | {"target_rank": ((logits > own).sum(1) + ((logits == own).sum(1) - 1) / 2).numpy().astype(float)}
                )
            )
    rows, keys = pd.concat(frames, ignore_index=True), ["layer", "site"]
    table = with_statistics(rows, keys, "target_logit", task.clusters, seed).drop(columns="target_logit_p")
    ranks = rows.groupby(keys, as_index=False).agg(target_rank_median=("target_rank", "median"))
    table: Any = table.merge(ranks, on=keys)
    first = table["target_rank_median"] == 0
    stays = first[::-1].cummin()[::-1]
    where = f"from {table['site'][stays].iloc[0]} on" if stays.any() else "nowhere to the end"
    words = f"The target is the first token of the lens in half of the prompts or more {where} ({model.facts.name})."
    return Findings("logit_lens", {"logit_lens": table}, words)


def repair_rows(task: Task, which: Sequence[int], components: Sequence[Component], ablation: str) -> pd.DataFrame:
    """Measure self-repair on some prompts: one row a prompt, ablated component and repairing component."""
    encoded = task.pick(which)
    minus = required(encoded.distractor) if task.metric == LOGIT_DIFFERENCE else None
    baseline = task.baseline(ablation, which, components)
    found = repair(task.model, encoded.tokens, components, baseline, required(encoded.target), minus)
    with_biases = any(_has_moving_bias(task.model, layer) for layer in range(task.model.facts.n_layers))
    return pd.concat([_rows_of(one, encoded.ids, with_biases) for one in found], ignore_index=True)


def _has_moving_bias(model: Model, layer: int) -> bool:
    """Whether attention adds a bias that a post-norm rescales; otherwise biases cannot take part in any repair."""
    return model.facts.post_norms and bool(model.output_weights(layer)[1].any())


def _rows_of(one: Repair, ids: Sequence[str], with_biases: bool) -> pd.DataFrame:
    n_layers, _, n_heads = one.heads.shape
    later = range(one.component.layer, n_layers)
    terms: list[tuple[str, str, int, Tensor]] = [
        (head_label(layer, head), "heads", layer, one.heads[layer, :, head])
        for layer in later
        for head in range(n_heads)
        if head_label(layer, head) != one.component.label
    ]
    if with_biases:
        terms.append(("attention biases", "heads", -1, one.biases.sum(0)))
    terms += [(f"M{layer}", "MLPs", layer, one.mlps[layer]) for layer in later]
    terms += [("final norm", "final norm", -1, one.norm), ("total", "", -1, one.total)]
    terms += [("direct", "", -1, one.direct_change), ("logit", "", -1, one.logit_change)]
    return pd.concat(
        [
            pd.DataFrame(
                {"ablated": one.component.label, "id": np.array(ids, dtype=object), "component": name, "part": part}
                | {"layer": layer, "repair": values.numpy().astype(float)}
            )
            for name, part, layer, values in terms
        ],
        ignore_index=True,
    )


def repair_tables(rows: pd.DataFrame, clusters: Mapping[str, str], seed: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Summarise rows of `repair_rows`: by component, and by part; a block of rows for each ablated component."""
    components: list[pd.DataFrame] = []
    parts: list[pd.DataFrame] = []
    for ablated, group in rows.groupby("ablated", sort=False):
        about: Any = group.drop_duplicates("component")[["component", "part", "layer"]]
        single = about[about["part"] != ""]
        wide: Any = group.pivot(index="id", columns="component", values="repair").sort_index()
        own = [clusters[str(i)] for i in wide.index]
        sums = {part: wide[single[single["part"] == part]["component"]].sum(axis=1) for part in _PARTS}
        summed = _intervals(pd.DataFrame(sums | {name: wide[name] for name in ("total", "direct", "logit")}), own, seed)
        block = summed.loc[[*_PARTS, "total"]].add_prefix("repair").reset_index(names="part")
        for name, column in (("direct", "direct_effect_change"), ("logit", "logit_change")):
            block = block.assign(**{f"{column}{end}": summed.loc[name, end] for end in ("", "_low", "_high")})
        parts.append(block.assign(ablated=ablated, n_prompts=len(wide), average=AVERAGE))
        each = _intervals(wide[single["component"]], own, seed).add_prefix("repair").reset_index(names="component")
        components.append(single.merge(each).assign(ablated=ablated, n_prompts=len(wide), average=AVERAGE))
    return pd.concat(components, ignore_index=True), pd.concat(parts, ignore_index=True)


def _intervals(values: pd.DataFrame, clusters: Sequence[str], seed: int) -> pd.DataFrame:
    mean, low, high = bootstrap_mean(values.to_numpy(dtype=float), clusters, seed=seed)
    return pd.DataFrame({"": mean, "_low": low, "_high": high}, index=pd.Index([str(c) for c in values.columns]))


def _interval(row: pd.Series, name: str) -> str:
    return f"{row[name]:+.2f} [{row[f'{name}_low']:+.2f}, {row[f'{name}_high']:+.2f}]"


def _bar(chunks: Sequence[list[int]], what: str, progress: bool | None) -> "tqdm[list[int]]":
    return tqdm(chunks, desc=what, disable=None if progress is None else not progress)
