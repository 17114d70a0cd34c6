"""Choosing a layer and a dose: at equal damage, the layer with the largest effect, on data that are not tested on.

Layers differ in how long their activations are and in how much a push there breaks, so equal lengths compare nothing.
For each layer the dose is sought at which 5 % of tokens of neutral text exceed the same KL (`vectors.calibration`); at
that dose the effect is measured. The dose therefore follows from the damage alone, and only the layer from the effect.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from mechint.errors import InterventionError, PromptError
from mechint.prompts import PromptSet
from mechint.statistics import generator
from mechint.vectors.dose import Calibration


@dataclass(frozen=True)
class Chosen:
    """A layer with its dose."""

    layer: int
    target_kl: float
    dose: float
    low: float
    high: float

    @property
    def calibration(self) -> Calibration:
        """The dose as a vector carries it."""
        return Calibration("kl", self.target_kl, self.dose, self.low, self.high, {"statistic": "p95"})


def choose(layers: pd.DataFrame, target_kl: float) -> Chosen:
    """Return the layer with the largest effect, the first of equals.

    Args:
        layers: one row each, with `layer`, `dose` (and its interval), `effect`, and `problem` where there is no dose.
        target_kl: nats, that every dose is calibrated to.

    Raises:
        InterventionError: no layer has a dose.
    """
    rows = layers.sort_values("layer", ignore_index=True)
    effects = np.asarray(rows["effect"], float)
    if not np.isfinite(effects).any():
        raise InterventionError(
            f"At no layer a dose was found at which 5 % of tokens exceed {target_kl:g} nats. {rows['problem'].iloc[0]}"
        )
    best = rows.iloc[int(np.nanargmax(effects))]
    return Chosen(int(best["layer"]), target_kl, *(float(best[name]) for name in ("dose", "dose_low", "dose_high")))


def parts_of(prompts: PromptSet, shares: Sequence[float], seed: int) -> list[PromptSet]:
    """Divide prompts at random into parts that share no cluster, of about these shares of the clusters.

    Raises:
        PromptError: too few clusters for two in each part.
    """
    owners = {p.id: p.cluster or p.id for p in prompts}
    names, n = sorted(set(owners.values())), len(shares)
    if len(names) < 2 * n:
        raise PromptError(
            f"The prompts {prompts.name!r} are of {len(names)} clusters, too few for {n} parts of two or more. Give "
            "prompts of more clusters."
        )
    order = [names[k] for k in generator(seed, "parts").permutation(len(names))]
    ends = [round(sum(shares[: k + 1]) / sum(shares) * len(names)) for k in range(n)]
    # Two clusters at least, however small the share.
    ends = [min(max(end, 2 * (k + 1)), len(names) - 2 * (n - k - 1)) for k, end in enumerate(ends)]
    taken = [set(order[start:end]) for start, end in zip([0, *ends[:-1]], ends, strict=True)]
    return [PromptSet(prompts.name, tuple(p for p in prompts if owners[p.id] in part)) for part in taken]
