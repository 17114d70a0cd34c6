"""Parts of a bridged model in which nobody looks run as transformers wrote them.

TransformerLens wraps every norm, projection and attention of a model to show what passes through it, which costs a
quarter of the time of a pass over one token. Where no hook point inside a wrapper has a hook, a bare copy of what it
wraps takes its place for the pass: the same parameters, no wrapper anywhere inside. The numbers are the same but for
rounding: transformers takes the softmax of attention in float32 whatever the format, which a model in float64 shows.
So this is for passes that go on from a past, one token at a time, and for recordings; measurements that compare passes,
some of which look inside and some not, all see the wrapped model.
"""

# pyright: reportPrivateUsage=false
# PyTorch has no public way to ask for hooks, nor to exchange a child without checking for parameters first.

import copy
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

from torch import Tensor, nn

from mechint.model.products import product


@dataclass(frozen=True, eq=False)
class _Slot:
    """A place in the tree of modules where a wrapper stands."""

    children: dict[str, nn.Module | None]
    """Of the module that the wrapper is a child of: PyTorch's own dictionary."""
    name: str
    wrapper: nn.Module

    @cached_property
    def bare(self) -> nn.Module:
        """What is wrapped, without wrappers inside."""
        return _bare(self.wrapper)


class Wrappers:
    """All wrappers of a model.

    Args:
        body: the transformers model in whose tree they stand; a pass must have gone through it, since TransformerLens
            hangs hooks of its own on some wrappers in the first one.
        points: every hook point, to be known by identity.
    """

    def __init__(self, body: nn.Module, points: Mapping[str, Any]) -> None:
        known = {id(point) for point in points.values()}
        # A wrapper's own attributes are how it is asked for; only transformers' tree is what a pass goes through.
        self._slots = [
            _Slot(parent._modules, name, child)
            for parent in (module for module in body.modules() if not hasattr(module, "original_component"))
            for name, child in parent.named_children()
            if _wrapped(child) is not None
        ]
        # A wrapper that was born with hooks feeds points of the wrappers around it: it stays where they do.
        feeding = {slot.wrapper: slot for slot in self._slots if any(map(len, _hooks(slot.wrapper)))}
        inside: dict[nn.Module, set[_Slot]] = {}
        for slot in self._slots:
            modules = list(slot.wrapper.modules())
            needed = {slot, *(feeding[module] for module in modules if module in feeding)}
            for module in modules:
                if id(module) in known or module is slot.wrapper:
                    inside.setdefault(module, set()).update(needed)
        self._hooks = [hooks for module in inside for hooks in _hooks(module)]
        """Every dictionary of hooks that may be looked at; PyTorch fills and empties them in place."""
        self._needed = [slots for module, slots in inside.items() for _ in _hooks(module)]
        """For each of these, the wrappers that must stay if it holds more than it was born with."""
        self._born_with = list(map(len, self._hooks))
        self._decided: dict[tuple[int, ...], list[_Slot]] = {}

    @contextmanager
    def only_where_watched(self) -> Generator[None]:
        """Take the wrappers in which nobody looks out, for as long as the context lasts."""
        taken = self._unwatched(tuple(map(len, self._hooks)))
        try:
            for slot in taken:
                slot.children[slot.name] = slot.bare
            yield
        finally:
            for slot in taken:
                slot.children[slot.name] = slot.wrapper

    def _unwatched(self, now: tuple[int, ...]) -> list[_Slot]:
        if now not in self._decided:
            watched = zip(now, self._born_with, self._needed, strict=True)
            stay = {slot for have, born_with, slots in watched if have != born_with for slot in slots}
            out = [slot for slot in self._slots if slot not in stay]
            # A bare copy has none of the wrappers that stood inside, so only the outermost are exchanged.
            inside = {module for slot in out for module in slot.wrapper.modules() if module is not slot.wrapper}
            self._decided = {now: [slot for slot in out if slot.wrapper not in inside]}
        return self._decided[now]


def _wrapped(module: nn.Module | None) -> nn.Module | None:
    """Return what a wrapper wraps; None if it is none."""
    wrapped = getattr(module, "original_component", None)
    return wrapped if isinstance(wrapped, nn.Module) else None


class _FewRows(nn.Linear):
    """A linear map that takes the fastest way for as few rows as a step of decoding has."""

    def forward(self, input: Tensor) -> Tensor:
        # What follows in a model may take it for contiguous, as a layer's output always is.
        y = product(input, self.weight).contiguous()
        return y if cast("Tensor | None", self.bias) is None else y + self.bias


def _bare(module: nn.Module) -> nn.Module:
    if (wrapped := _wrapped(module)) is not None:
        return _bare(wrapped)
    # A shallow copy shares parameters, buffers and hooks: it is the same module with other children.
    copied = copy.copy(module)
    if type(copied) is nn.Linear and "forward" not in copied.__dict__:
        copied.__class__ = _FewRows
    copied._modules = {name: child and _bare(child) for name, child in module._modules.items()}
    return copied


def _hooks(module: nn.Module) -> tuple[Mapping[int, Any], ...]:
    return module._forward_pre_hooks, module._forward_hooks, module._backward_hooks
