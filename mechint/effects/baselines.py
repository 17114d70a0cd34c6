"""What an ablated component is set to: zero, its mean, or its value on another prompt.

zero      0
mean      the mean over prompts at the same position of the text (Welford-free: sums in float64, streamed);
          a position that fewer than two prompts reach takes the mean over all positions but the first instead,
          since the mean over one prompt is that prompt's own value, and would change nothing
resample  the value at the same position of another prompt of the same length: the given counterfactual, or a
          derangement (no prompt is resampled from itself)
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from mechint import interventions
from mechint.effects.layout import chunks
from mechint.errors import InterventionError
from mechint.interventions import Intervention
from mechint.model.base import Model
from mechint.positions import Positions, TokenBatch
from mechint.sites import Site


@dataclass(frozen=True)
class Baseline:
    """Values to set components to. This one: zero."""

    name: str = "zero"
    shares_prefixes: bool = True
    """The same for every prompt that begins alike, so that equal prefixes need one pass only."""
    note: str = "ablated components are set to zero"
    values: dict[Site, Tensor] = field(default_factory=dict[Site, Tensor], repr=False)
    """By site with all its heads: [pos, ...] for means, [batch, pos, ...] for resampled values."""

    def intervention(self, site: Site, copies: int, where: Positions) -> Intervention:
        """Return the rewrite of a site, in a batch of `copies` copies of the prompts."""
        if self.name == "zero":
            return interventions.zero(where)
        value = self.values[site.whole]
        if site.head is not None:
            value = value.select(-2, site.head)
        if self.name == "mean":
            return interventions.mean(value, where)
        return interventions.resample(value.repeat(copies, *[1] * (value.ndim - 1)), where)


def mean_baseline(model: Model, rows: Sequence[Sequence[int]], sites: Sequence[Site]) -> Baseline:
    """Take the means of sites over prompts, in one pass whose memory does not grow with their number.

    Args:
        model: the model.
        rows: every prompt as token ids.
        sites: whole sites (all heads).
    """
    length = max(map(len, rows))
    counts = torch.zeros(length, dtype=torch.float64)
    sums: dict[Site, Tensor] = {}
    for piece in chunks(rows, budget=1024):
        batch = TokenBatch.from_rows([rows[i] for i in piece])
        run = model.run(batch, read=list(sites))
        width = batch.ids.shape[1]
        counts[:width] += batch.real.sum(0)
        for site in sites:
            values = run[site].double() * batch.real.view(*batch.real.shape, *[1] * (run[site].ndim - 2))
            total = sums.setdefault(site, torch.zeros(length, *values.shape[2:], dtype=torch.float64))
            total[:width] += values.sum(0)
    sparse = counts < 2
    means: dict[Site, Tensor] = {}
    for site, total in sums.items():
        shape = (-1, *[1] * (total.ndim - 1))
        pooled = total[1:].sum(0) / counts[1:].sum() if length > 1 else total[0] / counts[0]
        means[site] = torch.where(sparse.view(shape), pooled, total / counts.view(shape)).float()
    dense = counts[~sparse]
    note = f"ablated components are set to their mean at the same position over {len(rows)} prompts"
    if len(dense):
        note += f" (at least {int(dense.min())} prompts a position)"
    if bool(sparse.any()):
        note += f"; {int(sparse.sum())} positions that one prompt alone reaches take the mean over all positions"
    return Baseline("mean", True, note, means)


def resample_baseline(
    model: Model, rows: Sequence[Sequence[int]], sources: Sequence[Sequence[int]], sites: Sequence[Site]
) -> Baseline:
    """Record sites on other prompts, row by row.

    Args:
        model: the model.
        rows: the prompts of one batch.
        sources: for each of them the prompt whose values it gets, of the same length.
        sites: whole sites (all heads).

    Raises:
        InterventionError: a source of another length.
    """
    for i, (row, source) in enumerate(zip(rows, sources, strict=True)):
        if len(row) != len(source):
            raise InterventionError(
                f"Prompt {i} has {len(row)} tokens, and the prompt to resample it from {len(source)}. Expected equal "
                "lengths: give counterfactuals token for token, or ablate to zero or to the mean."
            )
    run = model.run(TokenBatch.from_rows(sources), read=list(sites))
    note = "ablated components are set to their value on another prompt of the same length"
    return Baseline("resample", False, note, {site: run[site] for site in sites})


def resample_sources(
    rows: Sequence[Sequence[int]], counterfactuals: Sequence[Sequence[int] | None], generator: torch.Generator
) -> list[Sequence[int]]:
    """Choose for every prompt what to resample it from: its counterfactual, or else another prompt as long as it is.

    Raises:
        InterventionError: a prompt without counterfactual that has no other prompt of its length.
    """
    sources = list(counterfactuals)
    by_length: dict[int, list[int]] = {}
    for i, row in enumerate(rows):
        if sources[i] is None:
            by_length.setdefault(len(row), []).append(i)
    for length, members in by_length.items():
        if len(members) < 2:
            raise InterventionError(
                f"Prompt {members[0]} has no counterfactual and is the only one of {length} tokens, so there is "
                "nothing to resample it from. Give a counterfactual, or ablate to zero or to the mean."
            )
        for i, j in zip(members, interventions.derangement(len(members), generator).tolist(), strict=True):
            sources[i] = rows[members[j]]
    return [source for source in sources if source is not None]
