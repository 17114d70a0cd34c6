"""A critique experiment: is it readable that a step was wrong, and does its direction make a model catch more errors?

    parts     60 % of the problems to fit on, 15 % to choose on, 25 % to report on                        (`parts`)
    knows     M1, log p(true result) - log p(wrong one) of every pair: what is read and what is moved is also told for
              those pairs alone whose true result the model holds for likelier
    reads     probes at R and S at every layer, beside surface baselines and labels exchanged             (`reading`)
    lies      length, dimensions, stability, angles, tokens of the vectors v_R, v_S, v_A                  (`geometry`)
    choice    on the problems for choosing: at each layer the largest dose that raises the loss on clean text by 0.1
              nats at most, both ways; the layer where it moves the difference of differences most
    causes    on test problems, at that layer and dose: the step computed again (M5), the answer (M6), the verdict in
              words (M4); beside 50 random directions, a tested one beside 20 covariance and 20 shuffled ones as well
                                                                                                          (`causal`)

What is said is fixed before looking: a signal as in `reading`, critique as in `causal_summary`, "no effect beyond
random" otherwise. Steering is tested on the measures that the settings name, corrected for each other (Holm).
"""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace

import pandas as pd

from mechint.errors import ConfigError
from mechint.model.base import Model
from mechint.probes.critique import experiment_summary as summary
from mechint.probes.critique import transferring
from mechint.probes.critique.baselines import Baseline, compare, twin_baselines
from mechint.probes.critique.causal import CritiqueEvaluation, CritiqueSettings
from mechint.probes.critique.choosing import Chosen, candidate, choose
from mechint.probes.critique.geometry import geometry
from mechint.probes.critique.parts import divide, questions
from mechint.probes.critique.questions import (
    WORDS,
    Questions,
    answer_log_prob,
    recompute_log_odds,
    verdict_log_odds,
)
from mechint.probes.critique.reading import Reading, read
from mechint.probes.critique.recordings import Recordings, spread
from mechint.probes.critique.settings import PLACES, CritiqueExperimentSettings
from mechint.probes.keywords import settings_from
from mechint.prompts.reasoning import Pairs, Twins
from mechint.results import Findings, Unit, complete
from mechint.statistics import derive_seed
from mechint.steering.arms import Arms
from mechint.vectors.damage import NeutralTexts
from mechint.vectors.report import token_table

READ = PLACES[:2]
"""Where is read; the third place is only compared with these, since it is the paper's."""
_TOKENS = 10


