"""What can be chosen about a critique experiment. No heavy import: a mistake is reported at once."""

import math
from dataclasses import dataclass
from typing import Literal

from mechint.errors import ConfigError

PLACES = ("result", "stub", "answer")
MEASURES = ("recompute", "answer", "verdict")
NULL_LEVELS = {"random": 0.02, "random_covariance": 0.05, "shuffled_labels": 0.05}
"""The p that a null must be beaten at; those of `causal_summary`, which is too heavy to import here."""


@dataclass(frozen=True)
class CritiqueExperimentSettings:
    """What can be chosen about a critique experiment."""

    layers: tuple[int, ...] = ()
    """Blocks after which is read; by default seven, evenly spaced from the first to the last."""
    steered: tuple[int, ...] = ()
    """Those of them among which the steered one is chosen; by default all but the first and the last."""
    vector: Literal["result", "stub", "answer"] = "result"
    """Where the steered vector is taken: R, the mean over S, or the mean over the same answer after both texts."""
    method: Literal["mean_diff", "lda", "probe"] = "mean_diff"
    """Estimator of the steered vector."""
    measures: tuple[str, ...] = MEASURES
    """What steering is measured on: computing the step again, the answer, the verdict in words. The first chooses
    layer and dose."""
    tested: tuple[str, ...] = ("recompute",)
    """Those that a claim may rest on, corrected for each other; the rest are described beside random
    directions."""
    verdict_words: int = 1
    """Pairs of words of the verdict: wrong/right, incorrect/correct, no/yes."""
    candidates: tuple[float, ...] = (0.025, 0.05, 0.1, 0.2, 0.4)
    """Doses (median |h|); at each layer the largest that does little damage, both ways, is taken."""
    doses: tuple[float, ...] = (0.25, 0.5, 1.0)
    """Three or more, in units of the chosen dose; 1 is among them, and it is the one that is tested."""
    random: int = 50
    """Draws of isotropic directions."""
    random_covariance: int = 20
    """Draws of directions from the covariance of the activations."""
    shuffled_labels: int = 20
    """Draws of the same estimator on labels that mean nothing."""
    test_pairs: int = 16
    """Pairs of the test problems that are steered; all of them are read."""
    select_pairs: int = 12
    """Pairs of the problems for choosing that are steered."""
    clean_texts: int = 12
    """Questions on which damage is measured, for choosing, and as many others for reporting."""
    clean_length: int = 32
    """Tokens of each, BOS included."""
    clean_positions: int = 8
    """Tokens of each at which damage is measured."""
    folds: int = 5
    """Of the training problems, to choose the layer of the probe."""
    shuffles: int = 20
    """Repetitions of the probes with labels exchanged within problems."""
    resamples: int = 10_000
    """Draws of the intervals and p-values of what is read."""
    transfer: str = ""
    """A file of error traces, or of BIG-Bench Mistake, on which the vector at R is scored; empty for none."""
    transfer_pairs: int = 100
    """Pairs of it."""

    def __post_init__(self) -> None:
        """Refuse what makes no sense.

        Raises:
            ConfigError: an unknown measure, doses that are none, tests that nothing could pass, too small a number.
        """
        for name in ("measures", "tested"):
            given = getattr(self, name)
            if not given or set(given) - set(MEASURES) or len(set(given)) < len(given):
                raise ConfigError(f"{name} = {list(given)}. Expected one or more of {', '.join(MEASURES)}, each once.")
        if strange := [name for name in self.tested if name not in self.measures]:
            raise ConfigError(f"tested = {list(self.tested)}: {strange[0]} is not measured. Add it to measures.")
        if len(set(self.doses)) < _FEWEST_DOSES or 1.0 not in self.doses or not _positive(self.doses):
            raise ConfigError(
                f"doses = {list(self.doses)}. Expected three or more different positive numbers, in units of the "
                "chosen dose, with 1 among them."
            )
        if not self.candidates or not _positive(self.candidates):
            raise ConfigError(f"candidates = {list(self.candidates)}. Expected one or more positive doses.")
        for name in ("layers", "steered"):
            if min(getattr(self, name), default=0) < 0:
                raise ConfigError(f"{name} = {list(getattr(self, name))}. Layers are counted from 0.")
        if self.layers and (strange := sorted(set(self.steered) - set(self.layers))):
            raise ConfigError(f"steered = {list(self.steered)}: {strange[0]} is none of the layers that are read.")
        for name, (least, most) in _BOUNDS.items():
            if not least <= getattr(self, name) <= most:
                raise ConfigError(f"{name} = {getattr(self, name)}. Expected {least:g} to {most:g}.")
        for null, level in NULL_LEVELS.items():
            needed = math.ceil(len(self.tested) / level - 1e-9)
            if getattr(self, null) + 1 < needed:
                raise ConfigError(
                    f"{null} = {getattr(self, null)}: with {len(self.tested)} tested measures no corrected p could "
                    f"come to {level:g}. Draw {needed - 1} or more, or test fewer measures."
                )

    def draws(self, measure: str) -> dict[str, int]:
        """How many vectors of each control arm; of measures that are not tested, random directions only."""
        nulls = {null: getattr(self, null) if measure in self.tested else 0 for null in NULL_LEVELS}
        return {**nulls, "random": self.random, "orthogonal": 0, "other_concept": 0}


def _positive(doses: tuple[float, ...]) -> bool:
    return all(0 < dose < math.inf for dose in doses)


_FEWEST_DOSES, _MANY = 3, 10**6
_BOUNDS = {
    "verdict_words": (1, 3),
    **dict.fromkeys(("test_pairs", "select_pairs", "clean_texts", "folds", "transfer_pairs"), (2, _MANY)),
    **dict.fromkeys(("clean_positions", "shuffles"), (1, _MANY)),
    "clean_length": (4, _MANY),
    "resamples": (100, _MANY),
}
"""The least and the most that each number may be."""
