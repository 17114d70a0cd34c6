r"""Ranks of each row's own column in a matrix whose columns come in blocks, and how many rows have a low one.

    rank_i = #{j != i : M_ij < M_ii} + #{j != i : M_ij = M_ii} / 2                      (mid-rank)

Half of the ties count: where nothing tells columns apart, as for a dead head, the rank is the middle one and not 0. A
row's own value comes from the product of its block, since products of different shapes differ in their last bits.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mechint.errors import ConfigError

LOW_SHARE = 0.05
FEW = 10
_FLAGS_A_SUM = 1024
"""Of which each byte of a sum of int64 gets an eighth: 128, below the 255 that it can hold."""


class OwnRanks:
    """Counts of columns below each row's own, over blocks of columns; the first block begins with the rows' own."""

    def __init__(self) -> None:
        self._own: Tensor | None = None
        self._below = self._equal = torch.zeros(0)

    def add(self, values: Float[Tensor, "*batch row column"], counted: Bool[Tensor, " column"] | None = None) -> None:
        """Take in a block of columns.

        Args:
            values: of the first block, `values[..., i, i]` is the own value of row i.
            counted: which columns are ranked among; all by default. A row's own column may be one of them.
        """
        if self._own is None:
            self._own = values.diagonal(dim1=-2, dim2=-1)[..., None].clone()
            n_rows = values.shape[-2]
            itself = torch.ones(n_rows) if counted is None else counted[:n_rows]
            self._below = torch.zeros(values.shape[:-1], dtype=torch.long)
            self._equal = self._below - itself.long()  # a column ties with itself
        compared = values if counted is None else values[..., counted]
        self._below += _count(compared < self._own)
        self._equal += _count(compared == self._own)

    @property
    def ranks(self) -> Float[Tensor, "*batch row"]:
        """Mid-ranks among the columns that came, the own one left out; 0 is the lowest."""
        return (self._below.double() + 0.5 * self._equal.double()).float()

    @property
    def ties(self) -> Int[Tensor, "*batch row"]:
        """How many other columns have a row's own value."""
        return self._equal


@dataclass(frozen=True)
class RankCounts:
    """How many rows have a low rank: numerators for `statistics.wilson`, whose denominator is `rows`."""

    first: Int[Tensor, "*batch"]
    """Rank 0: no other column is as low, or as low as it."""
    below_10: Int[Tensor, "*batch"]
    below_5_percent: Int[Tensor, "*batch"]
    """Rank below 5 % of the vocabulary."""
    rows: int


def rank_counts(ranks: Float[Tensor, "*batch row"], d_vocab: int) -> RankCounts:
    """Count rows whose own rank is 0, below 10, and below 5 % of the vocabulary.

    Args:
        ranks: mid-ranks, scaled to the vocabulary if they are among fewer columns.
        d_vocab: size of the vocabulary.

    Raises:
        ConfigError: ranks that no vocabulary of this size has.
    """
    if ranks.numel() and not 0 <= float(ranks.min()) <= float(ranks.max()) <= d_vocab - 1:
        raise ConfigError(
            f"Ranks from {float(ranks.min()):g} to {float(ranks.max()):g} in a vocabulary of {d_vocab}. Expected 0 to "
            f"{d_vocab - 1}."
        )
    return RankCounts(
        first=(ranks == 0).sum(-1),
        below_10=(ranks < FEW).sum(-1),
        below_5_percent=(ranks < LOW_SHARE * d_vocab).sum(-1),
        rows=ranks.shape[-1],
    )


def _count(flags: Bool[Tensor, "*batch column"]) -> Int[Tensor, "*batch"]:
    """Count the True of each row of a contiguous tensor, eight to an addition, since each is a byte.

    On a CPU fifteen times as fast as `flags.sum(-1)`, which makes an int64 of every flag first.

    Examples:
        >>> _count(torch.ones(2, 5000, dtype=torch.bool)), _count(torch.arange(5) < 2)
        (tensor([5000, 5000]), tensor(2))
    """
    sums = flags.shape[-1] // _FLAGS_A_SUM
    if sums == 0:
        return flags.sum(-1)
    whole = sums * _FLAGS_A_SUM
    words = flags[..., :whole].contiguous().view(torch.int64).unflatten(-1, (sums, _FLAGS_A_SUM // 8))
    return words.sum(-1).view(torch.uint8).sum(-1) + flags[..., whole:].sum(-1)
