"""What a run of the pipeline would cost, from its settings and a model's published shape alone: an estimate.

    FLOPs of T tokens behind a context c   2 T P + 4 T c L H d_head       P: weights of blocks, and of the unembedding
    time                                   max(FLOPs / rate, passes x bytes of the weights / bandwidth)

Every text is taken to be as long as it may be, so real runs cost less where the model comes to an end.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mechint.errors import ConfigError
from mechint.probes.critique_pipeline.settings import PipelineSettings

_BEGUN = 150
"""Tokens of question and given solution, about (mean of the published traces: 113)."""
_QUESTION = 400
"""Of a question for the first wrong step."""
_ROWS_OF_A_FILE = 300
"""Where a file is not limited: the size of most BIG-Bench Mistake files."""


@dataclass(frozen=True)
class _Work:
    table: str
    units: int
    rows: int
    written: int
    """Tokens, one after another within a row."""
    read: int
    """Tokens, read at once."""
    context: float
    """Tokens attended to by each, on average."""
    bytes: int


def pipeline_size(s: PipelineSettings) -> list[Mapping[str, Any]] | None:
    """Return `table`, `units`, `rows`, `tokens`, `bytes`, `flops` and `seconds` of each stage; None without a shape.

    `bytes` are those needed at once: weights, and the activations that are kept or, where text is written, the
    key/value cache of a batch.
    """
    if s.shape is None:
        return None
    if s.layers and max(s.layers) >= s.shape.n_layers:
        raise ConfigError(f"layers = {list(s.layers)}; the shape has {s.shape.n_layers}, counted from 0.")
    return [_told(s, work) for work in _stages(s)]


def _stages(s: PipelineSettings) -> Sequence[_Work]:
    assert s.shape is not None
    layers = len(s.layers) or s.shape.n_layers
    kept = 2 * s.problems * layers * s.shape.d_model * 4
    read = 2 * s.problems * min(s.most_tokens, s.max_new_tokens + _BEGUN)
    drawn = s.random * len({alpha for alpha in (max(s.alphas), min(s.alphas)) if alpha})
    files, rows = len(s.bbm) + len(s.processbench), s.most_rows or _ROWS_OF_A_FILE
    thought = _BEGUN + s.stacks * s.max_new_tokens // 2
    parts = (s.problems, s.select, s.test)
    stages = [
        _written(s, "runs", [n for n in parts for _ in s.runs], s.max_new_tokens),
        _Work("vectors", 3, 2 * s.problems, 0, read, s.most_tokens / 2, kept),
        _written(s, "layer_effect", [s.select] * (0 if s.layer >= 0 else 2 * layers), s.max_new_tokens),
        _written(s, "steering", [s.test] * 2 * (len(set(s.alphas)) + drawn), s.max_new_tokens),
        _written(s, "detection", [rows] * files * len(s.alphas), s.max_new_tokens, _QUESTION),
        _written(s, "scaling", [s.test] * len(s.stack_alphas), s.max_new_tokens, thought, 1 + s.stacks),
    ]
    return [work for work in stages if work.rows]


def _written(
    s: PipelineSettings, table: str, sizes: Sequence[int], tokens: int, begun: int = _BEGUN, times: int = 1
) -> _Work:
    """Return the work of writing behind texts that come in sets of these sizes, each cut into units, several times."""
    assert s.shape is not None
    cache = 2 * s.shape.n_layers * s.shape.n_kv_heads * s.shape.d_head * s.machine.bytes_per_number
    rows, units = times * sum(sizes), sum(-(-size // s.unit_rows) for size in sizes)
    longest = min(rows, s.batch) * (begun + tokens)
    return _Work(table, units, rows, rows * tokens, rows * begun, begun + tokens / 2, cache * longest)


def _told(s: PipelineSettings, work: _Work) -> Mapping[str, Any]:
    assert s.shape is not None
    shape, machine = s.shape, s.machine
    unembedding = shape.d_vocab * shape.d_model
    tokens = work.written + work.read
    attention = 4 * tokens * work.context * shape.n_layers * shape.n_heads * shape.d_head
    flops = 2 * tokens * shape.block_parameters + 2 * work.written * unembedding + attention
    weights = (shape.block_parameters + unembedding) * machine.bytes_per_number
    passes = work.written / s.batch
    seconds = max(flops / machine.flops_per_second, passes * weights / machine.bytes_per_second)
    return {
        "table": work.table,
        "units": work.units,
        "rows": work.rows,
        "tokens": tokens,
        "bytes": work.bytes + shape.parameters * machine.bytes_per_number,
        "flops": flops,
        "seconds": seconds,
    }
