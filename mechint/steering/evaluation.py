"""What a steering vector does, dose by dose, beside what could explain it and what it costs.

For every arm (`steering.arms`), dose and prompt: the metric under steering minus the metric without. For the vector and
one draw of each other arm, also the damage on neutral text (`vectors.damage`), and for the vector texts with their
repetition. One dose is named beforehand; there alone is tested (see `evaluation_summary`). Doses are in units of the
median |h| of each site, and equal for all arms, so that controls are as long as the vector.
"""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from mechint.capture.activations import Activations
from mechint.errors import ConfigError, PromptError
from mechint.model.base import Model
from mechint.positions import Positions, everywhere
from mechint.prompts import Prompt, PromptSet
from mechint.results import Findings, Unit, complete
from mechint.steering import evaluation_summary as summary
from mechint.steering.arms import PROMPT_ONLY, Arms
from mechint.steering.generation import generate
from mechint.steering.metrics import Metric, WordPreference, distinct, repetition
from mechint.steering.parts import add
from mechint.steering.plan import Plan
from mechint.vectors.damage import NeutralTexts
from mechint.vectors.vector import SteeringVector

_SHARES_OF_CALIBRATED = (0.25, 0.5, 1.0, 1.5, 2.0)
_DOSES = (0.05, 0.1, 0.2, 0.4, 0.8)
DRAWS = {"random": 50, "random_covariance": 20, "shuffled_labels": 20, "orthogonal": 1, "other_concept": 1}
"""How many vectors of each control arm, by default."""


