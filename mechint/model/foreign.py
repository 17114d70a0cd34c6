"""Passes that others start, such as `hf_model.generate`, read as whole rows with a place for every token.

A steering decides by whole rows: what was prompt, what was generated, what the text says. transformers' own loop hands
over pieces: the prompt, then one token at a time with a cache. Here the pieces are put together again. The prompt is
what the first pass with an empty cache reads. Rows that beam search reorders can be told apart by nobody afterwards:
selections by place stay right, those by text may follow the wrong beam.
"""

from typing import Any

import torch
from torch import Tensor

from mechint.errors import InterventionError
from mechint.positions import TokenBatch


class ForeignRows:
    """The rows of a text that somebody else is reading into a model, piece by piece."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._rows: TokenBatch | None = None

    def read(self, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> tuple[TokenBatch, int]:
        """Take note of a pass; returns the whole rows, and the column at which this pass begins.

        Raises:
            InterventionError: the pass has no token ids, or goes on from a cache whose beginning was not seen.
        """
        given = keywords.get("input_ids", arguments[0] if arguments else None)
        if not isinstance(given, Tensor):
            raise InterventionError(
                "A pass without token ids (inputs_embeds) cannot be steered: positions are unknown. Give input_ids."
            )
        ids = given.detach().cpu()
        cache = keywords.get("past_key_values")
        start = 0 if cache is None else int(cache.get_seq_length())
        mask = keywords.get("attention_mask")
        if isinstance(mask, Tensor) and mask.ndim == 2:
            real = mask.detach().cpu().bool()[:, : start + ids.shape[1]]
        elif start and self._rows is not None and len(self._rows.ids) == len(ids):
            real = torch.cat([self._rows.real, torch.ones_like(ids, dtype=torch.bool)], 1)
        else:
            real = torch.ones_like(ids, dtype=torch.bool)
        if start:
            ids = torch.cat([self._before(start, len(ids)).ids, ids], 1)
        prompts = real.sum(1) if not start or self._rows is None else self._rows.prompt_lengths
        offset = (real.cumsum(1) - 1).clamp(min=0)
        self._rows = TokenBatch(ids, real, prompts, offset, tokenizer=self._tokenizer)
        return self._rows, start

    def _before(self, start: int, n_rows: int) -> TokenBatch:
        rows = self._rows
        if rows is None or rows.ids.shape != (n_rows, start):
            seen = "nothing" if rows is None else f"{len(rows.ids)} rows of {rows.ids.shape[1]} tokens"
            raise InterventionError(
                f"A pass goes on from a cache of {start} tokens in {n_rows} rows, of which {seen} was read under this "
                "plan. Start generating inside the context."
            )
        return rows
