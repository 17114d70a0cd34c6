"""Positions: which tokens of which rows, counted from the first real token of each row.

A selection is resolved against whole rows (`TokenBatch`), never against the piece of a row that a forward pass
happens to see: padding on either side, batching and a key/value cache cannot change what is selected.
`generated(0)` is the pass that *consumes* the first generated token; that token was produced at `prompt(-1)`.
"""

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from mechint.errors import PositionError


@dataclass(frozen=True)
class TokenBatch:
    """Rows of token ids with their padding, and optionally an attention structure of their own."""

    ids: Int[Tensor, "batch pos"]
    """Token ids; what stands at padding is never attended to."""
    real: Bool[Tensor, "batch pos"]
    """False at padding."""
    prompt_lengths: Int[Tensor, " batch"]
    """How many real tokens of each row are prompt; the rest was generated."""
    offset: Int[Tensor, "batch pos"]
    """Position of each token in its own text, from 0."""
    visible: Bool[Tensor, "batch query key"] | None = None
    """Which positions each position attends to; None for the ordinary causal order."""
    tokenizer: Any = field(default=None, repr=False, compare=False)
    """Only `after` needs it."""

    @classmethod
    def from_rows(
        cls,
        rows: Sequence[Sequence[int]],
        *,
        prompt_lengths: Sequence[int] | None = None,
        pad_left: bool = False,
        tokenizer: Any = None,
    ) -> "TokenBatch":
        """Pad rows of ids to one length; on the right, where the causal order hides the padding by itself.

        Examples:
            >>> TokenBatch.from_rows([[5, 6, 7], [8]], pad_left=True).ids.tolist()
            [[5, 6, 7], [0, 0, 8]]

        Raises:
            PositionError: no rows, or an empty one, or prompt lengths that do not fit them.
        """
        if not rows or any(len(row) == 0 for row in rows):
            raise PositionError(f"Expected rows of at least one token each, got lengths {[len(r) for r in rows]}.")
        lengths = torch.tensor([len(row) for row in rows])
        width = int(lengths.max())
        start = width - lengths if pad_left else torch.zeros_like(lengths)
        offset = torch.arange(width)[None] - start[:, None]
        real = (offset >= 0) & (offset < lengths[:, None])
        ids = torch.zeros(len(rows), width, dtype=torch.long)
        ids[real] = torch.tensor([token for row in rows for token in row])
        prompts = lengths if prompt_lengths is None else torch.tensor(prompt_lengths)
        if prompts.shape != lengths.shape or bool(((prompts < 0) | (prompts > lengths)).any()):
            raise PositionError(
                f"Expected a prompt length for each of {len(rows)} rows, at most that row's length, "
                f"got {prompts.tolist()[:8]}."
            )
        return cls(ids, real, prompts, offset.clamp(min=0), tokenizer=tokenizer)

    @property
    def lengths(self) -> Int[Tensor, " batch"]:
        """Real tokens of each row."""
        return self.real.sum(1)

    @property
    def padded_left(self) -> bool:
        """Whether some row starts with padding."""
        return bool((~self.real[:, 0]).any())

    def extended(self, ids: Int[Tensor, " batch"]) -> "TokenBatch":
        """Add one token to the end of every row; rows are padded on the left, so that they end together."""
        new = ids[:, None]
        return replace(
            self,
            ids=torch.cat([self.ids, new], 1),
            real=torch.cat([self.real, torch.ones_like(new, dtype=torch.bool)], 1),
            offset=torch.cat([self.offset, self.offset[:, -1:] + 1], 1),
        )

    def pick(self, places: Sequence[int]) -> "TokenBatch":
        """Return some of the rows, in the given order."""
        i = torch.tensor(list(places), dtype=torch.long)
        visible = None if self.visible is None else self.visible[i]
        return TokenBatch(self.ids[i], self.real[i], self.prompt_lengths[i], self.offset[i], visible, self.tokenizer)

    def repeat(self, times: int) -> "TokenBatch":
        """Stack `times` copies of all rows."""

        def tile(x: Tensor) -> Tensor:
            return x.repeat(times, *[1] * (x.ndim - 1))

        visible = None if self.visible is None else tile(self.visible)
        return TokenBatch(
            tile(self.ids),
            tile(self.real),
            tile(self.prompt_lengths),
            tile(self.offset),
            visible,
            self.tokenizer,
        )


