"""Steering vectors of other packages, read by their attributes: none of them is imported.

    repeng            `directions` {block: array}, `model_type`             h + c v at the output of block k
    steering-vectors  `layer_activations` {block: tensor}, `layer_type`     h + c v at the output of that module

Blocks count from 0 in both, negative ones from the end. Neither says how long activations are, so the norms of what is
imported are not known and doses are in unit "raw" (their coefficient c), until norms are measured:
`dataclasses.replace(vector, norms=mi.record(model, texts, vector.sites).norms)`.
"""

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mechint.capture.activations import identity
from mechint.errors import ConfigError, InterventionError
from mechint.model.base import Model
from mechint.sites import Site
from mechint.vectors.vector import SteeringVector

# Module of steering-vectors -> what its output is here.
_MODULES = {"decoder_block": "resid_post", "self_attn": "attn_out", "mlp": "mlp_out"}


def import_vector(obj: Any, model: Model, *, concept: str) -> SteeringVector:
    """Turn a vector of repeng or steering-vectors into one of a model.

    Args:
        obj: a `repeng.ControlVector` or a `steering_vectors.SteeringVector`.
        model: the model that it was trained on; nothing in the object says which weights these were.
        concept: what more of it means; the object does not say that either.

    Raises:
        ConfigError: an object of another kind.
        InterventionError: it acts where there is no such site, it does not fit the model, or a direction is no vector.
    """
    by_block: Any = getattr(obj, "directions", None)
    if isinstance(by_block, Mapping) and hasattr(obj, "model_type"):
        hint = str(obj.model_type)
        return declared(
            _at_sites("resid_post", by_block, model), model, concept=concept, method="repeng", model_hint=hint
        )
    by_block = getattr(obj, "layer_activations", None)
    if isinstance(by_block, Mapping) and hasattr(obj, "layer_type"):
        component = _component(str(obj.layer_type), model)
        return declared(_at_sites(component, by_block, model), model, concept=concept, method="steering-vectors")
    raise ConfigError(
        f"A {type(obj).__name__} is no vector of repeng (`directions`, `model_type`) nor of steering-vectors "
        "(`layer_activations`, `layer_type`). Build a SteeringVector from its tensors."
    )


def declared(
    directions: Mapping[Site, Tensor], model: Model, *, concept: str, method: str, model_hint: str = "", **about: str
) -> SteeringVector:
    """Make a vector of somebody else's directions, taking the caller's word that they belong to a model.

    Raises:
        InterventionError: they do not fit the model, or are no vectors.
    """
    family = model.facts.family
    if model_hint and not _same_family(model_hint, family):
        warnings.warn(
            f"This vector of {concept!r} says that it is for {model_hint!r}; {model.facts.name} is a {family}. "
            "Of equal width, it fits all the same: make sure that this is meant.",
            stacklevel=3,
        )
    provenance = {"imported": method, "model_hint": model_hint, "model": "as the caller declared", **about}
    vector = SteeringVector(directions, {}, concept, method, identity(model), provenance)
    vector.check(model)
    return vector


def _same_family(hint: str, family: str) -> bool:
    """Whether a name such as `gemma3_text` or `gemma3` means a class such as `Gemma3ForCausalLM`."""
    return hint.lower().removesuffix("_text").replace("_", "").replace("-", "") in family.lower()


def _component(layer_type: str, model: Model) -> str:
    if layer_type not in _MODULES:
        raise InterventionError(
            f"This vector acts at the output of {layer_type!r}, which is no site here. Expected one of "
            f"{', '.join(_MODULES)}: train it there."
        )
    if layer_type != "decoder_block" and model.facts.post_norms:
        raise InterventionError(
            f"This vector acts at the output of {layer_type!r}, and {model.facts.name} normalises that before it is "
            f"added: {_MODULES[layer_type]} is behind the norm, so the vector means another place. Train it on "
            "'decoder_block'."
        )
    return _MODULES[layer_type]


def _at_sites(component: str, by_block: Mapping[Any, Any], model: Model) -> dict[Site, Tensor]:
    n = model.facts.n_layers
    blocks = {int(k): _tensor(values).reshape(-1) for k, values in by_block.items()}
    if bad := [k for k in blocks if not -n <= k < n or (k < 0 and k + n in blocks)]:
        raise InterventionError(
            f"This vector has block {bad[0]} among {sorted(blocks)}; {model.facts.name} has blocks 0 to {n - 1}, each "
            "once. It was trained on another model: use that one."
        )
    return {Site(component, k % n): values for k, values in blocks.items()}


def _tensor(values: Any) -> Tensor:
    # A copy: repeng's arrays may be views of a file that cannot be written.
    return values if isinstance(values, Tensor) else torch.from_numpy(np.array(values))
