"""What is left to chance in measurements on documents, each drawn by name: positions, directions, another head.

What a document gets depends on its id alone, so that neither order nor batching nor company changes it.
"""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from mechint.effects.documents import Documents
from mechint.errors import ConfigError
from mechint.model.model_facts import ModelFacts
from mechint.statistics import generator


def destinations(documents: Documents, count: int | None = None, seed: int = 0) -> Int[Tensor, "batch at"]:
    """Choose positions that have a next token, in rising order; position 0 is left out.

    Args:
        documents: the documents.
        count: how many of each document; all by default, or if there are no more. A document's positions do not
            depend on which others there are.
        seed: of the choice.

    Raises:
        ConfigError: a count below 1.

    Examples:
        >>> destinations(Documents(("a",), ("a",), torch.tensor([[0, 5, 6, 7]]))).tolist()
        [[1, 2]]
    """
    if count is not None and count < 1:
        raise ConfigError(f"{count} positions a document were asked for. Give at least 1, or None for all.")
    places = np.arange(1, documents.length - 1)
    if count is None or count >= len(places):
        return torch.from_numpy(np.tile(places, (len(documents), 1)))
    drawn = [generator(seed, "destinations", name).choice(places, count, replace=False) for name in documents.ids]
    return torch.from_numpy(np.sort(np.stack(drawn), 1))


def random_directions(
    lengths: Float[Tensor, "change batch at"], d_model: int, ids: Sequence[str], seed: int, *labels: object
) -> Float[Tensor, "change batch at d_model"]:
    """Draw vectors of given lengths in directions that are uniform on the sphere.

    Args:
        lengths: their Euclidean norms.
        d_model: their width.
        ids: of the documents.
        seed: of the draw.
        labels: what else names it, such as a layer.
    """
    shape = (len(lengths), lengths.shape[2], d_model)
    drawn = [generator(seed, "direction", name, *labels).standard_normal(shape, dtype=np.float32) for name in ids]
    random = torch.from_numpy(np.stack(drawn, 1)).to(lengths.dtype)
    return random * (lengths[..., None] / random.norm(dim=-1, keepdim=True))


def another_head(facts: ModelFacts, layer: int, head: int, seed: int = 0) -> tuple[int, int] | None:
    """Draw another head of the same layer, as a control; None if there is no other."""
    others = [other for other in range(facts.n_heads) if other != head]
    return (layer, int(generator(seed, "another head", layer, head).choice(others))) if others else None
