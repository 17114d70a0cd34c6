r"""Prediction, attention, suppression: does a head do all three with one token, where its loss would hurt most?

At every position d of documents (position 0 and the last left out), for one head:

    loss change   loss(head set to its mean, along the direct path, final scale frozen) - loss(clean), in nats; above 0
                  the head helps
    predicted     a context token is among the 10 likeliest of the logit lens at the head's block: the stream before the
                  block through the final norm and W_U
    attended      a context token is at one of the head's 2 most attended sources, position 0 aside
    suppressed    a context token is among the 10 tokens whose logits the head lowers most of the whole vocabulary
    same token    one context token is all three

The logit lens says little in the middle of a model whose stream is not written in W_U's terms there. So two more
conditions, which are not the paper's, ask of the model's own prediction instead:

    predicted in the end    a context token is among the 10 likeliest of the prediction without the head (set to its
                            mean, as above); not independent of "suppressed", since what a head lowers is likelier so
    same token in the end   one context token is that, attended and suppressed

A context token stands at this or an earlier position, not at position 0, and is neither special nor a function word.
The shares are given for the positions with the largest loss change (5 % and 1 %), and as a control for as many random
positions of the same documents. If a condition has nothing to do with the loss change, the chosen positions of a
document are as good as random ones, so that exchanging the two leaves the distribution as it is: the test flips the
sign of their difference, clusters of documents at a time, and is exact. McDougall et al. 2023, "Copy Suppression",
section 3; the second control is another head of the layer (`effects.sampling.another_head`).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mechint.effects.attribution import final_norm
from mechint.effects.divergence import divergence
from mechint.effects.documents import Documents
from mechint.effects.head_outputs import HeadRun, read_heads, to_logits
from mechint.effects.predictions import extreme_tokens
from mechint.model.base import Model
from mechint.sites import head_label
from mechint.statistics import bootstrap_mean, generator, holm, sign_flip_test, wilson

LENS_TOP, ATTENDED_TOP, LOWERED_TOP = 10, 2, 10
SHARES = (0.05, 0.01)
"""Positions that are looked at, as shares of all: those with the largest loss change."""
CONDITIONS = (
    "predicted",
    "attended",
    "suppressed",
    "all three",
    "same token",
    "predicted in the end",
    "same token in the end",
)
"""`all three` need not be met by one token; `same token` must."""


def three_step_rows(
    model: Model,
    documents: Documents,
    heads: Sequence[tuple[int, int]],
    means: Float[Tensor, "layer head pos d_model"],
    excluded: Int[Tensor, " column"],
) -> pd.DataFrame:
    """Return one row a document, position and head: the loss change, and which conditions are met.

    Args:
        model: the model.
        documents: few enough for one pass (see `Documents.batches`).
        heads: pairs of layer and query head.
        means: mean outputs of every head (see `mean_outputs`).
        excluded: tokens that are no context tokens (see `context_tokens.function_tokens`).
    """
    runs, final = list(read_heads(model, documents, heads)), final_norm(model)
    here = slice(1, documents.length - 1)
    resid = runs[0].resid_final[:, here]
    away = torch.stack([means[run.layer, run.head, here] - run.output[:, here] for run in runs])
    changes = to_logits(model, away, resid.expand_as(away)).flatten(1, 2)
    normalised, truth = final(resid).flatten(0, 1), documents.tokens[:, 2:].flatten()
    found = divergence(model, normalised, changes, truth)
    eligible = torch.ones(model.facts.d_vocab, dtype=torch.bool)
    eligible[excluded] = False
    lens: dict[int, Tensor] = {}
    frames: list[pd.DataFrame] = []
    for run, loss_change, change in zip(runs, found.loss_change, changes, strict=True):
        if run.layer not in lens:
            stream = final(run.resid_pre[:, here]).flatten(0, 1)
            lens[run.layer] = extreme_tokens(model, stream, LENS_TOP).view(*resid.shape[:2], -1)
        without = extreme_tokens(model, normalised + change, LENS_TOP).view_as(lens[run.layer])
        met = _conditions(model, run, lens[run.layer], without, eligible)
        frames.append(
            pd.DataFrame(
                {"id": np.repeat(np.array(documents.ids, dtype=object), documents.length - 2)}
                | {"position": np.tile(np.arange(1, documents.length - 1), len(documents))}
                | {"layer": run.layer, "head": run.head, "label": head_label(run.layer, run.head)}
                | {"loss": found.loss.numpy(), "loss_change": loss_change.numpy()}
                | {name: values.flatten().numpy() for name, values in met.items()}
            )
        )
    return pd.concat(frames, ignore_index=True)


def _conditions(
    model: Model,
    run: HeadRun,
    lens: Int[Tensor, "batch at column"],
    without: Int[Tensor, "batch at column"],
    eligible: Bool[Tensor, " d_vocab"],
) -> dict[str, Bool[Tensor, "batch at"]]:
    here = slice(1, run.tokens.shape[1] - 1)
    writes = to_logits(model, run.output[:, here], run.resid_final[:, here])
    lowered = extreme_tokens(model, writes.flatten(0, 1), LOWERED_TOP, lowest=True, with_bias=False)
    lowered = lowered.view(*lens.shape[:2], -1)
    weights = run.attention[:, here].clone()
    weights[..., 0] = 0
    top = weights.topk(min(ATTENDED_TOP, weights.shape[-1]))
    # A source without attention, such as one outside the window, is not attended to; -1 is no token.
    sources = run.tokens.gather(1, top.indices.flatten(1)).view(top.indices.shape)
    attended = torch.where(top.values > 0, sources, -1)
    predicted, looked_at, pushed, in_the_end = (
        _in_context(tokens, run.tokens, eligible) for tokens in (lens, attended, lowered, without)
    )
    same, same_in_the_end = (
        (found & _is_among(tokens, attended) & _is_among(tokens, lowered)).any(-1)
        for tokens, found in ((lens, predicted), (without, in_the_end))
    )
    each = [found.any(-1) for found in (predicted, looked_at, pushed)]
    met = [*each, torch.stack(each).all(0), same, in_the_end.any(-1), same_in_the_end]
    return dict(zip(CONDITIONS, met, strict=True))


def _in_context(
    candidates: Int[Tensor, "batch at column"], tokens: Int[Tensor, "batch pos"], eligible: Bool[Tensor, " d_vocab"]
) -> Bool[Tensor, "batch at column"]:
    """Mark which candidates at position d stand at one of the positions 1 to d, and are eligible."""
    first = candidates.shape[1] + 2
    # [batch, at, column, pos] of one pass: positions squared times ten, which a pass of a thousand tokens allows.
    same = candidates[..., None] == tokens[:, None, None]
    places = torch.arange(first)
    seen = (places >= 1) & (places <= torch.arange(1, first - 1)[:, None])
    return (same & seen[:, None]).any(-1) & eligible[candidates.clamp(min=0)] & (candidates >= 0)


def _is_among(
    candidates: Int[Tensor, "batch at column"], others: Int[Tensor, "batch at key"]
) -> Bool[Tensor, "batch at column"]:
    return (candidates[..., None] == others[..., None, :]).any(-1)


def three_step_table(
    rows: pd.DataFrame, clusters: Mapping[str, str], *, shares: Sequence[float] = SHARES, seed: int = 0
) -> pd.DataFrame:
    """Summarise rows of `three_step_rows`: one row a head, choice of positions, and condition.

    Args:
        rows: of any number of documents and heads.
        clusters: the cluster of each document id.
        shares: how many positions are chosen, as shares of all.
        seed: of the random positions and the draws.

    Returns:
        `label`, `chosen` (such as `top 5 %` or `random 5 %`), `condition`, `met_share` with the wider of Wilson's
        interval and that of a bootstrap over clusters (a bootstrap alone has no width at 0 and 1), `met_share_p`
        (one-sided, more often than at the random positions, Holm-corrected over heads and shares), `n_met` of
        `n_positions`, and the positions' mean `loss_change`.
    """
    found: list[dict[str, Any]] = []
    for label, group in rows.groupby("label", sort=False):
        own = group.sort_values(["id", "position"]).reset_index(drop=True)
        labels = np.array([clusters[str(name)] for name in own["id"]], dtype=object)
        met = own[list(CONDITIONS)].to_numpy(dtype=float)
        for share in shares:
            top = _largest(own["loss_change"].to_numpy(dtype=float), share)
            control = _matched(own["id"].to_numpy(dtype=object), top, seed, label, share)
            tests = _tests(own["id"].to_numpy(dtype=object), met, top, control, clusters, seed)
            for name, which, p in (("top", top, tests), ("random", control, np.full(len(CONDITIONS), np.nan))):
                about: dict[str, Any] = own.loc[0, ["layer", "head", "label"]].to_dict()
                about |= {"chosen": f"{name} {100 * share:g} %", "n_positions": len(which)}
                about |= {"loss_change": float(own["loss_change"].iloc[which].mean())}
                told = zip(CONDITIONS, p, _shares(met[which], labels[which], seed), strict=True)
                found += [about | {"condition": condition, "met_share_p": one} | ends for condition, one, ends in told]
    table = pd.DataFrame(found)
    for condition in CONDITIONS:
        own = table["condition"] == condition
        table.loc[own, "met_share_p"] = holm(table.loc[own, "met_share_p"].to_numpy(dtype=float))
    return table


def _largest(values: Float[np.ndarray, " at"], share: float) -> Int[np.ndarray, "..."]:
    return np.argsort(-values, kind="stable")[: max(1, round(share * len(values)))]


def _matched(ids: np.ndarray, top: Int[np.ndarray, "..."], seed: int, *labels: object) -> Int[np.ndarray, "..."]:
    """Draw random positions, as many from each document as are chosen there."""
    drawn: list[np.ndarray] = []
    for name in np.unique(ids[top].astype(str)):
        own = np.flatnonzero(ids == name)
        count = int((ids[top] == name).sum())
        drawn.append(generator(seed, "random positions", name, *labels).choice(own, count, replace=False))
    return np.concatenate(drawn)


def _tests(
    ids: np.ndarray,
    met: Float[np.ndarray, "at statistic"],
    top: Int[np.ndarray, "..."],
    control: Int[np.ndarray, "..."],
    clusters: Mapping[str, str],
    seed: int,
) -> Float[np.ndarray, " statistic"]:
    names = np.unique(ids[top].astype(str))
    difference = np.stack(
        [met[top[ids[top] == name]].sum(0) - met[control[ids[control] == name]].sum(0) for name in names]
    )
    return sign_flip_test(difference, [clusters[str(name)] for name in names], alternative="greater", seed=seed)


def _shares(met: Float[np.ndarray, "at statistic"], labels: np.ndarray, seed: int) -> list[dict[str, float | int]]:
    """Return the share of each condition, and the wider of its two intervals."""
    ends = np.stack(bootstrap_mean(met, labels, seed=seed), 1)
    counts = met.sum(0).astype(int).tolist()
    alone = [wilson(count, len(met)) for count in counts]
    return [
        {"met_share": float(share)}
        | {"met_share_low": float(np.fmin(low, least)), "met_share_high": float(np.fmax(high, most))}
        | {"n_met": count}
        for (share, low, high), (least, most), count in zip(ends, alone, counts, strict=True)
    ]
