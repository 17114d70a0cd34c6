"""Self-repair on two-name prompts: what negative heads do when the name movers are taken away together.

    share = sum over negative heads of Delta_h / sum over all heads but the movers of Delta_h

with Delta_h the change of a head's direct effect on target minus distractor (`effects.name_movers`) when the movers' z
are resampled from the counterfactual: a ratio of means over prompts, with a cluster bootstrap. Beside it: every
component before and after, what happens when parts of the movers' output are edited, and when they are taken out of
later heads' queries. McDougall et al. 2023, "Copy Suppression", section 4, on the heads of Wang et al. 2022.

Heads that are not named are chosen on half of the prompt clusters, and everything is measured on the other half.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor

from mechint.effects.ablation import Component, chosen
from mechint.effects.baselines import Baseline
from mechint.effects.name_movers import Clean, direct, edit_outputs, joint_ablation, project_queries, run_clean
from mechint.effects.task import LOGIT_DIFFERENCE, Task, required
from mechint.errors import PromptError
from mechint.model.base import Model
from mechint.probes.copy_suppression import ioi_summary
from mechint.probes.copy_suppression.criteria import LEAST_PROMPTS
from mechint.probes.copy_suppression.ioi_settings import IOIRepairSettings
from mechint.prompts import PromptSet
from mechint.results import Findings, Unit, complete
from mechint.sites import head_label


class IOISelfRepair:
    """An `Analysis` of one model on two-name prompts.

    Raises:
        PromptError: a prompt has no target or no distractor.
        TokenError: a target or distractor is not one token.
        SiteError: a head that this model has not.
        UnsupportedModelError: the model's terms do not add up, so its heads cannot be told apart.
    """

    kind = "ioi_self_repair"

    def __init__(
        self, model: Model, prompts: PromptSet, settings: IOIRepairSettings | None = None, seed: int = 0
    ) -> None:
        self.settings = settings or IOIRepairSettings()
        self._task = Task(model, prompts, seed)
        self._model, self._seed = model, seed
        if self._task.metric != LOGIT_DIFFERENCE:
            alone = next(p.id for p in prompts if p.distractor is None)
            raise PromptError(f"Prompt {alone!r} has no distractor. Each needs one, such as the subject's name.")
        given = [*self.settings.movers, *self.settings.negative]
        self._given = {c.label for c in chosen(model.facts, given)} if given else set[str]()

    def units(self) -> Sequence[Unit]:
        """List direct effects on the prompts on which heads are chosen; everything at once if none are to be."""
        if self._nothing_to_choose:
            return self._measurements(self._task.order, self.settings.movers)
        select, _ = self._task.halves(2 * LEAST_PROMPTS)
        chunks = self._task.chunks(select)
        return [Unit("selection", f"selection/{i}", {"prompts": chunk}) for i, chunk in enumerate(chunks)]

    def follow_up(self, raw: Mapping[str, pd.DataFrame]) -> Sequence[Unit]:
        """List the measurements on the other prompts."""
        movers, _ = self._heads(raw)
        if self._nothing_to_choose or not movers:
            return []
        return self._measurements(self._task.halves(2 * LEAST_PROMPTS)[1], movers)

    def measure(self, unit: Unit) -> pd.DataFrame:
        """Do one unit."""
        which = list(unit.inputs["prompts"])
        encoded = self._task.pick(which)
        target, distractor = required(encoded.target), required(encoded.distractor)
        clean = run_clean(self._model, encoded.tokens, target, distractor)
        ids = encoded.ids
        if unit.table == "selection":
            return _head_rows(ids, {"direct_effect": direct(clean, clean.run).heads})
        movers = [Component.parse(text) for text in unit.inputs["movers"]]
        if unit.table == "queries":
            before = direct(clean, clean.run).heads
            changed = project_queries(clean, movers)
            return pd.concat([_compared(ids, before, after, "removed", name) for name, after in changed.items()])
        baseline = self._task.baseline("resample", which, movers)
        if unit.table == "effects":
            return _component_rows(ids, clean, movers, baseline)
        before = direct(clean, clean.run).heads
        edits = edit_outputs(clean, movers, baseline)
        return pd.concat([_compared(ids, before, after, "intervention", name) for name, after in edits.items()])

    def conclude(self, raw: Mapping[str, pd.DataFrame]) -> Findings:
        """Turn all rows into tables and a verdict."""
        movers, negative = self._heads(raw)
        clusters, seed = self._task.clusters, self._seed
        tables: dict[str, pd.DataFrame] = {}
        if movers:
            tables = ioi_summary.tables(raw, movers, negative, clusters, seed)
        if "selection" in raw:
            own = raw["selection"].assign(label=_labels(raw["selection"]))
            tables["selection"] = ioi_summary.averaged(
                own, ["label", "layer", "head"], ["direct_effect"], clusters, seed
            )
        words = ioi_summary.verdict(self._model.facts.name, self._task.prompts.name, movers, negative, tables)
        return Findings(self.kind, tables, words, self._notes())

    @property
    def _nothing_to_choose(self) -> bool:
        return bool(self.settings.movers and self.settings.negative)

    def _heads(self, raw: Mapping[str, pd.DataFrame]) -> tuple[list[str], list[str]]:
        """Return movers and negative heads: those named, or those chosen on the first half."""
        named = [[c.label for c in map(Component.parse, own)] for own in (self.settings.movers, self.settings.negative)]
        if self._nothing_to_choose:
            return named[0], named[1]
        own = raw["selection"].assign(label=_labels(raw["selection"]))
        means: Any = own.groupby(["layer", "head", "label"], as_index=False)["direct_effect"].mean()
        movers = named[0] or ioi_summary.choose_movers(means, self.settings.top, self._given)
        return movers, named[1] or ioi_summary.choose_negative(means, movers)

    def _measurements(self, which: Sequence[int], movers: Sequence[str]) -> list[Unit]:
        pieces = self._task.chunks(which)
        return [
            Unit(table, f"{table}/{i}", {"prompts": piece, "movers": list(movers)})
            for table in ("effects", "edits", "queries")
            for i, piece in enumerate(pieces)
        ]

    def _notes(self) -> list[str]:
        select, test = self._task.halves(2 * LEAST_PROMPTS)
        if self._nothing_to_choose:
            how = "All heads were named beforehand."
        elif select == test:
            how = f"Heads were chosen and measured on the same {len(test)} prompts: too few clusters to keep half back."
        else:
            how = f"Heads that were not named were chosen on {len(select)} prompts and measured on {len(test)} others."
        return [
            how,
            "A mover is a head with a large direct effect on target minus distractor: it may write the target, or "
            "lower the distractor.",
            f"Ablation: {self._task.baseline_note('resample')}; all movers together, at every position.",
            "Edits of the movers' output and of later heads' queries are made at the last position only; all numbers "
            "are direct effects on target minus distractor, in the clean final norm's units, before a soft-cap.",
            "Shares are ratios of means over prompts; their control is the mean over the other heads of the same "
            "layers, movers and negative heads left out.",
        ]


def _component_rows(ids: Sequence[str], clean: Clean, movers: Sequence[Component], baseline: Baseline) -> pd.DataFrame:
    """Every component's direct effect before and after: all rows of a prompt add up to its `total`."""
    found = joint_ablation(clean, movers, baseline)
    before, after, n_layers, n_heads = found.before, found.after, *found.before.heads.shape[::2]
    embed = clean.embedding
    terms: list[tuple[str, str, int, int, Tensor, Tensor]] = [("embedding", "embedding", -1, -1, embed, embed)]
    for layer in range(n_layers):
        terms += [
            (head_label(layer, h), "head", layer, h, before.heads[layer, :, h], after.heads[layer, :, h])
            for h in range(n_heads)
        ]
        terms.append((f"M{layer}", "MLP", layer, -1, before.mlps[layer], after.mlps[layer]))
    constant = clean.constant
    terms.append(("biases", "bias", -1, -1, before.biases.sum(0) + constant, after.biases.sum(0) + constant))
    terms.append(("final norm", "final norm", -1, -1, 0 * found.norm, found.norm))
    terms.append(("logit difference", "total", -1, -1, found.difference_before, found.difference_after))
    return pd.concat(
        [
            pd.DataFrame(
                {"id": np.array(ids, dtype=object), "label": label, "component": kind, "layer": layer, "head": head}
                | {"direct_effect_clean": first.numpy().astype(float)}
                | {"direct_effect_resampled": second.numpy().astype(float)}
            )
            for label, kind, layer, head, first, second in terms
        ],
        ignore_index=True,
    )


