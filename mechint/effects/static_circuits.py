"""Static circuits: what a head would do with a token, whatever the text.

What a head sees of a token is its effective embedding W_EE (`effects.effective_embedding`): what block 0 makes of it.

OV circuit of head (L, h): M = (N_L(W_EE) W_V W_O · g_post) (g_final · W_U), a row for each attended token, a column for
each output token. The *own-token rank* of token i counts the tokens j that the head lowers more than i itself,

    rank_i = #{j != i : M_ij < M_ii} + #{j != i : M_ij = M_ii} / 2                      (mid-rank)

0 if the attended token is the most suppressed of the vocabulary. Scales of norms are positive numbers a row and change
no rank; value biases are the same for every token and left out. Half of the ties count: a dead head, whose row is zero
throughout, has rank (d_vocab - 1) / 2, not 0. M is not held: its columns are streamed in blocks, and a token's own
value comes from the product of its block, since products of different shapes differ in their last bits (so between
tokens of different blocks a tie, as of two equal rows of W_U, can be missed by a rounding).
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mechint.effects.attribution import final_norm
from mechint.effects.effective_embedding import effective_embedding as effective_embedding
from mechint.effects.ranks import OwnRanks
from mechint.model.base import Model, Restart
from mechint.positions import TokenBatch
from mechint.sites import Site


def ov_outputs(
    model: Model, layer: int, tokens: Sequence[int], embedding: Float[Tensor, "row d_model"]
) -> Float[Tensor, "row head d_model"]:
    """Return what every head of a block writes when it attends to a token, up to a positive factor a row.

    The final norm's centring and gain are applied, so that the product with W_U gives M.
    """
    # On a text of one token every head attends to it alone, so its z is that token's value. A stream of zeros gives
    # what no token has to do with, the value bias and what the norm's bias becomes, which M leaves out.
    batch = TokenBatch.from_rows([*([token] for token in tokens), [tokens[0]]])
    stream = torch.cat([embedding, torch.zeros(1, model.facts.d_model)])[:, None]
    z = Site("z", layer)
    found = model.run(batch, read=[z], stop_after=z, from_=Restart(layer, stream))[z][:, 0]
    values = found[:-1] - found[-1:]
    weights, _ = model.output_weights(layer)
    written = torch.einsum("rhe,hed->rhd", values, weights)
    post = model.norm("attn_post", layer)
    if post is not None:
        written = post.centre(written) * post.gain
    final = final_norm(model)
    return final.centre(written) * final.gain


def own_token_ranks(
    outputs: Float[Tensor, "row head d_model"],
    tokens: Int[Tensor, " row"],
    model: Model,
    block: int = 4096,
) -> tuple[Float[Tensor, "head row"], Int[Tensor, "head row"]]:
    """Return each token's own mid-rank (0: most suppressed) and how many other tokens tie with it.

    Args:
        outputs: what the heads write, a row for each sampled token.
        tokens: the sampled tokens, each once.
        model: the model whose unembedding is meant.
        block: columns of one matrix product; memory is rows x heads x block. With 8192 or more, 512 rows take 1.7
            times as long (`python -m benchmarks static-ranks`).
    """
    n_rows, n_heads, _ = outputs.shape
    flat = outputs.transpose(0, 1).reshape(n_heads * n_rows, -1)
    sampled = torch.zeros(model.facts.d_vocab, dtype=torch.bool)
    sampled[tokens] = True
    order = torch.cat([tokens, (~sampled).nonzero()[:, 0]])  # the sampled tokens first: their own values come first
    counted = OwnRanks()
    for start in range(0, len(order), max(block, n_rows)):
        columns = order[start : start + max(block, n_rows)]
        counted.add((flat @ model.unembedding(columns).T).view(n_heads, n_rows, -1))
    return counted.ranks, counted.ties
