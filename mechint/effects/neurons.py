r"""Single neurons of an MLP: what each writes to a logit, and how the ablation of an earlier component changes it.

With a_n the activation of neuron n (behind the nonlinearity, and times the gate where there is one), W_out[n] what it
writes when it is 1, and a post-norm frozen at this run's scale s_post (none: v = u):

    DE_n = a_n (W_out[n] · v)        v = C_post(g_post * u) / s_post
    sum_n DE_n + b_out · v + b_post · u = DE of the whole MLP        exactly

MLP erasure: a late MLP writes against what an earlier head wrote, so that when the head is ablated there is less to
write against: the neuron's direct effect was negative and becomes less so. The neurons that change most are found by
looking for the largest of thousands of changes, and the largest of many is large by chance alone; so they are also
looked at under another draw of the ablation than that in which they were found. Rushing & Nanda 2024, "Explorations of
Self-Repair in Language Models", section 5.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mechint import positions
from mechint.effects.ablation import Component
from mechint.effects.baselines import Baseline
from mechint.effects.text_repair import CleanText, TextRepair, text_repair
from mechint.errors import SiteError
from mechint.interventions import Intervention
from mechint.model.base import Model, Restart
from mechint.sites import Site

SEVERAL = 5
"""Neurons whose share of the MLP's repair is told."""


def neuron_effects(
    model: Model,
    layer: int,
    activations: Float[Tensor, "batch at d_mlp"],
    direction: Float[Tensor, "batch at d_model"],
) -> tuple[Float[Tensor, "batch at d_mlp"], Float[Tensor, "batch at"]]:
    """Return the direct effect of every neuron of an MLP, and that of its biases; together the MLP's own.

    Args:
        model: the model.
        layer: the MLP's block.
        activations: what was read at `mlp_post`.
        direction: u, from `attribution.output_direction`.
    """
    weights, bias = model.mlp_output_weights(layer)
    post, constant = model.norm("mlp_post", layer), torch.zeros_like(direction[..., 0])
    if post is not None:
        if post.bias is not None:
            constant = direction @ post.bias
        direction = post.centre(post.gain * direction) / post.scale(activations @ weights + bias)
    return activations * (direction @ weights.T), constant + direction @ bias


@dataclass(frozen=True)
class Erasure:
    """How the neurons of one MLP answered the ablation of one earlier component, in logits of the next token."""

    repair: TextRepair
    mlp: Float[Tensor, "batch at"]
    """Change of the whole MLP's direct effect: its part of the repair."""
    neurons: Int[Tensor, "batch at row"]
    """The neurons whose direct effect rose most, the largest rise first."""
    clean: Float[Tensor, "batch at row"]
    """Their direct effects before the ablation."""
    ablated: Float[Tensor, "batch at row"]
    """And after it."""
    clean_elsewhere: Float[Tensor, "batch at row"] | None
    """The same two for the neurons that were found under the next draw of the ablation, as they are under this one."""
    ablated_elsewhere: Float[Tensor, "batch at row"] | None


def erasure(
    model: Model,
    text: CleanText,
    component: Component,
    baselines: Sequence[Baseline],
    layer: int,
    top: int = 10,
) -> list[Erasure]:
    """Ablate a component, and find the neurons of a later MLP that put back most: once for each draw of the baseline.

    Args:
        model: the model.
        text: documents, and the places to look at.
        component: what to ablate.
        baselines: what to set it to, one a draw (see `text_ablation.TextAblation`).
        layer: the block of the MLP.
        top: how many neurons to tell.

    Raises:
        SiteError: the MLP cannot see the component, because it stands before or beside it.
    """
    beside = component.head is None or model.facts.parallel
    if layer < component.layer or (layer == component.layer and beside):
        raise SiteError(f"M{layer} does not read what {component.label} writes. Choose a later MLP.")
    at, place = text.layout.last, Site("mlp_post", layer)
    clean_run = model.run(
        text.layout.batch, read={place: at}, from_=Restart(layer, text.clean[Site("resid_pre", layer)])
    )
    u = text.direction.view(*text.places.shape, -1)
    clean, constant = neuron_effects(model, layer, clean_run[place], u)
    before = clean.sum(-1) + constant
    changed: list[tuple[Tensor, Tensor]] = []
    for baseline in baselines:
        write: dict[str | Site, Intervention] = {
            site: baseline.intervention(site, 1, positions.everywhere) for site in component.sites
        }
        start = Restart(component.layer, text.clean[Site("resid_pre", component.layer)])
        run = model.run(text.layout.batch, read={place: at}, write=write, from_=start, stop_after=place)
        effects, constant = neuron_effects(model, layer, run[place], u)
        changed.append((effects, effects.sum(-1) + constant - before))
    best = [(effects - clean).topk(min(top, clean.shape[-1]), dim=-1).indices for effects, _ in changed]
    found: list[Erasure] = []
    for draw, (baseline, (effects, mlp)) in enumerate(zip(baselines, changed, strict=True)):
        (repaired,) = text_repair(model, text, [component], baseline)
        own, other = best[draw], best[(draw + 1) % len(best)] if len(best) > 1 else None
        elsewhere = (None, None) if other is None else (clean.gather(-1, other), effects.gather(-1, other))
        found.append(Erasure(repaired, mlp, own, clean.gather(-1, own), effects.gather(-1, own), *elsewhere))
    return found
