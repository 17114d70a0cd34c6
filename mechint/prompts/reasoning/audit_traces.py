"""Error traces: minimal pairs from them, and what is wrong with them.

A trace ends in a paragraph with a miscalculation. Its minimal pair is the same text with the result of the last
equation recomputed, where that result is written exactly once in the paragraph.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from mechint.errors import PromptError
from mechint.prompts.encoding import Tokenizer
from mechint.prompts.reasoning.audit import Audit, Measure, share
from mechint.prompts.reasoning.expressions import Equation, last_equation, literals, number, operation, written_like
from mechint.prompts.reasoning.pairs import MinimalPair, Pairs
from mechint.prompts.reasoning.twins import Twins, twins

_REFUSAL = re.compile(
    r"sorry|can.t (?:help|assist|provide|comply|share)|cannot (?:help|assist|provide|comply)", re.IGNORECASE
)
_OPERATIONS = ("+", "-", "*", "/", "^", "multi")
_SAME = "the true result, rounded as the stated one is, is that one"
_MOST_SIZES = 5  # of differences between wrong and true that are listed


@dataclass(frozen=True)
class ErrorTrace:
    """A question and a solution that stops after a calculation error."""

    id: int
    question: str
    ground_truth: str
    """The right final answer."""
    search: str
    """The solution: paragraphs, the error in the last."""

    @property
    def refusal(self) -> bool:
        """Whether it is an apology of the model that was to write it."""
        return _REFUSAL.search(self.search) is not None

    @property
    def states_the_answer(self) -> bool:
        """Whether the right final answer occurs in it, as a number if it is one."""
        try:
            answer = number(self.ground_truth.strip())
        except PromptError:
            return self.ground_truth.strip() in self.search
        return any(number(match.group()) == answer for match in literals(self.search))

    @cached_property
    def paragraphs(self) -> tuple[str, ...]:
        """Its steps."""
        return tuple(part for part in self.search.split("\n\n") if part.strip())

    @cached_property
    def equation(self) -> Equation | None:
        """The last equation of the last paragraph, if it can be computed."""
        return last_equation(self.paragraphs[-1]) if self.paragraphs else None

    @cached_property
    def places(self) -> tuple[re.Match[str], ...]:
        """Where the last paragraph has the stated result of that equation."""
        if self.equation is None:
            return ()
        return tuple(m for m in literals(self.paragraphs[-1]) if number(m.group()) == self.equation.stated)

    @property
    def recomputed(self) -> str | None:
        """The true result in the form of the stated one; None where it cannot be written so."""
        if self.equation is None or not self.places:
            return None
        return written_like(self.equation.true, self.places[-1].group())


def minimal_pairs(traces: Sequence[ErrorTrace], name: str) -> Pairs:
    """Return the minimal pairs of traces, and why the other traces have none."""
    kept: list[MinimalPair] = []
    left_out: dict[str, str] = {}
    for trace in traces:
        found = _pair(trace, f"{name}-{trace.id}")
        if isinstance(found, MinimalPair):
            kept.append(found)
        else:
            left_out[f"{name}-{trace.id}"] = found
    return Pairs(name, tuple(kept), left_out)


def _pair(trace: ErrorTrace, name: str) -> MinimalPair | str:
    equation, true = trace.equation, trace.recomputed
    if trace.refusal:
        return "a refusal"
    if equation is None:
        return "no equation that can be computed"
    if not equation.wrong:
        return "its last equation is right"
    if len(trace.places) != 1:
        return "its result does not stand exactly once in the paragraph"
    if true is None:
        return "the true result cannot be written in the form of the stated one"
    if number(true) == equation.stated:
        return _SAME
    *before, last = trace.paragraphs
    literal = trace.places[0]
    return MinimalPair(
        id=name,
        group=name,
        question=trace.question,
        prefix="\n\n".join([*before, last[: literal.start()]]),
        wrong=literal.group(),
        true=true,
        tail=last[literal.end() :],
        expression=equation.expression,
        operation=operation(equation.expression),
        rule="found",
        step=len(before),
    )


def audit_traces(traces: Sequence[ErrorTrace], name: str, tokenizer: Tokenizer | None = None) -> Audit:
    """Return refusals, leaked answers, equations, minimal pairs, and how stereotyped the errors are.

    "recomputed texts" are those of refusal-free traces with an unambiguous result, as published; some of them are the
    same text again (6 / 8 = 0.8 is 0.75 rounded), so there are fewer minimal pairs. Shares of operators and of errors
    at the end are among the wrong equations that can be recomputed in their form; sizes and signs are among all wrong
    ones.
    """
    refusals = [trace for trace in traces if trace.refusal]
    others = [trace for trace in traces if not trace.refusal]
    wrong = [t.equation for t in traces if t.equation is not None and t.equation.wrong]
    n_equations = sum(trace.equation is not None for trace in traces)
    redone = [t for t in traces if t.equation is not None and t.equation.wrong and t.recomputed is not None]
    pairs = minimal_pairs(traces, name)
    sizes = Counter(abs(e.true - e.stated) for e in wrong)
    operations = Counter(operation(t.equation.expression) for t in redone if t.equation is not None)
    ends = sum(not t.paragraphs[-1][t.places[-1].end() :].strip(" .*\n") for t in redone)
    measures = [
        Measure("traces", len(traces)),
        share("refusals", len(refusals), len(traces)),
        share("refusals that state the answer", sum(t.states_the_answer for t in refusals), len(refusals)),
        share("other traces that state the answer", sum(t.states_the_answer for t in others), len(others)),
        share("with a last equation", n_equations, len(traces)),
        share("really wrong", len(wrong), n_equations),
        share("recomputed texts", len(pairs) + pairs.reasons.get(_SAME, 0), len(traces)),
        share("minimal pairs", len(pairs), len(traces)),
        share("integer minimal pairs", sum(pair.integer for pair in pairs), len(pairs)),
        share("too small", sum(e.stated < e.true for e in wrong), len(wrong)),
        share("last digit right", sum(_same_last_digit(e) for e in wrong), len(wrong)),
        *(share(f"off by {float(size):g}", count, len(wrong)) for size, count in sizes.most_common(_MOST_SIZES)),
        share("another difference", sum(n for _, n in sizes.most_common()[_MOST_SIZES:]), len(wrong)),
        share("recomputed results", len(redone), len(wrong)),
        *(share(f"operation {sign}", operations[sign], len(redone)) for sign in _OPERATIONS),
        share("ends at the literal", ends, len(redone)),
    ]
    aligned = twins(pairs, tokenizer, stub="") if tokenizer is not None and pairs else None
    if aligned is not None:
        integer = sum(twin.pair.integer for twin in aligned)
        measures += [
            share("token-aligned", len(aligned), len(pairs)),
            share("integer and token-aligned", integer, len(pairs)),
        ]
    return Audit(name, tuple(measures), _sentences(measures, pairs, aligned))


def _same_last_digit(equation: Equation) -> bool:
    if equation.true.denominator != 1 or equation.stated.denominator != 1:
        return False
    return abs(equation.true) % 10 == abs(equation.stated) % 10


def _sentences(measures: Sequence[Measure], pairs: Pairs, aligned: Twins | None) -> tuple[str, ...]:
    by = {measure.name: measure for measure in measures}
    n, wrong = by["traces"].count, by["really wrong"].count
    refusals, telling = by["refusals"].count, by["refusals that state the answer"].count
    said = [f"{n} traces, of which {refusals} are refusals; {telling} of those state the right answer."]
    said.append(
        f"{by['with a last equation'].count} end in an equation that can be computed, and {wrong} of these are wrong."
    )
    reasons = "; ".join(f"{count}: {reason}" for reason, count in pairs.reasons.items())
    said.append(f"{len(pairs)} minimal pairs. Left out: {reasons or 'none'}.")
    if wrong:
        sizes = ", ".join(str(m).replace(":", " in", 1) for m in measures if m.name.startswith("off by"))
        said.append(
            f"The errors are stereotyped: {by['too small'].value:.0%} of wrong results are too small; {sizes}. Use "
            "`derange` and means balanced by sign."
        )
    if aligned is not None:
        apart = "; ".join(f"{count}: {reason}" for reason, count in aligned.reasons.items())
        said.append(f"{len(aligned)} pairs are aligned token by token. Apart: {apart or 'none'}.")
    return tuple(said)
