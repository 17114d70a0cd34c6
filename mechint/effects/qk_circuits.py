r"""Static QK circuits: which tokens a head looks for when it looks from a direction in the stream, whatever the text.

For query directions x_i and key rows y_j (rows of `effects.effective_embedding`: by default the unembedding of a token
and its effective embedding) head (L, h) scores

    N_ij = q_i R k_j        q_i = N_Q(N_L(x_i) W_Q + b_Q)        k_j = N_K(N_L(y_j) W_K + b_K)

up to its positive scale; N_L is the block's input norm, N_Q and N_K are QK-norms where there are any, R the rotation of
a distance, or the mean over distances. The *own-token rank* of token i counts the tokens that the head prefers to i,

    rank_i = #{j != i : N_ij > N_ii} + #{j != i : N_ij = N_ii} / 2                      (mid-rank)

0 if it attends to the very token that is about to be predicted (McDougall et al. 2023, section 3.2 and the 3 x 3 table
of its appendix). The term b_Q R k_j, a preference for keys whatever the query, is kept unless `query_bias` is false;
b_K adds the same to a whole row where there is no QK-norm, and changes no rank. N is not held: see `effects.ranks`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mechint.effects.effective_embedding import effective_embedding, embedding_blocks
from mechint.effects.ranks import OwnRanks
from mechint.errors import ConfigError, SiteError
from mechint.model.base import Model

GRID_QUERIES = ("block0", "embed", "unembed")
GRID_KEYS = ("block0", "mlp0", "embed")
BLOCK = 4096


@dataclass(frozen=True)
class Rotations:
    """Rotations between a query and a key, side by side; identities in a model without any."""

    names: tuple[str, ...]
    matrices: Float[Tensor, "distance d_head d_head"]


def rotations_at(model: Model, layer: int, distances: Sequence[int]) -> Rotations:
    """Return the rotations of some distances, in tokens from the query back to the key; 0 is none."""
    if not distances:
        raise ConfigError("No distance between query and key is given. Expected at least one, such as 0.")
    scoring = model.scoring(layer)
    return Rotations(
        tuple(f"distance {distance}" for distance in distances),
        torch.stack([scoring.rotation(distance) for distance in distances]),
    )


def mean_rotation(model: Model, layer: int, longest: int | None = None) -> Rotations:
    """Return the mean rotation over distances 1 to `longest`; by default as far as the block sees.

    The circuit with it is the mean of the circuits at these distances.
    """
    scoring = model.scoring(layer)
    farthest = (model.facts.n_ctx if scoring.window is None else min(scoring.window, model.facts.n_ctx)) - 1
    end = farthest if longest is None else longest
    if not 1 <= end <= farthest:
        raise ConfigError(f"Mean over distances 1 to {end}: L{layer} of {model.facts.name} sees 1 to {farthest} back.")
    matrix = scoring.mean_rotation(torch.arange(1, end + 1))
    return Rotations((f"mean of distances 1 to {end}",), matrix[None])


def head_queries(
    model: Model, layer: int, directions: Float[Tensor, "row d_model"], query_bias: bool = True
) -> Float[Tensor, "row head d_head"]:
    """Return q of every query head of a block for directions in the stream.

    Args:
        model: the model.
        layer: the block.
        directions: what is looked from. Their length matters only as far as the input norm's epsilon does.
        query_bias: keep b_Q and what the bias of the input norm becomes, the part that no direction has to do with.
    """
    norm, weights = model.norm("attn_in", layer), model.projections(layer)
    x = directions
    if norm is not None:
        x = norm(directions) if query_bias else norm.centre(directions) / norm.scale(directions) * norm.gain
    q = torch.einsum("rd,hde->rhe", x, weights.W_Q)
    return model.scoring(layer).normed_queries(q + weights.b_Q if query_bias else q)


def head_keys(model: Model, layer: int, embedding: Float[Tensor, "row d_model"]) -> Float[Tensor, "row kv_head d_head"]:
    """Return k of every key/value head of a block for rows of the stream."""
    norm, weights = model.norm("attn_in", layer), model.projections(layer)
    x = embedding if norm is None else norm(embedding)
    return model.scoring(layer).normed_keys(torch.einsum("rd,hde->rhe", x, weights.W_K) + weights.b_K)


@dataclass(frozen=True)
class QKRanks:
    """Own-token ranks of the QK circuits of a block."""

    rotations: tuple[str, ...]
    """What each entry of the first axis stands for."""
    ranks: Float[Tensor, "distance head row"]
    """Mid-ranks among the keys that were compared; 0: the head prefers the token's own key to all others."""
    ties: Int[Tensor, "distance head row"]
    others: Int[Tensor, " row"]
    """With how many other keys each row was compared: all others of the vocabulary, or a sample of them."""
    d_vocab: int

    @property
    def sampled(self) -> bool:
        """Whether keys were a sample, so that `scaled` is an estimate."""
        return bool((self.others < self.d_vocab - 1).any())

    @property
    def scaled(self) -> Float[Tensor, "distance head row"]:
        """Ranks among the whole vocabulary: `ranks` themselves, or their estimate from a sample of keys."""
        return self.ranks * ((self.d_vocab - 1) / self.others)


