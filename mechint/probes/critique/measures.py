"""What critique is measured by: one number for each row of a pair of twins, under whatever plan is in force.

    TokenMargin          log Σ p(positive tokens) - log Σ p(negative tokens) after a row
    arithmetic_margin    log p(true literal | what is before it) - log p(wrong literal | the same): M1, does the model
                         know the result at all

Those that ask in words are in `questions`. Probabilities of several tokens are teacher-forced: what is asked for is
put behind the row and read token by token, as if it had been generated, so that a plan acts on it as on generated
tokens. Every row is a pass of its own from its first token, so nothing is shared between rows that a plan could change.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float

from mechint.errors import PromptError, TokenError
from mechint.model.base import Logits, Model
from mechint.positions import TokenBatch, columns
from mechint.prompts.reasoning import TokenTwins

Row = tuple[int, ...]
_ROWS, _TOKENS = 16, 4096
"""Rows of a batch, or more of them if their tokens are few."""
NUMBERS = 2**24
"""Logits in one batch, which bounds memory (64 MB)."""


@runtime_checkable
class RowMetric(Protocol):
    """One number a row of tokens."""

    @property
    def name(self) -> str:
        """What is measured, in words."""
        ...

    @property
    def unit(self) -> str:
        """Of the number."""
        ...

    @property
    def threshold(self) -> float | None:
        """Above which "wrong" is said; None for a number that decides nothing."""
        ...

    def __call__(self, model: Model, rows: Sequence[Row]) -> Float[np.ndarray, " prompt"]:
        """Measure every row under the plans that are in force."""
        ...


@runtime_checkable
class SideMetric(Protocol):
    """One number for each side of a pair, where that takes more than its row."""

    @property
    def name(self) -> str:
        """What is measured, in words."""
        ...

    @property
    def unit(self) -> str:
        """Of the number."""
        ...

    @property
    def threshold(self) -> float | None:
        """Above which "wrong" is said; None for a number that decides nothing."""
        ...

    @property
    def refused(self) -> Mapping[str, str]:
        """From the id of a pair that has no such number to the reason."""
        ...

    def side(self, model: Model, twins: TokenTwins, *, wrong: bool) -> Float[np.ndarray, " prompt"]:
        """Measure one side of every pair under the plans that are in force; NaN where it was refused."""
        ...


Metric = RowMetric | SideMetric


@dataclass(frozen=True)
class TokenMargin:
    """How much likelier some tokens are than others after a row: log odds in nats."""

    positive: tuple[int, ...]
    """Token ids that say "wrong"."""
    negative: tuple[int, ...]
    """Those that say "right"."""
    name: str = 'log odds of "wrong"'
    unit: str = "nats"
    threshold: float | None = 0.0

    def __post_init__(self) -> None:
        if not self.positive or not self.negative or set(self.positive) & set(self.negative):
            raise TokenError(
                f"A margin of {list(self.positive)} against {list(self.negative)}: expected tokens on both sides, none "
                "of them on both."
            )

    def __call__(self, model: Model, rows: Sequence[Row]) -> Float[np.ndarray, " prompt"]:
        """Return the log odds after each row.

        Raises:
            PositionError: an empty row, or one that the model cannot read.
        """
        wanted, n = torch.tensor([*self.positive, *self.negative]), len(self.positive)
        found = np.empty(len(rows))
        for part in by_length([len(row) for row in rows]):
            logits = model.run([rows[i] for i in part], logits=Logits(columns=wanted)).logits
            assert logits is not None
            odds = logits[:, 0, :n].double().logsumexp(-1) - logits[:, 0, n:].double().logsumexp(-1)
            found[part] = odds.numpy()
        return found


@dataclass(frozen=True)
class AtResult:
    """A metric of the rows up to R, so that what is said right after the result is measured."""

    metric: RowMetric
    refused: Mapping[str, str] = field(default_factory=dict[str, str])

    @property
    def name(self) -> str:
        """That of the metric."""
        return self.metric.name

    @property
    def unit(self) -> str:
        """That of the metric."""
        return self.metric.unit

    @property
    def threshold(self) -> float | None:
        """That of the metric."""
        return self.metric.threshold

    def side(self, model: Model, twins: TokenTwins, *, wrong: bool) -> Float[np.ndarray, " prompt"]:
        """Measure the rows of one side, cut behind R."""
        cut = zip(twins.side(wrong=wrong), twins.result, strict=True)
        return self.metric(model, [row[: at + 1] for row, at in cut])


def on_side(metric: Metric, model: Model, twins: TokenTwins, *, wrong: bool) -> Float[np.ndarray, " prompt"]:
    """Measure one side of every pair, whatever kind of metric it is."""
    if isinstance(metric, SideMetric):
        return metric.side(model, twins, wrong=wrong)
    return metric(model, twins.side(wrong=wrong))


def both_sides(metric: Metric, model: Model, twins: TokenTwins) -> dict[str, Float[np.ndarray, " prompt"]]:
    """Measure both sides of every pair: "wrong" and "true"."""
    return {side: on_side(metric, model, twins, wrong=side == "wrong") for side in ("wrong", "true")}


def sequence_log_prob(model: Model, rows: Sequence[Row], continuations: Sequence[Row]) -> Float[np.ndarray, " prompt"]:
    """Return log p(continuation | row) in nats, the sum over its tokens, teacher-forced.

    Args:
        model: what predicts; plans in force act on the row as on a prompt, on the continuation as on generated tokens.
        rows: at least one token each.
        continuations: at least one token each; the last is predicted and not read.

    Raises:
        PromptError: not one continuation a row, or an empty row or continuation.
        PositionError: rows that the model cannot read.
    """
    _require_pairs(rows, continuations)
    found = np.empty(len(rows))
    for part in _alike([len(row) for row in rows], [len(c) for c in continuations], model.facts.d_vocab):
        whole = [[*rows[i], *continuations[i][:-1]] for i in part]
        starts, size = [len(rows[i]) for i in part], len(continuations[part[0]])
        batch = TokenBatch.from_rows(whole, prompt_lengths=starts, tokenizer=model.tokenizer)
        at = torch.tensor(starts)[:, None] - 1 + torch.arange(size)
        logits = model.run(batch, logits=Logits(at=columns(at))).logits
        assert logits is not None
        wanted = torch.tensor([continuations[i] for i in part])[..., None]
        log_p = logits.gather(-1, wanted)[..., 0].double() - logits.double().logsumexp(-1)
        found[part] = log_p.sum(-1).numpy()
    return found


def sequence_log_odds(
    model: Model, rows: Sequence[Row], positive: Sequence[Row], negative: Sequence[Row]
) -> Float[np.ndarray, " prompt"]:
    """Return log p(positive | row) - log p(negative | row) in nats.

    Where both are one token, what normalises their probabilities is the same and is not computed.

    Arguments and errors: as in `sequence_log_prob`.
    """
    if any(len(c) != 1 for c in (*positive, *negative)):
        return sequence_log_prob(model, rows, positive) - sequence_log_prob(model, rows, negative)
    for side in (positive, negative):
        _require_pairs(rows, side)
    found = np.empty(len(rows))
    for part in by_length([len(row) for row in rows]):
        both = torch.tensor([[[*positive[i], *negative[i]]] for i in part])
        logits = model.run([rows[i] for i in part], logits=Logits(columns=both)).logits
        assert logits is not None
        found[part] = (logits[:, 0, 0].double() - logits[:, 0, 1].double()).numpy()
    return found


def arithmetic_margin(model: Model, twins: TokenTwins) -> Float[np.ndarray, " prompt"]:
    """Return M1 of every pair: log p(true result) - log p(wrong result), given what stands before them, in nats.

    Summed over the tokens from the first that differs to R; those before it are the same and cancel. Above 0, the model
    holds the true result for the likelier one, though it need not notice a wrong one.

    Raises:
        PromptError: the twins differ in their first token, so that nothing stands before it.
    """
    pairs = list(zip(twins.true, twins.wrong, twins.result, strict=True))
    first = [next(at for at, (a, b) in enumerate(zip(true, wrong, strict=True)) if a != b) for true, wrong, _ in pairs]
    rows = [true[:at] for at, (true, _, _) in zip(first, pairs, strict=True)]
    results: list[list[Row]] = [
        [row[at : end + 1] for at, row, end in zip(first, side, twins.result, strict=True)]
        for side in (twins.true, twins.wrong)
    ]
    return sequence_log_odds(model, rows, *results)


def _require_pairs(rows: Sequence[Row], continuations: Sequence[Row]) -> None:
    if len(rows) != len(continuations) or not all(map(len, [*rows, *continuations])):
        raise PromptError(
            f"{len(rows)} rows and {len(continuations)} continuations, {sum(not len(r) for r in rows)} and "
            f"{sum(not len(c) for c in continuations)} of them empty. Expected one continuation a row, of at least one "
            "token each."
        )


def by_length(lengths: Sequence[int], most: int = _TOKENS) -> Iterator[list[int]]:
    """Yield the places of rows of like length, so that little is padded, in batches that are bounded."""
    n = min(most, max(_ROWS, _TOKENS // max(lengths, default=1)))
    order = sorted(range(len(lengths)), key=lambda i: lengths[i])
    for start in range(0, len(order), n):
        yield order[start : start + n]


def _alike(lengths: Sequence[int], sizes: Sequence[int], d_vocab: int) -> Iterator[list[int]]:
    """Yield the places of rows with continuations of one size, no more than their logits allow."""
    for size in sorted(set(sizes)):
        members = [i for i, one in enumerate(sizes) if one == size]
        most = max(1, NUMBERS // (size * d_vocab))
        for part in by_length([lengths[i] for i in members], most):
            yield [members[i] for i in part]
