"""T17: scores are the sum of their terms on every family; locked attention is its definition, pair by pair."""

import functools
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor

from mechint.effects.attribution import contributions
from mechint.effects.effective_embedding import effective_embedding
from mechint.effects.locked_attention import locked_attention
from mechint.effects.score_decomposition import (
    ScoreTerms,
    difference,
    from_mean,
    one_source,
    score_terms,
)
from mechint.errors import ConfigError, PositionError, SiteError
from mechint.model.base import Model
from mechint.model.loading import load
from mechint.model.transformer_lens import TransformerLensModel
from mechint.positions import TokenBatch, everywhere
from mechint.sites import Site
from tests.families import CONFIGS, FAMILIES, random_rows, tiny, tokenizer

ROWS = random_rows(2, 12, seed=7)  # longer than the windows of 8
LAYER, HEAD = 2, 3
D, S = 10, 6
ROTARY = [family for family in FAMILIES if family != "gpt2"]


def read(model: Model, rows: list[list[int]], layer: int, *names: str) -> list[Tensor]:
    run = model.run(rows, read=[Site(name, layer) for name in names])
    return [run[Site(name, layer)] for name in names]


def model_scores(model: Model, rows: list[list[int]], layer: int, head: int) -> Tensor:
    """Scores before soft-cap and mask, from the queries and keys of the model's own run."""
    q, k = read(model, rows, layer, "q", "k")
    return model.scoring(layer).scores(q, k)[:, head]


def relative(got: Tensor, expected: Tensor) -> float:
    return float((got - expected).norm() / expected.norm())


@functools.cache
def terms_of(family: str) -> ScoreTerms:
    return score_terms(tiny(family), ROWS, LAYER, HEAD)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_terms_of_every_head_add_up_to_its_scores(family: str) -> None:
    model = tiny(family)
    for layer in (0, model.facts.n_layers - 1):
        for head in range(4):
            found = score_terms(model, ROWS, layer, head)
            expected = model_scores(model, ROWS, layer, head)
            assert relative(found.scores, expected) < 1e-5
            assert relative(found.query_side().sum(1), expected) < 1e-5
            assert relative(found.key_side().sum(1), expected) < 1e-5


def test_biases_go_through_the_norm_of_queries_and_keys() -> None:
    config = transformers.Qwen3Config(**{**CONFIGS["qwen3"]().to_dict(), "attention_bias": True})
    torch.manual_seed(0)
    hf_model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    for parameter in hf_model.parameters():
        parameter.requires_grad_(False).add_(0.15 * torch.randn_like(parameter))
    model = TransformerLensModel(hf_model, tokenizer(), name="biased")

    found = score_terms(model, ROWS, LAYER, HEAD)

    assert found.queries[:, :, found.query_names.index("b_Q")].norm() > 0.05 * found.queries.sum(2).norm()
    assert relative(found.scores, model_scores(model, ROWS, LAYER, HEAD)) < 1e-5


@pytest.mark.parametrize("family", [family for family in FAMILIES if "scores" not in tiny(family).facts.hidden])
def test_the_terms_add_up_to_the_scores_that_the_model_shows(family: str) -> None:
    model = tiny(family)
    (shown,) = read(model, ROWS, LAYER, "scores")
    scoring, found = model.scoring(LAYER), terms_of(family).scores

    capped = found if scoring.cap is None else scoring.cap * torch.tanh(found / scoring.cap)

    seen = scoring.visible(12).expand_as(found)
    assert relative(capped[seen], shown[:, HEAD][seen]) < 1e-5


