"""A steering vector: directions at sites of one model, how long they are in units of that model, where they come from.

    step = dose * n * v / |v|            unit "norm": n is the median |h| at the site, so dose 1 is as long as h itself
    step = dose * c * n * v / |v|        unit "calibrated": c is the dose at which a target was met (`Calibration`)
    step = dose * v                      unit "raw"

The median, because a few tokens (the first one above all) are longer than the rest by orders of magnitude and would
own a mean. Vectors are values: `+ - * /` and `project_out` return new ones, without the calibration of the old.
"""

import json
import math
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from mechint.errors import InterventionError, SiteError
from mechint.model.base import Model
from mechint.sites import Site
from mechint.vectors.algebra import combined, opposite, require_alike, source, without
from mechint.vectors.dose import Calibration as Calibration
from mechint.vectors.dose import DoseUnit as DoseUnit

if TYPE_CHECKING:
    from mechint.capture.activations import Activations
    from mechint.results import Findings
else:
    Activations = Findings = Any  # annotations are checked under pytest, and pandas is not loaded for them


@dataclass(frozen=True, eq=False, repr=False)
class SteeringVector:
    """Directions of one concept in one model.

    Raises:
        InterventionError: no direction, one that is zero, not finite or no vector, or a norm that is not positive.

    Examples:
        >>> site = Site.parse("L9.resid_post")
        >>> vector = SteeringVector({site: torch.tensor([3.0, 4.0])}, {site: 10.0}, "cheer", "mean_diff")
        >>> vector
        SteeringVector: more cheer (mean_diff), of an unnamed model, not calibrated; |v|/median|h|: L9.resid_post 0.5
        >>> vector.step(site, 0.5).tolist(), (2 * vector).step(site, 0.5, "raw").tolist()
        ([3.0, 4.0], [3.0, 4.0])
    """

    directions: Mapping[Site, Float[Tensor, " width"]]
    """float32 on the CPU, in forward order, as long as they were estimated."""
    norms: Mapping[Site, float]
    """Median |h| at the site, over all tokens of reference texts but the first of each: the unit of dose."""
    concept: str
    """What more of it means, such as "positive sentiment"."""
    method: str
    """How it was estimated, such as "mean_diff"."""
    model: Mapping[str, str] = field(default_factory=dict[str, str])
    """`name`, `weights` (hash, as in `Model.fingerprint`) and `d_model` of the model it belongs to."""
    provenance: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """Data name and hash, n, positions, seed, scores, versions: JSON types only."""
    calibration: Calibration | None = None

    def __post_init__(self) -> None:
        if not self.directions:
            raise InterventionError(f"A steering vector of {self.concept!r} needs a direction at one site at least.")
        directions = {site: _direction(site, self.directions[site]) for site in sorted(self.directions)}
        norms = {site: float(self.norms[site]) for site in directions if site in self.norms}
        if bad := [site for site, norm in norms.items() if not (math.isfinite(norm) and norm > 0)]:
            raise InterventionError(f"Expected a positive median |h| at {bad[0]}, got {norms[bad[0]]}.")
        try:
            json.dumps(dict(self.provenance), allow_nan=False)
        except (TypeError, ValueError) as error:
            raise InterventionError(f"The provenance of a steering vector holds more than JSON: {error}.") from None
        for name, value in (("directions", directions), ("norms", norms)):
            object.__setattr__(self, name, value)

    def __repr__(self) -> str:
        sites = ", ".join(
            f"{site} {float(v.norm()) / self.norms[site]:.3g}" if site in self.norms else f"{site} (no norm)"
            for site, v in self.directions.items()
        )
        calibrated = "not calibrated" if self.calibration is None else f"calibrated to {self.calibration}"
        model = self.model.get("name", "an unnamed model")
        return f"SteeringVector: more {self.concept} ({self.method}), of {model}, {calibrated}; |v|/median|h|: {sites}"

    @property
    def sites(self) -> tuple[Site, ...]:
        """Where it has directions, in forward order."""
        return tuple(self.directions)

    def __getitem__(self, site: str | Site) -> Float[Tensor, " width"]:
        """Return the direction at a site, as long as it was estimated.

        Raises:
            SiteError: it has none there.
        """
        site = Site.parse(site)
        if site not in self.directions:
            raise SiteError(f"This vector has no direction at {site}. It has: {', '.join(map(str, self.sites))}.")
        return self.directions[site]

    def at(self, sites: str | Site | Iterable[str | Site]) -> "SteeringVector":
        """Return the vector at some of its sites only.

        The calibration stays only if all sites do: it belongs to the sites together.

        Raises:
            SiteError: it has no direction there.
        """
        chosen = [Site.parse(site) for site in ([sites] if isinstance(sites, str | Site) else sites)]
        directions = {site: self[site] for site in chosen}
        kept = self.calibration if set(chosen) == set(self.sites) else None
        return replace(self, directions=directions, calibration=kept)

    def unit(self, site: str | Site) -> Float[Tensor, " width"]:
        """Return the direction at a site with length 1."""
        direction = self[site].double()
        return (direction / direction.norm()).float()

    def step(self, site: str | Site, dose: float, unit: DoseUnit = "norm") -> Float[Tensor, " width"]:
        """Return what to add to the activation at a site.

        Args:
            site: one of the vector's.
            dose: how much; negative for less of the concept.
            unit: `norm` (median |h| of the site), `calibrated` (the calibrated dose), or `raw` (the vector itself).

        Raises:
            SiteError: the vector has no direction there.
            InterventionError: a dose that is not finite, or a unit that this vector does not know.
        """
        direction = self[site]
        if not math.isfinite(dose):
            raise InterventionError(f"The dose is {dose}. Expected a finite number.")
        if unit == "raw":
            return dose * direction
        if unit not in ("norm", "calibrated"):
            raise InterventionError(f"{unit!r} is no unit of dose. There are: norm, calibrated, raw.")
        if unit == "calibrated":
            if self.calibration is None:
                raise InterventionError("This vector is not calibrated. Calibrate it, or give the dose in unit 'norm'.")
            dose *= self.calibration.dose
        site = Site.parse(site)
        if site not in self.norms:
            raise InterventionError(
                f"The median |h| at {site} is not known, so dose {dose:g} has no length. Estimate the vector from "
                "recorded activations, or give the dose in unit 'raw'."
            )
        return dose * self.norms[site] * self.unit(site)

    def __add__(self, other: "SteeringVector") -> "SteeringVector":
        return combined(self, other, "+", torch.add)

    def __sub__(self, other: "SteeringVector") -> "SteeringVector":
        return combined(self, other, "-", torch.sub)

    def __mul__(self, factor: float) -> "SteeringVector":
        if not math.isfinite(factor) or factor == 0:
            raise InterventionError(f"Cannot multiply a steering vector by {factor!r}. Expected a number other than 0.")
        provenance = {"expression": f"{factor:g} * {self.concept}", "parts": [source(self)]}
        directions = {site: factor * v for site, v in self.directions.items()}
        concept = self.concept if factor > 0 else opposite(self.concept)
        return replace(self, directions=directions, concept=concept, provenance=provenance, calibration=None)

    __rmul__ = __mul__

    def __truediv__(self, divisor: float) -> "SteeringVector":
        if divisor == 0:
            raise InterventionError("Cannot divide a steering vector by 0.")
        return self * (1 / divisor)

    def __neg__(self) -> "SteeringVector":
        return self * -1.0

    def project_out(self, other: "SteeringVector") -> "SteeringVector":
        """Return what of this vector is orthogonal to another one: v - (v·u) u with u = w/|w|, site by site.

        Raises:
            InterventionError: the other has other sites or belongs to another model, or nothing remains.
        """
        return combined(self, other, "without", without)

    def cosine(self, other: "SteeringVector") -> dict[Site, float]:
        """Return the cosine of the two directions at each site that both have.

        Raises:
            InterventionError: they belong to different models, or have no site in common.
        """
        shared = [site for site in self.sites if site in other.directions]
        require_alike(self.at(shared or self.sites), other.at(shared) if shared else other, "cosine")
        return {site: float(self.unit(site).double() @ other.unit(site).double()) for site in shared}

    def with_calibration(self, calibration: Calibration | None) -> "SteeringVector":
        """Return the vector with another calibration, or none."""
        return replace(self, calibration=calibration)

    def calibrate(self, model: Model, **target: Any) -> "SteeringVector":
        """Return the vector with the dose that meets a target, such as `target_kl=0.5`; see `vectors.calibration`."""
        from mechint.vectors.calibration import calibrate

        return calibrate(model, self, **target)

    def check(self, model: Model) -> None:
        """Make sure that this vector fits a model, and warn if it was estimated on other weights.

        Raises:
            InterventionError: the model has no such site, or another width there.
        """
        for site, direction in self.directions.items():
            try:
                model.facts.check(site)
            except SiteError as error:
                raise InterventionError(f"This vector of {self.concept!r} does not fit: {error}") from error
            width = {"d_model": model.facts.d_model, "d_head": model.facts.d_head}.get(site.axes[-1])
            if width is not None and width != len(direction):
                raise InterventionError(
                    f"This vector of {self.concept!r} has {len(direction)} numbers at {site}, {model.facts.name} has "
                    f"{width}. It was estimated on {self.model.get('name', 'another model')}: use that one."
                )
        theirs, ours = self.model.get("weights"), model.fingerprint["weights"]
        if theirs != ours:
            warnings.warn(
                f"This vector of {self.concept!r} was estimated on {self.model.get('name', 'an unnamed model')} "
                f"(weights {theirs}), not on these of {model.facts.name} ({ours}). Doses may mean other things.",
                stacklevel=2,
            )

    def save(self, path: str | Path, *, overwrite: bool = False) -> Path:
        """Write the vector as a safetensors file with a JSON header; see `vectors.saved`."""
        from mechint.vectors.saved import save

        return save(self, path, overwrite=overwrite)

    @staticmethod
    def load(path: str | Path) -> "SteeringVector":
        """Read a vector that `save` wrote; see `vectors.saved`."""
        from mechint.vectors.saved import load

        return load(path)

    def best_site(self, select: Activations) -> "SteeringVector":
        """Return the vector at the one site where it tells held-out contrast data apart best (AUROC; ties: the first).

        Choose on data of their own: the AUROC of a site that was chosen on the same data flatters it. The site that is
        best to read is often not the one that is best to steer.

        Raises:
            PromptError: the data have no two sides, or share a group with what the vector was fitted on.
        """
        from mechint.vectors.report import best_site

        return self.at(best_site(self, select))

    def report(
        self, test: Activations, *, train: Activations | None = None, model: Model | None = None, seed: int = 0
    ) -> Findings:
        """Say how well the vector tells held-out texts apart, beside its controls; see `vectors.report`."""
        from mechint.vectors.report import report

        return report(self, test, train=train, model=model, seed=seed)


def _direction(site: Site, values: Tensor) -> Tensor:
    # A copy: whoever made it may go on writing to theirs.
    vector = values.detach().to("cpu", torch.float32, copy=True)
    if vector.ndim != 1 or not bool(torch.isfinite(vector).all()) or float(vector.norm()) == 0:
        raise InterventionError(
            f"The direction at {site} has shape {list(values.shape)}, and is "
            f"{'finite' if bool(torch.isfinite(vector).all()) else 'not finite'}, of norm {float(vector.norm()):.3g}. "
            "Expected one vector of finite numbers other than zero."
        )
    return vector
