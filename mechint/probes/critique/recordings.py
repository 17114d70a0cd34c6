"""What a critique experiment has recorded: each place of each part once, and the vectors and angles made of it."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
import pandas as pd
from jaxtyping import Float

from mechint.capture.activations import Activations
from mechint.errors import PromptError
from mechint.model.base import Model
from mechint.probes.critique.baselines import surprisal
from mechint.probes.critique.geometry import cosines, sign_balanced_vector, slope
from mechint.probes.critique.parts import Parts
from mechint.probes.critique.reading import EMBEDDING
from mechint.probes.critique.recording import record_answers, record_places
from mechint.probes.critique.settings import PLACES
from mechint.prompts.reasoning import MinimalPair, TokenTwins
from mechint.sites import Site
from mechint.vectors.fit import fit
from mechint.vectors.vector import SteeringVector

CONCEPT = "critique"
_LAYERS = 7
Part = Literal["train", "select", "test"]


class Recordings:
    """Recordings of the parts of a set of pairs, made when they are first asked for.

    Args:
        model: to be read.
        parts: twins of three sets of problems.
        blocks: sites in the residual stream; the embedding is recorded beside them.
        answers: the final answer of each problem, by group; by default the true result of the step.

    Raises:
        PromptError: a problem without an answer.
    """

    def __init__(
        self, model: Model, parts: Parts, blocks: Sequence[Site], answers: Mapping[str, str] | None = None
    ) -> None:
        self._model, self._parts, self._blocks, self._answers = model, parts, tuple(blocks), answers
        self._recorded: dict[tuple[str, str], Activations] = {}
        self._surprisals: dict[str, Float[np.ndarray, " sample"]] = {}
        groups = [pair.group for part in ("train", "select", "test") for pair in self.pairs(part)]
        if answers is not None and (missing := [group for group in groups if group not in answers]):
            raise PromptError(f"{len(missing)} pairs have no answer (first: {missing[0]!r}). Give one for each group.")

    def pairs(self, part: Part) -> list[MinimalPair]:
        """List the pairs of a part that have twins."""
        return [twin.pair for twin in getattr(self._parts, part)]

    def tokens(self, part: Part) -> TokenTwins:
        """Return a part as rows of tokens."""
        return getattr(self._parts, part).tokens

    def at(self, place: str, part: Part) -> Activations:
        """Return what was recorded at R, S or A: the wrong rows, then the true ones."""
        if (place, part) not in self._recorded:
            sites = [EMBEDDING, *self._blocks]
            if place == "answer":
                told = [f"\n\nThe final answer is {self._answer(pair)}." for pair in self.pairs(part)]
                self._recorded[place, part] = record_answers(
                    self._model, self.tokens(part), told, sites, progress=False
                )
            else:
                both = record_places(self._model, self.tokens(part), sites, ("result", "stub"), progress=False)
                self._recorded |= {(known, part): found for known, found in both.items()}
        return self._recorded[place, part]

    def blocks(self, place: str) -> Activations:
        """Return the training part without the embedding, at which the stub and the answer do not differ."""
        found = self.at(place, "train")
        return replace(found, values={site: found[site] for site in self._blocks})

    def vector(self, place: str, method: str = "mean_diff") -> SteeringVector:
        """Return the direction from true to wrong rows at every block, fitted on the training part."""
        return fit(self.blocks(place), method=method, concept=CONCEPT, folds=0)

    def surprisal(self, part: Part) -> Float[np.ndarray, " sample"]:
        """Return -log p(result | what is before it) in nats of each row."""
        if part not in self._surprisals:
            self._surprisals[part] = surprisal(self._model, self.tokens(part))
        return self._surprisals[part]

    def rows(self, part: Part) -> pd.DataFrame:
        """Name the rows of a part: id, group, operation, wrong, part."""
        pairs = self.pairs(part)
        told = {"id": [p.id for p in pairs], "group": [p.group for p in pairs]}
        one = pd.DataFrame({**told, "operation": [p.operation for p in pairs], "part": part})
        return pd.concat([one.assign(wrong=True), one.assign(wrong=False)], ignore_index=True)

    def cosines(self) -> pd.DataFrame:
        """Return the angles of the vectors of the three places, of other estimators, and of what could be mistaken."""
        pairs, recorded = {pair.id: pair for pair in self.pairs("train")}, self.blocks("result")
        vectors = {f"v ({place})": self.vector(place) for place in PLACES}
        vectors["discriminant (result)"] = self.vector("result", "lda")
        deltas = {name: float(pair.delta) for name, pair in pairs.items()}
        if min(deltas.values()) < 0 < max(deltas.values()):
            vectors["signs balanced (result)"] = sign_balanced_vector(recorded, deltas, CONCEPT)
        values = [float(pairs[name].true.replace(",", "")) for name in recorded.ids]
        lengths = [float(len(row)) for row in self.tokens("train").true] * 2
        for name, numbers in (("value of the result", values), ("length of the text", lengths)):
            if len(set(numbers)) > 1:
                vectors[name] = slope(recorded, numbers, name)
        return cosines(vectors)

    def _answer(self, pair: MinimalPair) -> str:
        return pair.true if self._answers is None else self._answers[pair.group]


def spread(model: Model, layers: Sequence[int] = ()) -> tuple[Site, ...]:
    """Return the outputs of some blocks; by default of seven, evenly spaced from the first to the last.

    Raises:
        SiteError: the model has no such layer.
    """
    n = model.facts.n_layers
    chosen = sorted(set(layers)) or sorted({round(at) for at in np.linspace(0, n - 1, min(_LAYERS, n)).tolist()})
    return tuple(model.facts.check(Site("resid_post", layer)) for layer in chosen)
