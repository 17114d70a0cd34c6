"""T7 and the selection of kept sources: against loops, and without the ties that keep what must not be kept."""

import math

import pytest
import torch
from torch import Tensor

from mechint.probes.copy_suppression.context_tokens import eligible_sources, kept_sources

EXCLUDED = torch.tensor([0, 1, 2])


def example(seed: int, n_forms: int = 1, length: int = 40) -> tuple[Tensor, Tensor]:
    """Rows in which tokens recur, and a lens that depends on destination and token only."""
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(1, 12, (3, length), generator=generator)
    tokens[:, 0] = 0
    lens_of_vocabulary = torch.randn(3, length, 12, n_forms, generator=generator)
    index = tokens[:, None, :, None].expand(-1, length, -1, n_forms)
    lens = lens_of_vocabulary.gather(2, index)
    if n_forms > 1:  # tokens of odd id have no last form
        lens[..., -1] = lens[..., -1].masked_fill((tokens % 2 == 1)[:, None], -torch.inf)
    return tokens, lens


def by_loops(lens: Tensor, tokens: Tensor, share: float, window: int | None) -> Tensor:
    kept = torch.zeros_like(lens, dtype=torch.bool)
    for b in range(len(tokens)):
        for d in range(tokens.shape[1]):
            first = 1 if window is None else max(1, d - window + 1)
            sources = [s for s in range(first, d + 1) if int(tokens[b, s]) not in EXCLUDED.tolist()]
            pairs: dict[tuple[int, int], float] = {}
            for s in sources:
                for f in range(lens.shape[-1]):
                    if lens[b, d, s, f] > -torch.inf:
                        pairs.setdefault((int(tokens[b, s]), f), float(lens[b, d, s, f]))
            places = math.ceil(round(share * (d + 1), 9))
            best = sorted(pairs, key=lambda pair: -pairs[pair])[:places]
            for s in sources:
                for f in range(lens.shape[-1]):
                    kept[b, d, s, f] = (int(tokens[b, s]), f) in best
    return kept


@pytest.mark.parametrize("window", [None, 5])
@pytest.mark.parametrize("share", [0.0, 0.05, 0.1, 0.6, 1.0])
@pytest.mark.parametrize("n_forms", [1, 3])
def test_the_selection_is_that_of_plain_loops(window: int | None, share: float, n_forms: int) -> None:
    tokens, lens = example(seed=7, n_forms=n_forms)

    kept = kept_sources(lens, tokens, eligible_sources(tokens, EXCLUDED, window), share)

    assert torch.equal(kept, by_loops(lens, tokens, share, window))


def test_a_positive_scale_of_each_position_changes_nothing() -> None:
    tokens, lens = example(seed=1)
    eligible = eligible_sources(tokens, EXCLUDED)
    scale = torch.rand(3, 40, generator=torch.Generator().manual_seed(2)) * 1000 + 1e-3

    assert torch.equal(
        kept_sources(lens * scale[:, :, None, None], tokens, eligible), kept_sources(lens, tokens, eligible)
    )


def test_with_too_few_eligible_sources_nothing_else_is_kept() -> None:
    tokens = torch.tensor([[0, 1, 2, 1, 9, 1, 2, 9]])  # of all these, only 9 is of interest
    lens = torch.zeros(1, 8, 8, 1)

    kept = kept_sources(lens, tokens, eligible_sources(tokens, EXCLUDED), share=1.0)[0, :, :, 0]

    assert kept.nonzero().tolist() == [[4, 4], [5, 4], [6, 4], [7, 4], [7, 7]]


def test_every_occurrence_of_a_kept_token_is_kept_though_its_lens_is_off_by_a_rounding() -> None:
    tokens = torch.tensor([[0, 5, 6, 5, 6, 5]])
    lens = torch.zeros(1, 6, 6, 1)
    lens[0, :, [1, 3, 5]] = 1.0
    lens[0, :, 3] -= 1e-7

    kept = kept_sources(lens, tokens, eligible_sources(tokens, EXCLUDED), share=0.05)[0, 5, :, 0]

    assert kept.tolist() == [False, True, False, True, False, True]


def test_a_rounding_of_the_share_keeps_no_token_more() -> None:
    assert math.ceil(0.07 * 100) == 8  # the trap
    tokens = torch.arange(100)[None] + 10
    lens = torch.arange(100.0).expand(1, 100, 100)[..., None]

    kept = kept_sources(lens, tokens, eligible_sources(tokens, EXCLUDED), share=0.07)

    assert kept[0, 99].sum() == 7


def test_a_head_may_keep_the_token_it_looks_from_but_never_position_0() -> None:
    tokens = torch.tensor([[7, 5, 6]])  # a text without BOS
    eligible = eligible_sources(tokens, EXCLUDED)

    assert eligible[0].tolist() == [[False] * 3, [False, True, False], [False, True, True]]


def test_what_left_the_window_is_no_source_and_its_next_occurrence_counts_as_first() -> None:
    tokens = torch.tensor([[0, 5, 6, 7, 5]])
    lens = torch.tensor([0.0, 3.0, 2.0, 1.0, 3.0]).expand(1, 5, 5)[..., None]

    kept = kept_sources(lens, tokens, eligible_sources(tokens, EXCLUDED, window=3), share=0.2)

    assert kept[0, 4, :, 0].tolist() == [False, False, False, False, True]
