"""T14, T16, T17, T18 for what a head looks for: streamed ranks equal dense ones, rotations and shared keys included."""

from typing import Any

import pytest
import torch
from torch import Tensor

from mechint.effects import qk_circuits
from mechint.effects.effective_embedding import effective_embedding
from mechint.effects.qk_circuits import (
    GRID_KEYS,
    GRID_QUERIES,
    grid,
    head_keys,
    head_queries,
    mean_rotation,
    own_token_ranks,
    rotations_at,
)
from mechint.effects.ranks import OwnRanks, rank_counts
from mechint.errors import ConfigError, SiteError
from mechint.model.base import Model, Restart
from mechint.model.loading import load
from mechint.model.transformer_lens import TransformerLensModel
from mechint.organisms.copy_suppression import SUPPRESSOR, build
from mechint.sites import Site
from tests.families import FAMILIES, VOCAB, plain, tiny, tokenizer

TOKENS = [3, 41, 7, 20, 8, 49]
EVERY = list(range(VOCAB))
GROUPED = ("llama", "gemma2", "gemma3", "qwen3")
LAYER = 1


def dense_ranks(scores: Tensor, own: list[int], among: list[int]) -> tuple[Tensor, Tensor]:
    """Mid-ranks and ties by the definition, from N [..., row, vocabulary]."""
    flat = scores.flatten(0, -3)
    ranks, ties = torch.zeros(flat.shape[:2]), torch.zeros(flat.shape[:2], dtype=torch.long)
    for i, matrix in enumerate(flat):
        for row, (values, token) in enumerate(zip(matrix, own, strict=True)):
            others = values[[t for t in among if t != token]]
            ties[i, row] = (others == values[token]).sum()
            ranks[i, row] = (others > values[token]).sum() + 0.5 * ties[i, row]
    return ranks.view(scores.shape[:-1]), ties.view(scores.shape[:-1])


