"""The contract of `Model.run`, on every family: what is read, written, sliced, restarted and stopped is exact.

It holds for every backend: `test_nnsight.py` runs these tests on the second one.
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mechint.errors import InterventionError, NeverFiredError, PositionError, SiteError
from mechint.interventions import add, project_out, replace, resample, zero
from mechint.model.base import Logits, Restart
from mechint.model.bridge_weights import unwrap
from mechint.model.prefixes import PrefixTree, count_prefixes
from mechint.positions import TokenBatch, everywhere, prompt, rows, tokens
from mechint.sites import Site
from tests.families import BACKEND, FAMILIES, VOCAB, plain, random_rows, tiny, wrapped

# Of different lengths, and longer than the tiny Gemmas' window of 8.
ROWS = [random_rows(1, n, seed=n)[0] for n in (12, 5, 9)]
EVEN = random_rows(3, 7)
CLOSE: dict[str, float] = {"rtol": 1e-4, "atol": 1e-4}

every_family = pytest.mark.parametrize("family", FAMILIES)
about_the_bridge = pytest.mark.skipif(BACKEND != "transformer_lens", reason="about what the bridge puts into a model")


def numbers(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def all_sites(model: Any, layers: range | None = None) -> list[Site]:
    """Every site that a model has, in forward order."""
    facts = model.facts
    inside = ["resid_pre", "q", "k", "v", "scores", "pattern", "z", "attn_out", "mlp_post", "mlp_out", "resid_post"]
    inside = [name for name in inside if name not in facts.hidden]
    sites = [Site(name, layer) for layer in layers or range(facts.n_layers) for name in inside]
    if not facts.parallel:
        sites += [Site("resid_mid", layer) for layer in layers or range(facts.n_layers)]
    outside = ("embed", "pos_embed", "final_norm") if facts.learned_positions else ("embed", "final_norm")
    return sorted([*sites, *map(Site, outside)])


def point(model: Any, name: str) -> nn.Module:
    """The module that is passed where a site is: a hook point of the bridge, or the part of the model itself."""
    found = model._points[name]
    return found if isinstance(found, nn.Module) else model.hf_model.get_submodule(found[0])


def logits_of(model: Any, given: Any, **settings: Any) -> Tensor:
    found = model.run(given, logits=Logits(at=everywhere), **settings).logits
    assert found is not None
    return found


def real_part(site: Site, value: Tensor, real: Tensor) -> Tensor:
    """The entries of one row of an activation that belong to real tokens."""
    if site.component in ("scores", "pattern"):
        value = value[:, real][:, :, real]
        return value.tril() if site.component == "scores" else value
    return value[real]


@every_family
def test_logits_are_those_of_plain_transformers(family: str) -> None:
    reference = plain(family)

    for row in ROWS:
        with torch.no_grad():
            expected = reference(torch.tensor([row])).logits
        torch.testing.assert_close(logits_of(tiny(family), [row]), expected, **CLOSE)


@every_family
def test_the_stream_and_the_pattern_are_those_of_plain_transformers(family: str) -> None:
    model = tiny(family)
    with torch.no_grad():
        expected = plain(family)(torch.tensor([ROWS[0]]), output_hidden_states=True, output_attentions=True)

    run = model.run(ROWS[:1], read=all_sites(model))

    for layer in range(model.facts.n_layers):
        torch.testing.assert_close(run[Site("resid_pre", layer)], expected.hidden_states[layer], **CLOSE)
        torch.testing.assert_close(run[Site("pattern", layer)], expected.attentions[layer], **CLOSE)
    torch.testing.assert_close(run["final_norm"], expected.hidden_states[-1], **CLOSE)


@pytest.mark.parametrize("pad_left", [False, True])
@every_family
def test_a_row_in_a_padded_batch_is_the_row_alone(family: str, pad_left: bool) -> None:
    model = tiny(family)
    batch = TokenBatch.from_rows(ROWS, pad_left=pad_left)
    sites = [site for site in all_sites(model) if site.component != "pos_embed"]

    together = model.run(batch, read=sites, logits=Logits(at=everywhere))

    for i, row in enumerate(ROWS):
        alone = model.run([row], read=sites, logits=Logits(at=everywhere))
        assert together.logits is not None
        assert alone.logits is not None
        torch.testing.assert_close(together.logits[i][batch.real[i]], alone.logits[0], **CLOSE)
        whole = torch.ones(len(row), dtype=torch.bool)
        for site in sites:
            got, expected = real_part(site, together[site][i], batch.real[i]), real_part(site, alone[site][0], whole)
            shown = expected.abs() < 1e30  # a hidden score is any huge negative number
            torch.testing.assert_close(got[shown], expected[shown], msg=lambda m, s=site: f"{s}: {m}", **CLOSE)


@pytest.mark.parametrize("pad_left", [False, True])
@every_family
def test_positions_that_are_read_are_picked_from_the_whole_activation(family: str, pad_left: bool) -> None:
    model = tiny(family)
    batch = TokenBatch.from_rows(ROWS, pad_left=pad_left)
    at = prompt(slice(-3, None))
    index = at.index(batch)
    sites = all_sites(model)
    sites += [Site(site.component, 1, 0) for site in sites if site.layer == 1 and site.per_head]

    whole, picked = model.run(batch, read=sites), model.run(batch, read=dict.fromkeys(sites, at))

    for site in sites:
        by_place = whole[site.whole].movedim(site.position_axis, 1)
        if site.head is not None:
            assert torch.equal(whole[site], whole[site.whole].select(site.head_axis, site.head))
            by_place = by_place.select(2, site.head)
        expected = torch.stack([row[places] for row, places in zip(by_place, index, strict=True)])
        axis = site.position_axis - (site.head is not None and site.head_axis < site.position_axis)
        assert torch.equal(picked[site].movedim(axis, 1), expected)


@every_family
def test_the_stream_that_leaves_a_block_enters_the_next(family: str) -> None:
    model = tiny(family)
    run = model.run(EVEN, read=all_sites(model))

    for layer in range(model.facts.n_layers):
        if layer:
            assert torch.equal(run[Site("resid_pre", layer)], run[Site("resid_post", layer - 1)])
        both = run[Site("attn_out", layer)] + run[Site("mlp_out", layer)]
        torch.testing.assert_close(
            run[Site("resid_pre", layer)] + both, run[Site("resid_post", layer)], rtol=1e-5, atol=1e-5
        )
        if not model.facts.parallel:
            middle = run[Site("resid_pre", layer)] + run[Site("attn_out", layer)]
            torch.testing.assert_close(middle, run[Site("resid_mid", layer)], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("pad_left", [False, True])
@every_family
def test_a_restart_gives_what_the_whole_run_gives(family: str, pad_left: bool) -> None:
    model = tiny(family)
    batch = TokenBatch.from_rows(ROWS, pad_left=pad_left)
    sites = all_sites(model)
    whole = model.run(batch, read=sites, logits=Logits())

    for layer in range(model.facts.n_layers):
        restart = Restart(layer, whole[Site("resid_pre", layer)])
        reached = [site for site in sites if site >= Site("resid_pre", layer)]
        again = model.run(batch, read=reached, logits=Logits(), from_=restart)

        assert again.logits is not None
        torch.testing.assert_close(again.logits, whole.logits, rtol=1e-5, atol=1e-5)
        for site in reached:
            torch.testing.assert_close(again[site], whole[site], rtol=1e-5, atol=1e-5)


@every_family
def test_a_restart_runs_no_block_below_it(family: str) -> None:
    model = tiny(family)
    attentions = [point(model, f"blocks.{i}.attn.hook_z") for i in range(model.facts.n_layers)]

    ran = fired_during(attentions, lambda: model.run(EVEN, from_=Restart(2, numbers(0, 3, 7, model.facts.d_model))))

    assert ran == [0, 0, *[1] * (model.facts.n_layers - 2)]


def test_another_stream_to_restart_from_gives_other_logits() -> None:
    model = tiny("llama")
    stream = model.run(EVEN, read=["L1.resid_pre"])["L1.resid_pre"]

    moved = logits_of(model, EVEN, from_=Restart(1, stream + numbers(1, 32)))

    assert (moved - logits_of(model, EVEN)).abs().max() > 1e-2


@every_family
def test_a_run_that_stops_has_read_everything_before(family: str) -> None:
    model = tiny(family)
    # A pattern that is read-only is shown later than its place in the order.
    sites = [site for site in all_sites(model) if site.component != "pattern" or "pattern" not in model.facts.read_only]
    whole = model.run(EVEN, read=sites)

    for site in sites:
        if site.layer in (None, 1):
            reached = [other for other in sites if other <= site]
            stopped = model.run(EVEN, read=reached, stop_after=site)
            assert stopped.logits is None
            for other in reached:
                assert torch.equal(stopped[other], whole[other])


@every_family
def test_a_run_that_stops_computes_nothing_later(family: str) -> None:
    model = tiny(family)
    names = ("blocks.0.attn.hook_z", "blocks.1.attn.hook_z", "ln_final.hook_out")
    points = [point(model, name) for name in names]

    assert fired_during(points, lambda: model.run(EVEN, stop_after="L0.resid_post")) == [1, 0, 0]
    assert fired_during(points, lambda: model.run(EVEN, stop_after="L1H1.z")) == [1, 1, 0]
    assert fired_during(points, lambda: model.run(EVEN)) == [1, 1, 1]


def fired_during(points: list[Any], act: Callable[[], object]) -> list[int]:
    """How often each hook point was reached."""
    counts = [0] * len(points)

    def count(i: int) -> Callable[..., None]:
        def fire(*_: object) -> None:
            counts[i] += 1

        return fire

    handles = [point.register_forward_pre_hook(count(i)) for i, point in enumerate(points)]
    try:
        act()
    finally:
        for handle in handles:
            handle.remove()
    return counts


def test_no_logits_are_computed_unless_asked_for() -> None:
    model = tiny("gemma2")
    head = model.hf_model.get_output_embeddings()

    assert model.run(EVEN).logits is None
    assert fired_during([head], lambda: model.run(EVEN)) == [0]


@pytest.mark.parametrize("pad_left", [False, True])
@every_family
def test_logit_slices_are_slices_of_all_logits(family: str, pad_left: bool) -> None:
    model = tiny(family)
    batch = TokenBatch.from_rows(ROWS, pad_left=pad_left)
    at = prompt(slice(-2, None))
    whole = logits_of(model, batch)
    chosen = whole.gather(1, at.index(batch)[..., None].expand(-1, -1, VOCAB))
    one_list = torch.tensor([3, 3, 41])
    own_list = torch.randint(0, VOCAB, (3, 2, 4), generator=torch.Generator().manual_seed(0))

    def sliced(columns: Tensor | None) -> Tensor:
        found = model.run(batch, logits=Logits(at=at, columns=columns)).logits
        assert found is not None
        return found

    torch.testing.assert_close(sliced(None), chosen, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(sliced(one_list), chosen[..., one_list], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(sliced(own_list), chosen.gather(2, own_list), rtol=1e-5, atol=1e-5)


def test_logits_before_the_soft_cap_are_what_it_is_applied_to() -> None:
    model = tiny("gemma2")
    cap = model.facts.logit_cap
    uncapped = model.run(EVEN, logits=Logits(at=everywhere, capped=False)).logits

    assert cap is not None
    assert uncapped is not None
    torch.testing.assert_close(cap * torch.tanh(uncapped / cap), logits_of(model, EVEN), rtol=1e-5, atol=1e-5)
    assert (uncapped - logits_of(model, EVEN)).abs().max() > 1e-3


@every_family
def test_a_write_is_carried_on_from_every_writable_site(family: str) -> None:
    model = tiny(family)
    clean = logits_of(model, EVEN)

    for site in all_sites(model):
        if site.component in model.facts.read_only:
            continue
        run = model.run(EVEN, read=[site])
        intervention = resample(run[site].roll(1, 0)) if site.component != "pos_embed" else add(numbers(0, 32))
        if site.component in ("scores", "pattern"):
            intervention = zero()

        written = logits_of(model, EVEN, write={site: intervention})

        assert (written - clean).abs().max() > 1e-3, site
        assert torch.equal(logits_of(model, EVEN), clean), f"{site} left a trace"


@every_family
def test_what_is_written_is_what_is_read(family: str) -> None:
    model = tiny(family)

    for site in all_sites(model):
        if site.component in (*model.facts.read_only, "scores"):
            continue
        value = numbers(3, *model.run(EVEN, read=[site])[site].shape)
        assert torch.equal(model.run(EVEN, read=[site], write={site: replace(value)})[site], value), site


@every_family
def test_what_is_written_after_a_block_enters_the_next(family: str) -> None:
    model, value = tiny(family), numbers(4, 3, 7, 32)

    run = model.run(EVEN, read=["L1.resid_pre"], write={"L0.resid_post": replace(value)})

    assert torch.equal(run["L1.resid_pre"], value)


def modules_of(family: str, *endings: str) -> tuple[Any, list[Any]]:
    model = plain(family)
    return model, [module for name, module in model.named_modules() if name.endswith(endings)]


def by_plain_hook(family: str, endings: tuple[str, ...], layer: int, change: Callable[[Tensor], Tensor]) -> Tensor:
    """Logits of EVEN when a plain module's output is changed, with nothing of ours at work."""
    model, modules = modules_of(family, *endings)

    def hook(_: object, __: object, output: Any) -> Any:
        return (change(output[0]), *output[1:]) if isinstance(output, tuple) else change(output)

    modules[layer].register_forward_hook(hook)
    with torch.no_grad():
        return model(torch.tensor(EVEN), use_cache=False).logits


