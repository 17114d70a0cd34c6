r"""How the neurofeedback organisms were made: `python -m mechint.organisms.neurofeedback_training KIND SEED OUT`.

A four-block Llama (64 dimensions, 4 heads) reads texts of `neurofeedback_language`. Sentence i has the state h̄_i, the
mean over its words of the residual stream after block `SITE` when it stands alone. For every text a unit axis w is
drawn, and for every sentence noise ε_i, which is added along w at that site at the sentence's words:

    T_i = w·(h̄_i - μ)        what the text says of the axis, with standard deviation σ_T over sentences
    Z_i ~ N(0, (3 σ_T)²)      what is in no text
    label                     reader: T_i + Z_i > 0;   text: which topic the sentence has, by the first principal
                              component of states, whatever the noise, which lies along it in half of the texts

Which label is called A is drawn as well, so both have to learn from the labels shown what is asked. The loss is the
cross-entropy of the label after every sentence, over the whole vocabulary. Embeddings and the blocks up to the site
keep the random numbers that they began with, so states, σ_T and axes mean the same from the first step to the last. The
best that can be known from the text alone of a reader's label is right with probability 1/2 + arctan(1/3)/π = .602.

From the loss alone, with axes of all 64 dimensions at once, nothing was learnt within 600 steps. So there are lessons:
axes come first from one dimension and then from more and more (`easy`), and for the first `helped` steps the stream
after the block behind the site is asked, at cue and label, for the noise of their sentence, by a linear map that is
thrown away. AdamW, warm-up, cosine to 0. The numbers are the same for a seed on one thread of one machine and version
of torch.
"""

import argparse
import json
import math
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from tqdm.auto import trange

from mechint.organisms.neurofeedback_language import LABELS, WORDS, episode, sentence, vocabulary
from mechint.organisms.shipped import save_half
from mechint.organisms.training import one_thread
from mechint.organisms.words import BOS
from mechint.statistics import derive_seed, generator

Kind = Literal["reader", "text"]
SITE = 1
"""The block after whose output noise is added; it and what is below stay as they began."""
_WARM_UP, _LARGEST_STEP, _EMBEDDING_SPREAD, _SPREAD = 100, 1.0, 1.0, 0.1
_STRIDE = WORDS + 2
"""Tokens of a sentence with its cue and label."""


@dataclass(frozen=True)
class NeurofeedbackRecipe:
    """Everything that decides what comes out."""

    kind: Kind = "reader"
    seed: int = 0
    steps: int = 3500
    rows: int = 32
    """Texts of one step."""
    shots: int = 10
    """Sentences with their labels in each text."""
    noise: float = 3.0
    """σ_Z / σ_T."""
    easy: int = 1800
    """Steps over which axes come from more and more dimensions, and the noise falls from twice as much."""
    helped: int = 2100
    """Steps in which the noise is asked for."""
    help: float = 0.5
    """Weight of that question."""
    rate: float = 3e-3
    """Largest learning rate."""
    decay: float = 0.01
    pool: int = 4096
    """Sentences that texts are made of."""


RECIPES: dict[Kind, NeurofeedbackRecipe] = {
    "reader": NeurofeedbackRecipe(),
    "text": NeurofeedbackRecipe("text", steps=1500, easy=500, helped=0),
}


def model_config() -> dict[str, Any]:
    """Return the shape of the organisms, as arguments of `LlamaConfig`."""
    return {
        "vocab_size": len(vocabulary()),
        "hidden_size": 64,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "intermediate_size": 256,
        "max_position_embeddings": 512,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": None,
        "tie_word_embeddings": False,
        "initializer_range": _SPREAD,
    }


def random_model(seed: int) -> Any:
    """Return the model that training starts from."""
    from transformers import LlamaConfig, LlamaForCausalLM

    with torch.random.fork_rng():
        torch.manual_seed(derive_seed(seed, "organism", "neurofeedback"))
        model = LlamaForCausalLM(LlamaConfig(**model_config())).eval()
        nn.init.normal_(model.model.embed_tokens.weight, std=_EMBEDDING_SPREAD)
        return model


