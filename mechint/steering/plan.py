"""A plan: what to change, where in the network, on which tokens, how strongly, and under which condition.

    plan = mi.add(vector, dose=0.4, where=mi.generated(0, 64)) + mi.ablate("L10H7")
    plan = plan.when(mi.gate("entropy", "<", 1.0))

Plans are values, composed with `+`. Parts at one site that touch the same token are carried out in order if the policy
is "sequential"; "priority" gives the token to the part that comes last; by default it is an error, unless all of them
only add, which commutes. A dose may be a number or a function of t, where t = 0 is the pass that consumes the first
generated token and t = -1 the last prompt token (which produces the first generated one).
"""

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from mechint.errors import InterventionError
from mechint.model.base import Model
from mechint.positions import Positions, TokenBatch, everywhere
from mechint.sites import Site
from mechint.steering.actions import Action
from mechint.steering.gates import Gate

if TYPE_CHECKING:
    from mechint.steering.session import Session
else:
    Session = Any

_POLICIES = ("raise", "sequential", "priority")
Dose = float | Callable[[int], float]


@dataclass(frozen=True, eq=False)
class Part:
    """One thing that a plan does, at one or several sites."""

    name: str
    actions: Mapping[Site, Action]
    dose: Dose = 1.0
    where: Positions = everywhere
    gate: Gate | None = None
    unit: str = ""
    """What a dose of 1 is, in words; "" if it needs none."""

    def __post_init__(self) -> None:
        if not self.actions:
            raise InterventionError(f"{self.name} is given no site, so it would do nothing.")
        if not callable(self.dose):
            _require_finite(self.dose, self.name)

    @property
    def off(self) -> bool:
        """Whether its dose is 0 throughout, so that it is meant to do nothing."""
        return not callable(self.dose) and self.dose == 0

    def doses(self, batch: TokenBatch) -> Float[Tensor, "batch pos"]:
        """Return the dose of every token of whole rows, 0 where it does not act; gates not counted."""
        mask = self.where.mask(batch)
        if not callable(self.dose):
            return mask.float() * self.dose
        t = batch.offset - batch.prompt_lengths[:, None]
        doses = torch.zeros(mask.shape)
        for step in t[mask].unique().tolist():
            dose = float(self.dose(step))
            _require_finite(dose, f"{self.name}, at t = {step}")
            doses[mask & (t == step)] = dose
        return doses

    def __str__(self) -> str:
        dose = getattr(self.dose, "__name__", "f(t)") if callable(self.dose) else f"{self.dose:g}"
        dose = f"{dose} x {self.unit}" if self.unit else dose
        gate = "" if self.gate is None else f" when {self.gate}"
        return f"{self.name} at {', '.join(map(str, self.actions))}, dose {dose}, on {self.where}{gate}"


@dataclass(frozen=True, eq=False)
class Plan:
    """Parts, in order."""

    parts: tuple[Part, ...]
    policy: str = "raise"

    def __post_init__(self) -> None:
        if not self.parts:
            raise InterventionError("A plan needs at least one part.")
        if self.policy not in _POLICIES:
            raise InterventionError(f"{self.policy!r} is no policy. There are: {', '.join(_POLICIES)}.")

    def __add__(self, other: "Plan") -> "Plan":
        if self.policy != other.policy:
            raise InterventionError(
                f"One plan resolves conflicts by {self.policy!r}, the other by {other.policy!r}. Give both the same "
                "policy with resolving(...), or set it on their sum."
            )
        return replace(self, parts=self.parts + other.parts)

    def resolving(self, policy: str) -> "Plan":
        """Return the plan with another way to deal with parts that want the same token."""
        return replace(self, policy=policy)

    def when(self, gate: Gate) -> "Plan":
        """Return the plan with all parts under a condition, on top of any that they have."""
        gated = [replace(p, gate=gate if p.gate is None else p.gate & gate) for p in self.parts]
        return replace(self, parts=tuple(gated))

    def on(self, model: Model, *, strict: bool = True) -> AbstractContextManager[Session]:
        """Let the plan act on every pass through a model until the context is left; see `Model.apply`."""
        from mechint.steering.session import session

        return session(self, model, strict=strict)

    def check(self, model: Model) -> None:
        """Make sure that a model has every site at which this plan acts.

        Raises:
            SiteError: it has not.
        """
        for part in self.parts:
            for site in part.actions:
                model.facts.check(site)

    def dry_run(self, model: Model, prompts: Sequence[str], *, max_new_tokens: int = 4) -> pd.DataFrame:
        """List what would fire where, without running the model.

        Generated tokens are not known yet, so those that are chosen by their text are not listed; gates are taken to
        be open, and named.

        Returns:
            One row for every part, site and token it would touch: `row`, `position`, `token`, `t`, `part`, `site`,
            `dose`, `gate`.
        """
        self.check(model)
        texts = [model.tokenize(prompt) for prompt in prompts]
        batch = TokenBatch.from_rows(
            [[*text, *[0] * max_new_tokens] for text in texts],
            prompt_lengths=[len(text) for text in texts],
            tokenizer=model.tokenizer,
        )
        found: list[dict[str, Any]] = []
        for part in self.parts:
            doses = part.doses(batch)
            for row, place in doses.nonzero().tolist():
                t = place - len(texts[row])
                token = model.tokenizer.decode([texts[row][place]]) if t < 0 else f"(generated {t})"
                about = {"row": row, "position": place, "token": token, "t": t, "part": part.name}
                about |= {"dose": float(doses[row, place]), "gate": "" if part.gate is None else str(part.gate)}
                found += [{**about, "site": str(site)} for site in part.actions]
        columns = ["row", "position", "token", "t", "part", "site", "dose", "gate"]
        return pd.DataFrame(found, columns=columns)

    def __str__(self) -> str:
        return "\n".join(map(str, self.parts))


def _require_finite(dose: float, name: str) -> None:
    if not math.isfinite(dose):
        raise InterventionError(f"{name}: the dose is {dose}. Expected a finite number.")