@dataclass(frozen=True, eq=False)
class Positions:
    """A selection of tokens; combine with `|`, `&` and `-`.

    Examples:
        >>> batch = TokenBatch.from_rows([[5, 6, 7, 8], [9, 10]])
        >>> (prompt() - prompt(-1)).mask(batch).int().tolist()
        [[1, 1, 1, 0], [1, 0, 0, 0]]
    """

    name: str
    """How the selection prints."""
    resolve: Callable[[TokenBatch], Tensor] = field(repr=False, compare=False)
    """From a batch to a mask of the shape of its ids; padding is taken out afterwards."""

    def mask(self, batch: TokenBatch) -> Bool[Tensor, "batch pos"]:
        """Mark the selected tokens of a batch; never padding."""
        return self.resolve(batch) & batch.real

    def index(self, batch: TokenBatch) -> Int[Tensor, "batch at"]:
        """List the selected columns, of which every row must have the same number.

        Raises:
            PositionError: nothing is selected, or not equally much in every row.
        """
        mask = self.mask(batch)
        counts = mask.sum(1)
        if int(counts.min()) != int(counts.max()) or int(counts.max()) == 0:
            raise PositionError(
                f"{self.name} selects {counts.tolist()[:8]} tokens in the rows of this batch. Expected at least one, "
                "equally many in every row: choose by place, such as prompt(-1), or run rows of one length together."
            )
        return mask.nonzero()[:, 1].view(len(mask), -1)

    def __or__(self, other: "Positions") -> "Positions":
        return Positions(f"({self.name} | {other.name})", lambda b: self.resolve(b) | other.resolve(b))

    def __and__(self, other: "Positions") -> "Positions":
        return Positions(f"({self.name} & {other.name})", lambda b: self.resolve(b) & other.resolve(b))

    def __sub__(self, other: "Positions") -> "Positions":
        return Positions(f"({self.name} - {other.name})", lambda b: self.resolve(b) & ~other.resolve(b))

    def __str__(self) -> str:
        return self.name


everywhere = Positions("everywhere", lambda b: b.real)
"""Every real token."""


def _window(select: int | slice | None, length: Tensor, offset: Tensor) -> Tensor:
    """Apply Python's indexing rules row by row: `offset` counts from 0 within a stretch of `length` tokens."""
    if isinstance(select, int):
        return offset == (select if select >= 0 else length[:, None] + select)
    mask = torch.zeros_like(offset, dtype=torch.bool)
    for row, n in enumerate(length.tolist()):
        chosen = torch.tensor(range(n)[select or slice(None)], dtype=torch.long)
        mask[row] = torch.isin(offset[row], chosen)
    return mask


def prompt(select: int | slice | None = None) -> Positions:
    """Select prompt tokens: all, one (`prompt(-1)` is the last), or a slice.

    Examples:
        >>> prompt(-1).index(TokenBatch.from_rows([[5, 6, 7], [8]])).tolist()
        [[2], [0]]
    """
    name = f"prompt({'' if select is None else _print(select)})"

    def resolve(batch: TokenBatch) -> Tensor:
        inside = batch.offset < batch.prompt_lengths[:, None]
        return _window(select, batch.prompt_lengths, batch.offset) & inside & batch.real

    return Positions(name, resolve)


