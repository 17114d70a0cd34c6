r"""What many slightly different outputs of a model would predict: entropies, likeliest tokens, extremes of a direction.

For N positions with normalised stream x (x · W_U + b = logits) and J changes dx of it, the logits of output 0 are the
clean ones, those of output j the clean ones plus dx_j · W_U; a final soft-cap is applied to the sum. p being the
softmax,

    entropy   H = -sum_v p_v log p_v = log Z - sum_v e^(l_v - m) (l_v - m) / Z,      Z = sum_v e^(l_v - m), in nats

The vocabulary is walked through in blocks with a running maximum m, so that no [position, vocabulary] table is kept.
Sums within a block are in the format of x, sums over blocks in float64: in float32 throughout, sums over 262,144 tokens
lose half of their digits. (`divergence` gives KL and losses; this gives what every changed output predicts.)
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mechint.model.base import Model

BLOCK, ROWS = 4096, 256
"""Vocabulary entries, and outputs x positions, of one matrix product: together 4 MB, which stays near the processor."""


@dataclass(frozen=True)
class Predictions:
    """Predictions of the clean output (entry 0) and of every changed one."""

    entropy: Float[Tensor, "change at"]
    """In nats."""
    log_partition: Float[Tensor, "change at"]
    """log sum_v e^(l_v): a token's log-probability is its logit minus this."""
    tokens: Int[Tensor, "change at column"]
    """The likeliest tokens, in falling order."""
    probabilities: Float[Tensor, "change at column"]


def predictions(
    model: Model,
    normalised: Float[Tensor, "at d_model"],
    changes: Float[Tensor, "change at d_model"],
    top: int = 3,
    *,
    block: int = BLOCK,
    rows: int = ROWS,
) -> Predictions:
    """Return entropies and likeliest tokens of the clean output and of every changed one.

    Args:
        model: the model whose unembedding is meant.
        normalised: output of the final norm; float64 makes everything float64.
        changes: what is added to it (see `head_outputs.to_logits`), J of them.
        top: how many of the likeliest tokens.
        block: vocabulary entries of one matrix product.
        rows: outputs x positions of one matrix product.
    """
    at_once = max(1, rows // (len(changes) + 1))
    pieces = [
        _predict(model, normalised[start : start + at_once], changes[:, start : start + at_once], top, block)
        for start in range(0, len(normalised), at_once)
    ]
    parts = [torch.cat([getattr(piece, name) for piece in pieces], 1) for name in Predictions.__dataclass_fields__]
    return Predictions(*parts)


def _predict(
    model: Model,
    normalised: Float[Tensor, "at d_model"],
    changes: Float[Tensor, "change at d_model"],
    top: int,
    block: int,
) -> Predictions:
    shape, cap = (len(changes) + 1, len(normalised)), model.facts.logit_cap
    stacked = torch.cat([normalised[None], changes]).flatten(0, 1)
    # The running sums: of e^(l - m), and of e^(l - m) (l - m).
    highest = torch.full(shape, -torch.inf, dtype=torch.float64)
    total, weighted = torch.zeros(shape, dtype=torch.float64), torch.zeros(shape, dtype=torch.float64)
    best = _Extremes(top, sign=1)
    for start in range(0, model.facts.d_vocab, block):
        columns = slice(start, min(start + block, model.facts.d_vocab))
        logits = (stacked @ model.unembedding(columns).to(stacked.dtype).T).view(*shape, -1)
        logits[0] += model.output_bias(columns).to(stacked.dtype)
        # The clean logits are computed once and added to each change, so that a difference of two outputs is that of
        # the change alone, not of two roundings.
        logits[1:] += logits[0]
        if cap is not None:
            logits = cap * torch.tanh(logits / cap)
        best.update(logits, start)
        new = torch.maximum(highest, logits.amax(-1).double())
        shrink = (highest - new).exp()
        # At the first block nothing is there yet to be shifted, and its old maximum is -infinity.
        shift = torch.where(highest.isinf(), 0.0, (highest - new) * total)
        less = logits.sub_(new.to(logits.dtype)[..., None])
        weight = less.exp()
        weighted = (weighted + shift) * shrink + torch.einsum("jnv,jnv->jn", weight, less).double()
        total = total * shrink + weight.sum(-1).double()
        highest = new
    log_partition = highest + total.log()
    return Predictions(
        entropy=total.log() - weighted / total,
        log_partition=log_partition,
        tokens=best.tokens,
        probabilities=(best.values.double() - log_partition[..., None]).exp(),
    )


def extreme_tokens(
    model: Model,
    stream: Float[Tensor, "at d_model"],
    count: int,
    *,
    lowest: bool = False,
    with_bias: bool = True,
    block: int = BLOCK,
    rows: int = ROWS,
) -> Int[Tensor, "at column"]:
    """Return the tokens with the highest, or lowest, products with W_U, the most extreme first.

    Args:
        model: the model whose unembedding is meant.
        stream: output of the final norm, or a change of it.
        count: how many tokens.
        lowest: the lowest instead of the highest.
        with_bias: add the bias of the unembedding, as logits have it and changes of logits have not.
        block: vocabulary entries of one matrix product.
        rows: positions of one matrix product.
    """
    found: list[Tensor] = []
    for first in range(0, len(stream), rows):
        piece, best = stream[first : first + rows], _Extremes(count, sign=-1 if lowest else 1)
        for start in range(0, model.facts.d_vocab, block):
            columns = slice(start, min(start + block, model.facts.d_vocab))
            products = piece @ model.unembedding(columns).to(piece.dtype).T
            best.update(products + model.output_bias(columns).to(piece.dtype) if with_bias else products, start)
        found.append(best.tokens)
    return torch.cat(found)


class _Extremes:
    """The most extreme entries of a last axis that comes in blocks."""

    def __init__(self, count: int, sign: int) -> None:
        self._count, self._sign = count, sign
        self.values, self.tokens = torch.empty(0), torch.empty(0, dtype=torch.long)

    def update(self, values: Float[Tensor, "*batch column"], start: int) -> None:
        """Take in the values of tokens from `start` on."""
        found = (self._sign * values).topk(min(self._count, values.shape[-1]))
        tokens = found.indices + start
        if not self.values.numel():
            self.values, self.tokens = self._sign * found.values, tokens
            return
        merged = torch.cat([self._sign * self.values, found.values], -1)
        kept = merged.topk(min(self._count, merged.shape[-1]))
        self.values = self._sign * kept.values
        self.tokens = torch.cat([self.tokens, tokens], -1).gather(-1, kept.indices)
