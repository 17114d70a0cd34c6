import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mechint.capture.activations import record
from mechint.capture.moments import Moments, RecordedMoments, record_moments
from mechint.errors import ConfigError, PromptError, SiteError
from mechint.positions import everywhere, prompt
from mechint.prompts import contrast
from tests.families import tiny

PAIRS = contrast([f"w5 w{i} w9" for i in range(6, 14)], [f"w5 w{i}" for i in range(20, 28)])
SITES = ["L0.mlp_out", "L2.resid_post"]


@given(st.integers(1, 30), st.integers(1, 30), st.integers(1, 30), st.integers(0, 5))
def test_moments_of_parts_add_up_to_the_moments_of_the_whole(a: int, b: int, c: int, seed: int) -> None:
    x = 1e4 + torch.randn(a + b + c, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.double)
    parts = [Moments.of(part) for part in x.split([a, b, c])]
    whole = parts[0] + (parts[1] + parts[2])

    assert whole.n == len(x)
    assert torch.allclose(whole.mean, x.mean(0))
    assert torch.allclose(whole.covariance, torch.cov(x.T), atol=1e-8)


def test_streamed_moments_are_those_of_what_is_recorded() -> None:
    streamed = record_moments(tiny("gemma3"), PAIRS, SITES)
    kept = RecordedMoments.of(record(tiny("gemma3"), PAIRS, SITES))

    assert streamed.norms == kept.norms
    assert (streamed.groups, streamed.at, streamed.data, streamed.model) == (
        kept.groups,
        kept.at,
        kept.data,
        kept.model,
    )
    for site in SITES:
        for label in (0, 1):
            one, other = streamed.side(site)[label], kept.side(site)[label]
            assert one.n == other.n == 8
            assert torch.allclose(one.mean, other.mean, atol=1e-5)
            assert torch.allclose(one.scatter, other.scatter, atol=1e-4)


def test_every_selected_token_counts_as_one_vector() -> None:
    moments = record_moments(tiny("gemma3"), ["w5 w6 w7", "w8 w9 w10"], "L1.resid_post", everywhere - prompt(0))

    assert moments.side("L1.resid_post")[0].n == 6


def test_what_has_no_moments_is_refused() -> None:
    with pytest.raises(PromptError, match="1 vectors have no covariance"):
        _ = Moments.of(torch.ones(1, 3)).covariance
    with pytest.raises(ConfigError, match="the limit is"):
        record_moments(tiny("gemma3"), PAIRS, SITES, most_bytes=100)
    with pytest.raises(SiteError, match="was not recorded"):
        record_moments(tiny("gemma3"), PAIRS, SITES).side("L1.mlp_out")
