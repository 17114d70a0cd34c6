r"""Path patching: how much of a component's effect travels along one path, and not along the others.

A *sender* (heads, MLPs, blocks, the embedding) takes the value that it has on a counterfactual prompt, and only what
reaches a *receiver* directly is let through:

    1  clean run, and counterfactual run: what everything writes on either
    2  clean run in which the sender writes its counterfactual value and attention in every other block writes what it
       wrote in the clean run; MLPs answer to the change (`freeze_mlps=False`) or are held as well. The receiver's value
       is read: queries, keys or values of heads, the residual stream, or the output of the final norm
    3  clean run in which the receiver has that value; everything after it is free. Effect = metric - clean metric

where the metric is the logit of one token, or the difference of two, at the last position, before a final soft-cap.
Wang et al. 2022, "Interpretability in the Wild", section 3.1; Goldowsky-Dill et al. 2023, "Localizing Model Behavior
with Path Patching".

What is held is the attention output as it enters the stream, post-norm applied: the same as holding every head there,
since equal heads have equal scales. In the sender's own block all other heads keep their z; behind a post-norm the
whole output of the block is then computed anew, so the scale, and with it the other heads' terms, move with the sender.
Keys and values are shared by the query heads of a group: a path through them reaches all of these (`reached`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mechint import interventions, positions
from mechint.effects.ablation import all_heads
from mechint.effects.path_ends import (
    EMBEDDING,
    LOGITS,
    Sender,
    first_layer,
    heads_reached,
    label_of,
    read_receivers,
    read_senders,
    sites_of,
)
from mechint.errors import InterventionError, NeverFiredError
from mechint.interventions import Intervention
from mechint.model.base import Fired, Model, Restart, Run
from mechint.positions import Positions, TokenBatch, everywhere
from mechint.sites import Site

_TOKENS_A_PASS = 1024


@dataclass(frozen=True)
class PathEffects:
    """The metric with one path patched, one row for each sender; in logits before a soft-cap."""

    senders: tuple[str, ...]
    """One label a row; senders that were patched together are joined by `+`."""
    receivers: tuple[Site, ...]
    reached: tuple[str, ...]
    """Query heads whose input was patched: for keys and values, every head that shares them."""
    clean: Float[Tensor, " prompt"]
    counterfactual: Float[Tensor, " prompt"]
    """The same metric on the counterfactual prompts: what patching everything would give."""
    patched: Float[Tensor, "component prompt"]
    receipt: tuple[Fired, ...]

    @property
    def effect(self) -> Float[Tensor, "component prompt"]:
        """Patched minus clean."""
        return self.patched - self.clean


def path_patch(
    model: Model,
    rows: Sequence[Sequence[int]],
    counterfactuals: Sequence[Sequence[int]],
    senders: Sequence[Sender],
    receivers: Sequence[str | Site],
    columns: Int[Tensor, " prompt"],
    minus: Int[Tensor, " prompt"] | None = None,
    *,
    freeze_mlps: bool = False,
    sender_at: Positions = everywhere,
    receiver_at: Positions = everywhere,
) -> PathEffects:
    """Patch the paths from all senders together to all receivers together.

    Args:
        model: the model.
        rows: a chunk of prompts as token ids (see `layout.chunks`).
        counterfactuals: for each of them a prompt of the same length.
        senders: heads (`"L9H6"`), MLPs (`"M3"`), blocks (`"L3"`), `"embed"`.
        receivers: `"L10H7.q"`, `"L10KV0.k"`, …; or one alone of `"L9.resid_post"` (stream) and `"final_norm"` (logits).
        columns: the token whose logit is watched.
        minus: the token whose logit is subtracted.
        freeze_mlps: hold MLPs too, so that only paths without any MLP are left.
        sender_at: where senders take their counterfactual value.
        receiver_at: where receivers take the value of step 2.

    Raises:
        SiteError: a sender or receiver that this model has not.
        InterventionError: counterfactuals of other lengths, or receivers that exclude one another.
    """
    paths = _Paths(model, rows, counterfactuals, receivers, freeze_mlps, sender_at, receiver_at)
    return paths.patch([read_senders(model.facts, senders)], columns, minus)


def sweep_senders(
    model: Model,
    rows: Sequence[Sequence[int]],
    counterfactuals: Sequence[Sequence[int]],
    receivers: Sequence[str | Site],
    columns: Int[Tensor, " prompt"],
    minus: Int[Tensor, " prompt"] | None = None,
    *,
    senders: Sequence[Sender] | None = None,
    freeze_mlps: bool = False,
    sender_at: Positions = everywhere,
    receiver_at: Positions = everywhere,
) -> PathEffects:
    """Patch the path from each sender alone, by default from every head; several senders of a block share a pass.

    Arguments and errors: as in `path_patch`, which gives the same numbers one at a time.
    """
    paths = _Paths(model, rows, counterfactuals, receivers, freeze_mlps, sender_at, receiver_at)
    each = all_heads(model.facts) if senders is None else read_senders(model.facts, senders)
    return paths.patch([[sender] for sender in each], columns, minus)


class _Paths:
    """Both runs of a chunk, the receivers, and what is held."""

    def __init__(
        self,
        model: Model,
        rows: Sequence[Sequence[int]],
        counterfactuals: Sequence[Sequence[int]],
        receivers: Sequence[str | Site],
        freeze_mlps: bool,
        sender_at: Positions,
        receiver_at: Positions,
    ) -> None:
        if [len(row) for row in rows] != [len(row) for row in counterfactuals]:
            raise InterventionError(
                f"Prompts of {[len(r) for r in rows][:8]} tokens and counterfactuals of "
                f"{[len(r) for r in counterfactuals][:8]}. Expected equal lengths, one counterfactual a prompt."
            )
        self.model, self.freeze_mlps = model, freeze_mlps
        self.sender_at, self.receiver_at = sender_at, receiver_at
        self.receivers = read_receivers(model.facts, receivers, receiver_at)
        self.batch, self.last = TokenBatch.from_rows(rows), positions.prompt(-1)
        parts = ("resid_pre", "z", "attn_out", "mlp_out")
        layers = range(model.facts.n_layers)
        read: dict[str | Site, Positions] = {Site(p, layer): everywhere for layer in layers for p in parts}
        read[Site(LOGITS)] = self.last
        self.clean = model.run(self.batch, read=read)
        self.other = model.run(TokenBatch.from_rows(counterfactuals), read=read)

    def patch(
        self, groups: Sequence[Sequence[Sender]], columns: Int[Tensor, " prompt"], minus: Int[Tensor, " prompt"] | None
    ) -> PathEffects:
        """Send each group alone."""
        clean = _metric(self.model, self.clean[LOGITS], columns, minus)
        patched = clean.repeat(len(groups), 1)
        receipt: list[Fired] = []
        # A sender behind every receiver has no path to them: its effect is 0, and nothing is run.
        ahead = [i for i, group in enumerate(groups) if min(sites_of(group)) < max(self.receivers)]
        at_once = max(1, _TOKENS_A_PASS // self.batch.ids.numel())
        for start, together in groupby(
            sorted(ahead, key=lambda i: first_layer(groups[i])), lambda i: first_layer(groups[i])
        ):
            members = list(together)
            for i in range(0, len(members), at_once):
                part = members[i : i + at_once]
                sent = self._send([groups[j] for j in part], start)
                run = self._receive(sent, len(part))
                final = run[LOGITS]
                others = None if minus is None else minus.repeat(len(part))
                patched[part] = _metric(self.model, final, columns.repeat(len(part)), others).view(len(part), -1)
                receipt += sent.receipt if run is sent else (*sent.receipt, *run.receipt)
        return PathEffects(
            senders=tuple(map(label_of, groups)),
            receivers=self.receivers,
            reached=heads_reached(self.model.facts, self.receivers),
            clean=clean,
            counterfactual=_metric(self.model, self.other[LOGITS], columns, minus),
            patched=patched,
            receipt=tuple(receipt),
        )

    def _send(self, part: Sequence[Sequence[Sender]], start: int) -> Run:
        """Step 2 for several groups stacked as rows: run from their lowest block, and read the receivers."""
        end = max(self.receivers)
        held, sent = dict[Site, list[int]](), dict[Site, list[int]]()
        for i, group in enumerate(part):
            sites = sites_of(group)
            for site in self._held(sites, start, changed=EMBEDDING in group):
                held.setdefault(site, []).append(i)
            for site in sites - {Site(EMBEDDING)}:
                sent.setdefault(site, []).append(i)
        # In this order: a whole block is held before one head of it is sent.
        write: dict[str | Site, list[Intervention]] = {}
        for name, run, sites, where in (
            ("hold", self.clean, held, everywhere),
            ("send", self.other, sent, self.sender_at),
        ):
            for site in sorted(site for site in sites if site < end):
                write.setdefault(site, []).append(self._value(name, run, site, sites[site], len(part), where))
        live = [site for site in self.receivers if site.layer is None or site.layer >= start]
        read: dict[str | Site, Positions] = {
            site: self.last if site.component == LOGITS else everywhere for site in live
        }
        stream = torch.cat([self._stream(group, start) for group in part])
        batch = self.batch.repeat(len(part))
        return self.model.run(batch, read=read, write=write, from_=Restart(start, stream), stop_after=end)

    def _held(self, sent: set[Site], start: int, changed: bool) -> list[Site]:
        """List what keeps its clean value; attention of the first block does so by itself, unless its input changed."""
        held: list[Site] = []
        for layer in range(start, self.model.facts.n_layers):
            whole = Site("z", layer)
            if layer > start or changed:
                held.append(whole if any(site.whole == whole for site in sent) else Site("attn_out", layer))
            if self.freeze_mlps:
                held.append(Site("mlp_out", layer))
        return held

    def _value(
        self, name: str, run: Run, site: Site, copies: Sequence[int], total: int, where: Positions
    ) -> Intervention:
        """Write what a run recorded at a site, in some of the copies of the prompts."""
        value = run[site.whole]
        if site.head is not None:
            value = value.select(site.head_axis, site.head)
        n = len(value)
        if len(copies) < total:
            where = where & positions.rows(row for i in copies for row in range(i * n, (i + 1) * n))
        return interventions.replace(value.repeat(total, *[1] * (value.ndim - 1)), where, name)

    def _stream(self, group: Sequence[Sender], start: int) -> Float[Tensor, "batch pos d_model"]:
        site = Site("resid_pre", start)
        if EMBEDDING not in group:
            return self.clean[site]
        mask = self.sender_at.mask(self.batch)
        if not bool(mask.any()):
            raise NeverFiredError(
                f"The embedding on {self.sender_at} is no token of these prompts, so nothing is sent."
            )
        return torch.where(mask[..., None], self.other[site], self.clean[site])

    def _receive(self, sent: Run, copies: int) -> Run:
        """Step 3: a clean run in which the receivers have the values that were sent."""
        live = sorted(sent.activations)
        if live == [Site(LOGITS)]:
            return sent
        write: dict[str | Site, Intervention] = {
            site: interventions.replace(sent[site], self.receiver_at, "receive") for site in live
        }
        start = live[0].layer or 0
        stream = self.clean[Site("resid_pre", start)].repeat(copies, 1, 1)
        batch = self.batch.repeat(copies)
        return self.model.run(batch, read={Site(LOGITS): self.last}, write=write, from_=Restart(start, stream))


def _metric(
    model: Model,
    final: Float[Tensor, "batch at d_model"],
    columns: Int[Tensor, " batch"],
    minus: Int[Tensor, " batch"] | None,
) -> Float[Tensor, " batch"]:
    """Compute the watched logit, or difference, from the output of the final norm."""
    direction, bias = model.unembedding(columns), model.output_bias(columns)
    if minus is not None:
        direction, bias = direction - model.unembedding(minus), bias - model.output_bias(minus)
    return (final[:, 0] * direction).sum(-1) + bias
