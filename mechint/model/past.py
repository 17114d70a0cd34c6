"""What a model has read already: keys and values, so that reading on costs only the new tokens.

A `Past` belongs to one batch of rows and grows as `Model.run` reads more of them; all rows grow together, so rows of
different lengths are padded on the left. To try something on the side, fork it: cropping a cache back is not an
alternative, since sliding-window layers have thrown away what they would need (transformers raises there).
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from mechint.errors import PositionError
from mechint.positions import TokenBatch


@dataclass(eq=False)
class Past:
    """Keys and values of the columns of a batch that have been read."""

    cache: Any
    """The backend's own cache; grows in place."""
    length: int = 0
    """Columns of the batch, padding included, that it holds."""
    n_rows: int | None = None
    """Rows that it holds; None while it is empty."""

    def check(self, batch: TokenBatch) -> None:
        """Make sure that a batch goes on where this past ends.

        Raises:
            PositionError: it does not, or its rows are not padded on the left.
        """
        n_rows, width = batch.ids.shape
        if width <= self.length:
            raise PositionError(
                f"The past holds {self.length} columns and the batch {width}: nothing is left to read. "
                "Give the whole rows, with the new tokens at their end."
            )
        if self.n_rows not in (None, n_rows):
            raise PositionError(
                f"The past holds {self.n_rows} rows, the batch {n_rows}. Fork or keep the rows that are meant."
            )
        if not bool(batch.real[:, -1].all()) or batch.visible is not None:
            raise PositionError("Rows that go on from a past are plain texts padded on the left: make the batch so.")

    def grow(self, batch: TokenBatch) -> int:
        """Take note that the rest of a batch is being read, and return the column at which it begins."""
        start = self.length
        self.n_rows, self.length = batch.ids.shape
        return start

    def fork(self, rows: Sequence[int] | None = None) -> "Past":
        """Copy it, for all rows or some of them (a row may be named twice); the original is not touched by the copy."""
        copied = copy.deepcopy(self)
        if rows is not None:
            copied.keep(rows)
        return copied

    def keep(self, rows: Sequence[int]) -> None:
        """Keep these rows only, in this order, in place."""
        if self.length:
            self.cache.batch_select_indices(torch.tensor(list(rows), dtype=torch.long))
            self.n_rows = len(rows)
