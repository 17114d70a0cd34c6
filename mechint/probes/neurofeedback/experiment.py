r"""Neurofeedback (Ji-An et al. 2025, arXiv 2505.13763), with the controls of Singh et al. 2026 (arXiv 2605.26242).

Sentences are shown with labels that say on which side of an axis of the model's own stream each of them lies, and the
model predicts the next label. Since a state without noise is a function of the text, whoever reads the text can do the
same in principle; so each axis stands beside readers of the text with the same examples, and beside an oracle that
reads the true state, without whose advantage nothing can be concluded. In the arm of hidden noise, Gaussian noise along
the axis is added at the sentences' tokens and counts in the score: there the best reader of the text is known exactly.
"""

import functools
from collections.abc import Mapping, Sequence

import pandas as pd

from mechint.model.base import Model
from mechint.organisms import load
from mechint.probes.neurofeedback import experiment_summary as summary
from mechint.probes.neurofeedback import reporting
from mechint.probes.neurofeedback.another_model import AnotherModel
from mechint.probes.neurofeedback.axes import PREDICTABLE
from mechint.probes.neurofeedback.bench import Arm, Bench
from mechint.probes.neurofeedback.control import GIVEN, WRITTEN, control_table, given, written
from mechint.probes.neurofeedback.control_judgement import control_sentence, control_verdicts
from mechint.probes.neurofeedback.judgement import judge_all, named, numbers
from mechint.probes.neurofeedback.readers import text_ceiling
from mechint.probes.neurofeedback.settings import NeurofeedbackSettings
from mechint.prompts import PromptSet
from mechint.results import Findings, Unit

_ALIKE = 0.75
"""Share of labels that lone sentences and those within a text should have in common; below it, a note says so."""
_FIRST_ORDER = (
    "For that, later blocks need only treat the noise as they treat what a text says: it shows no representation of "
    "being in a state."
)


