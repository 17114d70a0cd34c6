"""A steering experiment: fit on some pairs, choose layer and dose on other texts, report on texts not seen before.

    fit       60 % of the groups of contrast pairs, at every layer                          (`vectors.fit`)
    choose    a third of the clusters of openings, and neutral passages: dose by damage, layer by effect (`selection`)
    report    the other openings, other neutral passages, other pairs: dose-response beside every control arm
              (`steering.evaluation`), and the criteria of `judgement`, which were fixed before looking

No group, cluster or passage is in two parts. Chance arms are made at the chosen layer, with draws of their own.
"""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from mechint.capture.activations import Activations, record
from mechint.errors import InterventionError, PromptError
from mechint.model.base import Model
from mechint.positions import Positions, everywhere, generated, prompt
from mechint.probes.steering import judgement
from mechint.probes.steering.selection import Chosen, choose, parts_of
from mechint.probes.steering.settings import SteeringSettings
from mechint.prompts import CONCEPTS, Concept, ContrastPairs, PromptSet, natural
from mechint.results import Findings, Unit
from mechint.sites import Site
from mechint.statistics import bootstrap_mean
from mechint.steering.arms import Arms
from mechint.steering.evaluation import EvaluationSettings, SteeringEvaluation
from mechint.steering.generation import PRODUCING
from mechint.steering.metrics import Metric, TextScore, WordPreference, word_balance
from mechint.steering.parts import add
from mechint.vectors.auroc import auroc
from mechint.vectors.calibration import calibrate
from mechint.vectors.damage import NeutralTexts
from mechint.vectors.fit import fit
from mechint.vectors.samples import Samples
from mechint.vectors.vector import SteeringVector

_FEWEST_GROUPS = 8
"""With fewer, labels of pairs can be shuffled in so few ways that some draws are the vector itself."""
_PAIRS = {"train": 0.6, "select": 0.2, "test": 0.2}
_PROMPTS = (1, 2)
# Steered tokens, and those of neutral texts, of which only the first would count as prompt.
_WHERE: dict[str, tuple[Positions, Positions]] = {
    "everywhere": (everywhere, everywhere),
    "prompt": (prompt(), everywhere),
    "producing": (PRODUCING, PRODUCING),
    "generated": (generated(), generated()),
}


