r"""The OV circuit on real text: where does the attended token stand among all tokens that the head lowers?

For a head, all edges (d, s) with s not 0 and attention A_ds above 0.1 are looked at. The logits that come from source s
are x = A_ds f_d o'_s through the final norm (frozen) and W_U (see `effects.head_outputs`), and

    rank = #{j != t_s : x_j < x_t} + #{j != t_s : x_j = x_t} / 2        (mid-rank; 0: the token itself is lowered most)

A_ds, f_d and the final norm's scale at d are positive numbers in front of the whole of x, so the rank belongs to the
source alone: it is computed once a source, and counts as often as the source is attended to. Where something else is
lowered more (rank from 1 to below 10), the token that is lowered most is named: whether it is a form of the same word,
and the cosine of the two tokens' output directions, C(g * W_U[:, t]). McDougall et al. 2023, "Copy Suppression",
section 3 and its appendix; the control is another head of the layer (`effects.sampling.another_head`).
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor

from mechint.effects.attribution import final_norm
from mechint.effects.documents import Documents
from mechint.effects.head_outputs import HeadRun, read_heads
from mechint.model.base import Model
from mechint.sites import head_label
from mechint.statistics import bootstrap_median, bootstrap_ratio

LEAST_ATTENTION = 0.1
NEAR = 10
"""Ranks below this count as near the bottom."""
Related = Callable[[int, int], bool]
"""Whether two tokens are forms of one word."""


def dynamic_rank_rows(
    model: Model,
    documents: Documents,
    heads: Sequence[tuple[int, int]],
    related: Related,
    excluded: Int[Tensor, " column"],
    *,
    least_attention: float = LEAST_ATTENTION,
    block: int = 16_384,
) -> pd.DataFrame:
    """Return one row a document, head and source position that is attended to from anywhere.

    Args:
        model: the model.
        documents: few enough for one pass (see `Documents.batches`).
        heads: pairs of layer and query head.
        related: whether two tokens are forms of one word (see `word_forms.WordForms.related`).
        excluded: special tokens and function words, which the rows mark (see `context_tokens.function_tokens`).
        least_attention: edges with more attention than this count.
        block: vocabulary entries of one matrix product.

    Returns:
        `id`, `position` (of the source), `layer`, `head`, `label`, `token`, `n_edges` (destinations that attend to it),
        `attention` (their mean), `rank`, `ties`, `lowest` (the token that is lowered most), `cosine` (of its direction
        and the token's), `related` (1 or 0; NaN unless the rank is from 1 to below 10), `function_word`.
    """
    no_content = torch.zeros(model.facts.d_vocab, dtype=torch.bool)
    no_content[excluded] = True
    frames: list[pd.DataFrame] = []
    for run in read_heads(model, documents, heads):
        strong = run.attention > least_attention
        strong[:, :, 0] = False
        row, source = strong.any(1).nonzero(as_tuple=True)
        tokens = run.tokens[row, source]
        ranks, ties, lowest = source_ranks(model, _directions(model, run)[row, source], tokens, block)
        n_edges = strong.sum(1)[row, source]
        near = ((ranks >= 1) & (ranks < NEAR)).tolist()
        pairs = list(zip(tokens.tolist(), lowest.tolist(), near, strict=True))
        frames.append(
            pd.DataFrame(
                {"id": np.array([documents.ids[i] for i in row.tolist()], dtype=object)}
                | {"position": source.numpy(), "layer": run.layer, "head": run.head}
                | {"label": head_label(run.layer, run.head), "token": tokens.numpy(), "n_edges": n_edges.numpy()}
                | {"attention": ((run.attention * strong).sum(1)[row, source] / n_edges).double().numpy()}
                | {"rank": ranks.numpy(), "ties": ties.numpy(), "lowest": lowest.numpy()}
                | {"cosine": _cosines(model, tokens, lowest).numpy()}
                | {"related": [float(related(own, other)) if close else np.nan for own, other, close in pairs]}
                | {"function_word": no_content[tokens].numpy()}
            )
        )
    return pd.concat(frames, ignore_index=True)


def _directions(model: Model, run: HeadRun) -> Float[Tensor, "batch key d_model"]:
    """Return what each source writes, through the final norm, without the positive factors of the destination."""
    final = final_norm(model)
    return final.centre(run.sources) * final.gain


def source_ranks(
    model: Model, written: Float[Tensor, "at d_model"], tokens: Int[Tensor, " at"], block: int = 16_384
) -> tuple[Float[Tensor, " at"], Int[Tensor, " at"], Int[Tensor, " at"]]:
    """Return each token's mid-rank in its own row of written · W_U, its ties, and the token with the lowest value.

    A token's own value comes from the same product as those beside it, since products of different shapes differ in
    their last bits: the tokens that occur stand first in the vocabulary's order.

    Args:
        model: the model whose unembedding is meant.
        written: what is read by W_U, a row for each token.
        tokens: whose rank is meant; they may repeat.
        block: vocabulary entries of one matrix product; memory is rows x block.
    """
    distinct, column = tokens.unique(return_inverse=True)
    first = torch.zeros(model.facts.d_vocab, dtype=torch.bool)
    first[distinct] = True
    order = torch.cat([distinct, (~first).nonzero()[:, 0]])
    width = max(block, len(distinct))
    own, least = torch.empty(0), torch.full((len(tokens),), torch.inf, dtype=written.dtype)
    below, ties = torch.zeros(len(tokens), dtype=torch.long), torch.full((len(tokens),), -1)
    lowest = torch.zeros(len(tokens), dtype=torch.long)
    for start in range(0, len(order), width):
        columns = order[start : start + width]
        effects = written @ model.unembedding(columns).to(written.dtype).T
        if start == 0:
            own = effects.gather(1, column[:, None])
        below += (effects < own).sum(1)
        ties += (effects == own).sum(1)  # a token ties with itself, hence the -1 at the start
        values, places = effects.min(1)
        lower = values < least
        least, lowest = torch.where(lower, values, least), torch.where(lower, columns[places], lowest)
    return below.double() + 0.5 * ties.double(), ties, lowest


def _cosines(model: Model, tokens: Int[Tensor, " at"], others: Int[Tensor, " at"]) -> Float[Tensor, " at"]:
    final = final_norm(model)
    one, other = (final.centre(final.gain * model.unembedding(which)) for which in (tokens, others))
    return torch.nn.functional.cosine_similarity(one, other, dim=-1).double()


def dynamic_rank_table(rows: pd.DataFrame, clusters: Mapping[str, str], seed: int = 0) -> pd.DataFrame:
    """Summarise rows of `dynamic_rank_rows`: one row a head, with and without function words; every edge counts.

    Returns:
        `label`, `words` (`all`, or `content words`), mean and median of the `rank`, shares of rank 0, below 10 and from
        1 to below 10, and of the latter those whose most lowered token is `related`, with the mean `cosine`; each with
        an interval that draws clusters of documents. `n_edges` and `n_sources` went in.
    """
    found: list[dict[str, Any]] = []
    for label, own in rows.groupby("label", sort=False):
        content: Any = own[~own["function_word"].astype(bool)]
        for words, part in (("all", own), ("content words", content)):
            about: dict[str, Any] = {"layer": own["layer"].iloc[0], "head": own["head"].iloc[0], "label": label}
            about |= {"words": words, "n_edges": part["n_edges"].sum(), "n_sources": len(part)}
            found.append(about | (_summary(part, clusters, seed) if len(part) else {}))
    return pd.DataFrame(found)


def _summary(rows: pd.DataFrame, clusters: Mapping[str, str], seed: int) -> dict[str, float]:
    own = np.array([clusters[str(name)] for name in rows["id"]], dtype=object)
    edges, rank = rows["n_edges"].to_numpy(dtype=float), rows["rank"].to_numpy(dtype=float)
    near = (rank >= 1) & (rank < NEAR)
    measures = {
        "rank_mean": (rank, np.ones(len(rank))),
        "share_rank_0": ((rank == 0), np.ones(len(rank))),
        "share_rank_below_10": ((rank < NEAR), np.ones(len(rank))),
        "share_rank_1_to_9": (near, np.ones(len(rank))),
        "related_share": (near * np.nan_to_num(rows["related"].to_numpy(dtype=float)), near),
        "cosine_mean": (near * rows["cosine"].to_numpy(dtype=float), near),
    }
    above = np.stack([value * edges for value, _ in measures.values()], 1).astype(float)
    below = np.stack([weight * edges for _, weight in measures.values()], 1).astype(float)
    value, low, high = bootstrap_ratio(above, below, own, seed=seed)
    told = {
        f"{name}{end}": float(values[i])
        for i, name in enumerate(measures)
        for end, values in (("", value), ("_low", low), ("_high", high))
    }
    counts = rows["n_edges"].to_numpy(dtype=int)
    middle = bootstrap_median(np.repeat(rank, counts)[:, None], np.repeat(own, counts), seed=seed)
    return told | {f"rank_median{end}": float(v[0]) for end, v in zip(("", "_low", "_high"), middle, strict=True)}


def rank_histogram(rows: pd.DataFrame, clusters: Mapping[str, str], seed: int = 0) -> pd.DataFrame:
    """Count the edges of `dynamic_rank_rows` by rank: 0 to 9 one by one, then by powers of ten.

    Returns:
        One row a head and bin: `label`, `ranks` (such as `10-99`; mid-ranks are rounded down), `n_edges`, and the
        `edge_share` with an interval that draws clusters of documents.
    """
    edges = [*range(10), *(10**power for power in range(1, 8))]
    names = [str(low) if high == low + 1 else f"{low}-{high - 1}" for low, high in pairwise(edges)]
    found: list[pd.DataFrame] = []
    for label, own in rows.groupby("label", sort=False):
        where = np.searchsorted(edges, own["rank"].to_numpy(dtype=float), side="right") - 1
        n_edges, last = own["n_edges"].to_numpy(dtype=float), int(where.max())
        inside = n_edges[:, None] * (where[:, None] == np.arange(last + 1))
        below = np.repeat(n_edges[:, None], last + 1, 1)
        share, low, high = bootstrap_ratio(inside, below, [clusters[str(name)] for name in own["id"]], seed=seed)
        counted = {"label": label, "ranks": names[: last + 1], "n_edges": inside.sum(0).astype(int)}
        found.append(pd.DataFrame(counted | {"edge_share": share, "edge_share_low": low, "edge_share_high": high}))
    return pd.concat(found, ignore_index=True)
