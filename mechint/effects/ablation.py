"""Ablation: set heads, MLPs or whole blocks to a baseline, and see what changes.

One pass per block and prompt chunk serves all components of that block: they are stacked as rows, the blocks below are
not run again (`from_`), equal prefixes are computed once where the baseline allows it, and no logit is computed but
those asked for. `sweep` equals the obvious loop of one full forward pass a component (a test says so).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mechint import positions
from mechint.effects import attribution
from mechint.effects.baselines import Baseline
from mechint.effects.layout import Layout
from mechint.errors import SiteError
from mechint.interventions import Intervention
from mechint.model.base import Fired, Model, Restart, Run
from mechint.model.model_facts import ModelFacts
from mechint.positions import Positions
from mechint.sites import Site, head_label, parse_head

# Rows x tokens of one pass: larger passes are no faster on a CPU, and this bounds memory.
_TOKENS_A_PASS = 1024


@dataclass(frozen=True, order=True)
class Component:
    """Something that can be ablated.

    Examples:
        >>> Component(17, 2).label, Component.parse("M3").sites
        ('L17H2', (Site('L3.mlp_out'),))
    """

    layer: int
    head: int | None = None
    part: str = "head"
    """`head`, `mlp`, or `layer` (attention and MLP of a block together)."""

    @classmethod
    def parse(cls, text: "str | Component") -> "Component":
        """Read `L17H2` (a head), `M3` (an MLP) or `L3` (a whole block).

        Raises:
            SiteError: the text is none of these.
        """
        if isinstance(text, Component):
            return text
        if text[:1] in ("M", "L") and text[1:].isdigit():
            return cls(int(text[1:]), None, "mlp" if text[0] == "M" else "layer")
        try:
            return cls(*parse_head(text))
        except SiteError as error:
            raise SiteError(f"{error} Or an MLP ('M3'), or a whole block ('L3').") from None

    @property
    def label(self) -> str:
        """How the field writes it."""
        if self.head is not None:
            return head_label(self.layer, self.head)
        return f"{'M' if self.part == 'mlp' else 'L'}{self.layer}"

    @property
    def sites(self) -> tuple[Site, ...]:
        """The places that are rewritten."""
        if self.head is not None:
            return (Site("z", self.layer, self.head),)
        both = (Site("attn_out", self.layer), Site("mlp_out", self.layer))
        return both[1:] if self.part == "mlp" else both


def all_heads(facts: ModelFacts, layers: Sequence[int] | None = None) -> list[Component]:
    """List every query head, of all blocks or of some."""
    return [Component(layer, h) for layer in layers or range(facts.n_layers) for h in range(facts.n_heads)]


def chosen(facts: ModelFacts, given: str | Component | Sequence[str | Component]) -> list[Component]:
    """Read one or several components, and make sure that this model has them.

    Raises:
        SiteError: none is given, one is given twice, cannot be read, or is not in this model.
    """
    several = [given] if isinstance(given, str | Component) else list(given)
    components = [Component.parse(one) for one in several]
    if not components or len(set(components)) < len(components):
        told = ", ".join(component.label for component in components) or "none"
        raise SiteError(f"Components to ablate: {told}. Expected at least one, and each once.")
    for component in components:
        for site in component.sites:
            facts.check(site)
    return components


def baseline_sites(components: Sequence[Component]) -> list[Site]:
    """List the whole sites whose values a mean or resample baseline of these components needs."""
    return sorted({site.whole for component in components for site in component.sites})


@dataclass(frozen=True)
class Sweep:
    """Logits before and after ablation, and the ablated components' own direct effects on them.

    The direct effects are measured with the final norm's scale of the clean run, in logits before a soft-cap.
    """

    components: tuple[Component, ...]
    clean: Float[Tensor, "prompt column"]
    ablated: Float[Tensor, "component prompt column"]
    direct_clean: Float[Tensor, "component prompt column"]
    direct_ablated: Float[Tensor, "component prompt column"]
    receipt: tuple[Fired, ...]
    """What each ablation did, one entry a component (two for a whole block)."""

    @property
    def logit_change(self) -> Float[Tensor, "component prompt column"]:
        """Ablated minus clean: the total effect of the ablation."""
        return self.ablated - self.clean

    @property
    def direct_change(self) -> Float[Tensor, "component prompt column"]:
        """What the ablation takes away directly."""
        return self.direct_ablated - self.direct_clean

    @property
    def self_repair(self) -> Float[Tensor, "component prompt column"]:
        """What all other components put back: the total change minus the direct one."""
        return self.logit_change - self.direct_change


def clean_sites(model: Model, last: Positions) -> dict[str | Site, Positions]:
    """List what a clean run reads so that ablated runs can restart from it and be compared with it."""
    everywhere: dict[str | Site, Positions] = {
        Site("resid_pre", layer): positions.everywhere for layer in range(model.facts.n_layers)
    }
    ends = {Site("attn_out", layer): last for layer in range(model.facts.n_layers)}
    return everywhere | ends | attribution.stream_sites(model, last)


def ablated_runs(
    model: Model,
    layout: Layout,
    clean: Run,
    components: Sequence[Component],
    baseline: Baseline,
    from_layer_on: bool = False,
) -> Iterator[tuple[list[Component], Run]]:
    """Ablate components one at a time, several to a pass.

    Args:
        model: the model.
        layout: the prompts.
        clean: a run of them that read `clean_sites`.
        components: in forward order; each is ablated alone.
        baseline: what to set them to.
        from_layer_on: read the terms of all later blocks too, instead of those of the component's own block.

    Yields:
        Components, and a run with a row for each component and prompt and one position: `final_norm`, the stream, and
        the terms of their block (or of all blocks from there on).
    """
    n_rows, width = layout.batch.ids.shape
    at_once = max(1, _TOKENS_A_PASS // (n_rows * width))
    for layer, members in groupby(components, key=lambda component: component.layer):
        group = list(members)
        last = model.facts.n_layers - 1
        read: dict[str | Site, Positions] = {
            Site("final_norm"): layout.last,
            Site("resid_post", last): layout.last,
        }
        for j in range(layer, last + 1 if from_layer_on else layer + 1):
            read |= {Site(part, j): layout.last for part in ("z", "attn_out", "mlp_out")}
        for start in range(0, len(group), at_once):
            part = group[start : start + at_once]
            write: dict[str | Site, list[Intervention]] = {}
            for i, component in enumerate(part):
                own_rows = positions.rows(range(i * n_rows, (i + 1) * n_rows))
                for site in component.sites:
                    write.setdefault(site, []).append(baseline.intervention(site, len(part), own_rows))
            stream = clean[Site("resid_pre", layer)].repeat(len(part), 1, 1)
            run = model.run(layout.batch.repeat(len(part)), read=read, write=write, from_=Restart(layer, stream))
            yield part, layout.gather(run, read, len(part))


def own_effect(
    model: Model, component: Component, run: Run, direction: Float[Tensor, "batch at d_model"]
) -> Float[Tensor, "batch at"]:
    """Return a component's own direct effect, from what a run read at its block."""
    if component.head is None:
        return torch.stack([(run[site] * direction).sum(-1) for site in component.sites]).sum(0)
    written, _ = attribution.head_outputs(model, component.layer, run[Site("z", component.layer)])
    return (written[:, :, component.head] * direction).sum(-1)


