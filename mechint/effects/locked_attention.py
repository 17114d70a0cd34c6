r"""Attention of a head whose inputs are locked to what a simple account of the head says matters in them.

A copy-suppression head should attend to a source token t_s to the degree that t_s is predicted at d. Two locks keep of
an input what this account speaks of, and nothing else (McDougall et al. 2023, "Copy Suppression", section 3 and
appendix on projecting queries and keys):

    query lock    x_d becomes its projection on the unembedding direction of t_s, another one for every source
    key lock      x_s becomes its projection on the effective embedding of t_s

Scales of the input norm and of QK-norms stay those of the run, and so do biases, so the new scores are

    S'_ds = scale * ((x_d · u_s) linear_d(u_s) + constants_d) R_{d-s} (linear_s((x_s · e_s) e_s) + constants_s)

with u_s, e_s of length 1 and `linear` as in `effects.frozen_sides`. New attention goes through soft-cap, mask and
softmax as usual; with it in place of the head's own (`HeadRun.attention`) a caller measures how much effect remains.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from mechint.effects.effective_embedding import effective_embedding
from mechint.effects.frozen_sides import counted_from_first_column, frozen_sides
from mechint.errors import ConfigError
from mechint.model.base import Model, Rows
from mechint.sites import Site


def locked_attention(
    model: Model, rows: Rows, layer: int, head: int, *, queries: bool, keys: bool
) -> Float[Tensor, "batch query key"]:
    """Return the attention of a head with its queries, its keys, or both locked.

    Args:
        model: the model.
        rows: token rows, padded on the right if at all.
        layer: the head's block.
        head: the query head.
        queries: replace a query's input by its projection on the unembedding direction of the source token.
        keys: replace a key's input by its projection on the effective embedding of its token.

    Raises:
        ConfigError: neither is locked.
        PositionError: rows that are not plain, or padded on the left.
        SiteError: no such head.
        UnsupportedModelError: the block's attention is not understood exactly.
    """
    model.facts.check(Site("z", layer, head))
    if not queries and not keys:
        raise ConfigError("Neither queries nor keys are locked, so attention would be the head's own. Lock one.")
    batch, scoring = counted_from_first_column(model, rows), model.scoring(layer)
    before = Site("resid_pre", layer)
    x = model.run(batch, read=[before], stop_after=before)[before]
    query_side, key_side = frozen_sides(model, layer, head, x)
    places = torch.arange(x.shape[1])
    seen = _projected(x, _unit_rows(model, batch.ids, "block0")) if keys else x
    k = key_side.linear(seen[:, :, None])[:, :, 0] + key_side.constants.sum(2)
    k = scoring.turn(k, places)
    constant = query_side.constants.sum(2)
    if not queries:
        q = scoring.turn(query_side.linear(x[:, :, None])[:, :, 0] + constant, places)
        return scoring.pattern(scoring.scale * q @ k.transpose(1, 2))
    units = _unit_rows(model, batch.ids, "unembed")
    # How much of each source's direction is in the query, and what the head makes of one unit of it.
    amount = (x @ units.transpose(1, 2)) * query_side.factor
    directions = query_side.direction(units)
    scores = scoring.turn(constant, places) @ k.transpose(1, 2)
    for place in range(x.shape[1]):  # a query differs from source to source: one position at a time keeps memory small
        scores[:, place] += amount[:, place] * (scoring.turn(directions, places[place]) * k).sum(-1)
    return scoring.pattern(scoring.scale * scores)


def _unit_rows(model: Model, ids: Tensor, kind: str) -> Float[Tensor, "batch pos d_model"]:
    """Return the row of each token of a text, of length 1."""
    distinct, which = ids.unique(return_inverse=True)
    rows = effective_embedding(model, distinct.tolist(), kind)
    return torch.nn.functional.normalize(rows, dim=-1)[which]


def _projected(
    x: Float[Tensor, "batch pos d_model"], units: Float[Tensor, "batch pos d_model"]
) -> Float[Tensor, "batch pos d_model"]:
    return (x * units).sum(-1, keepdim=True) * units
