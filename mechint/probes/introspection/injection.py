"""Rows with a vector injected while their text is read, and the answers that a model then gives.

At a site, h of every token p of the text (and of all later ones where the injection is *held*):

    h_p' = h_p + α ‖h_p‖ u          α the dose, u of unit length

With causal attention, an injection at the text alone is the same as one that is on while the text is read and off
before the question: what is left of it stands in the keys and values of later blocks. An answer is read once, over the
whole vocabulary: log-probabilities of the labels (their spellings added up), the mass on all of them, and what the
likeliest token is. Nothing is parsed and nobody judges.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mechint.errors import InterventionError
from mechint.interventions import Intervention
from mechint.model.base import Logits, Model
from mechint.model.past import Past
from mechint.positions import Positions, TokenBatch, columns, everywhere
from mechint.prompts.introspection import Asked
from mechint.sites import Site

_TOKENS = 2560
"""That are read in one pass, those before the text apart: few enough for a cache of keys and values of each row."""
_SHARED = 16
"""Tokens before the text from which on they are read once for all rows; reading fewer costs less than copying them."""


@dataclass(frozen=True, eq=False)
class Row:
    """A question, and what is injected while its text is read."""

    asked: Asked
    vector: Float[Tensor, " width"] | None = None
    """α u: what is added for each unit of ‖h‖; None: nothing."""
    held: bool = False
    """Whether it stays on behind the text, up to and including the token that answers."""
    also: tuple[tuple[Float[Tensor, " width"], int, int], ...] = ()
    """More injections, each with its first token and the one behind its last: none of them before the text."""


@dataclass(frozen=True, eq=False)
class Answer:
    """What a model said."""

    log_probs: Float[Tensor, " label"]
    """Of the labels, in their order; nats."""
    said: str
    """The label whose token is the likeliest of all; empty where no label's is."""
    mass: float
    """Probability of all labels together."""
    entropy: float
    """Of the whole distribution, nats."""


