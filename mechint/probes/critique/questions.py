r"""Measures that ask: what a model says of a step, what it computes again, and which answer it gives in the end.

    M4 verdict     "Step: {expression} = {literal}\nVerdict:" behind four judged examples, two right and two wrong;
                   log p(" wrong") - log p(" right"), averaged over both orders of the examples and three pairs of words
    M5 recompute   the text of the pair, then "\n\nRecalculating: {expression} = "; log p(true) - log p(wrong literal),
                   the same two literals for both twins. Copying from the text pulls it down on the wrong side
    M6 answer      the text of the pair, then "\n\nThe final answer is "; log p(final answer)

and how much of an answer that an error has cost is recovered at a dose (`recovery`):

    rho = [A_wrong(dose) - A_wrong(0)] / [A_true(0) - A_wrong(0)]

They are asked of the texts of pairs without stub. Some tokenizers make a token of the blank before a number, others
let it begin the number: what is asked for is always what remains of the tokens of the whole text, and a pair whose
question does not end between two tokens is refused with the reason.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from mechint.errors import PromptError
from mechint.model.base import Model
from mechint.probes.critique.measures import Row, sequence_log_odds, sequence_log_prob
from mechint.prompts import token_of, tokenize
from mechint.prompts.reasoning import MinimalPair, TokenTwins, Twins
from mechint.statistics import Estimate, bootstrap_ratio
from mechint.statistics.clusters import Clusters

WORDS = ((" wrong", " right"), (" incorrect", " correct"), (" no", " yes"))
"""What a verdict says of a wrong step, and of a right one."""
LEAST = 0.1
"""Nats that an error must cost an answer for there to be something to recover."""
_EXAMPLES = (("12 + 5", "17", False), ("9 - 4", "6", True), ("7 * 3", "21", False), ("30 / 5", "8", True))


@dataclass(frozen=True)
class Question:
    """A row, and what may follow it."""

    row: Row
    positive: Row
    negative: Row = ()
    """Empty: log p of the positive alone."""


@dataclass(frozen=True)
class Questions:
    """A metric of the sides of pairs: the mean over the questions of a pair."""

    name: str
    true: Mapping[str, tuple[Question, ...]]
    """By the id of the pair."""
    wrong: Mapping[str, tuple[Question, ...]]
    refused: Mapping[str, str]
    """From the id of a pair that cannot be asked to the reason."""
    threshold: float | None = None
    unit: str = "nats"

    def side(self, model: Model, twins: TokenTwins, *, wrong: bool) -> Float[np.ndarray, " prompt"]:
        """Ask of one side of every pair, which is known by its id; NaN where it was refused.

        Raises:
            PromptError: a pair that the questions were not made of.
        """
        owner, questions = self.asked(twins, wrong=wrong)
        found = _asked(model, questions) if questions else np.empty(0)
        return averaged(owner, found, len(twins))

    def asked(self, twins: TokenTwins, *, wrong: bool) -> tuple[list[int], list[Question]]:
        """List the questions to one side of pairs, each with the place of its pair.

        Raises:
            PromptError: a pair that the questions were not made of.
        """
        asked = self.wrong if wrong else self.true
        if strange := [name for name in twins.ids if name not in asked and name not in self.refused]:
            raise PromptError(
                f"The {self.name} was not made for {len(strange)} of {len(twins)} pairs (first: {strange[0]!r}). Make "
                "it of all twins, before they are divided."
            )
        owner = [at for at, name in enumerate(twins.ids) for _ in asked.get(name, ())]
        return owner, [question for name in twins.ids for question in asked.get(name, ())]


def averaged(owner: Sequence[int], found: Float[np.ndarray, " at"], n: int) -> Float[np.ndarray, " prompt"]:
    """Return the mean of what was found for each of n pairs; NaN for one that was not asked."""
    if not owner:
        return np.full(n, np.nan)
    with np.errstate(invalid="ignore"):
        return np.bincount(owner, weights=found, minlength=n) / np.bincount(owner, minlength=n)


def verdict_log_odds(twins: Twins, tokenizer: Any, words: Sequence[tuple[str, str]] = WORDS) -> Questions:
    """Return M4: how much likelier a step is called wrong than right.

    Args:
        twins: whose expressions and literals are judged.
        tokenizer: of the model.
        words: (wrong, right) with their leading space, each one token.

    Raises:
        TokenError: a word is not one token.
        PromptError: no words.
    """
    if not words:
        raise PromptError("No words to judge with. Give at least one pair, such as (' wrong', ' right').")
    ids = [[token_of(word, tokenizer, after="Verdict:") for word in pair] for pair in words]

    def ask(pair: MinimalPair, wrong: bool) -> tuple[Question, ...]:
        asked: list[Question] = []
        for pair_of_words, (bad, good) in zip(words, ids, strict=True):
            for examples in (_EXAMPLES, _EXAMPLES[::-1]):
                shown = [f"{_step(e, r)}{pair_of_words[0 if bad_one else 1]}\n\n" for e, r, bad_one in examples]
                text = "".join([*shown, _step(pair.expression, pair.wrong if wrong else pair.true)])
                asked.append(Question(tokenize(text, tokenizer), (bad,), (good,)))
        return tuple(asked)

    pairs = [twin.pair for twin in twins]
    sides = ({pair.id: ask(pair, wrong) for pair in pairs} for wrong in (False, True))
    return Questions("log odds of the verdict wrong", *sides, refused={}, threshold=0.0)


def recompute_log_odds(twins: Twins, tokenizer: Any) -> Questions:
    """Return M5: how much likelier the true result is than the wrong one when the step is computed again."""

    def ask(pair: MinimalPair, wrong: bool) -> Question | str:
        text = f"{pair.text(wrong=wrong)}\n\nRecalculating: {pair.expression} = "
        found = _continued(text, (pair.true, pair.wrong), tokenizer)
        return found if isinstance(found, str) else Question(*found)

    return _of_pairs("log odds of the true result, computed again", twins, ask)


def answer_log_prob(twins: Twins, tokenizer: Any, answers: Mapping[str, str] | None = None) -> Questions:
    """Return M6: how likely the right final answer is.

    Args:
        twins: whose texts are asked to end.
        tokenizer: of the model.
        answers: the final answer of each problem, by group; by default the true result of the pair, which is the
            answer only where the step is the last one.

    Raises:
        PromptError: a problem without an answer.
    """
    if answers is not None and (missing := [group for group in twins.groups if group not in answers]):
        raise PromptError(f"{len(missing)} problems have no answer (first: {missing[0]!r}). Give one for each group.")

    def ask(pair: MinimalPair, wrong: bool) -> Question | str:
        answer = pair.true if answers is None else answers[pair.group]
        found = _continued(f"{pair.text(wrong=wrong)}\n\nThe final answer is ", (answer,), tokenizer)
        return found if isinstance(found, str) else Question(*found)

    return _of_pairs("log p of the final answer", twins, ask)


@dataclass(frozen=True)
class Recovery:
    """How much of what errors cost an answer is put right at a dose."""

    share: Estimate
    """Summed over the pairs that count: recovered over lost."""
    of_each: Float[np.ndarray, " prompt"]
    """rho of each pair; NaN where its denominator is too small or not known."""
    lost: Float[np.ndarray, " prompt"]
    """The denominators, in nats."""
    skipped: int
    """Pairs whose error costs less than 0.1 nat."""


def recovery(
    true: Float[np.ndarray, " prompt"],
    wrong: Float[np.ndarray, " prompt"],
    steered: Float[np.ndarray, " prompt"],
    clusters: Clusters = None,
    *,
    seed: int = 0,
) -> Recovery:
    """Return how much of the lost log probability of the answer a dose gives back.

    Args:
        true: of the answer after the true literal, without steering, in nats.
        wrong: after the wrong one, without steering.
        steered: after the wrong one, with steering.
        clusters: the problem of each pair.
        seed: of the bootstrap.

    Examples:
        >>> one = recovery(np.array([-1.0, -1.0]), np.array([-3.0, -1.05]), np.array([-2.0, -1.0]))
        >>> one.share.value, one.skipped
        (0.5, 1)
    """
    lost = true - wrong
    counts: Bool[np.ndarray, " prompt"] = lost >= LEAST
    gained = np.where(counts, steered - wrong, np.nan)
    kept = np.where(counts, lost, np.nan)
    value, low, high = (float(end[0]) for end in bootstrap_ratio(gained[:, None], kept[:, None], clusters, seed=seed))
    share = Estimate(value, low, high, None, int((~np.isnan(gained)).sum()))
    return Recovery(share, gained / kept, lost, int((lost < LEAST).sum()))


def _step(expression: str, result: str) -> str:
    return f"Step: {expression} = {result}\nVerdict:"


def _of_pairs(name: str, twins: Twins, ask: Any) -> Questions:
    """Ask both sides of every pair, or neither."""
    refused: dict[str, str] = {}
    sides: dict[bool, dict[str, tuple[Question, ...]]] = {False: {}, True: {}}
    for pair in (twin.pair for twin in twins):
        both = {wrong: ask(pair, wrong) for wrong in sides}
        if reasons := [found for found in both.values() if isinstance(found, str)]:
            refused[pair.id] = reasons[0]
        else:
            for wrong, question in both.items():
                sides[wrong][pair.id] = (question,)
    return Questions(name, sides[False], sides[True], refused)


def _continued(text: str, literals: Sequence[str], tokenizer: Any) -> tuple[Row, ...] | str:
    """Return the tokens of a text that ends in a blank, and those that each literal adds; or why that cannot be."""
    for head in (text, text.rstrip(" ")):
        before = tokenize(head, tokenizer)
        whole = [tokenize(text + literal, tokenizer) for literal in literals]
        if all(len(row) > len(before) and row[: len(before)] == before for row in whole):
            return before, *(row[len(before) :] for row in whole)
    return "the tokens of the number do not begin where the question ends"


def _asked(model: Model, questions: Sequence[Question]) -> Float[np.ndarray, " prompt"]:
    rows, positive, negative = zip(*((q.row, q.positive, q.negative) for q in questions), strict=True)
    if all(negative):
        return sequence_log_odds(model, rows, positive, negative)
    return sequence_log_prob(model, rows, positive)
