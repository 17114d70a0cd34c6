r"""What stands for a token by itself, whatever the text: rows with which circuits are computed.

    block0    W_EE: the stream after block 0 on a text of this one token; what later heads see of a token
    mlp0      what MLP 0 writes in that run (after its post-norm), the part of W_EE that is not embedding or attention
    embed     W_E: the embedding as it enters block 0 (Gemma scales it), without a position embedding
    unembed   C(g_final * W_U[:, t]): the direction whose product with the stream is the token's logit, up to the final
              norm's scale; what a prediction of the token looks like in the stream

McDougall et al. 2023, "Copy Suppression", section 3.1 and appendix on the effective embedding: the own-token structure
of a copy-suppression head shows between W_U and W_EE, and not between W_E and W_E.
"""

from collections.abc import Iterator, Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from mechint.effects.attribution import final_norm
from mechint.errors import ConfigError
from mechint.model.base import Model, Restart
from mechint.positions import TokenBatch
from mechint.sites import Site

KINDS = ("block0", "mlp0", "embed", "unembed")
BLOCK = 4096
"""Texts of one token that go through block 0 at a time."""


def effective_embedding(
    model: Model, tokens: Sequence[int], kind: str = "block0", block: int = BLOCK
) -> Float[Tensor, "row d_model"]:
    """Return what stands for each token, by default the residual stream after block 0 on texts of one token each.

    Args:
        model: the model.
        tokens: ids; `range(model.facts.d_vocab)` for the whole vocabulary.
        kind: one of `KINDS`.
        block: tokens at a time.

    Raises:
        ConfigError: no such kind, no tokens, or one that is not in the vocabulary.
    """
    return torch.cat([found[kind] for found in embedding_blocks(model, tokens, [kind], block)])


def embedding_blocks(
    model: Model, tokens: Sequence[int], kinds: Sequence[str], block: int = BLOCK
) -> Iterator[Mapping[str, Float[Tensor, "row d_model"]]]:
    """Yield rows of several kinds for some tokens after others, so that no whole vocabulary need be held.

    Args:
        model: the model.
        tokens: ids, in the order in which they are wanted.
        kinds: some of `KINDS`; those that need block 0 share one run.
        block: tokens at a time.

    Raises:
        ConfigError: no such kind, no tokens, or one that is not in the vocabulary.
    """
    unknown = [kind for kind in kinds if kind not in KINDS]
    if unknown or not kinds:
        raise ConfigError(f"Kind of embedding: {unknown or 'none given'}. Expected some of {', '.join(KINDS)}.")
    if len(tokens) == 0 or block < 1:
        raise ConfigError(f"Embeddings of {len(tokens)} tokens in blocks of {block}: expected at least one of each.")
    if min(tokens) < 0 or max(tokens) >= model.facts.d_vocab:
        raise ConfigError(
            f"Token ids run from {min(tokens)} to {max(tokens)}. Expected 0 to {model.facts.d_vocab - 1}."
        )
    for start in range(0, len(tokens), block):
        yield _rows(model, list(tokens[start : start + block]), kinds)


def embedding_cosine(model: Model, tokens: Sequence[int]) -> Float[Tensor, " row"]:
    """Return the cosine of each token's embedding W_E with its effective embedding W_EE.

    Where embedding and unembedding are one matrix, a circuit from W_U to W_E compares a token with itself; this says
    how far W_EE, with which one from W_U to W_EE is computed, has left it behind.
    """
    cosines = [
        torch.nn.functional.cosine_similarity(found["embed"], found["block0"], dim=-1)
        for found in embedding_blocks(model, tokens, ["embed", "block0"])
    ]
    return torch.cat(cosines)


def _rows(model: Model, tokens: list[int], kinds: Sequence[str]) -> dict[str, Float[Tensor, "row d_model"]]:
    found: dict[str, Tensor] = {}
    if "unembed" in kinds:
        final = final_norm(model)
        found["unembed"] = final.centre(final.gain * model.unembedding(torch.tensor(tokens)))
    if not set(kinds) - {"unembed"}:
        return found
    batch = TokenBatch.from_rows([[token] for token in tokens])
    first, written, after = Site("resid_pre", 0), Site("mlp_out", 0), Site("resid_post", 0)
    # Positions that are added to the embedding are no part of a token: the run goes on from the embedding alone.
    entering = Site("embed") if model.facts.learned_positions else first
    embed = model.run(batch, read=[entering], stop_after=first)[entering]
    found["embed"] = embed[:, 0]
    if {"block0", "mlp0"} & set(kinds):
        run = model.run(batch, read=[written, after], stop_after=after, from_=Restart(0, embed))
        found |= {"mlp0": run[written][:, 0], "block0": run[after][:, 0]}
    return {kind: found[kind] for kind in kinds}
