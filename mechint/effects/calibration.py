r"""Calibration and entropy of a model's predictions, clean and with one head mean-ablated along the direct path.

Over-confidence (McDougall et al. 2023, "Copy Suppression", appendix on calibration): the `TOP` likeliest tokens of
every position are predictions with probability p; in n equal bins, with p_i = (i + 1/2) / n and acc_i the share in bin
i that came true,

    overconfidence = sum_i f_i x_i / sum_i x_i²,       f_i = acc_i - p_i,   x_i = 1/2 - p_i

0 if calibrated, 1 if half of the predictions come true whatever their p, below 0 if under-confident. Two departures
from the authors' code: p = 1 belongs to the last bin (there, to none), and bins without a prediction are left out
(there, the sum is undefined). The *expected calibration error* is another number (Guo et al. 2017, "On Calibration of
Modern Neural Networks"): the likeliest token only, conf_i its mean probability in bin i,

    ECE = sum_i (n_i / N) |acc_i - conf_i|

Entropies, with DLA_h what h - mean(h) adds to the logits (see `head_outputs`) and lens_L the stream before the head's
block, read with the final norm's gain and its scale in the clean run:

    entropy_marginal    H(logits) - H(logits - DLA_h)         below 0: the head makes the model more certain
    entropy_difference  H(lens_L + DLA_h) - H(lens_L)         the same, before anything later has spoken

The control of each is a random direction in the place of h - mean(h), as long as that behind the final norm, where W_U
reads it (before it, a few dimensions hold most of the length and are divided by much). Means are over the same
documents, per position. Everything is summed per document, so that intervals can draw documents.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor

from mechint.effects.attribution import final_norm, head_outputs
from mechint.effects.documents import Documents
from mechint.effects.head_outputs import rows_of, to_logits
from mechint.effects.predictions import Predictions, predictions
from mechint.effects.sampling import random_directions
from mechint.model.base import Model
from mechint.sites import Site
from mechint.statistics.confidence import bin_index as bin_index
from mechint.statistics.confidence import expected_calibration_error as expected_calibration_error

TOP = 3
"""Predictions of one position that go into the over-confidence."""
CLEAN, HEAD, CONTROL = "clean", "head ablated", "random direction"
"""Which output is meant: the model's own, without a head, or without a random direction as long."""
BINNED, BINNED_FIRST, MARGINAL, DIFFERENCE = "top 3", "top 1", "entropy_marginal", "entropy_difference"
"""What a row counts: binned predictions (all three, or the likeliest), or the sum of an entropy change."""


def overconfidence(
    n: Float[np.ndarray, "*batch column"], correct: Float[np.ndarray, "*batch column"]
) -> Float[np.ndarray, "*batch"]:
    """Return the over-confidence of predictions in equal bins (last axis); NaN where no bin tells anything.

    Args:
        n: predictions in each bin.
        correct: how many of them came true.

    Examples:
        >>> n = np.full(10, 20.0)
        >>> float(overconfidence(n, n / 2).round(6)), float(overconfidence(n, n * (np.arange(10) + 0.5) / 10).round(6))
        (1.0, 0.0)
    """
    middle = (np.arange(n.shape[-1]) + 0.5) / n.shape[-1]
    filled = n > 0
    accuracy = np.divide(correct, n, out=np.zeros_like(correct), where=filled)
    off = 0.5 - middle
    below = (filled * off**2).sum(-1)
    above = (filled * (accuracy - middle) * off).sum(-1)
    return np.divide(above, below, out=np.full_like(below, np.nan), where=below > 0)


