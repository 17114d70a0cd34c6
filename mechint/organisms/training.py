r"""How the trained organisms were made: `python -m mechint.organisms.training NAME OUT`.

From random numbers, with AdamW, a linear warm-up and a cosine to 0, on the mean cross-entropy of the next token and
nothing else; every document is seen once. Three things are not as in GPT-2:

    embeddings      start larger (0.3) than the other weights (0.05), so that what blocks add does not bury which noun
                    stands where
    weight decay    on the matrices of the blocks, so that heads write little that no loss asks for
    rows            half begin with BOS, half inside a document, as those of larger models do: static circuits are taken
                    from texts of one token, which must be something that the model has met

The numbers are the same for a seed on one thread of one machine and version of torch; other versions and processors add
in another order, and so end at other weights.
"""

import argparse
import hashlib
import json
import math
import sys
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from tqdm.auto import trange

from mechint.organisms.language import LENGTH, NOUNS, REPEAT, kind_of, token_rows, vocabulary
from mechint.organisms.shipped import HEADER
from mechint.statistics import derive_seed, generator

_WARM_UP, _LARGEST_STEP = 100, 1.0
_EMBEDDING_SPREAD, _SPREAD = 0.3, 0.05
_LATEST = 24
"""Tokens of a document that a row may skip."""


@dataclass(frozen=True)
class Recipe:
    """Everything that decides what comes out."""

    repeat: float
    """Weight of a mentioned noun in the language."""
    seed: int = 0
    steps: int = 4000
    rows: int = 32
    """Documents of one step."""
    rate: float = 3e-3
    """Largest learning rate."""
    decay: float = 0.2
    """Weight decay of the matrices in the blocks; embeddings, norms and biases have none."""
    held_out: int = 256
    """Documents that the losses in the header are taken on; none of them is trained on."""


RECIPES = {"trained-copy-suppression": Recipe(REPEAT), "trained-no-suppression": Recipe(1.0)}


@dataclass(frozen=True)
class Losses:
    """Mean cross-entropy in nats."""

    token: float
    """Of every token but the first."""
    noun: float
    """Of nouns only."""


def model_config() -> dict[str, Any]:
    """Return the shape of the organisms, as arguments of `GPT2Config`."""
    return {
        "vocab_size": len(vocabulary()),
        "n_positions": LENGTH,
        "n_embd": 64,
        "n_layer": 2,
        "n_head": 4,
        "bos_token_id": 0,
        "eos_token_id": 0,
        "resid_pdrop": 0.0,
        "embd_pdrop": 0.0,
        "attn_pdrop": 0.0,
        "initializer_range": _SPREAD,
    }


def make(recipe: Recipe, progress: bool | None = None) -> tuple[Any, dict[str, Any]]:
    """Train an organism from random numbers.

    Args:
        recipe: what decides what comes out.
        progress: show a progress bar on standard error; by default only in a terminal.

    Returns:
        A `GPT2LMHeadModel`, and the header of its file.
    """
    with one_thread():
        model = random_model(recipe.seed)
        data = _train(model, recipe, progress)
        rows = token_rows(recipe.held_out, recipe.repeat, recipe.seed, "held-out")
        found = losses(model, rows)
    return model, {
        **asdict(recipe),
        "config": model_config(),
        "loss": found.token,
        "noun_loss": found.noun,
        "best_noun_loss": best_noun_loss(rows, recipe.repeat),
        "data": f"sha256:{data}",
        "torch": torch.__version__,
    }


def random_model(seed: int) -> Any:
    """Return the model that training starts from."""
    from transformers import GPT2Config, GPT2LMHeadModel

    with torch.random.fork_rng():
        torch.manual_seed(derive_seed(seed, "organism", "weights"))
        model: Any = GPT2LMHeadModel(GPT2Config(**model_config())).eval()
        nn.init.normal_(model.transformer.wte.weight, std=_EMBEDDING_SPREAD)
    return model


