"""Every question to one model in every arm: texts with and without a mention, states with and without an injection.

Arms, for each concept k and carrier:

    none               the plain text
    concept            u_k injected
    random             an isotropic direction, its own for each concept and carrier
    mixture            a random mixture of all concepts' directions: in their span, and none of them
    minus              -u_k
    text               the text mentions k
    text and same      it mentions k, and u_k is injected
    text and other     it mentions another concept, and u_k is injected

Each injection at the text alone, and *held* up to the answer. One row of the table is one answer; what is compared in
one row is within the model's own log-probabilities, so no arm is read in another way than the next.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from mechint.model.base import Model
from mechint.probes.introspection.directions import Baseline, concept_directions, mixture, random_direction
from mechint.probes.introspection.graded import graded_questions
from mechint.probes.introspection.injection import Answer, Reader, Row
from mechint.prompts.introspection import Material
from mechint.prompts.introspection.material import NO, NOTHING, STATE, TEXT, YES
from mechint.sites import Site

NONE, CONCEPT, RANDOM, MIXTURE, MINUS = "none", "concept", "random", "mixture", "minus"
MENTION, SAME, OTHER = "text", "text and same", "text and other"
CONTROLS = (RANDOM, MIXTURE, MINUS)
ASKED: dict[str, tuple[str, ...]] = {
    "detect": (NONE, CONCEPT, *CONTROLS, MENTION, OTHER),
    "flip": (NONE, CONCEPT),
    "identify": (NONE, CONCEPT, MENTION, OTHER),
    "source": (NONE, CONCEPT, MENTION, SAME, OTHER),
    "unrelated": (NONE, CONCEPT),
}
"""In which arms a family of questions is asked."""
_RECEIPTS = 4
_GRADED = 8
"""Concepts of graded questions: their rows share little and cost most."""


@dataclass(frozen=True)
class _Cell:
    """One row to be asked: which arm, concept (by number) and duration."""

    arm: str
    concept: int
    held: bool
    mention: str | None


class Battery:
    """Asks one model everything, injecting at one site with one dose.

    Args:
        model: the model.
        material: texts and questions.
        site: where to inject.
        dose: ‖what is added‖ / ‖h‖.
        baseline: what is taken from a concept's mean; see `directions`.
        concepts: which; by default those of the material that are reported on.
        hold: ask everything with the injection held too, not only whether, which and whence of concepts.
        seed: of every draw.
    """

    def __init__(
        self,
        model: Model,
        material: Material,
        site: Site,
        dose: float,
        *,
        baseline: Baseline = "concepts",
        concepts: Sequence[str] | None = None,
        hold: bool = True,
        seed: int = 0,
    ) -> None:
        self.material, self.site, self.dose = material, site, dose
        self.concepts = tuple(concepts or material.concepts)
        self._hold, self._seed, self._reader = hold, seed, Reader(model, site)
        self._units = concept_directions(model, material, site, self.concepts, baseline)

    def questions(self) -> list[str]:
        """List all questions."""
        return [name for family in ASKED for name in self.material.questions(family)]

    def ask(
        self, question: str, carriers: Sequence[int] | None = None, arms: Sequence[str] | None = None
    ) -> pd.DataFrame:
        """Ask one question in its arms, about some carriers (by default all), and return one row an answer."""
        family = question.partition(" ")[0]
        chosen = [arm for arm in ASKED[family] if arms is None or arm in arms]
        carriers = range(self.material.n_carriers) if carriers is None else carriers
        cells = list(self._cells(family, chosen))
        placed = [(carrier, cell) for carrier in carriers for cell in cells]
        asked = [self._row(question, carrier, cell) for carrier, cell in placed]
        answers = self._reader.answers(asked)
        plain = {c: a for (c, cell), a in zip(placed, answers, strict=True) if cell.arm == NONE}
        told: list[dict[str, object]] = []
        for (carrier, cell), row, answer in zip(placed, asked, answers, strict=True):
            labels = list(row.asked.labels)
            about = {"question": question, "carrier": carrier, "arm": cell.arm, "held": cell.held}
            about |= {"concept": self.concepts[cell.concept] if cell.arm != NONE else ""}
            right = answer.said == row.asked.right if row.asked.right else None
            about |= {"said": answer.said, "right": right, "mass": answer.mass, "entropy": answer.entropy}
            told.append(about | self._scores(family, labels, answer, plain.get(carrier), cell.concept))
        return pd.DataFrame(told).astype({"right": "boolean"})

    def receipt(self) -> pd.DataFrame:
        """Check on a few rows that what is injected is what was meant, there and nowhere else; one row."""
        rows = [Row(self.material.asked("detect", 0), self._vector(CONCEPT, i, 0)) for i in range(_RECEIPTS)]
        error, elsewhere = self._reader.receipt(rows)
        return pd.DataFrame([{"relative_error": error, "change_elsewhere": elsewhere, "rows": len(rows)}])

    def fluency(self) -> pd.DataFrame:
        """Return how well the tokens behind the text are predicted with and without an injection, nats a token.

        NaN where what follows is nothing that a model should predict well.
        """
        if not self.material.reads_on:
            return pd.DataFrame([{"nll": np.nan, "nll_injected": np.nan}])
        found: list[list[float]] = []
        for carrier in (0, 1):
            asked = self.material.asked("detect", carrier)
            rows = [Row(asked), *(Row(asked, self._vector(CONCEPT, i, carrier)) for i in (0, 1))]
            found.append(self._reader.continuation_nll(rows))
        nll = np.array(found)
        return pd.DataFrame([{"nll": nll[:, 0].mean(), "nll_injected": nll[:, 1:].mean()}])

    def readable(self) -> pd.DataFrame:
        """Return whether a nearest centroid tells which concept was injected, behind the last block but one.

        Read over the tokens of the text, where the question finds it; centroids are those of all other carriers. One
        row a cell: what would be there to report for a reader who has the state at hand, and not the plain text's.
        """
        model, n = self._reader.model, self.material.n_carriers
        behind = Site("resid_post", max(self.site.layer or 0, model.facts.n_layers - 2))
        streams = torch.stack([self._streams(behind, carrier) for carrier in range(n)])
        told: list[dict[str, object]] = []
        for carrier in range(n):
            others = streams[[i for i in range(n) if i != carrier]].mean(0)
            nearest = torch.cdist(streams[carrier], others).argmin(1)
            for k, name in enumerate(self.concepts):
                told.append({"carrier": carrier, "concept": name, "right": bool(nearest[k] == k)})
        return pd.DataFrame(told)

    def graded(self) -> pd.DataFrame:
        """Ask graded questions in English about the first few concepts; see `graded`."""
        few = self.concepts[:_GRADED]
        return graded_questions(self._reader, few, self._units[: len(few)], self.dose, self._seed)

    def _streams(self, site: Site, carrier: int) -> Float[Tensor, "concept width"]:
        asked = self.material.asked("detect", carrier)
        return self._reader.stream(
            [Row(asked, self._vector(CONCEPT, k, carrier)) for k in range(len(self.concepts))], site
        )

    def _cells(self, family: str, arms: Sequence[str]) -> Iterator[_Cell]:
        for arm in arms:
            for k in range(len(self.concepts)) if arm != NONE else [0]:
                other = self.concepts[(k + 1) % len(self.concepts)]
                mention = {MENTION: self.concepts[k], SAME: self.concepts[k], OTHER: other}.get(arm)
                yield _Cell(arm, k, False, mention)
                if arm not in (NONE, MENTION) and self._asked_held(family, arm):
                    yield _Cell(arm, k, True, mention)

    def _asked_held(self, family: str, arm: str) -> bool:
        if family == "unrelated":
            return self._hold
        return self._hold or (arm == CONCEPT and family != "flip")

    def _row(self, question: str, carrier: int, cell: _Cell) -> Row:
        asked = self.material.asked(question, carrier, cell.mention)
        return Row(asked, self._vector(cell.arm, cell.concept, carrier), cell.held)

    def _vector(self, arm: str, concept: int, carrier: int) -> Tensor | None:
        unit, labels = self._units[concept], (self.concepts[concept], carrier)
        if arm in (NONE, MENTION):
            return None
        if arm == RANDOM:
            unit = random_direction(len(unit), self._seed, *labels)
        elif arm == MIXTURE:
            unit = mixture(self._units, self._seed, *labels)
        return self.dose * (-unit if arm == MINUS else unit)

    def _scores(
        self, family: str, labels: list[str], answer: Answer, plain: Answer | None, concept: int
    ) -> dict[str, object]:
        at = {name: float(value) for name, value in zip(labels, answer.log_probs, strict=True)}
        if family == "source":
            return {"state_text": at[STATE] - at[TEXT], "state_nothing": at[STATE] - at[NOTHING]}
        if family != "identify":
            return {"yes_no": at[YES] - at[NO]}
        n, own = len(self.concepts), at[self.concepts[concept]]
        told: dict[str, object] = {
            "over_next": own - at[self.concepts[(concept + 1) % n]],
            "over_previous": own - at[self.concepts[concept - 1]],
        }
        if plain is not None:  # corrected for what is said of the same text without an injection
            before = dict(zip(labels, plain.log_probs.tolist(), strict=True))
            told["named"] = max(self.concepts, key=lambda name: at[name] - before[name])
            told["own_rise"] = own - before[self.concepts[concept]]
        return told
