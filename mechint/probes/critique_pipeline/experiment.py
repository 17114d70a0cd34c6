"""The paper's pipeline as an analysis: write, judge, make the vector, choose a layer, steer, locate errors, think on.

    runs           baseline, error injected, the same without the error: written and judged            (steps A to C)
    vectors        from hidden recoveries: difference of means at every block, probe, logit lens       (D to F)
    layer_effect   accuracy at +1 minus accuracy at -1, on problems for choosing                        (G)
    steering       all doses and random directions, on problems for testing, with and without error    (H)
    detection      where is the first mistake of a published solution                                   (I)
    scaling        "Wait", again and again                                                              (J)

With too few hidden recoveries there is no vector, and that is what is found.
"""

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from mechint.errors import SiteError
from mechint.model.base import Model
from mechint.probes.critique_pipeline import summary, vectors
from mechint.probes.critique_pipeline.critic_task import SilentCritics, speaks
from mechint.probes.critique_pipeline.generation import damage, write
from mechint.probes.critique_pipeline.judge import INCORRECT
from mechint.probes.critique_pipeline.recoveries import Found, by_run, find
from mechint.probes.critique_pipeline.scaling import scaled
from mechint.probes.critique_pipeline.settings import PipelineSettings
from mechint.probes.critique_pipeline.tasks import PARTS, Item, Row, Task
from mechint.probes.critique_pipeline.word_problems import WordProblems
from mechint.prompts import PromptSet
from mechint.results import Findings, Unit
from mechint.sites import Site
from mechint.steering.parts import add
from mechint.steering.plan import Plan

VECTOR, RANDOM = summary.VECTOR, summary.RANDOM


