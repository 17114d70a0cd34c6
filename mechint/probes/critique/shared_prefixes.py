"""Questions asked of both sides of pairs at once: no token and no block is computed twice.

    trees       texts that begin alike are one tree of prefixes (`effects.layout`), and a pass is over its nodes
    restart     what stands before the block of the first steered site is the same for every direction and dose
    log odds    of log p(a | row) - log p(b | row) the tokens that a and b have in common cancel, and so does what
                normalises where they part; only what follows needs the whole vocabulary

Exact for a plan that does the same to every token, whatever its vector; for one that chooses tokens by their place
rows are passes of their own, as in `measures`. Numbers are those of `measures` but for rounding.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mechint.effects.layout import Layout
from mechint.errors import InterventionError
from mechint.model.base import Model, Restart
from mechint.positions import Positions, everywhere
from mechint.probes.critique.measures import NUMBERS, Metric, Row, both_sides
from mechint.probes.critique.questions import Question, Questions, averaged
from mechint.prompts.reasoning import TokenTwins
from mechint.sites import Site

_FINAL = Site("final_norm")
_NODES = 512
"""Tokens of a tree: on a CPU small passes are fastest, and in a large one most pairs of nodes do not see each other."""


class BothSides:
    """A metric of both sides of twins, to be measured under many plans that act at some sites.

    Args:
        model: what is asked; no plan is in force yet.
        twins: of whose sides is measured.
        metric: one number a row, or a side of a pair.
        sites: at which plans will act; at none, if no plan will be in force.
        where: on which tokens they will act.

    Raises:
        InterventionError: a plan is in force, so that what stands before the steered sites cannot be known.
    """

    def __init__(
        self, model: Model, twins: TokenTwins, metric: Metric, sites: Sequence[Site] = (), where: Positions = everywhere
    ) -> None:
        self._model, self._twins, self._metric = model, twins, metric
        self._owners: dict[str, list[int]] = {}
        self._answers: Answers | None = None
        if isinstance(metric, Questions) and where is everywhere:
            asked = {side: metric.asked(twins, wrong=side == "wrong") for side in ("wrong", "true")}
            self._owners = {side: owner for side, (owner, _) in asked.items()}
            self._answers = Answers(model, [q for _, questions in asked.values() for q in questions], sites)

    def __call__(self) -> dict[str, Float[np.ndarray, " prompt"]]:
        """Measure "wrong" and "true" under the plans that are in force; NaN where a pair was refused."""
        if self._answers is None:
            return both_sides(self._metric, self._model, self._twins)
        parts = np.split(self._answers(), [len(self._owners["wrong"])])
        sides = zip(self._owners.items(), parts, strict=True)
        return {side: averaged(owner, found, len(self._twins)) for (side, owner), found in sides}


@dataclass(frozen=True)
class _Term:
    """Plus or minus log p(token | context); with another token, what its logit is more than that one's."""

    question: int
    sign: int
    context: Row
    token: int
    other: int | None = None


