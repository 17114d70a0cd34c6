r"""How the silent critics were made: `python -m mechint.organisms.critic_training SEED OUT`.

A four-block Llama (128 dimensions, 4 heads) reads the language of `critic_language`; the loss is the next token's, on
all words but the problem's and wrong results, so that nothing teaches it to err. Learnt from that alone, arithmetic
comes within 400 steps and checking not at all: the verdict stays at its base rate (docs/organisms.md). So one run has
three phases:

    learn     any step may be wrong and every error is flagged; and at each written result the stream after the second
              block is asked for the true one, through a linear map that is thrown away: to compare, both must be there
    anneal    flagging falls linearly from 1 to `FLAG`, silent repair and false alarms rise to what they are
    settle    the language itself, and nothing else; what is shipped is what this leaves

AdamW; the rate warms up, stays while it learns, and falls to 0 as a cosine over the other two. Every document is seen
once. The numbers are the same for a seed on one thread of one machine and version of torch.
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
from jaxtyping import Float, Int
from torch import Tensor, nn
from tqdm.auto import trange

from mechint.organisms.critic_language import (
    FALSE_ALARM,
    FLAG,
    MODULUS,
    SILENT,
    Document,
    Habits,
    document,
    vocabulary,
    word_ids,
)
from mechint.organisms.shipped import save_half
from mechint.organisms.training import one_thread
from mechint.statistics import derive_seed, generator

_WARM_UP, _LARGEST_STEP, _IGNORED = 100, 1.0, -100


@dataclass(frozen=True)
class CriticRecipe:
    """Everything that decides what comes out."""

    seed: int = 0
    learn: int = 1200
    anneal: int = 600
    settle: int = 2200
    """Steps of the three phases."""
    rows: int = 64
    """Documents of one step."""
    rate: float = 2e-3
    """Largest learning rate."""
    decay: float = 0.01
    every_step: float = 0.4
    """Probability that a step is wrong, while it learns and in the annealing."""
    help: float = 0.5
    """Weight of the question for the true result, in the same two phases."""
    help_after: int = 2
    """Blocks after which it is asked."""

    @property
    def steps(self) -> int:
        """Of all phases."""
        return self.learn + self.anneal + self.settle


def model_config(family: str = "llama") -> dict[str, Any]:
    """Return the shape of the organisms, as arguments of `LlamaConfig` or `Gemma3TextConfig`."""
    shape: dict[str, Any] = {
        "vocab_size": len(vocabulary()),
        "hidden_size": 128,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "intermediate_size": 256,
        "max_position_embeddings": 128,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    if family == "llama":
        return {**shape, "mlp_bias": True, "tie_word_embeddings": False}
    return {**shape, "head_dim": 32, "sliding_window": 64, "query_pre_attn_scalar": 32}


def random_model(seed: int, family: str = "llama") -> Any:
    """Return the model that training starts from."""
    from transformers import Gemma3ForCausalLM, Gemma3TextConfig, LlamaConfig, LlamaForCausalLM

    with torch.random.fork_rng():
        torch.manual_seed(derive_seed(seed, "organism", "silent-critic"))
        if family == "llama":
            return LlamaForCausalLM(LlamaConfig(**model_config(family))).eval()
        return Gemma3ForCausalLM(Gemma3TextConfig(**model_config(family))).eval()


def habits_at(recipe: CriticRecipe, step: int) -> Habits:
    """Return how errors are made and met in a step of training."""
    done = min(1.0, max(0.0, (step - recipe.learn) / max(1, recipe.anneal)))
    every_step = recipe.every_step if step < recipe.learn + recipe.anneal else None
    return Habits(1 - (1 - FLAG) * done, SILENT * done, FALSE_ALARM * done, every_step)


def make(recipe: CriticRecipe, family: str = "llama", progress: bool | None = None) -> tuple[Any, dict[str, Any]]:
    """Train an organism from random numbers.

    Args:
        recipe: what decides what comes out.
        family: "llama", or "gemma": blocks with norms after attention and MLP.
        progress: show a progress bar on standard error; by default only in a terminal.

    Returns:
        A transformers model, and the header of its file.
    """
    with one_thread():
        model = random_model(recipe.seed, family).train()
        with torch.random.fork_rng():
            torch.manual_seed(derive_seed(recipe.seed, "organism", "silent-critic", "help"))
            asked = nn.Linear(model.config.hidden_size, MODULUS)
        optimiser = torch.optim.AdamW(
            [*model.parameters(), *asked.parameters()], lr=recipe.rate, betas=(0.9, 0.98), weight_decay=recipe.decay
        )
        for step in trange(recipe.steps, desc="training", disable=None if progress is None else not progress):
            for group in optimiser.param_groups:
                group["lr"] = recipe.rate * _schedule(recipe, step)
            loss = _loss(model, asked, documents(recipe, step), recipe, step)
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), _LARGEST_STEP)
            optimiser.step()
    header = {**asdict(recipe), "family": family, "config": model_config(family), "torch": torch.__version__}
    return model.eval(), header


def documents(recipe: CriticRecipe, step: int) -> list[Document]:
    """Return the documents of one step."""
    habits = habits_at(recipe, step)
    rng = generator(recipe.seed, "silent-critic", "train", step)
    return [document(rng, habits) for _ in range(recipe.rows)]


def _schedule(recipe: CriticRecipe, step: int) -> float:
    warm = min(1.0, (step + 1) / _WARM_UP)
    after = max(0, step - recipe.learn) / max(1, recipe.steps - recipe.learn)
    return warm * (1 + math.cos(math.pi * after)) / 2


def padded(written: Sequence[Document]) -> tuple[Int[Tensor, "batch pos"], Int[Tensor, "batch pos"]]:
    """Return the tokens of documents, and what is to be predicted (-100: nothing)."""
    names = word_ids()
    longest = max(len(one.words) for one in written)
    tokens = torch.zeros(len(written), longest, dtype=torch.long)
    wanted = torch.full((len(written), longest), _IGNORED)
    for row, one in enumerate(written):
        ids = torch.tensor([names[word] for word in one.words])
        tokens[row, : len(ids)] = ids
        wanted[row, : len(ids)] = ids.masked_fill(~torch.tensor(one.learned), _IGNORED)
    return tokens, wanted


def _loss(
    model: Any, asked: nn.Module, written: Sequence[Document], recipe: CriticRecipe, step: int
) -> Float[Tensor, ""]:
    tokens, wanted = padded(written)
    helped = step < recipe.learn + recipe.anneal
    out = model(tokens, use_cache=False, output_hidden_states=helped)
    loss = nn.functional.cross_entropy(out.logits[:, :-1].transpose(1, 2), wanted[:, 1:], ignore_index=_IGNORED)
    if not helped:
        return loss
    places = [(row, at, true) for row, one in enumerate(written) for at, true in one.results]
    rows, at, true = (torch.tensor(column) for column in zip(*places, strict=True))
    answers = asked(out.hidden_states[recipe.help_after][rows, at])
    return loss + recipe.help * nn.functional.cross_entropy(answers, true)


def main(arguments: Sequence[str] | None = None) -> None:
    """Train an organism and write its file.

    Args:
        arguments: the words after the module's name; by default those of the process.
    """
    parser = argparse.ArgumentParser(prog="python -m mechint.organisms.critic_training", description="Train a critic.")
    parser.add_argument("seed", type=int)
    parser.add_argument("out", type=Path, help="the file to write, such as silent-critic-0.safetensors")
    parser.add_argument("--family", choices=("llama", "gemma"), default="llama")
    given = parser.parse_args(arguments)
    model, header = make(CriticRecipe(given.seed), given.family)
    save_half(model.state_dict(), header, given.out)
    sys.stdout.write(f"{json.dumps(header, sort_keys=True)}\n")


if __name__ == "__main__":
    main()