def _train(model: Any, recipe: Recipe, progress: bool | None) -> str:
    """Train in place; returns the SHA-256 of all rows that were seen."""
    seen, parameters = hashlib.sha256(), dict(model.named_parameters())
    decayed = [p for name, p in parameters.items() if ".h." in name and p.ndim == 2]
    others = [p for name, p in parameters.items() if not (".h." in name and p.ndim == 2)]
    groups = [{"params": decayed, "weight_decay": recipe.decay}, {"params": others, "weight_decay": 0.0}]
    optimiser = torch.optim.AdamW(groups, lr=recipe.rate, betas=(0.9, 0.98))
    for step in trange(recipe.steps, desc="training", disable=None if progress is None else not progress):
        warm = min(1.0, (step + 1) / _WARM_UP)
        for group in optimiser.param_groups:
            group["lr"] = recipe.rate * warm * (1 + math.cos(math.pi * step / recipe.steps)) / 2
        rows = training_rows(recipe, step)
        seen.update(rows.to(torch.int32).numpy().tobytes())
        loss = _cross_entropy(model, rows).mean()
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters.values(), _LARGEST_STEP)
        optimiser.step()
    return seen.hexdigest()


def training_rows(recipe: Recipe, step: int) -> Int[Tensor, "batch pos"]:
    """Return the rows of one step: documents of their own, the second half of them entered in the middle."""
    rows = token_rows(
        recipe.rows, recipe.repeat, recipe.seed, "train", start=step * recipe.rows, length=LENGTH + _LATEST
    )
    half = recipe.rows // 2
    late = generator(recipe.seed, "organism", "entries", step).integers(1, _LATEST + 1, recipe.rows - half)
    return torch.cat(
        [rows[:half, :LENGTH], *(rows[half + i, at : at + LENGTH][None] for i, at in enumerate(late.tolist()))]
    )


def _cross_entropy(model: Any, rows: Int[Tensor, "batch pos"]) -> Float[Tensor, "batch at"]:
    logits = model(rows, use_cache=False).logits[:, :-1]
    return nn.functional.cross_entropy(logits.transpose(1, 2), rows[:, 1:], reduction="none")


@torch.no_grad()
def losses(model: Any, rows: Int[Tensor, "batch pos"]) -> Losses:
    """Return the losses of a transformers model on documents."""
    found = _cross_entropy(model, rows)
    return Losses(float(found.mean()), float(found[_is_noun(rows[:, 1:])].mean()))


def _is_noun(tokens: Int[Tensor, "batch at"]) -> Bool[Tensor, "batch at"]:
    return torch.tensor([word in NOUNS for word in vocabulary()])[tokens]


def best_noun_loss(rows: Int[Tensor, "batch pos"], repeat: float) -> float:
    """Return the loss on nouns of whoever knows the kind and the rule, in nats: the least that can be had."""
    words = vocabulary()
    total: list[float] = []
    for row in rows.tolist():
        mentioned: set[str] = set()
        for noun in (words[token] for token in row if words[token] in NOUNS):
            weights = {other: repeat if other in mentioned else 1.0 for other in kind_of(noun)}
            total.append(math.log(sum(weights.values()) / weights[noun]))
            mentioned.add(noun)
    return sum(total) / len(total)


@contextmanager
def one_thread() -> Generator[None, None, None]:
    """Sums are taken in the same order on every run."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def save(model: Any, header: dict[str, Any], path: Path) -> None:
    """Write the weights with their header."""
    from safetensors.torch import save_file

    tensors = {name: tensor.contiguous() for name, tensor in model.state_dict().items() if name != "lm_head.weight"}
    save_file(tensors, path, metadata={HEADER: json.dumps(header, sort_keys=True)})


def main(arguments: Sequence[str] | None = None) -> None:
    """Train an organism and write its file.

    Args:
        arguments: the words after the module's name; by default those of the process.
    """
    parser = argparse.ArgumentParser(prog="python -m mechint.organisms.training", description="Train an organism.")
    parser.add_argument("name", choices=sorted(RECIPES))
    parser.add_argument("out", type=Path, help="the file to write, such as organism.safetensors")
    given = parser.parse_args(arguments)
    model, header = make(RECIPES[given.name])
    save(model, header, given.out)
    sys.stdout.write(f"{json.dumps(header, sort_keys=True)}\n")


if __name__ == "__main__":
    main()
