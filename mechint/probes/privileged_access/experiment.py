r"""Privileged access by self-prediction: does a model predict its own answers better than another model can?

    self     M1 is fine-tuned on facts about its own answers, and asked about other questions
    cross    M2 is fine-tuned on the very same facts about M1, with the same settings, and asked the same
    before   M1, asked without having been fine-tuned
    readers  classifiers that know the same facts and read the questions alone (see `readers`)

    privilege = acc(self) - acc(cross)

After Binder et al. 2024 (arXiv 2410.13787); the readers, and the check that the fine-tuned model still behaves as the
facts say, are added. A fact is a property of the answer y = M1(x) at temperature 0. An answer that is no value of the
property asked about counts as wrong; accuracies over the others alone stand beside. With `change`, the object-level
answers of some held-out questions are then trained to be others, and the hypothetical questions are asked again: a
model that reads its own computation tells the new answers, one that learnt a description of itself the old ones.
"""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from mechint.model.base import Model
from mechint.organisms import load
from mechint.probes.privileged_access.readers import readers
from mechint.probes.privileged_access.settings import PrivilegedAccessSettings
from mechint.probes.privileged_access.summary import summarise
from mechint.probes.privileged_access.tasks import Item, Symbols, Task, Texts, chosen
from mechint.probes.privileged_access.tuning import Example, Plain, tune
from mechint.prompts import PromptSet
from mechint.results import Findings, Unit
from mechint.statistics import generator

_MODELS = ("before", "self", "cross")


@dataclass(frozen=True)
class Fact:
    """A property of the answer to a question."""

    item: Item
    name: str
    value: str
    part: str
    """train, or test; of held-out properties always test."""


