r"""How far rewritten outputs move the predictions: KL, entropy and loss, exact, without ever holding [pos, d_vocab].

With l the clean logits of a position, p = softmax(l), δ_t = x' · W_U[:, t] what a change x' adds to the logit of t
(behind a soft-cap: the difference of the capped logits), c any number and u = δ - c,

    KL(p || p')  = log E_p[e^u] - E_p[u] = log(1 + F + S) - F        F = E_p[u],  S = E_p[e^u - 1 - u] >= 0
    loss' - loss = c + log(1 + F + S) - δ_y                          y the next token

A KL of 1e-3 nats is the small difference of two large sums when it is computed as Σ p (log p - log p'); here it is of
the size of its own terms, and S, which decides it, is a sum of terms of one sign. c follows the mean E_p[δ] of what
has been seen so far, so that F is 0 but for rounding and a change common to all tokens, which no softmax sees, costs no
digits. The vocabulary is walked through once, in blocks, with the largest logit so far as a moving reference (Milakov
and Gimelshein 2018, "Online normalizer calculation for softmax"); sums of blocks are added up in float64, since
float32 sums over 262,144 entries are off by 1e-4. All changes share the clean softmax and the reading of W_U.

A change that lifts a token by 88 nats or more beyond the mean, as violent steering does, takes e^u out of float32.
Those few pairs of change and position are taken again, with whole rows of logits and the softmax in float64.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mechint.model.base import Model

ROWS = 2048
"""Positions x (changes + 1) of one matrix product."""
COLUMNS = 2048
"""Vocabulary entries of one matrix product: with ROWS, few enough for its results to stay in a cache."""
_AT_ONCE = 16
"""Pairs of change and position taken again together, each with two float64 vocabularies."""


@dataclass(frozen=True)
class Divergence:
    """What changes of the logits do to the predictions at some positions: float64, in nats."""

    kl: Float[Tensor, "change at"]
    """KL(clean || changed)."""
    entropy: Float[Tensor, " at"]
    """Of the clean prediction."""
    loss: Float[Tensor, " at"]
    """Minus the log-probability of the next token; NaN where none was given."""
    loss_change: Float[Tensor, "change at"]
    """Changed minus clean loss."""
    changed_entropy: Float[Tensor, "change at"] | None = None
    """Where it was asked for."""
    top_tokens: Int[Tensor, "at column"] | None = None
    """The most likely tokens of the clean prediction, best first, where asked for."""
    top_log_probs: Float[Tensor, "at column"] | None = None


@torch.no_grad()
def divergence(
    model: Model,
    normalised: Float[Tensor, "at d_model"],
    changes: Float[Tensor, "change at d_model"],
    next_tokens: Int[Tensor, " at"] | None = None,
    *,
    top: int = 0,
    changed_entropy: bool = False,
) -> Divergence:
    """Compare predictions with what they become when their logits are changed.

    Float64 inputs are computed with in float64. In float32 the relative error of a KL is that of its largest terms,
    and grows below 1e-6 nats, where e^u - 1 - u has few digits left. Extra memory does not grow with positions or
    changes: two results of ROWS x COLUMNS, and the float64 logits of 16 pairs where a change is violent.

    Args:
        model: the model whose unembedding is meant.
        normalised: the output of the final norm, bias included: x with x · W_U + b_U = clean logits.
        changes: x' with x' · W_U = change of the logits (before a soft-cap); see `head_outputs.to_logits`.
        next_tokens: the tokens whose loss is meant.
        top: how many of the most likely tokens to return.
        changed_entropy: also return the entropy of every changed prediction.
    """
    n_at, n_changes = len(normalised), len(changes)
    size = max(1, ROWS // (n_changes + 1))
    tokens = torch.full((n_at,), -1) if next_tokens is None else next_tokens
    parts: list[Divergence] = []
    for start in range(0, n_at, size):
        here = slice(start, start + size)
        parts.append(_some(model, normalised[here], changes[:, here], tokens[here], top, changed_entropy))
    found = _joined(parts)
    finite = torch.isfinite(found.kl)
    if found.changed_entropy is not None:
        finite &= torch.isfinite(found.changed_entropy)
    for pairs in (~finite).nonzero().split(_AT_ONCE):
        _take_again(found, model, normalised, changes, tokens, *pairs.T)
    return found


def _take_again(
    found: Divergence, model: Model, x: Tensor, changes: Tensor, next_tokens: Tensor, change: Tensor, at: Tensor
) -> None:
    """Put pairs of change and position right that were too much for float32."""
    clean, delta = _whole(model, x[at]), _whole(model, changes[change, at], bias=False)
    if (cap := model.facts.logit_cap) is not None:
        _cap(clean, delta, cap)
    log_p, log_q = clean.log_softmax(-1), (clean + delta).log_softmax(-1)
    found.kl[change, at] = (log_p.exp() * (log_p - log_q)).sum(-1)
    own = next_tokens[at]
    known, column = own >= 0, own.clamp(min=0)[:, None]
    loss_change = (log_p.gather(1, column) - log_q.gather(1, column))[:, 0]
    found.loss_change[change, at] = loss_change.masked_fill(~known, torch.nan)
    if found.changed_entropy is not None:
        found.changed_entropy[change, at] = -torch.special.xlogy(log_q.exp(), log_q.exp()).sum(-1)


def _whole(model: Model, x: Tensor, *, bias: bool = True) -> Tensor:
    """Return x · W_U over the whole vocabulary in float64."""
    every = slice(0, model.facts.d_vocab)
    logits = (x @ model.unembedding(every).to(x.dtype).T).double()
    return logits + model.output_bias(every) if bias else logits


def _some(model: Model, x: Tensor, changes: Tensor, next_tokens: Tensor, top: int, changed_entropy: bool) -> Divergence:
    """Walk through the vocabulary once, for as many positions as one product holds."""
    n, n_changes = len(x), len(changes)
    stacked = torch.cat([x[None], changes]).reshape((n_changes + 1) * n, -1)
    room = x.new_empty(len(stacked) * COLUMNS)
    sums, best = _Sums(n, n_changes, x.dtype, changed_entropy), _Best(n, top, x.dtype)
    own_logit = torch.full((n,), torch.nan, dtype=torch.float64)
    own_change = torch.full((n_changes, n), torch.nan, dtype=torch.float64)
    for start in range(0, model.facts.d_vocab, COLUMNS):
        block = slice(start, min(start + COLUMNS, model.facts.d_vocab))
        directions = model.unembedding(block).to(x.dtype)
        product = room[: len(stacked) * len(directions)].view(len(stacked), -1)
        torch.mm(stacked, directions.T, out=product)
        logits, deltas = product[:n], product[n:].view(n_changes, n, -1)
        if (bias := model.output_bias(block)).any():
            logits += bias
        if model.facts.logit_cap is not None:
            _cap(logits, deltas, model.facts.logit_cap)
        rows = ((next_tokens >= block.start) & (next_tokens < block.stop)).nonzero()[:, 0]
        own_logit[rows] = logits[rows, next_tokens[rows] - start].double()
        own_change[:, rows] = deltas[:, rows, next_tokens[rows] - start].double()
        if top:
            best.add(logits, start)
        sums.add(logits, deltas)
    return sums.result(own_logit, own_change, best)


def _cap(logits: Tensor, deltas: Tensor, cap: float) -> None:
    """Cap logits to cap · tanh(l / cap), and let deltas be the difference of the capped logits; in place."""
    # tanh(a + b) - tanh(a) = tanh b (1 - tanh² a) / (1 + tanh a tanh b): no difference of nearly equal numbers.
    logits.div_(cap).tanh_()
    deltas.div_(cap).tanh_()
    deltas.mul_((1 - logits * logits) / (1 + logits * deltas)).mul_(cap)
    logits.mul_(cap)


class _Sums:
    """Sums over the entries seen so far, relative to a largest logit m and a common change c that move along.

    With e = exp(l - m) and u = δ - c:  Z = Σ e,  L = Σ e (l - m),  F = Σ e u,  S = Σ e (exp(u) - 1 - u),
    T = Σ e exp(u) (l - m + u).
    """

    def __init__(self, n: int, n_changes: int, dtype: torch.dtype, changed_entropy: bool) -> None:
        self.largest = torch.full((n,), torch.finfo(dtype).min / 2, dtype=dtype)
        self.total, self.logit = torch.zeros(2, n, dtype=torch.float64)
        self.shift, self.first, self.second = torch.zeros(3, n_changes, n, dtype=torch.float64)
        self.changed = torch.zeros(n_changes, n, dtype=torch.float64) if changed_entropy else None
        self.scratch = torch.empty(0, dtype=dtype)

    def add(self, logits: Tensor, deltas: Tensor) -> None:
        """Take in a block of entries; the block is used up."""
        self._raise_reference(logits.amax(-1))
        if self.scratch.numel() < logits.numel() + deltas.numel():
            self.scratch = torch.empty(logits.numel() + deltas.numel(), dtype=logits.dtype)
        logits.sub_(self.largest[:, None])
        e = torch.exp(logits, out=self.scratch[: logits.numel()].view_as(logits))
        total, moment = e.sum(-1).double(), _dot(e, deltas)
        self._move_shift((self.first + self.shift * self.total + moment) / (self.total + total), deltas.dtype)
        self.total += total
        self.logit += _dot(e, logits[None])[0]
        self.first += moment - self.shift * total
        u = deltas.sub_(self.shift.to(deltas.dtype)[..., None])
        rest = self.scratch[logits.numel() : logits.numel() + u.numel()].view_as(u)
        torch.expm1(u, out=rest).sub_(u)
        self.second += _dot(e, rest)
        if self.changed is not None:
            self.changed += _dot(e, rest.add_(u).add_(1).mul_(u.add_(logits)))

    def _raise_reference(self, largest: Tensor) -> None:
        new = torch.maximum(self.largest, largest)
        fall = (self.largest - new).double()
        self.largest, scale = new, fall.exp()
        if self.changed is not None:
            self.changed = scale * (self.changed + fall * (self.total + self.first + self.second))
        self.logit = scale * (self.logit + fall * self.total)
        self.total, self.first, self.second = scale * self.total, scale * self.first, scale * self.second

    def _move_shift(self, new: Tensor, dtype: torch.dtype) -> None:
        """Refer all sums to another c: one that the deltas' own number format holds exactly."""
        new = new.to(dtype).double()
        by = new - self.shift
        self.shift, less = new, torch.expm1(-by)
        if self.changed is not None:
            self.changed = (1 + less) * (self.changed - by * (self.total + self.first + self.second))
        self.second = (1 + less) * self.second + less * self.first + (less + by) * self.total
        self.first = self.first - by * self.total

    def result(self, own_logit: Tensor, own_change: Tensor, best: "_Best") -> Divergence:
        first, second = self.first / self.total, self.second / self.total
        normaliser = self.largest.double() + self.total.log()
        raised = torch.log1p(first + second)
        entropy = None
        if self.changed is not None:
            mean = self.changed / self.total / (1 + first + second)  # of l' - m - c under the changed prediction
            entropy = self.total.log() + raised - mean
        return Divergence(
            kl=raised - first,
            entropy=self.total.log() - self.logit / self.total,
            loss=normaliser - own_logit,
            loss_change=self.shift + raised - own_change,
            changed_entropy=entropy,
            top_tokens=best.tokens if best.k else None,
            top_log_probs=best.logits.double() - normaliser[:, None] if best.k else None,
        )


