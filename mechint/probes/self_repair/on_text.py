"""Self-repair on text: every component of a model, ablated at every token of documents, with its controls.

For each head and MLP: its direct effect on the next token, what ablation changes, and how much of the loss is made good
by other heads, MLPs and the final norm (see `effects.text_repair`); over all tokens, and over those where it matters
most, next to what chance would give (see `averages`). For the heads with the largest direct effect, the neurons of the
last MLP. Rushing & Nanda 2024, "Explorations of Self-Repair in Language Models"; McGrath et al. 2023, "The Hydra
Effect".
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from mechint.effects import attribution
from mechint.effects.ablation import Component, all_heads, chosen
from mechint.effects.documents import Documents
from mechint.effects.neurons import erasure
from mechint.effects.sampling import destinations
from mechint.effects.text_ablation import TextAblation
from mechint.effects.text_repair import (
    TOKENS_A_GROUP,
    CleanText,
    clean_text,
    frame_of,
    mean_unembedding,
    text_repair,
)
from mechint.errors import SiteError
from mechint.model.base import Model
from mechint.model.model_facts import ModelFacts
from mechint.probes.criterion import criteria_table
from mechint.probes.keywords import settings_from
from mechint.probes.self_repair import distributions, neurons, summary
from mechint.probes.self_repair.averages import CONDENSED, Measured, measured, top
from mechint.probes.self_repair.criteria import CRITERIA
from mechint.probes.self_repair.settings import EVERY, TextRepairSettings
from mechint.probes.self_repair.verdict import verdict
from mechint.prompts import PromptSet
from mechint.results import Findings, Unit, complete


class TextRepairAnalysis:
    """An `Analysis` of one model on one set of texts.

    Raises:
        PromptError: fewer than two texts are long enough.
        ConfigError: documents or positions that do not fit the model or one another.
        SiteError: a component that this model has not.
        InterventionError: too few documents for so many draws.
        UnsupportedModelError: the model's terms do not add up, so its components cannot be told apart.
    """

    kind = "self_repair_on_text"

    def __init__(
        self, model: Model, prompts: PromptSet, settings: TextRepairSettings | None = None, seed: int = 0
    ) -> None:
        self.settings = settings or TextRepairSettings()
        self._model, self._name, self._seed = model, prompts.name, seed
        self._documents = Documents.cut(prompts, model, self.settings.length)
        self._components = components_of(model.facts, self.settings)
        attribution.require_exact(model)
        s = self.settings
        self._ablation = TextAblation(model, self._documents, self._components, s.ablation, draws=s.draws, seed=seed)
        self._places = destinations(self._documents, s.positions or None, seed)
        numbers = {name: i for i, name in enumerate(sorted(set(self._documents.clusters)))}
        self._clusters = {i: numbers[name] for i, name in enumerate(self._documents.clusters)}

    def units(self) -> Sequence[Unit]:
        """List one unit a group of documents and block; those of one group come in a row and share its clean run."""
        layers = sorted({component.layer for component in self._components})
        return [
            Unit("tokens", f"tokens/{i}/L{layer}", {"documents": which, "layer": layer})
            for i, which in enumerate(self._documents.groups(TOKENS_A_GROUP))
            for layer in layers
        ]

    def follow_up(self, raw: Mapping[str, pd.DataFrame]) -> Sequence[Unit]:
        """List the closer look at neurons, for the heads with the largest condensed direct effect.

        They are chosen by what they do, not by how it is repaired, so nothing is chosen by its own outcome.
        """
        last = self._model.facts.n_layers - 1
        heads = [one for one in measured(raw["tokens"]) if one.part == "head" and self._seen_by(last, one.layer)]
        units: list[Unit] = []
        for one in self._largest(heads)[: self.settings.neurons]:
            which = top(one.values["direct_effect"].mean(1), self.settings.top)
            wanted = sorted(zip(one.document[which].tolist(), one.position[which].tolist(), strict=True))
            for i, group in enumerate(self._documents.groups(TOKENS_A_GROUP)):
                if mine := [list(pair) for pair in wanted if pair[0] in group]:
                    inputs = {"documents": group, "label": one.label, "tokens": mine}
                    units.append(Unit("neurons", f"neurons/{i}/{one.label}", inputs))
        return sorted(units, key=lambda unit: (unit.inputs["documents"][0], unit.name))

    def measure(self, unit: Unit) -> pd.DataFrame:
        """Do one unit."""
        which = tuple(int(i) for i in unit.inputs["documents"])
        text, baselines = self._ready(which)
        if unit.table == "neurons":
            last, component = self._model.facts.n_layers - 1, Component.parse(unit.inputs["label"])
            found = erasure(self._model, text, component, baselines, last)
            return neurons.neuron_rows(found, text, which, [tuple(pair) for pair in unit.inputs["tokens"]], last)
        components = [c for c in self._components if c.layer == unit.inputs["layer"]]
        frames = [
            frame_of(one, text, which, draw)
            for draw, baseline in enumerate(baselines)
            for one in text_repair(self._model, text, components, baseline)
        ]
        frame = pd.concat(frames, ignore_index=True)
        frame.attrs["receipt"] = {"ablations": len(frames), "tokens looked at": len(frame)}
        return frame

    def conclude(self, raw: Mapping[str, pd.DataFrame]) -> Findings:
        """Turn all rows into tables and a verdict."""
        facts, share = self._model.facts, self.settings.top
        single = list(measured(raw["tokens"]))
        about = summary.about_components(single, facts.n_layers)
        found = summary.chosen_tokens(single, share)
        averaged = summary.condensed_table(found, about, self._clusters, self._seed)
        components = summary.components_table(found, averaged, about, self._clusters, self._seed)
        layers = summary.layers_table(found, about, self._clusters, self._seed)
        tables: dict[str, pd.DataFrame] = {"components": components, "layers": layers, "condensed": averaged}
        tables["compensation"] = summary.compensation_table(single, self._clusters, self._seed)
        if "neurons" in raw:
            tables |= neurons.neuron_tables(raw["neurons"], self._clusters, self._documents.ids, self._seed)
        tables["norm_ratio"] = distributions.norm_ratio_table(found, about)
        tables["norm_ratio_histogram"] = distributions.norm_ratio_histogram(found, about)
        heads = self._largest([one for one in single if one.part == "head"])[: self.settings.scattered]
        tables["per_token"] = distributions.token_table(
            heads, self._documents, self._model.tokenizer, share, self._seed
        )
        tables = {name: table.assign(ablation=self.settings.ablation) for name, table in tables.items() if len(table)}
        tables["criteria"] = criteria_table(CRITERIA)
        words = verdict(facts.name, self._name, components, layers, self.settings.ablation)
        return Findings(self.kind, tables, words, self._notes(components))

    @functools.lru_cache(maxsize=1)  # noqa: B019  (one analysis lives as long as its run)
    def _ready(self, which: tuple[int, ...]) -> Any:
        """Return the clean run of a group and its baselines; kept until another group is asked for."""
        some = self._documents.pick(which)
        text: CleanText = clean_text(self._model, some, self._places[list(which)], self._minus)
        return text, self._ablation.baselines(which)

    @functools.cached_property
    def _minus(self) -> Any:
        return mean_unembedding(self._model) if self.settings.centred else None

    def _seen_by(self, layer: int, ablated: int) -> bool:
        """Whether the MLP of a block reads what a head of another, or the same, writes."""
        return ablated < layer or (ablated == layer and not self._model.facts.parallel)

    def _largest(self, components: Sequence[Measured]) -> list[Measured]:
        """Order components by the mean of their direct effect over condensed tokens, the largest first."""

        def condensed(one: Measured) -> float:
            direct = one.values["direct_effect"].mean(1)
            return float(direct[top(direct, self.settings.top)].mean())

        return sorted(components, key=condensed, reverse=True)

    def _notes(self, components: pd.DataFrame) -> list[str]:
        s, n = self.settings, len(self._documents)
        meant = {
            "zero": "zero",
            "mean": f"their mean at the same position over the {n} documents",
            "resample": f"their value at the same position of another document ({s.draws} draws a document)",
        }
        cap = ", before the final soft-cap" if self._model.facts.logit_cap else ""
        mean = ", minus the mean logit of the vocabulary" if s.centred else ""
        where = f"{s.positions} random positions of each" if s.positions else "all positions but the first and the last"
        notes = [
            f"{n} documents of {s.length} tokens; {self._documents.n_too_short} shorter texts were left out. "
            f"Looked at: {where}.",
            f"Effects are on the logit of the token that follows{mean}{cap}, with the clean final norm's scale.",
            f"Ablated components are set to {meant[s.ablation]}, at all positions.",
            f"“{CONDENSED.capitalize()}” averages are over the {s.top:.1%} of tokens with the largest direct effect of "
            f"the component ({int(components['n_condensed'].iloc[0])} tokens).",
        ]
        if self._model.facts.post_norms:
            notes.append(
                "Heads of one block share a post-norm in this architecture, so the others of its block change too when "
                "one is ablated; that counts as repair by heads, in the last layer as well."
            )
        if self._model.facts.parallel:
            notes.append("Attention and MLP of a block run in parallel: the MLP beside an ablated head cannot answer.")
        return notes


def components_of(facts: ModelFacts, settings: TextRepairSettings) -> list[Component]:
    """Return what is to be ablated.

    Raises:
        SiteError: one cannot be read, or is not in this model; or nothing is left.
    """
    layers = settings.layers or tuple(range(facts.n_layers))
    for layer in layers:
        if not 0 <= layer < facts.n_layers:
            raise SiteError(f"Layer {layer}: {facts.name} has blocks 0 to {facts.n_layers - 1}.")
    found: list[Component] = []
    for given in settings.components:
        if given == "heads":
            found += all_heads(facts, layers)
        elif given in EVERY:
            found += [Component(layer, None, EVERY[given]) for layer in layers]
        else:
            found += [one for one in chosen(facts, given) if one.layer in layers]
    if not found:
        raise SiteError(
            f"None of {', '.join(settings.components)} is in layers {', '.join(map(str, layers))}. Give other layers."
        )
    return sorted(set(found), key=lambda c: (c.layer, c.part, c.head or 0))


def self_repair_on_text(
    model: Model,
    prompts: PromptSet,
    *,
    components: str | Sequence[str] = ("heads", "mlps"),
    seed: int = 0,
    progress: bool | None = None,
    **settings: object,
) -> Findings:
    """Measure self-repair of components at every token of texts.

    Args:
        model: the model.
        prompts: texts; targets are not needed, the token that follows is watched.
        components: `"heads"`, `"mlps"`, `"layers"`, or labels such as `"L10H7"`, `"M3"`, `"L3"`; one or several.
        seed: of every random choice.
        progress: show a progress bar; by default in a terminal only.
        settings: other fields of `TextRepairSettings`, such as `length`, `ablation`, `positions`, `draws`.

    Raises:
        ConfigError: an unknown or impossible setting.
        PromptError: fewer than two texts are long enough.
        SiteError: a component that this model has not.
    """
    several = (components,) if isinstance(components, str) else tuple(components)
    chosen_settings = settings_from(TextRepairSettings, {"components": several, **settings})
    return complete(TextRepairAnalysis(model, prompts, chosen_settings, seed), progress)
