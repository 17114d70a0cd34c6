"""The battery on models whose truth is known: every verdict has to match, and every gate has to earn its place.

    gates      each organism, with the injection off before the question and, apart, held up to the answer
    mutation   the verdicts again, with one gate left out at a time: a gate earns its place if some verdict then claims
               what is not so, or denies what was never tested
    random     networks of random numbers, the gates of validity left out: how often is there "evidence"?
    doses      the reader at doses below the one it is asked at: does it find more, the more is there?
    text only  logistic regression from TF-IDF of a text to what was answered: it has to tell all that an organism
               does that answers from the text, and nothing of one that answers from its state

Without G5, the injection is never switched off before the question, which is what that gate is about.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from mechint.model.base import Model
from mechint.organisms import load
from mechint.organisms.introspection_material import Invented
from mechint.organisms.introspective import build
from mechint.probes.introspection import organism_summary as told
from mechint.probes.introspection import summary
from mechint.probes.introspection.battery import CONCEPT, NONE, RANDOM, Battery
from mechint.probes.introspection.cells import Cells
from mechint.probes.introspection.claims import CLAIMS, gates_of
from mechint.probes.introspection.organism_truth import WEAK
from mechint.probes.introspection.settings import IntrospectionOrganismSettings
from mechint.probes.introspection.text_baseline import text_only
from mechint.probes.introspection.validity import validity
from mechint.prompts.introspection.material import YES
from mechint.results import Findings, Unit
from mechint.sites import Site
from mechint.statistics.signal_detection import d_prime

_DOSES = (0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5)
_FIRST_RANDOM = 1000
_AT_A_TIME = 10


class IntrospectionOnOrganisms:
    """An `Analysis` of organisms.

    Args:
        model: the first of them.
        material: what they are asked, in their language.
        settings: what can be chosen.
        seed: of every draw.
    """

    kind = "introspection_organisms"

    def __init__(
        self,
        model: Model,
        material: Invented,
        settings: IntrospectionOrganismSettings | None = None,
        seed: int = 0,
    ) -> None:
        self.settings = settings or IntrospectionOrganismSettings()
        self._material, self._seed = material, seed
        first = f"organism:{model.facts.name.removeprefix('organism:')}"
        self._names = tuple(dict.fromkeys([first, *self.settings.models]))
        self._kept = {first: model}

    def units(self) -> Sequence[Unit]:
        """List the organisms, one of them at a weak dose, and the networks of random numbers."""
        s, first = self.settings, self._names[0]
        tables = ("gates", "arms", "text_only")  # one after the other for a model, which is asked once for all
        units = [Unit(t, f"{t}/{name}", {"model": name, "dose": s.dose}) for name in self._names for t in tables]
        units.append(Unit("gates", f"gates/{first}{WEAK}", {"model": first, "dose": s.weak_dose}))
        units.append(Unit("doses", f"doses/{first}", {"model": first}))
        starts = range(0, s.random_networks, _AT_A_TIME)
        ends = [min(start + _AT_A_TIME, s.random_networks) for start in starts]
        pairs = zip(starts, ends, strict=True)
        return [*units, *(Unit("random", f"random/{a}-{b}", {"start": a, "stop": b}) for a, b in pairs)]

    def follow_up(self, raw: Mapping[str, pd.DataFrame]) -> Sequence[Unit]:
        """List nothing: no unit waits for others."""
        del raw
        return []

    def measure(self, unit: Unit) -> pd.DataFrame:
        """Do one unit."""
        if unit.table == "random":
            networks = range(int(unit.inputs["start"]), int(unit.inputs["stop"]))
            return pd.concat([self._random(_FIRST_RANDOM + i) for i in networks], ignore_index=True)
        name = str(unit.inputs["model"])
        if unit.table == "doses":
            return self._doses(name)
        dose = float(unit.inputs["dose"])
        battery, cells = self._asked(name, dose)
        if unit.table == "text_only":
            return text_only(cells, self._material).assign(model=name)
        if unit.table == "arms":
            return summary.arms_table(cells).assign(model=name)
        found = [rows.assign(held=held) for held, rows in self._gates(battery, cells, (False, True)).items()]
        return pd.concat(found, ignore_index=True).assign(model=name if dose == self.settings.dose else f"{name}{WEAK}")

    def conclude(self, raw: Mapping[str, pd.DataFrame]) -> Findings:
        """Turn all gates into verdicts, with each gate left out in turn."""
        verdicts = told.verdicts_table(raw["gates"])
        tables = {"verdicts": verdicts, "mutation": told.mutation_table(raw["gates"], verdicts)}
        if "random" in raw:
            tables["random"] = told.random_table(raw["random"])
        tables |= {name: raw[name] for name in ("doses", "text_only", "arms", "gates")}
        return Findings(self.kind, tables, told.verdict(tables), self._notes())

    @functools.lru_cache(maxsize=1)  # noqa: B019
    def _model(self, name: str) -> Model:
        return self._kept.get(name) or load(name)

    @functools.lru_cache(maxsize=1)  # noqa: B019
    def _asked(self, name: str, dose: float) -> tuple[Battery, Cells]:
        return self._ask(self._model(name), self._material, dose, hold=True)

    def _ask(self, model: Model, material: Invented, dose: float, *, hold: bool) -> tuple[Battery, Cells]:
        battery = self._battery(model, material, dose, hold=hold)
        answers = pd.concat([battery.ask(question) for question in battery.questions()], ignore_index=True)
        return battery, Cells(answers, seed=self._seed)

    def _battery(self, model: Model, material: Invented, dose: float, *, hold: bool) -> Battery:
        return Battery(model, material, Site("resid_post", self.settings.layer), dose, hold=hold, seed=self._seed)

    def _gates(self, battery: Battery, cells: Cells, holding: Sequence[bool]) -> dict[bool, pd.DataFrame]:
        """Return all gates, with the injection off before the question, and held up to the answer."""
        readable, receipt = summary.as_cells(battery.readable()), battery.receipt().iloc[0].to_dict()
        found: dict[bool, pd.DataFrame] = {}
        for held in holding:
            read = cells.read(held=held)
            gates = {
                claim: [*validity(claim, read, receipt), *gates_of(claim, read, readable, held=held)]
                for claim in CLAIMS
            }
            found[held] = summary.all_gates(gates)
        return found

    def _random(self, seed: int) -> pd.DataFrame:
        material = Invented(self.settings.random_carriers, self._seed)
        asked = self._ask(build("untrained", seed), material, self.settings.dose, hold=False)
        return self._gates(*asked, (False,))[False].assign(network=seed)

    def _doses(self, name: str) -> pd.DataFrame:
        found: list[dict[str, Any]] = []
        for dose in _DOSES:
            battery = self._battery(self._model(name), self._material, dose, hold=False)
            cells = Cells(battery.ask("detect", arms=(NONE, CONCEPT, RANDOM)), seed=self._seed)
            said = {arm: cells.said("detect", arm, YES) for arm in (NONE, CONCEPT, RANDOM)}
            sums = {arm: int(one.sum()) for arm, one in said.items()}
            n = said[NONE].size
            found.append(
                {"model": name, "dose": dose, "d_prime": d_prime(sums[CONCEPT], n, sums[NONE], n)}
                | {f"said_yes_{arm}": total / n for arm, total in sums.items()}
            )
        return pd.DataFrame(found)

    def _notes(self) -> list[str]:
        s, m = self.settings, self._material
        return [
            f"{len(m.concepts)} concepts times {m.n_carriers} texts; injected behind block {s.layer} at {s.dose:g} "
            "times the length of the stream, off before the question unless it says held.",
            "Expected levels were written down before any organism was asked; see `organism_truth`.",
            f"The networks of random numbers are asked about {s.random_carriers} texts each, with the gates of "
            "validity left out: with them every one is invalid.",
        ]
