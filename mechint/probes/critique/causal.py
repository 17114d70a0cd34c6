"""What a critique vector does to rows with an error and to rows without, beside what could explain it.

    add        h + dose * v               at the doses given and at their negatives
    ablate     h - ((h - mu)·u) u         mu: mean over the true side of what the vector was fitted on; u = v/|v|

Arms are those of `steering.arms`, all as long as the vector at dose 1; the orthogonal arm alone is only what remains
of it, so that its effect is a part of the vector's. Controls are measured where is tested: one dose named before
looking, unless more are asked for. See `causal_summary` for what is made of it.
"""

import functools
import operator
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from mechint.errors import ConfigError, InterventionError, PromptError
from mechint.model.base import Model
from mechint.positions import Positions, everywhere
from mechint.probes.critique import causal_summary as summary
from mechint.probes.critique.causal_verdict import verdict
from mechint.probes.critique.measures import Metric, SideMetric
from mechint.probes.critique.shared_prefixes import BothSides
from mechint.prompts.reasoning import TokenTwins
from mechint.results import Findings, Unit
from mechint.sites import Site
from mechint.steering.arms import Arms
from mechint.steering.parts import add, clamp
from mechint.steering.plan import Plan
from mechint.vectors.damage import NeutralTexts
from mechint.vectors.vector import SteeringVector

MODES = ("add", "ablate")
UNITS = ("norm", "raw")
DRAWS = {"random": 50, "random_covariance": 20, "shuffled_labels": 20, "orthogonal": 1, "other_concept": 1}
"""How many vectors of each control arm, by default."""
_ABLATED = 1.0
Losses = Callable[[Model], Float[np.ndarray, " at"]]
"""From a model to losses in nats on clean text, under whatever plan is in force."""


