"""Static OV ranks of one head of Gemma-3-270m: 512 sampled tokens against the whole vocabulary, against the floor.

The floor is the one matrix product that has to be done, 512 x 640 x 262,144 multiply-adds, at the peak matmul rate of
the same run.
"""

import statistics
import time

import torch

import mechint as mi
from benchmarks.floor import peak_rate
from mechint.effects.effective_embedding import effective_embedding
from mechint.effects.static_circuits import ov_outputs, own_token_ranks

LAYER, HEAD, ROWS, REPEATS = 14, 1, 512, 3


def measure() -> dict[str, float]:
    """Return seconds, the ratio to the floor, and how many ranks differ from dense ones in float64."""
    model = mi.load("gemma3-270m")
    facts = model.facts
    tokens = torch.randperm(facts.d_vocab, generator=torch.Generator().manual_seed(0))[:ROWS].sort().values
    written = ov_outputs(model, LAYER, tokens.tolist(), effective_embedding(model, tokens.tolist()))[:, [HEAD]]
    peak, times = peak_rate(), []
    ranks = torch.empty(0)
    for _ in range(REPEATS):
        start = time.perf_counter()
        ranks, _ = own_token_ranks(written, tokens, model)
        times.append(time.perf_counter() - start)
    peak = max(peak, peak_rate())
    floor = 2 * ROWS * facts.d_model * facts.d_vocab / peak
    some = slice(0, 8)
    dense = written[some, 0].double() @ model.unembedding(slice(0, facts.d_vocab)).double().T
    own = dense.gather(1, tokens[some, None])
    exact = (dense < own).sum(1)
    return {
        "rows": float(ROWS),
        "peak, GFLOP/s": peak / 1e9,
        "static ranks, s": statistics.median(times),
        "floor, s": floor,
        "static ranks / floor": statistics.median(times) / floor,
        "largest difference from float64 ranks, of 262,144": float((ranks[0, some] - exact).abs().max()),
    }
