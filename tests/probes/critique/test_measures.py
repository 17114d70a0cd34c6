"""Probabilities are those of the whole rows, whatever is batched or steered, and questions end between two tokens."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from mechint.errors import PromptError, TokenError
from mechint.model.transformer_lens import TransformerLensModel
from mechint.positions import everywhere, generated, prompt
from mechint.probes.critique.measures import (
    AtResult,
    Row,
    TokenMargin,
    arithmetic_margin,
    on_side,
    sequence_log_odds,
    sequence_log_prob,
)
from mechint.probes.critique.questions import (
    WORDS,
    Questions,
    answer_log_prob,
    recompute_log_odds,
    recovery,
    verdict_log_odds,
)
from mechint.prompts.reasoning import MinimalPair, OffBy, Pairs, Twins, arithmetic_problems, inject, twins
from mechint.steering.parts import add
from tests.families import random_rows, tiny
from tests.probes.critique.toy import token_twins
from tests.steering.few import FAMILIES, vector

ROWS: list[Row] = [tuple(row) for n in (3, 7, 5, 12) for row in random_rows(5, n, seed=n)]
AFTER: list[Row] = [tuple(row[1:]) for row in (random_rows(1, 2 + i % 3, seed=90 + i)[0] for i in range(20))]
MARGIN = TokenMargin((5, 6), (7,))


def directly(model: Any, row: Row, continuation: Row) -> float:
    """log p of a continuation, from every logit of the whole row."""
    log_p = model.all_logits([[*row, *continuation]])[0].double().log_softmax(-1)
    return sum(float(log_p[len(row) - 1 + k, token]) for k, token in enumerate(continuation))


@pytest.mark.parametrize("family", FAMILIES)
def test_log_probabilities_are_those_of_the_whole_rows(family: str) -> None:
    model = tiny(family)
    expected = [directly(model, row, after) for row, after in zip(ROWS, AFTER, strict=True)]

    np.testing.assert_allclose(sequence_log_prob(model, ROWS, AFTER), expected, atol=2e-5)


def test_all_continuations_of_one_token_share_a_probability_of_one() -> None:
    everything: list[Row] = [(token,) for token in range(50)]

    assert np.exp(sequence_log_prob(tiny("llama"), [ROWS[0]] * 50, everything)).sum() == pytest.approx(1)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("where", [everywhere, prompt(-1), prompt(-1) | generated()], ids=str)
def test_a_steered_batch_is_its_single_rows(family: str, where: Any) -> None:
    model = tiny(family)
    with model.apply(add(vector(), 0.7, where=where)):
        together, margins = sequence_log_prob(model, ROWS, AFTER), MARGIN(model, ROWS)
        alone = [sequence_log_prob(model, [r], [c])[0] for r, c in zip(ROWS, AFTER, strict=True)]
        margins_alone = [MARGIN(model, [r])[0] for r in ROWS]

    np.testing.assert_allclose(together, alone, atol=2e-5)
    np.testing.assert_allclose(margins, margins_alone, atol=2e-5)
    assert np.abs(together - sequence_log_prob(model, ROWS, AFTER)).max() > 0.01


def test_a_plan_acts_on_a_continuation_as_on_generated_tokens() -> None:
    """The first token is predicted where a row ends; the second where the first has been read, one further."""
    model, two = tiny("llama"), [after[:2] for after in AFTER if len(after) >= 2]
    rows = [row for row, after in zip(ROWS, AFTER, strict=True) if len(after) >= 2]
    with model.apply(add(vector(), 0.7, where=prompt(-1))):
        whole = sequence_log_prob(model, rows, two)
        first = sequence_log_prob(model, rows, [after[:1] for after in two])
    grown = [(*row, after[0]) for row, after in zip(rows, two, strict=True)]
    with model.apply(add(vector(), 0.7, where=prompt(-2))):
        second = sequence_log_prob(model, grown, [after[1:] for after in two])
    np.testing.assert_allclose(whole, first + second, atol=2e-5)

    with model.apply(add(vector(), 0.7, where=generated())):
        only_second = sequence_log_prob(model, rows, two)
    with model.apply(add(vector(), 0.7, where=prompt(-1))):
        steered = sequence_log_prob(model, grown, [after[1:] for after in two])
    plain = sequence_log_prob(model, rows, [after[:1] for after in two])
    np.testing.assert_allclose(only_second, plain + steered, atol=2e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_dose_0_changes_no_bit_and_a_vector_undoes_its_opposite(family: str) -> None:
    model, v = tiny(family), vector()
    plain = sequence_log_prob(model, ROWS, AFTER), MARGIN(model, ROWS)
    with model.apply(add(v, 0.0)):
        nothing = sequence_log_prob(model, ROWS, AFTER), MARGIN(model, ROWS)
    with model.apply(add(v, 0.7) + add(-v, 0.7)):
        undone = sequence_log_prob(model, ROWS, AFTER), MARGIN(model, ROWS)

    for before, zero, back in zip(plain, nothing, undone, strict=True):
        assert before.tobytes() == zero.tobytes()
        np.testing.assert_allclose(back, before, atol=1e-4)


def test_odds_of_single_tokens_need_no_vocabulary_and_are_the_same() -> None:
    model = tiny("gemma3")
    positive: list[Row] = [after[:1] for after in AFTER]
    negative: list[Row] = [((after[0] + 1) % 50,) for after in AFTER]
    expected = sequence_log_prob(model, ROWS, positive) - sequence_log_prob(model, ROWS, negative)

    np.testing.assert_allclose(sequence_log_odds(model, ROWS, positive, negative), expected, atol=1e-5)


def test_a_margin_is_the_log_odds_of_its_tokens() -> None:
    model = tiny("llama")
    p = [model.all_logits([list(row)])[0, -1].double().softmax(-1) for row in ROWS]
    expected = [float((q[5] + q[6]).log() - q[7].log()) for q in p]

    np.testing.assert_allclose(MARGIN(model, ROWS), expected, atol=1e-5)
    np.testing.assert_allclose(TokenMargin((7,), (5, 6))(model, ROWS), -np.array(expected), atol=1e-5)


def test_at_the_result_nothing_that_comes_later_counts() -> None:
    model, given = tiny("llama"), token_twins()
    at = AtResult(MARGIN)
    cut = [row[: r + 1] for row, r in zip(given.wrong, given.result, strict=True)]

    np.testing.assert_array_equal(on_side(at, model, given, wrong=True), MARGIN(model, cut))
    assert np.abs(on_side(MARGIN, model, given, wrong=True) - MARGIN(model, cut)).max() > 0.01
    assert (at.name, at.unit, at.threshold) == (MARGIN.name, "nats", 0.0)


def test_the_arithmetic_margin_is_that_of_the_results_given_what_is_before_them() -> None:
    model, given = tiny("llama"), token_twins()
    expected: list[float] = []
    for true, wrong, r in zip(given.true, given.wrong, given.result, strict=True):
        sides = [directly(model, row[: r - 1], row[r - 1 : r + 1]) for row in (true, wrong)]
        expected.append(sides[0] - sides[1])

    np.testing.assert_allclose(arithmetic_margin(model, given), expected, atol=2e-5)
    exchanged = replace(given, true=given.wrong, wrong=given.true)
    np.testing.assert_allclose(arithmetic_margin(model, exchanged), -np.array(expected), atol=2e-5)


@pytest.mark.parametrize(
    ("rows", "after", "message"),
    [([(0, 5)], [], "1 rows and 0 continuations"), ([(0, 5)], [()], "1 of them empty"), ([()], [(5,)], "1 and 0")],
)
def test_rows_without_a_continuation_are_refused(rows: Any, after: Any, message: str) -> None:
    with pytest.raises(PromptError, match=message):
        sequence_log_prob(tiny("llama"), rows, after)


def test_a_margin_of_a_token_against_itself_is_refused() -> None:
    with pytest.raises(TokenError, match="none of them on both"):
        TokenMargin((5, 6), (6,))
    with pytest.raises(TokenError, match="on both sides"):
        TokenMargin((), (6,))


# Questions


def letters(*words: str, numbers: str = "apart") -> PreTrainedTokenizerFast:
    """Bytes, and these words; numbers are their digits, or begin with their blank."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=600, special_tokens=["<bos>"], initial_alphabet=alphabet, show_progress=False, min_frequency=1
    )
    blank = [f" {digit}" for digit in range(10)] if numbers == "with their blank" else []
    tokenizer.train_from_iterator([*words, *blank], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<bos>")


def reader(tokenizer: PreTrainedTokenizerFast) -> TransformerLensModel:
    """A tiny random model of these tokens."""
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
    config = transformers.LlamaConfig(
        **sizes, vocab_size=len(tokenizer), num_attention_heads=4, max_position_embeddings=1024
    )
    plain: Any = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    return TransformerLensModel(plain, tokenizer, name="reader")


TOKENIZER = letters(*(word for pair in WORDS for word in pair))
PAIRS = inject(arithmetic_problems(5), OffBy())
TWINS = twins(PAIRS, TOKENIZER)


def of(metric: Questions, given: Twins, model: Any) -> list[np.ndarray]:
    """The true and the wrong side."""
    return [metric.side(model, given.tokens, wrong=wrong) for wrong in (False, True)]


def test_a_verdict_is_asked_with_balanced_examples_in_both_orders() -> None:
    metric = verdict_log_odds(TWINS, TOKENIZER)
    name = TWINS[0].pair.id
    texts = [str(TOKENIZER.decode([*q.row[1:]])) for q in metric.wrong[name]]

    assert len(texts) == len(WORDS) * 2
    pair = TWINS[0].pair
    for text, (bad, good) in zip(texts, [w for w in WORDS for _ in range(2)], strict=True):
        assert text.count(f"Verdict:{bad}\n") == text.count(f"Verdict:{good}\n") == 2
        assert text.endswith(f"Step: {pair.expression} = {pair.wrong}\nVerdict:")
        # Every judged example is judged rightly.
        for step in text.split("\n\n")[:-1]:
            sum_, result = step.removeprefix("Step: ").split("\n")[0].split(" = ")
            assert (eval(sum_) == float(result)) == step.endswith(good)
    assert texts[0].split("\n\n")[:4] == texts[1].split("\n\n")[3::-1]
    assert metric.threshold == 0


def test_a_verdict_is_the_mean_over_orders_and_words() -> None:
    model = reader(TOKENIZER)
    metric = verdict_log_odds(TWINS, TOKENIZER)
    single = [of(verdict_log_odds(TWINS, TOKENIZER, [words]), TWINS, model) for words in WORDS]

    np.testing.assert_allclose(of(metric, TWINS, model), np.mean(single, axis=0), atol=1e-9)
    contrary = verdict_log_odds(TWINS, TOKENIZER, [(good, bad) for bad, good in WORDS])
    questions = contrary.true[TWINS[0].pair.id]
    assert questions[0].positive == metric.true[TWINS[0].pair.id][0].negative


def test_words_of_several_tokens_give_no_verdict() -> None:
    with pytest.raises(TokenError, match="' dubious' is"):
        verdict_log_odds(TWINS, TOKENIZER, [(" dubious", " right")])


@pytest.mark.parametrize("numbers", ["apart", "with their blank"])
def test_what_is_asked_for_is_the_number_whoever_has_the_blank(numbers: str) -> None:
    tokenizer = letters(numbers=numbers)
    given = twins(PAIRS, tokenizer)
    metric = recompute_log_odds(given, tokenizer)

    assert not metric.refused
    for pair in (twin.pair for twin in given):
        for wrong, asked in ((False, metric.true), (True, metric.wrong)):
            (question,) = asked[pair.id]
            for literal, after in ((pair.true, question.positive), (pair.wrong, question.negative)):
                said = str(tokenizer.decode([*question.row[1:], *after]))
                assert said == f"{pair.text(wrong=wrong)}\n\nRecalculating: {pair.expression} = {literal}"
                assert str(tokenizer.decode([*after])).strip() == literal


def test_a_question_that_ends_within_a_token_is_refused_with_the_reason() -> None:
    pieces = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {piece: at for at, piece in enumerate(["<bos>", *pieces, "=Ġ", "=Ġ6"])}
    glued = Tokenizer(models.BPE(vocabulary, [("=", "Ġ"), ("=Ġ", "6")]))
    glued.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    glued.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=glued, bos_token="<bos>")
    bad = MinimalPair("bad", "p", "How many?", "It is ", "6", "5", ".", "2 + 3", "+")
    good = replace(bad, id="good", group="q", wrong="7")
    given = twins(Pairs("x", (bad, good)), tokenizer)

    metric = recompute_log_odds(given, tokenizer)

    assert metric.refused == {"bad": "the tokens of the number do not begin where the question ends"}
    values = metric.side(reader(tokenizer), given.tokens, wrong=True)
    assert np.isnan(values).tolist() == [True, False]


