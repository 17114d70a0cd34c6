"""Bootstrap where observations come in two crossed kinds of cluster, such as concepts times carrier texts.

Both kinds are drawn independently with replacement, and a cell counts as often as the product of its two counts
(Owen 2007, "The pigeonhole bootstrap"): conservative, and honest about few clusters of either kind. Intervals are
percentiles. The AUROC of positives x against negatives y under weights w is

    Σ_i Σ_j w_i w_j (1[x_i > y_j] + ½ 1[x_i = y_j]) / (Σ_i w_i Σ_j w_j)
"""

import numpy as np
from jaxtyping import Float

from mechint.statistics.drawn import Drawn
from mechint.statistics.seeds import generator

_BLOCK = 2_000_000  # numbers in one block of draws


class Crossed:
    """Draws of two crossed kinds of cluster.

    Args:
        n_first: clusters of one kind, such as concepts.
        n_second: of the other, such as carriers.
        n_resamples: number of draws.
        seed: of the draws.

    Examples:
        >>> draws = Crossed(3, 4, n_resamples=100)
        >>> draws.mean(np.ones((3, 4))).low, draws.auroc(np.ones((3, 4)), np.zeros((3, 4))).value
        (1.0, 1.0)

    Raises:
        ValueError: fewer than two clusters of a kind.
    """

    def __init__(self, n_first: int, n_second: int, *, n_resamples: int = 2000, seed: int = 0) -> None:
        if min(n_first, n_second) < 2:
            raise ValueError(f"{n_first} times {n_second} clusters. Expected at least two of each kind.")
        rng = generator(seed, "crossed", n_first, n_second)
        counts = [rng.multinomial(n, np.full(n, 1 / n), size=n_resamples) for n in (n_first, n_second)]
        products = counts[0][:, :, None] * counts[1][:, None, :]
        self._weights = np.concatenate([np.ones((1, n_first, n_second)), products])

    def mean(self, cells: Float[np.ndarray, "cluster crossed"]) -> Drawn:
        """Return the mean over cells."""
        return drawn(self.means(cells))

    def means(self, cells: Float[np.ndarray, "cluster crossed"]) -> Float[np.ndarray, " resample"]:
        """Return the mean and those of all draws behind it, to be combined with others before they are `drawn`."""
        return (self._weights * cells).sum((1, 2)) / self._weights.sum((1, 2))

    def auroc(
        self, positive: Float[np.ndarray, "cluster crossed"], negative: Float[np.ndarray, "cluster crossed"]
    ) -> Drawn:
        """Return how often a positive is above a negative, cells of both drawn together.

        Raises:
            ValueError: a score that is not finite.
        """
        if not (np.isfinite(positive).all() and np.isfinite(negative).all()):
            raise ValueError("A score is not finite. Expected one finite score for each cell.")
        x, y = positive.reshape(-1), negative.reshape(-1)
        order = np.argsort(y, kind="stable")
        below, upto = (np.searchsorted(y[order], x, side=side) for side in ("left", "right"))
        found: list[np.ndarray] = []
        weights = self._weights.reshape(len(self._weights), -1)
        for start in range(0, len(weights), max(1, _BLOCK // len(x))):
            w = weights[start : start + max(1, _BLOCK // len(x))]
            sums = np.concatenate([np.zeros((len(w), 1)), np.cumsum(w[:, order], axis=1)], axis=1)
            found.append((w * (sums[:, below] + sums[:, upto])).sum(1) / (2 * w.sum(1) ** 2))
        return drawn(np.concatenate(found))


def drawn(values: Float[np.ndarray, " resample"]) -> Drawn:
    """Return a value and its draws, the value first."""
    return Drawn(float(values[0]), values[1:])
