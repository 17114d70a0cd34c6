"""Calibration: is a model as sure as it is right, and which heads keep it from being surer?

For every head, along the direct path: over-confidence and expected calibration error of the predictions without it, and
the two entropy changes, each beside a random direction of the same size, with intervals that draw clusters of documents
(see `effects.calibration` for the definitions, `confidence_summary.judge` for when a head is said to temper the model).
McDougall et al. 2023, "Copy Suppression", argue that copy suppression is a way of being less certain.
"""

import functools
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from torch import Tensor

from mechint.effects.attribution import require_exact
from mechint.effects.calibration import BINNED, BINNED_FIRST, CLEAN, calibration_sums
from mechint.effects.documents import Documents
from mechint.effects.head_outputs import mean_outputs
from mechint.effects.sampling import destinations
from mechint.model.base import Model
from mechint.probes import confidence_summary as summary
from mechint.probes.confidence_settings import CalibrationSettings
from mechint.probes.keywords import settings_from
from mechint.prompts import PromptSet
from mechint.results import Findings, Unit, complete


class CalibrationAnalysis:
    """An `Analysis` of every head of one model on texts.

    Raises:
        ConfigError: documents that the model cannot read.
        PromptError: fewer than two texts are long enough.
        UnsupportedModelError: the model's terms do not add up, so its heads cannot be told apart.
    """

    kind = "calibration"

    def __init__(
        self, model: Model, prompts: PromptSet, settings: CalibrationSettings | None = None, seed: int = 0
    ) -> None:
        self.settings = settings or CalibrationSettings()
        require_exact(model)
        self._model, self._seed = model, seed
        self._documents = Documents.cut(prompts, model, self.settings.length)
        self._clusters = dict(zip(self._documents.ids, self._documents.clusters, strict=True))

    def units(self) -> Sequence[Unit]:
        """List the measurements: documents of one pass times blocks."""
        return [
            Unit("sums", f"sums/{i}/L{layer}", {"documents": which, "layer": layer})
            for i, which in enumerate(self._documents.groups())
            for layer in range(self._model.facts.n_layers)
        ]

    def measure(self, unit: Unit) -> pd.DataFrame:
        """Do one unit."""
        settings, layer = self.settings, int(unit.inputs["layer"])
        documents = self._documents.pick(unit.inputs["documents"])
        at = destinations(documents, settings.positions, self._seed)
        found = calibration_sums(
            self._model,
            documents,
            layer,
            self._means[layer],
            at,
            n_bins=settings.n_bins,
            n_bins_first=settings.n_bins_first,
            seed=self._seed,
        )
        # The model's own predictions are the same whichever block is looked at: they are kept once.
        clean = (found["output"] == CLEAN).to_numpy()
        return found.assign(layer=np.where(clean, -1, layer)) if layer == 0 else found.loc[~clean]

    def follow_up(self, raw: Mapping[str, pd.DataFrame]) -> Sequence[Unit]:
        """List nothing: no unit waits for others."""
        del raw
        return []

    def conclude(self, raw: Mapping[str, pd.DataFrame]) -> Findings:
        """Turn all rows into tables and a verdict."""
        rows, settings = raw["sums"], self.settings
        top = summary.Counts(rows, BINNED, settings.n_bins, self._clusters, self._seed)
        first = summary.Counts(rows, BINNED_FIRST, settings.n_bins_first, self._clusters, self._seed)
        clean = summary.clean_table(top, first, rows)
        heads = summary.heads_table(rows, top, first, self._clusters, self._seed)
        tables = {"heads": heads, "clean": clean}
        tables["reliability"] = summary.reliability_table(first, heads, settings.top)
        return Findings(self.kind, tables, summary.verdict(self._model.facts.name, clean, heads), self._notes())

    @functools.cached_property
    def _means(self) -> Tensor:
        return mean_outputs(self._model, self._documents)

    def _notes(self) -> list[str]:
        s, n = self.settings, len(self._documents)
        return [
            f"{n} documents of {s.length} tokens; {self._documents.n_too_short} texts were shorter and left out. At "
            f"most {s.positions} positions of each, position 0 and the last left out.",
            f"Ablated heads are set to their mean at the same position over these {n} documents, along the direct "
            "path, the final norm's scale frozen.",
            f"Over-confidence: the three likeliest tokens of each position in {s.n_bins} equal bins; p = 1 belongs to "
            "the last bin, and empty bins are left out, unlike in the authors' code. Expected calibration error: the "
            f"likeliest token in {s.n_bins_first} equal bins.",
            "Control: a random direction in the place of the head's deviation from its mean, of the same length.",
        ]


def calibration(
    model: Model, prompts: PromptSet, *, seed: int = 0, progress: bool | None = None, **settings: object
) -> Findings:
    """Measure how calibrated a model is, and what every head does to that.

    Args:
        model: the model.
        prompts: texts; targets are not needed.
        seed: of every random choice.
        progress: show a progress bar; by default in a terminal only.
        settings: fields of `CalibrationSettings`.

    Raises:
        ConfigError: an unknown or impossible setting.
        PromptError: fewer than two texts are long enough.
    """
    chosen = settings_from(CalibrationSettings, settings)
    return complete(CalibrationAnalysis(model, prompts, chosen, seed), progress)
