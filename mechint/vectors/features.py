"""The direction that a feature of a sparse autoencoder writes, as a steering vector.

    v = W_dec[i] / |W_dec[i]|

(Bricken et al. 2023, "Towards Monosemanticity"; Templeton et al. 2024 for steering with it.)
"""

from typing import Any

from mechint.capture.activations import Activations, identity
from mechint.capture.sae import SparseAutoencoder
from mechint.model.base import Model
from mechint.vectors.vector import SteeringVector


def sae_feature(
    sae: Any,
    index: int,
    model: Model | None = None,
    *,
    concept: str | None = None,
    reference: Activations | None = None,
) -> SteeringVector:
    """Return what a feature writes, at the place that the metadata of its SAE name.

    Args:
        sae: a SAELens object.
        index: of the feature.
        model: to be steered; it is checked that it has the place. None: checked when the vector is used.
        concept: what the feature stands for; its number by default.
        reference: recorded activations at that place, whose median |h| becomes the unit of dose.

    Raises:
        ConfigError: no SAELens object, or no such feature.
        SiteError: the hook of the SAE is not in the model, or not in `reference`.
    """
    read = SparseAutoencoder.of(sae, model)
    norms = {}
    if reference is not None:
        _ = reference[read.site]
        norms = {read.site: reference.norms[read.site]} if read.site in reference.norms else {}
    return SteeringVector(
        {read.site: read.feature(index)},
        norms,
        concept or f"SAE feature {index}",
        "sae_feature",
        {"name": read.model_name} if model is None else identity(model),
        {"feature": index, "sae_model": read.model_name, "neuronpedia_id": read.neuronpedia_id},
    )
