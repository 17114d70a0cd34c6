"""The battery on one model: layer and dose are chosen on some concepts, and reported is on others.

    development    for each layer and dose, concepts that are not reported on: detect and identify, injection off before
                   the question; and what the dose does to the text that follows
    answers        every question in every arm, at the chosen layer and dose

Chosen is the largest AUROC of detection plus share of concepts named, among layers and doses at which what follows the
text is at most 1 nat a token less likely; where all are more, the smallest dose of the first layer, and the verdict is
"invalid". At temperature 0: nothing is sampled, so the same seed gives the same numbers.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from mechint.model.base import Model
from mechint.probes.gates import judge
from mechint.probes.introspection import summary
from mechint.probes.introspection.battery import CONCEPT, NONE, Battery
from mechint.probes.introspection.cells import Cells
from mechint.probes.introspection.claims import CLAIMS, gates_of, named
from mechint.probes.introspection.settings import IntrospectionSettings
from mechint.probes.introspection.validity import LARGEST_RISE, validity
from mechint.probes.keywords import settings_from
from mechint.prompts.introspection import English, Material
from mechint.results import Findings, Unit, complete
from mechint.sites import Site

_DEVELOPING_CARRIERS = (0, 1)


class IntrospectionExperiment:
    """An `Analysis` of one model.

    Args:
        model: the model.
        material: texts and questions in its tokens.
        settings: what can be chosen.
        seed: of every draw.

    Raises:
        ConfigError: settings that the model does not allow.
        SiteError: a layer that the model has not.
    """

    kind = "introspection"

    def __init__(
        self, model: Model, material: Material, settings: IntrospectionSettings | None = None, seed: int = 0
    ) -> None:
        self.settings = settings or IntrospectionSettings()
        self._model, self._material, self._seed = model, material, seed
        for layer in self.settings.layers:
            model.facts.check(Site("resid_post", layer))

    def units(self) -> Sequence[Unit]:
        """List the layers and doses to choose from."""
        return [
            Unit("development", f"development/L{layer}/{dose:g}", {"layer": layer, "dose": dose})
            for layer in self.settings.layers
            for dose in self.settings.doses
        ]

    def follow_up(self, raw: Mapping[str, pd.DataFrame]) -> Sequence[Unit]:
        """List every question at the chosen layer and dose."""
        about = chosen(raw["development"])
        tables = ("receipt", "fluency", "readable", *(("graded",) if self._material.graded else ()))
        units = [Unit(table, table, about) for table in tables]
        questions = self._battery(about["layer"], about["dose"]).questions()
        return [*units, *(Unit("answers", f"answers/{q}", {**about, "question": q}) for q in questions)]

    def measure(self, unit: Unit) -> pd.DataFrame:
        """Do one unit."""
        layer, dose = int(unit.inputs["layer"]), float(unit.inputs["dose"])
        if unit.table == "development":
            return self._development(layer, dose)
        battery = self._battery(layer, dose)
        if unit.table == "answers":
            return battery.ask(str(unit.inputs["question"]))
        return getattr(battery, unit.table)()

    def conclude(self, raw: Mapping[str, pd.DataFrame]) -> Findings:
        """Turn all rows into gates, verdicts and sentences."""
        cells = Cells(raw["answers"], seed=self._seed)
        readable = summary.as_cells(raw["readable"])
        receipt: dict[str, Any] = raw["receipt"].iloc[0].to_dict()
        fluency: dict[str, Any] = raw["fluency"].iloc[0].to_dict()
        rise = float(fluency["nll_injected"] - fluency["nll"])
        gates = {
            claim: [
                *validity(claim, cells, receipt, rise if self._material.reads_on else None),
                *gates_of(claim, cells, readable, held=False),
            ]
            for claim in CLAIMS
        }
        verdicts = {claim: judge(CLAIMS[claim], found) for claim, found in gates.items()}
        tables = {
            "verdicts": summary.verdicts_table(verdicts, gates),
            "gates": summary.all_gates(gates),
            "arms": summary.arms_table(cells),
            **({"graded": raw["graded"]} if "graded" in raw else {}),
            "unrelated": summary.unrelated_table(cells),
            "development": raw["development"],
        }
        about = chosen(raw["development"])
        return Findings(self.kind, tables, summary.verdict(self._model.facts.name, verdicts, gates), self._notes(about))

    @functools.lru_cache(maxsize=1)  # noqa: B019
    def _battery(self, layer: int, dose: float) -> Battery:
        return self._at(layer, dose, self._material.concepts)

    def _at(self, layer: int, dose: float, concepts: Sequence[str]) -> Battery:
        return Battery(
            self._model, self._material, Site("resid_post", layer), dose, baseline=self.settings.baseline,
            concepts=concepts, hold=False, seed=self._seed,
        )  # fmt: skip

    def _development(self, layer: int, dose: float) -> pd.DataFrame:
        battery = self._at(layer, dose, self._material.developing or self._material.concepts)
        asked = [battery.ask(q, _DEVELOPING_CARRIERS, (NONE, CONCEPT)) for q in ("detect", "identify")]
        cells = Cells(pd.concat(asked, ignore_index=True), seed=self._seed)
        fluency: dict[str, Any] = battery.fluency().iloc[0].to_dict()
        told = {
            "layer": layer, "dose": dose, "detected": cells.auroc("detect", CONCEPT, NONE).value,
            "named": float(named(cells).mean()), "named_held": float(named(cells, held=True).mean()),
            "nll_rise": fluency["nll_injected"] - fluency["nll"],
        }  # fmt: skip
        return pd.DataFrame([told])

    def _notes(self, about: Mapping[str, Any]) -> list[str]:
        m = self._material
        return [
            f"Injected behind block {about['layer']}, {about['dose']:g} times the length of the stream at each token "
            f"of the text, and off before the question (held: on up to the answer). "
            + (f"Chosen on {len(m.developing)} other concepts." if m.developing else "Layer and dose were given."),
            f"{len(m.concepts)} concepts times {m.n_carriers} texts, both drawn in the bootstrap (percentiles). "
            "Nothing is sampled and nobody judges: answers are read from log-probabilities.",
            "A claim needs all of its gates, so their number is no reason for a correction. p of exchange and of rank "
            "hold for this model; on networks of random numbers single gates err far more often than they say (see "
            "docs/introspection.md), so no single gate is a finding.",
        ]


def chosen(development: pd.DataFrame) -> dict[str, Any]:
    """Return layer and dose with the largest detection plus naming, among those that leave the text intact."""
    intact: Any = development[~(development["nll_rise"] > LARGEST_RISE)]
    if intact.empty:
        row: Any = development.sort_values(["layer", "dose"], kind="stable").iloc[0]
    else:
        row = intact.loc[(intact["detected"] + intact["named"]).idxmax()]
    return {"layer": int(row["layer"]), "dose": float(row["dose"])}


def introspection(
    model: Model, material: Material | None = None, *, seed: int = 0, progress: bool | None = None, **settings: object
) -> Findings:
    """Ask whether a model detects, identifies and attributes what is injected into it, or guesses from the text.

    Args:
        model: the model.
        material: texts and questions; by default those in English.
        seed: of every draw.
        progress: show a progress bar; by default in a terminal only.
        settings: fields of `IntrospectionSettings`.

    Raises:
        ConfigError: an unknown or impossible setting.
        PromptError: the words are no single tokens of this model.
    """
    chosen_settings = settings_from(IntrospectionSettings, settings)
    material = English(model.tokenizer) if material is None else material
    return complete(IntrospectionExperiment(model, material, chosen_settings, seed), progress)