def generated(start: int = 0, stop: int | None = None) -> Positions:
    """Select generated tokens `start` to `stop` (excluded), counted from the first generated one.

    Examples:
        >>> batch = TokenBatch.from_rows([[5, 6, 7, 8]], prompt_lengths=[2])
        >>> generated(1).mask(batch).int().tolist()
        [[0, 0, 0, 1]]

    Raises:
        PositionError: a negative bound, which would depend on how much is generated later.
    """
    if start < 0 or (stop is not None and stop < start):
        raise PositionError(
            f"generated({start}, {stop}): expected 0 <= start <= stop, counted from the first generated token."
        )

    def resolve(batch: TokenBatch) -> Tensor:
        step = batch.offset - batch.prompt_lengths[:, None]
        return (step >= start) & (step < (stop if stop is not None else step.max() + 1))

    return Positions(f"generated({start}{'' if stop is None else f', {stop}'})", resolve)


def tokens(ids: Collection[int]) -> Positions:
    """Select tokens by their id, wherever they stand.

    Examples:
        >>> tokens({7}).mask(TokenBatch.from_rows([[5, 7, 7]])).int().tolist()
        [[0, 1, 1]]
    """
    wanted = torch.tensor(sorted(ids), dtype=torch.long)
    return Positions(f"tokens({set(ids)})", lambda b: torch.isin(b.ids, wanted))


def after(text: str) -> Positions:
    """Select every token that starts at or after the end of the first occurrence of `text` in its row.

    Raises:
        PositionError: the text is empty; or, when resolved, the batch has no tokenizer.
    """
    if not text:
        raise PositionError("after(''): expected a text that can be looked for.")

    def resolve(batch: TokenBatch) -> Tensor:
        if batch.tokenizer is None:
            raise PositionError(f"after({text!r}) needs the text of the tokens: make the batch with its tokenizer.")
        mask = torch.zeros_like(batch.real)
        for row in range(len(batch.ids)):
            columns = batch.real[row].nonzero()[:, 0].tolist()
            ids = batch.ids[row, columns].tolist()
            found = str(batch.tokenizer.decode(ids)).find(text)
            if found >= 0:
                # Decoded as wholes: a tokenizer may put blanks between tokens that none of them holds.
                starts = [len(str(batch.tokenizer.decode(ids[:i]))) for i in range(len(ids))]
                mask[row, [c for c, s in zip(columns, starts, strict=True) if s >= found + len(text)]] = True
        return mask

    return Positions(f"after({text!r})", resolve)


def rows(which: Iterable[int]) -> Positions:
    """Select all tokens of some rows of the batch, counted from 0; meant to be combined with `&`."""
    chosen = sorted(which)

    def resolve(batch: TokenBatch) -> Tensor:
        if chosen and (chosen[0] < 0 or chosen[-1] >= len(batch.ids)):
            raise PositionError(f"rows({chosen}): this batch has rows 0 to {len(batch.ids) - 1}.")
        mask = torch.zeros_like(batch.real)
        mask[chosen] = True
        return mask

    return Positions(f"rows({chosen})", resolve)


def columns(index: Int[Tensor, "batch at"]) -> Positions:
    """Select columns of the batch, row by row: for callers that have computed the places themselves.

    A selection has no order: what is read comes in the order of the text, and a place given twice comes once.
    """

    def resolve(batch: TokenBatch) -> Tensor:
        if int(index.min()) < 0 or int(index.max()) >= batch.ids.shape[1] or len(index) not in (1, len(batch.ids)):
            raise PositionError(
                f"columns: got {len(index)} rows of places up to {int(index.max())}. Expected 1 or {len(batch.ids)} "
                f"rows of places from 0 to {batch.ids.shape[1] - 1}."
            )
        return torch.zeros_like(batch.real).scatter(1, index.expand(len(batch.ids), -1), True)

    return Positions(f"columns({list(index.shape)})", resolve)


def _print(select: int | slice) -> str:
    if isinstance(select, int):
        return str(select)
    parts = [select.start, select.stop] + ([select.step] if select.step is not None else [])
    return ":".join("" if p is None else str(p) for p in parts)
