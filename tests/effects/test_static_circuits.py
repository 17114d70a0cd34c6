"""T14, T16, T18: static circuits equal dense matrices, and a dead head suppresses nothing."""

from typing import Any

import pytest
import torch
from torch import Tensor

from mechint.effects.effective_embedding import KINDS, embedding_blocks, embedding_cosine
from mechint.effects.static_circuits import effective_embedding, ov_outputs, own_token_ranks
from mechint.errors import ConfigError
from mechint.model.base import Logits
from mechint.model.transformer_lens import TransformerLensModel
from mechint.positions import everywhere
from mechint.sites import Site
from tests.families import FAMILIES, VOCAB, plain, tiny, tokenizer

TOKENS = [3, 41, 7, 20, 8, 49]
EVERY = list(range(VOCAB))
GROUPED = ("llama", "gemma2", "gemma3", "qwen3")


def dense_ranks(effects: Tensor, own: list[int]) -> tuple[Tensor, Tensor]:
    """Mid-ranks and ties by the definition, from M [head, row, vocabulary]."""
    ranks, ties = torch.zeros(effects.shape[:2]), torch.zeros(effects.shape[:2], dtype=torch.long)
    for head, rows in enumerate(effects):
        for row, (values, token) in enumerate(zip(rows, own, strict=True)):
            others = torch.cat([values[:token], values[token + 1 :]])
            ties[head, row] = (others == values[token]).sum()
            ranks[head, row] = (others < values[token]).sum() + 0.5 * ties[head, row]
    return ranks, ties


@pytest.mark.parametrize("block", [1, 7, VOCAB])
@pytest.mark.parametrize("family", FAMILIES)
def test_streamed_ranks_equal_those_of_the_whole_matrix(family: str, block: int) -> None:
    model = tiny(family)
    outputs = torch.randn(len(TOKENS), 4, 32, generator=torch.Generator().manual_seed(0))

    ranks, ties = own_token_ranks(outputs, torch.tensor(TOKENS), model, block)

    effects = torch.einsum("rhd,vd->hrv", outputs.double(), model.unembedding(torch.arange(VOCAB)).double())
    expected, expected_ties = dense_ranks(effects, TOKENS)
    assert torch.equal(ranks, expected)
    assert torch.equal(ties, expected_ties)


@pytest.fixture(scope="module")
def whole_numbers() -> TransformerLensModel:
    """A model whose unembedding holds small whole numbers, so that ties are plenty and sums exact."""
    hf_model = plain("llama")
    draw = torch.Generator().manual_seed(1)
    hf_model.lm_head.weight.copy_(torch.randint(-1, 2, (VOCAB, 32), generator=draw).float())
    return TransformerLensModel(hf_model, tokenizer(), name="whole-numbers")


@pytest.mark.parametrize("block", [1, 7, VOCAB])
def test_ties_are_counted_exactly_whatever_the_block(whole_numbers: TransformerLensModel, block: int) -> None:
    outputs = torch.randint(-1, 2, (len(TOKENS), 4, 32), generator=torch.Generator().manual_seed(2)).float()
    effects = torch.einsum("rhd,vd->hrv", outputs, whole_numbers.unembedding(torch.arange(VOCAB)))
    expected, expected_ties = dense_ranks(effects, TOKENS)
    assert int(expected_ties.sum()) > 0

    ranks, ties = own_token_ranks(outputs, torch.tensor(TOKENS), whole_numbers, block)

    assert torch.equal(ranks, expected)
    assert torch.equal(ties, expected_ties)


def test_the_most_suppressed_token_has_rank_0_and_the_most_raised_the_last(whole_numbers: TransformerLensModel) -> None:
    directions = whole_numbers.unembedding(torch.tensor(TOKENS))
    norms = whole_numbers.unembedding(torch.arange(VOCAB)).norm(dim=1)
    longest = [i for i, token in enumerate(TOKENS) if norms[token] >= norms.mean()]

    ranks, _ = own_token_ranks(torch.stack([-directions, directions], 1), torch.tensor(TOKENS), whole_numbers)

    assert longest
    assert ranks[0, longest].max() < VOCAB * 0.1
    torch.testing.assert_close(ranks[0] + ranks[1], torch.full((len(TOKENS),), VOCAB - 1.0))


