"""Ranks counted over blocks of columns: equal to counting all at once, whatever the sizes of the blocks."""

import pytest
import torch

from mechint.effects.ranks import OwnRanks


@pytest.mark.parametrize("block", [1023, 1024, 1025, 2048, 5000])
def test_wide_blocks_are_counted_exactly_with_ties(block: int) -> None:
    values = torch.randint(0, 40, (2, 3, 5000), generator=torch.Generator().manual_seed(0)).float()
    values[0, 0, 1:] = -1.0  # every other column is below: the largest count that there is
    values[0, 0, 0] = 0.0
    counted = OwnRanks()

    for start in range(0, 5000, block):
        counted.add(values[..., start : start + block])

    own = values.diagonal(dim1=-2, dim2=-1)[..., None]
    assert counted.ties.equal((values == own).long().sum(-1) - 1)
    assert counted.ranks.equal(((values < own).double().sum(-1) + counted.ties / 2).float())
    assert counted.ranks[0, 0] == 4999
