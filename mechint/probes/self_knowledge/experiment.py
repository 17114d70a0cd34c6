"""A confidence experiment: questions with a right and a wrong answer, and every way to ask how sure a model is.

    token       p of the given answer among the two                what the output distribution says
    sampling    share of answers drawn at temperature 1 that agree (from that distribution: the answer is one token)
    probe       a logistic probe of the stream before the answer    `fitted.hidden_state`
    is right    p("right") of {right, wrong} about the given answer P(True), Kadavath et al. 2022, arXiv 2207.05221
    how sure    mean of words from "lowest" to "highest"            Σ_k (k/K) p(label k) / Σ p
    input only  learnt from question and answer as written          `fitted.input_only`
    cross       another model's p of the given answer               settings.other_model

The last two do not look into the model, so what they tell nobody needs self-knowledge for. The given answer is the
likelier of the two; it is right or wrong whatever else the model would rather have written. With `chain_tokens` the
model thinks first, and its chain stands before the answer in everything that is asked (the setting of "Thinking Out
Loud": longer thinking and stated confidence go together, so length is a covariate).
"""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float

from mechint.errors import ConfigError
from mechint.model.base import Model
from mechint.probes.keywords import settings_from
from mechint.probes.self_knowledge.fitted import folds_of, hidden_state
from mechint.probes.self_knowledge.reading import Read, lens, read_last
from mechint.probes.self_knowledge.settings import ConfidenceSettings
from mechint.probes.self_knowledge.summary import summarise
from mechint.probes.self_knowledge.wording import Wording, divide, graded, kind_of, label_ids
from mechint.prompts import Prompt, PromptSet, tokenize
from mechint.results import Findings, Unit, complete
from mechint.statistics import derive_seed, generator


@dataclass(frozen=True, eq=False)
class _Answered:
    """What the model answers to the questions of one unit."""

    prompts: tuple[Prompt, ...]
    chains: tuple[str, ...]
    read: Read
    """Target and distractor."""
    answers: tuple[str, ...]
    lens: Float[np.ndarray, "prompt layer column"]


