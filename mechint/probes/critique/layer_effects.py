"""At which layer a critique vector acts most: metric(+dose) - metric(-dose), layer by layer.

The layer is chosen on twins that are there for this alone: what is reported on others afterwards is not flattered by
the choice. The effect on wrong rows decides, as in "Decoding the Critique Mechanism in Large Reasoning Models" (2026),
where it is an accuracy; that on true rows, and the difference of both, stand beside it.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from mechint.errors import ConfigError, PromptError
from mechint.model.base import Model
from mechint.positions import Positions, everywhere
from mechint.probes.critique.causal import UNITS, scaled
from mechint.probes.critique.measures import Metric
from mechint.probes.critique.shared_prefixes import BothSides
from mechint.prompts.reasoning import TokenTwins
from mechint.sites import Site
from mechint.statistics import bootstrap_mean
from mechint.steering.parts import add
from mechint.vectors.vector import SteeringVector

_SIDES = ("wrong", "true", "difference")


@dataclass(frozen=True)
class LayerEffects:
    """What a vector does at each of its sites, and the one that was chosen."""

    table: pd.DataFrame
    """One row a site: `site`, `layer`, `relative_dose`, and effects by side with their ends; the chosen one marked."""
    site: Site
    """Where the effect that decides is largest; of equal ones the first."""
    groups: tuple[str, ...]
    """The problems that it was chosen on: `chosen_on` of an evaluation."""


def layer_effects(
    model: Model,
    vector: SteeringVector,
    select: TokenTwins,
    metric: Metric,
    dose: float,
    *,
    unit: str = "norm",
    by: str = "wrong",
    where: Positions = everywhere,
    seed: int = 0,
) -> LayerEffects:
    """Steer up and down at each site of a vector alone.

    Args:
        model: what is steered.
        vector: with a direction at each site among which is chosen.
        select: twins that nothing is reported on.
        metric: one number a row, or a side of a pair.
        dose: positive.
        unit: of the dose: "norm", the median |h| of the site, or "raw", the vector as it was estimated.
        by: what decides: "wrong", "true" or "difference".
        where: which tokens are steered.
        seed: of the bootstrap.

    Raises:
        ConfigError: a dose that is not positive, a unit or a side that is not known.
        PromptError: no twins.
    """
    if not 0 < dose < float("inf") or unit not in UNITS or by not in _SIDES:
        raise ConfigError(
            f"dose={dose}, unit={unit!r}, by={by!r}. Expected a positive dose, one of {', '.join(UNITS)}, and one of "
            f"{', '.join(_SIDES)}."
        )
    if not len(select):
        raise PromptError(f"There are no twins in {select.name!r} to choose on. Give at least one pair.")
    vector.check(model)
    added, rows = scaled(vector, unit), list[dict[str, Any]]()
    for site in vector.sites:
        ends, measured = list[np.ndarray](), BothSides(model, select, metric, [site], where)
        for sign in (1, -1):
            with model.apply(add(added.at(site), sign * dose, unit="raw", where=where)):
                ends.append(np.stack(list(measured().values()), axis=1))
        moved = ends[0] - ends[1]
        sides = np.column_stack([moved, moved[:, 0] - moved[:, 1]])
        effects = zip(_SIDES, *bootstrap_mean(sides, select.groups, seed=seed), strict=True)
        relative = dose * float(added[site].norm()) / vector.norms.get(site, np.nan)
        row: dict[str, Any] = {"site": str(site), "layer": site.layer, "relative_dose": relative}
        for side, value, low, high in effects:
            row |= {side: float(value), f"{side}_low": float(low), f"{side}_high": float(high)}
        rows.append(row)
    best = int(np.nanargmax([row[by] for row in rows]))
    table = pd.DataFrame(rows).assign(chosen=[at == best for at in range(len(rows))])
    return LayerEffects(table, vector.sites[best], tuple(dict.fromkeys(select.groups)))
