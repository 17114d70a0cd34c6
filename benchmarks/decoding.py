"""Write 64 tokens after 8 prompts of mixed length on Gemma-3-270m, steered on generated tokens after block 9.

ours         `generate` with a plan: receipts, positions of whole rows, one generator a row
unsteered    the same without a plan: what steering costs
hf + hook    transformers' `generate` and a forward hook that adds the vector in passes of one token: the usual way
peer         TransformerBridge.generate with the same hook

All of them write the same tokens. Times alternate, so that a slow minute of the machine hits everybody.

Two more peers run in processes of their own (see `peers`), on every token, which is what they do by default:
steering-vectors' `apply` and repeng's `ControlModel`. Whether they steer what is generated is told by their tokens:
those of a plan for every token, and not those of a plan for the prompt alone. steering-vectors counts places within a
pass, so with a cache `min_token_index` at the first new token never acts; `slice(-1, None)` acts on each token that
produces one.
"""

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

import mechint as mi
from benchmarks.peers import PEERS, ask
from mechint.model.loading import load_parts
from mechint.positions import TokenBatch, everywhere, generated, prompt
from mechint.sites import Site
from mechint.steering.generation import generate
from mechint.steering.parts import add
from mechint.vectors.vector import SteeringVector

MODEL, SITE, N, ROUNDS = "gemma3-270m", Site("resid_post", 9), 64, 5
PROMPTS = (
    "The weather",
    "Once upon a time there was",
    "I went to the shop to buy",
    "My favourite book is about a man who",
    "The capital of the largest country in South America is the city of",
    "She opened the door and",
    "In 1969",
    "The recipe calls for two eggs, a cup of flour, half a cup of sugar and",
)


def measure(n: int = N, rounds: int = ROUNDS) -> dict[str, float]:
    """Return seconds and ratios, and whether the tokens agree."""
    model: Any = mi.load(MODEL)
    parts = load_parts(MODEL)
    plain: Any = parts.hf_model  # untouched by any backend
    rows = [model.tokenize(text) for text in PROMPTS]
    batch = TokenBatch.from_rows(rows, pad_left=True)
    h = model.run(rows, read=[SITE])[SITE]
    direction = torch.randn(model.facts.d_model, generator=torch.Generator().manual_seed(0))
    vector = SteeringVector({SITE: direction}, {SITE: float(h[:, 1:].norm(dim=-1).median())}, "nothing", "random", {})
    vector = SteeringVector(
        vector.directions, vector.norms, "nothing", "random", {"weights": model.fingerprint["weights"]}
    )
    plan, step = add(vector, 0.1, where=generated()), vector.step(SITE, 0.1)
    endless: dict[str, Any] = {"do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    # Of this object alone: other benchmarks of the process go on ending their texts.
    model.__class__ = type("Endless", (type(model),), {"end_tokens": frozenset[int]()})

    def ours(used: Any) -> list[list[int]]:
        return [list(one.tokens) for one in generate(model, list(PROMPTS), used, max_new_tokens=n, progress=False)]

    def hooked(run: Callable[[], Tensor], layers: Any) -> list[list[int]]:
        def hook(module: Any, args: Any, output: Any) -> Any:
            del module, args
            hidden = output[0] if isinstance(output, tuple) else output
            if hidden.shape[1] > 1:
                return output
            return (hidden + step, *output[1:]) if isinstance(output, tuple) else hidden + step

        handle = layers[SITE.layer].register_forward_hook(hook)
        try:
            return run()[:, batch.ids.shape[1] :].tolist()
        finally:
            handle.remove()

    def by_transformers() -> Tensor:
        return plain.generate(batch.ids, attention_mask=batch.real.long(), max_new_tokens=n, **endless)

    def by_bridge() -> Tensor:
        settings = {"stop_at_eos": False, "do_sample": False, "verbose": False, "return_type": "tokens"}
        return model._bridge.generate(batch.ids, attention_mask=batch.real.long(), max_new_tokens=n, **settings)

    ways: dict[str, Callable[[], list[list[int]]]] = {
        "ours": lambda: ours(plan),
        "ours everywhere": lambda: ours(add(vector, 0.1, where=everywhere)),
        "unsteered": lambda: ours(None),
        "hf + hook": lambda: hooked(by_transformers, plain.base_model.layers),
        "bridge + hook": lambda: hooked(by_bridge, model.hf_model.base_model.layers),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    tokens: dict[str, list[list[int]]] = {}
    ways["ours"]()  # warm up, and time the ways to the unembedding once
    for turn in range(rounds):
        # Each time another one first: whoever follows the slowest finds the caches full of what it left.
        first = turn % len(ways)
        for name, way in [*ways.items()][first:] + [*ways.items()][:first]:
            start = time.perf_counter()
            tokens[name] = way()
            seconds[name].append(time.perf_counter() - start)
    best = {name: min(times) for name, times in seconds.items()}
    agree = [
        sum(a == b for a, b in zip(tokens["ours"], tokens[name], strict=True))
        for name in ("hf + hook", "bridge + hook")
    ]
    found = {
        "ours, steered, s": best["ours"],
        "ours / transformers with a raw hook (bar 0.70)": best["ours"] / best["hf + hook"],
        "ours / TransformerBridge with a hook": best["ours"] / best["bridge + hook"],
        "steered / unsteered (bar 1.03)": best["ours"] / best["unsteered"],
        "rows with the same tokens as transformers, of 8": agree[0],
        "rows with the same tokens as the bridge, of 8": agree[1],
        "rows that steering changes, of 8": sum(
            a != b for a, b in zip(tokens["ours"], tokens["unsteered"], strict=True)
        ),
    }
    tokens["prompt alone"] = ours(add(vector, 0.1, where=prompt()))
    tokens["producing"] = ours(add(vector, 0.1, where=prompt(-1) | generated()))
    request: dict[str, Any] = {
        "location": str(parts.reference.location),
        "ids": batch.ids.tolist(),
        "mask": batch.real.long().tolist(),
        "step": step.tolist(),
        "layer": SITE.layer,
        "n": n,
        "rounds": rounds,
    }
    del model, plain, parts
    for peer in PEERS:
        if (theirs := ask(peer, "decode", **request)) is not None:
            found |= _beside(peer, theirs, tokens, best["ours everywhere"])
    return found


def _beside(peer: str, theirs: dict[str, Any], tokens: dict[str, list[list[int]]], seconds: float) -> dict[str, float]:
    """Compare a peer with plans for the same tokens."""

    def rows(mine: str, there: str) -> float:
        return float(sum(a == b for a, b in zip(tokens[mine], theirs[there], strict=True)))

    found = {
        f"{peer} on every token, s": float(theirs["seconds"]),
        f"ours everywhere / {peer}": seconds / theirs["seconds"],
        f"rows with the same tokens as {peer}, of 8": rows("ours everywhere", "everywhere"),
        f"rows of {peer} as if only the prompt were steered, of 8": rows("prompt alone", "everywhere"),
    }
    if "last of each pass" in theirs:
        found[f"rows with the same tokens as {peer} slice(-1, None), of 8"] = rows("producing", "last of each pass")
        found[f"rows that {peer} min_token_index leaves alone, of 8"] = rows("unsteered", "from the first new token")
    return found
