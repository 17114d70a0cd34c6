"""One pass over many texts: buckets of like length, blocks after the last site left out, no logits.

Texts are sorted by length and cut into buckets of at most 512 tokens, padding included: on a CPU small passes are
fastest, and with fixed batches in the given order a third of all tokens is padding. Positions are resolved before the
model runs, so a selection that matches nothing costs nothing. All tokens of a site are looked at anyway, so that the
median |h| over them, the unit of dose, comes for free.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from tqdm.auto import tqdm

from mechint.capture.texts import AnyTexts, Texts
from mechint.errors import PositionError, SiteError
from mechint.model.base import Model
from mechint.positions import Positions, TokenBatch
from mechint.sites import Site

TOKENS_A_BUCKET = 512
Pooled = Literal["mean", "last"] | None
Sites = str | Site | Iterable[str | Site]


@dataclass(frozen=True)
class Bucket:
    """What one forward pass gave."""

    rows: list[int]
    """Which texts, by their place."""
    values: dict[Site, Float[Tensor, "batch at width"]]
    """At the selected positions; float32 on the CPU."""
    norms: dict[Site, Float[Tensor, " pos"]]
    """|h| of every real token but the first of each text."""


@dataclass(frozen=True)
class Passes:
    """A recording that is planned and checked, but not run."""

    model: Model
    texts: Texts
    sites: tuple[Site, ...]
    """In forward order."""
    widths: tuple[int, ...]
    tokens: list[list[int]]
    at: Positions
    pooled: Pooled
    selected: list[list[int]]
    """The positions in each text, after pooling: of "last" only the last one, of "mean" all that go into the mean."""
    buckets: list[list[int]]

    @classmethod
    def plan(cls, model: Model, texts: AnyTexts, sites: Sites, at: Positions, pooled: Pooled) -> "Passes":
        """Check and resolve everything that can be known before the model runs.

        Raises:
            SiteError: the model has no such site, or it holds more than one vector a token.
            PositionError: the positions match nothing in a text, or not equally much in all without pooling.
            PromptError: no texts, or one that the model cannot read.
        """
        given = [sites] if isinstance(sites, str | Site) else list(sites)
        if not given:
            raise SiteError("No site was given. Name at least one, such as 'L9.resid_post'.")
        chosen = tuple(sorted({model.facts.check(site) for site in given}))
        widths = tuple(width_at(model, site) for site in chosen)
        listed = Texts.of(texts)
        rows = listed.tokens(model.tokenizer, model.facts.n_ctx)
        buckets = _buckets([len(row) for row in rows])
        selected: list[list[int]] = [[]] * len(rows)
        for bucket in buckets:
            batch = _batch(model, rows, bucket)
            for row, mask in zip(bucket, at.mask(batch), strict=True):
                selected[row] = mask.nonzero()[:, 0].tolist()
        _require_positions(listed, at, selected, pooled)
        if pooled == "last":
            selected = [places[-1:] for places in selected]
        return cls(model, listed, chosen, widths, rows, at, pooled, selected, buckets)

    @property
    def n_at(self) -> int:
        """Vectors that are kept of each text at each site."""
        return 1 if self.pooled else len(self.selected[0])

    @property
    def n_tokens(self) -> int:
        """Real tokens of all texts."""
        return sum(map(len, self.tokens))

    @property
    def n_bytes(self) -> int:
        """Bytes of what is kept."""
        return 4 * len(self.tokens) * self.n_at * sum(self.widths)

    @property
    def where(self) -> str:
        """How the vectors that are kept are chosen among the tokens, in words."""
        return str(self.at) if self.pooled is None else f"{self.pooled} of {self.at}"

    @property
    def data(self) -> dict[str, str]:
        """Name and hash of the texts."""
        return {"name": self.texts.name, "hash": self.texts.content_hash}

    def run(self, progress: bool | None = None) -> Iterator[Bucket]:
        """Run the model on one bucket after the other."""
        hidden = None if progress is None else not progress
        with tqdm(total=self.n_tokens, desc="recording", unit="token", disable=hidden) as bar:
            for rows in self.buckets:
                yield self._bucket(rows)
                bar.update(sum(len(self.tokens[row]) for row in rows))

    def _bucket(self, rows: list[int]) -> Bucket:
        batch = _batch(self.model, self.tokens, rows)
        mask = torch.zeros_like(batch.real)
        for i, row in enumerate(rows):
            mask[i, self.selected[row]] = True
        with self.model.bare():
            run = self.model.run(batch, read=self.sites, stop_after=self.sites[-1])
        reference = batch.real & (batch.offset > 0)
        values: dict[Site, Tensor] = {}
        norms: dict[Site, Tensor] = {}
        for site in self.sites:
            h = run[site].float().cpu()
            norms[site] = h[reference].norm(dim=-1)
            values[site] = _mean(h, mask) if self.pooled == "mean" else h[mask].view(len(rows), -1, h.shape[-1])
        return Bucket(rows, values, norms)


def width_at(model: Model, site: Site) -> int:
    """Return how many numbers a token has at a site.

    Raises:
        SiteError: not one vector: attention scores and patterns, or all heads together.
    """
    if site.axes[-1] == "key":
        raise SiteError(f"{site} has no vector a token. Read it with model.run(...), or record L{site.layer}.attn_out.")
    if site.per_head and site.head is None:
        example = Site(site.component, site.layer, 0)
        raise SiteError(f"{site} has one vector for each head. Name heads, such as {example}.")
    if site.axes[-1] == "d_mlp" and site.layer is not None:
        return len(model.mlp_output_weights(site.layer)[0])
    return model.facts.d_head if site.per_head else model.facts.d_model


def _batch(model: Model, tokens: Sequence[Sequence[int]], rows: Sequence[int]) -> TokenBatch:
    return TokenBatch.from_rows([tokens[row] for row in rows], tokenizer=model.tokenizer)


def _buckets(lengths: Sequence[int]) -> list[list[int]]:
    """Group rows of like length, so that each group padded to its longest row stays within the budget."""
    buckets: list[list[int]] = [[]]
    for row in sorted(range(len(lengths)), key=lambda row: lengths[row]):
        if buckets[-1] and lengths[row] * (len(buckets[-1]) + 1) > TOKENS_A_BUCKET:
            buckets.append([])
        buckets[-1].append(row)
    return buckets


def _require_positions(texts: Texts, at: Positions, selected: Sequence[Sequence[int]], pooled: Pooled) -> None:
    if pooled not in (None, "mean", "last"):
        raise PositionError(f"pooled={pooled!r}: expected 'mean', 'last', or None for every selected token.")
    counts = [len(places) for places in selected]
    if 0 in counts:
        row = counts.index(0)
        raise PositionError(
            f"{at} matches nothing in {counts.count(0)} of {len(counts)} texts of {texts.name!r} (first: "
            f"{texts.ids[row]!r}, {texts.texts[row][:60]!r}). Choose positions that every text has."
        )
    if pooled is None and min(counts) != max(counts):
        raise PositionError(
            f"{at} selects {min(counts)} to {max(counts)} tokens in the texts of {texts.name!r}. Expected equally "
            "many: choose by place, such as prompt(-1), or give pooled='mean' or pooled='last'."
        )


def _mean(h: Float[Tensor, "batch pos width"], mask: Bool[Tensor, "batch pos"]) -> Float[Tensor, "batch 1 width"]:
    # Padding may hold anything, so it is taken out and not multiplied by zero.
    total = h.masked_fill(~mask[..., None], 0.0).sum(1, keepdim=True)
    return total / mask.sum(1)[:, None, None]
