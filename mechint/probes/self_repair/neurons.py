"""MLP erasure: rows a token, draw and neuron of the last MLP, and what they come to for each ablated head.

The neurons of a token are those whose direct effect rises most when the head is ablated. The largest of thousands of
changes is large by chance alone, so each number stands beside the same for the neurons that were found under another
draw of the ablation. Rushing & Nanda 2024, "Explorations of Self-Repair in Language Models", section 5.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from mechint.effects.neurons import SEVERAL, Erasure
from mechint.effects.text_repair import CleanText
from mechint.statistics import bootstrap_mean, bootstrap_ratio

THRESHOLDS = (0.5, 0.1, 0.05, 0.025, 0.01)
"""Shares of the direct effect that a neuron's change is compared with."""
_KEYS = ["label", "document", "position", "draw"]


def neuron_rows(
    found: Sequence[Erasure], text: CleanText, which: Sequence[int], wanted: Sequence[Sequence[int]], mlp: int
) -> pd.DataFrame:
    """Turn what was measured on some documents into one row a wanted token, draw and neuron.

    Args:
        found: one a draw.
        text: the documents.
        which: their numbers.
        wanted: pairs of a document's number and a position.
        mlp: the MLP's block.
    """
    frames = [
        _token_rows(one, draw, which.index(document), _slot(text, which.index(document), position)).assign(
            document=document, position=position, mlp=mlp
        )
        for draw, one in enumerate(found)
        for document, position in wanted
    ]
    return pd.concat(frames, ignore_index=True)


def _slot(text: CleanText, row: int, position: int) -> int:
    return int((text.places[row] == position).nonzero()[0, 0])


def _token_rows(one: Erasure, draw: int, row: int, slot: int) -> pd.DataFrame:
    def column(values: Tensor | None) -> np.ndarray:
        at = torch.full_like(one.clean[row, slot], torch.nan) if values is None else values[row, slot]
        return at.numpy()

    component = one.repair.component
    return pd.DataFrame(
        {"label": component.label, "layer": component.layer, "head": -1 if component.head is None else component.head}
        | {"draw": draw, "rank": range(1, one.neurons.shape[-1] + 1), "neuron": column(one.neurons)}
        | {"clean": column(one.clean), "ablated": column(one.ablated)}
        | {"clean_elsewhere": column(one.clean_elsewhere), "ablated_elsewhere": column(one.ablated_elsewhere)}
        | {"direct_effect": float(one.repair.direct_effect[row, slot])}
        | {"self_repair": float(one.repair.self_repair[row, slot]), "mlp_repair": float(one.mlp[row, slot])}
    )


def neuron_tables(
    rows: pd.DataFrame, clusters: Mapping[int, int], ids: Sequence[str], seed: int
) -> dict[str, pd.DataFrame]:
    """Summarise: `neurons` (a row a head), `neuron_ranks` (a row a head, rank and threshold), `neuron_tokens`."""
    heads: list[dict[str, Any]] = []
    ranks: list[dict[str, Any]] = []
    for label, mine in rows.groupby("label", sort=False):
        single = mine[mine["rank"] == 1].reset_index(drop=True)
        own = [clusters[int(document)] for document in single["document"]]
        about = {name: mine[name].iloc[0] for name in ("layer", "head", "mlp")}
        heads.append({"label": label} | about | _summary(mine, single, own, seed))
        ranks += [{"label": label} | about | row for row in _above(mine, clusters, seed)]
    return {
        "neurons": pd.DataFrame(heads).sort_values("direct_effect", ascending=False, ignore_index=True),
        "neuron_ranks": pd.DataFrame(ranks),
        "neuron_tokens": _tokens(rows, ids),
    }


def _summary(mine: Any, single: Any, own: Sequence[int], seed: int) -> dict[str, Any]:
    several = mine[mine["rank"] <= SEVERAL].groupby(_KEYS[1:], sort=False)
    risen = {
        "top5": several.apply(lambda token: (token["ablated"] - token["clean"]).sum(), include_groups=False),
        "top5_elsewhere": several.apply(
            lambda token: (token["ablated_elsewhere"] - token["clean_elsewhere"]).sum(skipna=False),
            include_groups=False,
        ),
    }
    means = {name: single[name].to_numpy(dtype=float) for name in ("direct_effect", "self_repair", "mlp_repair")}
    for end in ("", "_elsewhere"):
        before, after = single[f"clean{end}"].to_numpy(dtype=float), single[f"ablated{end}"].to_numpy(dtype=float)
        erases = np.where(np.isnan(before), np.nan, (before < 0) & (after > before))
        means |= {f"top_clean{end}": before, f"top_ablated{end}": after, f"erases{end}": erases}
    values, low, high = bootstrap_mean(np.stack(list(means.values()), axis=1), own, seed=seed)
    found: dict[str, Any] = {"n_tokens": len(single.drop_duplicates(["document", "position"]))}
    for i, name in enumerate(means):
        found |= {name: float(values[i]), f"{name}_low": float(low[i]), f"{name}_high": float(high[i])}
    order = pd.MultiIndex.from_frame(single[_KEYS[1:]])
    ratios = {
        "mlp_share": (means["mlp_repair"], means["self_repair"]),
        "top5_share": (risen["top5"].reindex(order).to_numpy(), means["mlp_repair"]),
        "top5_share_elsewhere": (risen["top5_elsewhere"].reindex(order).to_numpy(), means["mlp_repair"]),
    }
    for name, (above, below) in ratios.items():
        value, low, high = bootstrap_ratio(above[:, None], below[:, None], own, seed=seed)
        found |= {name: float(value[0]), f"{name}_low": float(low[0]), f"{name}_high": float(high[0])}
    return found


def _above(mine: Any, clusters: Mapping[int, int], seed: int) -> list[dict[str, Any]]:
    """Count the tokens whose N-th neuron puts back more than some share of the head's direct effect."""
    found: list[dict[str, Any]] = []
    for rank, rows in mine.groupby("rank"):
        share = ((rows["ablated"] - rows["clean"]) / rows["direct_effect"]).to_numpy(dtype=float)
        over = np.stack([share > threshold for threshold in THRESHOLDS], axis=1).astype(float)
        own = [clusters[int(document)] for document in rows["document"]]
        value, low, high = bootstrap_mean(over, own, seed=seed)
        found += [
            {"rank": rank, "share_of_effect": threshold, "tokens_above": float(value[i])}
            | {"tokens_above_low": float(low[i]), "tokens_above_high": float(high[i])}
            for i, threshold in enumerate(THRESHOLDS)
        ]
    return found


def _tokens(rows: Any, ids: Sequence[str]) -> pd.DataFrame:
    """Return one row a head and token, means over draws: what a histogram or scatter of tokens needs."""
    single = rows[rows["rank"] == 1]
    names = ["direct_effect", "self_repair", "mlp_repair", "clean", "ablated"]
    table = single.groupby(["label", "document", "position"], sort=False)[names].mean().reset_index()
    table = table.rename(columns={"clean": "top_clean", "ablated": "top_ablated"})
    whole = table["self_repair"].to_numpy(dtype=float)
    share = np.divide(
        table["mlp_repair"].to_numpy(dtype=float), whole, out=np.full(len(table), np.nan), where=whole != 0
    )
    return table.assign(mlp_share_of_token=share, id=[ids[int(document)] for document in table.pop("document")])
