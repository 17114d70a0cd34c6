"""Queries and keys through `Scoring` are the attention of the plain model; rotations are a group."""

import dataclasses
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor

from mechint.errors import UnsupportedModelError
from mechint.model.loading import load
from mechint.model.scoring import Scoring
from mechint.model.transformer_lens import TransformerLensModel
from mechint.sites import Site
from tests.families import CONFIGS, FAMILIES, VOCAB, plain, random_rows, tiny, tokenizer

ROWS = random_rows(3, 21, seed=4)  # longer than the windows of 8
ROTARY = [family for family in FAMILIES if family != "gpt2"]


def model_of(family: str, **settings: Any) -> TransformerLensModel:
    """A tiny model with other settings in its configuration."""
    config = CONFIGS[family]()
    for name, value in settings.items():
        setattr(config, name, value)
    return random_model(config)


def random_model(config: Any) -> TransformerLensModel:
    torch.manual_seed(0)
    hf_model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    for parameter in hf_model.parameters():
        parameter.requires_grad_(False).add_(0.15 * torch.randn_like(parameter))
    return TransformerLensModel(hf_model, tokenizer(), name="changed")


def read(model: TransformerLensModel, layer: int, rows: list[list[int]], *names: str) -> list[Tensor]:
    run = model.run(rows, read=[Site(name, layer) for name in names])
    return [run[Site(name, layer)] for name in names]


