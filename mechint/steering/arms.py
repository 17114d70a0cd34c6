"""The arms of an evaluation: the vector, and what could explain its effect if the concept did not.

    vector             the vector
    random             isotropic directions, as long as it: any push of that size
    random_covariance  directions drawn from the covariance of the activations: a push the model is sensitive to
    shuffled_labels    the same estimator on the same texts with labels that mean nothing: what fitting makes of noise;
                       see `unrelated_labels`
    orthogonal         the vector without its part along a direction, such as that of the scored tokens themselves: what
                       remains is no direct bias on them
    other_concept      a vector of something else
    prompt_only        no steering: an instruction before each prompt asks for the concept

The three in the middle are nulls, of many draws each; the others are comparisons.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float
from torch import Tensor

from mechint.capture.activations import Activations
from mechint.errors import ConfigError, InterventionError
from mechint.sites import Site
from mechint.statistics import derive_seed
from mechint.vectors.estimators.controls import random_like
from mechint.vectors.fit import METHODS
from mechint.vectors.samples import Samples, shuffled_labels
from mechint.vectors.vector import SteeringVector

_LABELLINGS = 64
NULLS = ("random", "random_covariance", "shuffled_labels")
PROMPT_ONLY = "prompt_only"


@dataclass(frozen=True, eq=False)
class Arms:
    """Makes the vectors of each arm."""

    vector: SteeringVector
    fitted_on: Activations | None = None
    """What the vector was fitted on: for covariance and shuffled labels."""
    other: SteeringVector | None = None
    orthogonal_to: Float[Tensor, " width"] | None = None
    seed: int = 0

    def names(self, draws: Mapping[str, int]) -> list[tuple[str, int]]:
        """List the arms that can be made, each draw by its number."""
        known = {"vector": 1, **draws}
        can = {
            "random_covariance": self.fitted_on is not None,
            "shuffled_labels": self.fitted_on is not None and self.vector.method in METHODS,
            "orthogonal": self.orthogonal_to is not None,
            "other_concept": self.other is not None,
        }
        return [(arm, draw) for arm, n in known.items() if can.get(arm, True) for draw in range(n)]

    def make(self, arm: str, draw: int) -> SteeringVector:
        """Return the vector of an arm.

        Raises:
            ConfigError: no such arm, or what it needs was not given.
        """
        seed = derive_seed(self.seed, arm, draw)
        if arm == "vector":
            return self.vector
        if arm == "random":
            return random_like(self.vector, seed)
        if arm == "random_covariance" and self.fitted_on is not None:
            return random_like(self.vector, seed, self.fitted_on)
        if arm == "shuffled_labels" and self.fitted_on is not None:
            return self._shuffled(seed)
        if arm == "orthogonal" and self.orthogonal_to is not None:
            return self._orthogonal()
        if arm == "other_concept" and self.other is not None:
            # Doses in the vector's own units, so that this arm is as long as the others.
            return replace(self.other.at(self.vector.sites), norms=self.vector.norms)
        raise ConfigError(f"The arm {arm!r} needs something that was not given: texts it was fitted on, or a vector.")

    def _shuffled(self, seed: int) -> SteeringVector:
        assert self.fitted_on is not None
        settings = dict(self.vector.provenance.get("settings", {}))
        directions = {
            site: METHODS[self.vector.method](unrelated_labels(Samples.of(self.fitted_on, site), seed), **settings)
            for site in self.vector.sites
        }
        return self._like(directions, "shuffled labels")

    def _orthogonal(self) -> SteeringVector:
        assert self.orthogonal_to is not None
        directions: dict[Site, Tensor] = {}
        for site, v in self.vector.directions.items():
            if len(v) != len(self.orthogonal_to):
                raise InterventionError(
                    f"The direction to leave out has {len(self.orthogonal_to)} numbers, {site} has {len(v)}."
                )
            u = self.orthogonal_to.double() / self.orthogonal_to.double().norm()
            directions[site] = (v.double() - (v.double() @ u) * u).float()
        return self._like(directions, f"{self.vector.concept}, without the tokens' own direction")

    def _like(self, directions: Mapping[Site, Tensor], concept: str) -> SteeringVector:
        """A control in place of the vector: its sites and norms, whatever length its own direction has."""
        return replace(self.vector, directions=dict(directions), concept=concept, provenance={}, calibration=None)


def unrelated_labels(samples: Samples, seed: int) -> Samples:
    """Return samples under labels that agree with their own on about half of them.

    Of labels that are exchanged group by group at random, some agree with the true ones on most texts, if groups are
    few. What is fitted on those is the vector itself, only shorter; scaled to the same length it is no control. So of
    64 labellings the one whose agreement is nearest to one half is taken.
    """
    drawn = shuffled_labels(samples.y, samples.groups, _LABELLINGS, seed)
    agreement = (drawn == samples.y).mean(1)
    return Samples(samples.x, drawn[np.abs(agreement - 0.5).argmin()], samples.groups, samples.pairs)