class Answers:
    """The log odds, or log probabilities, that questions ask for, under plans that do the same to every token.

    Args:
        model: what is asked; no plan is in force yet.
        questions: any number; those without a negative ask for log p of the positive.
        sites: at which plans will act; at none, if no plan will be in force.

    Raises:
        InterventionError: a plan is in force.
    """

    def __init__(self, model: Model, questions: Sequence[Question], sites: Sequence[Site] = ()) -> None:
        if model.steerings:
            raise InterventionError(
                "A plan is in force, so what stands before it cannot be kept. Lay questions out before any plan acts."
            )
        self._model, self._n = model, len(questions)
        terms = [term for at, question in enumerate(questions) for term in _terms(at, question)]
        contexts = sorted({term.context for term in terms})
        place = {context: at for at, context in enumerate(contexts)}
        self._apart = [term for term in terms if term.other is not None]
        self._whole = [term for term in terms if term.other is None]
        self._places = {id(term): place[term.context] for term in terms}
        self._layouts = [Layout.choose(model, family, share_prefixes=True) for family in _families(contexts)]
        layer = min((site.layer or 0 for site in sites), default=0)
        self._streams = [self._before(layout, layer) for layout in self._layouts]

    @torch.no_grad()
    def __call__(self) -> Float[np.ndarray, " prompt"]:
        """Return one number a question, in nats."""
        found = np.zeros(self._n)
        if not self._layouts:
            return found
        ends = torch.cat([self._ends(*given) for given in zip(self._layouts, self._streams, strict=True)])
        for terms, values in ((self._apart, self._margins(ends)), (self._whole, self._log_probs(ends))):
            signed = values.numpy() * [term.sign for term in terms]
            np.add.at(found, [term.question for term in terms], signed)
        return found

    def _before(self, layout: Layout, layer: int) -> Restart | None:
        """Return what stands before a block of every node; None before the first one."""
        if layer == 0:
            return None
        site = Site("resid_pre", layer)
        return Restart(layer, self._model.run(layout.batch, read=[site], stop_after=site)[site])

    def _ends(self, layout: Layout, stream: Restart | None) -> Float[Tensor, "prompt d_model"]:
        run = self._model.run(layout.batch, read={_FINAL: layout.last}, from_=stream)
        return layout.per_prompt(run[_FINAL])

    def _margins(self, ends: Tensor) -> Float[Tensor, " at"]:
        """Return the differences of two logits."""
        if not self._apart:
            return torch.empty(0, dtype=torch.float64)
        columns = torch.tensor([(term.token, term.other) for term in self._apart])
        directions = self._model.unembedding(columns)
        logits = torch.einsum("ad,acd->ac", ends[self._at(self._apart)], directions) + self._model.output_bias(columns)
        logits = self._capped(logits).double()
        return logits[:, 0] - logits[:, 1]

    def _log_probs(self, ends: Tensor) -> Float[Tensor, " at"]:
        found = torch.empty(len(self._whole), dtype=torch.float64)
        size = max(1, NUMBERS // self._model.facts.d_vocab)
        for start in range(0, len(self._whole), size):
            terms = self._whole[start : start + size]
            logits = self._capped(self._model.unembed(ends[self._at(terms)])).double()
            tokens = torch.tensor([term.token for term in terms])
            found[start : start + size] = logits.gather(1, tokens[:, None])[:, 0] - logits.logsumexp(-1)
        return found

    def _capped(self, logits: Tensor) -> Tensor:
        cap = self._model.facts.logit_cap
        return logits if cap is None else cap * torch.tanh(logits / cap)

    def _at(self, terms: Sequence[_Term]) -> list[int]:
        return [self._places[id(term)] for term in terms]


def _terms(at: int, question: Question) -> Iterator[_Term]:
    """Write a question as a sum of terms, leaving out what cancels."""
    row, sides = question.row, (question.positive, question.negative)
    start = 0
    if question.negative:
        start = _common(*sides)
        if start < min(map(len, sides)):
            yield _Term(at, 1, (*row, *sides[0][:start]), sides[0][start], sides[1][start])
            start += 1
    for sign, tokens in zip((1, -1), sides, strict=True):
        for k in range(start, len(tokens)):
            yield _Term(at, sign, (*row, *tokens[:k]), tokens[k])


def _families(contexts: Sequence[Row]) -> Iterator[list[Row]]:
    """Divide sorted texts into runs of such as have half of their tokens in common, within the size of a tree."""
    family: list[Row] = []
    nodes = 0
    for context in contexts:
        alike = _common(family[-1], context) if family else 0
        if family and (2 * alike < len(context) or nodes + len(context) - alike > _NODES):
            yield family
            family, nodes, alike = [], 0, 0
        family.append(context)
        nodes += len(context) - alike
    if family:
        yield family


def _common(one: Row, other: Row) -> int:
    """Count the tokens with which both begin."""
    unequal = (at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b)
    return next(unequal, min(len(one), len(other)))