class ConfidenceExperiment:
    """An `Analysis` of what a model's confidences are worth.

    Args:
        model: what is asked.
        prompts: questions with a target, a distractor, and "kind/fact" as cluster.
        settings: what can be chosen.
        seed: of every split and draw.
        other: another model, instead of the one that the settings name.

    Raises:
        PromptError: a question without two answers, or too few facts.
        TokenError: an answer or a label is not one token in its place.
        ConfigError: the model has no such layer.
    """

    kind = "confidence"

    def __init__(
        self,
        model: Model,
        prompts: PromptSet,
        settings: ConfidenceSettings | None = None,
        seed: int = 0,
        *,
        other: Model | None = None,
    ) -> None:
        s = self.settings = settings or ConfidenceSettings()
        self._model, self._seed, self._other = model, seed, other
        n_layers = model.facts.n_layers
        if strange := [layer for layer in s.layers if not 0 <= layer < n_layers]:
            raise ConfigError(
                f"layers = {list(s.layers)}: {model.facts.name} has blocks 0 to {n_layers - 1}, not {strange}."
            )
        self._layers = sorted(set(s.layers)) or list(range(n_layers))
        self._parts = divide(prompts, s.shots, s.calibrate, seed)
        self._wording = {kind: Wording(shown, s) for kind, shown in self._parts.shown.items()}
        for own in self._parts.asked.values():
            self._reports(own[0], str(own[0].target), "")

    def units(self) -> Sequence[Unit]:
        """List the questions, kind by kind; then the probe, and the other model."""
        size, found = self.settings.unit_rows, list[Unit]()
        for kind, own in self._parts.asked.items():
            for start in range(0, len(own), size):
                found.append(Unit("items", f"items/{kind}/{start}", {"kind": kind, "start": start}))
        found.append(Unit("probe", "probe"))
        if self._other is not None or self.settings.other_model:
            found.append(Unit("cross", "cross", {"model": self.settings.other_model}))
        return found

    def follow_up(self, raw: Mapping[str, pd.DataFrame]) -> Sequence[Unit]:
        """List nothing more."""
        del raw
        return ()

    def measure(self, unit: Unit) -> pd.DataFrame:
        """Do one unit."""
        if unit.table == "items":
            return self._items(str(unit.inputs["kind"]), int(unit.inputs["start"]))
        return self._probe() if unit.table == "probe" else self._cross()

    def conclude(self, raw: Mapping[str, pd.DataFrame]) -> Findings:
        """Turn all rows into tables, gates and a verdict."""
        tables, verdict, notes = summarise(raw, self.settings, self._model.facts.name, self._seed)
        shown = sum(map(len, self._parts.shown.values()))
        divided = (
            f"Facts are divided: {shown} questions are shown with their answers, {len(self._parts.calibrate)} "
            f"calibrate the layer-wise reading, {len(self._parts.test)} are reported on; no fact is in two parts."
        )
        return Findings(self.kind, tables, verdict, [divided, *notes])

    def _items(self, kind: str, start: int) -> pd.DataFrame:
        """Return a row a question: its answer, and every confidence that needs no learning."""
        s, found, tested = self.settings, self._answered(kind, start), {p.id for p in self._parts.test}
        reports = [
            self._reports(p, answer, chain)
            for p, answer, chain in zip(found.prompts, found.answers, found.chains, strict=True)
        ]
        truth, sure = (
            read_last(self._model, [one[which][0] for one in reports], [one[which][1] for one in reports])
            for which in (0, 1)
        )
        priors = self._priors(found)
        rows: list[dict[str, Any]] = []
        for i, p in enumerate(found.prompts):
            answer, right = found.answers[i], found.answers[i] == p.target
            given = float(found.read.among[i].max())
            first = sorted((str(p.target), str(p.distractor)))[0]
            side = 0 if p.target == first else 1
            drawn = generator(self._seed, "samples", p.id).binomial(s.samples, given) / s.samples
            rows.append(
                {"id": p.id, "kind": kind, "cluster": p.cluster or p.id}
                | {"part": "test" if p.id in tested else "calibrate"}
                | {"question": p.prompt, "target": p.target, "distractor": p.distractor, "answer": answer}
                | {"correct": int(right), "n_tokens": len(tokenize(p.prompt, self._model.tokenizer))}
                | {"answer_length": len(answer.strip()), "chain": found.chains[i]}
                | {"chain_tokens": len(self._model.tokenizer(found.chains[i], add_special_tokens=False)["input_ids"])}
                | {"prior": float(priors[i]), "answer_mass": float(found.read.mass[i])}
                | {"token": given, "sampling": float(drawn), "is_right": float(truth.among[i, 0])}
                | {"is_right_mass": float(truth.mass[i]), "how_sure_mass": float(sure.mass[i])}
                | {"how_sure": float(graded(sure.log_p[i : i + 1])[0])}
                | {"first_right": side == 0, "first_given": answer == first}
                | {f"lens_{layer}": float(found.lens[i, layer, side]) for layer in range(found.lens.shape[1])}
            )  # fmt: skip
        return pd.DataFrame(rows)

    def _reports(self, prompt: Prompt, answer: str, chain: str) -> tuple[tuple[Any, Any], tuple[Any, Any]]:
        """Return rows and label tokens of both questions about an answer."""
        s, wording, tokenizer = self.settings, self._wording[kind_of(prompt)], self._model.tokenizer
        truth, sure = wording.is_right(prompt, answer, chain), wording.how_sure(prompt, answer, chain)
        return label_ids(truth, s.truth_labels, tokenizer), label_ids(sure, s.confidence_labels, tokenizer)

    def _priors(self, found: _Answered) -> Float[np.ndarray, " prompt"]:
        """Return how much likelier the given answer is than the other when nothing was asked, in nats."""
        asked = [self._wording[kind_of(p)].nothing(p) for p in found.prompts]
        pairs = [(answer, _other(p, answer)) for p, answer in zip(found.prompts, found.answers, strict=True)]
        known = [label_ids(text, pair, self._model.tokenizer) for text, pair in zip(asked, pairs, strict=True)]
        read = read_last(self._model, [row for row, _ in known], [ids for _, ids in known])
        return read.log_p[:, 0] - read.log_p[:, 1]

    @functools.cache  # noqa: B019  (an analysis lives as long as its run)
    def _answered(self, kind: str, start: int) -> _Answered:
        own = self._parts.asked[kind][start : start + self.settings.unit_rows]
        chains = self._chains(kind, own)
        read, labels = _answers(self._model, self._wording[kind], own, chains, streams=True)
        answers = tuple(str(p.target if a >= b else p.distractor) for p, (a, b) in zip(own, read.log_p, strict=True))
        return _Answered(own, chains, read, answers, lens(self._model, read.streams, labels))

    def _chains(self, kind: str, own: Sequence[Prompt]) -> tuple[str, ...]:
        """Return what the model thinks before each answer; nothing if it is not asked to."""
        if not self.settings.chain_tokens:
            return ("",) * len(own)
        asked = [self._wording[kind].think(p) for p in own]
        stops, texts = sorted({end for _, end in asked}), [text for text, _ in asked]
        written = self._model.generate(
            texts, max_new_tokens=self.settings.chain_tokens, stop=stops, seed=self._seed, progress=False
        )
        return tuple(str(text).rstrip() for text in written.texts)

    def _probe(self) -> pd.DataFrame:
        """Return p(right) of each tested question from the stream before its answer."""
        s, tested = self.settings, {p.id for p in self._parts.test}
        prompts, streams, y = list[Prompt](), list[torch.Tensor](), list[int]()
        for unit in self.units():
            if unit.table != "items":
                continue
            found = self._answered(str(unit.inputs["kind"]), int(unit.inputs["start"]))
            for i, p in enumerate(found.prompts):
                if p.id in tested:
                    prompts.append(p)
                    streams.append(found.read.streams[i, self._layers])
                    y.append(int(found.answers[i] == p.target))
        right, groups = np.array(y), [p.cluster or p.id for p in prompts]
        folds = folds_of(right, groups, s.folds, derive_seed(self._seed, "outer"))
        x = torch.stack(streams).double().numpy()
        p, layers = hidden_state(x, right, groups, folds, inner_folds=s.inner_folds, seed=self._seed)
        blocks = [self._layers[layer] if layer >= 0 else -1 for layer in layers]
        return pd.DataFrame({"id": [one.id for one in prompts], "probe": p, "probe_layer": blocks})

    def _cross(self) -> pd.DataFrame:
        """Return another model's probability of the right answer among the two, given the same text."""
        from mechint.organisms import load

        other = self._other or load(self.settings.other_model)
        rows: list[dict[str, Any]] = []
        for unit in self.units():
            if unit.table == "items":
                kind, start = str(unit.inputs["kind"]), int(unit.inputs["start"])
                own = self._parts.asked[kind][start : start + self.settings.unit_rows]
                chains = self._answered(kind, start).chains if self.settings.chain_tokens else ("",) * len(own)
                read, _ = _answers(other, self._wording[kind], own, chains)
                rows += [{"id": p.id, "other_right": float(among[0])} for p, among in zip(own, read.among, strict=True)]
        return pd.DataFrame(rows)


