r"""Self-repair: how far the rest of the model makes good the loss of a component, and which part of it does.

With r, r' the final residual stream of the clean and the ablated run, s and s' the final norm's scale, u the output
direction with the *clean* scale (so DE_c = c · u is linear in c), and c the ablated component:

    Delta logit = logit' - logit                            (before a final soft-cap)
    SR          = Delta logit - (DE'_c - DE_c)
    SR_heads    = sum over all other heads of (DE' - DE)    (attention biases behind post-norms go with the heads)
    SR_mlp      = sum over MLPs of (DE' - DE)
    SR_norm     = SR - SR_heads - SR_mlp = (r' · u) (s / s' - 1)           exactly

so the three parts add up to SR. In sandwich-norm models another head of the same block changes its term when one head
is ablated, because they share a post-norm scale; that counts as a head's repair. Rushing & Nanda 2024, "Explorations of
Self-Repair in Language Models"; McDougall et al. 2023, section 4. Averages are means over all prompts of the quantity
in logits ("full"), never means of ratios.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mechint.effects import attribution
from mechint.effects.ablation import Component, ablated_runs, clean_sites, own_effect, rows_of
from mechint.effects.baselines import Baseline
from mechint.effects.layout import Layout
from mechint.model.base import Model, Run
from mechint.sites import Site

AVERAGE = "full (mean over all prompts, in logits)"
"""Name of the averaging form, written into every table."""


@dataclass(frozen=True)
class Repair:
    """What happened when one component was ablated: per prompt, in logits, in the clean final norm's units."""

    component: Component
    logit_change: Float[Tensor, " prompt"]
    direct_change: Float[Tensor, " prompt"]
    """Change of the component's own direct effect."""
    heads: Float[Tensor, "layer prompt head"]
    """Change of every other head's direct effect; 0 for the ablated one and below it."""
    biases: Float[Tensor, "layer prompt"]
    """Change of what attention biases add; 0 without post-norms."""
    mlps: Float[Tensor, "layer prompt"]
    norm: Float[Tensor, " prompt"]
    """What the final norm adds because its scale changed."""

    @property
    def total(self) -> Float[Tensor, " prompt"]:
        """Self-repair: the change of the logit that the direct effect does not explain."""
        return self.logit_change - self.direct_change

    @property
    def heads_part(self) -> Float[Tensor, " prompt"]:
        """Repair by all other heads."""
        return self.heads.sum((0, 2)) + self.biases.sum(0)

    @property
    def mlp_part(self) -> Float[Tensor, " prompt"]:
        """Repair by all MLPs."""
        return self.mlps.sum(0)


def repair(
    model: Model,
    rows: Sequence[Sequence[int]],
    components: Sequence[Component],
    baseline: Baseline,
    columns: Int[Tensor, " prompt"],
    minus: Int[Tensor, " prompt"] | None = None,
) -> list[Repair]:
    """Ablate components one at a time and say who repaired what, at the last position of each prompt.

    Args:
        model: the model.
        rows: a chunk of prompts as token ids.
        components: what to ablate.
        baseline: what to set them to.
        columns: the token whose logit is watched.
        minus: the token whose logit is subtracted, to watch a logit difference.
    """
    ordered = sorted(components, key=lambda c: (c.layer, c.part, c.head or 0))
    for component in ordered:
        for site in component.sites:
            model.facts.check(site)
    layout = Layout.choose(model, rows, baseline.shares_prefixes)
    read = clean_sites(model, layout.last)
    clean = model.run(layout.batch, read=read)
    ends = layout.gather(clean, {s: p for s, p in read.items() if Site.parse(s).component != "resid_pre"})
    last = Site("resid_post", model.facts.n_layers - 1)
    u = attribution.output_direction(model, columns[:, None], ends[last], None if minus is None else minus[:, None])
    found: list[Repair] = []
    for part, run in ablated_runs(model, layout, clean, ordered, baseline, from_layer_on=True):
        for i, component in enumerate(part):
            found.append(_compare(model, component, ends, rows_of(run, i, layout.n_prompts), u))
    return found


def _compare(
    model: Model, component: Component, clean: Run, ablated: Run, u: Float[Tensor, "prompt 1 d_model"]
) -> Repair:
    n_layers, n_prompts, first = model.facts.n_layers, len(u), component.layer
    heads = torch.zeros(n_layers, n_prompts, model.facts.n_heads)
    biases, mlps = torch.zeros(n_layers, n_prompts), torch.zeros(n_layers, n_prompts)
    heads[first:] = (
        attribution.head_effects(model, ablated, u, first) - attribution.head_effects(model, clean, u, first)
    )[:, :, 0]
    mlps[first:] = (
        attribution.mlp_effects(model, ablated, u, first) - attribution.mlp_effects(model, clean, u, first)
    )[..., 0]
    for layer in range(first, n_layers):
        change = ((ablated[Site("attn_out", layer)] - clean[Site("attn_out", layer)]) * u).sum((1, 2))
        biases[layer] = change - heads[layer].sum(-1)
    own = own_effect(model, component, ablated, u)[:, 0] - own_effect(model, component, clean, u)[:, 0]
    _leave_out(component, heads, biases, mlps)
    last = Site("resid_post", n_layers - 1)
    final = attribution.final_norm(model)
    before, after = clean[last], ablated[last]
    change = ((after - before) * u).sum((1, 2))
    norm = (after * u).sum((1, 2)) * (final.scale(before) / final.scale(after) - 1)[:, 0, 0]
    return Repair(component, change + norm, own, heads, biases, mlps, norm)


def _leave_out(component: Component, heads: Tensor, biases: Tensor, mlps: Tensor) -> None:
    """Take the ablated component's own change out of the repair."""
    if component.head is not None:
        heads[component.layer, :, component.head] = 0
        return
    mlps[component.layer] = 0
    if component.part == "layer":
        heads[component.layer] = 0
        biases[component.layer] = 0