class CritiqueExperiment:
    """An `Analysis` of one model on minimal pairs.

    Args:
        model: what is read and steered.
        pairs: worked solutions with a true and a wrong result; divided by problem.
        settings: what can be chosen.
        seed: of every split and draw.
        answers: the final answer of each problem, by group; by default the true result of the step.

    Raises:
        PromptError: too few problems, or a problem without an answer.
        SiteError: the model has no such layer.
        TokenError: a word of the verdict is no single token of this model.
        ConfigError: no layer is left to steer at.
    """

    kind = "critique"

    def __init__(
        self,
        model: Model,
        pairs: Pairs,
        settings: CritiqueExperimentSettings | None = None,
        seed: int = 0,
        *,
        answers: Mapping[str, str] | None = None,
    ) -> None:
        s = self.settings = settings or CritiqueExperimentSettings()
        self._model, self._seed, self._answers = model, seed, answers
        sites = spread(model, s.layers)
        self._parts = divide(pairs, model.tokenizer, seed)
        self._recordings = Recordings(model, self._parts, sites, answers)
        among = {site.layer: site for site in sites}
        inner = [layer for layer in among if layer is not None and 0 < layer < model.facts.n_layers - 1]
        if not (s.steered or inner) or set(s.steered) - set(among):
            raise ConfigError(
                f"steered = {list(s.steered)} of the layers {list(among)}. Expected one or more of these; by default "
                "the first and the last block are left out."
            )
        self._steered = {layer: among[layer] for layer in s.steered or inner}
        # Each measure refuses what it cannot ask, before anything is measured.
        self._metrics = {name: self._metric(name, self._parts.test[: s.test_pairs]) for name in s.measures}
        self._choosing = self._metric(s.measures[0], self._parts.select[: s.select_pairs])
        self._evaluations: dict[tuple[str, Chosen], CritiqueEvaluation] = {}
        self._readings: dict[str, Reading] = {}

    def units(self) -> Sequence[Unit]:
        """List what is known, read and chosen."""
        units = [Unit("surprisal", f"surprisal/{part}", {"part": part}) for part in ("train", "test")]
        units += [Unit("baselines", "baselines")]
        units += [Unit(table, f"{table}/{at}", {"at": at}) for at in READ for table in ("layers", "signals", "scores")]
        units += [Unit("geometry", f"geometry/{at}", {"at": at}) for at in PLACES] + [Unit("cosines", "cosines")]
        units += [Unit("tokens", f"tokens/{at}", {"at": at}) for at in READ]
        units += [Unit("transfer", "transfer")] if self.settings.transfer else []
        return units + [Unit("candidates", f"candidates/{layer}", {"layer": layer}) for layer in self._steered]

    def follow_up(self, raw: Mapping[str, pd.DataFrame]) -> Sequence[Unit]:
        """List what is measured at the chosen layer and dose.

        Raises:
            InterventionError: at no layer a dose does as little damage as is allowed.
        """
        chosen = choose(raw["candidates"])
        units: list[Unit] = []
        for measure in self.settings.measures:
            about = {"measure": measure, "chosen": asdict(chosen)}
            for unit in self._evaluation(measure, chosen).units():
                if unit.table != "damage":
                    units.append(Unit(f"effects_{measure}", f"{measure}/{unit.name}", {**unit.inputs, **about}))
                elif measure == self.settings.measures[0]:  # the same for all measures
                    units.append(replace(unit, inputs={**unit.inputs, **about}))
        return units

    def measure(self, unit: Unit) -> pd.DataFrame:
        """Do one unit."""
        inputs, table = unit.inputs, unit.table
        if "chosen" in inputs:
            evaluation = self._evaluation(str(inputs["measure"]), Chosen(**inputs["chosen"]))
            return evaluation.measure(replace(unit, table="damage" if table == "damage" else "effects"))
        if table == "candidates":
            site, part = self._steered[int(inputs["layer"])], self._parts.select[: self.settings.select_pairs]
            vector = self._recordings.vector(self.settings.vector, self.settings.method).at(site)
            doses, clean = self.settings.candidates, self._clean[0]
            return candidate(self._model, vector, part.tokens, self._choosing, doses, clean, self._seed)
        if "at" in inputs:
            return self._at(table, str(inputs["at"]))
        if table == "surprisal":
            part = inputs["part"]
            return self._recordings.rows(part).assign(surprisal=self._recordings.surprisal(part))
        if table == "transfer":
            vector = self._recordings.vector("result").at(self._reading("result").signal.site)
            return transferring.measure(
                self._model, vector, self._recordings, self._parts.blocks, self.settings, self._seed
            )
        return self._baselines if table == "baselines" else self._recordings.cosines()

    def conclude(self, raw: Mapping[str, pd.DataFrame]) -> Findings:
        """Turn all rows into tables, checks and a verdict."""
        s, chosen = self.settings, choose(raw["candidates"])
        found = {
            name: self._evaluation(name, chosen).conclude({"effects": raw[f"effects_{name}"], "damage": raw["damage"]})
            for name in s.measures
        }
        tables, outcomes = summary.causal_tables(found, s.tested, chosen, self._metrics)
        groups = dict(zip(self._parts.test.tokens.ids, self._parts.test.groups, strict=True))
        read_tables = summary.reading_tables(raw, self._parts.blocks is not None, s.resamples, self._seed)
        known = summary.effects_by_knowledge(raw, s.measures, chosen.dose, groups, self._seed)
        recovered = summary.recovered(raw["effects_answer"], groups, self._seed) if "answer" in s.measures else None
        candidates = raw["candidates"].assign(chosen=raw["candidates"]["site"] == chosen.site)
        tables = {**read_tables, "candidates": candidates, **tables, "effects_by_knowledge": known}
        tables |= {} if recovered is None else {"recovery": recovered}
        return Findings(self.kind, tables, summary.verdict(raw["signals"], outcomes), self._notes(outcomes))

    def _notes(self, outcomes: Mapping[str, summary.Outcome]) -> list[str]:
        s, parts = self.settings, self._parts
        left_out = "".join(f" Left out: {n} ({reason})." for reason, n in parts.reasons.items())
        return [
            f"Pairs: {parts.sizes}; no problem is in two parts.{left_out}",
            f"The steered vector is taken at the {s.vector} ({s.method}). Layer and dose were chosen on "
            f"{min(s.select_pairs, len(parts.select))} pairs of other problems: at each layer the largest dose within "
            f"the damage guard, then the layer where it moves the difference of the {self._choosing.name} most. The "
            "layer of the probes was chosen in folds of the training problems.",
            "The answer that is asked for is the "
            + ("final one." if self._answers else "true result of the step, since no final answers were given."),
            *(
                f"Described beside random directions, not tested ({name}): {one.said}"
                for name, one in outcomes.items()
                if not one.tested
            ),
        ]

    def _at(self, table: str, at: str) -> pd.DataFrame:
        """Return a table of one place."""
        if table == "geometry":
            return geometry(self._recordings.blocks(at), blocks=self._parts.blocks, seed=self._seed).assign(read_at=at)
        found = self._reading(at)
        if table == "tokens":
            vector = self._recordings.vector(at).at(found.signal.site)
            return token_table(vector, self._model, _TOKENS).assign(read_at=at)
        if table == "signals":
            return found.signal.to_frame().assign(read_at=at)
        if table == "layers":
            return found.layers.assign(read_at=at)
        fitted = self._recordings.rows("train").assign(score=found.train_scores)
        asked = self._recordings.rows("test").assign(score=found.test_scores)
        return pd.concat([fitted, asked], ignore_index=True).assign(read_at=at)

    @functools.cached_property
    def _baselines(self) -> pd.DataFrame:
        s, known = self.settings, self._recordings
        train, test = known.tokens("train"), known.tokens("test")
        surprise = Baseline("surprisal", known.surprisal("train"), known.surprisal("test"), surface=False)
        given = [*twin_baselines(train, test, self._model.tokenizer), surprise]
        return compare(
            given,
            known.at("result", "train"),
            known.at("result", "test"),
            blocks=self._parts.blocks,
            folds=s.folds,
            n_resamples=s.resamples,
            seed=self._seed,
        )

    def _reading(self, at: str) -> Reading:
        if at not in self._readings:
            s = self.settings
            self._readings[at] = read(
                self._recordings.at(at, "train"),
                self._recordings.at(at, "test"),
                self._baselines,
                blocks=self._parts.blocks,
                folds=s.folds,
                shuffles=s.shuffles,
                n_resamples=s.resamples,
                seed=self._seed,
                progress=False,
            )
        return self._readings[at]

    def _metric(self, name: str, given: Twins) -> Questions:
        tokenizer = self._model.tokenizer
        if name == "recompute":
            return recompute_log_odds(given, tokenizer)
        if name == "answer":
            return answer_log_prob(given, tokenizer, self._answers)
        return verdict_log_odds(given, tokenizer, WORDS[: self.settings.verdict_words])

    def _evaluation(self, measure: str, chosen: Chosen) -> CritiqueEvaluation:
        if (measure, chosen) not in self._evaluations:
            s = self.settings
            vector = self._recordings.vector(s.vector, s.method).at(chosen.site)
            doses = tuple(dose * chosen.dose for dose in s.doses)
            self._evaluations[measure, chosen] = CritiqueEvaluation(
                self._model,
                self._parts.test[: s.test_pairs].tokens,
                Arms(vector, self._recordings.blocks(s.vector), seed=derive_seed(self._seed, "arms")),
                self._metrics[measure],
                CritiqueSettings(doses=doses, test=(chosen.dose,), draws=s.draws(measure)),
                clean=self._clean[1],
                chosen_on=self._parts.select.groups,
                seed=self._seed,
            )
        return self._evaluations[measure, chosen]

    @functools.cached_property
    def _clean(self) -> tuple[NeutralTexts, NeutralTexts]:
        """Questions of the problems for choosing, and of those for reporting."""
        s = self.settings
        how = {"length": s.clean_length, "positions": s.clean_positions, "seed": self._seed}
        first, second = (questions(part, s.clean_texts) for part in (self._parts.select, self._parts.test))
        return NeutralTexts(self._model, first, **how), NeutralTexts(self._model, second, **how)


def critique(
    model: Model,
    pairs: Pairs,
    *,
    seed: int = 0,
    answers: Mapping[str, str] | None = None,
    progress: bool | None = None,
    **settings: object,
) -> Findings:
    """Ask whether a model represents that a step was wrong, and whether adding that makes it catch more errors.

    Args:
        model: what is read and steered.
        pairs: such as `mechint.prompts.arithmetic_errors` makes; divided by problem.
        seed: of every split and draw.
        answers: the final answer of each problem, by group; by default the true result of the step.
        progress: show a progress bar; by default in a terminal only.
        settings: fields of `CritiqueExperimentSettings`.

    Raises:
        ConfigError: an unknown or impossible setting.
        PromptError: too few problems.
    """
    chosen = settings_from(CritiqueExperimentSettings, settings)
    return complete(CritiqueExperiment(model, pairs, chosen, seed, answers=answers), progress)
