"""What the tests of steering share: four families, prompts of different lengths, a vector, plain transformers."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from mechint.positions import Positions, TokenBatch, generated, prompt
from mechint.sites import Site
from mechint.vectors.vector import SteeringVector
from tests.families import plain

FAMILIES = ("gpt2", "llama", "gemma3", "qwen3")
# Of 1 to 13 tokens and BOS: longer than the window of 8 of the tiny Gemma before and while it writes.
PROMPTS = ["w5 w6 w7", "w9", "w3 w4 w5 w6 w8 w9 w10 w11 w12 w20 w21 w3 w44", "w30 w31"]
SITE = Site("resid_post", 1)
PRODUCING = generated() | prompt(-1)
NO_END = frozenset[int]()


def vector(seed: int = 0, site: Site = SITE, norm: float = 2.0, width: int = 32) -> SteeringVector:
    direction = torch.randn(width, generator=torch.Generator().manual_seed(seed))
    return SteeringVector({site: direction}, {site: norm}, f"concept {seed}", "random")


def by_transformers(
    family: str, rows: Sequence[Sequence[int]], n: int, step: Tensor | None = None, where: Positions = PRODUCING
) -> list[list[int]]:
    """What plain transformers generates, with a raw hook that adds `step` after block 1 at the given positions."""
    model = plain(family)
    batch = TokenBatch.from_rows(rows, pad_left=True)
    width = batch.ids.shape[1]
    blocks = model.transformer.h if family == "gpt2" else model.model.layers
    seen = [0]

    def hook(module: Any, args: Any, output: Any) -> Any:
        whole, tensor = batch, output[0] if isinstance(output, tuple) else output
        start, seen[0] = seen[0], seen[0] + tensor.shape[1]
        for _ in range(seen[0] - width):
            whole = whole.extended(torch.zeros(len(rows), dtype=torch.long))
        mask = where.mask(whole)[:, start : seen[0]]
        new = tensor + mask[..., None] * step
        return (new, *output[1:]) if isinstance(output, tuple) else new

    handle = blocks[1].register_forward_hook(hook) if step is not None else None
    out = model.generate(
        batch.ids,
        attention_mask=batch.real.long(),
        max_new_tokens=n,
        do_sample=False,
        eos_token_id=None,
        pad_token_id=0,
    )
    if handle is not None:
        handle.remove()
    return out[:, width:].tolist()
