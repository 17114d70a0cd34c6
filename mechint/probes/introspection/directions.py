"""Directions of concepts, and those that they are held against.

    concept   mean of h over texts of the concept, minus the mean over concepts ("concepts") or over words that are none
              ("fillers"); unit length
    random    g / ‖g‖, g ~ N(0, I), its own for every concept and carrier
    mixture   Σ_k g_k u_k at unit length, g ~ N(0, 1): as random as it can be within the span of the concepts
    minus     -u

The mean over concepts takes what all of them share away, so that what is left tells one from another (Singh et al.
2026); the mean over fillers keeps it (Lindsey 2025).
"""

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from mechint.errors import InterventionError
from mechint.model.base import Model
from mechint.positions import columns
from mechint.prompts.introspection import Example, Material
from mechint.sites import Site
from mechint.statistics import generator

Baseline = Literal["concepts", "fillers"]
_ROWS = 64


def concept_directions(
    model: Model, material: Material, site: Site, concepts: Sequence[str], baseline: Baseline = "concepts"
) -> Float[Tensor, "concept width"]:
    """Return the unit direction of each concept at a site.

    Raises:
        InterventionError: a concept whose direction is zero.
    """
    means = torch.stack([_stream(model, site, material.examples(concept)).mean(0) for concept in concepts])
    centre = means.mean(0) if baseline == "concepts" else _stream(model, site, material.fillers()).mean(0)
    apart = means - centre
    length = apart.norm(dim=1, keepdim=True)
    if not bool((length > 0).all()):
        raise InterventionError(f"A concept among {concepts} has no direction at {site}: its texts look like the rest.")
    return apart / length


def random_direction(width: int, seed: int, *labels: object) -> Float[Tensor, " width"]:
    """Return an isotropic direction of unit length that belongs to these labels."""
    drawn = torch.from_numpy(generator(seed, "introspection", "random", *labels).standard_normal(width)).float()
    return drawn / drawn.norm()


def mixture(units: Float[Tensor, "concept width"], seed: int, *labels: object) -> Float[Tensor, " width"]:
    """Return a random direction within the span of concepts, of unit length."""
    drawn = torch.from_numpy(generator(seed, "introspection", "mixture", *labels).standard_normal(len(units))).float()
    mixed = drawn @ units
    return mixed / mixed.norm()


def _stream(model: Model, site: Site, examples: Sequence[Example]) -> Float[Tensor, "sample width"]:
    by_length: dict[int, list[int]] = {}
    for i, example in enumerate(examples):
        by_length.setdefault(len(example.tokens), []).append(i)
    found: dict[int, Tensor] = {}
    for members in by_length.values():
        for start in range(0, len(members), _ROWS):
            some = members[start : start + _ROWS]
            at = columns(torch.tensor([[examples[i].at] for i in some]))
            run = model.run([examples[i].tokens for i in some], read={site: at}, stop_after=site)
            found |= zip(some, run[site][:, 0], strict=True)
    return torch.stack([found[i] for i in range(len(examples))])
