"""Ranks on text are those of whole rows of logits, whatever stands before them; a planted suppressor has rank 0."""

import numpy as np
import pandas as pd
import pytest
import torch

import mechint as mi
from mechint.effects import attribution
from mechint.effects.documents import Documents
from mechint.effects.head_outputs import read_heads, to_logits
from mechint.model.base import Model
from mechint.organisms import copy_suppression as organism
from mechint.probes.copy_suppression.context_tokens import function_tokens
from mechint.probes.copy_suppression.dynamic_ranks import dynamic_rank_rows, dynamic_rank_table, source_ranks
from mechint.probes.copy_suppression.word_forms import WordForms
from tests.families import FAMILIES, VOCAB, random_rows, tiny

NAMES = tuple("abc")
DOCUMENTS = Documents(NAMES, NAMES, torch.tensor(random_rows(3, 9, seed=5)))
HEADS = [(1, 2), (2, 0)]
EXCLUDED = torch.tensor([0, 1, *range(4, 12)])


def even(a: int, b: int) -> bool:
    """A stand-in for "forms of one word"."""
    return (a - b) % 2 == 0


def slow_rank(values: torch.Tensor, token: int) -> tuple[float, int]:
    others = torch.cat([values[:token], values[token + 1 :]])
    ties = int((others == values[token]).sum())
    return float((others < values[token]).sum()) + 0.5 * ties, ties


@pytest.mark.parametrize("family", FAMILIES)
def test_every_edge_has_the_rank_that_a_loop_over_edges_finds(family: str) -> None:
    model, everything = tiny(family), torch.arange(VOCAB)

    found = dynamic_rank_rows(model, DOCUMENTS, HEADS, even, EXCLUDED)

    expected: list[dict[str, float]] = []
    final, directions = attribution.final_norm(model), model.unembedding(everything)
    u = final.centre(final.gain * directions)
    for run in read_heads(model, DOCUMENTS, HEADS):
        for b, name in enumerate(NAMES):
            for s in range(1, DOCUMENTS.length):
                token = int(DOCUMENTS.tokens[b, s])
                edges = [d for d in range(s, DOCUMENTS.length) if run.attention[b, d, s] > 0.1]
                for d in edges:
                    # With every factor of this edge: attention, post-norm and final norm of the destination.
                    term = run.attention[b, d, s] * run.post_factor[b, d] * run.sources[b, s]
                    x = to_logits(model, term, run.resid_final[b, d]).double() @ directions.double().T
                    rank, ties = slow_rank(x, token)
                    lowest = int(x.argmin())
                    cosine = float(torch.cosine_similarity(u[token], u[lowest], dim=0))
                    expected.append(
                        {"id": name, "position": s, "layer": run.layer, "token": token, "n_edges": len(edges)}
                        | {"rank": rank, "ties": ties, "lowest": lowest, "cosine": cosine, "function_word": token < 12}
                        | {"related": float(even(token, lowest)) if 1 <= rank < 10 else np.nan}
                        | {"attention": float(run.attention[b, edges, s].mean())}
                    )
    every_edge = found.loc[found.index.repeat(found["n_edges"])].reset_index(drop=True)
    wanted = pd.DataFrame(expected)
    pd.testing.assert_frame_equal(every_edge[wanted.columns.tolist()], wanted, rtol=1e-3, atol=1e-5, check_dtype=False)
    assert (wanted["n_edges"] > 1).any()
    assert wanted["related"].notna().any()


@pytest.mark.parametrize("block", [1, 7, VOCAB])
def test_ranks_do_not_depend_on_the_block_and_repeated_tokens_count_once(block: int) -> None:
    model, tokens = tiny("llama"), torch.tensor([3, 41, 3, 20, 8, 49, 20])
    written = torch.randn(len(tokens), 32, generator=torch.Generator().manual_seed(0))

    ranks, ties, lowest = source_ranks(model, written, tokens, block)

    effects = written.double() @ model.unembedding(torch.arange(VOCAB)).double().T
    assert ranks.tolist() == [slow_rank(row, int(t))[0] for row, t in zip(effects, tokens, strict=True)]
    assert ties.tolist() == [0] * len(tokens)
    assert torch.equal(lowest, effects.argmin(1))


