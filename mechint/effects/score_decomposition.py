r"""Which earlier components make a head look where it looks: its scores, taken apart on both sides.

With the scales of the input norm and of QK-norms frozen at the run's (`effects.frozen_sides`), a query is a sum over
the components of the stream before the block, and so is a key; the score before a soft-cap is bilinear in the two,

    S_ds = scale * sum_a sum_b  q_d^a T(d) · k_s^b T(s)

a and b run over the embedding, every head, attention bias and MLP of the blocks below, and two constants: what the
bias of the input norm becomes, and b_Q or b_K. Summing over b leaves the query side with keys as they are, and over a
the key side. Attention does not change when all scores of a query move together, so a term means something in
comparison: a *contrast* weighs sources with numbers that add up to 0 (`difference`, `from_mean`).

Either side can be split by a direction u in the stream: each component into its part along u and the rest,
x = (x · u) u / |u|² + x_perp. McDougall et al. 2023, "Copy Suppression", section 3.2 and appendix on query and key
composition (u = W_U[IO] for queries, the output of MLP 0 for keys).
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mechint.effects.attribution import head_outputs, require_exact
from mechint.effects.frozen_sides import FrozenSide, counted_from_first_column, frozen_sides
from mechint.errors import PositionError
from mechint.model.base import Model, Rows, Run
from mechint.sites import Site, head_label

ALONG, ACROSS = "along", "across"


@dataclass(frozen=True)
class ScoreTerms:
    """Queries and keys of one head on some rows, each a sum over components."""

    query_names: tuple[str, ...]
    """What each term of a query is: `embed`, `L0H3`, `L0.attn_bias`, `L0.mlp`, …, `norm bias`, `b_Q`; where queries are
    split, `… along` and `… across`."""
    key_names: tuple[str, ...]
    queries: Float[Tensor, "batch query component d_head"]
    """Turned by their positions, and multiplied by the scale of scores."""
    keys: Float[Tensor, "batch key key_component d_head"]
    """Turned by their positions."""

    @property
    def scores(self) -> Float[Tensor, "batch query key"]:
        """S before soft-cap and mask: what all terms add up to."""
        return self.queries.sum(2) @ self.keys.sum(2).transpose(1, 2)

    def query_side(self) -> Float[Tensor, "batch component query key"]:
        """Return the terms of scores by component of the query, keys as they are."""
        return torch.einsum("bqce,bke->bcqk", self.queries, self.keys.sum(2))

    def key_side(self) -> Float[Tensor, "batch key_component query key"]:
        """Return the terms of scores by component of the key, queries as they are."""
        return torch.einsum("bqe,bkce->bcqk", self.queries.sum(2), self.keys)

    def table(
        self, at: Int[Tensor, " batch"], sources: Float[Tensor, "batch key"]
    ) -> Float[Tensor, "batch component key_component"]:
        """Return the terms of a weighted sum of scores by component of query and key: sum_s w_s S_ds.

        Args:
            at: d, the position looked from in each row.
            sources: w, a weight for each position looked at: `one_source`, `difference`, `from_mean`.
        """
        rows = torch.arange(len(at))
        keys = torch.einsum("bkce,bk->bce", self.keys, sources)
        return self.queries[rows, at] @ keys.transpose(1, 2)


def score_terms(
    model: Model,
    rows: Rows,
    layer: int,
    head: int,
    query_direction: Float[Tensor, "batch pos d_model"] | None = None,
    key_direction: Float[Tensor, "batch pos d_model"] | None = None,
) -> ScoreTerms:
    """Run rows once and take the scores of one head apart.

    Args:
        model: the model.
        rows: token rows, padded on the right if at all (positions count from the first column).
        layer: the head's block.
        head: the query head.
        query_direction: split every component of a query by this direction in the stream, one for each position.
        key_direction: the same for keys.

    Raises:
        UnsupportedModelError: the model's terms do not add up, or its attention is not understood exactly.
        PositionError: rows that are not plain, or padded on the left; a direction that is zero.
        SiteError: no such head.
    """
    model.facts.check(Site("z", layer, head))
    require_exact(model)
    batch = counted_from_first_column(model, rows)
    before = Site("resid_pre", layer)
    read = [Site("resid_pre", 0), before]
    read += [Site(name, i) for i in range(layer) for name in ("z", "mlp_out")]
    if model.facts.learned_positions:
        read.append(Site("pos_embed"))
    run = model.run(batch, read=read, stop_after=before)
    sides = frozen_sides(model, layer, head, run[before])
    splits = [None if u is None else _unit(u) for u in (query_direction, key_direction)]
    names: list[str] = []
    parts: tuple[list[Tensor], list[Tensor]] = ([], [])
    for labels, outputs in _components(model, run, layer):
        names += labels
        for side, split, found in zip(sides, splits, parts, strict=True):
            found.append(_split(side, outputs, split))
    scoring, places = model.scoring(layer), torch.arange(batch.ids.shape[1])[:, None]
    turned = [
        scoring.turn(torch.cat([*found, side.constants], 2), places) for found, side in zip(parts, sides, strict=True)
    ]
    query_names, key_names = (
        (*(names if split is None else [f"{n} {part}" for n in names for part in (ALONG, ACROSS)]), "norm bias", bias)
        for split, bias in zip(splits, ("b_Q", "b_K"), strict=True)
    )
    return ScoreTerms(query_names, key_names, turned[0] * scoring.scale, turned[1])


def one_source(source: Int[Tensor, " batch"], length: int) -> Float[Tensor, "batch key"]:
    """Return the weights that pick one source of each row."""
    return torch.nn.functional.one_hot(source, length).float()


def difference(source: Int[Tensor, " batch"], minus: Int[Tensor, " batch"], length: int) -> Float[Tensor, "batch key"]:
    """Return the weights of the contrast of one source with another, in each row."""
    return one_source(source, length) - one_source(minus, length)


def from_mean(source: Int[Tensor, " batch"], among: Bool[Tensor, "batch key"]) -> Float[Tensor, "batch key"]:
    """Return the weights of the contrast of one source with the mean of some, such as all that the query sees."""
    return one_source(source, among.shape[1]) - among / among.sum(1, keepdim=True)


def _components(model: Model, run: Run, layer: int) -> list[tuple[list[str], Tensor]]:
    """List what adds up to the stream before a block, with names: tensors [batch, pos, component, d_model]."""
    entering = run[Site("resid_pre", 0)]
    found: list[tuple[list[str], Tensor]] = []
    if model.facts.learned_positions:
        positions = run[Site("pos_embed")]
        found.append((["embed", "pos_embed"], torch.stack([entering - positions, positions], 2)))
    else:
        found.append((["embed"], entering[:, :, None]))
    for below in range(layer):
        heads, bias = head_outputs(model, below, run[Site("z", below)])
        found.append(([head_label(below, head) for head in range(model.facts.n_heads)], heads))
        others = torch.stack([bias, run[Site("mlp_out", below)]], 2)
        found.append(([f"L{below}.attn_bias", f"L{below}.mlp"], others))
    return found


def _split(side: FrozenSide, outputs: Tensor, unit: Tensor | None) -> Float[Tensor, "batch pos component d_head"]:
    whole = side.linear(outputs)
    if unit is None:
        return whole
    amount = torch.einsum("bpcd,bpd->bpc", outputs, unit)
    along = amount[..., None] * side.linear(unit[:, :, None])
    return torch.stack([along, whole - along], 3).flatten(2, 3)


def _unit(direction: Tensor) -> Float[Tensor, "batch pos d_model"]:
    length = direction.norm(dim=-1, keepdim=True)
    if not bool((length > 0).all()):
        raise PositionError("A direction to split by is zero at some position. Give one of some length for each.")
    return direction / length