def own_token_ranks(
    model: Model,
    layer: int,
    tokens: Sequence[int],
    rotations: Rotations,
    *,
    query: str = "unembed",
    key: str = "block0",
    vocabulary: Sequence[int] | None = None,
    query_bias: bool = True,
    block: int = BLOCK,
) -> QKRanks:
    """Return each token's own rank in the QK circuit of every head of a block.

    Args:
        model: the model.
        layer: the block.
        tokens: the tokens to look from, each once.
        rotations: at which distances, or the mean over which (`rotations_at`, `mean_rotation`).
        query: kind of row of the queries, one of `effective_embedding.KINDS`.
        key: kind of row of the keys.
        vocabulary: the keys to rank among, each once; by default the whole vocabulary. The own key is always computed.
        query_bias: keep b_Q (see `head_queries`).
        block: keys of one matrix product; memory is distances x heads x tokens x block.

    Raises:
        ConfigError: an unknown kind, a token twice, or no key to compare with.
        UnsupportedModelError: the block's attention is not understood exactly.
    """
    columns = _Columns(model, tokens, vocabulary)
    q = head_queries(model, layer, effective_embedding(model, tokens, query), query_bias)
    turned = torch.einsum("rhe,nef->nrhf", q, rotations.matrices)
    tally = OwnRanks()
    for start, found in columns.blocks([key], block):
        keys = head_keys(model, layer, found[key])
        tally.add(_negated_scores(turned, keys), columns.counted[start : start + len(keys)])
    return QKRanks(rotations.names, tally.ranks, tally.ties, columns.others, model.facts.d_vocab)


def grid(
    model: Model,
    layer: int,
    head: int,
    tokens: Sequence[int],
    rotations: Rotations,
    *,
    vocabulary: Sequence[int] | None = None,
    query_bias: bool = True,
    block: int = BLOCK,
) -> dict[tuple[str, str], Float[Tensor, " row"]]:
    """Return own-token ranks of one head for each kind of query and key; their medians plus 1 are the 3 x 3 table.

    Args:
        model: the model.
        layer: the block.
        head: the query head.
        tokens: the tokens to look from, each once.
        rotations: one rotation.
        vocabulary: the keys to rank among; by default all. Of a sample the ranks are scaled to the whole vocabulary.
        query_bias: keep b_Q (see `head_queries`).
        block: keys of one matrix product.

    Returns:
        By kind of query (`GRID_QUERIES`) and kind of key (`GRID_KEYS`).

    Raises:
        ConfigError: more than one rotation, or as `own_token_ranks`.
        SiteError: no such head.
    """
    if len(rotations.names) != 1:
        raise ConfigError(f"The table is for one rotation; {len(rotations.names)} are given.")
    facts = model.facts
    if not 0 <= head < facts.n_heads:
        raise SiteError(f"Head {head}: {facts.name} has query heads 0 to {facts.n_heads - 1} in each block.")
    kv_head = head // (facts.n_heads // facts.n_kv_heads)
    columns = _Columns(model, tokens, vocabulary)
    directions = [effective_embedding(model, tokens, kind) for kind in GRID_QUERIES]
    q = torch.stack([head_queries(model, layer, rows, query_bias)[:, [head]] for rows in directions])
    turned = q @ rotations.matrices[0]
    tallies = {kind: OwnRanks() for kind in GRID_KEYS}
    for start, found in columns.blocks(GRID_KEYS, block):
        for kind, tally in tallies.items():
            keys = head_keys(model, layer, found[kind])[:, [kv_head]]
            tally.add(_negated_scores(turned, keys), columns.counted[start : start + len(keys)])
    scale = (facts.d_vocab - 1) / columns.others
    return {
        (query, kind): tally.ranks[i, 0] * scale
        for i, query in enumerate(GRID_QUERIES)
        for kind, tally in tallies.items()
    }


class _Columns:
    """The keys in the order in which they are computed: those of the tokens first, so that own values come first."""

    def __init__(self, model: Model, tokens: Sequence[int], vocabulary: Sequence[int] | None) -> None:
        compared = torch.zeros(model.facts.d_vocab, dtype=torch.bool)
        for name, ids in (("tokens", tokens), ("vocabulary", vocabulary)):
            if ids is not None and (
                not ids or len(set(ids)) < len(ids) or not 0 <= min(ids) <= max(ids) < len(compared)
            ):
                raise ConfigError(f"{name}: expected ids from 0 to {len(compared) - 1}, at least one, each once.")
        own, compared[:] = torch.tensor(list(tokens)), vocabulary is None
        if vocabulary is not None:
            compared[list(vocabulary)] = True
        self.others = compared.sum() - compared[own].long()
        if int(self.others.min()) == 0:
            raise ConfigError("vocabulary: a token would be compared with no key but its own. Give more keys.")
        rest = compared.clone()
        rest[own] = False
        self._model, self._n_rows = model, len(own)
        self._order = torch.cat([own, rest.nonzero()[:, 0]])
        self.counted = compared[self._order]

    def blocks(self, kinds: Sequence[str], block: int) -> Iterator[tuple[int, dict[str, Tensor]]]:
        """Yield rows of some kinds, with the place of the first in the order."""
        start, size = 0, max(block, self._n_rows)
        for found in embedding_blocks(self._model, self._order.tolist(), kinds, size):
            yield start, dict(found)
            start += size


def _negated_scores(
    queries: Float[Tensor, "distance row head d_head"], keys: Float[Tensor, "column kv_head d_head"]
) -> Float[Tensor, "distance head row column"]:
    """Return -N, so that the lowest rank is the highest score; the keys of a group of heads are used as they are."""
    n, rows, heads, width = queries.shape
    kv_heads = keys.shape[1]
    grouped = queries.unflatten(2, (kv_heads, heads // kv_heads)).permute(2, 0, 3, 1, 4).reshape(kv_heads, -1, width)
    scores = -grouped @ keys.permute(1, 2, 0)
    return scores.unflatten(1, (n, heads // kv_heads, rows)).transpose(0, 1).flatten(1, 2)
