r"""One head on documents, taken apart so that its output can be rewritten along the direct path.

With A the attention weights, o_s = v_s W_O^h what the head writes for source s, and a post-norm frozen at this run's
scale s_post,d (none: factor 1, gain 1):

    c_ds = A_ds f_d o'_s        o'_s = C_post(o_s) * g_post,   f_d = 1 / s_post,d
    h_d  = sum_s c_ds           what the head adds to the residual stream at d

A *direct-path* ablation puts h'_d for h_d and changes nothing else, the final norm's scale s_d of the clean run
included:  logits' = logits + C_final(h'_d - h_d) * g_final / s_d · W_U. McDougall et al. 2023, "Copy Suppression",
section 3 and appendix; with frozen scales the effects of several heads add up.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mechint.effects.attribution import final_norm, head_outputs
from mechint.effects.documents import Documents
from mechint.model.base import Model, Run
from mechint.positions import TokenBatch
from mechint.sites import Site


@dataclass(frozen=True)
class HeadRun:
    """One head on a batch of documents."""

    layer: int
    head: int
    tokens: Int[Tensor, "batch pos"]
    resid_pre: Float[Tensor, "batch pos d_model"]
    """The stream before the head's block."""
    resid_final: Float[Tensor, "batch pos d_model"]
    """The stream before the final norm."""
    attention: Float[Tensor, "batch query key"]
    sources: Float[Tensor, "batch key d_model"]
    """o'_s: what one unit of attention to a source writes, up to `post_factor` of the destination."""
    post_factor: Float[Tensor, "batch query"]
    """f_d: one over the post-norm's scale at the destination; ones where there is no post-norm."""

    @property
    def output(self) -> Float[Tensor, "batch pos d_model"]:
        """h_d, what the head adds to the residual stream."""
        return self.post_factor[..., None] * (self.attention @ self.sources)


def read_heads(model: Model, documents: Documents, heads: Sequence[tuple[int, int]]) -> Iterator[HeadRun]:
    """Run a batch of documents once, and yield each head on it, in the order given.

    Args:
        model: the model.
        documents: few enough for one pass (see `Documents.batches`).
        heads: pairs of layer and query head.
    """
    layers = sorted({layer for layer, _ in heads})
    final = Site("resid_post", model.facts.n_layers - 1)
    parts = ("resid_pre", "v", "pattern", "z")
    run = model.run(rows_of(documents), read=[*(Site(part, layer) for layer in layers for part in parts), final])
    for layer, head in heads:
        weights, bias = model.output_weights(layer)
        v = run[Site("v", layer)][:, :, head // (model.facts.n_heads // model.facts.n_kv_heads)]
        sources, factor = v @ weights[head], torch.ones(v.shape[:2])
        post = model.norm("attn_post", layer)
        if post is not None:
            whole = torch.einsum("bphe,hed->bpd", run[Site("z", layer)], weights) + bias
            sources, factor = post.centre(sources) * post.gain, 1 / post.scale(whole)[..., 0]
        yield HeadRun(
            layer=layer,
            head=head,
            tokens=documents.tokens,
            resid_pre=run[Site("resid_pre", layer)],
            resid_final=run[final],
            attention=run[Site("pattern", layer)][:, head],
            sources=sources,
            post_factor=factor,
        )


def mean_outputs(model: Model, documents: Documents) -> Float[Tensor, "layer head pos d_model"]:
    """Return the mean output h_d of every head at every position over documents, post-norms applied.

    Streamed: sums in float64, memory does not grow with the number of documents.
    """
    facts = model.facts
    total = torch.zeros(facts.n_layers, facts.n_heads, documents.length, facts.d_model, dtype=torch.float64)
    sites = [Site("z", layer) for layer in range(facts.n_layers)]
    for batch in documents.batches():
        run: Run = model.run(rows_of(batch), read=sites)
        for layer, site in enumerate(sites):
            written, _ = head_outputs(model, layer, run[site])
            total[layer] += written.sum(0, dtype=torch.float64).transpose(0, 1)
    return (total / len(documents)).float()


def rows_of(documents: Documents) -> TokenBatch:
    """Return documents as rows for a run."""
    return TokenBatch.from_rows(documents.tokens.tolist())


def to_logits(
    model: Model, change: Float[Tensor, "*batch d_model"], resid_final: Float[Tensor, "*batch d_model"]
) -> Float[Tensor, "*batch d_model"]:
    """Return x with x · W_U = change of the logits when `change` is added to the stream, the final scale frozen.

    Args:
        model: the model.
        change: what is added to the final residual stream, such as h' - h.
        resid_final: the clean stream, whose scale is kept.
    """
    final = final_norm(model)
    return final.centre(change) * final.gain / final.scale(resid_final)