class Reader:
    """Asks one model, injecting at one site.

    Args:
        model: the model.
        site: where to inject: a residual stream.
    """

    def __init__(self, model: Model, site: Site) -> None:
        self.model, self.site = model, site
        self._read: dict[tuple[int, ...], Past] = {}

    def answers(self, rows: Sequence[Row]) -> list[Answer]:
        """Return the answer of each row, in their order."""
        groups: dict[tuple[int, tuple[int, ...]], list[int]] = {}
        for i, row in enumerate(rows):
            groups.setdefault((len(row.asked.tokens), self._prefix(row.asked)), []).append(i)
        found: dict[int, Answer] = {}
        for (length, prefix), members in groups.items():
            size = max(1, _TOKENS // (length - len(prefix)))
            for start in range(0, len(members), size):
                some = members[start : start + size]
                found |= zip(some, self._pass([rows[i] for i in some], prefix), strict=True)
        return [found[i] for i in range(len(rows))]

    def receipt(self, rows: Sequence[Row]) -> tuple[float, float]:
        """Compare passes with and without the injection, rows of one length.

        Returns:
            The largest ‖(h' - h) - α‖h‖u‖ / ‖α‖h‖u‖ over injected tokens, and the largest change of anything that must
            not change: the site at all other tokens, and the block below it.
        """
        sites = [self.site, *([Site("resid_pre", self.site.layer)] if self.site.layer is not None else [])]
        batch = TokenBatch.from_rows([row.asked.tokens for row in rows])
        clean = self.model.run(batch, read=sites)
        changed = self.model.run(batch, read=sites, write=self._writes(rows, batch))
        h, new = clean[self.site], changed[self.site]
        where, vectors = _mask(rows, batch), _vectors(rows, batch, h.shape[-1])
        meant = vectors * h.norm(dim=-1, keepdim=True)
        error = ((new - h - meant).norm(dim=-1) / meant.norm(dim=-1))[where]
        elsewhere = [(new - h)[~where].abs(), *((changed[s] - clean[s]).abs() for s in sites[1:])]
        return float(error.max()), max(float(one.max()) for one in elsewhere if one.numel())

    def stream(self, rows: Sequence[Row], site: Site) -> Float[Tensor, "batch width"]:
        """Return what stands at a site, mean over the tokens of the text; rows of one length and place of text."""
        batch = TokenBatch.from_rows([row.asked.tokens for row in rows])
        places = columns(torch.arange(rows[0].asked.start, rows[0].asked.stop)[None])
        read = self.model.run(batch, read={site: places}, write=self._writes(rows, batch), stop_after=site)[site]
        return read.mean(1)

    def continuation_nll(self, rows: Sequence[Row]) -> list[float]:
        """Return the mean negative log-probability of the tokens behind the text, nats a token; rows of one length."""
        batch = TokenBatch.from_rows([row.asked.tokens for row in rows])
        behind = torch.stack([torch.arange(batch.ids.shape[1]) >= row.asked.stop for row in rows])
        before = torch.cat([behind[:, 1:], torch.zeros(len(rows), 1, dtype=torch.bool)], 1)
        prefix = self._prefix(rows[0].asked)
        past = self._past(prefix).fork([0] * len(rows)) if prefix else None
        wanted = Logits(at=_given(before))
        logits = self.model.run(batch, write=self._writes(rows, batch), logits=wanted, past=past).logits
        assert logits is not None
        following = torch.stack([ids[mask] for ids, mask in zip(batch.ids, behind, strict=True)])
        return (-logits.log_softmax(-1).gather(2, following[..., None])[..., 0].mean(1)).tolist()

    def _prefix(self, asked: Asked) -> tuple[int, ...]:
        return asked.tokens[: asked.start] if asked.start >= _SHARED else ()

    def _pass(self, rows: Sequence[Row], prefix: tuple[int, ...]) -> list[Answer]:
        batch = TokenBatch.from_rows([row.asked.tokens for row in rows])
        past = self._past(prefix).fork([0] * len(rows)) if prefix else None
        logits = self.model.run(batch, write=self._writes(rows, batch), logits=Logits(), past=past).logits
        assert logits is not None
        log_probs = logits[:, 0].log_softmax(-1)
        whole = zip(log_probs, log_probs.argmax(-1).tolist(), _entropy(log_probs).tolist(), strict=True)
        return [_answer(row.asked, *one) for row, one in zip(rows, whole, strict=True)]

    def _past(self, prefix: tuple[int, ...]) -> Past:
        if prefix not in self._read:
            past = self.model.new_past()
            self.model.run(TokenBatch.from_rows([prefix]), past=past)
            self._read = {prefix: past}  # one is enough: rows are asked question by question
        return self._read[prefix]

    def _writes(self, rows: Sequence[Row], batch: TokenBatch) -> dict[str | Site, Intervention]:
        if not bool((where := _mask(rows, batch)).any()):
            return {}
        vectors = _vectors(rows, batch, self.model.facts.d_model)

        def rewrite(h: Tensor, offset: Tensor) -> Tensor:
            del offset
            # Of a pass that goes on from a past, h has the new columns only, which are the last ones.
            return h + vectors[:, -h.shape[1] :] * h.norm(dim=-1, keepdim=True)

        return {self.site: Intervention("inject", rewrite, _given(where))}


def _spans(row: Row, width: int) -> Iterator[tuple[Tensor, int, int]]:
    """List what is injected into a row: vector, first token, and the one behind the last."""
    if row.vector is not None:
        yield row.vector, row.asked.start, width if row.held else row.asked.stop
    yield from row.also


def _vectors(rows: Sequence[Row], batch: TokenBatch, width: int) -> Float[Tensor, "batch pos width"]:
    """Return what is added at each token, in units of ‖h‖.

    Raises:
        InterventionError: a vector of another width than the site's.
    """
    n = batch.ids.shape[1]
    vectors = torch.zeros(len(rows), n, width)
    for i, row in enumerate(rows):
        for vector, start, stop in _spans(row, n):
            if len(vector) != width:
                raise InterventionError(
                    f"A vector of width {len(vector)} at a site of width {width}. Extract it there."
                )
            vectors[i, start:stop] += vector
    return vectors


def _mask(rows: Sequence[Row], batch: TokenBatch) -> Bool[Tensor, "batch pos"]:
    mask = torch.zeros_like(batch.real)
    for i, row in enumerate(rows):
        for _, start, stop in _spans(row, batch.ids.shape[1]):
            mask[i, start:stop] = True
    return mask & batch.real


def _given(mask: Bool[Tensor, "batch pos"]) -> Positions:
    return everywhere if bool(mask.all()) else Positions("given places", lambda _: mask)


def _entropy(log_probs: Float[Tensor, "batch d_vocab"]) -> Float[Tensor, " batch"]:
    return -(log_probs.exp() * log_probs).sum(-1)


def _answer(asked: Asked, log_probs: Float[Tensor, " d_vocab"], likeliest: int, entropy: float) -> Answer:
    labels = torch.stack([log_probs[list(ids)].logsumexp(0) for ids in asked.labels.values()])
    said = next((name for name, ids in asked.labels.items() if likeliest in ids), "")
    return Answer(labels, said, float(labels.logsumexp(0).exp()), entropy)
