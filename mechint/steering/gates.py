"""Gates: conditions under which a part of a plan acts, with a state of their own for every row.

A gate compares a signal with a threshold, and the comparator is the symbol itself: `mi.gate(vector, ">", 0.2)`. (In
released code for conditional steering "larger" means the contrary of what it says, and one decision is shared by all
rows and even by several models.)

    signal              value
    a vector            (h·u) / n at the last token that was read: n the median |h| of its site, u = v/|v|
    "entropy"           entropy of the next token, in nats
    "certainty"         1 - entropy / log(size of the vocabulary)
    a text              1 once the generated text contains it, else 0

Vectors, entropy and certainty are known after a pass, so they open or close a gate from the next pass on, and the
prompt itself is read with the gate shut. A text counts in the pass that reads its last token. `hold` says what becomes
of a decision: "step" renews it at every pass, "latch" keeps a gate open once it has opened, "prompt" decides once,
after the prompt, for the whole text.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mechint.errors import InterventionError
from mechint.sites import Site
from mechint.vectors.vector import SteeringVector

_HOLDS = ("step", "latch", "prompt")
_NAMED = ("entropy", "certainty")


@dataclass(frozen=True, eq=False)
class Condition:
    """One signal against one threshold."""

    name: str
    comparator: str
    threshold: float
    hold: str
    site: Site | None = None
    direction: Float[Tensor, " width"] | None = None
    """In units of 1 / median |h|."""
    text: str | None = None

    def value(self, h: Float[Tensor, "batch width"]) -> Float[Tensor, " batch"]:
        """Return the signal of a vector at each row's last token."""
        assert self.direction is not None
        return h.float() @ self.direction

    def holds(self, values: Float[Tensor, " batch"]) -> Bool[Tensor, " batch"]:
        """Compare; a value that is not known (NaN) opens nothing."""
        return values > self.threshold if self.comparator == ">" else values < self.threshold


@dataclass(frozen=True, eq=False)
class Gate:
    """Conditions joined by `&`, `|` and `~`."""

    name: str
    conditions: tuple[Condition, ...]
    rule: Callable[[Sequence[Tensor]], Tensor]
    """From the state of each condition [batch] to that of the gate."""

    def __and__(self, other: "Gate") -> "Gate":
        return self._with(other, "&", torch.logical_and)

    def __or__(self, other: "Gate") -> "Gate":
        return self._with(other, "|", torch.logical_or)

    def __invert__(self) -> "Gate":
        return Gate(f"not {self.name}", self.conditions, lambda states: ~self.rule(states))

    def _with(self, other: "Gate", sign: str, join: Callable[[Tensor, Tensor], Tensor]) -> "Gate":
        n = len(self.conditions)
        return Gate(
            f"({self.name} {sign} {other.name})",
            self.conditions + other.conditions,
            lambda states: join(self.rule(states[:n]), other.rule(states[n:])),
        )

    def __str__(self) -> str:
        return self.name


def gate(signal: SteeringVector | str, comparator: str, threshold: float, *, hold: str = "step") -> Gate:
    """Open while a signal is above (">") or below ("<") a threshold, for each row by itself.

    Args:
        signal: a vector at one site, "entropy" or "certainty".
        comparator: ">" or "<".
        threshold: in units of the median |h| of the site for a vector, nats for entropy.
        hold: "step", "latch" or "prompt" (see the module).

    Examples:
        >>> print(gate("entropy", "<", 1.0) & gate_text("Wait"))
        (entropy < 1 & text has 'Wait')

    Raises:
        InterventionError: an unknown signal, comparator or hold, a threshold that is not finite, or a vector at several
            sites or of unknown norm.
    """
    if comparator not in (">", "<") or hold not in _HOLDS or not math.isfinite(threshold):
        raise InterventionError(
            f"gate(…, {comparator!r}, {threshold}, hold={hold!r}): expected '>' or '<', a finite threshold, and one of "
            f"{', '.join(_HOLDS)}."
        )
    if isinstance(signal, SteeringVector):
        if len(signal.sites) != 1 or signal.sites[0] not in signal.norms:
            raise InterventionError(
                f"A gate reads one site of known norm; this vector has {', '.join(map(str, signal.sites))}. "
                "Restrict it with at(...)."
            )
        (site,) = signal.sites
        name, direction = f"{signal.concept} at {site}", signal.unit(site) / signal.norms[site]
        condition = Condition(name, comparator, threshold, hold, site, direction)
    elif signal in _NAMED:
        condition = Condition(signal, comparator, threshold, hold)
    else:
        raise InterventionError(f"{signal!r} is no signal. Give a vector, or one of {', '.join(_NAMED)}.")
    return Gate(f"{condition.name} {comparator} {threshold:g}", (condition,), lambda states: states[0])


def gate_text(text: str) -> Gate:
    """Open from the pass that reads the last token of a text among the generated ones, for each row by itself.

    Raises:
        InterventionError: the text is empty.
    """
    if not text:
        raise InterventionError("gate_text(''): expected a text that can be looked for.")
    name = f"text has {text!r}"
    return Gate(name, (Condition(name, ">", 0.5, "latch", text=text),), lambda states: states[0])
