"""Plans of one part: what a user writes, and then adds up."""

import math
from collections.abc import Iterable, Mapping
from typing import Any, Literal, cast

import torch
from jaxtyping import Float
from torch import Tensor

from mechint.errors import InterventionError
from mechint.positions import Positions, everywhere
from mechint.sites import Site, parse_head
from mechint.steering.actions import Action, adding, adding_to_own_length, clamping, projecting_out, replacing
from mechint.steering.plan import Dose, Part, Plan
from mechint.vectors.vector import SteeringVector

_NORM = ("free", "preserve")
_UNITS = ("norm", "calibrated", "token", "raw")


def add(
    vector: SteeringVector,
    dose: Dose | None = None,
    *,
    unit: str | None = None,
    where: Positions = everywhere,
    norm: str = "free",
) -> Plan:
    """Add a vector, at each of its sites.

    Args:
        vector: what to add.
        dose: how much, or a function of t; left out, it is 1 in the unit "calibrated".
        unit: what dose 1 means: "norm", as long as the median activation of the site (the default for a given dose);
            "calibrated", the dose at which the calibration met its target; "token", as long as the very activation it
            is added to; "raw", the vector as it was estimated.
        where: on which tokens.
        norm: "free", or "preserve", which scales each token back to the length it had.

    Raises:
        InterventionError: no dose and no calibration, a dose that is not finite, or a unit that the vector lacks.
    """
    if norm not in _NORM:
        raise InterventionError(f"norm={norm!r}: expected one of {', '.join(_NORM)}.")
    if dose is None:
        if vector.calibration is None or unit not in (None, "calibrated"):
            raise InterventionError(
                "Give a dose, such as dose=0.3 (in units of the median |h|); only a calibrated vector has one of its "
                "own, in unit 'calibrated'."
            )
        dose, unit = 1.0, "calibrated"
    unit = unit or "norm"
    if unit not in _UNITS:
        raise InterventionError(f"{unit!r} is no unit of dose. There are: {', '.join(_UNITS)}.")
    if unit == "token":
        actions = {s: adding_to_own_length(vector.unit(s), preserve=norm == "preserve") for s in vector.sites}
    else:
        actions = {s: adding(vector.step(s, 1.0, cast(Any, unit)), preserve=norm == "preserve") for s in vector.sites}
    return _plan(f"add {vector.concept}", actions, dose, where, _in_words(unit, vector))


def project_out(vector: SteeringVector, strength: Dose = 1.0, *, where: Positions = everywhere) -> Plan:
    """Take the component along a vector out of its sites; strength 1 takes all of it."""
    actions = {site: projecting_out(vector.unit(site)) for site in vector.sites}
    return _plan(f"project out {vector.concept}", actions, strength, where)


def clamp(
    vector: SteeringVector, low: float = -math.inf, high: float = math.inf, *, where: Positions = everywhere
) -> Plan:
    """Keep the component along a vector between two bounds, in units of the median |h| of each site.

    Raises:
        InterventionError: bounds that are the wrong way round, or not numbers; or norms that are not known.
    """
    if not low <= high or (math.isinf(low) and math.isinf(high)):
        raise InterventionError(f"clamp: expected low <= high, one of them finite, got {low} and {high}.")
    if missing := [site for site in vector.sites if site not in vector.norms]:
        raise InterventionError(f"clamp: the median |h| at {missing[0]} is not known, so the bounds have no length.")
    actions = {s: clamping(vector.unit(s), low * vector.norms[s], high * vector.norms[s]) for s in vector.sites}
    return _plan(f"clamp {vector.concept} to [{low:g}, {high:g}]", actions, 1.0, where)


def replace(
    site: str | Site, values: Float[Tensor, "..."], *, where: Positions = everywhere, strength: Dose = 1.0
) -> Plan:
    """Put given values at a site; they must broadcast to one token's activation there."""
    site = Site.parse(site)
    return _plan(f"replace {site}", {site: replacing(values)}, strength, where)


def ablate(
    heads: str | Iterable[str],
    *,
    to: Literal["zero"] | Float[Tensor, "pos head d_head"] = "zero",
    where: Positions = everywhere,
) -> Plan:
    """Take heads out at their `z`: set to zero, or to means by position.

    Args:
        heads: such as "L10H7" or ["L10H7", "L11H3"].
        to: "zero", or the mean `z` of the heads' block at each position (all heads of it).
        where: on which tokens.

    Raises:
        SiteError: no such head.
    """
    names = [heads] if isinstance(heads, str) else list(heads)
    actions: dict[Site, Action] = {}
    for layer, head in map(parse_head, names):
        if isinstance(to, str):
            action = replacing(torch.zeros(()), "zero")
        else:
            action = replacing(to[:, head], "mean", by_place=True)
        actions[Site("z", layer, head)] = action
    return _plan(f"ablate {', '.join(names)}", actions, 1.0, where)


def _plan(name: str, actions: Mapping[Site, Action], dose: Dose, where: Positions, unit: str = "") -> Plan:
    return Plan((Part(name, actions, dose, where, unit=unit),))


def _in_words(unit: str, vector: SteeringVector) -> str:
    if unit == "calibrated" and vector.calibration is not None:
        return f"calibrated ({vector.calibration.dose:.3g} median |h|)"
    return {"norm": "median |h|", "token": "own |h|", "raw": "|v|"}[unit]
