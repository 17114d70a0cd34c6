"""Parts of a bridged model in which nobody looks run as transformers wrote them.

TransformerLens wraps every norm, projection and attention of a model to show what passes through it, which costs a
quarter of the time of a pass over one token. Where no hook point inside a wrapper has a hook, the wrapper is taken out
for the pass and the wrapped module put in its place. The numbers are the same but for rounding: transformers takes the
softmax of attention in float32 whatever the format, which a model in float64 shows. So this is for passes that go on
from a past, one token at a time; measurements, some of which look inside and some not, all see the wrapped model.
"""

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import nn


@dataclass(frozen=True, eq=False)
class _Slot:
    """A place in the tree of modules where a wrapper stands."""

    parent: nn.Module
    name: str
    wrapper: nn.Module
    wrapped: nn.Module


class Wrappers:
    """All wrappers of a model.

    Args:
        body: the transformers model in whose tree they stand.
        points: every hook point, to be known by identity.
    """

    def __init__(self, body: nn.Module, points: Mapping[str, Any]) -> None:
        known = {id(point) for point in points.values()}
        self._slots: list[_Slot] = []
        self._places: list[tuple[nn.Module, int, list[_Slot]]] = []
        """What may be looked at: with how many hooks it was born, and the wrappers in which it lies."""
        inside: dict[nn.Module, list[_Slot]] = {}
        # A wrapper's own attributes are how it is asked for; only transformers' tree is what a pass goes through.
        for parent in (module for module in body.modules() if not hasattr(module, "original_component")):
            for name, child in parent.named_children():
                wrapped = getattr(child, "original_component", None)
                if isinstance(wrapped, nn.Module):
                    slot = _Slot(parent, name, child, wrapped)
                    self._slots.append(slot)
                    for module in child.modules():
                        if id(module) in known or module is child:
                            inside.setdefault(module, []).append(slot)
        self._places = [(module, _hooks(module), slots) for module, slots in inside.items()]

    @contextmanager
    def only_where_watched(self) -> Generator[None]:
        """Take the wrappers in which nobody looks out, for as long as the context lasts."""
        watched = {slot for place, born_with, slots in self._places if _hooks(place) != born_with for slot in slots}
        taken = [slot for slot in self._slots if slot not in watched]
        try:
            for slot in taken:
                setattr(slot.parent, slot.name, slot.wrapped)
            yield
        finally:
            for slot in taken:
                setattr(slot.parent, slot.name, slot.wrapper)


def _hooks(module: nn.Module) -> int:
    # torch has no public way to ask.
    kinds = ("_forward_pre_hooks", "_forward_hooks", "_backward_hooks")
    return sum(len(getattr(module, kind)) for kind in kinds)
