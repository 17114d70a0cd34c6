"""The last MLP is computed only where it is looked at, and nothing that is read changes by that."""

import pytest
import torch

from mechint.interventions import zero
from mechint.model.base import Logits
from mechint.model.bridge_weights import unwrap
from mechint.model.trimming import common_places, only_at
from mechint.positions import everywhere, prompt
from mechint.sites import Site
from tests.families import FAMILIES, random_rows, tiny

ROWS = [*random_rows(2, 7), *random_rows(1, 5, seed=3)]


def tokens_through_last_mlp(family: str, **how: object) -> int:
    model = tiny(family)
    mlp = unwrap(model._bridge.blocks[-1].mlp)
    seen: list[int] = []
    # Behind the cut, which is a hook too: hooks run in the order in which they are made.
    original = mlp.forward

    def counting(x: torch.Tensor) -> torch.Tensor:
        seen.append(x.shape[1])
        return original(x)

    mlp.forward = counting
    try:
        model.run(ROWS, **how)
    finally:
        del mlp.forward
    return seen[0]


@pytest.mark.parametrize("family", FAMILIES)
def test_only_the_positions_that_are_read_pass_the_last_mlp(family: str) -> None:
    last = Site("resid_post", tiny(family).facts.n_layers - 1)

    assert tokens_through_last_mlp(family, read={last: prompt(-1)}, logits=Logits()) == 1
    assert tokens_through_last_mlp(family, read=[last]) == 7
    assert tokens_through_last_mlp(family, read={last: prompt(-1)}, logits=Logits(at=prompt(0))) == 7
    assert tokens_through_last_mlp(family, read={last: prompt(-1)}, write={last: zero()}) == 7


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_read_there_is_what_a_whole_pass_gives(family: str) -> None:
    model = tiny(family)
    n = model.facts.n_layers - 1
    sites = [Site("mlp_out", n), Site("resid_post", n), Site("final_norm")]
    whole = model.run(ROWS, read=sites, logits=Logits(at=everywhere))

    cut = model.run(ROWS, read=dict.fromkeys(sites, prompt(-1)), logits=Logits())

    places = torch.tensor([6, 6, 4])
    for site in sites:
        torch.testing.assert_close(cut[site][:, 0], whole[site][torch.arange(3), places], rtol=1e-4, atol=1e-5)
    assert whole.logits is not None
    assert cut.logits is not None
    torch.testing.assert_close(cut.logits[:, 0], whole.logits[torch.arange(3), places], rtol=1e-4, atol=1e-5)


def test_places_are_common_only_if_all_agree() -> None:
    a, b = torch.tensor([[1], [2]]), torch.tensor([[1], [3]])

    assert common_places([a, a.clone()]) is a
    assert common_places([a, b]) is None
    assert common_places([a, None]) is None
    assert common_places([]) is None


def test_an_exception_leaves_no_hook_on_the_mlp() -> None:
    mlp = torch.nn.Linear(2, 2)

    with pytest.raises(RuntimeError, match="stop"), only_at(mlp, torch.tensor([[0]])):
        raise RuntimeError("stop")

    assert not mlp._forward_pre_hooks
    assert not mlp._forward_hooks