def dense_scores(model: Model, matrices: Tensor, query: str = "unembed", key: str = "block0") -> Tensor:
    """N [distance, head, row, vocabulary] with every matrix written out, in double precision."""
    q = head_queries(model, LAYER, effective_embedding(model, TOKENS, query)).double()
    k = head_keys(model, LAYER, effective_embedding(model, EVERY, key)).double()
    k = k.repeat_interleave(model.facts.n_heads // model.facts.n_kv_heads, dim=1)
    return torch.einsum("rhe,nef,vhf->nhrv", q, matrices.double(), k)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_static_score_is_that_of_the_model_when_query_and_key_stand_side_by_side(family: str) -> None:
    model, group = tiny(family), tiny(family).facts.n_heads // tiny(family).facts.n_kv_heads
    x, y = effective_embedding(model, TOKENS, "unembed"), effective_embedding(model, TOKENS[::-1])
    stream = Restart(LAYER, torch.stack([y, x], 1))  # the key stands one token before the query
    site = Site("pattern", LAYER)
    attention = model.run([[0, 0]] * len(TOKENS), read=[site], from_=stream, stop_after=site)[site]
    expected = (attention[:, :, 1, 0] / attention[:, :, 1, 1]).log()  # its score minus that of the query's own key

    q = head_queries(model, LAYER, x)
    keys = [head_keys(model, LAYER, rows).repeat_interleave(group, dim=1) for rows in (y, x)]
    at = rotations_at(model, LAYER, [1, 0]).matrices
    scores = [torch.einsum("rhe,ef,rhf->rh", q, matrix, k) for matrix, k in zip(at, keys, strict=True)]

    difference = (scores[0] - scores[1]) * model.scoring(LAYER).scale
    torch.testing.assert_close(difference, expected, rtol=2e-3, atol=2e-4)  # Gemma 2 caps scores at 50


@pytest.mark.parametrize("family", FAMILIES)
def test_streamed_ranks_equal_those_of_the_whole_matrix_whatever_the_block(family: str) -> None:
    model = tiny(family)
    rotations = rotations_at(model, LAYER, [0, 3])
    expected, ties = dense_ranks(dense_scores(model, rotations.matrices), TOKENS, EVERY)

    for block in (1, 7, VOCAB):
        found = own_token_ranks(model, LAYER, TOKENS, rotations, block=block)
        assert torch.equal(found.ranks, expected)
        assert torch.equal(found.ties, ties)
        assert torch.equal(found.scaled, found.ranks)
        assert found.rotations == ("distance 0", "distance 3")
        assert not found.sampled


@pytest.mark.parametrize("family", [family for family in FAMILIES if family != "gpt2"])
def test_the_rank_depends_on_the_distance_in_rotary_models(family: str) -> None:
    ranks = own_token_ranks(tiny(family), LAYER, EVERY, rotations_at(tiny(family), LAYER, [0, 3])).ranks

    assert not torch.equal(ranks[0], ranks[1])


def test_the_rank_does_not_depend_on_the_distance_where_nothing_is_turned() -> None:
    model = tiny("gpt2")
    near, far = own_token_ranks(model, LAYER, TOKENS, rotations_at(model, LAYER, [0, 9])).ranks

    assert torch.equal(near, far)
    assert torch.equal(near, own_token_ranks(model, LAYER, TOKENS, mean_rotation(model, LAYER)).ranks[0])


@pytest.mark.parametrize("family", FAMILIES)
def test_the_circuit_of_the_mean_rotation_is_the_mean_of_the_circuits(family: str) -> None:
    model = tiny(family)
    each = rotations_at(model, LAYER, range(1, 6))
    scores = dense_scores(model, each.matrices).mean(0, keepdim=True)
    mean = mean_rotation(model, LAYER, 5)

    torch.testing.assert_close(dense_scores(model, mean.matrices), scores, rtol=1e-5, atol=1e-5)
    expected, _ = dense_ranks(scores, TOKENS, EVERY)
    found = own_token_ranks(model, LAYER, TOKENS, mean)
    assert torch.equal(found.ranks, expected)
    assert found.rotations == ("mean of distances 1 to 5",)


def test_the_mean_is_over_as_far_as_the_block_sees() -> None:
    assert mean_rotation(tiny("gemma3"), 0).names == (
        "mean of distances 1 to 7",
    )  # a window of 8 with the query itself
    assert mean_rotation(tiny("gemma3"), 5).names == ("mean of distances 1 to 63",)
    with pytest.raises(ConfigError, match="L0 of tiny-gemma3 sees 1 to 7 back"):
        mean_rotation(tiny("gemma3"), 0, 8)
    with pytest.raises(ConfigError, match="No distance"):
        rotations_at(tiny("gemma3"), 0, [])


def rms(x: Tensor, norm: Any, family: str) -> Tensor:
    gain = norm.weight.double() + (1.0 if family.startswith("gemma") else 0.0)
    eps = float(getattr(norm, "variance_epsilon", None) or norm.eps)
    return x / (x.pow(2).mean(-1, keepdim=True) + eps).sqrt() * gain


@pytest.mark.parametrize("family", GROUPED)
def test_grouped_heads_score_as_dense_matrices_with_repeated_keys_do(family: str) -> None:
    model, facts = tiny(family), tiny(family).facts
    reference = plain(family)
    block, one = reference.model.layers[LAYER], 1.0 if family.startswith("gemma") else 0.0
    unembedding = reference.lm_head.weight.double() * (reference.model.norm.weight.double() + one)
    seen = effective_embedding(model, EVERY).double()  # itself compared with the plain model in test_static_circuits

    q, k = (
        (rms(x, block.input_layernorm, family) @ linear.weight.double().T).unflatten(-1, (-1, facts.d_head))
        for x, linear in ((unembedding, block.self_attn.q_proj), (seen, block.self_attn.k_proj))
    )
    if family in ("gemma3", "qwen3"):
        q, k = rms(q, block.self_attn.q_norm, family), rms(k, block.self_attn.k_norm, family)
    keys = k.repeat_interleave(facts.n_heads // facts.n_kv_heads, dim=1)
    expected, _ = dense_ranks(torch.einsum("rhe,vhe->hrv", q, keys)[None], EVERY, EVERY)

    found = own_token_ranks(model, LAYER, EVERY, rotations_at(model, LAYER, [0]))

    torch.testing.assert_close(head_queries(model, LAYER, unembedding.float()).double(), q, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(head_keys(model, LAYER, seen.float()).double(), k, rtol=1e-4, atol=1e-4)
    assert (found.ranks != expected).float().mean() < 0.01  # float32 may swap neighbours


def changed(family: str, change: Any) -> TransformerLensModel:
    hf_model = plain(family)
    change(hf_model)
    return TransformerLensModel(hf_model, tokenizer(), name="changed")


@pytest.mark.parametrize("family", ["llama", "qwen3"])
def test_a_dead_head_has_the_middle_rank_and_not_rank_0(family: str) -> None:
    def kill(hf_model: Any) -> None:
        attention = hf_model.model.layers[LAYER].self_attn
        attention.q_proj.weight[2 * attention.head_dim : 3 * attention.head_dim] = 0

    model = changed(family, kill)
    found = own_token_ranks(model, LAYER, EVERY, rotations_at(model, LAYER, [0]))

    assert (found.ranks[0, 2] == (VOCAB - 1) / 2).all()
    assert (found.ties[0, 2] == VOCAB - 1).all()
    counts = rank_counts(found.scaled, VOCAB)
    assert int(counts.first[0, 2]) == int(counts.below_5_percent[0, 2]) == 0
    assert int(found.ties[0, [0, 1, 3]].max()) == 0


def test_two_tokens_that_are_embedded_alike_tie() -> None:
    def twins(hf_model: Any) -> None:
        hf_model.model.embed_tokens.weight[41] = hf_model.model.embed_tokens.weight[3]

    model = changed("llama", twins)
    found = own_token_ranks(model, LAYER, TOKENS, rotations_at(model, LAYER, [2]))

    assert found.ties[0, :, :2].tolist() == [[1, 1]] * 4
    assert not found.ties[0, :, 2:].any()
    assert (found.ranks[0, :, :2] % 1 == 0.5).all()


@pytest.mark.parametrize("block", [1, 7, VOCAB])
def test_ranks_and_ties_of_whole_numbers_are_exact_whatever_the_block(block: int) -> None:
    draw = torch.Generator().manual_seed(3)
    scores = torch.randint(-3, 4, (2, 4, len(TOKENS), VOCAB), generator=draw).float()
    order = [*TOKENS, *(token for token in EVERY if token not in TOKENS)]
    expected, ties = dense_ranks(scores, TOKENS, EVERY)
    tally, size = OwnRanks(), max(block, len(TOKENS))

    for start in range(0, VOCAB, size):
        tally.add(-scores[..., order[start : start + size]])

    assert int(ties.min()) > 0
    assert torch.equal(tally.ranks, expected)
    assert torch.equal(tally.ties, ties)


@pytest.mark.parametrize("sample", [[1, 2, 3, 7, 30, 31, 40], [11, 12, 13], EVERY[::-1]])
def test_ranks_among_a_sample_of_keys_count_those_and_no_others(sample: list[int]) -> None:
    model = tiny("qwen3")
    rotations = rotations_at(model, LAYER, [0, 3])
    expected, _ = dense_ranks(dense_scores(model, rotations.matrices), TOKENS, sample)

    for block in (1, 8, VOCAB):
        found = own_token_ranks(model, LAYER, TOKENS, rotations, vocabulary=sample, block=block)
        assert torch.equal(found.ranks, expected)
        others = [len(sample) - (token in sample) for token in TOKENS]
        assert found.others.tolist() == others
        torch.testing.assert_close(found.scaled, expected * (VOCAB - 1) / torch.tensor(others))
        assert found.sampled == (len(sample) < VOCAB)


def test_leaving_out_the_query_bias_leaves_out_what_no_direction_has_to_do_with() -> None:
    model = tiny("gpt2")
    norm, weights = model.norm("attn_in", LAYER), model.projections(LAYER)
    assert norm is not None
    assert norm.bias is not None
    x = torch.randn(5, 32, generator=torch.Generator().manual_seed(0))

    without, whole = head_queries(model, LAYER, x, query_bias=False), head_queries(model, LAYER, x)

    constant = torch.einsum("d,hde->he", norm.bias, weights.W_Q) + weights.b_Q
    torch.testing.assert_close(whole - without, constant.expand_as(whole), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(head_queries(model, LAYER, -x, query_bias=False), -without)
    rotations = rotations_at(model, LAYER, [0])
    kept, dropped = (own_token_ranks(model, LAYER, EVERY, rotations, query_bias=bias).ranks for bias in (True, False))
    assert not torch.equal(kept, dropped)


def test_the_planted_head_looks_for_the_very_token_that_is_predicted_and_its_twin_does_not() -> None:
    shares: dict[bool, Tensor] = {}
    for planted in (True, False):
        model = build(planted)
        tokens = range(2, model.facts.d_vocab)
        found = own_token_ranks(model, SUPPRESSOR[0], tokens, rotations_at(model, SUPPRESSOR[0], [0]))
        counts = rank_counts(found.scaled, model.facts.d_vocab)
        shares[planted] = counts.first[0] / counts.rows

    assert shares[True][SUPPRESSOR[1]] == 1.0
    assert shares[True][[0, 1, 3]].max() < 0.2
    assert shares[False].max() < 0.2


@pytest.mark.parametrize("family", ["gpt2", "gemma3"])
def test_the_table_holds_the_ranks_by_kind_of_query_and_key(family: str) -> None:
    model, head = tiny(family), 2
    rotations, sample = rotations_at(model, LAYER, [2]), EVERY[5:45]

    for vocabulary in (None, sample):
        table = grid(model, LAYER, head, TOKENS, rotations, vocabulary=vocabulary, block=9)
        assert set(table) == {(query, key) for query in GRID_QUERIES for key in GRID_KEYS}
        for (query, key), value in table.items():
            found = own_token_ranks(
                model, LAYER, TOKENS, rotations, query=query, key=key, vocabulary=vocabulary, block=9
            )
            torch.testing.assert_close(value, found.scaled[0, head])


def test_counts_are_those_of_the_definition() -> None:
    ranks = torch.tensor([[0.0, 0.5, 9.5, 10.0, 14.9, 15.0, 299.0], [0.0, 0.0, 1.0, 2.0, 3.0, 4.0, 5.0]])

    counts = rank_counts(ranks, 300)

    assert counts.first.tolist() == [1, 2]
    assert counts.below_10.tolist() == [3, 7]
    assert counts.below_5_percent.tolist() == [5, 7]
    assert counts.rows == 7
    with pytest.raises(ConfigError, match="vocabulary of 299"):
        rank_counts(ranks, 299)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"tokens": [3, 3]}, "tokens: expected ids from 0 to 49, at least one, each once"),
        ({"tokens": [50]}, "tokens: expected ids from 0 to 49"),
        ({"vocabulary": [4, 4]}, "vocabulary: expected ids"),
        ({"vocabulary": []}, "vocabulary: expected ids"),
        ({"tokens": [3, 4], "vocabulary": [4]}, "compared with no key but its own"),
        ({"query": "block1"}, r"\['block1'\]. Expected some of block0, mlp0, embed, unembed"),
    ],
)
def test_what_cannot_be_ranked_is_refused(given: dict[str, Any], message: str) -> None:
    model = tiny("llama")
    arguments = {"tokens": TOKENS, **given}

    with pytest.raises(ConfigError, match=message):
        own_token_ranks(model, LAYER, rotations=rotations_at(model, LAYER, [0]), **arguments)