@pytest.mark.parametrize("family", FAMILIES)
def test_attention_rebuilt_from_queries_and_keys_is_that_of_the_plain_model(family: str) -> None:
    model = tiny(family)
    with torch.no_grad():
        expected = plain(family)(torch.tensor(ROWS), output_attentions=True, use_cache=False).attentions

    for layer in range(model.facts.n_layers):
        scoring = model.scoring(layer)
        q, k = read(model, layer, ROWS, "q", "k")
        torch.testing.assert_close(scoring.pattern(scoring.scores(q, k)), expected[layer], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", [family for family in FAMILIES if "scores" not in tiny(family).facts.hidden])
def test_scores_rebuilt_from_queries_and_keys_are_those_of_the_model(family: str) -> None:
    model, layer = tiny(family), 2
    scoring = model.scoring(layer)
    q, k, expected = read(model, layer, ROWS, "q", "k", "scores")

    scores = scoring.scores(q, k)
    capped = scores if scoring.cap is None else scoring.cap * torch.tanh(scores / scoring.cap)

    seen = scoring.visible(len(ROWS[0])).expand_as(scores)
    torch.testing.assert_close(capped[seen], expected[seen], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", ["gemma2", "gemma3"])
def test_nothing_outside_the_window_is_attended_to(family: str) -> None:
    model = tiny(family)
    windows = [model.scoring(layer).window for layer in range(model.facts.n_layers)]
    assert set(windows) == {8, None}

    for layer, window in enumerate(windows):
        scoring = model.scoring(layer)
        q, k = read(model, layer, ROWS, "q", "k")
        attention = scoring.pattern(scoring.scores(q, k))
        looks = torch.tensor([[0 <= i - j < (window or 21) for j in range(21)] for i in range(21)])
        assert torch.equal(attention > 0, looks.expand_as(attention))


@pytest.mark.parametrize("family", ROTARY)
def test_rotations_form_a_group_of_orthogonal_matrices(family: str) -> None:
    scoring = tiny(family).scoring(1)
    assert scoring.rotary
    one = scoring.rotation(1)

    torch.testing.assert_close(scoring.rotation(0), torch.eye(scoring.d_head))
    for a, b in ((3, 4), (7, -7), (0, 5)):
        product = scoring.rotation(a) @ scoring.rotation(b)
        torch.testing.assert_close(product, scoring.rotation(a + b), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(one @ one.T, torch.eye(scoring.d_head), rtol=1e-5, atol=1e-6)
    assert (one - torch.eye(scoring.d_head)).abs().max() > 0.5


@pytest.mark.parametrize("family", FAMILIES)
def test_a_score_is_the_product_of_query_rotation_and_key(family: str) -> None:
    model, (i, j) = tiny(family), (9, 4)
    scoring, group = model.scoring(1), model.facts.n_heads // model.facts.n_kv_heads
    q, k = read(model, 1, ROWS, "q", "k")

    query, key = scoring.normed_queries(q)[:, i], scoring.normed_keys(k)[:, j].repeat_interleave(group, dim=1)
    score = torch.einsum("bhe,ef,bhf->bh", query, scoring.rotation(i - j), key) * scoring.scale

    torch.testing.assert_close(score, scoring.scores(q, k)[:, :, i, j], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_mean_rotation_is_the_mean_of_the_rotations(family: str) -> None:
    scoring, distances = tiny(family).scoring(1), range(1, 9)

    mean = scoring.mean_rotation(torch.arange(1, 9))

    torch.testing.assert_close(mean, torch.stack([scoring.rotation(d) for d in distances]).mean(0))


def test_rotation_covers_the_first_dimensions_where_it_is_partial() -> None:
    for family, planes in (("neox", 1), ("gptj", 2)):
        scoring = tiny(family).scoring(0)
        rotation = scoring.rotation(2)
        assert len(scoring.frequencies) == planes
        assert torch.equal(rotation[2 * planes :, 2 * planes :], torch.eye(8 - 2 * planes))
        assert not rotation[: 2 * planes, 2 * planes :].any()


def test_planes_are_neighbours_in_gptj_and_halves_in_llama() -> None:
    gptj, llama = (tiny(family).scoring(0).rotation(1) != 0 for family in ("gptj", "llama"))

    assert bool(gptj[0, 1])
    assert not bool(gptj[0, 2])
    assert bool(llama[0, 4])
    assert not bool(llama[0, 1])


def test_sliding_and_full_blocks_of_gemma3_turn_at_their_own_frequencies() -> None:
    exponents = torch.arange(0, 16, 2) / 16

    for layer, base in ((0, 1e4), (5, 1e6)):
        torch.testing.assert_close(tiny("gemma3").scoring(layer).frequencies, base**-exponents)


def test_the_soft_cap_is_applied_to_scores() -> None:
    model = model_of("gemma2", attn_logit_softcapping=0.5)
    scoring = model.scoring(1)
    q, k, expected = read(model, 1, ROWS, "q", "k", "pattern")
    scores = scoring.scores(q, k)

    uncapped = dataclasses.replace(scoring, cap=None)

    torch.testing.assert_close(scoring.pattern(scores), expected, rtol=1e-4, atol=1e-5)
    assert (uncapped.pattern(scores) - expected).abs().max() > 0.01


def test_scales_of_the_configuration_are_found() -> None:
    by_layer = model_of("gpt2", scale_attn_by_inverse_layer_idx=True)
    wide = random_model(transformers.Gemma3TextConfig(**{**CONFIGS["gemma3"]().to_dict(), "query_pre_attn_scalar": 50}))

    assert [by_layer.scoring(i).scale for i in range(3)] == pytest.approx([8**-0.5, 8**-0.5 / 2, 8**-0.5 / 3])
    assert wide.scoring(0).scale == pytest.approx(50**-0.5)
    assert tiny("llama").scoring(0).scale == pytest.approx(8**-0.5)


def yarn(kind: str) -> TransformerLensModel:
    rope = {"rope_type": kind, "factor": 4.0, "rope_theta": 1e4}
    if kind == "yarn":
        rope["original_max_position_embeddings"] = 16
    config = {**CONFIGS["llama"]().to_dict(), "rope_parameters": rope}
    return random_model(transformers.LlamaConfig(**config))


def test_a_factor_of_the_rotation_is_part_of_the_circuit() -> None:
    model = yarn("yarn")
    scoring = model.scoring(1)
    q, k, expected = read(model, 1, ROWS, "q", "k", "pattern")

    torch.testing.assert_close(scoring.pattern(scoring.scores(q, k)), expected, rtol=1e-4, atol=1e-5)
    assert scoring.turn_factor > 1.05
    torch.testing.assert_close(scoring.rotation(0), torch.eye(8) * scoring.turn_factor**2)
    score = q[0, 9, 2] @ scoring.rotation(5) @ k[0, 4, 1] * scoring.scale
    torch.testing.assert_close(score, scoring.scores(q, k)[0, 2, 9, 4], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["alibi", "length-dependent"])
def test_attention_that_is_not_understood_is_refused(kind: str) -> None:
    bloom = transformers.BloomConfig(vocab_size=VOCAB, hidden_size=32, n_layer=2, n_head=4)
    model = random_model(bloom) if kind == "alibi" else yarn("dynamic")

    with pytest.raises(UnsupportedModelError, match=r"attention of L1 of changed .* is not given by its queries and"):
        model.scoring(1)


def test_a_norm_over_all_heads_together_is_refused() -> None:
    config = CONFIGS["llama"]().to_dict()
    model = random_model(transformers.Olmo2Config(**{k: v for k, v in config.items() if k != "model_type"}))

    with pytest.raises(UnsupportedModelError, match=r"weights of shape \[32\]\. Expected one norm of width 8"):
        model.scoring(0)


def test_a_reading_is_tried_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model: Any = tiny("qwen3")
    first: Scoring = model.scoring(0)
    monkeypatch.setattr(model, "run", lambda *args, **kwargs: pytest.fail("ran again"))

    assert model.scoring(0) is first


@pytest.mark.real
def test_the_attention_of_the_real_gemma_is_rebuilt_in_sliding_and_full_blocks() -> None:
    model = load("gemma3-270m")
    draw = torch.Generator().manual_seed(0)
    rows = [[2, *torch.randint(5, model.facts.d_vocab, (59,), generator=draw).tolist()]]

    for layer in (4, 5):  # a block with a window, and one without
        sites = [Site(name, layer) for name in ("q", "k", "pattern")]
        run = model.run(rows, read=sites, stop_after=sites[-1])
        scoring = model.scoring(layer)
        attention = scoring.pattern(scoring.scores(run[sites[0]], run[sites[1]]))
        torch.testing.assert_close(attention, run[sites[2]], rtol=1e-3, atol=1e-4)
        assert (scoring.window, scoring.scale) == (512 if layer == 4 else None, 1 / 16)
        assert float(scoring.frequencies[-1]) == pytest.approx((1e4 if layer == 4 else 1e6) ** -(254 / 256), rel=1e-4)
