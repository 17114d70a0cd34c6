"""The fastest of three ways to the same product.

Logits are x Wᵀ. For a handful of rows of x, BLAS libraries are far from what memory allows, and which way is best
depends on the library, the machine and the number of rows:

    rows first       x Wᵀ, as a linear layer does it
    weights first    (W xᵀ)ᵀ, a view
    in blocks        x times 64 columns of Wᵀ at a time, all of them in one batched product

With W of 262,144 x 640 on two cores and MKL, 8 rows take 93, 77 and 40 ms, where reading W takes 26; 32 rows take 73,
73 and 88. So all are timed, once for a size on a machine, and the choice is kept in the cache: results of later runs do
not hang on the clock, since the ways differ in the last bits.
"""

import functools
import json
import logging
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal, get_args

import filelock
import torch
from jaxtyping import Float
from torch import Tensor, nn

from mechint.errors import CacheError
from mechint.model import cache

_log = logging.getLogger(__name__)

Way = Literal["rows first", "weights first", "in blocks"]
_BLOCK = 64
"""Columns of a block: the fastest of 32 to 512, by a little."""
_MOST_ROWS = 32
"""Beyond this many rows a product is bound by arithmetic, and the way does not matter."""
_LEAST_NUMBERS = 2**17
"""Smaller matrices are not worth a measurement."""
_MORE_THAN_A_CACHE = 2**27
_MOST_MATRICES = 64


def product(x: Float[Tensor, "*batch d_model"], W: Float[Tensor, "d_vocab d_model"]) -> Float[Tensor, "*batch d_vocab"]:
    """Return x Wᵀ, by the way that was found to be the fastest for this many rows."""
    return _WAYS[_way(x.numel() // x.shape[-1], W)](x, W)


def _way(rows: int, W: Tensor) -> Way:
    if not 1 < rows <= _MOST_ROWS or W.numel() < _LEAST_NUMBERS:
        return "rows first"
    device = "cpu" if W.device.type == "cpu" else torch.cuda.get_device_name(W.device)
    return fastest(rows, *W.shape, str(W.dtype).removeprefix("torch."), device, torch.get_num_threads())


@functools.cache
def fastest(rows: int, d_vocab: int, d_model: int, dtype: str, device: str, threads: int) -> Way:
    """Return which way is the fastest here, from the cache or by timing all."""
    about = [
        rows,
        d_vocab,
        d_model,
        dtype,
        device,
        threads,
        platform.machine(),
        platform.processor(),
        torch.__version__,
        *_WAYS,
    ]
    key, place = "/".join(map(str, about)), cache.root() / "products.json"
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(f"{place}.lock", timeout=60):
            known = _known(place)
            if key not in known:
                known[key] = _time(rows, d_vocab, d_model, dtype, device)
                cache.write_json(place, known)
            return known[key]
    except (OSError, CacheError, filelock.Timeout) as error:
        _log.info("The choice of product is not kept: %s", error)
        return _time(rows, d_vocab, d_model, dtype, device)


def _known(place: Path) -> dict[str, Way]:
    try:
        known = json.loads(place.read_text())
    except (FileNotFoundError, ValueError):
        return {}
    return {key: way for key, way in known.items() if way in get_args(Way)} if isinstance(known, dict) else {}


def _weights_first(x: Tensor, W: Tensor) -> Tensor:
    # A view: the result is as long as the vocabulary, and a copy of it would cost a tenth of a step.
    return (W @ x.reshape(-1, x.shape[-1]).T).T.unflatten(0, x.shape[:-1])


def _in_blocks(x: Tensor, W: Tensor) -> Tensor:
    rows, whole = x.reshape(-1, x.shape[-1]), len(W) // _BLOCK * _BLOCK
    blocks = W[:whole].unflatten(0, (-1, _BLOCK)).transpose(1, 2)
    y = torch.bmm(rows.expand(len(blocks), -1, -1), blocks).transpose(0, 1).flatten(1)
    if whole < len(W):
        y = torch.cat([y, nn.functional.linear(rows, W[whole:])], 1)
    return y.unflatten(0, x.shape[:-1])


_WAYS: dict[Way, Callable[[Tensor, Tensor], Tensor]] = {
    "rows first": nn.functional.linear,
    "weights first": _weights_first,
    "in blocks": _in_blocks,
}


def _time(rows: int, d_vocab: int, d_model: int, dtype: str, device: str) -> Way:
    where = "cpu" if device == "cpu" else "cuda"
    # As many matrices as no cache holds: in a model, each is read from memory.
    n = max(1, min(_MOST_MATRICES, _MORE_THAN_A_CACHE // (4 * d_vocab * d_model)))
    weights = [torch.zeros(d_vocab, d_model, dtype=getattr(torch, dtype), device=where) for _ in range(n)]
    x = torch.ones(rows, d_model, dtype=weights[0].dtype, device=where)
    seconds: dict[Way, float] = {}
    for _ in range(4):  # the first round warms up, and is beaten by the others
        for name, way in _WAYS.items():
            if where == "cuda":
                torch.cuda.synchronize()
            start = time.perf_counter()
            for W in weights:
                way(x, W)
            if where == "cuda":
                torch.cuda.synchronize()
            seconds[name] = min(seconds.get(name, float("inf")), time.perf_counter() - start)
    return min(_WAYS, key=lambda name: seconds[name])
