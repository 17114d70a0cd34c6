"""How a set of prompts is laid out for a forward pass, and how to find each prompt's last token in what comes back."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mechint import positions
from mechint.model.base import Model, Run
from mechint.model.prefixes import PrefixTree, count_prefixes
from mechint.positions import Positions, TokenBatch
from mechint.sites import Site

# A tree pays if it is at least this much less work than rows.
_LEAST_SAVING = 0.05


@dataclass(frozen=True)
class Layout:
    """Prompts as rows, or as one row of distinct prefixes.

    Examples:
        >>> layout = Layout.as_rows([[5, 6, 7], [8]])
        >>> layout.row.tolist(), layout.slot.tolist()
        ([0, 1], [0, 0])
    """

    batch: TokenBatch
    last: Positions
    """The last token of every prompt, each place once."""
    row: Int[Tensor, " prompt"]
    """In which row of the batch each prompt ends."""
    slot: Int[Tensor, " prompt"]
    """Which of the places that `last` picks in that row is its end."""

    @classmethod
    def as_rows(cls, rows: Sequence[Sequence[int]]) -> "Layout":
        """One row a prompt, padded on the right."""
        n = len(rows)
        return cls(TokenBatch.from_rows(rows), positions.prompt(-1), torch.arange(n), torch.zeros(n, dtype=torch.long))

    @classmethod
    def as_tree(cls, rows: Sequence[Sequence[int]]) -> "Layout":
        """One row of distinct prefixes, each computed once."""
        tree = PrefixTree.build(rows)
        places, slot = tree.ends.unique(return_inverse=True)
        return cls(tree.batch, positions.columns(places[None]), torch.zeros(len(rows), dtype=torch.long), slot)

    @classmethod
    def choose(cls, model: Model, rows: Sequence[Sequence[int]], share_prefixes: bool) -> "Layout":
        """Share prefixes where that is allowed, exact and less work."""
        longest, nodes = max(map(len, rows)), count_prefixes(rows)
        if not share_prefixes or longest > model.facts.shortest_window:
            return cls.as_rows(rows)
        # Linear maps cost in proportion to the tokens, attention to their number times what each attends to; a block
        # has about 24 d_model² operations a token, and 8 d_model for each pair (memory traffic counted in).
        tree = nodes * (1 + nodes / (3 * model.facts.d_model))
        plain = len(rows) * longest * (1 + longest / (3 * model.facts.d_model))
        return cls.as_tree(rows) if tree < (1 - _LEAST_SAVING) * plain else cls.as_rows(rows)

    @property
    def n_prompts(self) -> int:
        """How many prompts are laid out."""
        return len(self.row)

    def per_prompt(self, values: Float[Tensor, "batch at ..."], copies: int = 1) -> Float[Tensor, "prompt ..."]:
        """Turn what was read at `last` in a batch of `copies` of this layout into one entry a copy and prompt."""
        stacked = values.view(copies, -1, *values.shape[1:])
        return stacked[:, self.row, self.slot].flatten(0, 1)

    def gather(self, run: Run, sites: Mapping[str | Site, Positions], copies: int = 1) -> Run:
        """Return a run whose rows are copies x prompts, with one position: the last token of each prompt."""
        return Run({Site.parse(s): self.per_prompt(run[s], copies)[:, None] for s in sites}, None, run.receipt)


def chunks(rows: Sequence[Sequence[int]], budget: int = 256) -> list[range]:
    """Cut prompts into runs of neighbours of about `budget` tokens, so that memory does not grow with their number.

    Examples:
        >>> chunks([[1] * 100] * 5, budget=200)
        [range(0, 2), range(2, 4), range(4, 5)]
    """
    pieces: list[range] = []
    start = used = 0
    for i, row in enumerate(rows):
        if i > start and used + len(row) > budget:
            pieces.append(range(start, i))
            start, used = i, 0
        used += len(row)
    return [*pieces, range(start, len(rows))]
