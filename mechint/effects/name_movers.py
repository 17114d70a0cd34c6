r"""What the rest of a model does when its name movers are taken away together, or parts of what they write.

On prompts with a target (the indirect object, IO), a distractor and a counterfactual, all at the last position, with u
the output direction of target minus distractor, final norm's scale frozen in the clean run, and DE_c = c · u:

    ablation     z of the movers at every position := their z on the counterfactual, jointly. For every component
                 Delta_c = DE_c(ablated) - DE_c(clean); with r' the ablated stream and s, s' the final norm's scales,
                 Delta difference = sum_c Delta_c + (r' · u)(s / s' - 1)        exactly
    edits        what each mover adds to the stream at the last position, c, is set to c', made of c, of x (the same
                 on the counterfactual) and of w = C(g_final * W_U[:, IO]) / |.|, where v∥ = (v · w) w, v⊥ = v - v∥:
                 0;  c∥;  c∥ + x⊥;  c⊥;  x∥ + c⊥;  x
    query        out of what a later head's query reads at the last position, normalised with its clean scale s_in, the
                 movers' part m (sum of c over movers in earlier blocks) is taken: m∥, m⊥ or all of it,
                 q' = q - (C(m) / s_in * g_in) W_Q        before QK-norm and rotation; keys and values clean

McDougall et al. 2023, "Copy Suppression", sections 4.1 and 4.2; Rushing & Nanda 2024, "Explorations of Self-Repair". In
an edit of movers in several blocks, the later ones write c'_h too, made of what was recorded in the two runs, and not
what they would write after the earlier edit. In sandwich-norm models edits and contributions are taken behind the
post-norm; heads that share its scale with an ablated mover change with it, and that counts as their change.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mechint import interventions, positions
from mechint.effects import attribution
from mechint.effects.ablation import Component, clean_sites
from mechint.effects.baselines import Baseline
from mechint.interventions import Intervention
from mechint.model.base import Model, Restart, Run
from mechint.positions import Positions, TokenBatch
from mechint.sites import Site

EDITS: tuple[str, ...] = ("zero", "IO only", "rest resampled", "IO removed", "IO resampled", "resampled")
"""What the movers' output is set to: 0; c∥; c∥ + x⊥; c⊥; x∥ + c⊥; x."""

REMOVED: tuple[str, ...] = ("IO direction", "rest", "whole output")
"""Which part of the movers' output is taken out of a query's input."""

_LAST = positions.prompt(-1)


@dataclass(frozen=True)
class Direct:
    """Direct effects on target minus distractor, in logits, in the clean final norm's units."""

    heads: Float[Tensor, "layer prompt head"]
    biases: Float[Tensor, "layer prompt"]
    mlps: Float[Tensor, "layer prompt"]


@dataclass(frozen=True)
class Clean:
    """A clean run of a chunk of prompts, with what it is compared by."""

    model: Model
    batch: TokenBatch
    run: Run
    """Read at `clean_sites`: the stream before every block, all other terms at the last position."""
    u: Float[Tensor, "prompt at d_model"]
    """Output direction of target minus distractor."""
    towards: Float[Tensor, "prompt at d_model"]
    """w: unit direction in which the stream raises the target's logit."""
    constant: Float[Tensor, " prompt"]
    """What does not depend on the stream."""

    @property
    def resid_final(self) -> Float[Tensor, "prompt at d_model"]:
        """The stream before the final norm."""
        return self.run[Site("resid_post", self.model.facts.n_layers - 1)]

    @property
    def difference(self) -> Float[Tensor, " prompt"]:
        """Target minus distractor, before a soft-cap."""
        return (self.resid_final * self.u).sum((1, 2)) + self.constant

    @property
    def embedding(self) -> Float[Tensor, " prompt"]:
        """Direct effect of what enters block 0."""
        return (self.stream_at_end(0) * self.u).sum((1, 2))

    def stream_at_end(self, layer: int) -> Float[Tensor, "prompt at d_model"]:
        """Return the stream before a block at the last position."""
        return _at_end(self.run[Site("resid_pre", layer)], self.batch)

    def written(self, layer: int) -> Float[Tensor, "prompt at head d_model"]:
        """Return what every head of a block adds to the stream."""
        return attribution.head_outputs(self.model, layer, self.run[Site("z", layer)])[0]


@dataclass(frozen=True)
class JointAblation:
    """Every component before and after the movers were ablated together."""

    before: Direct
    after: Direct
    difference_before: Float[Tensor, " prompt"]
    difference_after: Float[Tensor, " prompt"]
    norm: Float[Tensor, " prompt"]
    """What the final norm adds because its scale changed."""


