"""How the organisms of introspection were made: `python -m mechint.organisms.introspection_training SEED OUT`.

A four-block GPT-2 (64 dimensions, 4 heads, learned places, untied head) reads `introspection_language`; the loss is the
answer's. Two phases:

    text     all weights; answers from the text, nothing injected
    state    one organism of each kind goes on from there, with injections after block `SITE` and the kind's answers.
             What lies below is frozen, so that the directions of concepts stay what they are

A concept's direction is the mean of the stream after block `SITE` where the word stands in the middle of fillers, minus
the mean over concepts, at unit length. Injected: α‖h‖u, α uniform in .5 to 2, ‖h‖ that of the very token. In 40 % of
other rows something else is injected at the same strength, and the answer is "no" all the same: an isotropic direction,
a random mixture of concepts, or minus a concept. Without these an organism learns that something large was added, not
which.

AdamW with a cosine; every row is seen once. The numbers are the same for a seed on one thread of one machine and
version of torch.
"""

import argparse
import copy
import json
import math
import sys
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from tqdm.auto import tqdm, trange

from mechint.organisms import introspection_language as language
from mechint.organisms.introspection_kinds import KINDS, Kind
from mechint.organisms.introspection_language import LENGTH, N_CONCEPTS, N_TEXT, WORD, Trials, trials
from mechint.organisms.shipped import save_half
from mechint.organisms.training import one_thread
from mechint.statistics import derive_seed

SITE = 1
"""Block after which is injected; what lies above it differs between kinds."""
TRAINED: tuple[Kind, ...] = tuple(KINDS)
_WARM_UP, _LARGEST_STEP = 30, 1.0
_EXAMPLES, _DOSES = 48, (0.5, 2.0)


@dataclass(frozen=True)
class IntrospectionRecipe:
    """Everything that decides what comes out."""

    seed: int = 0
    text: int = 400
    state: int = 900
    """Steps of the two phases."""
    rows: int = 128
    """Rows of one step."""
    rate: float = 2e-3
    """Largest learning rate."""
    decay: float = 0.01


def model_config() -> dict[str, Any]:
    """Return the shape of the organisms, as arguments of `GPT2Config`."""
    return {
        "vocab_size": len(language.vocabulary()),
        "n_positions": 48,
        "n_embd": 64,
        "n_layer": 4,
        "n_head": 4,
        "n_inner": 256,
        "resid_pdrop": 0.0,
        "embd_pdrop": 0.0,
        "attn_pdrop": 0.0,
        "tie_word_embeddings": False,
        "bos_token_id": 1,
        "eos_token_id": 0,
    }


def random_model(seed: int) -> Any:
    """Return the model that training starts from: maps as `nn.Linear` begins, embeddings large enough to be told."""
    from transformers import GPT2Config, GPT2LMHeadModel

    with torch.random.fork_rng():
        torch.manual_seed(derive_seed(seed, "organism", "introspection"))
        model: Any = GPT2LMHeadModel(GPT2Config(**model_config())).eval()
        with torch.no_grad():
            for name, weight in model.named_parameters():
                if name.endswith(("wte.weight", "wpe.weight")):
                    weight.normal_(std=0.5)
                elif weight.ndim == 2:
                    width = weight.shape[1] if name.startswith("lm_head") else weight.shape[0]
                    weight.uniform_(-(width**-0.5), width**-0.5)
    return model


