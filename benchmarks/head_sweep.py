"""Zero-ablate every head of Gemma-3-270m alone: 16 two-name prompts of 15 tokens, logit difference at the end.

ours         `effects.ablation.sweep`
ours, rows   the same with prefix sharing switched off
plain loop   TransformerBridge.run_with_hooks, one full pass a head (what a tutorial does)
one logit    the same with `logits_to_keep=1`
best peer    nnsight: recorded outputs for the blocks below (`layer.skip`), one logit position; in a process of its own
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

import mechint as mi
from benchmarks.floor import peak_rate, sweep_operations
from mechint.effects.ablation import all_heads, sweep
from mechint.effects.baselines import Baseline
from mechint.model.prefixes import count_prefixes
from mechint.prompts import encode
from mechint.prompts.ioi import NAMES
from mechint.statistics import generator

TEMPLATE = "When {first} and {second} went to the store, {giver} gave a drink to"


def both_orders() -> mi.prompts.PromptSet:
    """4 pairs of names, in both orders, either one repeated: the usual design, whose prompts begin alike."""
    made: list[mi.prompts.Prompt] = []
    for pair in range(4):
        names = [str(name) for name in generator(0, "benchmark", pair).choice(NAMES, size=2, replace=False)]
        for first, second in (names, names[::-1]):
            for giver, other in ((first, second), (second, first)):
                text = TEMPLATE.format(first=first, second=second, giver=giver)
                made.append(mi.prompts.Prompt(f"{len(made)}", text, f" {other}", f" {giver}"))
    return mi.prompts.PromptSet("both orders", tuple(made))


def random_pairs() -> mi.prompts.PromptSet:
    """16 random pairs of names, which share little."""
    made: list[mi.prompts.Prompt] = []
    for i in range(16):
        a, b = generator(0, "benchmark", i).choice(NAMES, size=2, replace=False)
        text = TEMPLATE.format(first=a, second=b, giver=b)
        made.append(mi.prompts.Prompt(f"{i}", text, f" {a}", f" {b}"))
    return mi.prompts.PromptSet("random pairs", tuple(made))


def ours(model: mi.Model, rows: Any, columns: Tensor) -> Tensor:
    """Return the logit difference [layer x head, prompt]."""
    result = sweep(model, rows, all_heads(model.facts), Baseline(), columns)
    return result.ablated[..., 0] - result.ablated[..., 1]


def ours_by_rows(model: mi.Model, rows: Any, columns: Tensor) -> Tensor:
    """The same without prefix sharing."""
    result = sweep(model, rows, all_heads(model.facts), Baseline(shares_prefixes=False), columns)
    return result.ablated[..., 0] - result.ablated[..., 1]


def plain_loop(model: Any, rows: Any, columns: Tensor, **keep: int) -> Tensor:
    """The loop that a user of TransformerBridge writes."""
    bridge, ids, out = model._bridge, torch.tensor(rows), []
    for layer in range(model.facts.n_layers):
        for head in range(model.facts.n_heads):

            def cut(z: Tensor, hook: Any, head: int = head) -> Tensor:
                del hook
                z[:, :, head] = 0
                return z

            with torch.no_grad():
                logits = bridge.run_with_hooks(ids, fwd_hooks=[(f"blocks.{layer}.attn.hook_z", cut)], **keep)[:, -1]
            out.append(logits.gather(1, columns[:, :1])[:, 0] - logits.gather(1, columns[:, 1:])[:, 0])
    return torch.stack(out)


def nnsight_sweep() -> None:
    """Run the best-tuned peer, and print its time and result as JSON: meant for a process of its own."""
    import logging

    logging.disable(logging.WARNING)
    from nnsight import TransformersModel

    from mechint.model.loading import load_parts

    parts = load_parts("gemma3-270m")
    encoded = encode(both_orders(), parts.tokenizer)
    ids, model = torch.tensor(encoded.tokens), TransformersModel(parts.hf_model, tokenizer=parts.tokenizer)
    columns = torch.tensor([encoded.target, encoded.distractor]).T
    layers, size = model.model.layers, parts.hf_model.config.head_dim
    times: list[float] = []
    for _ in range(3):
        start = time.perf_counter()
        with torch.no_grad(), model.trace(ids, logits_to_keep=1):
            recorded = list().save()  # noqa: C408  (a name of a trace lives on only if what it names is saved)
            for layer in layers:
                recorded.append(layer.output)
        out: list[Tensor] = []
        for at in range(len(recorded)):
            for head in range(parts.hf_model.config.num_attention_heads):
                with torch.no_grad(), model.trace(ids, logits_to_keep=1):
                    for below in range(at):
                        layers[below].skip(recorded[below])
                    z = layers[at].self_attn.o_proj.input
                    z[..., head * size : (head + 1) * size] = 0
                    logits = model.lm_head.output.save()
                out.append(logits[:, -1].gather(1, columns))
        times.append(time.perf_counter() - start)
    sys.stdout.write(json.dumps({"seconds": sorted(times)[1], "values": torch.stack(out).tolist()}))


def timed(run: Callable[[], Tensor], repeats: int) -> tuple[float, Tensor]:
    """Return the median time and the result."""
    times: list[float] = []
    value = torch.empty(0)
    for _ in range(repeats):
        start = time.perf_counter()
        value = run()
        times.append(time.perf_counter() - start)
    return sorted(times)[len(times) // 2], value


def measure(repeats: int = 3) -> dict[str, float]:
    """Return seconds and ratios."""
    model = mi.load("gemma3-270m")
    encoded = encode(both_orders(), model.tokenizer)
    rows, columns = encoded.tokens, torch.tensor([encoded.target, encoded.distractor]).T
    n_tokens, nodes = sum(map(len, rows)), count_prefixes(rows)
    less_alike = encode(random_pairs(), model.tokenizer)
    their_columns = torch.tensor([less_alike.target, less_alike.distractor]).T
    peak = peak_rate()
    random, _ = timed(lambda: ours(model, less_alike.tokens, their_columns), repeats)
    fast, values = timed(lambda: ours(model, rows, columns), repeats)
    by_rows, same = timed(lambda: ours_by_rows(model, rows, columns), repeats)
    loop, expected = timed(lambda: plain_loop(model, rows, columns), 1)
    one, also = timed(lambda: plain_loop(model, rows, columns, logits_to_keep=1), 1)
    peak = max(peak, peak_rate())
    found = {
        "tokens": float(n_tokens),
        "distinct prefixes": float(nodes),
        "peak, GFLOP/s": peak / 1e9,
        "ours, s": fast,
        "ours on random pairs of names, s": random,
        "distinct prefixes of random pairs": float(count_prefixes(less_alike.tokens)),
        "ours without prefix sharing, s": by_rows,
        "plain TransformerBridge loop, s": loop,
        "TransformerBridge with one logit, s": one,
        "floor over all tokens, s": sweep_operations(model, n_tokens) / peak,
        "floor over distinct prefixes, s": sweep_operations(model, nodes) / peak,
        "largest difference from the plain loop, logits": float((values - expected).abs().max()),
        "largest difference without sharing, logits": float((same - expected).abs().max()),
        "largest difference with one logit, logits": float((also - expected).abs().max()),
    }
    del model
    peer = subprocess.run([sys.executable, "-m", "benchmarks.head_sweep"], capture_output=True, text=True, check=False)
    if peer.returncode == 0:
        answer = json.loads(peer.stdout)
        other = torch.tensor(answer["values"])
        found["nnsight skip with one logit, s"] = answer["seconds"]
        found["best peer / ours"] = answer["seconds"] / fast
        found["best peer / ours on random pairs"] = answer["seconds"] / random
        found["largest difference from nnsight, logits"] = float((other[..., 0] - other[..., 1] - values).abs().max())
    else:
        sys.stderr.write(f"nnsight could not be timed: {peer.stderr[-400:]}\n")
    found["plain loop / ours"] = loop / fast
    found["plain loop / ours on random pairs"] = loop / random
    found["ours on random pairs / floor over all tokens"] = random / found["floor over all tokens, s"]
    found["ours / floor over all tokens"] = fast / found["floor over all tokens, s"]
    found["ours / floor over distinct prefixes"] = fast / found["floor over distinct prefixes, s"]
    found["ours without sharing / floor over all tokens"] = by_rows / found["floor over all tokens, s"]
    return found


if __name__ == "__main__":
    nnsight_sweep()