def test_computing_again_compares_two_literals_after_one_text() -> None:
    model = reader(TOKENIZER)
    metric = recompute_log_odds(TWINS, TOKENIZER)
    for side, asked in zip(of(metric, TWINS, model), (metric.true, metric.wrong), strict=True):
        questions = [asked[name][0] for name in TWINS.tokens.ids]
        expected = [directly(model, q.row, q.positive) - directly(model, q.row, q.negative) for q in questions]
        np.testing.assert_allclose(side, expected, atol=1e-4)


def test_the_answer_is_that_of_the_problem_not_of_the_step() -> None:
    model = reader(TOKENIZER)
    answers = {problem.id: problem.answer for problem in arithmetic_problems(5)}
    metric = answer_log_prob(TWINS, TOKENIZER, answers)
    for twin in TWINS:
        (question,) = metric.wrong[twin.pair.id]
        assert str(TOKENIZER.decode([*question.positive])).strip() == answers[twin.pair.group]
    first = metric.wrong[TWINS[0].pair.id][0]
    assert of(metric, TWINS, model)[1][0] == pytest.approx(directly(model, first.row, first.positive), abs=1e-4)

    with pytest.raises(PromptError, match="have no answer"):
        answer_log_prob(TWINS, TOKENIZER, {})


def test_pairs_that_a_metric_was_not_made_of_are_refused() -> None:
    metric = recompute_log_odds(TWINS[:2], TOKENIZER)
    with pytest.raises(PromptError, match="was not made for 3 of 5 pairs"):
        metric.side(reader(TOKENIZER), TWINS.tokens, wrong=True)