class Neurofeedback:
    """An `Analysis` of reports about the model's own states.

    Args:
        model: the first to be examined.
        prompts: sentences; their cluster is their class, of which there are two.
        settings: what can be chosen.
        seed: of every split and draw.

    Raises:
        PromptError: sentences that are not all different, not of two classes, or too few.
        SiteError: the model has no such layer.
        TokenError: a label that is not one token.
    """

    kind = "neurofeedback"

    def __init__(
        self, model: Model, prompts: PromptSet, settings: NeurofeedbackSettings | None = None, seed: int = 0
    ) -> None:
        self.settings, self._prompts, self._seed = settings or NeurofeedbackSettings(), prompts, seed
        first = model.facts.name
        self._names = tuple(dict.fromkeys((first, *self.settings.others)))
        self._axes = tuple(dict.fromkeys((*self.settings.axes, *self.settings.noise_axes)))
        self._benches = {first: Bench(model, prompts, self.settings, seed)}

    def units(self) -> Sequence[Unit]:
        """List the axes, receipts and texts of every model."""
        s, found = self.settings, list[Unit]()
        arms: tuple[tuple[Arm, tuple[str, ...]], ...] = (("natural", s.axes), ("hidden noise", s.noise_axes))
        for model in self._names:
            for axis in self._axes:
                found.append(_unit("axes", model, axis=axis))
            found += [_unit("receipt", model, axis=axis) for axis in s.noise_axes]
            for arm, axes in arms:
                for axis in axes:
                    texts = [{"trial": arm, "axis": axis, "context": context} for context in range(s.contexts)]
                    found += [_unit(table, model, **one) for one in texts for table in ("reports", "readers")]
            if s.twins:
                found += [
                    _unit("twins", model, axis=axis, context=c) for axis in s.noise_axes for c in range(s.contexts)
                ]
            tasks = (GIVEN, WRITTEN) if s.written else (GIVEN,)
            found += [_unit(task, model, axis=axis, context=c) for task in tasks for axis in s.axes
                      for c in range(s.control)]  # fmt: skip
        return found

    def measure(self, unit: Unit) -> pd.DataFrame:
        """Do one unit."""
        inputs = dict(unit.inputs)
        bench, axis = self._bench(str(inputs["model"])), str(inputs["axis"])
        if unit.table == "axes":
            one = bench.axis(axis)
            told = {
                "words_accuracy": one.words,
                "variance_share": one.variance,
                "spread": one.spread,
                "site": str(bench.site),
            }
            return pd.DataFrame([{**inputs, **told}])
        arm: Arm = "hidden noise" if unit.table in ("receipt", "twins") else inputs.get("trial", "natural")
        context = int(inputs.get("context", 0))
        drawn = bench.draw(arm, axis, context)
        if unit.table == "readers":
            return reporting.readers(bench, drawn, self._text_models(str(inputs["model"]))).assign(**inputs)
        if unit.table in ("reports", "receipt"):
            return getattr(reporting, unit.table)(bench, drawn).assign(**inputs)
        measured = {"twins": reporting.twins, GIVEN: given, WRITTEN: written}[unit.table]
        return measured(bench, drawn, context).assign(**inputs)

    def follow_up(self, raw: Mapping[str, pd.DataFrame]) -> Sequence[Unit]:  # noqa: ARG002
        """Nothing is looked at more closely."""
        return []

    def conclude(self, raw: Mapping[str, pd.DataFrame]) -> Findings:
        """Turn all rows into tables, gates and verdicts."""
        s, seed = self.settings, self._seed
        verdicts, gates = judge_all(raw, s.tested, s.noise, seed)
        tables = {
            "verdicts": verdicts,
            "comparisons": summary.comparisons(raw, s.tested, s.noise, seed),
            "curves": summary.curves(raw, seed),
            "gates": gates,
            "axes": raw["axes"],
            "states": summary.states(raw),
        }
        if "twins" in raw:
            tables["twins"] = summary.twins_table(raw["twins"], seed)
        if "receipt" in raw:
            tables["receipt"] = raw["receipt"]
        sentence = _sentence(verdicts, gates)
        if controlled := [raw[task].assign(control=task) for task in (GIVEN, WRITTEN) if task in raw]:
            tables["control"] = control_table(pd.concat(controlled, ignore_index=True), seed)
            tables["control_verdicts"] = control_verdicts(tables["control"])
            sentence = f"{sentence}\n{control_sentence(tables['control_verdicts'])}"
        if WRITTEN in raw:
            tables["written"] = raw[WRITTEN].drop(columns="sentence")
        return Findings(self.kind, tables, sentence, self._notes(raw))

    def _notes(self, raw: Mapping[str, pd.DataFrame]) -> list[str]:
        s, notes = self.settings, list[str]()
        notes.append(
            f"{len(self._prompts)} sentences, half of them to fit on. {s.contexts} texts an axis of {s.shots} examples "
            f"and one more sentence, each with its labels as they are and exchanged; the last {s.tested} places tested."
        )
        for name in self._names:
            notes.append(self._seen(name))
        if s.noise_axes:
            notes.append(
                f"Hidden noise of {s.noise:g} standard deviations of the text's own scores: the best reader of the "
                f"text is right {text_ceiling(s.noise):.3f} of the time. It is added at the sentences' tokens only, so "
                "it is gone where the label is predicted."
            )
        for row in summary.states(raw).to_dict("records"):
            if row["trial"] == "natural" and row["same_label"] < _ALIKE:
                notes.append(
                    f"{row['model']}, {row['axis']}: labels are made of lone sentences, and within the text only "
                    f"{row['same_label']:.2f} of them would have had the same one (correlation of scores "
                    f"{row['correlation']:.2f}). The model can hardly report from its state there what was asked."
                )
        nulls = raw["axes"].loc[(raw["axes"]["axis"] == "null") & (raw["axes"]["words_accuracy"] > PREDICTABLE)]
        for row in nulls.to_dict("records"):
            notes.append(
                f"{row['model']}: no null axis was found whose labels a bag-of-words reader of half of all sentences "
                f"gets right at most {PREDICTABLE} of the time; it gets {row['words_accuracy']:.3f} of the one used."
            )
        return notes

    def _seen(self, name: str) -> str:
        """Say how many examples every block sees."""
        bench = self._bench(name)
        lengths = [len(bench.write(bench.draw("natural", axis, 0), False).tokens) for axis in self._axes[:1]]
        tokens = max(lengths, default=0)
        window, facts = bench.model.facts.shortest_window, bench.model.facts
        if tokens <= window:
            return f"{name}: texts of about {tokens} tokens, all seen by every block (N_eff is the number shown)."
        few = round(self.settings.shots * window / tokens)
        narrow = sum(one is not None and one < tokens for one in facts.windows)
        return (
            f"{name}: texts of about {tokens} tokens; {narrow} of {facts.n_layers} blocks see the last {window} tokens "
            f"only, which is N_eff = {few} examples."
        )

    @functools.lru_cache(maxsize=1)  # noqa: B019
    def _text_models(self, examined: str) -> dict[str, AnotherModel]:
        bench = self._bench(examined)
        return {name: AnotherModel(load(name), bench) for name in self.settings.text_models if name != examined}

    def _bench(self, name: str) -> Bench:
        if name not in self._benches:
            self._benches[name] = Bench(load(name), self._prompts, self.settings, self._seed)
        return self._benches[name]


def _unit(table: str, model: str, **about: object) -> Unit:
    name = "/".join([model, table, *(str(value) for value in about.values())])
    return Unit(table, name, {"model": model, **about})


def _sentence(verdicts: pd.DataFrame, gates: pd.DataFrame) -> str:
    """Return a line for all axes of a model that came to the same end, hidden noise first: it can tell state from text.

    The gate that decided is told with its number on each of these axes; the verdicts' own sentences say more.
    """
    lines: list[str] = []
    keys = ["model", "trial", "level", "failed"]
    order = verdicts.assign(last=verdicts["trial"] == "natural", rank=pd.factorize(verdicts["model"])[0])
    for _, own in order.sort_values(["rank", "last"], kind="stable").groupby(keys, sort=False):
        names, axes = named(own, keys), [str(axis) for axis in own["axis"]]
        said = f"{names['model']}, {names['trial']} along {', '.join(axes)}: {names['level']}."
        if not names["failed"]:
            lines.append(f"{said} All gates passed: what it says depends on its state. {_FIRST_ORDER}")
            continue
        where = (gates[list(keys[:2])] == [names["model"], names["trial"]]).all(axis=1)
        gate = gates.loc[where & (gates["gate"] == names["failed"]) & gates["axis"].isin(axes)]
        measured = ", ".join(f"{value:.3g}" for value in numbers(gate, "measured"))
        first = gate.iloc[[0]]
        statistic, needed, other = (str(first[name].iloc[0]) for name in ("statistic", "needed", "alternative"))
        lines.append(
            f"{said} {names['failed']} failed: {statistic} {measured}, needed {needed}. So it may be that {other}."
        )
    return "\n".join(lines)
