"""How components are ablated in documents, and at which positions it is looked at what that does.

Ablation is at all positions of a document, as it is on prompts (see `baselines`): to zero, to the mean over all
documents at the same position, or to the value at the same position of another document. Several draws give each
document several others, no two of them the same, so that what is chosen under one draw can be measured under another.
"""

import functools
from collections.abc import Sequence

import torch
from jaxtyping import Int
from torch import Tensor

from mechint.effects.ablation import Component, baseline_sites
from mechint.effects.baselines import Baseline, mean_baseline, resample_baseline
from mechint.effects.documents import Documents
from mechint.effects.kinds import require_kind
from mechint.errors import InterventionError
from mechint.model.base import Model
from mechint.statistics import generator


def resample_order(n: int, draws: int, seed: int = 0) -> Int[Tensor, "resample batch"]:
    """Return, for each draw, from which document each document is resampled: never itself, never the same one twice.

    The documents are put into one random order, and draw k takes the (k + 1)-th that follows.

    Raises:
        InterventionError: too few documents for so many draws.

    Examples:
        >>> resample_order(3, 2).tolist() in ([[1, 2, 0], [2, 0, 1]], [[2, 0, 1], [1, 2, 0]])
        True
    """
    if draws >= n:
        raise InterventionError(
            f"{draws} draws from other documents need at least {draws + 1} documents; there are {n}. Give more texts."
        )
    order = torch.from_numpy(generator(seed, "resample").permutation(n))
    sources = torch.empty(draws, n, dtype=torch.long)
    for draw in range(draws):
        sources[draw, order] = order.roll(-(draw + 1))
    return sources


class TextAblation:
    """What components are set to in documents: zero, their mean, or their value in other documents.

    All at the same position of the text; means are over all documents.

    Args:
        model: the model.
        documents: all documents.
        components: what will be ablated.
        ablation: `zero`, `mean` or `resample`.
        draws: how many other documents each document is resampled from.
        seed: of the draws.

    Raises:
        ConfigError: an unknown ablation.
        InterventionError: resampling, and there are fewer than `draws` + 1 documents.
    """

    def __init__(
        self,
        model: Model,
        documents: Documents,
        components: Sequence[Component],
        ablation: str,
        *,
        draws: int = 1,
        seed: int = 0,
    ) -> None:
        require_kind(ablation)
        self._model, self._sites, self._kind = model, baseline_sites(components), ablation
        self._rows: list[list[int]] = documents.tokens.tolist()
        self._sources = resample_order(len(documents), draws, seed) if ablation == "resample" else None

    @functools.cached_property
    def _mean(self) -> Baseline:
        return mean_baseline(self._model, self._rows, self._sites)

    def baselines(self, which: Sequence[int]) -> list[Baseline]:
        """Return what to set components to in some of the documents: a baseline for each draw, or the only one."""
        if self._sources is None:
            return [self._mean if self._kind == "mean" else Baseline()]
        chosen = [self._rows[i] for i in which]
        return [
            resample_baseline(self._model, chosen, [self._rows[int(order[i])] for i in which], self._sites)
            for order in self._sources
        ]
