"""Streamed entropies, probabilities and extreme tokens are those of the whole table of logits."""

import pytest
import torch
from torch import Tensor

from mechint.effects.predictions import extreme_tokens, predictions
from mechint.model.base import Model
from tests.families import FAMILIES, VOCAB, tiny

N, J, TOP = 5, 3, 4


def some_outputs(dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(0)
    normalised = 3 * torch.randn(N, 32, generator=draw, dtype=torch.float64)
    return normalised.to(dtype), torch.randn(J, N, 32, generator=draw, dtype=torch.float64).to(dtype)


def dense_logits(model: Model, normalised: Tensor, changes: Tensor) -> Tensor:
    """Every logit of every output, by the definition, in float64: [1 + J, N, vocabulary]."""
    everything = torch.arange(VOCAB)
    outputs = torch.cat([normalised[None], normalised + changes]).double()
    logits = outputs @ model.unembedding(everything).double().T + model.output_bias(everything).double()
    cap = model.facts.logit_cap
    return logits if cap is None else cap * torch.tanh(logits / cap)


@pytest.mark.parametrize("block", [1, 7, VOCAB])
@pytest.mark.parametrize("family", FAMILIES)
def test_streamed_predictions_equal_the_softmax_of_the_whole_table(family: str, block: int) -> None:
    model, (normalised, changes) = tiny(family), some_outputs()

    found = predictions(model, normalised, changes, TOP, block=block, rows=7)

    logits = dense_logits(model, normalised, changes)
    log_p = logits.log_softmax(-1)
    best = log_p.exp().topk(TOP)
    torch.testing.assert_close(found.entropy, -(log_p.exp() * log_p).sum(-1), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found.log_partition, logits.logsumexp(-1), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found.probabilities, best.values, rtol=1e-4, atol=1e-6)
    assert torch.equal(found.tokens, best.indices)


@pytest.mark.parametrize("family", ["gpt2", "gemma2"])
def test_in_float64_they_are_exact(family: str) -> None:
    model, (normalised, changes) = tiny(family), some_outputs(torch.float64)

    found = predictions(model, normalised, changes, block=7)

    log_p = dense_logits(model, normalised, changes).log_softmax(-1)
    torch.testing.assert_close(found.entropy, -(log_p.exp() * log_p).sum(-1), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("family", FAMILIES)
def test_adding_nothing_changes_nothing(family: str) -> None:
    model, (normalised, _) = tiny(family), some_outputs()

    found = predictions(model, normalised, torch.zeros(2, N, 32), block=7)

    assert torch.equal(found.entropy[1:], found.entropy[:1].expand(2, -1))
    assert torch.equal(found.tokens[1:], found.tokens[:1].expand(2, -1, -1))
    assert torch.equal(found.probabilities[1:], found.probabilities[:1].expand(2, -1, -1))


def test_huge_logits_do_not_overflow() -> None:
    model, (normalised, changes) = tiny("llama"), some_outputs()

    found = predictions(model, 1e4 * normalised, changes, block=7)

    assert torch.isfinite(found.entropy).all()
    assert torch.isfinite(found.log_partition).all()
    assert (found.entropy >= 0).all()


def test_the_entropy_of_equal_logits_is_that_of_the_uniform_distribution() -> None:
    model = tiny("llama")  # its unembedding has no bias

    found = predictions(model, torch.zeros(1, 32), torch.zeros(1, 1, 32), block=7)

    assert found.entropy.flatten().tolist() == pytest.approx([torch.tensor(float(VOCAB)).log().item()] * 2)


@pytest.mark.parametrize("lowest", [False, True])
@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("family", ["gptj", "llama"])  # GPT-J's unembedding has a bias
def test_extreme_tokens_are_those_of_the_whole_table(family: str, with_bias: bool, lowest: bool) -> None:
    model, (normalised, _) = tiny(family), some_outputs()
    everything = torch.arange(VOCAB)

    found = extreme_tokens(model, normalised, 6, lowest=lowest, with_bias=with_bias, block=4, rows=2)

    table = normalised @ model.unembedding(everything).T + (model.output_bias(everything) if with_bias else 0)
    assert torch.equal(found, table.topk(6, largest=not lowest).indices)


def test_the_bias_of_the_unembedding_matters_in_that_test() -> None:
    normalised, _ = some_outputs()

    one, other = (extreme_tokens(tiny("gptj"), normalised, 6, with_bias=flag) for flag in (False, True))

    assert not torch.equal(one, other)
