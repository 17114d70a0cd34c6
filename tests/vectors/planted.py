"""Recorded activations in which the direction is known."""

import numpy as np
import torch
from torch import Tensor

from mechint.capture.activations import Activations
from mechint.sites import Site

SITE = Site.parse("L1.resid_post")
MODEL = {"name": "planted", "weights": "0", "d_model": "24"}


def cosine(a: Tensor, b: Tensor) -> float:
    return float(torch.cosine_similarity(a.double(), b.double(), dim=0))


def activations(
    positive: Tensor, negative: Tensor, *, first: int = 0, texts: tuple[str, ...] | None = None, paired: bool = True
) -> Activations:
    """Wrap two matrices as recorded pairs, numbered from `first`."""
    n, m = len(positive), len(negative)
    ids = (
        [f"pair-{first + i}" for i in range(n)] * 2
        if paired
        else [f"positive-{i}" for i in range(n)] + [f"negative-{i}" for i in range(m)]
    )
    values = torch.cat([positive, negative]).float()[:, None]
    return Activations(
        values={SITE: values},
        ids=tuple(ids),
        groups=tuple(ids),
        labels=(1,) * n + (0,) * m,
        texts=texts or tuple(f"text {first + i}" for i in range(n)) * 2,
        offsets=torch.zeros(n + m, 1, dtype=torch.long),
        at="prompt(-1)",
        norms={SITE: 10.0},
        model=MODEL,
        data={"name": "planted", "hash": "0"},
    )


def planted(
    n: int, delta: Tensor, *, seed: int = 0, mix: Tensor | None = None, first: int = 0, common: float = 0.0
) -> Activations:
    """n pairs of N(mean ± delta/2, mix mix^T), far from the origin; `common` is what the two of a pair share."""
    rng = np.random.default_rng(seed)
    width = len(delta)
    mix = torch.eye(width, dtype=torch.double) if mix is None else mix
    noise = torch.from_numpy(rng.standard_normal((2, n, width))) @ mix.T
    shared = 100.0 + common * torch.from_numpy(rng.standard_normal((n, width)))
    return activations(shared + delta / 2 + noise[0], shared - delta / 2 + noise[1], first=first)


def direction(width: int, length: float, seed: int = 1) -> Tensor:
    drawn = torch.from_numpy(np.random.default_rng(seed).standard_normal(width))
    return length * drawn / drawn.norm()