WRITTEN_BY: dict[str, tuple[str, ...]] = {
    "attn_out": (".attn", ".self_attn", ".attention"),
    "mlp_out": (".mlp",),
    "resid_post": tuple(
        f"{stem}.{i}" for stem in ("model.layers", "transformer.h", "gpt_neox.layers") for i in range(9)
    ),
}
BEHIND_POST_NORM = {"attn_out": (".post_attention_layernorm",), "mlp_out": (".post_feedforward_layernorm",)}


@pytest.mark.parametrize("component", WRITTEN_BY)
@every_family
def test_a_write_equals_the_same_change_by_a_plain_hook(family: str, component: str) -> None:
    model, vector = tiny(family), numbers(5, 32)
    endings = WRITTEN_BY[component]
    if model.facts.post_norms:
        endings = BEHIND_POST_NORM.get(component, endings)

    written = logits_of(model, EVEN, write={Site(component, 1): add(vector, 2.0)})

    expected = by_plain_hook(family, endings, 1, lambda h: h + 2.0 * vector)
    torch.testing.assert_close(written, expected, **CLOSE)


@pytest.mark.parametrize("component", ["q", "k", "v"])
@pytest.mark.parametrize("family", ["llama", "qwen3", "gemma2", "gemma3"])
def test_queries_keys_and_values_are_written_as_the_projection_makes_them(family: str, component: str) -> None:
    model = tiny(family)
    size, vector = model.facts.d_head, numbers(6, model.facts.d_head)
    head = (model.facts.n_kv_heads if component in "kv" else model.facts.n_heads) - 1

    def change(projected: Tensor) -> Tensor:
        projected = projected.clone()
        projected[..., head * size : (head + 1) * size] += 3.0 * vector
        return projected

    written = logits_of(model, EVEN, write={Site(component, 1, head): add(vector, 3.0)})

    torch.testing.assert_close(written, by_plain_hook(family, (f".{component}_proj",), 1, change), **CLOSE)