class SteeringExperiment:
    """An `Analysis` of one concept in one model.

    Args:
        model: what is steered.
        prompts: beginnings after which the effect is measured; their clusters are divided.
        settings: what can be chosen.
        seed: of every split and draw.
        concept: instead of the one that the settings name.
        other: instead of the other concept that they name.
        neutral: texts on which damage is measured; by default passages of Python's manual.

    Raises:
        PromptError: too few clusters of prompts, groups of pairs, or neutral texts.
        SiteError: the model has no such layer.
        TokenError: the concept's words are no single tokens of this model.
    """

    kind = "steering_evaluation"

    def __init__(
        self,
        model: Model,
        prompts: PromptSet,
        settings: SteeringSettings | None = None,
        seed: int = 0,
        *,
        concept: Concept | None = None,
        other: Concept | None = None,
        neutral: PromptSet | None = None,
    ) -> None:
        s = self.settings = settings or SteeringSettings()
        self._model, self._seed = model, seed
        self._concept, self._other = concept or CONCEPTS[s.concept], other or CONCEPTS[s.control]
        self._layers = sorted(set(s.layers)) or list(range(model.facts.n_layers))
        self._sites = {layer: model.facts.check(Site(s.site, layer)) for layer in self._layers}
        self._select, self._test = parts_of(prompts, _PROMPTS, seed)
        self._pairs = self._concept.pairs(s.pairs, seed).split(**_PAIRS, seed=seed)
        if s.shuffled_labels and len(self._pairs.train.groups) < _FEWEST_GROUPS:
            raise PromptError(
                f"{self._pairs.train!r} to fit on: labels can be shuffled in 2^{len(self._pairs.train.groups)} ways at "
                f"most, too few for a control. Give pairs of {_FEWEST_GROUPS} groups or more, or shuffled_labels = 0."
            )
        self._metric = _metric(s, self._concept, seed)
        self._scored = WordPreference(self._concept.positive, self._concept.negative).token_direction(model)
        texts = natural(3 * s.passages, seed, min_words=s.passage_length, joined=True) if neutral is None else neutral
        # Passages of one chapter are not alike as openings of one place are: they are divided one by one.
        n = len(texts) // 3
        self._neutral_texts = texts[:n], texts[n:]
        self._evaluations: dict[Chosen, SteeringEvaluation] = {}

    def units(self) -> Sequence[Unit]:
        """List the layers among which one is chosen."""
        return [Unit("layers", f"layers/{layer}", {"layer": layer}) for layer in self._layers]

    def follow_up(self, raw: Mapping[str, pd.DataFrame]) -> Sequence[Unit]:
        """List what is measured at the chosen layer: arms, damage, texts, and how well held-out pairs are told apart.

        Raises:
            InterventionError: no layer has a dose.
        """
        chosen = choose(raw["layers"], self.settings.target_kl)
        about = {"chosen": asdict(chosen)}
        found = [replace(u, inputs={**u.inputs, **about}) for u in self._evaluation(chosen).units()]
        return [*found, Unit("reading", "reading/test", about)]

    def measure(self, unit: Unit) -> pd.DataFrame:
        """Do one unit."""
        if unit.table == "layers":
            return self._layer(int(unit.inputs["layer"]))
        chosen = Chosen(**unit.inputs["chosen"])
        if unit.table == "reading":
            return pd.DataFrame([{"auroc": self._auroc(chosen.layer, self._pairs.test)}])
        return self._evaluation(chosen).measure(unit)

    def conclude(self, raw: Mapping[str, pd.DataFrame]) -> Findings:
        """Turn all rows into tables, criteria and a verdict."""
        s, layers = self.settings, raw["layers"]
        chosen = choose(layers, s.target_kl)
        found = self._evaluation(chosen).conclude(raw)
        tables, clusters = dict(found.tables), {p.id: p.cluster or p.id for p in self._test}
        facts = (tables["doses"], tables["tests"], raw["effects"], chosen.dose, s.target_kl, clusters, self._seed)
        criteria = judgement.judge(*facts)
        tables["layers"] = layers.assign(chosen=layers["layer"] == chosen.layer)
        tables["criteria"] = criteria
        verdict = judgement.verdict(str(self._sites[chosen.layer]), criteria, found.verdict)
        return Findings(
            self.kind, tables, verdict, [*found.notes, *self._notes(float(raw["reading"]["auroc"].iloc[0]))]
        )

    def _notes(self, reading: float) -> list[str]:
        parts = ", ".join(f"{len(part)} {name} ({len(part.groups)} groups)" for name, part in self._pairs.parts.items())
        n = [len(part) for part in (self._select, self._test, *self._neutral_texts)]
        return [
            f"Contrast pairs: {parts}. Prompts: {n[0]} to choose on, {n[1]} to report on, of different clusters. "
            f"Neutral texts: {n[2]} to calibrate on, {n[3]} to report on.",
            f"At each layer the dose is the one at which 5 % of tokens of neutral text exceed "
            f"{self.settings.target_kl:g} nats of KL; the layer is the one with the largest effect at its dose.",
            f"Held-out pairs are told apart along the vector with an AUROC of {reading:.3g}: reading is not steering.",
            f"The other concept is {self._other.name}.",
        ]

    def _layer(self, layer: int) -> pd.DataFrame:
        """Return the dose of one layer that does the damage that is asked for, and the effect of it."""
        s, vector = self.settings, self._vector(layer)
        row: dict[str, Any] = {"layer": layer, "site": str(vector.sites[0])}
        row["auroc"] = self._auroc(layer, self._pairs.select)
        where, in_texts = _WHERE[s.where]
        numbers, problem = [np.nan] * 6, ""
        try:
            ready = calibrate(
                self._model, vector, target_kl=s.target_kl, where=in_texts, texts=self._neutral[0], seed=self._seed
            )
        except InterventionError as error:
            problem = str(error)
        else:
            found = ready.calibration
            assert found is not None
            unsteered = self._unsteered
            with self._model.apply(add(vector, found.dose, where=where)):
                values = self._metric(self._model, self._select)
            labels = [p.cluster or p.id for p in self._select]
            ends = bootstrap_mean((values - unsteered)[:, None], labels, seed=self._seed)
            numbers = [found.dose, found.low, found.high, *(float(end[0]) for end in ends)]
        names = ("dose", "dose_low", "dose_high", "effect", "effect_low", "effect_high")
        return pd.DataFrame([{**row, **dict(zip(names, numbers, strict=True)), "problem": problem}])

    def _evaluation(self, chosen: Chosen) -> SteeringEvaluation:
        if chosen not in self._evaluations:
            s, layer = self.settings, chosen.layer
            where, in_texts = _WHERE[s.where]
            settings = EvaluationSettings(
                doses=tuple(dose * chosen.dose for dose in s.doses),
                test_dose=chosen.dose,
                where=where,
                draws=s.draws,
                damage_where=in_texts,
                texts=s.texts,
                max_new_tokens=s.max_new_tokens,
                temperature=s.temperature,
            )
            vector = self._vector(layer).with_calibration(chosen.calibration)
            other = self._other_vector(layer) if s.other_concept else None
            self._evaluations[chosen] = SteeringEvaluation(
                self._model,
                self._test,
                Arms(vector, self._recorded, other, self._scored if s.orthogonal else None, self._seed),
                self._metric,
                settings,
                instruction=self._concept.instruction if s.instruction else None,
                neutral=self._neutral[1],
                seed=self._seed,
            )
        return self._evaluations[chosen]

    def _vector(self, layer: int) -> SteeringVector:
        concept, method = self._concept.name, self.settings.method
        return fit(self._recorded, sites=self._sites[layer], method=method, concept=concept, folds=0)

    def _other_vector(self, layer: int) -> SteeringVector:
        train = self._other.pairs(self.settings.pairs, self._seed).split(**_PAIRS, seed=self._seed).train
        site, method = self._sites[layer], self.settings.method
        return fit(record(self._model, train, site, progress=False), method=method, concept=self._other.name, folds=0)

    def _auroc(self, layer: int, pairs: ContrastPairs) -> float:
        """Return how well pairs are told apart along the vector of a layer."""
        site = self._sites[layer]
        samples = Samples.of(record(self._model, pairs, site, progress=False), site)
        return auroc(samples.x @ self._vector(layer).unit(site).double().numpy(), samples.y)

    @functools.cached_property
    def _recorded(self) -> Activations:
        return record(self._model, self._pairs.train, list(self._sites.values()), progress=False)

    @functools.cached_property
    def _neutral(self) -> tuple[NeutralTexts, NeutralTexts]:
        how = {"length": self.settings.passage_length, "positions": self.settings.passage_positions}
        first, second = (NeutralTexts(self._model, texts, seed=self._seed, **how) for texts in self._neutral_texts)
        return first, second

    @functools.cached_property
    def _unsteered(self) -> Float[np.ndarray, " prompt"]:
        return self._metric(self._model, self._select)


def _metric(settings: SteeringSettings, concept: Concept, seed: int) -> Metric:
    if settings.metric == "words":
        return WordPreference(concept.positive, concept.negative, f"preference for words of {concept.name}")
    score = word_balance(concept.positive, concept.negative)
    how: dict[str, Any] = {"max_new_tokens": settings.max_new_tokens, "temperature": settings.temperature, "seed": seed}
    return TextScore(score, f"balance of words of {concept.name}", "words in 100", **how)