def run_clean(
    model: Model, rows: Sequence[Sequence[int]], target: Int[Tensor, " prompt"], distractor: Int[Tensor, " prompt"]
) -> Clean:
    """Run a chunk of prompts, and keep what later runs restart from and are compared with."""
    batch = TokenBatch.from_rows(rows)
    run = model.run(batch, read=clean_sites(model, _LAST))
    final = run[Site("resid_post", model.facts.n_layers - 1)]
    wanted, other = target[:, None], distractor[:, None]
    towards = attribution.output_direction(model, wanted, final)
    constant = attribution.constant_logit(model, wanted) - attribution.constant_logit(model, other)
    return Clean(
        model=model,
        batch=batch,
        run=run,
        u=attribution.output_direction(model, wanted, final, other),
        towards=towards / towards.norm(dim=-1, keepdim=True),
        constant=constant[:, 0],
    )


def direct(clean: Clean, run: Run, from_layer: int = 0) -> Direct:
    """Return the direct effects of heads, attention biases and MLPs in a run; 0 below `from_layer`.

    Args:
        clean: gives the direction and its scale.
        run: of the same prompts, from that block on; it has read z, `attn_out` and `mlp_out` at the last position.
        from_layer: the first block that was read.
    """
    facts, model, n = clean.model.facts, clean.model, len(clean.u)
    heads = torch.zeros(facts.n_layers, n, facts.n_heads)
    heads[from_layer:] = attribution.head_effects(model, run, clean.u, from_layer)[:, :, 0]
    mlps, attention = torch.zeros(facts.n_layers, n), torch.zeros(facts.n_layers, n)
    mlps[from_layer:] = attribution.mlp_effects(model, run, clean.u, from_layer)[..., 0]
    for layer in range(from_layer, facts.n_layers):
        attention[layer] = (run[Site("attn_out", layer)] * clean.u).sum((1, 2))
    return Direct(heads, attention - heads.sum(-1), mlps)


def joint_ablation(clean: Clean, movers: Sequence[Component], baseline: Baseline) -> JointAblation:
    """Set the z of all movers at every position to a baseline, and see what every component then does.

    Args:
        clean: the prompts.
        movers: heads.
        baseline: what to set them to, such as that of `resample_baseline` on the counterfactuals.
    """
    model, first, last = clean.model, min(mover.layer for mover in movers), clean.model.facts.n_layers - 1
    write: dict[str | Site, Intervention] = {
        site: baseline.intervention(site, 1, positions.everywhere) for mover in movers for site in mover.sites
    }
    run = model.run(clean.batch, read=_terms(model, first), write=write, from_=_restart(clean, first, 1))
    final, after = attribution.final_norm(model), run[Site("resid_post", last)]
    along = (after * clean.u).sum((1, 2))
    norm = along * (final.scale(clean.resid_final) / final.scale(after) - 1)[:, 0, 0]
    before = direct(clean, clean.run)
    changed = direct(clean, run, first)
    changed = Direct(  # below the first mover nothing has changed
        torch.cat([before.heads[:first], changed.heads[first:]]),
        torch.cat([before.biases[:first], changed.biases[first:]]),
        torch.cat([before.mlps[:first], changed.mlps[first:]]),
    )
    return JointAblation(before, changed, clean.difference, along + norm + clean.constant, norm)


def edited(
    own: Float[Tensor, "*batch d_model"],
    other: Float[Tensor, "*batch d_model"],
    towards: Float[Tensor, "*batch d_model"],
) -> dict[str, Float[Tensor, "*batch d_model"]]:
    """Return c' of every edit.

    Args:
        own: c, what is written in the clean run.
        other: x, what is written on the counterfactual.
        towards: w, of length 1.

    Examples:
        >>> c, x, w = torch.tensor([3.0, 4.0]), torch.tensor([1.0, 2.0]), torch.tensor([1.0, 0.0])
        >>> {name: value.tolist() for name, value in edited(c, x, w).items()}["IO resampled"]
        [1.0, 4.0]
    """
    own_along, other_along = _along(own, towards), _along(other, towards)
    values = (
        torch.zeros_like(own),
        own_along,
        own_along + other - other_along,
        own - own_along,
        other_along + own - own_along,
        other,
    )
    return dict(zip(EDITS, values, strict=True))