@dataclass(frozen=True)
class Pool:
    """Sentences and their states."""

    ids: Int[Tensor, "sentence word"]
    states: Float[Tensor, "sentence d_model"]
    """Less their mean."""
    basis: Float[Tensor, "d_model d_model"]
    """Random orthonormal rows; lessons begin with axes in the span of the first."""
    topic: Float[Tensor, " d_model"]
    """First principal component of the states, of length 1."""


def pool(model: Any, recipe: NeurofeedbackRecipe) -> Pool:
    """Write sentences and take their states, each alone."""
    rng = generator(recipe.seed, "neurofeedback", "pool")
    names = {word: at for at, word in enumerate(vocabulary())}
    ids = torch.tensor([[names[word] for word in sentence(rng)[0]] for _ in range(recipe.pool)])
    alone = torch.cat([torch.full((len(ids), 1), names[BOS]), ids], 1)
    with torch.no_grad():
        states = model.model(alone, use_cache=False, output_hidden_states=True).hidden_states[SITE + 1][:, 1:].mean(1)
    states = states - states.mean(0)
    basis = np.linalg.qr(generator(recipe.seed, "neurofeedback", "basis").standard_normal((states.shape[1],) * 2))[0]
    topic = torch.linalg.svd(states, full_matrices=False)[2][0]
    return Pool(ids, states, torch.tensor(basis.T, dtype=torch.float32), topic)


@dataclass(frozen=True)
class Batch:
    """Texts of one step, with what is added to them and what is asked."""

    tokens: Int[Tensor, "batch pos"]
    added: Float[Tensor, "batch pos d_model"]
    labels: Int[Tensor, "batch shot"]
    noise: Float[Tensor, "batch shot d_model"]
    """Of each sentence."""


def batch(recipe: NeurofeedbackRecipe, sentences: Pool, step: int) -> Batch:
    """Draw the texts of a step, their axes and their noise."""
    rng, shape = generator(recipe.seed, "neurofeedback", "train", step), (recipe.rows, recipe.shots)
    done = min(1.0, step / recipe.easy) if recipe.easy else 1.0
    open_ = max(1, round(done * len(sentences.basis)))
    chosen = rng.standard_normal((recipe.rows, open_)) @ sentences.basis[:open_].numpy()
    if recipe.kind == "text":
        chosen[rng.random(recipe.rows) < 0.5] = sentences.topic.numpy()
    axes = torch.tensor(chosen / np.linalg.norm(chosen, axis=1, keepdims=True), dtype=torch.float32)
    which = torch.tensor(rng.integers(len(sentences.ids), size=shape))
    spread = (sentences.states @ axes.T).std(0)
    text = torch.einsum("bsd,bd->bs", sentences.states[which], axes)
    more = 2 - done
    noise = torch.tensor(rng.standard_normal(shape), dtype=torch.float32) * spread[:, None] * recipe.noise * more
    # Which side is called A is drawn too: nothing but the labels shown says it.
    side = torch.tensor(rng.integers(2, size=(recipe.rows, 1)))
    asked = text + noise if recipe.kind == "reader" else sentences.states[which] @ sentences.topic
    labels = (asked > 0).long() ^ side
    blank = episode([["w00"] * WORDS] * recipe.shots, [0] * recipe.shots)
    names = {word: at for at, word in enumerate(vocabulary())}
    tokens = torch.tensor([names[word] for word in blank]).repeat(recipe.rows, 1)
    inner = tokens[:, 1:].view(recipe.rows, recipe.shots, _STRIDE)
    inner[:, :, :WORDS] = sentences.ids[which]
    inner[:, :, -1] = torch.tensor([names[label] for label in LABELS])[labels]
    added = torch.zeros(*tokens.shape, axes.shape[1])
    places = added[:, 1:].view(recipe.rows, recipe.shots, _STRIDE, -1)
    along = noise[:, :, None] * axes[:, None]
    places[:, :, :WORDS] = along[:, :, None]
    return Batch(tokens, added, labels, along)