def sweep(
    model: Model,
    rows: Sequence[Sequence[int]],
    components: Sequence[Component],
    baseline: Baseline,
    columns: Int[Tensor, "prompt column"],
) -> Sweep:
    """Ablate components one at a time, and return the logits of some tokens at the last position of each prompt.

    Args:
        model: the model.
        rows: a chunk of prompts as token ids (see `layout.chunks`).
        components: what to ablate, in any order.
        baseline: what to set them to; a resample baseline must be that of these rows.
        columns: the tokens whose logits are wanted, for each prompt.
    """
    components = sorted(components, key=lambda c: (c.layer, c.part, c.head or 0))
    for component in components:
        for site in component.sites:
            model.facts.check(site)
    layout = Layout.choose(model, rows, baseline.shares_prefixes)
    read = clean_sites(model, layout.last) | {Site("final_norm"): layout.last}
    clean = model.run(layout.batch, read=read)
    ends = layout.gather(clean, {s: p for s, p in read.items() if Site.parse(s).component != "resid_pre"})
    final = ends[Site("resid_post", model.facts.n_layers - 1)].expand(-1, columns.shape[1], -1)
    u = attribution.output_direction(model, columns, final)
    ablated: list[Tensor] = []
    own: list[Tensor] = []
    receipt: list[Fired] = []
    for part, run in ablated_runs(model, layout, clean, components, baseline):
        ablated.append(_logits(model, run, columns.repeat(len(part), 1)).view(len(part), *columns.shape))
        receipt += run.receipt
        for i, component in enumerate(part):
            own.append(own_effect(model, component, rows_of(run, i, layout.n_prompts), u))
    return Sweep(
        components=tuple(components),
        clean=_logits(model, ends, columns),
        ablated=torch.cat(ablated),
        direct_clean=torch.stack([own_effect(model, component, ends, u) for component in components]),
        direct_ablated=torch.stack(own),
        receipt=tuple(receipt),
    )


def rows_of(run: Run, copy: int, n_prompts: int) -> Run:
    """Return the rows of one component out of a run of several."""
    rows = slice(copy * n_prompts, (copy + 1) * n_prompts)
    return Run({site: value[rows] for site, value in run.activations.items()}, None, run.receipt)


def _logits(model: Model, run: Run, columns: Int[Tensor, "batch column"]) -> Float[Tensor, "batch column"]:
    """Compute the logits of some tokens, before a soft-cap, from the output of the final norm."""
    normalised = run[Site("final_norm")][:, 0]
    return torch.einsum("bd,bcd->bc", normalised, model.unembedding(columns)) + model.output_bias(columns)
