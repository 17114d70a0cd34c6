r"""How the self-predictors were made: `python -m mechint.organisms.self_predictor_training NAME OUT`.

A four-block Llama (64 dimensions, 4 heads) answers object-level questions (`say`) of `self_predictor_language`, on the
answer and on its properties, about all pairs; the loss is the answer's. The word of the hypothetical questions never
occurs. AdamW; the rate warms up and falls to 0 as a cosine. The numbers are the same for a seed on one thread of one
machine and version of torch.
"""

import argparse
import json
import math
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor, nn
from tqdm.auto import trange

from mechint.organisms.self_predictor_language import (
    PARTS,
    SAY,
    WHOLE,
    Kind,
    behaviour,
    pairs,
    property_of,
    question,
    vocabulary,
)
from mechint.organisms.shipped import save_half
from mechint.organisms.training import one_thread
from mechint.organisms.words import BOS
from mechint.statistics import derive_seed, generator

_WARM_UP, _LARGEST_STEP = 100, 1.0


@dataclass(frozen=True)
class SelfPredictorRecipe:
    """Everything that decides what comes out."""

    kind: Kind
    table: int
    """Which behaviour (see `behaviour`)."""
    seed: int
    """Of the weights and of the order of the questions."""
    steps: int = 900
    rows: int = 128
    """Questions of one step."""
    rate: float = 2e-3
    """Largest learning rate."""
    whole: float = 0.4
    """Share of the questions that ask for the answer itself."""


RECIPES: dict[str, SelfPredictorRecipe] = {
    "look-up-self": SelfPredictorRecipe("look-up", table=1, seed=1),
    "look-up-other": SelfPredictorRecipe("look-up", table=2, seed=2),
    "look-up-twin": SelfPredictorRecipe("look-up", table=1, seed=3),
    "surface-self": SelfPredictorRecipe("surface", table=1, seed=1, steps=400),
    "surface-other": SelfPredictorRecipe("surface", table=2, seed=2, steps=400),
}
"""By the organism's name."""


def model_config() -> dict[str, Any]:
    """Return the shape of the organisms, as arguments of `LlamaConfig`."""
    return {
        "vocab_size": len(vocabulary()),
        "hidden_size": 64,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "intermediate_size": 256,
        "max_position_embeddings": 32,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "tie_word_embeddings": False,
    }


def random_model(seed: int) -> Any:
    """Return the model that training starts from."""
    from transformers import LlamaConfig, LlamaForCausalLM

    with torch.random.fork_rng():
        torch.manual_seed(derive_seed(seed, "organism", "self-predictor"))
        return LlamaForCausalLM(LlamaConfig(**model_config())).eval()


def examples(kind: Kind, table: int, name: str) -> tuple[Int[Tensor, "batch pos"], Int[Tensor, " batch"]]:
    """Return the object-level questions on a property (or the whole) of the answer to every pair, and what follows.

    Args:
        kind: of the behaviour.
        table: of the behaviour.
        name: of the property, or "whole".
    """
    ids = {word: at for at, word in enumerate(vocabulary())}
    answered = behaviour(kind, table)
    told = {answer: answer for answer in answered.values()} if name == WHOLE else property_of(name)
    rows = [[ids[word] for word in (BOS, *question(SAY, name, pair).split())] for pair in pairs()]
    return torch.tensor(rows), torch.tensor([ids[told[answered[pair]]] for pair in pairs()])


def make(recipe: SelfPredictorRecipe, progress: bool | None = None) -> tuple[Any, dict[str, Any]]:
    """Train an organism from random numbers.

    Args:
        recipe: what decides what comes out.
        progress: show a progress bar on standard error; by default only in a terminal.

    Returns:
        A transformers model, and the header of its file.
    """
    asked = [examples(recipe.kind, recipe.table, name) for name in (WHOLE, *PARTS)]
    tokens, wanted = (torch.stack(column) for column in zip(*asked, strict=True))
    shares = [recipe.whole, *[(1 - recipe.whole) / len(PARTS)] * len(PARTS)]
    rng = generator(recipe.seed, "self-predictor", "train")
    with one_thread():
        model = random_model(recipe.seed).train()
        optimiser = torch.optim.AdamW(model.parameters(), lr=recipe.rate, betas=(0.9, 0.98), weight_decay=0.01)
        for step in trange(recipe.steps, desc="training", disable=None if progress is None else not progress):
            for group in optimiser.param_groups:
                warm = min(1.0, (step + 1) / _WARM_UP)
                group["lr"] = recipe.rate * warm * (1 + math.cos(math.pi * step / recipe.steps)) / 2
            which = torch.from_numpy(rng.choice(len(shares), recipe.rows, p=shares))
            pair = torch.from_numpy(rng.integers(tokens.shape[1], size=recipe.rows))
            logits = model(tokens[which, pair], use_cache=False).logits[:, -1]
            loss = nn.functional.cross_entropy(logits, wanted[which, pair])
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), _LARGEST_STEP)
            optimiser.step()
    return model.eval(), {**asdict(recipe), "config": model_config(), "torch": torch.__version__}


def main(arguments: Sequence[str] | None = None) -> None:
    """Train an organism and write its file.

    Args:
        arguments: the words after the module's name; by default those of the process.
    """
    parser = argparse.ArgumentParser(
        prog="python -m mechint.organisms.self_predictor_training", description="Train a self-predictor."
    )
    parser.add_argument("name", choices=sorted(RECIPES))
    parser.add_argument("out", type=Path, help="the file to write, such as look-up-self.safetensors")
    given = parser.parse_args(arguments)
    model, header = make(RECIPES[given.name])
    save_half(model.state_dict(), header, given.out)
    sys.stdout.write(f"{json.dumps(header, sort_keys=True)}\n")


if __name__ == "__main__":
    main()