@pytest.mark.parametrize("family", FAMILIES)
def test_every_term_is_the_product_of_its_two_components(family: str) -> None:
    """The definition, for one pair of positions in double precision, with components from a run of their own."""
    model = tiny(family)
    kv_head = HEAD // (model.facts.n_heads // model.facts.n_kv_heads)
    weights, scoring, norm = model.projections(LAYER), model.scoring(LAYER), model.norm("attn_in", LAYER)
    assert norm is not None
    all_terms = contributions(model, ROWS, everywhere)
    (stream,) = read(model, ROWS, LAYER, "resid_pre")
    parts = [all_terms.embed]
    for below in range(LAYER):
        parts += [*all_terms.heads[below].unbind(2), all_terms.attn_biases[below], all_terms.mlps[below]]
    sides: list[list[Tensor]] = []
    for place, weight, bias, head_norm in (
        (D, weights.W_Q[HEAD].double(), weights.b_Q[HEAD].double(), scoring.q_norm),
        (S, weights.W_K[kv_head].double(), weights.b_K[kv_head].double(), scoring.k_norm),
    ):
        x = stream[0, place].double()
        inside = [norm.centre(part[0, place].double()) / norm.scale(x) * norm.gain @ weight for part in parts]
        inside.append(torch.zeros_like(bias) if norm.bias is None else norm.bias.double() @ weight)
        inside.append(bias)
        if head_norm is not None:
            inside = [vector / head_norm.scale(sum(inside)) * head_norm.gain for vector in inside]
        sides.append(inside)
    rotation = scoring.rotation(D - S).double()
    expected = torch.stack([torch.stack([a @ rotation @ b for b in sides[1]]) for a in sides[0]]) * scoring.scale

    found = terms_of(family)
    table = found.table(torch.tensor([D, D]), one_source(torch.tensor([S, S]), 12))[0].double()
    query_names = list(found.query_names)
    if family == "gpt2":  # whose embedding is two terms
        assert query_names[:2] == ["embed", "pos_embed"]
        table = torch.cat([table[:2].sum(0, keepdim=True), table[2:]])
        table = torch.cat([table[:, :2].sum(1, keepdim=True), table[:, 2:]], 1)
        query_names.pop(1)
    torch.testing.assert_close(table, expected, rtol=1e-4, atol=1e-6)
    heads = [[f"L{i}H{h}" for h in range(4)] + [f"L{i}.attn_bias", f"L{i}.mlp"] for i in range(LAYER)]
    assert query_names == ["embed", *heads[0], *heads[1], "norm bias", "b_Q"]
    assert found.key_names[-2:] == ("norm bias", "b_K")


