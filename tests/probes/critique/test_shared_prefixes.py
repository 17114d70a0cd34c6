"""What texts have in common is computed once, and what is measured is what passes of their own would give."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from mechint.errors import InterventionError, PromptError
from mechint.model.loading import load
from mechint.model.prefixes import count_prefixes
from mechint.positions import everywhere, generated, prompt
from mechint.probes.critique.measures import Row, TokenMargin, both_sides, sequence_log_odds, sequence_log_prob
from mechint.probes.critique.questions import (
    Question,
    Questions,
    answer_log_prob,
    recompute_log_odds,
    verdict_log_odds,
)
from mechint.probes.critique.shared_prefixes import Answers, BothSides
from mechint.prompts.reasoning import TokenTwins, Twins, arithmetic_errors, twins
from mechint.sites import Site
from mechint.steering.parts import add, clamp
from mechint.steering.plan import Plan
from tests.families import random_rows, tiny
from tests.probes.critique.letters import model as reads_bytes
from tests.probes.critique.toy import token_twins
from tests.steering.few import FAMILIES, vector

HEAD: Row = tuple(random_rows(1, 12, seed=1)[0])
SIDES: list[tuple[Row, Row]] = [
    ((5,), (6,)),  # one token each: no normaliser at all
    ((5, 7), (6, 8)),
    ((9, 5, 7), (9, 5, 8)),  # apart at the last token only
    ((9, 5), (9, 5, 8)),  # one begins like the other and ends
    ((5, 7, 8), (6,)),
]
ODDS = [Question(row, *sides) for row in (HEAD, (*HEAD[:9], 20, 21, 22), (0, 30)) for sides in SIDES]


def steered(at: int = 1) -> Plan:
    return add(vector(site=Site("resid_post", at)), 0.7)


@pytest.mark.parametrize("family", [*FAMILIES, "gemma2"])
@pytest.mark.parametrize("at", [0, 1, 2])
def test_log_odds_are_those_of_rows_of_their_own(family: str, at: int) -> None:
    """Window of 8 in the tiny Gemmas, soft-cap in Gemma 2: what cannot be a tree there is rows."""
    model, site = tiny(family), Site("resid_post", at)
    asked = [(q.row, q.positive, q.negative) for q in ODDS]
    answers = Answers(model, ODDS, [site])
    plain = answers()
    with model.apply(steered(at)):
        found, expected = answers(), sequence_log_odds(model, *zip(*asked, strict=True))

    np.testing.assert_allclose(found, expected, atol=1e-5)
    np.testing.assert_allclose(plain, sequence_log_odds(model, *zip(*asked, strict=True)), atol=1e-5)
    assert np.abs(found - plain).max() > 0.01


@pytest.mark.parametrize("family", ["llama", "gemma2"])
def test_without_a_negative_it_is_the_log_probability(family: str) -> None:
    model, asked = tiny(family), [Question(q.row, q.positive) for q in ODDS]
    rows, positive = [q.row for q in asked], [q.positive for q in asked]

    np.testing.assert_allclose(Answers(model, asked)(), sequence_log_prob(model, rows, positive), atol=1e-5)


def test_exchanged_sides_change_the_sign_and_equal_ones_cancel() -> None:
    model = tiny("llama")
    exchanged = [replace(q, positive=q.negative, negative=q.positive) for q in ODDS]
    equal = [replace(q, negative=q.positive) for q in ODDS]

    np.testing.assert_allclose(Answers(model, exchanged)(), -Answers(model, ODDS)(), atol=1e-6)
    assert Answers(model, equal)().tolist() == [0.0] * len(ODDS)
    assert Answers(model, [])().tolist() == []


PAIRS = Twins("four", tuple(twins(arithmetic_errors(12, 0, rule="off by"), reads_bytes().tokenizer))[:4], {})
ASKING: list[Callable[..., Questions]] = [
    recompute_log_odds,
    answer_log_prob,
    lambda given, tokenizer: verdict_log_odds(given, tokenizer, [("!", "?")]),
]


@pytest.mark.parametrize("ask", ASKING, ids=["recompute", "answer", "verdict"])
def test_both_sides_are_those_that_are_asked_one_by_one(ask: Callable[..., Questions]) -> None:
    model, site = reads_bytes(), Site("resid_post", 2)
    metric = ask(PAIRS, model.tokenizer)
    refused = PAIRS[1].pair.id
    sides = {n: {k: q for k, q in getattr(metric, n).items() if k != refused} for n in ("true", "wrong")}
    metric = replace(metric, **sides, refused={refused: "glued"})
    both = BothSides(model, PAIRS.tokens, metric, [site])
    v = vector(site=site)
    for plan in (add(v, 0.3), add(v, -0.3), clamp(v, 0.1, 0.1)):
        with model.apply(plan):
            found, expected = both(), both_sides(metric, model, PAIRS.tokens)
        for side in ("wrong", "true"):
            np.testing.assert_allclose(found[side], expected[side], atol=1e-5)
            assert np.isnan(found[side][1])
            assert np.isfinite(found[side][[0, 2, 3]]).all()


def passes(run: Callable[[], Any], monkeypatch: pytest.MonkeyPatch) -> tuple[int, set[int]]:
    """Tokens of all passes, and the blocks at which they begin."""
    model, tokens, begun = reads_bytes(), list[int](), set[int]()
    whole = model.run

    def watched(batch: Any, *args: Any, **kwargs: Any) -> Any:
        tokens.append(int(model.batch(batch).real.sum()))
        begun.add(0 if kwargs.get("from_") is None else kwargs["from_"].layer)
        return whole(batch, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(model, "run", watched)
        run()
    return sum(tokens), begun


def test_no_token_and_no_block_is_computed_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    model, metric = reads_bytes(), recompute_log_odds(PAIRS, reads_bytes().tokenizer)
    both = BothSides(model, PAIRS.tokens, metric, [Site("resid_post", 2)])
    rows = [
        q.row + side[:k]
        for one in (metric.true, metric.wrong)
        for (q,) in one.values()
        for side in (q.positive, q.negative)
        for k in range(len(side))
    ]
    with model.apply(add(vector(site=Site("resid_post", 2)), 0.3)):
        shared, begun = passes(both, monkeypatch)
        alone, from_first = passes(lambda: both_sides(metric, model, PAIRS.tokens), monkeypatch)

    # Of different problems no more than a beginning is alike, which each tree has for itself.
    assert shared <= 1.1 * count_prefixes(rows)
    assert shared < alone / 3
    assert (begun, from_first) == ({2}, {0})


@pytest.mark.parametrize("where", [prompt(-1), generated()], ids=str)
def test_plans_that_choose_tokens_are_measured_on_rows_of_their_own(where: Any) -> None:
    model, site = reads_bytes(), Site("resid_post", 2)
    metric = recompute_log_odds(PAIRS, model.tokenizer)
    both = BothSides(model, PAIRS.tokens, metric, [site], where)
    with model.apply(add(vector(site=site), 0.5, where=where)):
        found, expected = both(), both_sides(metric, model, PAIRS.tokens)

    assert {side: found[side].tobytes() for side in found} == {side: expected[side].tobytes() for side in expected}


def test_metrics_of_rows_are_measured_as_they_are() -> None:
    model, given, metric = tiny("llama"), token_twins(), TokenMargin((5,), (6,))
    with model.apply(steered()):
        found, expected = BothSides(model, given, metric)(), both_sides(metric, model, given)

    assert {side: found[side].tobytes() for side in found} == {side: expected[side].tobytes() for side in expected}


def test_what_stands_before_a_plan_is_not_taken_from_within_one() -> None:
    model = tiny("llama")
    with model.apply(steered()):
        with pytest.raises(InterventionError, match="before any plan acts"):
            Answers(model, ODDS, [Site("resid_post", 1)])
        model.run([[0, 5]])  # a plan that meets no pass is an error


@pytest.mark.real
def test_in_gemma_both_sides_are_those_that_are_asked_one_by_one() -> None:
    gemma = load("gemma3-270m")
    given = Twins("two", tuple(twins(arithmetic_errors(12, 0), gemma.tokenizer))[:2], {})
    metric, site = recompute_log_odds(given, gemma.tokenizer), Site("resid_post", 8)
    both = BothSides(gemma, given.tokens, metric, [site], everywhere)
    with gemma.apply(add(vector(site=site, norm=1000.0, width=640), 0.3)):
        found, expected = both(), both_sides(metric, gemma, given.tokens)

    for side in ("wrong", "true"):  # sums of up to six log probabilities of float32 logits
        np.testing.assert_allclose(found[side], expected[side], atol=2e-4)


def test_twins_of_another_set_are_refused() -> None:
    metric = recompute_log_odds(PAIRS, reads_bytes().tokenizer)
    given: TokenTwins = token_twins()

    with pytest.raises(PromptError, match="was not made for"):
        BothSides(reads_bytes(), given, metric)
