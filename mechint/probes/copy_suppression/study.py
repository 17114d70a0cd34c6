"""A study: which heads of a model suppress copies, how much of each that explains, and what happens if it goes.

First all heads, on two-name sentences and on texts: the scan (`scan`), and how much of each head's direct effect on
predictions copy suppression accounts for (`cspa`). Then the heads with the largest CS score, chosen on two-name
sentences alone, or named by the user, are examined on the texts by every line of evidence that McDougall et al. 2023,
"Copy Suppression", has: static QK and OV circuits, dynamic OV ranks, the three steps, CSPA with all its halves and
controls, direct and indirect effect, calibration and entropy; and their self-repair (Rushing & Nanda 2024).
`study_evidence` puts one line for each into a table, every number beside its control.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float, Int
from torch import Tensor

from mechint.effects import qk_circuits
from mechint.effects.calibration import calibration_sums
from mechint.effects.documents import Documents
from mechint.effects.head_outputs import mean_outputs
from mechint.effects.loss_effects import loss_effect_sums
from mechint.effects.sampling import another_head, destinations
from mechint.model.base import Model
from mechint.probes.copy_suppression import study_evidence
from mechint.probes.copy_suppression.cspa import BOTH, CONTROLS, RULES, Rule
from mechint.probes.copy_suppression.cspa_effects import Vocabulary, cspa_effects
from mechint.probes.copy_suppression.cspa_findings import vocabulary_of
from mechint.probes.copy_suppression.dynamic_ranks import dynamic_rank_rows
from mechint.probes.copy_suppression.scan import CopySuppressionScan
from mechint.probes.copy_suppression.study_settings import StudySettings
from mechint.probes.copy_suppression.three_steps import three_step_rows
from mechint.probes.copy_suppression.token_details import copy_suppression_kept, token_details
from mechint.probes.keywords import settings_from
from mechint.prompts import PromptSet, ioi
from mechint.results import Findings, Unit, complete
from mechint.sites import Site, parse_head
from mechint.statistics import generator

SCAN = "scan_"
"""Before the names of the scan's raw tables, among those of the study."""
SCAN_RULES: tuple[Rule, ...] = (BOTH, *(rule for rule in CONTROLS if rule.baseline == BOTH.baseline))
"""What is measured on every head of the model."""
FORMS = Rule("word forms", sign="any", forms=4)
"""Everything along a token's word forms: what the rule "both" is with K_semantic = 4 and without its sign."""
_TOKENS_A_UNIT = 512