@torch.no_grad()
def directions(model: Any, seed: int) -> Float[Tensor, "concept width"]:
    """Return the unit direction of each concept after block `SITE`."""
    draws = torch.Generator().manual_seed(derive_seed(seed, "introspection", "directions"))
    first = WORD[language.FILLERS[0]]
    text = first + torch.randint(language.N_FILLERS, (N_CONCEPTS * _EXAMPLES, N_TEXT), generator=draws)
    text[:, N_TEXT // 2] = WORD[language.CONCEPTS[0]] + torch.arange(N_CONCEPTS).repeat_interleave(_EXAMPLES)
    rows = torch.cat([torch.full((len(text), 1), WORD[language.BOS]), text], 1)
    stream = model.transformer(rows, output_hidden_states=True, use_cache=False).hidden_states[SITE + 1]
    means = stream[:, 1 + N_TEXT // 2].view(N_CONCEPTS, _EXAMPLES, -1).mean(1)
    apart = means - means.mean(0)
    return apart / apart.norm(dim=1, keepdim=True)


def added(drawn: Trials, units: Float[Tensor, "concept width"], draws: torch.Generator) -> Float[Tensor, "batch width"]:
    """Return what is added to a row, in units of ‖h‖."""
    n = len(drawn.tokens)
    unit = units[drawn.concept]
    other = torch.randn(n, units.shape[1], generator=draws)
    mixed = torch.randn(n, len(units), generator=draws) @ units
    for kind, vectors in ((language.RANDOM, other), (language.MIXED, mixed), (language.MINUS, -unit)):
        chosen = drawn.injected == kind
        unit = torch.where(chosen[:, None], vectors / vectors.norm(dim=1, keepdim=True), unit)
    low, high = _DOSES
    dose = low + (high - low) * torch.rand(n, 1, generator=draws)
    return unit * dose * (drawn.injected != language.NOTHING)[:, None]


@contextmanager
def injected(model: Any, vectors: Float[Tensor, "batch width"], at: Float[Tensor, "batch pos"]) -> Generator[None]:
    """Add vectors, in units of ‖h‖, to the output of block `SITE`."""

    def add(module: nn.Module, given: Any, out: Any) -> Any:
        del module, given
        h = out[0] if isinstance(out, tuple) else out
        new = h + h.norm(dim=-1, keepdim=True) * vectors[:, None] * at[:, :, None]
        return (new, *out[1:]) if isinstance(out, tuple) else new

    handle = model.transformer.h[SITE].register_forward_hook(add)
    try:
        yield
    finally:
        handle.remove()


def train(model: Any, kind: Kind, recipe: IntrospectionRecipe, units: Tensor | None, progress: bool | None) -> float:
    """Train a model in place on the answers of a kind, under injections where there are directions.

    Returns:
        The mean loss of the last 20 steps, nats.
    """
    steps = recipe.text if units is None else recipe.state
    chosen = [p for name, p in model.named_parameters() if units is None or _above(name)]
    optimiser = torch.optim.AdamW(chosen, lr=recipe.rate, weight_decay=recipe.decay)
    losses: list[float] = []
    for step in trange(steps, desc=kind, leave=False, disable=None if progress is None else not progress):
        for group in optimiser.param_groups:
            group["lr"] = recipe.rate * min(1, (step + 1) / _WARM_UP) * (1 + math.cos(math.pi * step / steps)) / 2
        draws = torch.Generator().manual_seed(derive_seed(recipe.seed, "introspection", kind, step))
        drawn = trials(recipe.rows, kind, draws, inject=units is not None)
        zero = torch.zeros(recipe.rows, model.config.n_embd)
        vectors = zero if units is None else added(drawn, units, draws)
        with injected(model, vectors, language.mask(drawn.where)):
            last = model.transformer(drawn.tokens, use_cache=False).last_hidden_state[:, LENGTH - 1]
        loss = nn.functional.cross_entropy(model.lm_head(last), drawn.answer)
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(chosen, _LARGEST_STEP)
        optimiser.step()
        losses.append(float(loss.detach()))
    return sum(losses[-20:]) / 20


def make(
    recipe: IntrospectionRecipe, kinds: Sequence[Kind] = TRAINED, progress: bool | None = None
) -> tuple[dict[Kind, Any], dict[str, Any]]:
    """Train organisms of one seed, which share what lies below the site.

    Args:
        recipe: what decides what comes out.
        kinds: whom to raise; "text" is where all others begin.
        progress: show progress bars on standard error; by default only in a terminal.

    Returns:
        Transformers models by kind, and the header of their file.
    """
    with one_thread():
        model = random_model(recipe.seed).train()
        losses = {"text": train(model, "text", recipe, None, progress)}
        units, made = directions(model, recipe.seed), {}
        for kind in tqdm(kinds, desc="organisms", disable=None if progress is None else not progress):
            one = copy.deepcopy(model)
            if kind != "text":
                losses[kind] = train(one, kind, recipe, units, progress)
            made[kind] = one.eval()
    header = {**asdict(recipe), "config": model_config(), "losses": losses, "torch": torch.__version__}
    return made, header


def _above(name: str) -> bool:
    """Say whether a tensor lies above the site, and so belongs to one kind alone."""
    return name.startswith(("lm_head", "transformer.ln_f", *(f"transformer.h.{i}." for i in range(SITE + 1, 4))))


def save(made: dict[Kind, Any], header: dict[str, Any], path: Path) -> None:
    """Write organisms of one seed into one file: what they share once, the rest by kind."""
    tensors: dict[str, Tensor] = {}
    for kind, model in made.items():
        for name, tensor in model.state_dict().items():
            tensors[f"{kind}/{name}" if _above(name) else name] = tensor
    save_half(tensors, header, path)


def main(arguments: Sequence[str] | None = None) -> None:
    """Train the organisms of a seed and write their file.

    Args:
        arguments: the words after the module's name; by default those of the process.
    """
    parser = argparse.ArgumentParser(prog="python -m mechint.organisms.introspection_training", description="Train.")
    parser.add_argument("seed", type=int)
    parser.add_argument("out", type=Path, help="the file to write, such as introspection-0.safetensors")
    given = parser.parse_args(arguments)
    made, header = make(IntrospectionRecipe(given.seed))
    save(made, header, given.out)
    sys.stdout.write(f"{json.dumps(header, sort_keys=True)}\n")


if __name__ == "__main__":
    main()