def confidence(
    model: Model, prompts: PromptSet, *, seed: int = 0, progress: bool | None = None, **settings: Any
) -> Findings:
    """Ask a model questions, and find out what its confidences are worth.

    Args:
        model: what is asked.
        prompts: questions with a target, a distractor, and "kind/fact" as cluster (`prompts.two_choice`).
        seed: of every split and draw.
        progress: show a progress bar on standard error; by default only in a terminal.
        settings: any of `ConfidenceSettings`.

    Raises:
        ConfigError: an unknown setting, or an impossible value.
        PromptError: a question without two answers, or too few facts.
        TokenError: an answer or a label is not one token in its place.
    """
    return complete(ConfidenceExperiment(model, prompts, settings_from(ConfidenceSettings, settings), seed), progress)


def _answers(
    model: Model, wording: Wording, prompts: Sequence[Prompt], chains: Sequence[str], *, streams: bool = False
) -> tuple[Read, list[tuple[int, ...]]]:
    """Read both answers of some questions; return them with their tokens, which are this model's own."""
    texts = [wording.question(p, chain) for p, chain in zip(prompts, chains, strict=True)]
    known = [
        label_ids(text, (str(p.target), str(p.distractor)), model.tokenizer)
        for p, text in zip(prompts, texts, strict=True)
    ]
    labels = [ids for _, ids in known]
    return read_last(model, [row for row, _ in known], labels, streams=streams), labels


def _other(prompt: Prompt, answer: str) -> str:
    return str(prompt.distractor if answer == prompt.target else prompt.target)