class CopySuppressionStudy:
    """An `Analysis` of one model on one set of texts.

    Raises:
        PromptError: fewer than two texts are long enough.
        TokenError: too few names are one token of this tokenizer, so there are no two-name sentences to scan with.
        SiteError: a named head that this model has not.
        UnsupportedModelError: the model's terms do not add up, or its attention is not understood exactly.
    """

    kind = "copy_suppression_study"

    def __init__(self, model: Model, prompts: PromptSet, settings: StudySettings | None = None, seed: int = 0) -> None:
        self.settings = settings or StudySettings()
        for label in self.settings.heads:
            model.facts.check(Site("z", *parse_head(label)))
        self._model, self._texts, self._seed = model, prompts.name, seed
        self._documents = Documents.cut(prompts, model, self.settings.length)
        names = ioi(n=self.settings.two_name_prompts, seed=seed, tokenizer=model.tokenizer)
        self._scan = CopySuppressionScan(model, names, self.settings.scan, seed)

    def units(self) -> Sequence[Unit]:
        """List the measurements on all heads."""
        units = [Unit(SCAN + unit.table, f"scan/{unit.name}", unit.inputs) for unit in self._scan.units()]
        return [*units, *(Unit("cspa", f"cspa/{i}", {"documents": g}) for i, g in enumerate(self._groups()))]

    def follow_up(self, raw: Mapping[str, pd.DataFrame]) -> Sequence[Unit]:
        """List the measurements on the chosen heads."""
        closer = self._scan.follow_up(_scan_tables(raw))
        units = [Unit(SCAN + unit.table, f"scan/{unit.name}", unit.inputs) for unit in closer]
        heads = self.settings.heads or next((unit.inputs["heads"] for unit in closer), ())
        if not heads:
            return units
        for table in ("cspa_chosen", "steps", "ranks", "losses"):
            units += [
                Unit(table, f"{table}/{i}", {"documents": group, "heads": list(heads)})
                for i, group in enumerate(self._groups())
            ]
        layers = sorted({parse_head(label)[0] for label in heads})
        for layer in layers:
            units.append(Unit("qk", f"qk/L{layer}", {"layer": layer}))
            units += [
                Unit("calibration", f"calibration/L{layer}/{i}", {"documents": group, "layer": layer})
                for i, group in enumerate(self._groups())
            ]
        units += [Unit("grid", f"grid/{label}", {"head": label}) for label in heads]
        shown = list(range(min(self.settings.shown_documents, len(self._documents))))
        return [*units, Unit("tokens", "tokens", {"documents": shown, "heads": list(heads)})]

    def measure(self, unit: Unit) -> pd.DataFrame:
        """Do one unit."""
        if unit.table.startswith(SCAN):
            return self._scan.measure(Unit(unit.table.removeprefix(SCAN), unit.name, unit.inputs))
        if unit.table == "qk":
            return self._qk(int(unit.inputs["layer"]))
        if unit.table == "grid":
            return self._grid(str(unit.inputs["head"]))
        which = list(unit.inputs["documents"])
        documents = self._documents.pick(which)
        if unit.table == "cspa":
            at = self._places(self.settings.scanned_positions)[which]
            every = [
                (layer, h) for layer in range(self._model.facts.n_layers) for h in range(self._model.facts.n_heads)
            ]
            return cspa_effects(self._model, documents, every, SCAN_RULES, self._means, at, self._vocabulary)
        at = self._places(self.settings.positions)[which]
        if unit.table == "calibration":
            layer = int(unit.inputs["layer"])
            return calibration_sums(self._model, documents, layer, self._means[layer], at, seed=self._seed)
        return self._on_heads(unit, documents, at)

    def conclude(self, raw: Mapping[str, pd.DataFrame]) -> Findings:
        """Turn all rows into tables and a verdict."""
        scan = self._scan.conclude(_scan_tables(raw))
        clusters = dict(zip(self._documents.ids, self._documents.clusters, strict=True))
        told = study_evidence.Told(self._model.facts, scan, raw, clusters, self._texts, self._seed)
        notes = [
            *scan.notes,
            f"Texts: {len(self._documents)} documents of {self.settings.length} tokens ({self._documents.n_too_short} "
            f"shorter ones left out), {self.settings.scanned_positions} positions of each for every head, "
            f"{self.settings.positions} for the chosen ones.",
            "Heads were chosen by their CS score on two-name sentences only: nothing measured on the texts was chosen "
            "by its own outcome."
            if not self.settings.heads
            else "The heads were named in the settings.",
            "Direct path: later components' answers are left out, and norms keep the scales of the clean run.",
            "QK-only is no evidence by itself: it keeps all that a head writes for the few sources it attends to most.",
        ]
        return Findings(self.kind, told.tables(), told.verdict(), notes)

    def _groups(self) -> list[list[int]]:
        return self._documents.groups(_TOKENS_A_UNIT)

    @functools.cached_property
    def _means(self) -> Float[Tensor, "layer head pos d_model"]:
        return mean_outputs(self._model, self._documents)

    @functools.cached_property
    def _vocabulary(self) -> Vocabulary:
        return vocabulary_of(self._model, [FORMS], self._seed)

    def _places(self, count: int) -> Int[Tensor, "batch at"]:
        return destinations(self._documents, count, self._seed)

    def _on_heads(self, unit: Unit, documents: Documents, at: Int[Tensor, "batch at"]) -> pd.DataFrame:
        heads = [parse_head(label) for label in unit.inputs["heads"]]
        model, excluded = self._model, self._vocabulary.excluded
        if unit.table == "cspa_chosen":
            return cspa_effects(model, documents, heads, [*RULES, FORMS], self._means, at, self._vocabulary)
        if unit.table == "losses":
            return loss_effect_sums(model, documents, heads, self._means, at, seed=self._seed)
        if unit.table == "tokens":
            keep = copy_suppression_kept(model, excluded)
            return token_details(model, documents, heads, self._means, cspa=keep, excluded=excluded)
        controls = [another_head(model.facts, *head, seed=self._seed) for head in heads]
        both = list(dict.fromkeys([*heads, *(head for head in controls if head is not None)]))
        if unit.table == "steps":
            return three_step_rows(model, documents, both, self._means, excluded)
        forms = self._vocabulary.forms
        related = forms.related if forms is not None else int.__eq__
        return dynamic_rank_rows(model, documents, both, related, excluded)

    @functools.cached_property
    def _sampled(self) -> list[int]:
        special = {int(i) for i in self._model.tokenizer.all_special_ids}
        ordinary = np.array([i for i in range(self._model.facts.d_vocab) if i not in special])
        size = min(self.settings.qk_rows, len(ordinary))
        return sorted(generator(self._seed, "qk").choice(ordinary, size=size, replace=False).tolist())

    def _qk(self, layer: int) -> pd.DataFrame:
        """Rank each sampled token's own key among all keys, for every head of a block, averaged over distances."""
        rotations = qk_circuits.mean_rotation(self._model, layer, min(self.settings.length, self._longest(layer)))
        found = qk_circuits.own_token_ranks(self._model, layer, self._sampled, rotations)
        n_heads = self._model.facts.n_heads
        return pd.DataFrame(
            {
                "layer": layer,
                "head": np.repeat(np.arange(n_heads), len(self._sampled)),
                "token": np.tile(self._sampled, n_heads),
                "rank": found.scaled[0].flatten().numpy().astype(float),
                "ties": found.ties[0].flatten().numpy(),
                "rotation": found.rotations[0],
            }
        )

    def _longest(self, layer: int) -> int:
        window = self._model.facts.windows[layer]
        return min(self._model.facts.n_ctx, window or self._model.facts.n_ctx) - 1

    def _grid(self, label: str) -> pd.DataFrame:
        """Rank own keys for three kinds of query against three kinds of key."""
        layer, head = parse_head(label)
        rotations = qk_circuits.mean_rotation(self._model, layer, min(self.settings.length, self._longest(layer)))
        found = qk_circuits.grid(self._model, layer, head, self._sampled, rotations)
        return pd.concat(
            [
                pd.DataFrame({"label": label, "query": query, "key": key, "rank": ranks.numpy().astype(float)})
                for (query, key), ranks in found.items()
            ],
            ignore_index=True,
        )


def _scan_tables(raw: Mapping[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
    return {name.removeprefix(SCAN): frame for name, frame in raw.items() if name.startswith(SCAN)}


def copy_suppression_study(
    model: Model, prompts: PromptSet, *, seed: int = 0, progress: bool | None = None, **settings: Any
) -> Findings:
    """Find the copy-suppression heads of a model, and examine them to the end on texts.

    Args:
        model: the model.
        prompts: texts; targets are not needed.
        seed: of every random choice.
        progress: show a progress bar; by default in a terminal only.
        settings: fields of `StudySettings`, such as `heads=("L10H7",)`, `length`, `positions`.

    Raises:
        ConfigError: an unknown or impossible setting.
        PromptError: fewer than two texts are long enough.
        SiteError: a head that this model has not.
    """
    chosen = settings_from(StudySettings, settings)
    return complete(CopySuppressionStudy(model, prompts, chosen, seed), progress)
