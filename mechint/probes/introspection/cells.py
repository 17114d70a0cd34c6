"""Answers as arrays of concepts times carriers, with draws of both."""

import copy
from collections.abc import Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float

from mechint.errors import OutputError
from mechint.probes.introspection.battery import NONE
from mechint.prompts.introspection.material import YES
from mechint.statistics.crossed import Crossed, drawn
from mechint.statistics.drawn import Drawn


class Cells:
    """The answers of one model.

    Args:
        answers: rows of `Battery.ask`, all questions.
        seed: of the draws.
        held: read injections that stay on up to the answer, where `of` is not told otherwise.
    """

    def __init__(self, answers: pd.DataFrame, *, seed: int = 0, held: bool = False) -> None:
        self.answers, self._held = answers, held
        self.concepts = sorted(set(answers["concept"]) - {""})
        self.carriers = sorted(set(answers["carrier"]))
        self.draws = Crossed(len(self.concepts), len(self.carriers), seed=seed)
        self._tables: dict[object, pd.DataFrame] = dict(iter(answers.groupby(["question", "arm", "held"])))
        self._arrays: dict[tuple[str, str, bool, str], np.ndarray] = {}

    def read(self, *, held: bool) -> "Cells":
        """Return the same answers and draws, read with the injection held or not."""
        other = copy.copy(self)
        other._held = held
        return other

    def questions(self, family: str) -> list[str]:
        """List the questions of a family that were asked."""
        asked = [str(name) for name in self.answers["question"].unique()]
        return [name for name in asked if name.partition(" ")[0] == family]

    def of(self, question: str, arm: str, column: str, held: bool | None = None) -> np.ndarray:
        """Return a column as an array of concepts times carriers; plain texts are repeated over concepts.

        Raises:
            OutputError: this was not asked, or an answer is missing.
        """
        held = (self._held if held is None else held) and arm not in (NONE, "text")
        key = (question, arm, held, column)
        if key not in self._arrays:
            self._arrays[key] = self._array(question, arm, held, column)
            self._arrays[key].flags.writeable = False
        return self._arrays[key]

    def _array(self, question: str, arm: str, held: bool, column: str) -> np.ndarray:
        rows = self._tables.get((question, arm, held))
        if rows is None:
            raise OutputError(f"{question!r} was not asked in arm {arm!r} (held: {held}). Run the battery with it.")
        names = [""] if arm == NONE else self.concepts
        values = rows[column].to_numpy()
        wide = np.full(
            (len(names), len(self.carriers)), np.nan, dtype=values.dtype if values.dtype == float else object
        )
        concept = pd.Index(names).get_indexer(rows["concept"].tolist())
        carrier = pd.Index(self.carriers).get_indexer(rows["carrier"].tolist())
        wide[concept, carrier] = values
        if len(rows) != wide.size or min(concept.min(), carrier.min()) < 0 or pd.isna(wide).any():
            raise OutputError(
                f"{question!r}, arm {arm!r}: {column} is missing in some cells, or there twice. Run the battery again."
            )
        return wide if arm != NONE else wide.repeat(len(self.concepts), axis=0)

    def said(
        self, question: str, arm: str, label: str, held: bool | None = None
    ) -> Float[np.ndarray, "concept carrier"]:
        """Return 1 where the likeliest token of all says a label."""
        return (self.of(question, arm, "said", held) == label).astype(float)

    def numbers(
        self, question: str, arm: str, column: str, held: bool | None = None
    ) -> Float[np.ndarray, "concept carrier"]:
        """Return a column of numbers."""
        return self.of(question, arm, column, held).astype(float)

    def shift(self, question: str, arm: str, held: bool | None = None) -> Float[np.ndarray, "concept carrier"]:
        """Return by how much an arm raises the log odds of yes over the plain text."""
        return self.numbers(question, arm, "yes_no", held) - self.numbers(question, NONE, "yes_no")

    def auroc(self, question: str, arm: str, against: str, column: str = "yes_no", held: bool | None = None) -> Drawn:
        """Return how often an arm is above another."""
        return self.draws.auroc(
            self.numbers(question, arm, column, held), self.numbers(question, against, column, held)
        )

    def hit_less_false_alarm(self, question: str, arm: str, held: bool | None = None) -> Drawn:
        """Return how much more often yes is said in an arm than of the plain text."""
        return self.draws.mean(self.said(question, arm, YES, held) - self.said(question, NONE, YES))

    def mean(self, cells: Float[np.ndarray, "concept carrier"]) -> Drawn:
        """Return the mean of cells."""
        return self.draws.mean(cells)

    def beyond(self, cells: Float[np.ndarray, "concept carrier"], bar: Sequence[np.ndarray]) -> Drawn:
        """Return the mean of cells less the mean q(1 - q) of rates q, the bar of a coin that knows nothing."""
        rates = np.mean([self.draws.means(one) for one in bar], axis=0)
        return drawn(self.draws.means(cells) - rates * (1 - rates))


def over_orders(arrays: Sequence[np.ndarray]) -> np.ndarray:
    """Return the mean over orders of options, cell by cell."""
    return np.mean(arrays, axis=0)