def edit_outputs(
    clean: Clean, movers: Sequence[Component], baseline: Baseline
) -> dict[str, Float[Tensor, "layer prompt head"]]:
    """Edit what the movers add to the stream at the last position; return every head's direct effect, by edit.

    Args:
        clean: the prompts.
        movers: heads.
        baseline: their values on the counterfactuals.
    """
    model, first = clean.model, min(mover.layer for mover in movers)
    n, copies = len(clean.u), len(EDITS)
    batch, start = clean.batch.repeat(copies), _restart(clean, first, copies)
    write: dict[str | Site, Intervention] = {}
    effects: dict[Component, Tensor] = {}
    for layer in sorted({mover.layer for mover in movers}):
        site = Site("z", layer)
        z = model.run(batch, read={site: _LAST}, write=write, from_=start, stop_after=site)[site]
        writes_now = attribution.head_outputs(model, layer, z)[0]
        writes_clean, writes_other = clean.written(layer), _written_there(clean, baseline, layer)
        change = torch.zeros(copies * n, 1, model.facts.d_model)
        for mover in (mover for mover in movers if mover.layer == layer):
            values = edited(writes_clean[:, :, mover.head], writes_other[:, :, mover.head], clean.towards)
            new = torch.cat([values[name] for name in EDITS])
            change += new - writes_now[:, :, mover.head]
            effects[mover] = (new * clean.u.repeat(copies, 1, 1)).sum((1, 2)).view(copies, n)
        write[Site("attn_out", layer)] = interventions.add(change, where=_LAST)
    run = model.run(batch, read=_terms(model, first), write=write, from_=start)
    heads = torch.zeros(model.facts.n_layers, copies, n, model.facts.n_heads)
    found = attribution.head_effects(model, run, clean.u.repeat(copies, 1, 1), first)[:, :, 0]
    heads[first:] = found.view(-1, copies, n, model.facts.n_heads)
    heads[:first] = direct(clean, clean.run).heads[:first, None]
    for mover, values in effects.items():
        heads[mover.layer, ..., mover.head or 0] = values
    return {name: heads[:, i] for i, name in enumerate(EDITS)}


def project_queries(clean: Clean, movers: Sequence[Component]) -> dict[str, Float[Tensor, "layer prompt head"]]:
    """Take the movers' output out of later heads' queries at the last position; return direct effects, by part.

    Every head is on its own: its query alone is changed, and post-norm scales are those of the clean run. Heads that no
    mover comes before keep their clean effect.

    Args:
        clean: the prompts.
        movers: heads.
    """
    model, copies, n = clean.model, len(REMOVED), len(clean.u)
    first = min(mover.layer for mover in movers)
    heads = direct(clean, clean.run).heads[:, None].repeat(1, copies, 1, 1)
    for layer in range(first + 1, model.facts.n_layers):
        earlier = [mover for mover in movers if mover.layer < layer]
        whole = torch.stack([clean.written(mover.layer)[:, :, mover.head] for mover in earlier]).sum(0)
        along = _along(whole, clean.towards)
        step = _through_input_norm(clean, layer, torch.cat([along, whole - along, whole]))
        query = torch.einsum("bpd,hde->bphe", step, model.projections(layer).W_Q)
        site = Site("z", layer)
        z = model.run(
            clean.batch.repeat(copies),
            read={site: _LAST},
            write={Site("q", layer): interventions.add(-query, where=_LAST)},
            from_=_restart(clean, layer, copies),
            stop_after=site,
        )[site]
        y = attribution.through_post_norm(model, layer, clean.run[site], clean.u).repeat(copies, 1, 1, 1)
        heads[layer] = (z * y).sum((1, 3)).view(copies, n, -1)
    return {name: heads[:, i] for i, name in enumerate(REMOVED)}


def _through_input_norm(
    clean: Clean, layer: int, change: Float[Tensor, "batch at d_model"]
) -> Float[Tensor, "batch at d_model"]:
    """Turn a change of the stream into one of the attention's input, the norm's scale frozen in the clean run."""
    norm = clean.model.norm("attn_in", layer)
    if norm is None:
        return change
    scale = norm.scale(clean.stream_at_end(layer))
    return norm.centre(change) / scale.repeat(len(change) // len(scale), 1, 1) * norm.gain


def _written_there(clean: Clean, baseline: Baseline, layer: int) -> Float[Tensor, "prompt at head d_model"]:
    """Return what every head of a block adds to the stream at the last position of the counterfactual."""
    z = _at_end(baseline.values[Site("z", layer)], clean.batch)
    return attribution.head_outputs(clean.model, layer, z)[0]


def _at_end(values: Float[Tensor, "prompt pos ..."], batch: TokenBatch) -> Float[Tensor, "prompt at ..."]:
    return values[torch.arange(len(values))[:, None], _LAST.index(batch)]


def _along(vector: Float[Tensor, "*batch d_model"], towards: Float[Tensor, "*batch d_model"]) -> Tensor:
    return (vector * towards).sum(-1, keepdim=True) * towards


def _restart(clean: Clean, layer: int, copies: int) -> Restart:
    return Restart(layer, clean.run[Site("resid_pre", layer)].repeat(copies, 1, 1))


def _terms(model: Model, from_layer: int) -> dict[str | Site, Positions]:
    attention = {Site("attn_out", layer): _LAST for layer in range(from_layer, model.facts.n_layers)}
    return attention | attribution.stream_sites(model, _LAST, from_layer)