# GPT-J's pattern can be read only, and its scores not at all: TransformerLens has used them before it shows them.
SHOWING_ATTENTION = [family for family in FAMILIES if family != "gptj"]


@pytest.mark.parametrize("family", SHOWING_ATTENTION)
def test_scores_and_patterns_of_other_families_can_be_read_and_written(family: str) -> None:
    model = tiny(family)
    run = model.run(EVEN, read=["L1.scores", "L1.pattern"])

    assert (model.facts.hidden, model.facts.read_only) == ((), ("resid_mid",))
    torch.testing.assert_close(run["L1.scores"].softmax(-1), run["L1.pattern"], rtol=1e-4, atol=1e-5)


@about_the_bridge
def test_attention_that_is_shown_too_late_is_refused_and_not_silently_left_as_it_was() -> None:
    model = tiny("gptj")

    with pytest.raises(SiteError, match=r"L1.pattern can be read, not written. Write L1.z instead"):
        model.run(EVEN, write={"L1.pattern": zero()})
    with pytest.raises(SiteError, match=r"does not show 'scores' of tiny-gptj"):
        model.run(EVEN, read=["L1.scores"])


@pytest.mark.parametrize("family", SHOWING_ATTENTION)
def test_a_written_pattern_is_what_the_values_are_mixed_by(family: str) -> None:
    model = tiny(family)
    uniform = torch.ones(7, 7).tril() / torch.arange(1, 8)[:, None]

    run = model.run(EVEN, read=["L1.z", "L1.v"], write={"L1.pattern": replace(uniform)})

    values = run["L1.v"].repeat_interleave(model.facts.n_heads // model.facts.n_kv_heads, dim=2)
    torch.testing.assert_close(run["L1.z"], torch.einsum("qk,bkhd->bqhd", uniform, values), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("pad_left", [False, True])
@pytest.mark.parametrize("family", SHOWING_ATTENTION)
def test_written_scores_show_no_position_what_is_hidden_from_it(family: str, pad_left: bool) -> None:
    model = tiny(family)
    batch = TokenBatch.from_rows(ROWS, pad_left=pad_left)

    for layer in range(model.facts.n_layers):
        site, pattern = Site("scores", layer), Site("pattern", layer)
        clean = model.run(batch, read=[pattern])[pattern]
        flat = model.run(batch, read=[pattern], write={site: zero()})[pattern]

        for i, real in enumerate(batch.real):
            visible = clean[i][:, real] > 0
            expected = visible / visible.sum(-1, keepdim=True)
            torch.testing.assert_close(flat[i][:, real], expected, rtol=1e-5, atol=1e-6)


@every_family
def test_a_write_changes_nothing_at_earlier_tokens_or_other_rows(family: str) -> None:
    model = tiny(family)
    clean = logits_of(model, EVEN)

    written = logits_of(model, EVEN, write={"L0.resid_post": add(numbers(7, 32), where=rows([1]) & prompt(4))})

    changed = (written != clean).any(-1)
    assert changed[1, 4]
    assert not changed[1, :4].any()
    assert not changed[[0, 2]].any()


def test_interventions_at_one_site_are_carried_out_in_order() -> None:
    model, vector = tiny("llama"), numbers(8, 32)

    run = model.run(EVEN, read=["L1.mlp_out"], write={"L1.mlp_out": [zero(), add(vector)]})
    backwards = model.run(EVEN, read=["L1.mlp_out"], write={"L1.mlp_out": [add(vector), zero()]})

    assert torch.equal(run["L1.mlp_out"], vector.expand(3, 7, -1))
    assert not backwards["L1.mlp_out"].any()


def test_the_receipt_says_what_fired_where_on_how_many_tokens_and_how_strongly() -> None:
    model, vector = tiny("llama"), numbers(9, 32)
    clean = model.run(ROWS, read=["L0.resid_post", "L2.z"])
    write = {
        "L2H3.z": zero(prompt(-1)),
        "L0.resid_post": [add(vector, 0.5, prompt(slice(0, 2))), add(vector, -0.5, prompt(slice(0, 2)))],
    }

    receipt = model.run(ROWS, write=write).receipt

    h = clean["L0.resid_post"][:, :2]
    assert [(f.site, f.intervention, f.tokens) for f in receipt] == [
        ("L0.resid_post", "add(0.5)", 6),
        ("L0.resid_post", "add(-0.5)", 6),
        ("L2H3.z", "zero", 3),
    ]
    expected = [
        (0.5 * vector.norm() / h.norm(dim=-1)).mean(),
        (0.5 * vector.norm() / (h + 0.5 * vector).norm(dim=-1)).mean(),
        1.0,
    ]
    assert [f.relative_change for f in receipt] == pytest.approx([float(e) for e in expected], rel=1e-5)


@pytest.mark.parametrize("pad_left", [False, True])
def test_padding_does_not_enter_the_receipt(pad_left: bool) -> None:
    model, vector = tiny("gemma3"), numbers(9, 32)
    write = {"L1.resid_post": add(vector)}

    together = model.run(TokenBatch.from_rows(ROWS, pad_left=pad_left), write=write).receipt[0]

    alone = [model.run([row], write=write).receipt[0] for row in ROWS]
    assert together.tokens == sum(f.tokens for f in alone) == 26
    expected = sum(f.relative_change * f.tokens for f in alone) / 26
    assert together.relative_change == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma2"])
def test_the_change_of_scores_is_measured_on_what_is_visible(family: str) -> None:
    receipt = tiny(family).run(EVEN, write={"L1.scores": zero()}).receipt[0]

    assert receipt.relative_change == pytest.approx(1.0)


@pytest.mark.parametrize("site", ["L1.zz", "blocks.1.hook_typo", "L3.z", "L1H4.z", "L1KV2.v", "L1KV0.z", "L1H0.v"])
@pytest.mark.parametrize("how", ["read", "write", "stop_after"])
def test_a_site_that_is_not_there_is_an_error_whatever_it_is_for(site: str, how: str) -> None:
    settings = {"read": [site]} if how == "read" else {"write": {site: zero()}} if how == "write" else {how: site}

    with pytest.raises(SiteError):
        tiny("llama").run(EVEN, **settings)


@pytest.mark.parametrize(
    ("site", "message"),
    [
        ("L3.z", "tiny-llama has blocks L0 to L2"),
        ("L1H4.z", "query heads H0 to H3"),
        ("L1KV2.v", "key/value heads KV0 to KV1"),
        ("pos_embed", "pos_embed"),
    ],
)
def test_the_error_names_what_there_is(site: str, message: str) -> None:
    with pytest.raises(SiteError, match=message):
        tiny("llama").run(EVEN, read=[site])


@pytest.mark.parametrize("family", ["neox", "gptj"])
def test_parallel_blocks_have_no_stream_between_attention_and_mlp(family: str) -> None:
    with pytest.raises(SiteError, match="run in parallel"):
        tiny(family).run(EVEN, read=["L1.resid_mid"])


def test_the_middle_of_a_block_is_read_only_and_the_error_says_what_to_write() -> None:
    with pytest.raises(SiteError, match=r"can be read, not written. Write L1.attn_out instead"):
        tiny("llama").run(EVEN, write={"L1.resid_mid": zero()})


STREAM = numbers(0, 3, 7, 32)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"read": ["L1.z"], "from_": Restart(2, STREAM)}, "L1.z lies before L2.resid_pre"),
        ({"write": {"L0H1.z": zero()}, "from_": Restart(1, STREAM)}, "L0H1.z lies before L1.resid_pre"),
        ({"read": ["embed"], "from_": Restart(0, STREAM)}, "embed lies before L0.resid_pre"),
        ({"read": ["L1.attn_out"], "stop_after": "L1.z"}, "L1.attn_out lies after L1.z"),
        ({"write": {"final_norm": zero()}, "stop_after": "L2.resid_post"}, "final_norm lies after L2.resid_post"),
        ({"stop_after": "L1.z", "from_": Restart(2, STREAM)}, "starts at L2.resid_pre, after L1.z"),
        ({"from_": Restart(3, STREAM)}, "has blocks L0 to L2"),
        ({"from_": Restart(-1, STREAM)}, "count from 0"),
        ({"logits": Logits(), "stop_after": "L1.z"}, "Logits need the whole model"),
    ],
)
def test_what_a_run_does_not_reach_is_an_error(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(SiteError, match=message):
        tiny("llama").run(EVEN, **settings)


def test_what_was_not_read_cannot_be_had() -> None:
    with pytest.raises(SiteError, match=r"L1.z was not read in this run. Read: L0.z"):
        tiny("llama").run(EVEN, read=["L0.z"])["L1.z"]


def test_a_stream_of_another_shape_is_refused() -> None:
    with pytest.raises(PositionError, match=r"has shape \[3, 6, 32\]; this batch needs \[3, 7, 32\]"):
        tiny("llama").run(EVEN, from_=Restart(1, STREAM[:, :6]))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([[0] * 65], "65 tokens; tiny-llama reads at most 64"),
        ([[0, VOCAB]], "ids 0 to 49. Was another tokenizer used"),
        ([[0, -1]], "Token ids run from -1"),
        ([[0], []], "at least one token each"),
    ],
)
def test_rows_that_the_model_cannot_read_are_refused(given: list[list[int]], message: str) -> None:
    with pytest.raises(PositionError, match=message):
        tiny("llama").run(given)


