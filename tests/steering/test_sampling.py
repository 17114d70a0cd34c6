"""Sampling: the filters are transformers' own, the draws follow the distribution, and rows are seeded by name."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers.generation.logits_process import (
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from mechint.errors import ConfigError
from mechint.steering.sampling import Sampling, draw, filtered, generators, penalised


def random_logits(n: int, size: int, seed: int = 0, spread: float = 3.0) -> torch.Tensor:
    return spread * torch.randn(n, size, generator=torch.Generator().manual_seed(seed))


@given(
    seed=st.integers(0, 1000),
    temperature=st.floats(0.1, 5),
    top_k=st.none() | st.integers(1, 60),
    top_p=st.none() | st.floats(0.05, 1.0),
    min_p=st.none() | st.floats(0.0, 0.5),
)
def test_filters_are_those_of_transformers(seed: int, temperature: float, top_k: Any, top_p: Any, min_p: Any) -> None:
    logits = random_logits(3, 50, seed)
    expected = TemperatureLogitsWarper(temperature)(None, logits)
    for setting, warper in ((top_k, TopKLogitsWarper), (top_p, TopPLogitsWarper), (min_p, MinPLogitsWarper)):
        expected = expected if setting is None else warper(setting)(None, expected)  # type: ignore[operator]

    found = filtered(logits, Sampling(temperature, top_k, top_p, min_p))

    kept = found > -torch.inf
    # Where the sum of probabilities is p but for rounding, one token more or less is right.
    assert (kept != (expected > -torch.inf)).sum() <= len(logits)
    both = kept & (expected > -torch.inf)
    torch.testing.assert_close(found[both], expected[both])
    assert bool(kept.any(-1).all())


def test_top_p_of_a_flat_distribution_over_a_long_vocabulary_sorts_as_far_as_needed() -> None:
    logits = random_logits(2, 40_000, spread=0.01)

    found = filtered(logits, Sampling(1.0, top_p=0.7))

    expected = TopPLogitsWarper(0.7)(None, logits)
    kept, theirs = found > -torch.inf, expected > -torch.inf
    assert (kept.sum(-1) - theirs.sum(-1)).abs().max() <= 2
    assert kept.sum(-1).min() > 20_000


def test_the_repetition_penalty_is_that_of_transformers() -> None:
    logits, rows = random_logits(2, 30), torch.tensor([[3, 4, 3, 9], [0, 29, 1, 2]])

    found = penalised(logits, list(rows), 1.7)

    torch.testing.assert_close(found, RepetitionPenaltyLogitsProcessor(1.7)(rows, logits.clone()))
    assert penalised(logits, list(rows), 1.0) is logits


def test_draws_follow_the_distribution() -> None:
    p = torch.tensor([0.5, 0.0, 0.3, 0.2])
    n = 4000

    drawn = draw(p.log().expand(n, -1), [torch.Generator().manual_seed(i) for i in range(n)])

    counts = torch.bincount(drawn, minlength=4) / n
    assert counts[1] == 0
    assert (counts - p).abs().max() < 4 * (0.25 / n) ** 0.5  # four standard errors


def test_a_row_is_seeded_by_its_name_and_how_often_it_came_before() -> None:
    def first(names: list[str], seed: int = 0) -> list[float]:
        return [float(torch.rand((), generator=g)) for g in generators(names, seed)]

    a, b, again = first(["a", "b", "a"])
    assert first(["b", "a"]) == [b, a]
    assert len({a, b, again}) == 3
    assert first(["a"], seed=1) != [a]


@pytest.mark.parametrize(
    "setting",
    [
        {"temperature": -0.1},
        {"temperature": float("nan")},
        {"top_k": 0},
        {"top_p": 0.0},
        {"top_p": 1.1},
        {"min_p": -0.1},
        {"repetition_penalty": 0.0},
    ],
)
def test_numbers_out_of_range_are_refused(setting: dict[str, Any]) -> None:
    (name,) = setting
    with pytest.raises(ConfigError, match=f"{name} is .* Expected a number"):
        Sampling(**setting)