@dataclass(frozen=True)
class EvaluationSettings:
    """What is measured."""

    doses: tuple[float, ...] = ()
    """In units of the median |h|; by default 1/4 to 2 times the calibrated dose, or 0.05 to 0.8."""
    test_dose: float | None = None
    """The dose at which is tested, named before looking: the calibrated one by default, or the middle one."""
    where: Positions = everywhere
    norm: str = "free"
    draws: Mapping[str, int] = field(default_factory=lambda: dict(DRAWS))
    damage: bool = True
    damage_where: Positions | None = None
    """Tokens that are steered in neutral texts, which count as generated after their first; by default `where`."""
    texts: int = 8
    """Prompts after which texts are generated; 0 for none."""
    max_new_tokens: int = 24
    temperature: float = 0.7

    def fixed(self, vector: SteeringVector) -> tuple[tuple[float, ...], float]:
        """Return the doses in rising order, and the one that is tested.

        Raises:
            ConfigError: fewer than two doses, one that is no positive number, or a tested one that is none of them.
        """
        calibrated = None if vector.calibration is None else vector.calibration.dose
        doses = self.doses or (_DOSES if calibrated is None else tuple(s * calibrated for s in _SHARES_OF_CALIBRATED))
        doses = tuple(sorted(set(doses)))
        if len(doses) < 2 or not all(0 < dose < float("inf") for dose in doses):
            raise ConfigError(f"doses={doses}. Expected two or more positive numbers, in units of the median |h|.")
        test = self.test_dose if self.test_dose is not None else (calibrated if calibrated in doses else None)
        test = doses[len(doses) // 2] if test is None else test
        if test not in doses:
            raise ConfigError(f"test_dose={test} is none of the doses {doses}.")
        return doses, test


class SteeringEvaluation:
    """An `Analysis` of a vector on prompts.

    Args:
        model: what is steered.
        prompts: on which the effect is measured; none that the vector or its dose was chosen on.
        arms: the vector and what its controls are made of.
        metric: what is measured.
        settings: doses, positions, numbers of draws.
        instruction: what is put before each prompt in the arm `prompt_only`; without it there is none.
        neutral: texts on which damage is measured; by default passages of Python's manual.
        seed: of texts, neutral positions and the bootstrap.

    Raises:
        ConfigError: settings that contradict each other.
        PromptError: fewer than two prompts.
    """

    kind = "steering_evaluation"

    def __init__(
        self,
        model: Model,
        prompts: PromptSet,
        arms: Arms,
        metric: Metric,
        settings: EvaluationSettings | None = None,
        *,
        instruction: str | None = None,
        neutral: NeutralTexts | None = None,
        seed: int = 0,
    ) -> None:
        self.settings = settings or EvaluationSettings()
        if len(prompts) < 2:
            raise PromptError(f"{len(prompts)} prompts: an interval needs at least two.")
        arms.vector.check(model)
        self._model, self._prompts, self._arms, self._metric = model, prompts, arms, metric
        self._doses, self._test = self.settings.fixed(arms.vector)
        self._instruction, self._seed = instruction, seed
        self._neutral_texts = neutral

    def units(self) -> Sequence[Unit]:
        """List the measurements: one for each draw of each arm, at all doses."""
        named = self._arms.names(self.settings.draws)
        units = [Unit("effects", "effects/none", {"arm": "none", "draw": 0})]
        units += [Unit("effects", f"effects/{arm}/{draw}", {"arm": arm, "draw": draw}) for arm, draw in named]
        if self._instruction is not None:
            units.append(Unit("effects", f"effects/{PROMPT_ONLY}", {"arm": PROMPT_ONLY, "draw": 0}))
        first = [arm for arm, draw in named if draw == 0]
        if self.settings.damage:
            units += [Unit("damage", f"damage/{arm}", {"arm": arm}) for arm in first]
        if self.settings.texts:
            units += [Unit("texts", f"texts/{dose:g}", {"dose": dose}) for dose in (0.0, *self._doses)]
        return units

    def measure(self, unit: Unit) -> pd.DataFrame:
        """Do one unit."""
        if unit.table == "effects":
            return self._effects(str(unit.inputs["arm"]), int(unit.inputs["draw"]))
        if unit.table == "damage":
            return self._damage(str(unit.inputs["arm"]))
        return self._texts(float(unit.inputs["dose"]))

    def follow_up(self, raw: Mapping[str, pd.DataFrame]) -> Sequence[Unit]:
        """List nothing: no unit waits for others."""
        del raw
        return []

    def conclude(self, raw: Mapping[str, pd.DataFrame]) -> Findings:
        """Turn all rows into tables and a verdict."""
        clusters = {p.id: p.cluster or p.id for p in self._prompts}
        doses = summary.dose_response(raw["effects"], raw.get("damage"), raw.get("texts"), clusters, self._seed)
        tests = summary.tests(raw["effects"], self._test, clusters, self._seed)
        tables = {name: table.assign(unit=self._metric.unit) for name, table in (("doses", doses), ("tests", tests))}
        if "texts" in raw:
            tables["texts"] = raw["texts"]
        vector = self._arms.vector
        verdict = summary.verdict(vector.concept, self._metric, self._test, doses, tests)
        notes = [
            f"{vector!r}.",
            f"Tested at dose {self._test:.3g} alone, on {len(self._prompts)} prompts in {len(set(clusters.values()))} "
            f"clusters; steered {self.settings.where}, norm {self.settings.norm}.",
        ]
        if self.settings.damage:
            notes.append(f"Damage is measured on {self._neutral.about}.")
        return Findings(self.kind, tables, verdict, notes)

    def _effects(self, arm: str, draw: int) -> pd.DataFrame:
        prompts, rows = list(self._prompts), list[pd.DataFrame]()
        if arm == PROMPT_ONLY:
            prompts = [Prompt(p.id, f"{self._instruction}{p.prompt}", cluster=p.cluster) for p in prompts]
        vector = None if arm in ("none", PROMPT_ONLY) else self._arms.make(arm, draw)
        for dose in (0.0,) if vector is None else self._doses:
            with nullcontext() if vector is None else self._model.apply(self._plan(vector, dose)):
                values = self._metric(self._model, prompts)
            about = {"arm": arm, "draw": draw, "dose": dose, "id": [p.id for p in prompts]}
            rows.append(pd.DataFrame({**about, "value": values}))
        return pd.concat(rows, ignore_index=True)

    def _damage(self, arm: str) -> pd.DataFrame:
        rows: list[pd.DataFrame] = []
        vector = self._arms.make(arm, 0)
        neutral = self._neutral  # its clean pass is made here, where no plan is in force
        for dose in self._doses:
            with self._model.apply(self._plan(vector, dose, self.settings.damage_where)):
                found = neutral.damage()
            about = {"arm": arm, "dose": dose, "document": found.document}
            rows.append(pd.DataFrame({**about, "kl": found.kl, "loss_change": found.loss_change}))
        return pd.concat(rows, ignore_index=True)

    def _texts(self, dose: float) -> pd.DataFrame:
        prompts = list(self._prompts)[: self.settings.texts]
        plan = None if dose == 0 else self._plan(self._arms.vector, dose)
        how: dict[str, Any] = {"max_new_tokens": self.settings.max_new_tokens, "seed": self._seed}
        found = generate(self._model, prompts, plan, temperature=self.settings.temperature, progress=False, **how)
        rows = [
            {"dose": dose, "id": p.id, "prompt": p.prompt, "text": c.text, "repetition": repetition(c.tokens)}
            | {"distinct_2": distinct(c.text)}
            for p, c in zip(prompts, found, strict=True)
        ]
        return pd.DataFrame(rows)

    def _plan(self, vector: SteeringVector, dose: float, where: Positions | None = None) -> Plan:
        return add(vector, dose, where=where or self.settings.where, norm=self.settings.norm)

    @property
    def _neutral(self) -> NeutralTexts:
        if self._neutral_texts is None:
            self._neutral_texts = NeutralTexts(self._model, seed=self._seed)
        return self._neutral_texts


def evaluate(
    model: Model,
    vector: SteeringVector,
    prompts: PromptSet,
    metric: Metric,
    *,
    fitted_on: Activations | None = None,
    other: SteeringVector | None = None,
    orthogonal_to: Any = None,
    instruction: str | None = None,
    controls: str | Mapping[str, int] = "standard",
    seed: int = 0,
    progress: bool | None = None,
    **settings: Any,
) -> Findings:
    """Measure what a vector does, dose by dose, beside six control arms and its damage.

    Args:
        model: what is steered.
        vector: the vector; calibrated, its calibrated dose is the one that is tested.
        prompts: on which the effect is measured; none that the vector was fitted on.
        metric: one number a prompt, such as `WordPreference`.
        fitted_on: what the vector was fitted on; without it covariance-matched and shuffled-label arms are left out.
        other: a vector of another concept at the same sites.
        orthogonal_to: a direction to be left out; by default that of the words of a `WordPreference`.
        instruction: put before each prompt in the arm without steering.
        controls: "standard", or the number of draws by arm (see `arms`).
        seed: of all draws.
        progress: show a progress bar on standard error; by default only in a terminal.
        settings: of `EvaluationSettings`.

    Raises:
        ConfigError: settings or controls that are not known, or contradict each other.
    """
    if controls != "standard" and (isinstance(controls, str) or set(controls) - set(DRAWS)):
        raise ConfigError(f"controls={controls!r}. Expected 'standard', or numbers of draws of {', '.join(DRAWS)}.")
    unknown = sorted(set(settings) - set(EvaluationSettings.__dataclass_fields__))
    if unknown:
        raise ConfigError(
            f"Unknown setting {unknown[0]!r}. There are: {', '.join(EvaluationSettings.__dataclass_fields__)}."
        )
    if not isinstance(controls, str):
        settings["draws"] = dict(controls)
    if orthogonal_to is None and isinstance(metric, WordPreference):
        orthogonal_to = metric.token_direction(model)
    arms = Arms(vector, fitted_on, other, orthogonal_to, seed)
    analysis = SteeringEvaluation(
        model, prompts, arms, metric, EvaluationSettings(**settings), instruction=instruction, seed=seed
    )
    return complete(analysis, progress)
