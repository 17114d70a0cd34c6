"""What an estimator sees at one site: vectors with labels, groups, and who is whose pair."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mechint.capture.activations import Activations
from mechint.errors import PromptError
from mechint.sites import Site


@dataclass(frozen=True, eq=False)
class Samples:
    """Vectors of two sides at one site; every recorded position of a text counts as one vector.

    Raises:
        PromptError: there are no vectors on one side.
    """

    x: Float[np.ndarray, "sample width"]
    y: Int[np.ndarray, " sample"]
    """1 positive, 0 negative."""
    groups: Int[np.ndarray, " sample"]
    pairs: Int[np.ndarray, " sample"]
    """Two vectors of one number are a pair: one of each side, at the same of the recorded positions."""

    def __post_init__(self) -> None:
        if len(self.y) == 0 or not 0 < int(self.y.sum()) < len(self.y):
            raise PromptError(
                f"{int(self.y.sum())} positive and {int((1 - self.y).sum())} negative vectors: a direction between two "
                "sides needs both. Record contrast data (mechint.prompts.contrast)."
            )

    @classmethod
    def of(cls, recorded: Activations, site: str | Site) -> "Samples":
        """Take what was recorded at a site.

        Raises:
            PromptError: what was recorded has no sides, or one only.
        """
        if recorded.labels is None:
            raise PromptError(
                f"{recorded!r} has no sides. A direction needs positive and negative texts: record contrast data "
                "(mechint.prompts.contrast)."
            )
        values = recorded[site]
        n_at = values.shape[1]
        _, groups = np.unique(np.array(recorded.groups), return_inverse=True)
        _, owners = np.unique(np.array(recorded.ids), return_inverse=True)
        return cls(
            values.flatten(0, 1).double().numpy(),
            np.repeat(np.array(recorded.labels, dtype=np.int64), n_at),
            np.repeat(groups, n_at),
            (owners[:, None] * n_at + np.arange(n_at)).ravel(),
        )

    def __len__(self) -> int:
        return len(self.y)

    @property
    def positive(self) -> Float[Tensor, "sample width"]:
        """The positive vectors, float64."""
        return torch.from_numpy(self.x[self.y == 1])

    @property
    def negative(self) -> Float[Tensor, "sample width"]:
        """The negative vectors, float64."""
        return torch.from_numpy(self.x[self.y == 0])

    @property
    def differences(self) -> Float[Tensor, "sample width"]:
        """Positive minus negative vector of each pair.

        Raises:
            PromptError: some vector has no pair.
        """
        first, second = (np.flatnonzero(self.y == label) for label in (1, 0))
        first, second = first[np.argsort(self.pairs[first])], second[np.argsort(self.pairs[second])]
        if not np.array_equal(self.pairs[first], self.pairs[second]):
            raise PromptError(
                "Some texts have no pair, and this estimator works on differences of pairs. Give paired texts, or "
                "use 'mean_diff', 'probe' or 'lda'."
            )
        return torch.from_numpy(self.x[first] - self.x[second])

    def pick(self, which: Int[np.ndarray, " sample"] | Bool[np.ndarray, " sample"]) -> "Samples":
        """Return some of the vectors.

        Raises:
            PromptError: all of them are on one side.
        """
        return Samples(self.x[which], self.y[which], self.groups[which], self.pairs[which])

    def shuffled(self, seed: int) -> "Samples":
        """Return the vectors with labels that mean nothing: what an estimator makes of chance.

        A group that has both sides exchanges them as a whole or not, so pairs stay pairs; groups of one side exchange
        their labels among one another.
        """
        return Samples(self.x, shuffled_labels(self.y, self.groups, 1, seed)[0], self.groups, self.pairs)


def shuffled_labels(
    y: Int[np.ndarray, " sample"], groups: Int[np.ndarray, " sample"], n: int, seed: int
) -> Int[np.ndarray, "resample sample"]:
    """Draw labels that could as well have been: exchanged within groups of two sides, permuted among the others."""
    from mechint.statistics import generator

    rng = generator(seed, "shuffled labels")
    names, owner, counts = np.unique(groups, return_inverse=True, return_counts=True)
    positive = np.bincount(owner, weights=y)
    mixed = (positive > 0) & (positive < counts)
    flips = np.where(mixed, rng.integers(2, size=(n, len(names))), 0)
    drawn = np.where(flips[:, owner] == 1, 1 - y, y)
    sides = (positive[~mixed] > 0).astype(y.dtype)
    if len(sides):
        whole = np.zeros((n, len(names)), dtype=y.dtype)
        whole[:, ~mixed] = rng.permuted(np.tile(sides, (n, 1)), axis=1)
        drawn = np.where(mixed[owner], drawn, whole[:, owner])
    return drawn
