"""From recorded activations to a steering vector: one estimator, several sites, held-out scores, full provenance."""

from collections.abc import Callable, Mapping
from importlib.metadata import version
from inspect import signature
from typing import Any

import numpy as np
from jaxtyping import Float
from torch import Tensor

from mechint import __version__
from mechint.capture.activations import LAST, Activations, record
from mechint.capture.moments import Moments, RecordedMoments
from mechint.capture.passes import Sites
from mechint.errors import ConfigError, PromptError
from mechint.model.base import Model
from mechint.positions import Positions
from mechint.prompts import ContrastPairs
from mechint.sites import Site
from mechint.statistics import derive_seed
from mechint.vectors.auroc import auroc
from mechint.vectors.estimators.means import (
    discriminant,
    discriminant_of,
    mean_difference,
    mean_difference_of,
)
from mechint.vectors.estimators.pairs import principal_difference
from mechint.vectors.estimators.probe import logistic_probe
from mechint.vectors.samples import Samples
from mechint.vectors.vector import SteeringVector

METHODS: dict[str, Callable[..., Float[Tensor, " width"]]] = {
    "mean_diff": mean_difference,
    "pca": principal_difference,
    "probe": logistic_probe,
    "lda": discriminant,
}
"""By name: from `Samples`, and settings of its own, to a direction."""
_FROM_MOMENTS: dict[str, Callable[[Moments, Moments], Float[Tensor, " width"]]] = {
    "mean_diff": mean_difference_of,
    "lda": discriminant_of,
}


def fit(
    data: Activations | RecordedMoments | Model,
    pairs: ContrastPairs | None = None,
    sites: Sites | None = None,
    at: Positions = LAST,
    *,
    method: str = "mean_diff",
    concept: str | None = None,
    folds: int = 5,
    seed: int = 0,
    **settings: Any,
) -> SteeringVector:
    """Estimate a steering vector.

    Args:
        data: recorded activations, their moments, or a model on which `pairs` are recorded first.
        pairs: with a model: what to record.
        sites: with a model: where; of recorded data: which of its sites, all by default.
        at: with a model: which tokens.
        method: `mean_diff`, `pca` (pairs only), `probe` or `lda`; `mean_diff` and `lda` from moments.
        concept: what more of it means; the name of the data by default.
        folds: of the cross-validation by groups whose AUROC goes into the provenance; 0 for none.
        seed: of the folds.
        settings: of the estimator, such as `C` of the probe.

    Raises:
        ConfigError: no such method, or not from this kind of data, or a setting that it has not.
        PromptError: one side is missing, or `pca` without pairs.
        SiteError: nothing was recorded at a site.
        InterventionError: the two sides do not differ, so there is no direction.
    """
    if isinstance(data, Model):
        if pairs is None or sites is None:
            raise ConfigError("To fit from a model, give pairs and sites: fit(model, pairs, 'L9.resid_post').")
        data = record(data, pairs, sites, at)
        sites = None
    elif pairs is not None:
        raise ConfigError("Recorded data have their texts already: give either them, or a model and pairs.")
    given = data.moments if isinstance(data, RecordedMoments) else data.values
    known = tuple(given)
    chosen = known if sites is None else [Site.parse(s) for s in ([sites] if isinstance(sites, str | Site) else sites)]
    if isinstance(data, RecordedMoments):
        _require_method(method, _FROM_MOMENTS, settings)
        directions, scores = _from_moments(data, chosen, method), dict[str, Any]()
    else:
        _require_method(method, METHODS, settings)
        samples = {site: Samples.of(data, site) for site in chosen}
        directions = {site: METHODS[method](one, **settings) for site, one in samples.items()}
        scores = {str(s): score(one, directions[s], method, folds, seed, settings) for s, one in samples.items()}
    return SteeringVector(
        directions,
        {site: data.norms[site] for site in chosen if site in data.norms},
        concept or str(data.data.get("name", "concept")),
        method,
        data.model,
        {
            "data": dict(data.data),
            "n_texts": len(data.groups),
            "groups": sorted(set(data.groups)),
            "at": data.at,
            "settings": settings,
            "seed": seed,
            "scores": scores,
            "versions": {"mechint": __version__, "torch": version("torch"), "scikit-learn": version("scikit-learn")},
        },
    )


def _require_method(method: str, known: Mapping[str, Callable[..., Any]], settings: Mapping[str, Any]) -> None:
    """Refuse an unknown estimator, and settings that it has not.

    Raises:
        ConfigError: it is none of these, or a setting would be ignored.
    """
    if method not in known:
        raise ConfigError(f"{method!r} is no estimator for these data. There are: {', '.join(known)}.")
    own = [name for name, one in signature(known[method]).parameters.items() if one.default is not one.empty]
    if unknown := sorted(set(settings) - set(own)):
        raise ConfigError(
            f"{method!r} has no setting {unknown[0]!r} on these data. It has: {', '.join(own) or 'none'}."
        )


def score(
    samples: Samples,
    direction: Float[Tensor, " width"],
    method: str,
    folds: int,
    seed: int,
    settings: Mapping[str, Any],
) -> dict[str, Any]:
    """Return the AUROC of a direction on the samples it was fitted on, and of its estimator on held-out groups.

    The held-out one is the mean over folds whose two parts both have both sides; None where there are none.
    """
    held_out: list[float] = []
    for train, test in group_folds(samples, folds, derive_seed(seed, "folds")) if folds else []:
        try:
            fitted = METHODS[method](samples.pick(train), **settings)
            tested = samples.pick(test)
        except PromptError:
            continue
        held_out.append(auroc(tested.x @ fitted.numpy(), tested.y))
    return {
        "train_auroc": auroc(samples.x @ direction.double().numpy(), samples.y),
        "held_out_auroc": float(np.mean(held_out)) if held_out else None,
        "folds": len(held_out),
    }


def group_folds(samples: Samples, folds: int, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Divide samples into folds that cut no group, each with as even a share of both sides as groups allow."""
    from sklearn.model_selection import StratifiedGroupKFold

    most = min(len(np.unique(samples.groups[samples.y == label])) for label in (0, 1))
    if (n := min(folds, most)) < 2:
        return []
    splitter = StratifiedGroupKFold(n, shuffle=True, random_state=seed % 2**32)
    return list(splitter.split(samples.x, samples.y, samples.groups))


def _from_moments(data: RecordedMoments, sites: Any, method: str) -> dict[Site, Tensor]:
    out: dict[Site, Tensor] = {}
    for site in sites:
        sides = data.side(site)
        if set(sides) != {0, 1}:
            raise PromptError("These moments have one side only. Record contrast data (mechint.prompts.contrast).")
        out[site] = _FROM_MOMENTS[method](sides[1], sides[0])
    return out