# Recovery


def numbers(values: Sequence[float]) -> np.ndarray:
    return np.array(values, float)


def test_recovery_is_0_where_nothing_is_changed_and_1_where_all_is_put_right() -> None:
    rng = np.random.default_rng(0)
    wrong = rng.standard_normal(30)
    true = wrong + rng.uniform(0.5, 2, 30)

    nothing, all_ = recovery(true, wrong, wrong), recovery(true, wrong, true)
    half = recovery(true, wrong, (true + wrong) / 2)

    assert (nothing.share.value, nothing.share.low, nothing.share.high) == (0, 0, 0)
    assert all_.share.value == 1
    assert half.share.value == pytest.approx(0.5)
    np.testing.assert_allclose(half.of_each, 0.5)


def test_pairs_whose_error_costs_next_to_nothing_are_left_out_and_counted() -> None:
    true, wrong = numbers([0, 0, 0, 0, np.nan]), numbers([-1, -0.09, 0.5, -2, -1])

    found = recovery(true, wrong, wrong + 0.5)

    assert (found.skipped, found.share.n) == (2, 2)
    assert np.isnan(found.of_each).tolist() == [False, True, True, False, True]
    assert found.share.value == pytest.approx(1.0 / 3.0)
    np.testing.assert_allclose(found.lost[:4], [1, 0.09, -0.5, 2])


def test_without_a_pair_that_counts_there_is_no_recovery() -> None:
    found = recovery(numbers([0, 0]), numbers([0, 0]), numbers([1, 1]))

    assert np.isnan(found.share.value)
    assert (found.skipped, found.share.n) == (2, 0)