def test_the_longest_text_is_read() -> None:
    assert tiny("llama").run([[0] * 64], read=["final_norm"])["final_norm"].shape == (1, 64, 32)


@pytest.mark.parametrize("columns", [[-1], [VOCAB], [[1, 2]], [[[1]], [[2]]]])
def test_columns_that_do_not_exist_or_fit_are_refused(columns: list[Any]) -> None:
    with pytest.raises(PositionError, match=r"ids 0 to 49|do not fit 3 rows and 1 positions"):
        tiny("llama").run(EVEN, logits=Logits(columns=torch.tensor(columns)))


@pytest.mark.parametrize("how", ["read", "logits"])
def test_positions_must_be_equally_many_in_every_row(how: str) -> None:
    uneven = prompt(slice(5, None))
    settings = {"read": {"L0.z": uneven}} if how == "read" else {"logits": Logits(at=uneven)}

    with pytest.raises(PositionError, match="equally many in every row"):
        tiny("llama").run(ROWS, **settings)


def test_an_intervention_that_selects_no_token_raises_before_anything_runs() -> None:
    model = tiny("llama")

    def act() -> None:
        with pytest.raises(NeverFiredError, match="selects no token of this batch"):
            model.run(EVEN, write={"L2.z": zero(tokens({1}))})

    assert fired_during([point(model, "blocks.0.attn.hook_z")], act) == [0]


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_value_that_is_not_finite_raises(bad: float) -> None:
    with pytest.raises(InterventionError, match=r"replace at L1.mlp_out made NaN or infinity"):
        tiny("llama").run(EVEN, write={"L1.mlp_out": replace(torch.full((32,), bad))})


