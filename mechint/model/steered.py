"""Steerings: what acts on every pass through a model while it is in force, whoever starts the pass.

`Model.run` takes the writes of one pass. A steering decides them anew for each pass from the whole rows, and is in
force for passes that somebody else starts as well, such as those of `hf_model.generate`.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any, Protocol, runtime_checkable

from torch import nn

from mechint.interventions import Intervention
from mechint.model.foreign import ForeignRows
from mechint.positions import TokenBatch
from mechint.sites import Site

Write = Mapping[str | Site, Intervention | Sequence[Intervention]] | Mapping[Site, Sequence[Intervention]]
Visits = Callable[[TokenBatch, int, Mapping[Site, Sequence[Intervention]]], AbstractContextManager[None]]


@runtime_checkable
class Steering(Protocol):
    """Something that rewrites activations in every pass, deciding anew what to do in each."""

    def writes(self, batch: TokenBatch, start: int) -> Mapping[Site, Sequence[Intervention]]:
        """Return what to do in a pass over the columns from `start` on; positions are those of the whole rows."""
        ...


def merged(
    steerings: Sequence[Steering],
    batch: TokenBatch,
    start: int,
    last: Site | None,
    write: Write,
) -> Write:
    """Put the writes of steerings before those of this one run; what lies after `last` cannot matter to it."""
    if not steerings:
        return write
    together: dict[Site, list[Intervention]] = {}
    for steering in steerings:
        for site, interventions in steering.writes(batch, start).items():
            if last is None or site.whole <= last.whole:
                together.setdefault(site, []).extend(interventions)
    for text, given in write.items():
        site = Site.parse(text)
        together.setdefault(site, []).extend([given] if isinstance(given, Intervention) else given)
    return together


@contextmanager
def following(body: nn.Module, tokenizer: Any, ours: Callable[[], bool], visits: Visits, steering: Steering) -> Any:
    """Let a steering act on the passes through `body` that are not our own.

    Args:
        body: the transformers model without its unembedding.
        tokenizer: for positions that are told by the text.
        ours: whether the pass that begins was started by `Model.run`, which sees to its writes itself.
        visits: from rows, their first new column and the writes to a context in which the writes act.
        steering: what decides the writes.
    """
    rows, inside = ForeignRows(tokenizer), ExitStack()

    def enter(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        del module
        if not ours():
            batch, start = rows.read(args, kwargs)
            inside.enter_context(visits(batch, start, steering.writes(batch, start)))

    def leave(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        del module, args, output
        inside.close()

    before = body.register_forward_pre_hook(enter, with_kwargs=True)
    after = body.register_forward_hook(leave, always_call=True)
    try:
        yield
    finally:
        inside.close()
        before.remove()
        after.remove()
