"""Starting in the middle: blocks below pass their input through, and a known stream enters where the run starts."""

from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn

from mechint.model.base import Restart


@contextmanager
def restarted(
    skipped: Sequence[nn.Module], first: nn.Module, restart: Restart, output_length: int | None
) -> Generator[None]:
    """Let every block below pass its input through, and put the given stream before the first that runs.

    Args:
        skipped: the transformers blocks below.
        first: the first block that runs.
        restart: the stream that enters there.
        output_length: how many things a block of this model returns; None if it returns a tensor.
    """

    def pass_through(hidden_states: Tensor, *args: Any, **kwargs: Any) -> Any:
        del args, kwargs
        return hidden_states if output_length is None else (hidden_states, *[None] * (output_length - 1))

    def enter(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        del module
        return (restart.resid_pre, *args[1:]), {k: v for k, v in kwargs.items() if k != "hidden_states"}

    with ExitStack() as stack:
        for block in skipped:
            # An instance attribute shadows the method; deleting it brings the method back.
            stack.callback(_restore_forward, block, block.__dict__.get("forward"))
            block.forward = pass_through
        stack.callback(first.register_forward_pre_hook(enter, with_kwargs=True).remove)
        yield


def _restore_forward(module: nn.Module, own: Any) -> None:
    if own is None:
        del module.forward
    else:  # somebody else, such as accelerate, had shadowed it before
        module.forward = own