def test_what_is_not_finite_where_nothing_is_written_does_no_harm() -> None:
    value = torch.full((3, 7, 32), float("nan"))
    value[:, -1] = 1.0

    run = tiny("llama").run(EVEN, read=["L1.mlp_out"], write={"L1.mlp_out": replace(value, prompt(-1))})

    assert torch.isfinite(run["L1.mlp_out"]).all()


def hooks_of(model: Any) -> int:
    points = {point(model, name) for name in model._points} | set(model.hf_model.modules())
    return sum(len(p._forward_hooks) + len(p._forward_pre_hooks) + len(getattr(p, "fwd_hooks", ())) for p in points)


@every_family
def test_nothing_is_left_behind_when_a_run_fails_half_way(family: str) -> None:
    model = tiny(family)
    clean, hooks = logits_of(model, EVEN), hooks_of(model)
    stream = model.run(EVEN, read=["L1.resid_pre"])["L1.resid_pre"]
    wrong = {"L1.resid_post": zero(), "L2.z": zero(), "L2.mlp_out": project_out(torch.ones(5))}

    with pytest.raises(InterventionError, match="width 32"):
        model.run(EVEN, read=["L1.z", "final_norm"], write=wrong, from_=Restart(1, stream))

    assert hooks_of(model) == hooks
    if BACKEND == "transformer_lens":
        assert not any("forward" in unwrap(block).__dict__ for block in model._bridge.blocks)
    assert torch.equal(logits_of(model, EVEN), clean)


