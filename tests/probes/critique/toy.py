"""Twins of random tokens, and recordings of twins in which the direction is known."""

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from mechint.capture.activations import Activations
from mechint.prompts.reasoning import TokenTwins
from mechint.sites import Site
from tests.vectors.planted import MODEL

SITES = (Site.parse("embed"), Site.parse("L0.resid_post"), Site.parse("L1.resid_post"))
WIDTH = 12


def token_twins(n: int = 12, *, seed: int = 0, vocabulary: int = 50, a_problem: int = 2) -> TokenTwins:
    """Rows of different lengths, each with a result of two tokens, words behind it, and one stub for all."""
    rng = np.random.default_rng(seed)
    true, wrong, result = [], [], []
    for _ in range(n):
        body = rng.integers(10, vocabulary, size=rng.integers(6, 14)).tolist()
        at = int(rng.integers(4, len(body) - 1))
        row = [0, *body, 4, 5, 6]
        other = list(row)
        other[at - 1 : at + 1] = [10 + (token - 9) % (vocabulary - 10) for token in row[at - 1 : at + 1]]
        true.append(tuple(row))
        wrong.append(tuple(other))
        result.append(at)
    stub = tuple(tuple(range(len(row) - 3, len(row))) for row in true)
    ids = tuple(f"pair-{seed}-{i}" for i in range(n))
    groups = tuple(f"problem-{seed}-{i // a_problem}" for i in range(n))
    return TokenTwins("toy", ids, groups, tuple(true), tuple(wrong), tuple(result), stub)


def recorded(
    n: int, deltas: dict[Site, Tensor], *, seed: int = 0, common: float = 0.0, a_problem: int = 1, noise: float = 1.0
) -> Activations:
    """n pairs of N(mean ± delta/2, noise² I) at each site; `common` is how far the means of problems are apart."""
    rng = np.random.default_rng(seed)
    problems = [i // a_problem for i in range(n)]
    values: dict[Site, Tensor] = {}
    for site, delta in deltas.items():
        mean = 5.0 + common * torch.from_numpy(rng.standard_normal((n, len(delta))))[problems]
        rest = noise * torch.from_numpy(rng.standard_normal((2, n, len(delta))))
        values[site] = torch.cat([mean + delta / 2 + rest[0], mean - delta / 2 + rest[1]]).float()[:, None]
    ids = tuple(f"pair-{seed}-{i}" for i in range(n)) * 2
    groups = tuple(f"problem-{seed}-{i}" for i in problems) * 2
    labels = (1,) * n + (0,) * n
    norms = dict.fromkeys(deltas, 20.0)
    return Activations(values, ids, groups, labels, ids, None, "result", norms, MODEL, {"name": "toy", "hash": "0"})


def tied(given: Activations) -> Activations:
    """The same, but both of a pair have the vector of the first, to the last bit."""
    n = len(given) // 2
    return replace(given, values={site: torch.cat([x[:n], x[:n]]) for site, x in given.values.items()})
