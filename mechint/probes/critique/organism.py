"""The method on models whose truth is known: silent critics, which know of every error and say so of one in four.

    extract    pairs of facts that probes and vectors are fitted on: v_R at the result, v_S at the stub
    select     other facts: the block at which v_R moves rows with an error most, and v_S the next operand
    test       other facts again: what is reported, by the same evaluation as on any model (`causal`)

Added at every token, in units of the vector as it was estimated (dose 1 is v), at the output of a block but the last.
An untrained model goes the same way. The bars are in `organism_bars`.
"""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import torch

from mechint.capture.activations import Activations
from mechint.model.base import Model
from mechint.organisms import load
from mechint.organisms.critic_language import twins, vocabulary
from mechint.positions import Positions, everywhere, prompt
from mechint.probes.critique import organism_bars as bars
from mechint.probes.critique.causal import CritiqueEvaluation, CritiqueSettings
from mechint.probes.critique.layer_effects import layer_effects
from mechint.probes.critique.measures import both_sides, on_side
from mechint.probes.critique.organism_directions import gradient, said_by, with_direction
from mechint.probes.critique.organism_measures import (
    answers,
    clean_losses,
    goes_on,
    knowledge,
    margin,
    next_operand,
)
from mechint.probes.critique.organism_settings import OrganismSettings
from mechint.probes.critique.reading import EMBEDDING, read
from mechint.probes.critique.recording import Place, record_twins
from mechint.prompts.reasoning import TokenTwins
from mechint.results import Findings, Unit
from mechint.sites import Site
from mechint.steering.arms import Arms
from mechint.steering.parts import add
from mechint.vectors.fit import fit
from mechint.vectors.vector import SteeringVector

DOSES = tuple(round(0.1 * k, 1) for k in range(1, 16))
"""Of the curve, with both signs."""
_TESTED, _EVALUATED = 1.0, (0.5, 1.0, 1.5)
_ANSWERED = (-1.0, 0.0, 0.4, 0.8, 1.0, 1.5)
_WHERE: dict[str, Positions] = {"every token": everywhere, "the result": prompt(-1)}
_SHUFFLES = 5
_TAILS: dict[Place, str] = {"result": "", "stub_last": "stub"}
"""Where is read, and how twins end for that."""
_DIGITS = ("7", "2")
"""The wrong concept: which of these was read."""