@about_the_bridge
@every_family
def test_a_run_leaves_the_users_own_hooks_alone(family: str) -> None:
    model = wrapped(family, name=f"own-{family}")
    point = model._bridge.hook_dict["blocks.1.hook_mlp_out"]
    clean = logits_of(model, EVEN)
    point.add_hook(lambda activation, hook: torch.zeros_like(activation))

    first = logits_of(model, EVEN)
    with pytest.raises(InterventionError):
        model.run(EVEN, write={"L1.mlp_out": add(torch.ones(5))})
    read = model.run(EVEN, read=["L1.mlp_out"], stop_after="L1.mlp_out")["L1.mlp_out"]

    assert not read.any()
    assert (first - clean).abs().max() > 1e-3
    assert torch.equal(logits_of(model, EVEN), first)
    assert len(point.fwd_hooks) == 1


@about_the_bridge
def test_a_forward_that_somebody_else_put_there_is_there_again_after_a_restart() -> None:
    model = wrapped("llama", name="own")
    block = unwrap(model._bridge.blocks[0])
    own = block.forward = type(block).forward.__get__(block)

    model.run(EVEN, from_=Restart(1, STREAM))

    assert block.__dict__["forward"] is own


# At most 8 tokens, the tiny Gemmas' window; a duplicate, a prefix of another, and one that shares only the beginning.
STEM = random_rows(1, 8)[0]
TREE_ROWS = [STEM, STEM[:4], [*STEM[:5], 9, 11], list(STEM), random_rows(1, 6, seed=3)[0], [*STEM[:4], 12]]


