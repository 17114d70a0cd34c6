"""The same numbers on the real model: a vocabulary of 262,144, post-norms, shared keys and values."""

import pytest
import torch

from mechint import prompts
from mechint.effects import attribution
from mechint.effects.documents import Documents
from mechint.effects.head_outputs import mean_outputs, read_heads, to_logits
from mechint.effects.loss_effects import BOTH, DIRECT, INDIRECT, changed_streams, loss_effect_sums
from mechint.effects.predictions import extreme_tokens, predictions
from mechint.effects.sampling import destinations
from mechint.model.base import Model
from mechint.model.loading import load
from mechint.probes.copy_suppression.context_tokens import function_tokens
from mechint.probes.copy_suppression.dynamic_ranks import dynamic_rank_rows
from mechint.probes.copy_suppression.three_steps import CONDITIONS, three_step_rows
from mechint.sites import Site

pytestmark = pytest.mark.real
HEAD = (11, 3)


@pytest.fixture(scope="module")
def gemma() -> Model:
    return load("gemma3-270m")


@pytest.fixture(scope="module")
def documents(gemma: Model) -> Documents:
    return Documents.cut(prompts.natural(2), gemma, 12)


def test_streamed_predictions_equal_dense_ones_in_float64(gemma: Model, documents: Documents) -> None:
    run = next(read_heads(gemma, documents.pick([0]), [HEAD]))
    x = attribution.final_norm(gemma)(run.resid_final[0, 3:6])
    change = to_logits(gemma, run.output[0, 3:6], run.resid_final[0, 3:6])[None]

    found = predictions(gemma, x, change)

    logits = gemma.unembed(torch.cat([x, x + change[0]])).double()
    log_p = logits.log_softmax(-1).view(2, 3, -1)
    torch.testing.assert_close(found.entropy, -(log_p.exp() * log_p).sum(-1), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.probabilities, log_p.exp().topk(3).values, rtol=1e-4, atol=1e-6)
    assert torch.equal(extreme_tokens(gemma, x, 5), logits[:3].topk(5).indices)


def test_direct_and_indirect_add_up_to_both(gemma: Model, documents: Documents) -> None:
    means, last = mean_outputs(gemma, documents), Site("resid_post", gemma.facts.n_layers - 1)
    sites = [Site(part, HEAD[0]) for part in ("resid_pre", "z", "attn_out")]
    clean = gemma.run(documents.tokens.tolist(), read=[*sites, last])

    found = changed_streams(gemma, documents, HEAD, means[HEAD], clean)
    rows = loss_effect_sums(gemma, documents, [HEAD], means, destinations(documents, 3))

    total = found[DIRECT] + found[INDIRECT] - clean[last]
    error = (total - found[BOTH]).norm(dim=-1) / (found[BOTH] - clean[last]).norm(dim=-1).clamp(min=1)
    assert error[:, 1:].max() < 1e-3
    assert (rows["kl"] > 0).all()


def test_the_largest_suppressor_puts_what_it_attends_to_near_the_bottom_of_the_vocabulary(
    gemma: Model, documents: Documents
) -> None:
    excluded = function_tokens(gemma.tokenizer, gemma.facts.d_vocab)

    rows = dynamic_rank_rows(gemma, documents, [HEAD], int.__eq__, excluded)
    steps = three_step_rows(gemma, documents, [HEAD], mean_outputs(gemma, documents), excluded)

    # Whichever document has such an edge first: texts are of the running Python's manual.
    first = rows.iloc[0]
    run = next(read_heads(gemma, documents.pick([documents.ids.index(first["id"])]), [HEAD]))
    effects = gemma.unembed(to_logits(gemma, run.sources, run.resid_final)[0, first["position"]])
    assert abs(float((effects < effects[first["token"]]).sum()) - first["rank"]) <= 2  # roundings of two products
    assert rows["rank"].median() < 0.001 * gemma.facts.d_vocab
    assert steps[list(CONDITIONS)].dtypes.eq(bool).all()
