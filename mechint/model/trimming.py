"""The last block's MLP, at the positions that are asked for only.

After the last attention nothing moves between positions, so where neither a read, nor a logit, nor a write needs it the
last MLP need not be computed. In a sweep over heads every pass ends in the last block, and only the last token of each
prompt is looked at.
"""

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


def common_places(indices: Sequence[Tensor | None]) -> Tensor | None:
    """Return the one choice of columns `[batch, at]` that all of them are, or None where there is none."""
    chosen = [index for index in indices if index is not None]
    if not chosen or len(chosen) < len(indices):
        return None
    first = chosen[0]
    return first if all(index.shape == first.shape and torch.equal(index, first) for index in chosen) else None


@contextmanager
def only_at(mlp: nn.Module, index: Tensor) -> Generator[None]:
    """Let an MLP compute some columns of its input `[batch, pos, d_model]` only; the others are zero in its output.

    Args:
        mlp: a module that takes one tensor and returns one, position by position.
        index: the columns `[batch, at]`.
    """
    rows = torch.arange(len(index))[:, None]
    width: list[int] = []

    def cut(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        del module
        width.append(args[0].shape[1])
        return (args[0][rows, index], *args[1:])

    def spread(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
        del module, args
        whole = output.new_zeros(len(index), width.pop(), output.shape[-1])
        whole[rows, index] = output
        return whole

    before = mlp.register_forward_pre_hook(cut)
    try:
        after = mlp.register_forward_hook(spread)
        try:
            yield
        finally:
            after.remove()
    finally:
        before.remove()


def is_plain_map(run: Callable[[], Any], mlp: nn.Module) -> bool:
    """Whether an MLP takes one tensor and returns one, and so can be cut; mixtures of experts return more."""
    seen: list[bool] = []

    def note(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        del module
        seen.append(len(args) == 1 and not kwargs and isinstance(args[0], Tensor) and isinstance(output, Tensor))

    handle = mlp.register_forward_hook(note, with_kwargs=True)
    try:
        run()
    finally:
        handle.remove()
    return bool(seen) and all(seen)