def test_a_dead_head_has_the_middle_rank_and_not_rank_0() -> None:
    hf_model = plain("llama")
    size = hf_model.config.hidden_size // 4
    hf_model.model.layers[1].self_attn.o_proj.weight[:, 2 * size : 3 * size] = 0
    model = TransformerLensModel(hf_model, tokenizer(), name="dead-head")

    outputs = ov_outputs(model, 1, EVERY, effective_embedding(model, EVERY))
    ranks, ties = own_token_ranks(outputs, torch.tensor(EVERY), model)

    assert (ranks[2] == (VOCAB - 1) / 2).all()
    assert (ties[2] == VOCAB - 1).all()
    assert (ranks[2] < 0.05 * VOCAB).float().mean() == 0.0
    assert (ranks[[0, 1, 3]] != (VOCAB - 1) / 2).all(1).any()


def rms(x: Tensor, norm: Any, family: str) -> Tensor:
    gain = norm.weight.double() + (1.0 if family.startswith("gemma") else 0.0)
    eps = float(getattr(norm, "variance_epsilon", None) or norm.eps)
    return x / (x.pow(2).mean(-1, keepdim=True) + eps).sqrt() * gain


@pytest.mark.parametrize("family", GROUPED)
def test_grouped_heads_write_what_dense_matrices_with_repeated_values_write(family: str) -> None:
    model, reference, layer = tiny(family), plain(family), 1
    block, facts = reference.model.layers[layer], model.facts
    embedding = effective_embedding(model, EVERY)

    outputs = ov_outputs(model, layer, EVERY, embedding)

    normed = rms(embedding.double(), block.input_layernorm, family)
    values = (normed @ block.self_attn.v_proj.weight.double().T).view(VOCAB, facts.n_kv_heads, facts.d_head)
    by_query_head = values.repeat_interleave(facts.n_heads // facts.n_kv_heads, dim=1)
    w_o = block.self_attn.o_proj.weight.double().T.view(facts.n_heads, facts.d_head, facts.d_model)
    written = torch.einsum("rhe,hed->rhd", by_query_head, w_o)
    one = 1.0 if family.startswith("gemma") else 0.0
    if facts.post_norms:
        written = written * (block.post_attention_layernorm.weight.double() + one)
    written = written * (reference.model.norm.weight.double() + one)
    torch.testing.assert_close(outputs.double(), written, rtol=1e-4, atol=1e-4)
    # And the whole of M, whose sign and order are what the ranks are made of.
    table = reference.lm_head.weight.double()
    expected, _ = dense_ranks(torch.einsum("rhd,vd->hrv", written, table), EVERY)
    ranks, _ = own_token_ranks(outputs, torch.tensor(EVERY), model)
    assert (ranks != expected).float().mean() < 0.01  # float32 may swap neighbours


@pytest.mark.parametrize("family", ["llama", "gemma2", "gemma3", "neox", "gptj"])
def test_the_effective_embedding_is_block_0_on_a_text_of_one_token(family: str) -> None:
    reference = plain(family)

    embedding = effective_embedding(tiny(family), TOKENS)

    with torch.no_grad():
        for token, got in zip(TOKENS, embedding, strict=True):
            expected = reference(torch.tensor([[token]]), output_hidden_states=True).hidden_states[1]
            torch.testing.assert_close(got, expected[0, 0], rtol=1e-4, atol=1e-5)


def test_the_effective_embedding_of_gpt2_has_no_position_embedding() -> None:
    reference = plain("gpt2")
    with_positions = reference(torch.tensor([[TOKENS[0]]]), output_hidden_states=True).hidden_states[1][0, 0]
    reference.transformer.wpe.weight.zero_()

    embedding = effective_embedding(tiny("gpt2"), TOKENS)

    with torch.no_grad():
        for token, got in zip(TOKENS, embedding, strict=True):
            expected = reference(torch.tensor([[token]]), output_hidden_states=True).hidden_states[1]
            torch.testing.assert_close(got, expected[0, 0], rtol=1e-4, atol=1e-5)
    assert (embedding[0] - with_positions).abs().max() > 1e-2


def test_value_biases_and_the_bias_of_the_norm_are_left_out() -> None:
    block = plain("gpt2").transformer.h[1]
    final = plain("gpt2").transformer.ln_f
    x = torch.randn(3, 32, generator=torch.Generator().manual_seed(0))
    centred = x - x.mean(-1, keepdim=True)
    normalised = centred / (centred.pow(2).mean(-1, keepdim=True) + block.ln_1.eps).sqrt() * block.ln_1.weight
    values = (normalised @ block.attn.c_attn.weight[:, 64:]).view(3, 4, 8)
    written = torch.einsum("rhe,hed->rhd", values, block.attn.c_proj.weight.view(4, 8, 32))
    expected = (written - written.mean(-1, keepdim=True)) * final.weight

    outputs = ov_outputs(tiny("gpt2"), 1, [5, 6, 7], x)

    torch.testing.assert_close(outputs, expected, rtol=1e-4, atol=1e-5)
    assert block.attn.c_attn.bias[64:].abs().max() > 0.1  # there was something to leave out


def one_token_run(family: str, token: int) -> dict[str, Tensor]:
    """What the plain model makes of a text of one token in block 0; GPT-2 without its position embedding."""
    reference, seen = plain(family), {}
    if family == "gpt2":
        reference.transformer.wpe.weight.zero_()
    body = reference.base_model
    block = (body.layers if hasattr(body, "layers") else body.h)[0]
    written = block.post_feedforward_layernorm if family.startswith("gemma") else block.mlp
    block.register_forward_pre_hook(lambda _, args, kwargs: seen.update(embed=args[0][0, 0]), with_kwargs=True)
    written.register_forward_hook(lambda _, args, out: seen.update(mlp0=out[0, 0]))
    with torch.no_grad():
        seen["block0"] = reference(torch.tensor([[token]]), output_hidden_states=True).hidden_states[1][0, 0]
    return seen


@pytest.mark.parametrize("kind", ["block0", "mlp0", "embed"])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_kind_of_embedding_is_what_the_plain_model_has_there(family: str, kind: str) -> None:
    rows = effective_embedding(tiny(family), TOKENS, kind)

    for token, row in zip(TOKENS, rows, strict=True):
        torch.testing.assert_close(row, one_token_run(family, token)[kind], rtol=1e-4, atol=1e-5)


def test_the_embedding_of_gemma_is_scaled_as_it_enters_block_0() -> None:
    table = plain("gemma3").model.embed_tokens.weight[TOKENS]

    torch.testing.assert_close(effective_embedding(tiny("gemma3"), TOKENS, "embed"), table * 32**0.5)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_stream_along_the_unembedding_is_the_logit(family: str) -> None:
    model = tiny(family)
    final, last = model.norm("final"), Site("resid_post", model.facts.n_layers - 1)
    assert final is not None
    stream = model.run([[0, 5, 9]], read=[last])[last]
    logits = model.run([[0, 5, 9]], logits=Logits(at=everywhere, capped=False)).logits
    assert logits is not None

    along = stream @ effective_embedding(model, EVERY, "unembed").T / final.scale(stream)

    constant = model.output_bias(slice(None))
    if final.bias is not None:
        constant = constant + model.unembedding(slice(None)) @ final.bias
    torch.testing.assert_close(along + constant, logits, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_embeddings_in_blocks_are_the_whole_in_order(kind: str) -> None:
    model = tiny("gemma2")
    whole = effective_embedding(model, EVERY[::-1], kind)

    for block in (1, 7):
        pieces = [found[kind] for found in embedding_blocks(model, EVERY[::-1], [kind], block)]
        assert max(map(len, pieces)) == block
        torch.testing.assert_close(torch.cat(pieces), whole, rtol=1e-4, atol=1e-5)


def test_the_cosine_is_that_of_embedding_and_effective_embedding() -> None:
    model = tiny("gemma3")
    runs = [one_token_run("gemma3", token) for token in TOKENS]
    expected = torch.stack([run["embed"] @ run["block0"] / run["embed"].norm() / run["block0"].norm() for run in runs])

    torch.testing.assert_close(embedding_cosine(model, TOKENS), expected, rtol=1e-4, atol=1e-5)
    assert expected.max() - expected.min() > 0.01


def test_embeddings_that_are_not_there_are_refused() -> None:
    model = tiny("llama")

    with pytest.raises(ConfigError, match=r"\['block1'\]. Expected some of block0, mlp0, embed, unembed"):
        effective_embedding(model, TOKENS, "block1")
    with pytest.raises(ConfigError, match="none given"):
        next(iter(embedding_blocks(model, TOKENS, [])))
    with pytest.raises(ConfigError, match="Embeddings of 0 tokens"):
        effective_embedding(model, [])
    for token in (-1, VOCAB):
        with pytest.raises(ConfigError, match="Expected 0 to 49"):
            effective_embedding(model, [3, token], "unembed")
