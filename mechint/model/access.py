"""One run's reads and writes: resolved against its batch before the run, accounted for after it.

A run that goes on from a past sees the columns from `start` on; positions are resolved against the whole rows all the
same, so a key/value cache cannot change what they select.

Everything that can be wrong is found before the model is run: sites that it has not or that this run does not reach,
positions that select nothing. What is left can only be found by running, and raises too.
"""

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch import Tensor

from mechint.errors import InterventionError, NeverFiredError, PositionError, SiteError
from mechint.interventions import Intervention
from mechint.model.base import Fired, Logits, Read, Restart, Write
from mechint.model.model_facts import ModelFacts
from mechint.model.trimming import common_places
from mechint.positions import Positions, TokenBatch, everywhere
from mechint.sites import Site


class Stopped(Exception):  # noqa: N818  (not an error: the way out of a forward pass that is not needed further)
    """Raised at `stop_after`, to leave the forward pass."""


class Access:
    """One run's reads and writes, resolved against its batch, and what came of them."""

    def __init__(
        self,
        facts: ModelFacts,
        read: Read,
        write: Write,
        batch: TokenBatch,
        from_: Restart | None,
        last: Site | None,
        start: int = 0,
    ) -> None:
        self._facts, self._batch, self._start = facts, batch, start
        self._offset = batch.offset[:, start:]
        places = dict(read) if isinstance(read, Mapping) else dict.fromkeys(read, everywhere)
        self._read = {facts.check(site): self.index(at) for site, at in places.items()}
        self._last = last
        self._writes: list[tuple[Site, Intervention, Tensor]] = []
        for text, given in write.items():
            site = facts.check(text)
            if site.component in facts.read_only:
                instead = "z" if site.component == "pattern" else "attn_out"
                raise SiteError(f"{site} can be read, not written. Write L{site.layer}.{instead} instead.")
            if not isinstance(given, Intervention) and len(given) == 0:
                raise NeverFiredError(f"No intervention is given at {site}, so nothing would be done there.")
            for intervention in [given] if isinstance(given, Intervention) else given:
                self._writes.append((site, intervention, self._mask(site, intervention)))
        _check_reach([*self._read, *(site for site, _, _ in self._writes)], facts, batch, from_, last)
        self.activations: dict[Site, Tensor] = {}
        self._fired: dict[int, Fired] = {}

    def index(self, at: Positions) -> Tensor | None:
        """Return the columns `[batch, at]` of this pass that are meant, or None for all of them.

        Raises:
            PositionError: some were read in an earlier pass.
        """
        if at is everywhere:
            return None
        index = at.index(self._batch) - self._start
        if int(index.min()) < 0:
            raise PositionError(
                f"{at} selects tokens among the first {self._start} columns, which an earlier pass has read. "
                "Ask for them in that pass."
            )
        return index

    def _mask(self, site: Site, intervention: Intervention) -> Tensor:
        mask = intervention.where.mask(self._batch)[:, self._start :]
        if not bool(mask.any()):
            raise NeverFiredError(
                f"{intervention.name} at {site} on {intervention.where} selects no token of this batch "
                f"({len(mask)} rows of up to {int(self._batch.lengths.max())} tokens), so it would do nothing."
            )
        return mask

    def last_mlp_places(self, logits: Logits | None) -> Tensor | None:
        """Return where alone the last block's MLP is needed, or None if it is needed everywhere."""
        layer = self._facts.n_layers - 1
        after = [Site("mlp_post", layer), Site("mlp_out", layer), Site("resid_post", layer), Site("final_norm")]
        if any(site.whole in after for site, _, _ in self._writes) or after[0] in self._read:
            return None
        indices = [index for site, index in self._read.items() if site in after]
        if logits is not None:
            indices.append(self.index(logits.at))
        return common_places(indices)

    def visits(self) -> Iterator[tuple[str, Callable[[Tensor], Tensor | None]]]:
        """List the hook points to visit, and what to do there."""
        sites = {*self._read, *(site for site, _, _ in self._writes), *([] if self._last is None else [self._last])}
        for name in sorted({site.transformer_lens_name for site in sites}):
            yield name, functools.partial(self._visit, name)

    def _visit(self, name: str, activation: Tensor) -> Tensor | None:
        writes = [(i, w) for i, w in enumerate(self._writes) if w[0].transformer_lens_name == name]
        new = activation
        if writes:
            # The position embedding of a batch is one row, shared; to write it, give every row its own.
            new = activation.expand(len(self._batch.ids), *activation.shape[1:]).clone()
        for i, (site, intervention, mask) in writes:
            self._fired[i] = _rewrite(new, site, intervention, mask, self._offset)
        for site, index in self._read.items():
            if site.transformer_lens_name == name:
                self.activations[site] = self._collect(site, new, index)
        if self._last is not None and self._last.transformer_lens_name == name:
            raise Stopped
        return new if writes else None

    def _collect(self, site: Site, activation: Tensor, index: Tensor | None) -> Tensor:
        value = activation if site.head is None else activation.select(site.head_axis, site.head)
        value = value.expand(len(self._batch.ids), *value.shape[1:])
        if index is None:
            return value.clone()
        axis = _position_axis(site)
        return take(value.movedim(axis, 1), index).movedim(1, axis)

    def require_all_fired(self) -> None:
        """Raise unless every intervention acted and every site was met.

        Raises:
            NeverFiredError: one was not.
        """
        for i, (site, intervention, _) in enumerate(self._writes):
            if i not in self._fired:
                raise NeverFiredError(f"{intervention.name} at {site} never fired: the model did not pass this place.")
        for site in self._read:
            if site not in self.activations:
                raise SiteError(f"{site} was never met: this architecture does not pass it.")

    def receipt(self) -> tuple[Fired, ...]:
        """Return what fired, in forward order."""
        order = sorted(self._fired, key=lambda i: (self._writes[i][0], i))
        return tuple(self._fired[i] for i in order)


