"""Where a critique vector lies: how long, how many dimensions, how stable, and near which other directions (M8).

    length                |v| / median|h|
    participation ratio   (Σ v_j²)² / Σ v_j⁴           1: one dimension; the width: all alike
    share of the largest  Σ over the three largest j of v_j² / |v|²,  and the same of the mean of h_j²
    split-half cosine     cosine of v on two halves of the problems, mean, and the middle 95 % of 50 halvings (the
                          discriminant, which costs more: 5)
    slope on a number     b = Σ (z - mean z)(h - mean h) / Σ (z - mean z)²: what the mean difference is for two labels

A few dimensions of a residual stream may be larger than all others together (Sun et al. 2024, "Massive activations in
large language models"); a mean difference can follow them, so the discriminant, which is whitened, stands beside it.
Sign-balanced: half the mean over pairs whose wrong number is too large, half that over those where it is too small, so
that no habit of erring downwards is left in it.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from mechint.capture.activations import Activations
from mechint.errors import InterventionError, PromptError
from mechint.probes.critique.scores import blocks_of
from mechint.statistics import generator
from mechint.vectors.algebra import require_alike
from mechint.vectors.estimators.means import discriminant, mean_difference
from mechint.vectors.samples import Samples
from mechint.vectors.vector import SteeringVector

HALVINGS, LDA_HALVINGS, LARGEST = 50, 5, 3
Estimator = Callable[[Samples], Float[Tensor, " width"]]


def geometry(
    recorded: Activations,
    *,
    blocks: Mapping[str, str] | None = None,
    halvings: int = HALVINGS,
    seed: int = 0,
) -> pd.DataFrame:
    """Return the geometry of mean difference and discriminant of twins at every site.

    One row a site: site, layer; length (in medians of |h|; NaN where that is not known), participation,
    largest_share (of |v|²) and activations_largest_share (of the mean of h²); split_half with low and high;
    lda_split_half with lda_low and lda_high; cos_lda (of the two estimators); n, n_groups. Where twins do not differ
    there is no direction, and everything about one is NaN.

    Args:
        recorded: twins of at least two problems.
        blocks: from each problem to what no half cuts, where wrong literals were deranged within it.
        halvings: how often the problems are divided into halves at random.
        seed: of the halvings.

    Raises:
        PromptError: one side or one problem (or block) only, or a problem without a block.
    """
    rows: list[dict[str, object]] = []
    uncut = blocks_of(recorded.groups, blocks)
    for site in recorded.sites:
        samples = Samples.of(recorded, site)
        halves = _halves(samples.groups if uncut is None else uncut, halvings, seed)
        squares = (samples.x**2).mean(0)
        row: dict[str, object] = {"site": str(site), "layer": site.layer}
        v = mean_difference(samples)
        # What is left of a difference that cancels is rounding, which has no direction.
        moved = float(v.norm()) > 1e-9 * float(np.sqrt(squares.sum()))
        v = v if moved else torch.zeros_like(v)
        lda = discriminant(samples) if moved else v
        row["length"] = float(v.norm()) / recorded.norms.get(site, np.nan) if moved else np.nan
        row["participation"], row["largest_share"] = participation_ratio(v), _largest_share(v.numpy() ** 2)
        row["activations_largest_share"] = _largest_share(squares)
        for name, estimator, n in (("", mean_difference, halvings), ("lda_", discriminant, LDA_HALVINGS)):
            spread = _split_half(samples, halves[:n], estimator) if moved else (np.nan,) * 3
            row |= dict(zip((f"{name}split_half", f"{name}low", f"{name}high"), spread, strict=True))
        row["cos_lda"] = _cosine(v, lda)
        rows.append({**row, "n": len(samples), "n_groups": len(np.unique(samples.groups))})
    return pd.DataFrame(rows)


def participation_ratio(direction: Float[Tensor, " width"]) -> float:
    """Return over how many dimensions the squares of a direction are spread; NaN of zero.

    Examples:
        >>> participation_ratio(torch.tensor([2.0, 0.0, 0.0])), participation_ratio(torch.ones(3))
        (1.0, 3.0)
    """
    squares = direction.double() ** 2
    total = float(squares.sum())
    return total**2 / float((squares**2).sum()) if total > 0 else float("nan")


def cosines(vectors: Mapping[str, SteeringVector]) -> pd.DataFrame:
    """Return the cosine of every two vectors at every site: columns site, layer, one, other, cosine.

    Args:
        vectors: by name, such as v_R, v_S, v_A, and slopes; all at the same sites of one model.

    Raises:
        InterventionError: they are of different sites, weights or widths, or fewer than two.
    """
    if len(vectors) < 2:
        raise InterventionError(f"{len(vectors)} vectors have no angle between them. Give at least two.")
    rows: list[tuple[object, ...]] = []
    for one, other in combinations(vectors, 2):
        require_alike(vectors[one], vectors[other], "cosines")
        rows += [
            (str(site), site.layer, one, other, _cosine(vectors[one][site], vectors[other][site]))
            for site in vectors[one].sites
        ]
    return pd.DataFrame(rows, columns=["site", "layer", "one", "other", "cosine"])


def slope(recorded: Activations, numbers: Sequence[float], concept: str) -> SteeringVector:
    """Return the direction along which the true rows move with a number, by its unit: its digits' value, or a length.

    Args:
        recorded: twins; their true rows only are looked at.
        numbers: for each recorded row, such as the value of its result, or its tokens; of wrong rows it is ignored.
        concept: what larger numbers mean.

    Raises:
        PromptError: not one number a row, one that is not finite, or no two different ones of true rows.
        InterventionError: the rows do not move with it at some site.
    """
    if len(numbers) != len(recorded):
        raise PromptError(f"{len(numbers)} numbers of {len(recorded)} recorded rows. Give one for each row.")
    first = Samples.of(recorded, recorded.sites[0])
    z = np.asarray(numbers, float)[first.y == 0]
    if not np.isfinite(z).all() or np.ptp(z) == 0:
        raise PromptError(f"The numbers of the true rows lie between {z.min():g} and {z.max():g}. Give different ones.")
    centred = torch.from_numpy((z - z.mean()) / ((z - z.mean()) ** 2).sum())
    return _vector(recorded, lambda samples: centred @ (samples.negative - samples.negative.mean(0)), concept, "slope")


def sign_balanced(samples: Samples, deltas: Float[np.ndarray, " sample"]) -> Float[Tensor, " width"]:
    """Return half the mean difference of pairs with a positive, and half that of pairs with a negative delta.

    Args:
        samples: vectors of pairs.
        deltas: wrong minus true number of each vector's pair, in the order of the vectors.

    Raises:
        PromptError: not one delta a vector, two of one pair, one that is 0 or no number, or all of one sign.
    """
    if len(deltas) != len(samples):
        raise PromptError(f"{len(deltas)} deltas of {len(samples)} vectors. Give that of its pair for each.")
    first, second = (_by_pair(samples, deltas, label) for label in (1, 0))
    if not np.array_equal(first, second):
        raise PromptError("The two vectors of a pair have different deltas. Give wrong minus true number to both.")
    if not (np.abs(first) > 0).all() or abs(np.sign(first).sum()) == len(first):
        raise PromptError(
            f"{int((first > 0).sum())} deltas are above 0 and {int((first < 0).sum())} below, of {len(first)} pairs. "
            "Expected some of either sign and no other."
        )
    differences, high = samples.differences, torch.from_numpy(first > 0)
    return (differences[high].mean(0) + differences[~high].mean(0)) / 2


def sign_balanced_vector(recorded: Activations, deltas: Mapping[str, float], concept: str) -> SteeringVector:
    """Return the sign-balanced vector of twins at all their sites; deltas (wrong minus true number) by id of the pair.

    Raises:
        PromptError: a pair has no delta, or as in `sign_balanced`.
        InterventionError: the twins do not differ at some site.
    """
    if missing := [one for one in recorded.ids if one not in deltas]:
        raise PromptError(f"{len(set(missing))} pairs have no delta (first: {missing[0]!r}). Give one for each.")
    own = np.array([deltas[one] for one in recorded.ids], float)
    return _vector(recorded, lambda samples: sign_balanced(samples, own), concept, "sign_balanced")


def _vector(recorded: Activations, estimator: Estimator, concept: str, method: str) -> SteeringVector:
    return SteeringVector(
        {site: estimator(Samples.of(recorded.first_position, site)).float() for site in recorded.sites},
        recorded.norms,
        concept,
        method,
        recorded.model,
        {"data": dict(recorded.data), "groups": sorted(set(recorded.groups)), "at": recorded.at},
    )


def _by_pair(samples: Samples, values: np.ndarray, label: int) -> np.ndarray:
    """Return the values of one side in the order of the pairs, as `Samples.differences` has them."""
    side = np.flatnonzero(samples.y == label)
    return values[side[np.argsort(samples.pairs[side])]]


def _halves(whole: np.ndarray, n: int, seed: int) -> list[np.ndarray]:
    """Mark the rows of a random half of what is kept whole, problems or blocks, n times."""
    names, owner = np.unique(whole, return_inverse=True)
    if len(names) < 2:
        raise PromptError(
            f"The rows of {len(names)} problem, or block, cannot be halved. Record twins of two at least."
        )
    rng = generator(seed, "halves")
    return [(rng.permutation(len(names)) < len(names) // 2)[owner] for _ in range(n)]


def _split_half(samples: Samples, halves: Sequence[np.ndarray], estimator: Estimator) -> tuple[float, float, float]:
    found = [_cosine(estimator(samples.pick(half)), estimator(samples.pick(~half))) for half in halves]
    low, high = np.quantile(found, [0.025, 0.975])
    return float(np.mean(found)), float(low), float(high)


def _cosine(one: Float[Tensor, " width"], other: Float[Tensor, " width"]) -> float:
    lengths = float(one.double().norm() * other.double().norm())
    return float(one.double() @ other.double()) / lengths if lengths > 0 else float("nan")


def _largest_share(squares: np.ndarray) -> float:
    total = float(squares.sum())
    return float(np.sort(squares)[-LARGEST:].sum()) / total if total > 0 else float("nan")
