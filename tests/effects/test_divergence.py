"""T6: KL, entropy and loss of changed logits equal the dense computation in float64, whatever the blocks."""

from types import MappingProxyType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from mechint.effects import divergence as module
from mechint.effects.attribution import final_norm
from mechint.effects.divergence import divergence
from mechint.model.base import Model
from mechint.model.loading import load
from mechint.sites import Site
from tests.families import FAMILIES, VOCAB, random_rows, tiny


class Unembedding(Model):
    """A model of which nothing but the last matrix is known."""

    fingerprint = agreement = placement = MappingProxyType({})  # type: ignore[assignment]
    steerings, end_tokens = (), frozenset()  # type: ignore[assignment]

    def __init__(self, weights: Tensor, bias: Tensor | None = None, cap: float | None = None) -> None:
        self.weights, self.bias = weights, weights.new_zeros(len(weights)) if bias is None else bias
        self.facts = SimpleNamespace(d_vocab=len(weights), logit_cap=cap)  # type: ignore[assignment]

    def unembedding(self, columns: Any) -> Tensor:
        return self.weights[columns]

    def output_bias(self, columns: Any) -> Tensor:
        return self.bias[columns]

    def _unknown(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError

    run = new_past = steered = unembed = output_weights = norm = projections = mlp_output_weights = scoring = _unknown


def dense(model: Model, x: Tensor, changes: Tensor, next_tokens: Tensor) -> dict[str, Tensor]:
    """The same in float64 with every logit at hand."""
    everything = slice(0, model.facts.d_vocab)
    W, b, cap = model.unembedding(everything).double(), model.output_bias(everything).double(), model.facts.logit_cap

    def log_probs(y: Tensor) -> Tensor:
        logits = y.double() @ W.T + b
        return (logits if cap is None else cap * torch.tanh(logits / cap)).log_softmax(-1)

    p, q = log_probs(x), log_probs(x.double() + changes.double())
    own = next_tokens[:, None]
    return {
        "kl": (p.exp() * (p - q)).sum(-1),
        "entropy": -(p.exp() * p).sum(-1),
        "changed_entropy": -(q.exp() * q).sum(-1),
        "loss": -p.gather(1, own)[:, 0],
        "loss_change": (p - q).gather(2, own.expand(len(q), -1, -1))[..., 0],
        "top_log_probs": p.topk(3).values,
        "log_probs": p,
    }


def compare(model: Model, x: Tensor, changes: Tensor, rtol: float, atol: float) -> None:
    next_tokens = torch.arange(len(x)) * 5 % model.facts.d_vocab

    found, truth = (
        divergence(model, x, changes, next_tokens, top=3, changed_entropy=True),
        dense(model, x, changes, next_tokens),
    )

    for name in ("kl", "entropy", "changed_entropy", "loss", "loss_change", "top_log_probs"):
        # KL must hold relatively, however small; the others are differences of logits, which only have absolute errors.
        floor = 1e-10 if name == "kl" else atol
        torch.testing.assert_close(getattr(found, name), truth[name], rtol=rtol, atol=floor)
    assert found.top_tokens is not None
    there = truth["log_probs"].gather(1, found.top_tokens)
    torch.testing.assert_close(there, truth["top_log_probs"], rtol=rtol, atol=atol)


def stream(family: str, seed: int = 0) -> tuple[Tensor, Tensor]:
    """The normalised stream of a tiny model on some text, and three changes of very different size."""
    model = tiny(family)
    last = Site("resid_post", model.facts.n_layers - 1)
    x = final_norm(model)(model.run(random_rows(3, 7, seed), read=[last])[last]).flatten(0, 1)
    noise = torch.randn(3, *x.shape, generator=torch.Generator().manual_seed(seed))
    return x, noise * torch.tensor([1.0, 0.1, 0.01])[:, None, None]


@pytest.mark.parametrize("family", FAMILIES)
def test_everything_equals_the_dense_computation(family: str) -> None:
    compare(tiny(family), *stream(family), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", ["gpt2", "gemma2"])
def test_in_float64_it_is_exact(family: str) -> None:
    x, changes = stream(family)
    compare(tiny(family), x.double(), changes.double(), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("columns", [1, 7, VOCAB - 1, VOCAB])
@pytest.mark.parametrize("rows", [1, 9, 1000])
def test_blocks_make_no_difference(columns: int, rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    x, changes = stream("gemma2")
    monkeypatch.setattr(module, "COLUMNS", columns)
    monkeypatch.setattr(module, "ROWS", rows)

    compare(tiny("gemma2"), x.double(), changes.double(), rtol=1e-10, atol=1e-12)


def test_changes_of_a_millionth_have_a_positive_kl_of_half_their_variance() -> None:
    x, changes = stream("llama")
    x, changes = x.double(), 1e-5 * changes.double()
    p = (x @ tiny("llama").unembedding(slice(0, VOCAB)).double().T).softmax(-1)
    moved = changes @ tiny("llama").unembedding(slice(0, VOCAB)).double().T
    variance = (p * (moved - (p * moved).sum(-1, keepdim=True)) ** 2).sum(-1)

    kl = divergence(tiny("llama"), x, changes).kl

    assert 1e-8 < moved.abs().max() < 1e-4
    assert (kl > 0).all()
    torch.testing.assert_close(kl, variance / 2, rtol=1e-4, atol=0)


def test_no_change_is_no_divergence() -> None:
    x, changes = stream("gpt2")
    found = divergence(tiny("gpt2"), x, changes * 0, torch.zeros(len(x), dtype=torch.long))

    assert not found.kl.any()
    assert not found.loss_change.any()


def test_without_next_tokens_there_is_no_loss() -> None:
    x, changes = stream("gpt2")
    found = divergence(tiny("gpt2"), x, changes)

    assert found.loss.isnan().all()
    assert found.loss_change.isnan().all()
    assert found.top_tokens is None
    assert found.changed_entropy is None


def test_what_is_added_to_all_logits_costs_no_digits(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(500, 8, generator=generator)
    weights[:, 0] = 1  # the first coordinate moves every logit alike
    model, x = Unembedding(weights), torch.randn(4, 8, generator=generator)
    change = 1e-3 * torch.randn(1, 4, 8, generator=generator)
    shifted = change.clone()
    shifted[..., 0] = 4.0
    monkeypatch.setattr(module, "COLUMNS", 64)
    own = torch.tensor([0, 100, 300, 499])

    alone, together = divergence(model, x, change, own), divergence(model, x, shifted, own)

    torch.testing.assert_close(together.kl, alone.kl, rtol=2e-3, atol=0)  # naively: nothing of 1e-6 is left
    torch.testing.assert_close(together.loss_change, alone.loss_change, rtol=0, atol=2e-6)


@pytest.mark.parametrize("place", [0, 250, 499])
def test_one_overwhelming_token_may_stand_anywhere(place: int, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(1)
    weights = torch.randn(500, 8, generator=generator)
    weights[place] *= 40
    x = weights[[place]] / weights[place].norm() + 0.1 * torch.randn(3, 8, generator=generator)
    monkeypatch.setattr(module, "COLUMNS", 50)

    compare(Unembedding(weights), x, torch.randn(2, 3, 8, generator=generator) * 0.2, rtol=1e-4, atol=2e-5)
    compare(Unembedding(weights, cap=30.0), x.double(), x[None].double() * -0.5, rtol=1e-9, atol=1e-10)


def test_no_table_of_all_positions_and_the_whole_vocabulary_is_made() -> None:
    largest = 0

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            nonlocal largest
            out = func(*args, **(kwargs or {}))
            if isinstance(out, Tensor) and out._base is None:
                largest = max(largest, out.numel())
            return out

    n, d_vocab = 3000, 6000
    model, x = Unembedding(torch.randn(d_vocab, 4)), torch.randn(n, 4)
    with Watch():
        divergence(model, x, torch.randn(2, n, 4), torch.zeros(n, dtype=torch.long))

    assert 0 < largest <= module.ROWS * module.COLUMNS * 2
    assert largest < n * d_vocab / 4


@pytest.mark.real
def test_the_sums_over_a_vocabulary_of_262144_hold_to_a_ten_thousandth() -> None:
    gemma = load("gemma3-270m")
    last = Site("resid_post", gemma.facts.n_layers - 1)
    row = gemma.tokenize("When Mary and John went to the store, John gave a drink to")[9:12]
    stream = gemma.run([row], read=[last])
    x = final_norm(gemma)(stream[last])[0]
    noise = torch.randn(2, *x.shape, generator=torch.Generator().manual_seed(0))

    # Of the size of a head's effects: KL of 1e-3 and 1e-1 nats.
    changes = noise * torch.tensor([0.003, 0.03])[:, None, None] * x.abs().mean()

    compare(gemma, x, changes, rtol=1e-4, atol=2e-4)


@pytest.mark.parametrize("cap", [None, 30.0])
@pytest.mark.parametrize("size", [60.0, 86.0, 92.0, 120.0, 400.0])
def test_a_change_too_violent_for_float32_is_exact_too(size: float, cap: float | None) -> None:
    generator = torch.Generator().manual_seed(0)
    weights, x = torch.randn(50, 8, generator=generator), torch.randn(6, 8, generator=generator)
    changes = torch.randn(3, 6, 8, generator=generator)
    changes[1:, ::2] *= size / (changes[1:, ::2] @ weights.T).amax(-1, keepdim=True)
    model = Unembedding(weights, torch.randn(50, generator=generator), cap)

    compare(model, x, changes, rtol=1e-4, atol=1e-4)
    assert divergence(model, x, changes[1:]).kl.max() > (10 if cap else size / 4)


def test_nan_stays_nan() -> None:
    model = Unembedding(torch.randn(50, 8, generator=torch.Generator().manual_seed(0)))
    changes = torch.zeros(2, 3, 8)
    changes[1, 2] = torch.nan

    kl = divergence(model, torch.ones(3, 8), changes).kl
    assert kl.isnan().nonzero().tolist() == [[1, 2]]
