"""Choosing where and how strongly to steer, on problems on which nothing is reported.

At each layer the largest dose that raises the loss on clean text by 0.1 nats at most, added and taken away; then the
layer at which that dose moves the difference of differences most. So the dose follows from the damage alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from mechint.errors import InterventionError
from mechint.model.base import Model
from mechint.positions import everywhere
from mechint.probes.critique.causal_summary import MOST_DAMAGE
from mechint.probes.critique.layer_effects import layer_effects
from mechint.probes.critique.measures import Metric
from mechint.prompts.reasoning import TokenTwins
from mechint.steering.parts import add
from mechint.vectors.damage import NeutralTexts
from mechint.vectors.vector import SteeringVector

_EFFECTS = [f"{side}{end}" for side in ("wrong", "true", "difference") for end in ("", "_low", "_high")]


@dataclass(frozen=True)
class Chosen:
    """A layer with its dose, in units of the median |h|."""

    site: str
    dose: float


def candidate(
    model: Model,
    vector: SteeringVector,
    select: TokenTwins,
    metric: Metric,
    doses: Sequence[float],
    clean: NeutralTexts,
    seed: int = 0,
) -> pd.DataFrame:
    """Return one row of a layer: site, layer, dose and loss_rise (of the worse sign); effects by side with their ends.

    Args:
        model: what is steered.
        vector: at one site.
        select: twins that nothing is reported on.
        metric: one number a row, or a side of a pair.
        doses: positive, in units of the median |h|.
        clean: texts on which the damage is measured.
        seed: of the bootstrap.
    """
    (site,) = vector.sites
    row: dict[str, object] = {"site": str(site), "layer": site.layer, "dose": np.nan, **dict.fromkeys(_EFFECTS, np.nan)}
    for dose in sorted(doses, reverse=True):
        row["loss_rise"] = max(_rise(model, vector, sign * dose, clean) for sign in (1, -1))
        if float(str(row["loss_rise"])) <= MOST_DAMAGE:
            effects = layer_effects(model, vector, select, metric, dose, by="difference", seed=seed).table.iloc[0]
            row |= {"dose": dose, **{name: float(effects[name]) for name in _EFFECTS}}
            break
    return pd.DataFrame([row])


def choose(candidates: pd.DataFrame) -> Chosen:
    """Return the layer that moves the difference most at its dose, the first of equals.

    Raises:
        InterventionError: no layer has a dose.
    """
    rows = candidates.sort_values("layer", ignore_index=True)
    effects = np.asarray(rows["difference"], float)
    if not np.isfinite(effects).any():
        raise InterventionError(
            f"At no layer a dose raises the loss on clean text by {MOST_DAMAGE:g} nats at most; the smallest one costs "
            f"{rows['loss_rise'].min():.3g}. Give smaller candidates."
        )
    best = rows.iloc[int(np.nanargmax(effects))]
    return Chosen(str(best["site"]), float(best["dose"]))


def _rise(model: Model, vector: SteeringVector, dose: float, clean: NeutralTexts) -> float:
    with model.apply(add(vector, dose, where=everywhere)):
        return float(clean.damage().loss_change.mean())
