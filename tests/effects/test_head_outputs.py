"""A head's output on documents is the sum of its sources, and rewriting it changes the logits as it should."""

import pytest
import torch

from mechint.effects import attribution
from mechint.effects.documents import Documents
from mechint.effects.head_outputs import mean_outputs, read_heads, rows_of, to_logits
from mechint.errors import ConfigError, PromptError
from mechint.interventions import replace
from mechint.model.base import Logits
from mechint.positions import everywhere
from mechint.prompts import Prompt, PromptSet
from mechint.sites import Site
from tests.families import FAMILIES, random_rows, tiny

LENGTH = 10


def documents(n: int, seed: int = 0) -> Documents:
    names = tuple(f"d{i}" for i in range(n))
    return Documents(names, names, torch.tensor(random_rows(n, LENGTH, seed)))


@pytest.mark.parametrize("family", FAMILIES)
def test_every_head_is_the_sum_of_its_sources_through_the_post_norm(family: str) -> None:
    model, texts = tiny(family), documents(3)
    heads = [(layer, h) for layer in range(model.facts.n_layers) for h in range(model.facts.n_heads)]
    terms = attribution.contributions(model, rows_of(texts), everywhere)

    for run in read_heads(model, texts, heads):
        expected = terms.heads[run.layer, :, :, run.head]
        torch.testing.assert_close(run.output, expected, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(run.attention.sum(-1), torch.ones(3, LENGTH))
        torch.testing.assert_close(run.resid_final, terms.resid_final)


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_added_to_the_stream_moves_the_logits_as_with_a_frozen_norm(family: str) -> None:
    model, texts = tiny(family), documents(2)
    run = next(read_heads(model, texts, [(1, 2)]))
    change = -run.output

    final = attribution.final_norm(model)
    scale = final.scale(run.resid_final)
    frozen = final.centre(run.resid_final + change) / scale * final.gain
    before = final.centre(run.resid_final) / scale * final.gain
    expected = model.unembed(frozen) - model.unembed(before)
    moved = model.unembed(to_logits(model, change, run.resid_final)) - model.unembed(torch.zeros_like(change))
    torch.testing.assert_close(moved, expected, rtol=1e-4, atol=1e-4)


def test_taking_out_the_last_blocks_head_directly_is_taking_it_out_but_for_the_norm() -> None:
    model, texts = tiny("neox"), documents(2)  # a parallel block: nothing after the last attention reads it
    layer = model.facts.n_layers - 1
    run = next(read_heads(model, texts, [(layer, 1)]))
    site = Site("attn_out", layer)
    clean = model.run(rows_of(texts), read=[site])[site]

    rerun = model.run(
        rows_of(texts), write={site: replace(clean - run.output)}, logits=Logits(at=everywhere), read=["final_norm"]
    )
    final = attribution.final_norm(model)
    torch.testing.assert_close(rerun["final_norm"], final(run.resid_final - run.output), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("family", ["gpt2", "gemma3"])
def test_means_are_streamed_over_documents(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, texts = tiny(family), documents(7)
    expected = torch.stack([run.output.mean(0) for run in read_heads(model, texts, [(1, 0), (2, 3)])])

    monkeypatch.setattr("mechint.effects.documents.TOKENS_A_PASS", 2 * LENGTH)
    means = mean_outputs(model, texts)

    torch.testing.assert_close(torch.stack([means[1, 0], means[2, 3]]), expected, rtol=1e-4, atol=1e-5)


def test_texts_are_cut_to_one_length_and_short_ones_are_counted() -> None:
    model = tiny("llama")
    texts = PromptSet("t", tuple(Prompt(f"p{n}", " ".join(f"w{i}" for i in range(2, 2 + n))) for n in (3, 8, 9)))

    cut = Documents.cut(texts, model, 6)

    assert cut.ids == ("p8", "p9")
    assert cut.n_too_short == 1
    assert cut.tokens.tolist() == [[0, 2, 3, 4, 5, 6]] * 2
    with pytest.raises(PromptError, match="1 of 3 texts"):
        Documents.cut(texts, model, 10)
    with pytest.raises(ConfigError, match="reads 4 to 64"):
        Documents.cut(texts, model, 65)


def test_batches_hold_every_document_once() -> None:
    texts = documents(5)
    assert [i for group in texts.groups(2 * LENGTH) for i in group] == list(range(5))
    assert max(len(batch) for batch in texts.batches(2 * LENGTH)) == 2