def _dot(e: Tensor, values: Tensor) -> Tensor:
    """Sum e · values over the last axis, for every change; read once, nothing stored."""
    return torch.einsum("nv,jnv->jn", e, values).double()


class _Best:
    """The k largest logits so far."""

    def __init__(self, n: int, k: int, dtype: torch.dtype) -> None:
        self.k = k
        self.logits, self.tokens = torch.empty(n, 0, dtype=dtype), torch.empty(n, 0, dtype=torch.long)

    def add(self, logits: Tensor, start: int) -> None:
        values, tokens = logits.topk(min(self.k, logits.shape[-1]))
        values, tokens = torch.cat([self.logits, values], -1), torch.cat([self.tokens, tokens + start], -1)
        self.logits, order = values.topk(min(self.k, values.shape[-1]))
        self.tokens = tokens.gather(-1, order)


def _joined(parts: list[Divergence]) -> Divergence:
    def joined(name: str) -> Tensor | None:
        values = [getattr(part, name) for part in parts]
        axis = 0 if name in ("top_tokens", "top_log_probs") else -1  # the axis of positions
        return None if values[0] is None else torch.cat(values, axis)

    return Divergence(**{name: joined(name) for name in Divergence.__dataclass_fields__})  # pyright: ignore[reportArgumentType]