@dataclass(frozen=True)
class CritiqueSettings:
    """What is measured.

    Raises:
        ConfigError: settings that contradict each other.
    """

    doses: tuple[float, ...] = (0.1, 0.2, 0.4)
    """Positive; each is measured with both signs."""
    unit: str = "norm"
    """What dose 1 is: "norm", the median |h| of the site, or "raw", the vector as it was estimated."""
    test: tuple[float, ...] = ()
    """The doses at which is tested, named before looking; by default the middle one. The verdict is of the first."""
    modes: tuple[str, ...] = MODES
    test_ablation: bool = False
    where: Positions = everywhere
    damage_where: Positions | None = None
    """Tokens that are steered in clean texts; by default `where`."""
    draws: Mapping[str, int] = field(default_factory=lambda: dict(DRAWS))
    matched: float = 0.05
    """The rate of false alarms at which hit rates are compared."""

    def __post_init__(self) -> None:
        sizes = tuple(sorted(set(self.doses)))
        if not sizes or not all(0 < dose < float("inf") for dose in sizes):
            raise ConfigError(f"doses={self.doses}. Expected positive numbers; their negatives are measured as well.")
        object.__setattr__(self, "doses", sizes)
        object.__setattr__(self, "test", self.test or (sizes[len(sizes) // 2],))
        if strange := [dose for dose in self.test if dose not in sizes]:
            raise ConfigError(f"test={self.test}: {strange[0]} is none of the doses {sizes}.")
        if "add" not in self.modes or set(self.modes) - set(MODES):
            raise ConfigError(f"modes={self.modes}. Expected 'add', and 'ablate' if you like.")
        if self.test_ablation and "ablate" not in self.modes:
            raise ConfigError("test_ablation needs the mode 'ablate'.")
        if self.unit not in UNITS:
            raise ConfigError(f"unit={self.unit!r}. Expected one of {', '.join(UNITS)}.")
        if strange := sorted(set(self.draws) - set(DRAWS)):
            raise ConfigError(f"draws of {strange[0]!r}: there are the arms {', '.join(DRAWS)}.")

    @property
    def cells(self) -> list[summary.Cell]:
        """Where is tested."""
        ablated = [summary.Cell("ablate", _ABLATED)] if self.test_ablation else []
        return [summary.Cell("add", dose) for dose in self.test] + ablated

    def of_vector(self, mode: str) -> list[float]:
        """List the doses of the vector itself, in rising order."""
        return [-dose for dose in self.doses[::-1]] + list(self.doses) if mode == "add" else [_ABLATED]


class CritiqueEvaluation:
    """An `Analysis` of a vector on twins.

    Args:
        model: what is steered.
        twins: on which is reported; of no problem that the vector was fitted on, or layer or dose chosen on.
        arms: the vector, more of which means "wrong", and what its controls are made of: activations of twins with
            the wrong rows positive, a direction to be left out, another concept's vector.
        metric: one number a row, or a side of a pair.
        settings: doses, modes, positions, draws.
        clean: texts on which damage is measured, or a function from the model to losses on such; without either no
            claim is made.
        chosen_on: problems on which layer and dose were chosen.
        seed: of the bootstrap.

    Raises:
        PromptError: fewer than two problems, or one that was fitted or chosen on.
        InterventionError: the vector does not fit the model, or the median |h| of a site is not known.
        ConfigError: a mode or an arm that needs what was not given.
    """

    kind = "critique_evaluation"

    def __init__(
        self,
        model: Model,
        twins: TokenTwins,
        arms: Arms,
        metric: Metric,
        settings: CritiqueSettings | None = None,
        *,
        clean: NeutralTexts | Losses | None = None,
        chosen_on: Collection[str] = (),
        seed: int = 0,
    ) -> None:
        s = self.settings = settings or CritiqueSettings()
        fitted = () if arms.fitted_on is None else arms.fitted_on.groups
        if len(set(twins.groups)) < 2:
            raise PromptError(f"{twins!r}: an interval needs two problems at least.")
        if seen := sorted({*fitted, *chosen_on} & set(twins.groups)):
            raise PromptError(
                f"{len(seen)} problems (first: {seen[0]!r}) are among those that were fitted or chosen on. Report on "
                "others: what was chosen on a problem looks better there."
            )
        arms.vector.check(model)
        if missing := [site for site in arms.vector.sites if site not in arms.vector.norms]:
            raise InterventionError(
                f"The median |h| at {missing[0]} is not known, so doses mean nothing beside those of other layers. "
                "Estimate the vector from recorded activations."
            )
        self._model, self._twins, self._metric, self._clean, self._seed = model, twins, metric, clean, seed
        self._vector = arms.vector
        # Directions that dose 1 adds, so that every arm is made in units of what is really added.
        self._arms = replace(arms, vector=scaled(arms.vector, s.unit))
        self._means = self._true_means(arms) if "ablate" in s.modes else {}

    def units(self) -> Sequence[Unit]:
        """List the measurements: the vector at all doses, each draw of each control where is tested, and damage."""
        s = self.settings
        units = [_unit("none", 0, "none", [0.0])]
        units += [_unit("vector", 0, mode, s.of_vector(mode)) for mode in s.modes]
        for mode in s.modes:
            doses = [cell.dose for cell in s.cells if cell.mode == mode]
            draws = [(arm, draw) for arm, draw in self._arms.names(s.draws) if arm != "vector"]
            units += [_unit(arm, draw, mode, doses) for arm, draw in draws if doses]
        if self._clean is not None:
            units += [
                Unit("damage", f"damage/{mode}/{dose:g}", {"mode": mode, "dose": dose})
                for mode in s.modes
                for dose in s.of_vector(mode)
            ]
        return units

    def measure(self, unit: Unit) -> pd.DataFrame:
        """Do one unit."""
        if unit.table == "damage":
            return self._damage(str(unit.inputs["mode"]), float(unit.inputs["dose"]))
        arm, draw, mode = str(unit.inputs["arm"]), int(unit.inputs["draw"]), str(unit.inputs["mode"])
        vector = None if arm == "none" else self._made(arm, draw)
        rows, measured = list[pd.DataFrame](), self._sides
        for dose in map(float, unit.inputs["doses"]):
            with nullcontext() if vector is None else self._model.apply(self.plan(vector, mode, dose)):
                sides = measured()
            about = {"arm": arm, "draw": draw, "mode": mode, "dose": dose, "id": self._twins.ids}
            rows.append(pd.DataFrame({**about, **sides}))
        return pd.concat(rows, ignore_index=True)

    def follow_up(self, raw: Mapping[str, pd.DataFrame]) -> Sequence[Unit]:
        """List nothing: no unit waits for others."""
        del raw
        return []

    def conclude(self, raw: Mapping[str, pd.DataFrame]) -> Findings:
        """Turn all rows into tables, criteria and a verdict."""
        s, effects = self.settings, raw["effects"]
        groups = dict(zip(self._twins.ids, self._twins.groups, strict=True))
        relative = max(float(v.norm()) / self._vector.norms[site] for site, v in self._arms.vector.directions.items())
        doses = summary.dose_response(effects, raw.get("damage"), groups, relative, self._seed)
        tested = summary.tests(effects, s.cells)
        criteria = summary.judge(doses, tested, s.cells[0])
        tables = {"doses": doses, "tests": tested, "criteria": criteria}
        threshold = self._metric.threshold
        if threshold is not None:
            tables["detection"] = summary.detection(effects, groups, threshold, s.matched, self._seed)
        about = (self._metric.name, self._metric.unit)
        said = verdict(self._vector.concept, about, s.cells[0], doses, tested, criteria, tables.get("detection"))
        tables = {name: t.assign(unit=about[1]) if name in ("doses", "tests") else t for name, t in tables.items()}
        return Findings(self.kind, tables, said, self._notes(effects, relative))

    def _notes(self, effects: pd.DataFrame, relative: float) -> list[str]:
        s, twins = self.settings, self._twins
        undefined = int(effects.loc[effects["arm"] == "none", "wrong"].isna().sum())
        notes = [
            f"{self._vector!r}. Dose 1 is {relative:.3g} of the median |h|"
            + (" at the site where that is most." if len(self._vector.sites) > 1 else "."),
            f"Tested at {', '.join(f'{c.mode} {c.dose:g}' for c in s.cells)}, on {len(twins)} pairs of "
            f"{len(set(twins.groups))} problems; steered {s.where}.",
        ]
        if undefined:
            refused = self._metric.refused if isinstance(self._metric, SideMetric) else {}
            reasons = "; ".join(sorted({refused[name] for name in twins.ids if name in refused}))
            notes.append(f"{undefined} of {len(twins)} pairs have no {self._metric.name}: {reasons or 'not defined'}.")
        return notes

    def _made(self, arm: str, draw: int) -> SteeringVector:
        """Return the vector of an arm, as long as the vector itself; orthogonal to something, only what remains."""
        made, base = self._arms.make(arm, draw), self._arms.vector
        if arm == "orthogonal":
            return made
        return replace(made, directions={s: made.unit(s) * v.norm() for s, v in base.directions.items()})

    def plan(self, vector: SteeringVector, mode: str, dose: float, where: Positions | None = None) -> Plan:
        """Return what a vector does in a mode at a dose, at the tokens of the settings unless others are given."""
        where = where or self.settings.where
        if mode == "add":
            return add(vector, dose, unit="raw", where=where)
        plans: list[Plan] = []
        for site in vector.sites:
            # Clamped to one number: h - (h·u - mu·u) u. Bounds are in units of the median |h|.
            level = float(self._means[site] @ vector.unit(site).double()) / vector.norms[site]
            plans.append(clamp(vector.at(site), level, level, where=where))
        return functools.reduce(operator.add, plans)

    def _true_means(self, arms: Arms) -> dict[Site, Float[Tensor, " width"]]:
        recorded = arms.fitted_on
        if recorded is None or recorded.labels is None:
            raise ConfigError(
                "The mode 'ablate' needs the mean of the true side: give Arms activations of twins (fitted_on), or "
                "modes=('add',)."
            )
        true = torch.tensor(recorded.labels) == 0
        return {site: recorded[site][true].double().flatten(0, 1).mean(0) for site in arms.vector.sites}

    def _damage(self, mode: str, dose: float) -> pd.DataFrame:
        clean, plan = self._clean, self.plan(self._arms.vector, mode, dose, self.settings.damage_where)
        if isinstance(clean, NeutralTexts):
            with self._model.apply(plan):
                found = clean.damage()
            return pd.DataFrame({"mode": mode, "dose": dose, "loss_rise": found.loss_change, "kl": found.kl})
        before = self._clean_losses
        with self._model.apply(plan):
            assert clean is not None
            after = clean(self._model)
        return pd.DataFrame({"mode": mode, "dose": dose, "loss_rise": after - before, "kl": np.nan})

    @functools.cached_property
    def _sides(self) -> BothSides:
        return BothSides(self._model, self._twins, self._metric, self._vector.sites, self.settings.where)

    @functools.cached_property
    def _clean_losses(self) -> Float[np.ndarray, " at"]:
        assert self._clean is not None
        assert not isinstance(self._clean, NeutralTexts)
        return self._clean(self._model)


def scaled(vector: SteeringVector, unit: str) -> SteeringVector:
    """Return the vector with directions as long as what dose 1 adds in a unit, "norm" or "raw"."""
    directions = {site: vector.unit(site) * vector.norms[site] for site in vector.sites}
    return vector if unit == "raw" else replace(vector, directions=directions, calibration=None)


def _unit(arm: str, draw: int, mode: str, doses: Sequence[float]) -> Unit:
    about = {"arm": arm, "draw": draw, "mode": mode, "doses": list(doses)}
    return Unit("effects", f"effects/{mode}/{arm}/{draw}", about)