def calibration_sums(
    model: Model,
    documents: Documents,
    layer: int,
    means: Float[Tensor, "head pos d_model"],
    at: Int[Tensor, "batch at"],
    *,
    n_bins: int = 100,
    n_bins_first: int = 15,
    seed: int = 0,
) -> pd.DataFrame:
    """Ablate every head of a block along the direct path, and count what its predictions were worth.

    Args:
        model: the model.
        documents: few enough for one pass.
        layer: the block.
        means: mean output of its heads at every position (see `mean_outputs`).
        at: positions of each document to look at (see `sampling.destinations`); not the last, which has no next token.
        n_bins: bins of the over-confidence.
        n_bins_first: bins of the expected calibration error.
        seed: of the random directions.

    Returns:
        Rows with `id`, `layer`, `head`, `output` (which of `CLEAN`, `HEAD`, `CONTROL`; the clean one has head -1),
        `counted`, `bin` (-1 for entropies), `n` predictions or positions, `correct` of them (predictions), and
        `total`: the sum of their probabilities, or of the entropy change in nats. Bins without a prediction have none.
    """
    final, sites = final_norm(model), [Site("resid_pre", layer), Site("z", layer)]
    last = Site("resid_post", model.facts.n_layers - 1)
    run = model.run(rows_of(documents), read=[*sites, last])
    own = torch.arange(len(documents))[:, None]
    written, _ = head_outputs(model, layer, run[sites[1]][own, at])
    away = (written - means.transpose(0, 1)[at]).movedim(2, 0)
    before, after = run[sites[0]][own, at], run[last][own, at]
    changes = to_logits(model, away, after.expand_as(away))
    random = random_directions(changes.norm(dim=-1), changes.shape[-1], documents.ids, seed, layer)
    changes = torch.cat([changes, random]).flatten(1, 2)
    removed = predictions(model, final(after).flatten(0, 1), -changes, TOP)
    # The lens with the scale of the final stream: as a change of an empty stream, plus the final norm's bias.
    lens = to_logits(model, before, after) + (0 if final.bias is None else final.bias)
    added = predictions(model, lens.flatten(0, 1), changes, 1)
    truth = documents.tokens[own, at + 1]
    shape, names = (-1, *at.shape), _names(model.facts.n_heads)
    rows = _binned(removed, truth, names, documents.ids, n_bins, n_bins_first)
    marginal = (removed.entropy[:1] - removed.entropy[1:]).view(shape).sum(2)
    difference = (added.entropy[1:] - added.entropy[:1]).view(shape).sum(2)
    rows += [
        {"id": name, "output": output, "head": head, "counted": counted, "bin": -1, "n": at.shape[1], "correct": 0}
        | {"total": float(values[j, i])}
        for counted, values in ((MARGINAL, marginal), (DIFFERENCE, difference))
        for j, (output, head) in enumerate(names[1:])
        for i, name in enumerate(documents.ids)
    ]
    return pd.DataFrame(rows).assign(layer=layer)


def _names(n_heads: int) -> list[tuple[str, int]]:
    return [(CLEAN, -1), *((output, head) for output in (HEAD, CONTROL) for head in range(n_heads))]


def _binned(
    found: Predictions,
    truth: Int[Tensor, "batch at"],
    names: Sequence[tuple[str, int]],
    ids: Sequence[str],
    n_bins: int,
    n_bins_first: int,
) -> list[dict[str, Any]]:
    hits = (found.tokens == truth.flatten()[:, None]).view(len(names), *truth.shape, -1)
    chances = found.probabilities.view(hits.shape)
    rows: list[dict[str, Any]] = []
    for counted, bins, kept in ((BINNED, n_bins, hits.shape[-1]), (BINNED_FIRST, n_bins_first, 1)):
        for j, (output, head) in enumerate(names):
            for i, name in enumerate(ids):
                p, hit = chances[j, i, :, :kept].flatten().numpy(), hits[j, i, :, :kept].flatten().numpy()
                where = bin_index(p, bins)
                n, correct = np.bincount(where, minlength=bins), np.bincount(where, weights=hit, minlength=bins)
                total = np.bincount(where, weights=p, minlength=bins)
                rows += [
                    {"id": name, "output": output, "head": head, "counted": counted, "bin": int(b)}
                    | {"n": int(n[b]), "correct": int(correct[b]), "total": float(total[b])}
                    for b in np.flatnonzero(n)
                ]
    return rows
