"""Record the last token's stream before blocks 6, 9 and 12 of Gemma-3-270m: 64 texts of 20 to 120 tokens.

ours         `capture.activations.record`: buckets of like length, stopped after the last site
naive        TransformerBridge.run_with_cache(names_filter), 16 texts a pass in the given order (what a tutorial does)
one stop     the same with `stop_at_layer`
best peer    nnsight with `tracer.stop()`, 16 texts a pass; in a process of its own, in turns with ours
one by one   plain transformers on single unpadded rows, every hidden state: the reference

All numbers that are compared are equal to the reference; what is gained over peers that stop early is padding.
"""

import json
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

import mechint as mi
from benchmarks.floor import peak_rate
from benchmarks.head_sweep import timed
from mechint.capture.activations import record
from mechint.statistics import generator

MODEL, LAYERS, BATCH = "gemma3-270m", (6, 9, 12), 16


def texts_of(tokenizer: Any, n: int = 64, shortest: int = 20, longest: int = 120) -> list[str]:
    """Cut texts of evenly spread numbers of tokens from natural English."""
    words = " ".join(prompt.prompt for prompt in mi.prompts.natural(n * longest // 30 + 8)).split()
    rng, texts, at = generator(0, "capture benchmark"), list[str](), 0
    while len(texts) < n:
        wanted, text = int(rng.integers(shortest, longest + 1)), ""
        while len(tokenizer(text)["input_ids"]) < wanted:
            text = f"{text} {words[at]}".strip()
            at += 1
        texts.append(text)
    return texts


def ours(model: mi.Model, texts: Sequence[str], layers: Sequence[int]) -> Tensor:
    """Return [text, layer, d_model]."""
    sites = [f"L{layer}.resid_pre" for layer in layers]
    recorded = record(model, texts, sites, progress=False)
    return torch.stack([recorded.single(site) for site in sites], 1)


def padded(rows: Sequence[Sequence[int]]) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Cut rows into passes of 16, padded on the right: ids, mask, and the last real column of each."""
    passes: list[tuple[Tensor, Tensor, Tensor]] = []
    for start in range(0, len(rows), BATCH):
        some = rows[start : start + BATCH]
        last = torch.tensor([len(row) - 1 for row in some])
        ids = torch.zeros(len(some), int(last.max()) + 1, dtype=torch.long)
        for i, row in enumerate(some):
            ids[i, : len(row)] = torch.tensor(row)
        passes.append((ids, (torch.arange(ids.shape[1]) <= last[:, None]).long(), last))
    return passes


@torch.no_grad()
def bridge(model: Any, rows: Sequence[Sequence[int]], layers: Sequence[int], **settings: Any) -> Tensor:
    """What a user of TransformerBridge writes."""
    names, out = [f"blocks.{layer}.hook_resid_pre" for layer in layers], list[Tensor]()
    if settings.get("stop_at_layer"):  # the input of the first block that is not run: the output of the one before
        names[-1] = f"blocks.{layers[-1] - 1}.hook_resid_post"
    for ids, mask, last in padded(rows):
        _, cache = model._bridge.run_with_cache(ids, attention_mask=mask, names_filter=names, **settings)
        out.append(torch.stack([cache[name][torch.arange(len(ids)), last] for name in names], 1))
    return torch.cat(out)


@torch.no_grad()
def one_by_one(model: Any, rows: Sequence[Sequence[int]], layers: Sequence[int]) -> Tensor:
    """Return what each text gives by itself."""
    out: list[Tensor] = []
    for row in rows:
        states = model.hf_model.base_model(torch.tensor([row]), use_cache=False, output_hidden_states=True)
        out.append(torch.stack([states.hidden_states[layer][0, -1] for layer in layers]))
    return torch.stack(out)


def nnsight_capture(hf_model: Any, tokenizer: Any, rows: Sequence[Sequence[int]], layers: Sequence[int]) -> Tensor:
    """The best-tuned peer."""
    from nnsight import TransformersModel

    model, out = TransformersModel(hf_model, tokenizer=tokenizer), list[Tensor]()
    blocks = model.model.layers
    for ids, mask, last in padded(rows):
        with torch.no_grad(), model.trace({"input_ids": ids, "attention_mask": mask}) as tracer:
            kept = list().save()  # noqa: C408  (a name of a trace lives on only if what it names is saved)
            for layer in layers:
                kept.append(blocks[layer - 1].output)
            tracer.stop()
        streams = [h[0] if isinstance(h, tuple) else h for h in kept]
        out.append(torch.stack([h[torch.arange(len(ids)), last] for h in streams], 1))
    return torch.cat(out)


def nnsight_alone(n: int) -> None:
    """Serve the peer: for every line that comes in, record once and print the seconds; at the end, the result."""
    import logging

    logging.disable(logging.WARNING)
    from mechint.model.loading import load_parts

    parts = load_parts(MODEL)
    rows = [list(mi.prompts.tokenize(text, parts.tokenizer)) for text in texts_of(parts.tokenizer, n)]
    values = nnsight_capture(parts.hf_model, parts.tokenizer, rows, LAYERS)
    for _ in sys.stdin:
        seconds, values = timed(lambda: nnsight_capture(parts.hf_model, parts.tokenizer, rows, LAYERS), 1)
        sys.stdout.write(f"{json.dumps(seconds)}\n")
        sys.stdout.flush()
    sys.stdout.write(json.dumps(values.tolist()))


def in_turns(n: int, run: Callable[[], Tensor], repeats: int) -> tuple[float, float, Tensor] | None:
    """Time us and nnsight one after the other, each in its process: what drifts on the machine meets both.

    Returns our median, theirs and what they recorded; None where nnsight fails.
    """
    command, ours, theirs = [sys.executable, "-m", "benchmarks.capture", str(n)], list[float](), list[float]()
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as peer:
        assert peer.stdin is not None
        assert peer.stdout is not None
        try:
            for _ in range(repeats):
                peer.stdin.write("again\n")
                peer.stdin.flush()
                theirs.append(json.loads(peer.stdout.readline()))
                ours.append(timed(run, 1)[0])
            values, _ = peer.communicate()
        except (OSError, ValueError) as error:
            sys.stderr.write(f"nnsight could not be timed: {error!r}\n")
            return None
    return statistics.median(ours), statistics.median(theirs), torch.tensor(json.loads(values))


def compare(model: Any, texts: Sequence[str], layers: Sequence[int], repeats: int) -> tuple[dict[str, float], Tensor]:
    """Measure everything that runs in this process; also return what was recorded."""
    rows = [model.tokenize(text) for text in texts]
    expected = one_by_one(model, rows, layers)
    ways = {
        "ours": lambda: ours(model, texts, layers),
        "naive": lambda: bridge(model, rows, layers),
        "stopped": lambda: bridge(model, rows, layers, stop_at_layer=layers[-1]),
    }
    times: dict[str, list[float]] = {name: [] for name in ways}
    results: dict[str, Tensor] = {}
    for _ in range(repeats):  # in turns: what drifts on the machine meets all of them
        for name, way in ways.items():
            seconds, results[name] = timed(way, 1)
            times[name].append(seconds)
    fast, naive, stopped = (statistics.median(times[name]) for name in ways)
    values, also, same = (results[name] for name in ways)
    alone, _ = timed(lambda: one_by_one(model, rows, layers), 1)
    scale = float(expected.abs().max())
    return {
        "texts": float(len(rows)),
        "tokens": float(sum(map(len, rows))),
        "padding of passes of 16, share": 1 - sum(map(len, rows)) / sum(ids.numel() for ids, _, _ in padded(rows)),
        "ours, s": fast,
        "TransformerBridge run_with_cache, s": naive,
        "TransformerBridge stop_at_layer, s": stopped,
        "plain transformers one by one, all blocks, s": alone,
        "largest value": scale,
        "largest difference from one by one": float((values - expected).abs().max()),
        "largest difference of run_with_cache": float((also - expected).abs().max()),
        "largest difference of stop_at_layer": float((same - expected).abs().max()),
        "run_with_cache / ours": naive / fast,
        "stop_at_layer / ours": stopped / fast,
    }, values


def measure(n: int = 64, repeats: int = 3) -> dict[str, float]:
    """Return seconds and ratios."""
    model: Any = mi.load(MODEL)
    texts = texts_of(model.tokenizer, n)
    peak = peak_rate()
    found, values = compare(model, texts, LAYERS, repeats)
    peak = max(peak, peak_rate())
    blocks = model.hf_model.base_model.layers[: max(LAYERS)]
    weights = sum(p.numel() for block in blocks for p in block.parameters() if p.ndim == 2)
    found["floor: multiply-adds of the blocks at the peak rate, s"] = 2.0 * weights * found["tokens"] / peak
    found["ours / floor"] = found["ours, s"] / found["floor: multiply-adds of the blocks at the peak rate, s"]
    if peer := in_turns(n, lambda: ours(model, texts, LAYERS), repeats + 2):
        found["ours beside nnsight, s"], found["nnsight with stop, s"], theirs = peer
        found["largest difference from nnsight"] = float((theirs - values).abs().max())
        found["nnsight with stop / ours"] = found["nnsight with stop, s"] / found["ours beside nnsight, s"]
    return found


if __name__ == "__main__":
    nnsight_alone(int(sys.argv[1]))