class CritiquePipeline:
    """An `Analysis` of hidden critique in one model.

    Args:
        model: what thinks, and is steered.
        prompts: neutral texts, on which the damage of steering is measured.
        settings: what can be chosen.
        seed: of problems, errors, draws and random directions.
        task: instead of the word problems that the settings describe.

    Raises:
        SiteError: the model has no such layer.
        PromptError: files or problems that cannot be used.
    """

    kind = "critique_pipeline"

    def __init__(
        self,
        model: Model,
        prompts: PromptSet,
        settings: PipelineSettings | None = None,
        seed: int = 0,
        *,
        task: Task | None = None,
    ) -> None:
        s = self.settings = settings or PipelineSettings()
        self._model, self._neutral, self._seed = model, prompts, seed
        self._layers = sorted({*s.layers} or {*range(model.facts.n_layers)})
        for layer in (*self._layers, *([s.layer] if s.layer >= 0 else [])):
            model.facts.check(Site("resid_post", layer))
        if s.layer >= 0 and s.layer not in self._layers:
            raise SiteError(f"layer = {s.layer} is none of layers = {self._layers}.")
        self._task: Task = task or (SilentCritics(s, seed) if speaks(model) else WordProblems(model, s, seed))
        self._runs: pd.DataFrame | None = None

    def units(self) -> Sequence[Unit]:
        """List what is written for each problem."""
        return [
            self._unit("runs", (run, part), {"run": run, "part": part}, span)
            for run in self.settings.runs
            for part in PARTS
            for span in self._spans(len(self._task.items(part)))
        ]

    def follow_up(self, raw: Mapping[str, pd.DataFrame]) -> Sequence[Unit]:
        """List everything that needs the vector, then what is steered at the chosen layer; nothing without a vector."""
        self._runs = raw["runs"]
        if self._found.answers is None:
            return []
        single = [Unit(name, f"{name}/all", self._about({})) for name in ("vectors", "lens", "surface")]
        units = [*single, *self._layer_units()]
        layer = self._steered(raw)
        if layer is None:
            return units
        damage = [Unit("damage", "damage/all", self._about({"layer": layer}))]
        return [*units, *self._steering_units(layer), *damage, *self._later_units(layer)]

    def measure(self, unit: Unit) -> pd.DataFrame:
        """Do one unit."""
        kinds: dict[str, Callable[[Mapping[str, Any]], pd.DataFrame]] = {
            "runs": self._measure_runs,
            "vectors": self._measure_vectors,
            "lens": lambda _: pd.concat([vectors.lens(self._model, self._v(at), at) for at in self._layers]),
            "surface": lambda _: vectors.surface(self._answers, self.settings.folds, self._seed),
            "layer_effect": lambda inputs: self._measure_steered(inputs, self._choosing),
            "steering": lambda inputs: self._measure_steered(inputs, self._task.items("test")),
            "damage": self._measure_damage,
            "detection": self._measure_detection,
            "scaling": self._measure_scaling,
        }
        return kinds[unit.table](unit.inputs)

    def conclude(self, raw: Mapping[str, pd.DataFrame]) -> Findings:
        """Turn all rows into tables and a verdict."""
        self._runs = raw["runs"]
        steered = self._steered(raw)
        tables = summary.tables(raw, self.settings, steered, self._seed)
        notes = [*self._task.notes, *summary.notes(raw, self.settings, self._found)]
        return Findings(self.kind, tables, summary.verdict(tables, self._found, self.settings, steered), notes)

    def _steered(self, raw: Mapping[str, pd.DataFrame]) -> int | None:
        """Return the layer that is steered: the one set, or the best, once the layer effects are known."""
        if self.settings.layer >= 0:
            return self.settings.layer
        return summary.best_layer(raw["layer_effect"]) if "layer_effect" in raw else None

    def _layer_units(self) -> list[Unit]:
        if self.settings.layer >= 0:
            return []
        n = len(self._choosing)
        return [
            self._unit("layer_effect", (layer, alpha), self._arm(layer, VECTOR, alpha, "injected"), span)
            for layer in self._layers
            for alpha in (-1.0, 1.0)
            for span in self._spans(n)
        ]

    def _steering_units(self, layer: int) -> list[Unit]:
        s = self.settings
        arms = [(VECTOR, 0, alpha) for alpha in s.alphas]
        ends = [alpha for alpha in (max(s.alphas), min(s.alphas)) if alpha]
        arms += [(RANDOM, draw, alpha) for alpha in dict.fromkeys(ends) for draw in range(s.random)]
        return [
            self._unit("steering", (arm, draw, alpha, run), self._arm(layer, arm, alpha, run, draw), span)
            for arm, draw, alpha in arms
            for run in ("injected", s.original)
            for span in self._spans(len(self._task.items("test")))
        ]

    def _later_units(self, layer: int) -> list[Unit]:
        s = self.settings
        found = [
            self._unit("detection", (name, alpha), {"file": at, "alpha": alpha, "layer": layer}, span)
            for at, (name, rows) in enumerate(self._task.detection)
            for alpha in s.alphas
            for span in self._spans(len(rows))
        ]
        return found + [
            self._unit("scaling", (alpha,), {"alpha": alpha, "layer": layer}, span)
            for alpha in s.stack_alphas
            for span in self._spans(len(self._task.items("test")))
        ]

    def _measure_runs(self, inputs: Mapping[str, Any]) -> pd.DataFrame:
        run, part = str(inputs["run"]), inputs["part"]
        items = self._task.items(part)[inputs["first"] : inputs["last"]]
        frame = self._continued(items, run, None)
        return frame.assign(subset=part, run=run)

    def _measure_vectors(self, _: Mapping[str, Any]) -> pd.DataFrame:
        x, lengths = self._read
        halves = vectors.split_half(x, self._seed)
        rows: list[dict[str, Any]] = []
        for at, layer in enumerate(self._layers):
            held = vectors.probe(x[:, at], self._answers.groups, self.settings.folds, self._seed)
            length = float(np.linalg.norm(self._differences[at]))
            told = {"layer": layer, "n_pairs": len(self._answers), "vector_length": length}
            told |= {"vector_share": length / lengths[at], "split_half": halves[at], "probe_auroc": held.auroc}
            rows.append(
                told | {"probe_auroc_low": held.low, "probe_auroc_high": held.high, "probe_accuracy": held.accuracy}
            )
        return pd.DataFrame(rows)

    def _measure_steered(self, inputs: Mapping[str, Any], items: Sequence[Item]) -> pd.DataFrame:
        """Return judgements of steered runs."""
        layer, arm, draw = int(inputs["layer"]), str(inputs["arm"]), int(inputs["draw"])
        alpha, run = float(inputs["alpha"]), str(inputs["run"])
        frame = self._continued(items[inputs["first"] : inputs["last"]], run, self._plan(layer, alpha, arm, draw))
        return frame.drop(columns=["tokens", "answer"]).assign(arm=arm, draw=draw, alpha=alpha, run=run, layer=layer)

    def _measure_damage(self, inputs: Mapping[str, Any]) -> pd.DataFrame:
        plans = {alpha: self._plan(int(inputs["layer"]), alpha) for alpha in self.settings.alphas}
        return damage(self._model, self._task.neutral or self._neutral, plans, self._seed)

    def _measure_detection(self, inputs: Mapping[str, Any]) -> pd.DataFrame:
        s, (name, rows) = self.settings, self._task.detection[int(inputs["file"])]
        asked, alpha = rows[inputs["first"] : inputs["last"]], float(inputs["alpha"])
        plan = self._plan(int(inputs["layer"]), alpha)
        new = self._write(
            [one.row for one in asked], [one.id for one in asked], plan, s.max_new_tokens, s.sampling_temperature
        )
        told = [
            {"file": name, "alpha": alpha, "id": one.id, "group": one.group, "mistake": one.mistake,
             "said": self._task.said_step(one, one.row + row), "written": len(row)}
            for one, row in zip(asked, new, strict=True)
        ]  # fmt: skip
        return pd.DataFrame(told).astype({"mistake": float, "said": float})

    def _measure_scaling(self, inputs: Mapping[str, Any]) -> pd.DataFrame:
        s, alpha = self.settings, float(inputs["alpha"])
        plan = self._plan(int(inputs["layer"]), alpha)

        def go_on(rows: Sequence[Row], names: Sequence[str], most: int) -> Sequence[Row]:
            return self._write(rows, names, plan, most, s.sampling_temperature)

        items = self._task.items("test")[inputs["first"] : inputs["last"]]
        found = scaled(self._task, items, go_on, stacks=s.stacks, most=s.max_new_tokens, answer=s.answer_tokens)
        return pd.DataFrame(found).drop(columns=["answer_start"]).assign(alpha=alpha)

    def _continued(self, items: Sequence[Item], run: str, plan: Plan | None) -> pd.DataFrame:
        s, begun = self.settings, [self._task.row(item, run) for item in items]
        new = self._write(begun, [f"{item.id}/{run}" for item in items], plan, s.max_new_tokens, s.temperature)
        rows: list[dict[str, Any]] = []
        for item, row, more in zip(items, begun, new, strict=True):
            whole = row + more
            judged = self._task.judge(item, run, whole)
            answer = self._task.read(whole[judged.answer_start :]) if judged.answer_start >= 0 else ""
            told = {"id": item.id, "group": item.group, "prompt_tokens": len(row), "written": len(more)}
            rows.append(told | asdict(judged) | {"answer": answer, "tokens": " ".join(map(str, whole))})
        return pd.DataFrame(rows)

    def _write(
        self, rows: Sequence[Row], names: Sequence[str], plan: Plan | None, most: int, temperature: float
    ) -> list[Row]:
        how: dict[str, Any] = {"temperature": temperature, "batch": self.settings.batch, "seed": self._seed}
        return write(self._model, rows, names, plan, max_new_tokens=most, **how)

    def _plan(self, layer: int, alpha: float, arm: str = VECTOR, draw: int = 0) -> Plan | None:
        """Return what adds alpha times the vector, or a random direction of its length, at every token."""
        if alpha == 0:
            return None
        direction = self._v(layer)
        if arm == RANDOM:
            direction = vectors.random_direction(direction, draw, self._seed)
        length = float(self._read[1][self._layers.index(layer)])
        return add(vectors.as_vector(direction, layer, length, arm), alpha, unit="raw")

    def _v(self, layer: int) -> Float[np.ndarray, " d_model"]:
        return self._differences[self._layers.index(layer)]

    @functools.cached_property
    def _choosing(self) -> Sequence[Item]:
        """The problems for choosing whose injected thinking stayed wrong; all, where none can be told."""
        assert self._runs is not None
        runs, items = by_run(self._runs), self._task.items("select")
        return [item for item in items if runs[("injected", item.id)]["thinking"] == INCORRECT] or items

    @functools.cached_property
    def _found(self) -> Found:
        s = self.settings
        assert self._runs is not None
        most = min(s.most_tokens, self._model.facts.n_ctx)
        how: dict[str, Any] = {"fewest": s.fewest_pairs, "most_tokens": most, "forced": s.teacher_forced}
        return find(self._runs, self._task, s.original, **how)

    @property
    def _answers(self) -> vectors.Answers:
        assert self._found.answers is not None
        return self._found.answers

    @functools.cached_property
    def _read(self) -> tuple[Float[np.ndarray, "sample layer d_model"], Float[np.ndarray, " layer"]]:
        return vectors.answer_means(self._model, self._answers, self._layers)

    @functools.cached_property
    def _differences(self) -> Float[np.ndarray, "layer d_model"]:
        return vectors.differences(self._read[0])

    def _arm(self, layer: int, arm: str, alpha: float, run: str, draw: int = 0) -> dict[str, Any]:
        return {"arm": arm, "alpha": alpha, "run": run, "layer": layer, "draw": draw}

    def _about(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        return {**inputs, "task": self._task.content_hash}

    def _unit(self, table: str, names: Sequence[Any], inputs: Mapping[str, Any], span: tuple[int, int]) -> Unit:
        name = "/".join(map(str, (table, *names, f"{span[0]}-{span[1]}")))
        return Unit(table, name, self._about({**inputs, "first": span[0], "last": span[1]}))

    def _spans(self, n: int) -> Iterator[tuple[int, int]]:
        size = self.settings.unit_rows
        return ((first, min(first + size, n)) for first in range(0, n, size))
