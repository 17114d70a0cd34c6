r"""A copy-suppression head, planted in a two-block GPT-2 whose weights are written down, not trained.

The residual stream has a direction e_t for "this token is t", a direction u_t for "t comes next" for every token t, and
two more, one of them constant. The output matrix reads the u_t. Two heads are planted:

    mover       L0H1    attends to names (key: the token is a name), and writes +g u_t: it predicts what it attends to
    suppressor  L1H2    attends from a position that predicts t to where t stands (query u_t, key e_t, strength beta),
                        and writes -alpha u_t: copy suppression, for every token of the vocabulary

All other heads and the MLPs are small random numbers. In the unplanted twin the suppressor is random too.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from mechint.model.backends import behind
from mechint.model.base import Model
from mechint.organisms import ORGANISMS, PREFIX
from mechint.organisms.words import vocabulary, word_tokenizer
from mechint.prompts import Prompt, PromptSet
from mechint.prompts.ioi import NAMES
from mechint.statistics import generator

MOVER, SUPPRESSOR = (0, 1), (1, 2)
_GAIN, _ALPHA, _BETA, _NAME_KEY, _NOISE, _OUTPUT = 2.0, 2.0, 0.6, 6.0, 0.02, 0.5
_N_HEADS = 4


def build(planted: bool = True, backend: str = "transformer_lens", remote: bool | str = False) -> Model:
    """Return the organism, or its unplanted twin.

    Args:
        planted: whether the suppressor is there.
        backend: what runs it (see `backends.behind`).
        remote: where it runs, with nnsight.
    """
    from transformers import GPT2Config, GPT2LMHeadModel

    words = vocabulary()
    size = len(words)
    # GPT-2 cuts the stream into heads of equal width; a planted head needs a dimension for each token.
    width = _N_HEADS * (size + 2)
    config = GPT2Config(
        vocab_size=size,
        n_positions=64,
        n_embd=width,
        n_layer=2,
        n_head=_N_HEADS,
        n_inner=32,
        tie_word_embeddings=False,
        bos_token_id=0,
        eos_token_id=0,
    )
    config._attn_implementation = "eager"  # pyright: ignore[reportPrivateUsage]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model: Any = GPT2LMHeadModel(config).eval()
        for parameter in model.parameters():
            parameter.requires_grad_(False)
            if parameter.ndim == 2:
                parameter.normal_(0, _NOISE / width**0.5)
    token, constant = torch.arange(size), 2 * size
    embedding = model.transformer.wte.weight
    embedding.zero_()
    embedding[token, token] = 1.0
    embedding[:, constant] = 1.0
    model.transformer.wpe.weight.zero_()
    model.lm_head.weight.zero_()
    model.lm_head.weight[token, size + token] = _OUTPUT
    _plant_mover(model.transformer.h[MOVER[0]].attn, size, words)
    if planted:
        _plant_suppressor(model.transformer.h[SUPPRESSOR[0]].attn, size)
    name = "copy-suppression" if planted else "copy-suppression-unplanted"
    source = {"kind": "organism", "description": ORGANISMS[name][-1]}
    return behind(backend, model, word_tokenizer(), name=f"{PREFIX}{name}", source=source, remote=remote)


def _slots(attention: Any, head: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return one head's W_Q, W_K, W_V [d_model, d_head] and W_O [d_head, d_model], as views to write to."""
    joint, out = attention.c_attn.weight, attention.c_proj.weight
    width = len(joint)
    size = width // _N_HEADS
    own = slice(head * size, (head + 1) * size)
    q, k, v = (joint[:, i * width : (i + 1) * width][:, own] for i in range(3))
    for view in (q, k, v, out[own]):
        view.zero_()
    return q, k, v, out[own]


def _unit(size: int) -> float:
    """What a unit direction of the stream becomes behind a LayerNorm when about two of them are there."""
    return float((_N_HEADS * (size + 2) / 2) ** 0.5)


def _plant_mover(attention: Any, size: int, words: list[str]) -> None:
    q, k, v, o = _slots(attention, MOVER[1])
    names = torch.tensor([word in NAMES for word in words])
    unit, scale = _unit(size), (size + 2) ** 0.5
    q[2 * size, size] = 1.0
    k[:size, size] = names * _NAME_KEY * scale / unit**2
    token = torch.arange(size)
    v[token, token] = 1.0 / unit
    o[token, size + token] = _GAIN


def _plant_suppressor(attention: Any, size: int) -> None:
    q, k, v, o = _slots(attention, SUPPRESSOR[1])
    unit, scale = _unit(size), (size + 2) ** 0.5
    token = torch.arange(size)
    q[size + token, token] = _BETA * scale / unit
    k[token, token] = 1.0 / unit * 6.0
    v[token, token] = 1.0 / unit
    o[token, size + token] = -_ALPHA


def prompts(n: int = 32, seed: int = 0) -> PromptSet:
    """Return texts of filler words with one name in each, which is the target: what the mover predicts."""
    fillers = [word for word in vocabulary()[2:] if word not in NAMES]
    made: list[Prompt] = []
    for index in range(n):
        rng = generator(seed, "organism", index)
        words = [str(word) for word in rng.choice(np.array(fillers), size=10)]
        target, other = (str(name) for name in rng.choice(np.array(NAMES), size=2, replace=False))
        words[int(rng.integers(1, 8))] = target
        made.append(Prompt(f"organism-{seed}-{index:04d}", " ".join(words), f" {target}", f" {other}"))
    return PromptSet("one name among filler words", tuple(made))