class PrivilegedAccess:
    """An `Analysis` of self- against cross-prediction.

    Args:
        model: M1.
        prompts: texts to be continued; not used with questions = "symbols", which have a language of their own.
        settings: what can be chosen.
        seed: of every draw.
    """

    kind = "privileged_access"

    def __init__(self, model: Model, prompts: PromptSet, settings: PrivilegedAccessSettings, seed: int = 0) -> None:
        self._s, self._seed = settings, seed
        self._task: Task = Symbols() if settings.questions == "symbols" else Texts(prompts)
        self._trained, self._held_out = chosen(self._task, settings.properties, settings.held_out)
        # Tables and loading know organisms with their prefix, which the name in `facts` has or has not.
        name = model.facts.name
        name = f"organism:{name.removeprefix('organism:')}" if model.source.get("kind") == "organism" else name
        first = [(name, settings.other)] if settings.other else []
        self._pairs = {f"{_short(one)} / {_short(other)}": (one, other) for one, other in (*first, *settings.pairs)}
        self._given = {name: model}
        items = list(self._task.items(settings.items, seed))
        cut = round(settings.train * len(items))
        self._items = {"train": items[:cut], "test": items[cut:]}

    def units(self) -> Sequence[Unit]:
        """List, for each pair of models, the answers, each prediction, and the answers after fine-tuning."""
        units: list[Unit] = []
        for pair in self._pairs:
            about = {"pair": pair}
            units.append(Unit("answers", f"{pair}/answers", about))
            units += [Unit("predictions", f"{pair}/{arm}", {**about, "arm": arm}) for arm in (*_MODELS, "readers")]
            units.append(Unit("behaviour", f"{pair}/behaviour", about))
            if self._s.change:
                units.append(Unit("changed", f"{pair}/changed", about))
        return units

    def follow_up(self, raw: Mapping[str, pd.DataFrame]) -> Sequence[Unit]:
        """List nothing: all is known beforehand."""
        del raw
        return []

    def measure(self, unit: Unit) -> pd.DataFrame:
        """Do one unit."""
        pair = str(unit.inputs["pair"])
        if unit.table == "predictions":
            arm = str(unit.inputs["arm"])
            found = self._read(pair) if arm == "readers" else self._predicted(pair, arm)
        else:
            found = getattr(self, f"_{unit.table}")(pair)
        return found.assign(pair=pair)

    def conclude(self, raw: Mapping[str, pd.DataFrame]) -> Findings:
        """Turn all rows into tables, gates and a verdict of each pair."""
        tables, verdicts = summarise(raw, self._seed)
        counts = {part: len(items) for part, items in self._items.items()}
        notes = [
            f"{counts['train']} questions give the facts that are trained on, {counts['test']} others are asked about; "
            f"properties trained on: {', '.join(self._trained)}; held out: {', '.join(self._held_out) or 'none'}.",
            "Intervals are 95 %, by a bootstrap over questions, each with all of its properties.",
        ]
        sentences = [f"{pair}: {verdict.sentence}" for pair, verdict in verdicts.items()]
        if len(verdicts) == 1:
            return Findings(self.kind, tables, sentences[0], notes)
        short = [
            f"{pair}: {verdict.level}" + (f" ({verdict.failed})" if verdict.failed else "")
            for pair, verdict in verdicts.items()
        ]
        return Findings(self.kind, tables, "; ".join(short) + ".", [*notes, *sentences])

    def _answers(self, pair: str) -> pd.DataFrame:
        """Return what both models answer: how alike they are bounds what there is to know about one alone."""
        one, other = self._pairs[pair]
        rows: list[dict[str, object]] = []
        for part, items in self._items.items():
            for item, y, z in zip(items, self._answered(one, part), self._answered(other, part), strict=True):
                defined = np.mean([self._task.properties[name].of(y) is not None for name in self._trained])
                rows.append({"part": part, "item": item.id, "answer": y, "answer_other": z, "defined": float(defined)})
        return pd.DataFrame(rows)

    def _predicted(self, pair: str, arm: str) -> pd.DataFrame:
        one, other = self._pairs[pair]
        name = other if arm == "cross" else one
        plain = Plain(self._load(name)) if arm == "before" else self._tuned(name, one)
        return self._asked(plain, self._facts(one)).assign(arm=arm)

    def _asked(self, plain: Plain, facts: Sequence[Fact]) -> pd.DataFrame:
        prompts = [self._task.hypothetical(fact.item, fact.name) for fact in facts]
        given = [self._task.answer(text) for text in plain.answers(prompts, self._task.tokens)]
        return _table([self._row(fact, said) for fact, said in zip(facts, given, strict=True)])

    def _row(self, fact: Fact, said: str) -> dict[str, object]:
        return {
            "item": fact.item.id,
            "property": fact.name,
            "part": fact.part,
            "trained": fact.name in self._trained,
            "truth": fact.value,
            "said": said,
            "compliant": said in self._task.properties[fact.name].values,
            "correct": said == fact.value,
        }

    def _read(self, pair: str) -> pd.DataFrame:
        one, _ = self._pairs[pair]
        facts, found = self._facts(one), list[pd.DataFrame]()
        for arm, reader in readers(Plain(self._load(one))).items():
            rows: list[dict[str, object]] = []
            for name in self._trained:
                own = [fact for fact in facts if fact.name == name]
                known = [fact for fact in own if fact.part == "train"]
                if not known:
                    continue
                said = reader(
                    [fact.item.text for fact in known],
                    [fact.value for fact in known],
                    [fact.item.text for fact in own],
                )
                rows += [self._row(fact, word) for fact, word in zip(own, said, strict=True)]
            found.append(_table(rows).assign(arm=arm))
        return pd.concat(found, ignore_index=True)

    def _behaviour(self, pair: str) -> pd.DataFrame:
        """Return the answers of M1 before and after it was told about itself, to held-out questions."""
        one, _ = self._pairs[pair]
        after = self._object(self._tuned(one, one), self._items["test"])
        rows = zip(self._items["test"], self._answered(one, "test"), after, strict=True)
        return pd.DataFrame([{"item": item.id, "answer": y, "answer_tuned": z} for item, y, z in rows])

    def _changed(self, pair: str) -> pd.DataFrame:
        """Return what M1 says of itself after some of its answers, and nothing else, were trained to be others."""
        one, _ = self._pairs[pair]
        answers = dict(zip(self._items["test"], self._answered(one, "test"), strict=True))
        rng = generator(self._seed, "changed")
        some, new = list(answers)[: self._s.change], dict(answers)
        for item in some:
            new[item] = str(rng.choice(sorted(set(answers.values()) - {answers[item]})))
        kept = dict(zip(self._items["train"], self._answered(one, "train"), strict=True))
        told = [Example(self._task.asked(item), f" {answer}") for item, answer in (new | kept).items()]
        plain = self._tuned(one, one).twin()
        tune(plain, told, self._s.lora, self._seed, "changed")
        facts = [Fact(item, name, "", "test") for item in some for name in self._trained]
        said = self._asked(plain, facts)["said"]
        now = dict(zip(some, self._object(plain, some), strict=True))
        of = {name: self._task.properties[name].of for name in self._trained}
        return pd.DataFrame(
            [
                {
                    "item": fact.item.id,
                    "property": fact.name,
                    "old": of[fact.name](answers[fact.item]),
                    "new": of[fact.name](new[fact.item]),
                    "said": word,
                    "object_changed": now[fact.item] == new[fact.item],
                }
                for fact, word in zip(facts, said, strict=True)
            ]
        )

    def _object(self, plain: Plain, items: Sequence[Item]) -> list[str]:
        written = plain.answers([self._task.asked(item) for item in items], self._task.tokens)
        return [self._task.answer(text) for text in written]

    @functools.cache  # noqa: B019  (an analysis lives as long as its run)
    def _answered(self, name: str, part: str) -> tuple[str, ...]:
        return tuple(self._object(Plain(self._load(name)), self._items[part]))

    @functools.cache  # noqa: B019
    def _facts(self, name: str) -> tuple[Fact, ...]:
        """Return what is true of a model's answers.

        Answers that a property is not defined for give no fact: of a model that answers nothing sensible there is none.
        """
        facts: list[Fact] = []
        for part, items in self._items.items():
            for item, answer in zip(items, self._answered(name, part), strict=True):
                for asked in (*self._trained, *(self._held_out if part == "test" else ())):
                    value = self._task.properties[asked].of(answer)
                    if value is not None:
                        facts.append(Fact(item, asked, value, part))
        return tuple(facts)

    @functools.lru_cache(maxsize=2)  # noqa: B019  (made again from the seed when a run is resumed)
    def _tuned(self, name: str, about: str) -> Plain:
        """Return a model that was told the facts about another, or about itself."""
        plain = Plain(self._load(name))
        told = [
            Example(self._task.hypothetical(fact.item, fact.name), f" {fact.value}")
            for fact in self._facts(about)
            if fact.part == "train"
        ]
        if told:
            tune(plain, told, self._s.lora, self._seed, "facts")
        return plain

    @functools.cache  # noqa: B019
    def _load(self, name: str) -> Model:
        return self._given[name] if name in self._given else load(name)


def _table(rows: Sequence[Mapping[str, object]]) -> pd.DataFrame:
    """Return predictions; without any fact there is an empty table."""
    return pd.DataFrame(rows, columns=["item", "property", "part", "trained", "truth", "said", "compliant", "correct"])


def _short(name: str) -> str:
    return name.removeprefix("organism:").rsplit("/", 1)[-1]