def _compared(ids: Sequence[str], before: Tensor, after: Tensor, column: str, name: str) -> pd.DataFrame:
    return _head_rows(ids, {"direct_effect_clean": before, "direct_effect_after": after}).assign(**{column: name})


def _head_rows(ids: Sequence[str], values: Mapping[str, Tensor]) -> pd.DataFrame:
    """One row a prompt and head, from tensors [layer, prompt, head]."""
    n_layers, n, n_heads = next(iter(values.values())).shape
    keys = {
        "id": np.tile(np.repeat(np.array(ids, dtype=object), n_heads), n_layers),
        "layer": np.repeat(np.arange(n_layers), n * n_heads),
        "head": np.tile(np.arange(n_heads), n_layers * n),
    }
    return pd.DataFrame(keys | {name: value.flatten().numpy().astype(float) for name, value in values.items()})


def _labels(rows: pd.DataFrame) -> list[str]:
    return [head_label(layer, head) for layer, head in zip(rows["layer"], rows["head"], strict=True)]


def ioi_self_repair(
    model: Model,
    prompts: PromptSet,
    *,
    movers: Sequence[str] | None = None,
    negative: Sequence[str] | None = None,
    seed: int = 0,
    progress: bool | None = None,
) -> Findings:
    """Take the name movers of a model away together, and say which heads make good the loss.

    Args:
        model: the model.
        prompts: prompts with target, distractor and counterfactual (without one: resampled from another prompt).
        movers: name movers, such as `["L9H9", "L9H6", "L10H0"]`; by default found on half of the prompts.
        negative: negative heads, such as `["L10H7", "L11H10"]`; by default found likewise.
        seed: of every random choice.
        progress: show a progress bar; by default in a terminal only.

    Raises:
        ConfigError: a head is named twice.
        SiteError: a head that this model has not.
        PromptError: a prompt that cannot be used.
    """
    settings = IOIRepairSettings(tuple(movers or ()), tuple(negative or ()))
    return complete(IOISelfRepair(model, prompts, settings, seed), progress)
