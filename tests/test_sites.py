"""A site is text and object in one; sites sort as a forward pass meets them."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mechint.errors import SiteError
from mechint.sites import Site, head_label, parse_head

OUTSIDE = ("embed", "pos_embed", "final_norm")
OF_KV_HEADS = ("k", "v")
OF_HEADS = ("q", "k", "v", "scores", "pattern", "z")
IN_FORWARD_ORDER = (
    "resid_pre",
    "q",
    "k",
    "v",
    "scores",
    "pattern",
    "z",
    "attn_out",
    "resid_mid",
    "mlp_post",
    "mlp_out",
    "resid_post",
)
NUMBERS = st.integers(0, 200)

# What a Site is made of, and not the Site: its checked constructor draws random numbers, which Hypothesis refuses.
parts = st.one_of(
    st.tuples(st.sampled_from(OUTSIDE)),
    st.tuples(st.sampled_from(IN_FORWARD_ORDER), NUMBERS),
    st.tuples(st.sampled_from(OF_HEADS), NUMBERS, NUMBERS),
)


@given(parts)
def test_what_is_printed_is_read_back(of: tuple[Any, ...]) -> None:
    site = Site(*of)

    assert Site.parse(str(site)) == site
    assert Site.parse(site) is site


@given(parts)
def test_transformer_lens_names_are_read_as_the_whole_site(of: tuple[Any, ...]) -> None:
    site = Site(*of)

    assert Site.parse(site.transformer_lens_name) == site.whole


def test_transformer_lens_names_are_those_of_the_field() -> None:
    assert Site.parse("L9.resid_post").transformer_lens_name == "blocks.9.hook_resid_post"
    assert Site.parse("L10H7.z").transformer_lens_name == "blocks.10.attn.hook_z"
    assert Site.parse("ln_final.hook_normalized") == Site("final_norm")


@given(parts, parts)
def test_the_order_is_total_and_agrees_with_equality(of_one: tuple[Any, ...], of_other: tuple[Any, ...]) -> None:
    one, other = Site(*of_one), Site(*of_other)

    assert (one < other) + (other < one) + (one == other) == 1


def test_sites_sort_in_forward_order() -> None:
    forward = [Site("embed"), Site("pos_embed")]
    forward += [Site(component, layer) for layer in range(3) for component in IN_FORWARD_ORDER]
    forward += [Site("final_norm")]

    backward = forward[::-1]
    assert sorted(backward) == forward


@given(NUMBERS, NUMBERS)
def test_all_heads_come_before_each_of_them_and_heads_by_number(layer: int, head: int) -> None:
    assert Site("z", layer) < Site("z", layer, head) < Site("z", layer, head + 1) < Site("attn_out", layer)


@pytest.mark.parametrize("component", OF_KV_HEADS)
def test_keys_and_values_belong_to_kv_heads(component: str) -> None:
    assert str(Site(component, 3, 0)) == f"L3KV0.{component}"
    with pytest.raises(SiteError, match=f"belongs to key/value heads. Write 'L3KV0.{component}'"):
        Site.parse(f"L3H0.{component}")


@pytest.mark.parametrize("component", [c for c in OF_HEADS if c not in OF_KV_HEADS])
def test_everything_else_belongs_to_query_heads(component: str) -> None:
    assert str(Site(component, 3, 0)) == f"L3H0.{component}"
    with pytest.raises(SiteError, match=f"belongs to query heads. Write 'L3H0.{component}'"):
        Site.parse(f"L3KV0.{component}")


@pytest.mark.parametrize(
    "text", ["", "L3", "z", "L3.Z", "L3.zz", "L-1.z", "3.z", "blocks.3.hook_typo", "L3H.z", " L3.z"]
)
def test_an_unreadable_site_is_refused_with_the_valid_components(text: str) -> None:
    with pytest.raises(SiteError) as caught:
        Site.parse(text)

    assert all(name in str(caught.value) for name in (*IN_FORWARD_ORDER, *OUTSIDE))


def test_an_unknown_component_is_refused_with_the_valid_ones() -> None:
    with pytest.raises(SiteError, match=r"'residue' is not a component.*resid_pre, q, k, v"):
        Site("residue", 0)


def test_a_combination_that_no_model_has_is_refused() -> None:
    with pytest.raises(SiteError, match=r"'z' needs a block, as in 'L3.z'"):
        Site("z")
    with pytest.raises(SiteError, match="'final_norm' belongs to no block: write 'final_norm'"):
        Site("final_norm", 3)
    with pytest.raises(SiteError, match=r"'mlp_out' has no heads: write 'L3.mlp_out'"):
        Site("mlp_out", 3, 1)


@pytest.mark.parametrize("numbers", [(-1,), (0, -1)])
def test_blocks_and_heads_count_from_zero(numbers: tuple[int, ...]) -> None:
    with pytest.raises(SiteError, match="Both count from 0"):
        Site("z", *numbers)


def test_axes_say_where_heads_and_positions_are() -> None:
    z, pattern, stream = Site("z", 0), Site("pattern", 0), Site("resid_pre", 0)

    assert (z.axes[z.position_axis], z.axes[z.head_axis]) == ("pos", "head")
    assert (pattern.axes[pattern.position_axis], pattern.axes[pattern.head_axis]) == ("query", "head")
    assert (stream.axes[stream.position_axis], stream.per_head) == ("pos", False)
    assert Site("v", 0).axes[Site("v", 0).head_axis] == "kv_head"


@given(NUMBERS, NUMBERS)
def test_a_head_is_read_in_both_spellings(layer: int, head: int) -> None:
    assert parse_head(head_label(layer, head)) == parse_head(f"{layer}.{head}") == (layer, head)


@pytest.mark.parametrize("text", ["L10", "H7", "10-7", "L10H7.z", "10.7.1", "L10KV7"])
def test_what_is_no_head_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(SiteError, match=r"such as 'L10H7' or '10.7'"):
        parse_head(text)
