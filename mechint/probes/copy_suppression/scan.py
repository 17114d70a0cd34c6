"""The scan: which heads of a model suppress copies on these prompts, how sure that is, and who repairs their loss.

For every head: CS and anti-induction scores, attention, direct effects, static OV ranks, the effect of ablation and its
self-repair, each with an interval, a control and a corrected p (see `measures`, `criteria`, `effects`). For the heads
with the largest CS score, chosen on half of the prompt clusters, the repair is taken apart on the other half.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from mechint.effects import static_circuits
from mechint.effects.ablation import Component, all_heads, sweep
from mechint.effects.findings import repair_rows, repair_tables
from mechint.effects.task import LOGIT_DIFFERENCE, Task, labels
from mechint.errors import ConfigError
from mechint.model.base import Model
from mechint.positions import prompt
from mechint.probes.copy_suppression import measures, summary
from mechint.probes.copy_suppression.criteria import CRITERIA, LEAST_PROMPTS
from mechint.probes.copy_suppression.settings import ScanSettings
from mechint.probes.criterion import criteria_table
from mechint.probes.keywords import settings_from
from mechint.prompts import PromptSet, RepeatedTokens, repeated_tokens
from mechint.results import Findings, Unit, complete
from mechint.sites import Site, head_label, parse_head
from mechint.statistics import generator

_INDUCTION_ROWS_A_UNIT = 10


class CopySuppressionScan:
    """An `Analysis` of one model on one set of prompts.

    Raises:
        PromptError: a prompt has no target.
        TokenError: a target or distractor is not one token.
        ConfigError: the rows for the anti-induction score are longer than the model's context.
        UnsupportedModelError: the model's terms do not add up, so its heads cannot be told apart.
    """

    kind = "copy_suppression"

    def __init__(self, model: Model, prompts: PromptSet, settings: ScanSettings | None = None, seed: int = 0) -> None:
        self.settings = settings or ScanSettings()
        needed = 2 * self.settings.induction_length + 1
        if needed > model.facts.n_ctx:
            raise ConfigError(
                f"induction_length = {self.settings.induction_length} makes rows of {needed} tokens; "
                f"{model.facts.name} reads at most {model.facts.n_ctx}. Give at most {(model.facts.n_ctx - 1) // 2}."
            )
        self._task = Task(model, prompts, seed)
        self._model, self._seed = model, seed

    def units(self) -> Sequence[Unit]:
        """List the measurements on all heads."""
        pieces: list[dict[str, object]] = [{"prompts": chunk} for chunk in self._task.chunks()]
        units = [Unit("prompts", f"prompts/{i}", p) for i, p in enumerate(pieces)]
        units += [Unit("edges", f"edges/{i}", p) for i, p in enumerate(pieces)]
        units += [
            Unit("induction", f"induction/{start}", {"start": start})
            for start in range(0, self.settings.induction_rows, _INDUCTION_ROWS_A_UNIT)
        ]
        units += [Unit("ov", f"ov/L{layer}", {"layer": layer}) for layer in range(self._model.facts.n_layers)]
        return [*units, *(Unit("ablation", f"ablation/{i}", p) for i, p in enumerate(pieces))]

    def follow_up(self, raw: Mapping[str, pd.DataFrame]) -> Sequence[Unit]:
        """List the closer look: repair and example attention of the heads with the largest CS score."""
        select, test = self._task.halves(2 * LEAST_PROMPTS)
        scores = raw["edges"][raw["edges"]["id"].isin([self._task.encoded.ids[i] for i in select])]
        means: Any = scores.groupby(["layer", "head"])["cs_score"].mean()
        best = means.dropna().sort_values(ascending=False, kind="stable").index[: self.settings.top]
        if not len(best):
            return []
        heads = [head_label(layer, head) for layer, head in best]
        examples = [i for i, at in enumerate(self._task.encoded.target_positions) if at is not None]
        return [
            *(
                Unit("repair", f"repair/{i}", {"prompts": chunk, "heads": heads})
                for i, chunk in enumerate(self._task.chunks(test))
            ),
            *(
                Unit("attention", f"attention/{i}", {"prompt": i, "heads": heads})
                for i in examples[: self.settings.examples]
            ),
        ]

    def measure(self, unit: Unit) -> pd.DataFrame:
        """Do one unit."""
        if unit.table == "prompts":
            return measures.prompt_rows(self._model, self._task.pick(unit.inputs["prompts"]))
        if unit.table == "edges":
            return measures.edges(self._model, self._task.pick(unit.inputs["prompts"]), self._seed)
        own = {
            "induction": self._induction,
            "ov": self._ov,
            "ablation": self._ablation,
            "repair": self._repair,
            "attention": self._attention,
        }
        return own[unit.table](unit)

    def conclude(self, raw: Mapping[str, pd.DataFrame]) -> Findings:
        """Turn all rows into tables and a verdict."""
        facts = self._model.facts
        heads = summary.heads_table(facts, raw, self._task.clusters, self._seed)
        tables = {"heads": heads, "overview": summary.overview(heads)}
        parts = pd.DataFrame()
        if "repair" in raw:
            tables["repair"], parts = repair_tables(raw["repair"], self._task.clusters, self._seed)
            tables["repair_parts"] = parts
        if "attention" in raw:
            tables["attention_examples"] = raw["attention"]
        tables |= {"prompts": self._prompt_table(raw["prompts"]), "criteria": criteria_table(CRITERIA)}
        tables["prompt_heads"] = raw["edges"].merge(raw["ablation"], on=["id", "layer", "head"])
        words = summary.verdict(facts.name, self._task.prompts.name, heads, parts)
        return Findings(self.kind, tables, words, self._notes(tables["prompts"]))

    @functools.cached_property
    def _repeated(self) -> RepeatedTokens:
        s = self.settings
        return repeated_tokens(self._model.tokenizer, n=s.induction_rows, length=s.induction_length, seed=self._seed)

    def _induction(self, unit: Unit) -> pd.DataFrame:
        start = int(unit.inputs["start"])
        rows = range(start, min(start + _INDUCTION_ROWS_A_UNIT, self.settings.induction_rows))
        return measures.anti_induction(self._model, self._repeated, rows)

    @functools.cached_property
    def _sampled(self) -> list[int]:
        special = {int(i) for i in self._model.tokenizer.all_special_ids}
        ordinary = np.array([i for i in range(self._model.facts.d_vocab) if i not in special])
        size = min(self.settings.ov_rows, len(ordinary))
        return sorted(generator(self._seed, "ov").choice(ordinary, size=size, replace=False).tolist())

    @functools.cached_property
    def _embedding(self) -> Tensor:
        return static_circuits.effective_embedding(self._model, self._sampled)

    def _ov(self, unit: Unit) -> pd.DataFrame:
        layer = int(unit.inputs["layer"])
        written = static_circuits.ov_outputs(self._model, layer, self._sampled, self._embedding)
        ranks, ties = static_circuits.own_token_ranks(written, torch.tensor(self._sampled), self._model)
        n_heads, n_rows = ranks.shape
        return pd.DataFrame(
            {
                "layer": layer,
                "head": np.repeat(np.arange(n_heads), n_rows),
                "token": np.tile(self._sampled, n_heads),
                "rank": ranks.flatten().numpy(),
                "ties": ties.flatten().numpy(),
            }
        )

    def _ablation(self, unit: Unit) -> pd.DataFrame:
        which, kind = list(unit.inputs["prompts"]), self.settings.ablation
        encoded, heads = self._task.pick(which), all_heads(self._model.facts)
        baseline = self._task.baseline(kind, which, heads)
        result = sweep(self._model, encoded.tokens, heads, baseline, labels(encoded))
        change, fixed = result.logit_change.transpose(0, 1), result.self_repair.transpose(0, 1)
        frame = pd.DataFrame(
            {
                "id": np.repeat(np.array(encoded.ids, dtype=object), len(heads)),
                "layer": np.tile([c.layer for c in result.components], len(which)),
                "head": np.tile([c.head or 0 for c in result.components], len(which)),
                "ablation_effect": self._task.in_metric(change).flatten().numpy(),
                "ablation_effect_target": change[..., 0].flatten().numpy(),
                "self_repair": self._task.in_metric(fixed).flatten().numpy(),
                "ablation": kind,
                "metric": self._task.metric,
            }
        )
        # The runner adds these up and writes them into the manifest.
        frame.attrs["receipt"] = {
            "ablations": len(result.receipt),
            "tokens rewritten": sum(fired.tokens for fired in result.receipt),
            "ablations that changed nothing": sum(fired.relative_change == 0 for fired in result.receipt),
        }
        return frame

    def _repair(self, unit: Unit) -> pd.DataFrame:
        which = list(unit.inputs["prompts"])
        components = [Component.parse(head) for head in unit.inputs["heads"]]
        return repair_rows(self._task, which, components, self.settings.ablation)

    def _attention(self, unit: Unit) -> pd.DataFrame:
        i = int(unit.inputs["prompt"])
        row, place = self._task.encoded.tokens[i], self._task.encoded.target_positions[i]
        rows: list[dict[str, Any]] = []
        for label in unit.inputs["heads"]:
            layer, head = parse_head(label)
            site = Site("pattern", layer)
            weights = self._model.run([row], read={site: prompt(-1)}, stop_after=site)[site][0, head, 0]
            rows += [
                {
                    "prompt_id": self._task.encoded.ids[i],
                    "label": label,
                    "position": at,
                    "token": str(self._model.tokenizer.decode([token])),
                    "weight": float(weights[at]),
                    "is_target": at == place,
                    "is_destination": at == len(row) - 1,
                    "target": self._task.prompts[i].target,
                }
                for at, token in enumerate(row)
            ]
        return pd.DataFrame(rows)

    def _prompt_table(self, rows: pd.DataFrame) -> pd.DataFrame:
        given = pd.DataFrame(
            [
                {"id": p.id, "prompt": p.prompt, "target": p.target, "distractor": p.distractor}
                for p in self._task.prompts
            ]
        )
        table: Any = given.merge(rows, on="id")
        correct = (table["logit_target"] > table["logit_distractor"]).astype("boolean")
        return table.assign(correct=correct.where(table["logit_distractor"].notna()))

    def _notes(self, prompts: Any) -> list[str]:
        absent = int(prompts["target_position"].isna().sum())
        select, test = self._task.halves(2 * LEAST_PROMPTS)
        others = "the same" if select == test else f"{len(test)} others"
        notes = [
            f"The target does not occur in the text of {absent} of {len(prompts)} prompts; attention, CS score and its "
            "control leave these out."
            if absent
            else "The target occurs in the text of every prompt.",
            self._task.ablation_note(self.settings.ablation),
            f"The {self.settings.top} heads whose repair is taken apart were chosen on {len(select)} prompts and "
            f"measured on {others}.",
        ]
        if self._task.metric == LOGIT_DIFFERENCE:
            share = prompts["correct"].mean()
            notes.append(f"The model prefers the target to the distractor in {share:.0%} of the prompts.")
        return notes


def copy_suppression(
    model: Model, prompts: PromptSet, *, seed: int = 0, progress: bool | None = None, **settings: object
) -> Findings:
    """Scan every head of a model for copy suppression.

    Args:
        model: the model.
        prompts: prompts with a target each; a distractor for each makes the metric a logit difference.
        seed: of every random choice.
        progress: show a progress bar; by default in a terminal only.
        settings: fields of `ScanSettings`.

    Raises:
        ConfigError: an unknown or impossible setting.
        PromptError: a prompt that cannot be used.
    """
    chosen = settings_from(ScanSettings, settings)
    return complete(CopySuppressionScan(model, prompts, chosen, seed), progress)
