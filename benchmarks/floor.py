"""What the hardware allows: the matmul rate of this machine, and the multiply-adds that a task cannot do without."""

import statistics
import time

import torch

from mechint.model.base import Model


def peak_rate(size: int = 2048, seconds: float = 4.0) -> float:
    """Return the best rate of a square float32 matrix product, in floating-point operations a second."""
    a, b = torch.randn(size, size), torch.randn(size, size)
    rates: list[float] = []
    start = time.perf_counter()
    while time.perf_counter() - start < seconds:
        before = time.perf_counter()
        a @ b
        rates.append(2 * size**3 / (time.perf_counter() - before))
    return statistics.quantiles(rates, n=10)[-1]


def sweep_operations(model: Model, n_tokens: int) -> float:
    """Count what zero-ablating every head alone needs, in floating-point operations.

    For a head of block l: the output projection and the MLP of block l, and every linear map of the blocks after it,
    at every token; attention scores, norms and the unembedding are left out.
    """
    blocks = [dict(block.named_parameters()) for block in model.hf_model.base_model.layers]
    weights = [{name: p.numel() for name, p in block.items() if p.ndim == 2} for block in blocks]
    whole = [sum(block.values()) for block in weights]
    after_heads = [sum(n for name, n in block.items() if "o_proj" in name or "mlp" in name) for block in weights]
    total = 0
    for layer in range(len(blocks)):
        total += model.facts.n_heads * (after_heads[layer] + sum(whole[layer + 1 :]))
    return 2.0 * total * n_tokens
