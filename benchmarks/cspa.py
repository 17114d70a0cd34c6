"""CSPA of one head of Gemma-3-270m, L14H1, on 8 documents of 128 tokens; the head is arbitrary, no found suppressor.

closed form   `keep_projections`: coefficients for every pair of positions, nothing of their size x d_model
4-D form      the definition: a tensor [batch, query, key, d_model] of terms, projected and added up
KL            `divergence` of full ablation and CSPA, all positions, against the three matrix products that it needs
"""

import statistics
import threading
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

import mechint as mi
from benchmarks.floor import peak_rate
from mechint.effects.attribution import final_norm
from mechint.effects.divergence import divergence
from mechint.effects.documents import Documents
from mechint.effects.head_outputs import HeadRun, mean_outputs, read_heads, to_logits
from mechint.probes.copy_suppression.context_tokens import eligible_sources, kept_sources
from mechint.probes.copy_suppression.cspa import RULES, keep_projections, unit
from mechint.probes.copy_suppression.cspa_findings import vocabulary_of

LAYER, HEAD = 14, 1
CHECKED = 12


def documents(model: mi.Model, n: int, length: int) -> Documents:
    """Cut documents from one long text made of paragraphs: single paragraphs are too short."""
    text = " ".join(prompt.prompt for prompt in mi.prompts.natural(n * length // 30 + 8))
    tokens = model.tokenize(text)
    bos, rest = tokens[:1], tokens[1:]
    rows = [bos + rest[i * (length - 1) : (i + 1) * (length - 1)] for i in range(n)]
    names = tuple(f"{i}" for i in range(n))
    return Documents(names, names, torch.tensor(rows))


def four_dimensional(run: HeadRun, mean: Tensor, directions: Tensor, kept: Tensor) -> Tensor:
    """The definition, term by term."""
    ablated = run.attention[..., None] * mean[None, :, None]
    terms = (run.attention * run.post_factor[..., None])[..., None] * run.sources[:, None]
    along = ((terms - ablated) * directions[:, None]).sum(-1)
    along = along.clamp(max=0) * kept
    return (along[..., None] * directions[:, None] + ablated).sum(2)


def resident() -> float:
    """Memory of this process now, in GiB."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith("VmRSS:")) / 2**20


def timed(run: Callable[[], object], repeats: int) -> float:
    """Return the median time."""
    times: list[float] = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def extra_memory(run: Callable[[], object]) -> float:
    """Return by how much the memory of this process grows meanwhile, at most, in GiB; sampled every millisecond."""
    before, highest, done = resident(), resident(), threading.Event()

    def watch() -> None:
        nonlocal highest
        while not done.wait(0.001):
            highest = max(highest, resident())

    watcher = threading.Thread(target=watch)
    watcher.start()
    run()
    done.set()
    watcher.join()
    return max(highest, resident()) - before


def exact_kl(model: mi.Model, normalised: Tensor, changes: Tensor) -> Tensor:
    """Return KL from all logits in float64, for few positions."""
    stacked, blocks = torch.cat([normalised[None].double(), normalised.double() + changes.double()]), []
    for start in range(0, model.facts.d_vocab, 16_384):
        columns = slice(start, min(start + 16_384, model.facts.d_vocab))
        blocks.append(stacked @ model.unembedding(columns).double().T + model.output_bias(columns))
    clean, *changed = torch.cat(blocks, -1).log_softmax(-1)
    return torch.stack([(clean.exp() * (clean - other)).sum(-1) for other in changed])


@torch.no_grad()
def measure(n: int = 8, length: int = 128, repeats: int = 3) -> dict[str, float]:
    """Return seconds, ratios, memory and errors."""
    model = mi.load("gemma3-270m")
    texts = documents(model, n, length)
    mean = mean_outputs(model, texts)[LAYER, HEAD]
    (run,) = read_heads(model, texts, [(LAYER, HEAD)])
    final = final_norm(model)
    outputs = final.centre(final.gain * model.unembedding(texts.tokens))
    eligible = eligible_sources(texts.tokens, vocabulary_of(model, RULES).excluded, model.facts.windows[LAYER])
    lens = (run.resid_pre @ outputs.transpose(1, 2))[..., None]
    kept = kept_sources(lens, texts.tokens, eligible)[..., 0]
    directions = unit(outputs)

    def closed() -> Tensor:
        return keep_projections(run.attention, run.sources, run.post_factor, mean, directions, kept)

    def naive() -> Tensor:
        return four_dimensional(run, mean, directions, kept)

    peak = peak_rate()
    fast, slow = timed(closed, 3 * repeats), timed(naive, repeats)
    difference = (closed() - naive()).abs().max() / naive().abs().max()
    new = torch.stack([mean.expand_as(run.output), closed()])
    changes = to_logits(model, new - run.output, run.resid_final).flatten(1, 2)
    normalised, following = final(run.resid_final).flatten(0, 1), texts.tokens.roll(-1, 1).flatten()
    kl = timed(lambda: divergence(model, normalised, changes, following), repeats)
    peak = max(peak, peak_rate())
    floor = 2.0 * 3 * normalised.numel() * model.facts.d_vocab / peak
    rows = torch.linspace(1, len(normalised) - 1, CHECKED).long()
    rows = rows[rows % length > 0]  # at position 0 every document is the same, and so is the head
    found, exact = (f(model, normalised[rows], changes[:, rows]) for f in (divergence, exact_kl))
    error = ((found.kl - exact).abs() / exact).max()
    return {
        "positions": float(len(normalised)),
        "peak, GFLOP/s": peak / 1e9,
        "closed form, s": fast,
        "4-D form, s": slow,
        "4-D form / closed form": slow / fast,
        "closed form: extra memory, GiB": extra_memory(closed),
        "4-D form: extra memory, GiB": extra_memory(naive),
        "largest relative difference of the two": float(difference),
        "KL of two changes, s": kl,
        "floor of its three products, s": floor,
        "KL / floor": kl / floor,
        "KL: extra memory, GiB": extra_memory(lambda: divergence(model, normalised, changes, following)),
        "KL: largest relative error against float64": float(error),
        "smallest KL of these, nats": float(exact.min()),
    }
