"""Which heads are movers and negative heads, what they share of the repair, and the sentence that says so.

When negative heads are said to repair, fixed before any real model was looked at: five conditions (`CONDITIONS`). The
size threshold is that of the copy-suppression scan. All direct effects are on target minus distractor, in logits.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from mechint.probes.copy_suppression.criteria import LEAST_PROMPTS, LEAST_SCORE
from mechint.probes.copy_suppression.words import interval, listed, number
from mechint.sites import head_label, parse_head
from mechint.statistics import bootstrap_mean, bootstrap_ratio, holm, sign_flip_test

LEAST_EFFECT = LEAST_SCORE
"""Logits: a smaller direct effect makes neither a mover nor a negative head, a smaller change no repair."""

CONDITIONS: Mapping[str, str] = {
    "enough prompts": f"at least {LEAST_PROMPTS} prompts",
    "something to share": "all heads but the movers together put back more than 0: 95 % interval above 0",
    "size": f"they put back at least {LEAST_EFFECT} logits",
    "beyond chance": "they put back more than 0: 95 % interval above 0",
    "specific": "they put back more than other heads of the same layers on average: 95 % interval above 0",
}
"""When negative heads are said to repair, by name of the condition."""

TOGETHER, CONTROL = "negative heads together", "other heads of the same layers"


def choose_movers(means: pd.DataFrame, top: int, taken: set[str]) -> list[str]:
    """Return the heads with the largest mean direct effect, at most `top`, none below `LEAST_EFFECT`.

    Args:
        means: columns `label` and `direct_effect`, one row a head.
        top: how many.
        taken: heads that are named as negative.
    """
    able: Any = means[(means["direct_effect"] >= LEAST_EFFECT) & ~means["label"].isin(list(taken))]
    best = able.sort_values("direct_effect", ascending=False, kind="stable").head(top)
    return sorted(best["label"], key=parse_head)


def choose_negative(means: pd.DataFrame, movers: Sequence[str]) -> list[str]:
    """Return the heads in later blocks than the first mover whose mean direct effect is at most -`LEAST_EFFECT`."""
    if not movers:
        return []
    first = min(parse_head(label)[0] for label in movers)
    low = (means["direct_effect"] <= -LEAST_EFFECT) & (means["layer"] > first) & ~means["label"].isin(list(movers))
    return sorted(means[low]["label"], key=parse_head)


def averaged(
    rows: pd.DataFrame, keys: Sequence[str], values: Sequence[str], clusters: Mapping[str, str], seed: int
) -> pd.DataFrame:
    """Turn rows a prompt and component into one row a component: means with intervals, in the order of the rows.

    Args:
        rows: columns `id`, the keys and the values.
        keys: what names a component.
        values: columns to summarise.
        clusters: the cluster of each prompt id.
        seed: of the draws.
    """
    table = rows[list(keys)].drop_duplicates(ignore_index=True)
    for value in values:
        wide = _wide(rows, list(keys), value)
        mean, low, high = bootstrap_mean(wide.to_numpy(dtype=float), _clusters_of(wide, clusters), seed=seed)
        found = wide.columns.to_frame(index=False).assign(**{value: mean, f"{value}_low": low, f"{value}_high": high})
        table = table.merge(found, on=list(keys), validate="one_to_one")
    return table.assign(n_prompts=rows["id"].nunique())


def tables(
    raw: Mapping[str, pd.DataFrame],
    movers: Sequence[str],
    negative: Sequence[str],
    clusters: Mapping[str, str],
    seed: int,
) -> dict[str, pd.DataFrame]:
    """Summarise everything that was measured; the share first, where there are negative heads."""
    found: dict[str, pd.DataFrame] = {}
    if negative:
        found["share"] = share_table(raw["effects"], movers, negative, clusters, seed)
    found["components"] = components_table(raw["effects"], movers, negative, clusters, seed)
    first = min(parse_head(label)[0] for label in movers)
    for name, source, column, start in (
        ("interventions", "edits", "intervention", first),
        ("projection_test", "queries", "removed", first + 1),
    ):
        rows: Any = raw[source][raw[source]["layer"] >= start]
        if not rows.empty:
            found[name] = _compared(rows, column, "direct_effect_after", movers, negative, clusters, seed)
    found["criteria"] = pd.DataFrame([{"criterion": name, "threshold": asks} for name, asks in CONDITIONS.items()])
    return found


def components_table(
    rows: pd.DataFrame, movers: Sequence[str], negative: Sequence[str], clusters: Mapping[str, str], seed: int
) -> pd.DataFrame:
    """Summarise every component before and after; the p-value of each change is corrected for their number."""
    keys, before, after = ["label", "component", "layer", "head"], "direct_effect_clean", "direct_effect_resampled"
    rows = rows.assign(change=rows[after] - rows[before])
    table = averaged(rows, keys, [before, after, "change"], clusters, seed)
    wide = _wide(rows, keys, "change")
    draws = max(10_000, 200 * wide.shape[1])
    p = holm(sign_flip_test(wide.to_numpy(dtype=float), _clusters_of(wide, clusters), n_resamples=draws, seed=seed))
    table = table.merge(wide.columns.to_frame(index=False).assign(change_p=p), on=keys)
    return table.assign(role=_roles(table["label"], movers, negative))


def share_table(
    effects: pd.DataFrame, movers: Sequence[str], negative: Sequence[str], clusters: Mapping[str, str], seed: int
) -> pd.DataFrame:
    """Return what each negative head, all of them together, and the control put back, and its share.

    `excess` is what is put back over the control of the same heads: the mean over the other heads of their layers.
    """
    heads: Any = effects[effects["component"] == "head"]
    heads = heads.assign(change=heads["direct_effect_resampled"] - heads["direct_effect_clean"])
    wide: Any = heads.pivot(index="id", columns="label", values="change").sort_index()
    left = [label for label in wide.columns if label not in {*movers, *negative}]
    control = pd.DataFrame(
        {own: wide[[o for o in left if parse_head(o)[0] == parse_head(own)[0]]].mean(axis=1) for own in negative}
    )
    put_back = wide[list(negative)].assign(**{TOGETHER: wide[list(negative)].sum(axis=1)})
    # Where a layer has no other head there is no control: NaN, and then nothing is claimed.
    by_chance = control.assign(**{TOGETHER: control.sum(axis=1, skipna=False)})
    columns = [*put_back.columns, CONTROL]
    values = {
        "put_back": put_back.assign(**{CONTROL: by_chance[TOGETHER]}),
        "excess": (put_back - by_chance).assign(**{CONTROL: np.nan}),
    }
    everything = wide[[label for label in wide.columns if label not in movers]].sum(axis=1)
    whole = np.repeat(everything.to_numpy(dtype=float)[:, None], len(columns), axis=1)
    own = _clusters_of(wide, clusters)
    table = pd.DataFrame({"added_up": columns})
    for name, frame in values.items():
        _add(table, name, bootstrap_mean(frame[columns].to_numpy(dtype=float), own, seed=seed))
    _add(table, "put_back_by_all_heads", bootstrap_mean(whole, own, seed=seed))
    _add(table, "share", bootstrap_ratio(values["put_back"][columns].to_numpy(dtype=float), whole, own, seed=seed))
    return _judged(table.assign(n_prompts=len(wide)))


def _judged(table: pd.DataFrame) -> pd.DataFrame:
    """Add whether the conditions are met, and which are not; the control is no candidate."""
    met = {
        "enough prompts": table["n_prompts"] >= LEAST_PROMPTS,
        "something to share": table["put_back_by_all_heads_low"] > 0,
        "size": table["put_back"] >= LEAST_EFFECT,
        "beyond chance": table["put_back_low"] > 0,
        "specific": table["excess_low"] > 0,
    }
    candidate = table["added_up"] != CONTROL
    passed = pd.DataFrame(met)
    failed = [", ".join(name for name in passed if not row[name]) for row in passed.to_dict("records")]
    named = [names if is_one else "" for names, is_one in zip(failed, candidate, strict=True)]
    return table.assign(repairs=passed.all(axis=1) & candidate, failed=named)


def verdict(
    model: str,
    data: str,
    movers: Sequence[str],
    negative: Sequence[str],
    found: Mapping[str, pd.DataFrame],
) -> str:
    """Say in plain words who makes good the loss of the name movers."""
    if not movers:
        return (
            f"No name mover found: no head of {model} has a direct effect of at least {LEAST_EFFECT} logits on target "
            f"minus distractor ({data}), so there is nothing to take away."
        )
    table = found["components"].set_index("label")
    whole, n = table.loc["logit difference"], int(table["n_prompts"].iloc[0])
    lost = float(table.loc[list(movers), "change"].sum())
    taken = f"name mover{'s' * (len(movers) > 1)} {listed(movers)}"
    start, end = (number(whole[f"direct_effect_{when}"]) for when in ("clean", "resampled"))
    sentences = [
        f"Resampling the {taken} of {model} on {n} prompts ({data}) changes target minus distractor by {number(lost)} "
        f"logits directly, and by {interval(whole, 'change', signed=True)} in all, from {start} to {end}."
    ]
    if not negative:
        sentences.append(
            f"No negative head: no later head has a direct effect of -{LEAST_EFFECT} logits or below, so no share of "
            "any repair is claimed for one."
        )
        return " ".join(sentences)
    shares = found["share"].set_index("added_up")
    own, control = shares.loc[TOGETHER], shares.loc[CONTROL]
    heads = f"negative head{'s' * (len(negative) > 1)} {listed(negative)}"
    all_heads = f"All other heads put back {interval(own, 'put_back_by_all_heads', signed=True)}"
    if own["repairs"]:
        sentences.append(
            f"{all_heads}, of which {heads} {interval(own, 'put_back', signed=True)}: a share of "
            f"{interval(own, 'share')} (other heads of the same layers: {number(control['share'], False)})."
        )
    else:
        sentences.append(
            f"{all_heads}. No share is claimed for {heads}: {interval(own, 'put_back', signed=True)} fails "
            f"{own['failed']}."
        )
    return " ".join([*sentences, *_about_queries(negative, found)])


def _about_queries(negative: Sequence[str], found: Mapping[str, pd.DataFrame]) -> list[str]:
    """Say what the negative head that puts back most does once its query does not see the movers."""
    table: Any = found.get("projection_test")
    if table is None:
        return []
    mine: Any = table[table["label"].isin(list(negative))]
    if mine.empty:
        return []
    repair: Any = found["share"].set_index("added_up")["put_back"]
    label = repair[sorted(set(mine["label"]))].idxmax()
    rows = mine[mine["label"] == label].set_index("removed")
    along, rest, whole = (interval(rows.loc[name], "change", signed=True) for name in rows.index)
    return [
        f"When the movers' output along the target's direction is taken out of its query, the direct effect of {label} "
        f"changes by {along}; without the rest of it, by {rest}; without any of it, by {whole}."
    ]


def _compared(
    rows: pd.DataFrame,
    column: str,
    after: str,
    movers: Sequence[str],
    negative: Sequence[str],
    clusters: Mapping[str, str],
    seed: int,
) -> pd.DataFrame:
    labels = [head_label(layer, head) for layer, head in zip(rows["layer"], rows["head"], strict=True)]
    rows = rows.assign(label=labels, change=rows[after] - rows["direct_effect_clean"])
    keys = [column, "label", "layer", "head"]
    table = averaged(rows, keys, ["direct_effect_clean", after, "change"], clusters, seed)
    return table.assign(role=_roles(table["label"], movers, negative))


def _roles(labels: Any, movers: Sequence[str], negative: Sequence[str]) -> list[str]:
    roles = dict.fromkeys(movers, "mover") | dict.fromkeys(negative, "negative")
    return [roles.get(label, "other") for label in labels]


def _wide(rows: pd.DataFrame, keys: list[str], value: str) -> pd.DataFrame:
    return rows.pivot(index="id", columns=keys, values=value).sort_index()


def _clusters_of(wide: pd.DataFrame, clusters: Mapping[str, str]) -> list[str]:
    return [clusters[str(i)] for i in wide.index]


def _add(table: pd.DataFrame, name: str, found: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    table[name], table[f"{name}_low"], table[f"{name}_high"] = found