def test_a_table_for_two_rotations_or_a_head_that_is_not_there_is_refused() -> None:
    model = tiny("llama")

    with pytest.raises(ConfigError, match="2 are given"):
        grid(model, LAYER, 0, TOKENS, rotations_at(model, LAYER, [0, 1]))
    with pytest.raises(SiteError, match="Head 4: tiny-llama has query heads 0 to 3"):
        grid(model, LAYER, 4, TOKENS, rotations_at(model, LAYER, [0]))


def test_no_more_than_a_block_of_keys_is_held(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    original = head_keys

    def counting(model: Model, layer: int, embedding: Tensor) -> Tensor:
        sizes.append(len(embedding))
        return original(model, layer, embedding)

    monkeypatch.setattr(qk_circuits, "head_keys", counting)
    own_token_ranks(tiny("llama"), LAYER, TOKENS, rotations_at(tiny("llama"), LAYER, [0]), block=8)

    assert max(sizes) == 8
    assert sum(sizes) == VOCAB


@pytest.mark.real
def test_ranks_of_the_real_gemma_are_those_of_the_whole_matrix() -> None:
    model, layer = load("gemma3-270m"), 11
    draw = torch.Generator().manual_seed(0)
    sample = torch.randperm(model.facts.d_vocab, generator=draw)[:300].tolist()
    tokens = sample[:8]
    rotations = mean_rotation(model, layer)

    found = own_token_ranks(model, layer, tokens, rotations, vocabulary=sample, block=64)

    q = head_queries(model, layer, effective_embedding(model, tokens, "unembed")).double()
    k = head_keys(model, layer, effective_embedding(model, sample)).double()[:, 0]
    scores = torch.einsum("rhe,ef,vf->hrv", q, rotations.matrices[0].double(), k)[None]
    expected, _ = dense_ranks(scores, list(range(8)), list(range(300)))
    assert (found.ranks != expected).float().mean() < 0.1
    assert (found.ranks - expected).abs().max() <= 1
