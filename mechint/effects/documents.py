"""Documents: texts cut to one length, for measurements at every position instead of at the last one.

Texts that are too short are left out and counted, not padded: means at a position are then means over all documents.
The first token (BOS where the tokenizer has one) is where heads rest; it is neither a destination nor a source of
interest, so measurements leave out position 0 unless they say otherwise.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from mechint.errors import ConfigError, PromptError
from mechint.model.base import Model
from mechint.prompts import PromptSet, encode

TOKENS_A_PASS = 1024
"""Rows x tokens of one pass: larger passes are no faster on a CPU, and this bounds memory."""


@dataclass(frozen=True)
class Documents:
    """Token rows of one length.

    Examples:
        >>> texts = Documents(("a", "b"), ("a", "b"), torch.tensor([[0, 5, 5], [0, 7, 8]]))
        >>> texts.first_occurrence.int().tolist(), texts.next_tokens.tolist()
        ([[1, 1, 0], [1, 1, 1]], [[5, 5], [7, 8]])
    """

    ids: tuple[str, ...]
    clusters: tuple[str, ...]
    """Documents of one cluster are drawn together in the bootstrap, as those of one chapter are."""
    tokens: Int[Tensor, "batch pos"]
    n_too_short: int = 0
    """Texts that were left out."""

    @classmethod
    def cut(cls, prompts: PromptSet, model: Model, length: int) -> "Documents":
        """Cut texts to `length` tokens, BOS included, and leave out those that are shorter.

        Raises:
            ConfigError: a length below 4, or beyond the model's context.
            PromptError: fewer than two texts are that long.
        """
        if not 4 <= length <= model.facts.n_ctx:
            raise ConfigError(f"Documents of {length} tokens: {model.facts.name} reads 4 to {model.facts.n_ctx}.")
        encoded = encode(prompts, model.tokenizer)
        long = [i for i, row in enumerate(encoded.tokens) if len(row) >= length]
        if len(long) < 2:
            raise PromptError(
                f"{len(long)} of {len(prompts)} texts in {prompts.name!r} have {length} tokens; at least two are "
                "needed. Give longer texts, or ask for shorter documents."
            )
        return cls(
            tuple(encoded.ids[i] for i in long),
            tuple(encoded.clusters[i] for i in long),
            torch.tensor([encoded.tokens[i][:length] for i in long]),
            len(prompts) - len(long),
        )

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def length(self) -> int:
        """Tokens of each document."""
        return self.tokens.shape[1]

    @property
    def next_tokens(self) -> Int[Tensor, "batch at"]:
        """The token that follows each position but the last."""
        return self.tokens[:, 1:]

    @property
    def first_occurrence(self) -> Bool[Tensor, "batch pos"]:
        """Whether a token stands here for the first time in its document."""
        same = self.tokens[:, :, None] == self.tokens[:, None, :]
        return ~torch.tril(same, diagonal=-1).any(-1)

    def pick(self, which: Sequence[int]) -> "Documents":
        """Return some of the documents."""
        return Documents(
            tuple(self.ids[i] for i in which), tuple(self.clusters[i] for i in which), self.tokens[list(which)]
        )

    def batches(self, tokens_a_pass: int | None = None) -> Iterator["Documents"]:
        """Yield the documents in groups for one pass each, so that memory does not grow with their number."""
        for which in self.groups(tokens_a_pass):
            yield self.pick(which)

    def groups(self, tokens_a_pass: int | None = None) -> list[list[int]]:
        """List the groups of `batches`, as indices."""
        size = max(1, (tokens_a_pass or TOKENS_A_PASS) // self.length)
        return [list(range(i, min(i + size, len(self)))) for i in range(0, len(self), size)]