@pytest.mark.parametrize("family", FAMILIES)
def test_a_table_sums_to_both_sides_and_to_the_contrast_of_scores(family: str) -> None:
    found, at = terms_of(family), torch.tensor([D, D - 1])
    visible = torch.arange(12) <= at[:, None]
    sources = {
        "difference": difference(torch.tensor([S, 4]), torch.tensor([5, S]), 12),
        "from mean": from_mean(torch.tensor([S, 4]), visible),
    }
    rows = torch.arange(2)

    for weights in sources.values():
        table = found.table(at, weights)
        query_side = (found.query_side()[rows, :, at] * weights[:, None]).sum(-1)
        key_side = (found.key_side()[rows, :, at] * weights[:, None]).sum(-1)
        torch.testing.assert_close(weights.sum(1), torch.zeros(2))
        torch.testing.assert_close(table.sum(2), query_side, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(table.sum(1), key_side, rtol=1e-4, atol=1e-5)
    scores = model_scores(tiny(family), ROWS, LAYER, HEAD)
    first = scores[rows, at, torch.tensor([S, 4])]
    expected = first - scores[rows, at, torch.tensor([5, S])]
    torch.testing.assert_close(found.table(at, sources["difference"]).sum((1, 2)), expected, rtol=1e-4, atol=1e-5)
    means = torch.stack([scores[i, d, : d + 1].mean() for i, d in enumerate(at.tolist())])
    torch.testing.assert_close(found.table(at, sources["from mean"]).sum((1, 2)), first - means, rtol=1e-4, atol=1e-5)


def test_what_is_the_same_for_every_source_vanishes_from_a_contrast() -> None:
    found = terms_of("gpt2")
    at = torch.tensor([D, D])
    column = found.key_names.index("b_K")

    table = found.table(at, difference(torch.tensor([S, S]), torch.tensor([2, 3]), 12))

    assert found.table(at, one_source(torch.tensor([S, S]), 12))[:, :, column].abs().max() > 1e-3
    assert table[:, :, column].abs().max() == 0
    assert table.abs().max() > 1e-3


def directions(family: str, component: str) -> Tensor:
    """What one component writes at every position."""
    (written,) = read(tiny(family), ROWS, 0, component)
    return written


@pytest.mark.parametrize("family", FAMILIES)
def test_parts_along_and_across_a_direction_add_up_to_their_component(family: str) -> None:
    model, whole = tiny(family), terms_of(family)
    u, n = directions(family, "mlp_out"), len(whole.query_names) - 2

    found = score_terms(model, ROWS, LAYER, HEAD, query_direction=u, key_direction=-3 * u)

    assert found.query_names[:2] == ("embed along", "embed across")
    assert found.query_names[-2:] == ("norm bias", "b_Q")
    for split, unsplit in ((found.queries, whole.queries), (found.keys, whole.keys)):
        pairs = split[:, :, : 2 * n].unflatten(2, (n, 2))
        torch.testing.assert_close(pairs.sum(3), unsplit[:, :, :n], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(split[:, :, 2 * n :], unsplit[:, :, n:])
        # The direction is what MLP 0 writes, so all of that is along it, and little of the others.
        own = whole.query_names.index("L0.mlp")
        torch.testing.assert_close(pairs[:, :, own, 0], unsplit[:, :, own], rtol=1e-4, atol=1e-5)
        assert pairs[:, :, own, 1].abs().max() < 1e-5
        assert pairs[:, :, 0, 1].norm() > 0.1 * unsplit[:, :, 0].norm()


def test_one_side_can_be_split_alone() -> None:
    whole = terms_of("gemma3")
    found = score_terms(tiny("gemma3"), ROWS, LAYER, HEAD, key_direction=directions("gemma3", "mlp_out"))

    assert found.query_names == whole.query_names
    assert len(found.key_names) == 2 * len(whole.key_names) - 2
    table = found.table(torch.tensor([D, D]), one_source(torch.tensor([S, S]), 12))
    torch.testing.assert_close(table.sum((1, 2)), whole.scores[:, D, S], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_row_padded_on_the_right_has_the_terms_of_the_row_alone(family: str) -> None:
    short = ROWS[1][:7]
    together = score_terms(tiny(family), [ROWS[0], short], LAYER, HEAD)
    alone = score_terms(tiny(family), [short], LAYER, HEAD)

    torch.testing.assert_close(together.queries[1, :7], alone.queries[0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(together.keys[1, :7], alone.keys[0], rtol=1e-4, atol=1e-5)


def test_scores_that_cannot_be_taken_apart_are_refused() -> None:
    model = tiny("llama")
    padded = TokenBatch.from_rows([ROWS[0], ROWS[1][:5]], pad_left=True)

    with pytest.raises(PositionError, match="direction to split by is zero"):
        score_terms(model, ROWS, LAYER, HEAD, query_direction=torch.zeros(2, 12, 32))
    with pytest.raises(SiteError, match="query heads H0 to H3"):
        score_terms(model, ROWS, LAYER, 4)
    with pytest.raises(SiteError, match="query heads H0 to H3"):
        locked_attention(model, ROWS, LAYER, 4, queries=True, keys=True)
    with pytest.raises(ConfigError, match="Neither queries nor keys"):
        locked_attention(model, ROWS, LAYER, HEAD, queries=False, keys=False)
    for compute in (score_terms, functools.partial(locked_attention, queries=True, keys=True)):
        with pytest.raises(PositionError, match="plain rows, padded on the right"):
            compute(model, padded, LAYER, HEAD)


def slow_locked(family: str, queries: bool, keys: bool) -> Tensor:
    """The definition: for every pair, project the inputs and send them through the head with frozen scales."""
    model = tiny(family)
    kv_head = HEAD // (model.facts.n_heads // model.facts.n_kv_heads)
    weights, scoring, norm = model.projections(LAYER), model.scoring(LAYER), model.norm("attn_in", LAYER)
    assert norm is not None
    (stream,) = read(model, ROWS, LAYER, "resid_pre")
    scores = torch.zeros(2, 12, 12)

    def through(given: Tensor, run: Tensor, weight: Tensor, bias: Tensor, head_norm: Any) -> Tensor:
        def project(x: Tensor) -> Tensor:
            y = norm.centre(x) / norm.scale(run) * norm.gain
            return (y if norm.bias is None else y + norm.bias) @ weight + bias

        if head_norm is None:
            return project(given)
        return project(given) / head_norm.scale(project(run)) * head_norm.gain

    for i, row in enumerate(ROWS):
        unembed, seen = (effective_embedding(model, row, kind) for kind in ("unembed", "block0"))
        for d in range(12):
            for s in range(12):
                x, y, u, e = stream[i, d], stream[i, s], unembed[s], seen[s]
                x_locked, y_locked = (x @ u) / (u @ u) * u if queries else x, (y @ e) / (e @ e) * e if keys else y
                q = through(x_locked, x, weights.W_Q[HEAD], weights.b_Q[HEAD], scoring.q_norm)
                k = through(y_locked, y, weights.W_K[kv_head], weights.b_K[kv_head], scoring.k_norm)
                scores[i, d, s] = scoring.scale * q @ scoring.rotation(d - s) @ k
    return scoring.pattern(scores)


@pytest.mark.parametrize("locks", [(True, False), (False, True), (True, True)])
@pytest.mark.parametrize("family", ["gpt2", "neox", "gptj", "gemma2", "gemma3", "qwen3"])
def test_locked_attention_is_what_its_definition_says_pair_by_pair(family: str, locks: tuple[bool, bool]) -> None:
    queries, keys = locks

    found = locked_attention(tiny(family), ROWS, LAYER, HEAD, queries=queries, keys=keys)

    torch.testing.assert_close(found, slow_locked(family, queries, keys), rtol=1e-4, atol=1e-5)
    (own,) = read(tiny(family), ROWS, LAYER, "pattern")
    assert (found - own[:, HEAD]).abs().max() > 1e-3


@pytest.mark.parametrize("family", ROTARY)
def test_a_key_lock_changes_nothing_where_the_stream_is_the_effective_embedding(family: str) -> None:
    model, rows = tiny(family), [[5] * 12, [9] * 12]  # whatever block 0 attends to here, it finds one token

    found = locked_attention(model, rows, 1, HEAD, queries=False, keys=True)

    torch.testing.assert_close(found, read(model, rows, 1, "pattern")[0][:, HEAD], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", ["gemma2", "gemma3"])
def test_locked_attention_stays_within_the_window(family: str) -> None:
    found = locked_attention(tiny(family), ROWS, 0, HEAD, queries=True, keys=True)

    distance = torch.arange(12)[:, None] - torch.arange(12)
    assert torch.equal(found > 0, ((distance >= 0) & (distance < 8)).expand_as(found))
    torch.testing.assert_close(found.sum(-1), torch.ones(2, 12))


@pytest.mark.real
def test_the_scores_of_the_real_gemma_are_the_sum_of_their_terms() -> None:
    model = load("gemma3-270m")
    rows = [model.tokenize("When Mary and John went to the store, John gave a drink to")]

    for layer, head in ((11, 3), (17, 2)):
        expected = model_scores(model, rows, layer, head)
        assert relative(score_terms(model, rows, layer, head).scores, expected) < 1e-5
        attention = locked_attention(model, rows, layer, head, queries=True, keys=True)
        torch.testing.assert_close(attention.sum(-1), torch.ones(1, len(rows[0])))
