"""Directions that a critique vector on an organism is compared with: what the verdict reads, and its own gradient."""

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from mechint.model.base import Model
from mechint.probes.critique.measures import on_side
from mechint.probes.critique.organism_measures import margin, verdict_tokens
from mechint.prompts.reasoning import TokenTwins
from mechint.steering.parts import add
from mechint.vectors.vector import SteeringVector

_NUDGE = 0.05
"""Of |v|: the step of the finite differences."""


def with_direction(vector: SteeringVector, direction: Float[Tensor, " width"]) -> SteeringVector:
    """Return a vector of one site with another direction."""
    return replace(vector, directions={vector.sites[0]: direction.float()}, provenance={}, calibration=None)


def said_by(model: Model) -> Float[Tensor, " d_model"]:
    """Return the direction of the stream that the logit of X less that of K reads, through the final norm."""
    x, k = model.unembedding(torch.tensor(verdict_tokens(model)))
    norm = model.norm("final")
    return x - k if norm is None else norm.centre(norm.gain * (x - k))


def gradient(model: Model, vector: SteeringVector, twins: TokenTwins) -> Float[Tensor, " width"]:
    """Return the gradient of the mean margin of wrong rows by what is added everywhere, by central differences."""
    step = _NUDGE * float(vector[vector.sites[0]].norm())
    slopes: list[float] = []
    for axis in torch.eye(len(vector[vector.sites[0]]), dtype=torch.float64):
        ends: list[float] = []
        for sign in (1, -1):
            with model.apply(add(with_direction(vector, axis), sign * step, unit="raw")):
                ends.append(float(on_side(margin(model), model, twins, wrong=True).mean()))
        slopes.append((ends[0] - ends[1]) / (2 * step))
    return torch.tensor(slopes, dtype=torch.float64)
