"""Prefix sharing: texts that begin alike are computed once as far as they are alike.

In a causal model the activations at a token depend on the tokens before it only. The distinct prefixes of a set of
texts form a tree; laid out as one row, with each node attending to its ancestors at their own positions, one pass over
the nodes gives what one pass over all texts would give. Two-name prompts share half of their tokens or more.
Valid for interventions that do the same to every text that shares a prefix, as zero and mean ablation do.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from mechint.positions import TokenBatch


@dataclass(frozen=True)
class PrefixTree:
    """Texts laid out as the nodes of their prefix tree.

    Examples:
        >>> tree = PrefixTree.build([[1, 2, 3], [1, 2, 4]])
        >>> tree.batch.ids.tolist(), tree.ends.tolist()
        ([[1, 2, 3, 4]], [2, 3])
    """

    batch: TokenBatch
    """One row of nodes."""
    ends: Int[Tensor, " prompt"]
    """The node of the last token of each text."""

    @classmethod
    def build(cls, rows: Sequence[Sequence[int]]) -> "PrefixTree":
        """Lay out texts given as rows of token ids."""
        children: list[dict[int, int]] = []
        roots: dict[int, int] = {}
        ids: list[int] = []
        parents: list[int] = []
        ends: list[int] = []
        for row in rows:
            node, level = -1, roots
            for token in row:
                if token not in level:
                    level[token] = len(ids)
                    ids.append(token)
                    parents.append(node)
                    children.append({})
                node = level[token]
                level = children[node]
            ends.append(node)
        visible = torch.eye(len(ids), dtype=torch.bool)
        depth = torch.zeros(len(ids), dtype=torch.long)
        for node, parent in enumerate(parents):  # parents come before their children
            if parent >= 0:
                visible[node] |= visible[parent]
                depth[node] = depth[parent] + 1
        batch = TokenBatch(
            ids=torch.tensor([ids]),
            real=torch.ones(1, len(ids), dtype=torch.bool),
            prompt_lengths=torch.tensor([len(ids)]),
            offset=depth[None],
            visible=visible[None],
        )
        return cls(batch, torch.tensor(ends))


def count_prefixes(rows: Sequence[Sequence[int]]) -> int:
    """Count the distinct prefixes of a set of texts: the nodes of their tree.

    Examples:
        >>> count_prefixes([[1, 2, 3], [1, 2, 4]])
        4
    """
    return len({tuple(row[: i + 1]) for row in rows for i in range(len(row))})