def test_a_positive_factor_changes_no_rank_and_a_negative_one_turns_it_round() -> None:
    model, tokens = tiny("gemma2"), torch.arange(VOCAB)
    written = torch.randn(VOCAB, 32, generator=torch.Generator().manual_seed(1))

    ranks, _, _ = source_ranks(model, written, tokens)

    factors = 4.0 ** torch.randint(-3, 4, (VOCAB, 1), generator=torch.Generator().manual_seed(2))
    assert torch.equal(source_ranks(model, factors * written, tokens)[0], ranks)
    assert torch.equal(source_ranks(model, -written, tokens)[0], VOCAB - 1 - ranks)


def test_a_source_that_writes_nothing_is_in_the_middle_and_not_first() -> None:
    ranks, ties, _ = source_ranks(tiny("llama"), torch.zeros(2, 32), torch.tensor([3, 9]))

    assert ranks.tolist() == [(VOCAB - 1) / 2] * 2
    assert ties.tolist() == [VOCAB - 1] * 2


def test_the_bar_for_an_edge_is_what_was_asked_for() -> None:
    model = tiny("llama")

    counts = [
        dynamic_rank_rows(model, DOCUMENTS, HEADS, even, EXCLUDED, least_attention=bar)["n_edges"].sum()
        for bar in (0.0, 0.1, 0.3, 1.0)
    ]

    # Every position but the first attends to itself and all earlier ones but the first.
    assert counts[0] == len(HEADS) * 3 * sum(range(1, DOCUMENTS.length))
    assert counts[0] > counts[1] > counts[2] > counts[3] == 0


def made_up() -> pd.DataFrame:
    rows = pd.DataFrame({"id": list("aabbcc"), "n_edges": [1, 3, 2, 2, 1, 1], "rank": [0, 4, 0, 25, 9.5, 0.5]})
    rows = rows.assign(layer=1, head=2, label="L1H2", cosine=[1, 0.5, 1, 0.2, 0.9, 0.3])
    return rows.assign(related=[np.nan, 1, np.nan, np.nan, 0, np.nan], function_word=[False] * 5 + [True])


def test_every_edge_counts_once_in_the_table() -> None:
    table = dynamic_rank_table(made_up(), {name: name for name in "abc"}).set_index("words")

    everything, content = table.loc["all"], table.loc["content words"]
    assert (everything["n_edges"], everything["n_sources"]) == (10, 6)
    assert everything["rank_mean"] == pytest.approx((4 * 3 + 25 * 2 + 9.5 + 0.5) / 10)
    assert everything["rank_median"] == np.median([0, 4, 4, 4, 0, 0, 25, 25, 9.5, 0.5])
    assert everything["share_rank_0"] == pytest.approx(0.3)
    assert everything["share_rank_below_10"] == pytest.approx(0.8)
    assert everything["share_rank_1_to_9"] == pytest.approx(0.4)
    assert everything["related_share"] == pytest.approx(3 / 4)
    assert everything["cosine_mean"] == pytest.approx((3 * 0.5 + 0.9) / 4)
    assert (content["n_edges"], content["n_sources"]) == (9, 5)
    assert content["rank_mean"] == pytest.approx((4 * 3 + 25 * 2 + 9.5) / 9)
    assert everything["share_rank_0_low"] < 0.3 < everything["share_rank_0_high"]


def test_a_head_that_attends_to_function_words_alone_has_no_numbers_without_them() -> None:
    table = dynamic_rank_table(made_up().assign(function_word=True), {name: name for name in "abc"}).set_index("words")

    assert table.loc["content words", "n_edges"] == 0
    assert pd.isna(table.loc["content words", "rank_mean"])


def organism_table(name: str) -> pd.DataFrame:
    model: Model = mi.load(name)
    documents = Documents.cut(organism.prompts(12), model, 10)
    forms = WordForms.of_tokenizer(model.tokenizer, model.facts.d_vocab)
    excluded = function_tokens(model.tokenizer, model.facts.d_vocab)
    rows = dynamic_rank_rows(model, documents, [(0, 1), (1, 0), (1, 2)], forms.related, excluded)
    clusters = dict(zip(documents.ids, documents.clusters, strict=True))
    return dynamic_rank_table(rows, clusters).set_index(["label", "words"])


def test_the_planted_suppressor_lowers_what_it_attends_to_most_of_all() -> None:
    table = organism_table("organism:copy-suppression")

    assert table.loc[("L1H2", "all"), "share_rank_0"] == 1.0
    assert table.loc[("L0H1", "all"), "share_rank_0"] == 0.0  # the mover raises it
    assert table.loc[("L1H0", "all"), "share_rank_0"] < 0.1


def test_its_unplanted_twin_does_not() -> None:
    assert organism_table("organism:copy-suppression-unplanted").loc[("L1H2", "all"), "share_rank_0"] < 0.1
