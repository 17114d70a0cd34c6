r"""A mover, a suppressor and a backup, written down so that what repairs the mover's loss has a closed form.

A two-block GPT-2. The residual stream has a direction e_t for "this token is t" and a direction u_t for "t comes next",
for every token t; the unembedding reads the u_t. At the last position of a text of n different words, one of which is a
name t, followed by the word `to`:

    mover       L0H0    attends to the name, with weight 1, and writes +g u_t
    suppressor  L1H1    attends from u_t to e_t (score beta for each unit of u_t) and rests on BOS (score b_0);
                        writes -alpha u_t
    backup      L1H2    attends to names (score kappa, less gamma for each unit of any u) and rests on BOS (score b_1);
                        writes +eta u_t

so that, with x the amount of u_t that the mover has written (g, or 0 once it is ablated), the direct effects are

    DE_suppressor(x) = -alpha e^(beta x) / (e^(beta x) + n + e^(b_0))
    DE_backup(x)     =  eta e^(kappa - gamma x) / (e^(kappa - gamma x) + n + e^(b_1))

(the other n - 1 words and `to` have score 0). Zero-ablating the mover takes g from the logit of t directly; the
suppressor repairs DE_suppressor(0) - DE_suppressor(g), because there is nothing left to suppress, and the backup
DE_backup(0) - DE_backup(g), because nothing holds it back any more. McDougall et al. 2023, "Copy Suppression", section
4, describe the first, Wang et al. 2022, "Interpretability in the Wild", the second.

What makes this exact: every direction is a pair of coordinates with opposite signs, so that the mean over the stream is
0; one more pair holds +C and -C everywhere, so that the scale of a LayerNorm is constant to within |r|^2 / 4 C^2, under
1e-6 (r is the rest of the stream); and the gain of every LayerNorm is that scale, so that each is the identity. Neither
the norms nor the MLPs, which are zero, repair anything.

In the twin the suppressor and the backup are there and write the same, but their queries read nothing of the mover:
their attention is what it is in the organism once the mover is ablated (x = 0), so they repair nothing.
"""

from dataclasses import dataclass
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
from mechint.prompts.prompt import check_number
from mechint.statistics import generator

MOVER, SUPPRESSOR, BACKUP = (0, 0), (1, 1), (1, 2)
LAST = "to"
"""The word that ends every prompt."""
_N_HEADS, _LAYERS, _CONSTANT, _CERTAIN = 4, 2, 4096.0, 40.0


@dataclass(frozen=True)
class Circuit:
    """The numbers in the closed form."""

    g: float = 3.0
    """What the mover writes, in logits."""
    alpha: float = 4.0
    """What the suppressor writes at full attention, in logits."""
    beta: float = 1.5
    """Score of the suppressor for each unit of u_t."""
    b_0: float = 4.0
    """Score of the suppressor at BOS."""
    eta: float = 0.5
    """What the backup writes at full attention, in logits."""
    kappa: float = 4.0
    """Score of the backup at a name when nothing is predicted."""
    gamma: float = 2.0
    """What each unit of u takes off that score."""
    b_1: float = 2.0
    """Score of the backup at BOS."""


def build(
    planted: bool = True,
    circuit: Circuit | None = None,
    backend: str = "transformer_lens",
    remote: bool | str = False,
) -> Model:
    """Return the organism, or its unplanted twin.

    Args:
        planted: whether suppressor and backup read what the mover writes.
        circuit: other numbers than the default.
        backend: what runs it (see `backends.behind`).
        remote: where it runs, with nnsight.
    """
    from transformers import GPT2Config, GPT2LMHeadModel

    circuit, words = circuit or Circuit(), vocabulary()
    size = len(words)
    # Two pairs of coordinates a token, and one large constant pair; each head has room for a dimension a token.
    width = _N_HEADS * (size + 1)
    config = GPT2Config(
        vocab_size=size,
        n_positions=64,
        n_embd=width,
        n_layer=_LAYERS,
        n_head=_N_HEADS,
        n_inner=32,
        tie_word_embeddings=False,
        bos_token_id=0,
        eos_token_id=0,
    )
    config._attn_implementation = "eager"  # pyright: ignore[reportPrivateUsage]
    with torch.random.fork_rng():  # building a model draws numbers, none of which are kept
        model: Any = GPT2LMHeadModel(config).eval()
    for parameter in model.parameters():
        parameter.requires_grad_(False).zero_()
    body = model.transformer
    scale = _CONSTANT * (2 / width) ** 0.5
    for norm in (body.ln_f, *(norm for block in body.h for norm in (block.ln_1, block.ln_2))):
        norm.weight.fill_(scale)
    e, u = _directions(size)
    body.wte.weight[:] = _pair(e)
    body.wte.weight[:, -2], body.wte.weight[:, -1] = _CONSTANT, -_CONSTANT
    # A direction has length 2^(1/2), so reading it takes half of it.
    model.lm_head.weight[:] = _pair(u) / 2
    _plant_mover(body.h[MOVER[0]].attn, words, circuit)
    _plant_suppressor(body.h[SUPPRESSOR[0]].attn, words, circuit, planted)
    _plant_backup(body.h[BACKUP[0]].attn, words, circuit, planted)
    name = "self-repair" if planted else "self-repair-unplanted"
    source = {"kind": "organism", "description": ORGANISMS[name][-1]}
    return behind(backend, model, word_tokenizer(), name=f"{PREFIX}{name}", source=source, remote=remote)