def _check_reach(
    sites: Sequence[Site], facts: ModelFacts, batch: TokenBatch, from_: Restart | None, last: Site | None
) -> None:
    if from_ is not None:
        facts.check(Site("resid_pre", from_.layer))
        if from_.resid_pre.shape != (*batch.ids.shape, facts.d_model):
            raise PositionError(
                f"The residual stream to restart from has shape {list(from_.resid_pre.shape)}; this batch needs "
                f"{[*batch.ids.shape, facts.d_model]}."
            )
        if last is not None and last < Site("resid_pre", from_.layer):
            raise SiteError(f"This run starts at L{from_.layer}.resid_pre, after {last}, where it should stop.")
    for site in sites:
        if from_ is not None and site < Site("resid_pre", from_.layer):
            raise SiteError(f"{site} lies before L{from_.layer}.resid_pre, where this run starts.")
        if last is not None and site.whole > last.whole:
            raise SiteError(f"{site} lies after {last}, where this run stops.")


def _rewrite(new: Tensor, site: Site, intervention: Intervention, mask: Tensor, offset: Tensor) -> Fired:
    """Rewrite the selected tokens of `new` in place, and say what was done."""
    view = new if site.head is None else new.select(site.head_axis, site.head)
    axis = _position_axis(site)
    old = view.clone()
    # Where a position may not look, its score is a huge negative number, and stays so whatever is written.
    hidden = old <= torch.finfo(old.dtype).min / 2 if site.component == "scores" else None
    if hidden is not None:
        old = old.masked_fill(hidden, 0.0)
    rewritten = intervention(old, offset)
    if hidden is not None:
        rewritten = rewritten.masked_fill(hidden, 0.0)
    written = rewritten.movedim(axis, 1)[mask].flatten(1)
    if not bool(torch.isfinite(written).all()):
        raise InterventionError(f"{intervention.name} at {site} made NaN or infinity. Nothing was computed from it.")
    chosen = mask.view(len(mask), *[1] * (axis - 1), -1, *[1] * (view.ndim - axis - 1))
    result = torch.where(chosen, rewritten, old)
    view.copy_(result if hidden is None else torch.where(hidden, view, result))
    before = old.movedim(axis, 1)[mask].flatten(1)
    relative = ((written - before).norm(dim=-1) / before.norm(dim=-1)).nan_to_num(0.0, posinf=0.0).mean()
    return Fired(str(site), intervention.name, int(mask.sum()), float(relative))


def _position_axis(site: Site) -> int:
    """Which axis counts positions once one head is picked (if the site names one)."""
    return site.position_axis - (site.head is not None and site.head_axis < site.position_axis)


def take(values: Tensor, index: Tensor) -> Tensor:
    """Pick columns of [batch, pos, ...] by [batch, at]."""
    return values[torch.arange(len(values))[:, None], index]
