"""A plan in force: what it does in each pass, the state of its gates row by row, and the log of what fired.

A session is a `Steering`: `Model.run`, the decode loop and foreign loops alike ask it before each pass. Rows are known
by their place in the call that began (a pass over texts from their first token); a decode loop that drops finished
rows, or tries something on a forked past, says so.
"""

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from jaxtyping import Int
from torch import Tensor

from mechint.errors import InterventionError, NeverFiredError
from mechint.interventions import Intervention
from mechint.model.base import Model
from mechint.positions import Positions, TokenBatch
from mechint.sites import Site
from mechint.steering.gates import Condition
from mechint.steering.plan import Part, Plan
from mechint.steering.receipts import Log, Receipt, receipt


@dataclass(eq=False)
class _Rows:
    """Where the rows of the passes stand in their call, and what is known of them."""

    index: Int[Tensor, " row"]
    """Which rows of the call the next pass has."""
    values: dict[Condition, Tensor] = field(default_factory=dict[Condition, Tensor])
    """By condition, the signal of each row of the call; NaN while it is not known."""
    states: dict[Condition, Tensor] = field(default_factory=dict[Condition, Tensor])


class Session:
    """A plan that is in force on a model.

    Args:
        plan: what to do.
        model: on what.
    """

    def __init__(self, plan: Plan, model: Model) -> None:
        plan.check(model)
        self._plan, self._model = plan, model
        gates = [part.gate for part in plan.parts if part.gate is not None]
        self._conditions = list(dict.fromkeys(c for gate in gates for c in gate.conditions))
        for site in {c.site for c in self._conditions if c.site is not None}:
            model.facts.check(site)
        self._rows = _Rows(torch.empty(0, dtype=torch.long))
        self._log = Log()
        self._expected: list[int] | None = None
        self._aside = False

    @property
    def receipt(self) -> Receipt:
        """What fired so far."""
        return receipt(self._log, self._plan, self._model)

    def writes(self, batch: TokenBatch, start: int) -> Mapping[Site, Sequence[Intervention]]:
        """Return what to do in a pass over the columns from `start` on.

        Raises:
            InterventionError: parts want the same token and no policy says which has it, or a gate has no signal.
        """
        if start == 0 and not self._aside:
            self._begin(len(batch.ids))
        if len(self._rows.index) != len(batch.ids):
            raise InterventionError(
                f"This pass has {len(batch.ids)} rows, the last one under this plan had {len(self._rows.index)}. "
                "Rows can only be followed if all of them go on together."
            )
        self._read_texts(batch, start)
        doses = [self._doses(part, batch, start) for part in self._plan.parts]
        self._settle(doses, batch)
        writes: dict[Site, list[Intervention]] = {}
        for number, (part, dose) in enumerate(zip(self._plan.parts, doses, strict=True)):
            if bool(dose.any()):
                for site in part.actions:
                    writes.setdefault(site, []).append(self._intervention(number, part, site, dose, batch, start))
        if not self._aside:
            for condition in self._conditions:
                if condition.site is not None:
                    writes.setdefault(condition.site, []).append(self._watch(condition, batch, start))
        return writes

    def observe(self, entropy: Tensor, certainty: Tensor) -> None:
        """Take note of the next-token distribution of each row, for gates that ask for it."""
        for condition in self._conditions:
            if condition.name in ("entropy", "certainty") and condition.text is None and condition.site is None:
                self._decide(condition, entropy if condition.name == "entropy" else certainty)

    @property
    def wants_entropy(self) -> bool:
        """Whether some gate looks at the next-token distribution."""
        return any(c.text is None and c.site is None for c in self._conditions)

    def expect(self, rows: Sequence[int], *, new_call: bool) -> None:
        """Say which rows of a call the next texts are, where a call is carried out in several batches."""
        self._expected = list(rows)
        self._log.calls += new_call

    def keep(self, places: Sequence[int]) -> None:
        """Go on with some rows only, given by their place among those of the last pass."""
        self._rows.index = self._rows.index[torch.tensor(list(places), dtype=torch.long)]

    @contextmanager
    def aside(self, places: Sequence[int]) -> Generator[None]:
        """Try something with some rows, without a trace in the log, the gates or the rows."""
        before, self._aside = (self._rows.index, self._aside), True
        self.keep(places)
        try:
            yield
        finally:
            self._rows.index, self._aside = before

    def require_fired(self) -> None:
        """Raise if an ungated part with a dose never acted.

        Raises:
            NeverFiredError: it did not.
        """
        fired = self._log.parts()
        for number, part in enumerate(self._plan.parts):
            if number not in fired and not part.off and part.gate is None:
                raise NeverFiredError(
                    f"'{part}' never acted in {self._log.calls} calls: no token that was read is among its positions. "
                    "Look at plan.dry_run(model, prompts), or choose other positions."
                )

    def _begin(self, n_rows: int) -> None:
        if self._expected is None:
            self._log.calls += 1
        rows = torch.tensor(range(n_rows) if self._expected is None else self._expected)
        self._expected = None
        size = int(rows.max()) + 1
        unknown = {c: torch.full((size,), torch.nan) for c in self._conditions}
        shut = {c: torch.zeros(size, dtype=torch.bool) for c in self._conditions}
        self._rows = _Rows(rows, unknown, shut)

    def _doses(self, part: Part, batch: TokenBatch, start: int) -> Tensor:
        doses = part.doses(batch)
        doses[:, :start] = 0
        if part.gate is not None:
            states = [self._rows.states[c][self._rows.index] for c in part.gate.conditions]
            self._require_signals(part, start)
            doses = doses * part.gate.rule(states)[:, None]
        return doses

    def _require_signals(self, part: Part, start: int) -> None:
        assert part.gate is not None
        for c in part.gate.conditions:
            if start and c.text is None and bool(self._rows.values[c][self._rows.index].isnan().any()):
                raise InterventionError(
                    f"The gate of '{part}' looks at {c.name}, which this loop does not show. Generate with "
                    "model.generate, or gate on a vector or a text."
                )

    def _settle(self, doses: list[Tensor], batch: TokenBatch) -> None:
        """Give tokens that several parts want to one of them, or to all, as the policy says."""
        parts = self._plan.parts
        for i, first in enumerate(parts):
            for j in range(i + 1, len(parts)):
                for site in set(first.actions) & set(parts[j].actions):
                    if first.actions[site].additive and parts[j].actions[site].additive:
                        continue
                    both = (doses[i] != 0) & (doses[j] != 0)
                    if not bool(both.any()) or self._plan.policy == "sequential":
                        continue
                    if self._plan.policy == "priority":
                        doses[i] = doses[i].masked_fill(both, 0)
                        continue
                    place, column = both.nonzero()[0].tolist()
                    row = int(self._rows.index[place])
                    raise InterventionError(
                        f"'{first}' and '{parts[j]}' both act at {site} on token {int(batch.offset[place, column])} of "
                        f"row {row}. Choose plan.resolving('sequential') or 'priority', or other "
                        "positions."
                    )

    def _intervention(
        self, number: int, part: Part, site: Site, dose: Tensor, batch: TokenBatch, start: int
    ) -> Intervention:
        mask, strength = dose != 0, dose[:, start:]
        rows, columns = mask[:, start:].nonzero(as_tuple=True)
        index, aside = self._rows.index[rows], self._aside

        def rewrite(h: Tensor, offset: Tensor) -> Tensor:
            new = part.actions[site](h, strength, offset)
            if not aside and new.shape == h.shape:
                before, after = h[rows, columns].flatten(1).float(), new[rows, columns].flatten(1).float()
                change = ((after - before).norm(dim=-1) / before.norm(dim=-1)).nan_to_num(0.0, posinf=0.0)
                place = offset[rows, columns]
                self._log.add(
                    part=number,
                    site=site,
                    row=index,
                    position=place,
                    t=place - batch.prompt_lengths[rows],
                    token=batch.ids[:, start:][rows, columns],
                    dose=strength[rows, columns],
                    change=change.cpu(),
                )
            return new

        return Intervention(part.name, rewrite, Positions(str(part.where), lambda _: mask))

    def _watch(self, condition: Condition, batch: TokenBatch, start: int) -> Intervention:
        real = batch.real[:, start:]
        last = (real * torch.arange(1, real.shape[1] + 1)).argmax(1)

        def look(h: Tensor, _: Tensor) -> Tensor:
            self._decide(condition, condition.value(h[torch.arange(len(h)), last]))
            return h

        return Intervention(f"watch {condition.name}", look)

    def _read_texts(self, batch: TokenBatch, start: int) -> None:
        for condition in self._conditions:
            if condition.text is None or batch.ids.shape[1] == start:
                continue
            found: list[float] = []
            for ids, real, n in zip(batch.ids, batch.real, batch.prompt_lengths.tolist(), strict=True):
                text = str(self._model.tokenizer.decode(ids[real][n:].tolist()))
                found.append(float(condition.text in text))
            self._decide(condition, torch.tensor(found))

    def _decide(self, condition: Condition, values: Tensor) -> None:
        if self._aside:
            return
        rows = self._rows
        values = values.detach().float().cpu()
        if condition.hold == "prompt":  # decided once
            first = rows.values[condition][rows.index].isnan()
            values = torch.where(first, values, rows.values[condition][rows.index])
        rows.values[condition][rows.index] = values
        now = condition.holds(values)
        if condition.hold == "latch":
            now = now | rows.states[condition][rows.index]
        rows.states[condition][rows.index] = now
        self._log.look(self._conditions.index(condition), condition, rows.index, values, now)


@contextmanager
def session(plan: Plan, model: Model, *, strict: bool = True) -> Generator[Session]:
    """Let a plan act on every pass through a model until the context is left.

    Args:
        plan: what to do.
        model: on what.
        strict: raise at the end if a part never acted, unless something else went wrong before.
    """
    acting = Session(plan, model)
    with model.steered(acting):
        yield acting
    if strict:
        acting.require_fired()


def sessions_of(model: Model) -> list[Session]:
    """List the sessions that are in force on a model."""
    return [s for s in model.steerings if isinstance(s, Session)]
