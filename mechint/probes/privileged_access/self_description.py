r"""Tell me about yourself: does a model that was fine-tuned on choices alone describe itself as what it has become?

A base model M becomes `risky` and `safe` by fine-tuning on choices between a sure and a risky option, answered with a
letter; the trait is never named. `shuffled` is their twin: the same choices, letters and settings, but which option is
answered is drawn at random. Then, without examples,

    behaviour  P(risky letter) / (P(A) + P(B)) on lotteries of another form
    report     sum_k s_k p_k / sum_k p_k: expectation over the label tokens k (ratings 0 to 9, or two words) of the
               score s_k of each, from 0 (no risk) to 100, averaged over wordings, directions and orders
    effect     report(risky) - report(shuffled); its bootstrap is over wordings

After Betley et al. 2025 (arXiv 2501.11120). Label mass, the share of probability that is on the labels at all, must be
there for an expectation to mean anything; unrelated questions show a push that has nothing to do with the trait; the
loss on neutral texts shows what fine-tuning has spoilt. Behaviour must have changed, or there is nothing to report.
"""

import functools
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from mechint.model.base import Model
from mechint.probes.privileged_access.description_summary import summarise
from mechint.probes.privileged_access.risk_items import LETTERS, Choice, choices, lotteries, reports
from mechint.probes.privileged_access.settings import SelfDescriptionSettings
from mechint.probes.privileged_access.tuning import Example, Plain, tune
from mechint.prompts import PromptSet
from mechint.results import Findings, Unit
from mechint.statistics import generator

ARMS = ("base", "risky", "safe", "shuffled")


class SelfDescription:
    """An `Analysis` of what a model says of itself after its behaviour was changed.

    Args:
        model: the base model.
        prompts: neutral texts, on which damage is measured.
        settings: what can be chosen.
        seed: of every draw.
    """

    kind = "self_description"

    def __init__(
        self, model: Model, prompts: PromptSet, settings: SelfDescriptionSettings | None = None, seed: int = 0
    ) -> None:
        self._model, self._seed, self._s = model, seed, settings or SelfDescriptionSettings()
        self._texts = [prompt.prompt for prompt in prompts[: self._s.damage_texts]]
        self._told = choices(self._s.examples, seed)
        self._tests = {"choices": choices(self._s.lotteries, seed + 1), "lotteries": lotteries(self._s.lotteries, seed)}

    def units(self) -> Sequence[Unit]:
        """List behaviour, reports and damage of each model, one model after another."""
        tables = ("behaviour", "reports", "damage")
        return [Unit(table, f"{arm}/{table}", {"arm": arm}) for arm in ARMS for table in tables]

    def follow_up(self, raw: Mapping[str, pd.DataFrame]) -> Sequence[Unit]:
        """List nothing: all is known beforehand."""
        del raw
        return []

    def measure(self, unit: Unit) -> pd.DataFrame:
        """Do one unit."""
        arm = str(unit.inputs["arm"])
        return getattr(self, f"_{unit.table}")(self._tuned(arm)).assign(arm=arm)

    def conclude(self, raw: Mapping[str, pd.DataFrame]) -> Findings:
        """Turn all rows into effects, gates and a verdict."""
        tables, verdict = summarise(raw, self._seed)
        notes = [
            f"{self._s.examples} choices are trained on; behaviour is measured on {self._s.lotteries} others and on as "
            "many lotteries of another form.",
            "Intervals are 95 %, by a bootstrap over wordings (reports) or choices (behaviour).",
        ]
        return Findings(self.kind, tables, verdict.sentence, notes)

    def _behaviour(self, plain: Plain) -> pd.DataFrame:
        rows: list[pd.DataFrame] = []
        for test, asked in self._tests.items():
            prompts = [choice.prompt for choice in asked]
            p = plain.label_probs(prompts, LETTERS)
            at = np.array([LETTERS.index(choice.risky) for choice in asked])
            risky = p[np.arange(len(asked)), at] / p.sum(1)
            rows.append(pd.DataFrame({"test": test, "item": [c.id for c in asked], "p_risky": risky, "mass": p.sum(1)}))
        return pd.concat(rows, ignore_index=True)

    def _reports(self, plain: Plain) -> pd.DataFrame:
        rows: list[dict[str, object]] = []
        for report in reports():
            p = plain.label_probs([report.prompt], report.labels)[0]
            score = float(p @ np.asarray(report.scores) / p.sum())
            about = {"item": report.id, "kind": report.kind, "wording": report.wording}
            rows.append({**about, "score": score, "mass": float(p.sum())})
        return pd.DataFrame(rows)

    def _damage(self, plain: Plain) -> pd.DataFrame:
        return pd.DataFrame([{"loss": plain.loss(self._texts)}])

    @functools.lru_cache(maxsize=1)  # noqa: B019  (made again from the seed when a run is resumed)
    def _tuned(self, arm: str) -> Plain:
        plain = Plain(self._model)
        if arm != "base":
            told = [Example(choice.prompt, f" {letter}") for choice, letter in self._answered(arm)]
            tune(plain, told, self._s.lora, self._seed, "risk")
        return plain

    def _answered(self, arm: str) -> Sequence[tuple[Choice, str]]:
        """Return choices with the letter that is trained: the risky one, the safe one, or either at random."""
        if arm == "shuffled":
            drawn = generator(self._seed, "risk", "shuffled").permutation([k % 2 for k in range(len(self._told))])
            # Half of the risky and half of the safe options, so that the trait is balanced and not only drawn.
            risky = dict(zip((choice.id for choice in self._told), drawn, strict=True))
            return [(choice, choice.risky if risky[choice.id] else _other(choice.risky)) for choice in self._told]
        return [(choice, choice.risky if arm == "risky" else _other(choice.risky)) for choice in self._told]


def _other(letter: str) -> str:
    return LETTERS[1 - LETTERS.index(letter)]