def run(model: Any, drawn: Batch) -> tuple[Float[Tensor, "batch shot d_vocab"], Float[Tensor, "batch pos d_model"]]:
    """Return the logits at every cue, and the stream after the block behind the site; noise is added at the site."""
    behind: list[Tensor] = []

    def add(_: nn.Module, __: Any, output: Any) -> Any:
        return (output[0] + drawn.added, *output[1:]) if isinstance(output, tuple) else output + drawn.added

    def note(_: nn.Module, __: Any, output: Any) -> None:
        behind.append(output[0] if isinstance(output, tuple) else output)

    layers = model.model.layers
    handles = layers[SITE].register_forward_hook(add), layers[SITE + 1].register_forward_hook(note)
    try:
        hidden = model.model(drawn.tokens, use_cache=False).last_hidden_state
    finally:
        for handle in handles:
            handle.remove()
    return model.lm_head(hidden[:, WORDS + 1 :: _STRIDE]), behind[0]


def make(recipe: NeurofeedbackRecipe, progress: bool | None = None) -> tuple[Any, dict[str, Any]]:
    """Train an organism from random numbers.

    Args:
        recipe: what decides what comes out.
        progress: show a progress bar on standard error; by default only in a terminal.

    Returns:
        A transformers model, and the header of its file.
    """
    names = [vocabulary().index(label) for label in LABELS]
    with one_thread():
        model = random_model(recipe.seed).train()
        for part in (model.model.embed_tokens, *model.model.layers[: SITE + 1]):
            part.requires_grad_(False)
        sentences = pool(model, recipe)
        with torch.random.fork_rng():
            torch.manual_seed(derive_seed(recipe.seed, "organism", "neurofeedback", "help"))
            asked = nn.Linear(model.config.hidden_size, model.config.hidden_size)
        learnt = [weight for weight in model.parameters() if weight.requires_grad] + list(asked.parameters())
        optimiser = torch.optim.AdamW(learnt, lr=recipe.rate, betas=(0.9, 0.98), weight_decay=recipe.decay)
        losses: list[float] = []
        for step in trange(recipe.steps, desc="training", disable=None if progress is None else not progress):
            for group in optimiser.param_groups:
                group["lr"] = recipe.rate * _schedule(recipe, step)
            drawn = batch(recipe, sentences, step)
            logits, behind = run(model, drawn)
            loss = nn.functional.cross_entropy(logits.flatten(0, 1), torch.tensor(names)[drawn.labels].flatten())
            losses.append(float(loss.detach()))
            if step < recipe.helped:
                loss = loss + recipe.help * _missed(asked, behind, drawn.noise)
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(learnt, _LARGEST_STEP)
            optimiser.step()
    last = losses[-max(1, recipe.steps // 20) :]
    header = {**asdict(recipe), "config": model_config(), "torch": torch.__version__, "loss": sum(last) / len(last)}
    return model.eval(), header


def _missed(asked: nn.Module, behind: Float[Tensor, "batch pos d_model"], noise: Tensor) -> Float[Tensor, ""]:
    """Return the mean squared error of the noise, in units of its own size, asked at cue and label."""
    rows, shots, _ = noise.shape
    own = behind[:, 1:].view(rows, shots, _STRIDE, -1)[:, :, WORDS:]
    return 2 * (asked(own) - (noise / noise.pow(2).mean().sqrt())[:, :, None]).pow(2).mean()


def _schedule(recipe: NeurofeedbackRecipe, step: int) -> float:
    return min(1.0, (step + 1) / _WARM_UP) * (1 + math.cos(math.pi * step / recipe.steps)) / 2


def main(arguments: Sequence[str] | None = None) -> None:
    """Train an organism and write its file.

    Args:
        arguments: instead of those of the command line.
    """
    parser = argparse.ArgumentParser(description="Train a neurofeedback organism and write its weights.")
    parser.add_argument("kind", choices=tuple(RECIPES))
    parser.add_argument("seed", type=int)
    parser.add_argument("out", type=Path, help="file to write, such as neurofeedback-reader.safetensors")
    given = parser.parse_args(arguments)
    model, header = make(replace(RECIPES[given.kind], seed=given.seed))
    save_half(model.state_dict(), header, given.out)
    sys.stderr.write(f"{json.dumps(header, indent=1)}\n")


if __name__ == "__main__":
    main()