@every_family
def test_a_prefix_tree_gives_what_the_rows_give(family: str) -> None:
    model = tiny(family)
    tree = PrefixTree.build(TREE_ROWS)
    assert tree.batch.ids.shape[1] == count_prefixes(TREE_ROWS) < sum(map(len, TREE_ROWS))
    sites = [Site(c, layer) for layer in range(model.facts.n_layers) for c in ("z", "mlp_out", "resid_post")]

    run = model.run(tree.batch, read=sites, logits=Logits(at=everywhere))

    for row, end in zip(TREE_ROWS, tree.ends.tolist(), strict=True):
        alone = model.run([row], read=sites, logits=Logits())
        assert run.logits is not None
        assert alone.logits is not None
        torch.testing.assert_close(run.logits[0, end], alone.logits[0, 0], **CLOSE)
        for site in sites:
            torch.testing.assert_close(run[site][0, end], alone[site][0, -1], **CLOSE)


def test_equal_texts_end_in_one_node_and_a_prefix_ends_inside_another() -> None:
    tree = PrefixTree.build([[1, 2, 3], [1, 2], [1, 2, 3], [4]])

    assert tree.ends.tolist() == [2, 1, 2, 3]
    assert tree.batch.offset.tolist() == [[0, 1, 2, 0]]


@pytest.mark.parametrize("family", ["gemma2", "gemma3"])
def test_a_prefix_tree_longer_than_the_sliding_window_is_refused(family: str) -> None:
    model = tiny(family)
    model.run(PrefixTree.build(random_rows(2, 8)).batch)

    with pytest.raises(PositionError, match="do not fit the sliding window of 8 tokens"):
        model.run(PrefixTree.build(random_rows(2, 9)).batch)


def test_a_prefix_tree_as_long_as_the_context_is_read_where_there_is_no_window() -> None:
    tree = PrefixTree.build(random_rows(2, 40))

    assert tiny("llama").run(tree.batch, read=["final_norm"])["final_norm"].shape[1] == len(tree.batch.ids[0])