class CritiqueOnOrganisms:
    """An `Analysis` of silent critics.

    Args:
        model: the first of them.
        test: twins to report on, of facts in the part "test".
        settings: what can be chosen.
        seed: of every draw.
    """

    kind = "critique_organism"

    def __init__(self, model: Model, test: TokenTwins, settings: OrganismSettings | None = None, seed: int = 0) -> None:
        s = self.settings = settings or OrganismSettings()
        self._model, self._test, self._seed = model, test, seed
        first = f"organism:{model.facts.name.removeprefix('organism:')}"
        named = [first, *s.others, *([s.untrained] if s.untrained else [])]
        self._names: tuple[str, ...] = tuple(dict.fromkeys(named))
        self._sites = tuple(Site("resid_post", layer) for layer in range(model.facts.n_layers))
        self._kept: dict[str, Model] = {first: model}

    def units(self) -> Sequence[Unit]:
        """List what each model knows, what can be read in it, and what steering does at each block."""
        tables = ("behaviour", "reading", "layers")
        return [Unit(table, f"{name}/{table}", {"model": name}) for name in self._names for table in tables]

    def follow_up(self, raw: Mapping[str, pd.DataFrame]) -> Sequence[Unit]:
        """List what is measured at the chosen block."""
        units: list[Unit] = []
        for name in self._names:
            layers = raw["layers"].loc[raw["layers"]["model"] == name]
            about = {"model": name, "site": _chosen(layers, "wrong"), "stub_site": _chosen(layers, "stub_effect")}
            found = list(self._evaluation(name, about["site"]).units())
            found += [Unit("curve", f"curve/{where}", {"where": where}) for where in _WHERE]
            found += [Unit(table, table) for table in ("parts", "stub", "ablated")]
            found += [Unit("answers", f"answers/{dose:g}", {"dose": dose}) for dose in _ANSWERED]
            units += [replace(u, name=f"{name}/{u.name}", inputs={**u.inputs, **about}) for u in found]
        return units

    def measure(self, unit: Unit) -> pd.DataFrame:
        """Do one unit."""
        name, inputs = str(unit.inputs["model"]), unit.inputs
        if unit.table in ("effects", "damage"):
            found = self._evaluation(name, str(inputs["site"])).measure(unit)
        elif unit.table in ("behaviour", "reading", "layers"):
            found = getattr(self, f"_{unit.table}")(name)
        elif unit.table == "curve":
            found = self._curve(name, str(inputs["site"]), str(inputs["where"]))
        elif unit.table == "stub":
            found = self._stub(name, str(inputs["stub_site"]))
        elif unit.table == "answers":
            found = self._answers(name, str(inputs["site"]), float(inputs["dose"]))
        else:
            found = getattr(self, f"_{unit.table}")(name, str(inputs["site"]))
        return found.assign(model=name)

    def conclude(self, raw: Mapping[str, pd.DataFrame]) -> Findings:
        """Turn all rows into tables, bars and a verdict."""
        evaluated: dict[str, list[pd.DataFrame]] = {}
        said: list[str] = []
        for name in self._names:
            own = {table: rows.loc[rows["model"] == name] for table, rows in raw.items()}
            found = self._evaluation(name, _chosen(own["layers"], "wrong")).conclude(own)
            for table, rows in found.tables.items():
                evaluated.setdefault(table, []).append(rows.assign(model=name))
            said.append(f"{name}: {found.verdict}")
        groups = dict(zip(self._test.ids, self._test.groups, strict=True))
        curve = bars.curve_table(raw["curve"], groups, self._seed)
        tables = {
            "bars": bars.judge(raw, curve, evaluated, self.settings.untrained),
            "curve": curve,
            **{table: pd.concat(rows, ignore_index=True) for table, rows in evaluated.items()},
            **{table: raw[table] for table in ("behaviour", "reading", "layers", "parts", "stub")},
            "answers": bars.answers_table(raw["answers"]),
        }
        notes = [
            f"Facts are divided into parts: {self.settings.extract} pairs to fit on, {self.settings.select} to choose "
            f"on, {len(self._test)} to report on, of other facts each.",
            "D and F are P(X) of X and K alone after a wrong and a right result; greedy: the share in which X leads.",
            *said,
        ]
        return Findings(self.kind, tables, bars.verdict(tables["bars"]), notes)

    def _behaviour(self, name: str) -> pd.DataFrame:
        model = self._load(name)
        odds = both_sides(margin(model), model, self._test)
        d, f = (float(bars.probability(odds[side]).mean()) for side in ("wrong", "true"))
        greedy = [float((odds[side] > 0).mean()) for side in ("wrong", "true")]
        rates = {"D": d, "F": f, "greedy_D": greedy[0], "greedy_F": greedy[1]}
        return pd.DataFrame([{**knowledge(model, self._test), **rates}])

    def _reading(self, name: str) -> pd.DataFrame:
        tables: list[pd.DataFrame] = []
        for place, tail in _TAILS.items():
            train = self._recorded(name, place)
            test = record_twins(self._load(name), self._tested(tail), train.sites, at=place, progress=False)
            found = read(train, test, shuffles=_SHUFFLES, seed=self._seed, progress=False)
            tables.append(found.layers.assign(place=place))
        return pd.concat(tables, ignore_index=True)

    def _layers(self, name: str) -> pd.DataFrame:
        """Return what v_R does to the margin, and v_S to the next operand, at each block but the last."""
        model, early = self._load(name), self._sites[:-1]
        effects = layer_effects(
            model, self._vector(name).at(early), self._twins("select"), margin(model), _TESTED, unit="raw",
            seed=self._seed,
        )  # fmt: skip
        stubs, vector = goes_on(self._twins("select", "stub")), self._vector(name, "stub_last")
        before, shifts = next_operand(model, stubs).mean(), list[float]()
        for site in early:
            with model.apply(add(vector.at(site), -_TESTED, unit="raw")):
                shifts.append(float(before - next_operand(model, stubs).mean()))
        return effects.table.drop(columns="chosen").assign(stub_effect=shifts)

    def _evaluation(self, name: str, site: str) -> CritiqueEvaluation:
        model, chosen = self._load(name), Site.parse(site)
        vector = self._vector(name).at(chosen)
        arms = Arms(vector, self._recorded(name), self._digits(name, chosen), said_by(model), self._seed)
        settings = CritiqueSettings(
            doses=_EVALUATED,
            unit="raw",
            test=(_TESTED,),
            draws=self.settings.draws,
        )
        return CritiqueEvaluation(
            model,
            self._test,
            arms,
            margin(model),
            settings,
            clean=clean_losses,
            chosen_on=self._twins("select").groups,
            seed=self._seed,
        )

    def _curve(self, name: str, site: str, where: str) -> pd.DataFrame:
        model, vector, rows = self._load(name), self._vector(name).at(site), list[pd.DataFrame]()
        for dose in (*(-d for d in DOSES[::-1]), 0.0, *DOSES):
            plan = add(vector, dose, unit="raw", where=_WHERE[where])
            with model.apply(plan):
                sides = both_sides(margin(model), model, self._test)
            rows.append(pd.DataFrame({"where": where, "dose": dose, "id": self._test.ids, **sides}))
        return pd.concat(rows, ignore_index=True)

    def _parts(self, name: str, site: str) -> pd.DataFrame:
        """Return how much of the shift on wrong rows is left of the vector without a direction."""
        model, vector = self._load(name), self._vector(name).at(site)
        v = vector[site].double()
        directions = {
            "vector": None,
            "without the gradient": gradient(model, vector, self._twins("select")),
            "without the tokens": said_by(model),
        }
        before = on_side(margin(model), model, self._test, wrong=True)
        rows: list[dict[str, Any]] = []
        for part, u in directions.items():
            left = v if u is None else v - (v @ u.double()) * u.double() / (u.double() @ u.double())
            with model.apply(add(with_direction(vector, left), _TESTED, unit="raw")):
                moved = on_side(margin(model), model, self._test, wrong=True) - before
            rows.append({"part": part, "shift": float(moved.mean()), "length": float(left.norm() / v.norm())})
        return pd.DataFrame(rows)

    def _stub(self, name: str, site: str) -> pd.DataFrame:
        """Return, after K on a wrong step, how likely the next step goes on from the true result."""
        model, stubs = self._load(name), goes_on(self._tested("stub"))
        vector = self._vector(name, "stub_last").at(site)
        found = {"none": next_operand(model, stubs), "bias of 3 nats on X": next_operand(model, stubs, bias=3.0)}
        for label, dose in (("+1 v_S", _TESTED), ("-1 v_S", -_TESTED)):
            with model.apply(add(vector, dose, unit="raw")):
                found[label] = next_operand(model, stubs)
        return pd.DataFrame([{"steering": label, "next_true": float(p.mean())} for label, p in found.items()])

    def _ablated(self, name: str, site: str) -> pd.DataFrame:
        """Return what ablating v_R does to computing results."""
        model, evaluation = self._load(name), self._evaluation(name, site)
        before = knowledge(model, self._test)["step_accuracy"]
        with model.apply(evaluation.plan(self._vector(name).at(site), "ablate", 1.0)):
            after = knowledge(model, self._test)["step_accuracy"]
        return pd.DataFrame([{"step_accuracy": before, "step_accuracy_ablated": after}])

    def _answers(self, name: str, site: str, dose: float) -> pd.DataFrame:
        model = self._load(name)
        some = self._test.rows(range(min(self.settings.answers, len(self._test))))
        with model.apply(add(self._vector(name).at(site), dose, unit="raw")):
            right = {side: answers(model, some, wrong=side == "wrong", seed=self._seed) for side in ("wrong", "true")}
        return pd.DataFrame({"dose": dose, "id": some.ids, **right})

    def _digits(self, name: str, site: Site) -> SteeringVector:
        """Return the wrong concept: the difference between having read a 7 and a 2, at right steps."""
        recorded, extract = self._recorded(name), self._twins("extract")
        read_as = [vocabulary()[row[at]] for row, at in zip(extract.true, extract.result, strict=True)]
        x = recorded.single(site)[np.asarray(recorded.labels) == 0].double()
        means = [x[torch.tensor([one == digit for one in read_as])].mean(0) for digit in _DIGITS]
        return replace(with_direction(self._vector(name).at(site), means[0] - means[1]), concept="a 7 against a 2")

    def _vector(self, name: str, place: Place = "result") -> SteeringVector:
        concept = f"wrong result, read at the {place.split('_')[0]}"
        return fit(self._recorded(name, place), sites=self._sites, method="mean_diff", concept=concept, folds=0)

    @functools.cache  # noqa: B019  (an analysis lives as long as its run)
    def _recorded(self, name: str, place: Place = "result") -> Activations:
        sites = [EMBEDDING, *self._sites]
        return record_twins(self._load(name), self._twins("extract", _TAILS[place]), sites, at=place, progress=False)

    def _twins(self, part: str, tail: str = "") -> TokenTwins:
        n = self.settings.extract if part == "extract" else self.settings.select
        return twins(n, self._seed, part, tail=tail)  # pyright: ignore[reportArgumentType]

    def _tested(self, tail: str) -> TokenTwins:
        return twins(len(self._test), self._seed, "test", tail=tail) if tail else self._test  # pyright: ignore[reportArgumentType]

    def _load(self, name: str) -> Model:
        if name not in self._kept:
            self._kept[name] = load(name)
        return self._kept[name]


def _chosen(layers: pd.DataFrame, by: str) -> str:
    return str(layers.loc[layers[by].idxmax(), "site"])
