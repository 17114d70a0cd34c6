"""Wrappers are out of the way only where nobody looks, and back afterwards."""

from typing import Any

import pytest
import torch

from mechint.interventions import zero
from mechint.model.base import Logits, Restart
from mechint.model.transformer_lens import TransformerLensModel
from mechint.model.unwatched import Wrappers
from tests.families import FAMILIES, plain, random_rows, tokenizer

ROWS = random_rows(2, 9)


def fresh(family: str) -> TransformerLensModel:
    return TransformerLensModel(plain(family), tokenizer(), name=family)


def wrappers_in(body: Any) -> set[str]:
    return {name for name, module in body.named_modules() if hasattr(module, "original_component")}


@pytest.mark.parametrize("family", FAMILIES)
def test_without_wrappers_the_numbers_are_the_same_and_the_tree_is_restored(family: str) -> None:
    model = fresh(family)
    body = model.hf_model.base_model
    before, wrapped = wrappers_in(body), Wrappers(body, model._points)
    with torch.no_grad():
        expected = body(torch.tensor(ROWS))[0]
        with wrapped.only_where_watched():
            assert wrappers_in(body) == set()
            found = body(torch.tensor(ROWS))[0]

    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert wrappers_in(body) == before


def test_a_wrapper_stays_where_a_hook_looks_and_so_does_all_around_it() -> None:
    model = fresh("gemma3")
    body = model.hf_model.base_model
    wrapped = Wrappers(body, model._points)
    seen: list[torch.Tensor] = []
    point = model._points["blocks.2.attn.hook_z"]
    point.add_hook(lambda value, hook: seen.append(value))
    try:
        with wrapped.only_where_watched(), torch.no_grad():
            left = wrappers_in(body)
            body(torch.tensor(ROWS))
    finally:
        point.remove_hooks()

    assert len(seen) == 1
    assert "layers.2" in left
    assert all(name.startswith("layers.2") for name in left)


def test_a_users_own_hook_is_met_in_every_run() -> None:
    model = fresh("llama")
    point, seen = model._points["blocks.1.hook_resid_post"], []
    point.add_hook(lambda value, hook: seen.append(value.shape))
    try:
        model.run(ROWS, write={"L0H1.z": zero()}, logits=Logits(), past=model.new_past())
    finally:
        point.remove_hooks()

    assert seen == [torch.Size([2, 9, 32])]


def test_a_hook_on_a_wrapper_itself_counts_as_a_look() -> None:
    model = fresh("llama")
    body = model.hf_model.base_model
    wrapped, block = Wrappers(body, model._points), body.layers[1]
    handle = block.register_forward_hook(lambda module, args, output: None)
    with wrapped.only_where_watched():
        assert body.layers[1] is block
        assert body.layers[0] is not block
        assert not hasattr(body.layers[0], "original_component")
    handle.remove()


def test_an_exception_brings_the_wrappers_back() -> None:
    model = fresh("llama")
    body = model.hf_model.base_model
    before = wrappers_in(body)
    with pytest.raises(RuntimeError, match="broken"), Wrappers(body, model._points).only_where_watched():
        raise RuntimeError("broken")

    assert wrappers_in(body) == before


def test_bare_copies_share_weights_and_hooks_with_what_is_wrapped() -> None:
    model = fresh("llama")
    body = model.hf_model.base_model
    wrapped, linear, seen = Wrappers(body, model._points), body.layers[0].mlp.original_component.up_proj, []
    with wrapped.only_where_watched(), torch.no_grad():
        before = body(torch.tensor(ROWS))[0]
    linear.original_component.weight = torch.nn.Parameter(torch.zeros_like(linear.original_component.weight))
    linear.original_component.register_forward_hook(lambda module, args, output: seen.append(output))
    with wrapped.only_where_watched(), torch.no_grad():
        after = body(torch.tensor(ROWS))[0]

    assert not torch.equal(before, after)
    assert len(seen) == 1
    assert torch.equal(seen[0], torch.zeros_like(seen[0]))


def test_a_wrapper_that_feeds_a_point_of_the_block_around_it_stays_where_that_point_is_watched() -> None:
    model = fresh("gemma3")
    body = model.hf_model.base_model
    point = model._points["blocks.2.hook_mlp_in"]
    point.add_hook(lambda value, hook: None)
    try:
        with model._wrappers.only_where_watched():
            left = wrappers_in(body)
    finally:
        point.remove_hooks()

    assert "layers.2._original_component.pre_feedforward_layernorm" in left
    assert "layers.2._original_component.mlp" not in left


def test_a_restart_leaves_nothing_behind_in_bare_copies() -> None:
    model = fresh("gpt2")
    stream = model.run(ROWS, read=["L1.resid_pre"])["L1.resid_pre"]
    with model.bare():
        model.run(ROWS, from_=Restart(1, stream), read=["L1.resid_post"])
        found = model.run(ROWS, read=["L1.resid_post"])["L1.resid_post"]

    torch.testing.assert_close(found, model.run(ROWS, read=["L1.resid_post"])["L1.resid_post"], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_bare_passes_record_the_same(family: str) -> None:
    model, sites = fresh(family), ["L0.resid_post", "L1.z", "L1.resid_post"]
    expected = model.run(ROWS, read=sites, stop_after=sites[-1])
    with model.bare():
        found = model.run(ROWS, read=sites, stop_after=sites[-1])

    for site in sites:
        torch.testing.assert_close(found[site], expected[site], rtol=1e-4, atol=1e-5)