def _directions(size: int) -> tuple[Tensor, Tensor]:
    """The first halves of e_t and u_t, a row for each token."""
    both = torch.eye(2 * size)
    return both[:size], both[size:]


def _pair(halves: Tensor) -> Tensor:
    """Return directions of the stream, of mean 0: each half, its negative, nothing in the last four coordinates."""
    return torch.cat([halves, -halves, halves.new_zeros(len(halves), 4)], -1)


@dataclass(frozen=True)
class _Slots:
    """One head's weights and query bias, as views to write to."""

    q: Tensor
    k: Tensor
    v: Tensor
    q_bias: Tensor
    o: Tensor

    def attend(self, slot: int, query: Tensor | float, key: Tensor) -> None:
        """Add a score: the query (a direction times its strength, or a constant) times what the key reads."""
        size = self.q.shape[1]
        if isinstance(query, Tensor):
            self.q[:, slot] += query * size**0.5
        else:
            self.q_bias[slot] += query * size**0.5
        self.k[:, slot] = key

    def write(self, read: Tensor, written: Tensor) -> None:
        """For each token, write a direction in proportion to what is read of another."""
        token = torch.arange(len(read))
        self.v[:, token] = read.T
        self.o[token] = written


def _slots(attention: Any, head: int) -> _Slots:
    width = len(attention.c_attn.weight)
    size = width // _N_HEADS
    own = slice(head * size, (head + 1) * size)
    q, k, v = (attention.c_attn.weight[:, i * width : (i + 1) * width][:, own] for i in range(3))
    return _Slots(q, k, v, attention.c_attn.bias[:width][own], attention.c_proj.weight[own])


def _plant_mover(attention: Any, words: list[str], circuit: Circuit) -> None:
    head = _slots(attention, MOVER[1])
    e, u = (_pair(halves) for halves in _directions(len(words)))
    head.attend(0, _CERTAIN, _names(words) @ e / 2)
    head.write(e / 2, circuit.g * u)


def _plant_suppressor(attention: Any, words: list[str], circuit: Circuit, planted: bool) -> None:
    head = _slots(attention, SUPPRESSOR[1])
    e, u = (_pair(halves) for halves in _directions(len(words)))
    head.attend(0, circuit.b_0, e[0] / 2)
    if planted:
        for t in range(1, len(words)):
            head.attend(t, circuit.beta * u[t] / 2, e[t] / 2)
    head.write(e / 2, -circuit.alpha * u)


def _plant_backup(attention: Any, words: list[str], circuit: Circuit, planted: bool) -> None:
    head = _slots(attention, BACKUP[1])
    e, u = (_pair(halves) for halves in _directions(len(words)))
    names = _names(words) @ e / 2
    head.attend(0, circuit.b_1, e[0] / 2)
    head.attend(1, circuit.kappa, names)
    if planted:
        head.attend(1, -circuit.gamma * u.sum(0) / 2, names)
    head.write(e / 2, circuit.eta * u)


def _names(words: list[str]) -> Tensor:
    return torch.tensor([float(word in NAMES) for word in words])


def prompts(n: int = 32, seed: int = 0, *, length: int = 10) -> PromptSet:
    """Return texts of `length` different words, one of them a name, and then `to`. The target is the name.

    Args:
        n: number of prompts.
        seed: of every choice.
        length: n of the closed form, at most 60.

    Raises:
        PromptError: n or length is not positive.
    """
    check_number(n)
    check_number(length)
    fillers = [word for word in vocabulary()[2:] if word not in NAMES and word != LAST]
    made: list[Prompt] = []
    for index in range(n):
        rng = generator(seed, "self-repair", index)
        chosen = [str(word) for word in rng.choice(np.array(fillers), size=length - 1, replace=False)]
        target, other = (str(name) for name in rng.choice(np.array(NAMES), size=2, replace=False))
        chosen.insert(int(rng.integers(length)), target)
        made.append(Prompt(f"self-repair-{seed}-{index:04d}", " ".join([*chosen, LAST]), f" {target}", f" {other}"))
    return PromptSet(f"one name among {length} different words", tuple(made))
