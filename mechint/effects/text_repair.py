r"""Self-repair at every token of documents: what a component is worth there, and what makes good its loss.

At a position d of a document, with y the token that follows, u its output direction with the *clean* final scale s,
and primes for the run in which a component c is ablated at all positions of the document:

    DE = c · u        DE' = c' · u        Delta logit = logit' - logit    (before a final soft-cap)
    SR = Delta logit - (DE' - DE)
    SR = heads + MLPs + final norm                                        exactly, with
    heads       sum over blocks from c's on of (attn_out' - attn_out) · u, less the head's own change
    MLPs        sum over blocks from c's on of (mlp_out' - mlp_out) · u, less the MLP's own change
    final norm  (r' · u) (s / s' - 1)

Attention biases behind post-norms go with the heads. In the component's own block other heads can change only through a
shared post-norm (Gemma 2 and 3, OLMo 2), and the MLP only where it reads what attention wrote (not in parallel blocks).
These are the numbers of `effects.self_repair.repair`, at many positions of a text at once, and without telling single
heads apart. Only the columns of the next tokens are ever unembedded. Rushing & Nanda 2024, "Explorations of Self-Repair
in Language Models", section 3.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor

from mechint.effects import attribution
from mechint.effects.ablation import Component, ablated_runs, clean_sites, rows_of
from mechint.effects.baselines import Baseline
from mechint.effects.documents import Documents
from mechint.effects.head_outputs import rows_of as as_batch
from mechint.effects.layout import Layout
from mechint.effects.sampling import destinations
from mechint.effects.text_ablation import TextAblation
from mechint.errors import PositionError
from mechint.model.base import Model, Run
from mechint.positions import Positions, TokenBatch
from mechint.sites import Site

TOKENS_A_GROUP = 512
"""Tokens of the documents that are measured together, so that two ablations fit one pass of about 1,024."""
_VOCABULARY_BLOCK = 16384


@dataclass(frozen=True)
class CleanText:
    """A batch of documents, run once without any ablation."""

    documents: Documents
    places: Int[Tensor, "batch at"]
    """The positions d that are looked at, in ascending order."""
    layout: Layout
    """Each document and place as one "prompt"."""
    clean: Run
    ends: Run
    """What was read at the places: one row a document and place."""
    direction: Float[Tensor, "prompt 1 d_model"]
    """u of the next token at each document and place."""

    @property
    def next_tokens(self) -> Int[Tensor, "batch at"]:
        """The token that follows at each place."""
        return self.documents.next_tokens.gather(1, self.places)


@dataclass(frozen=True)
class TextRepair:
    """What happened at the places of some documents when one component was ablated, in logits of the next token."""

    component: Component
    direct_effect: Float[Tensor, "batch at"]
    direct_effect_ablated: Float[Tensor, "batch at"]
    logit_change: Float[Tensor, "batch at"]
    heads: Float[Tensor, "batch at"]
    """Repair by all other heads (and attention biases behind post-norms)."""
    mlps: Float[Tensor, "batch at"]
    """Repair by all other MLPs."""
    final_norm: Float[Tensor, "batch at"]
    """What the final norm adds because its scale changed."""
    norm_ratio: Float[Tensor, "batch at"]
    """s' / s: below 1 the stream became shorter, and everything in it counts for more."""

    @property
    def self_repair(self) -> Float[Tensor, "batch at"]:
        """The change of the logit that the component's own direct effect does not explain."""
        return self.logit_change - (self.direct_effect_ablated - self.direct_effect)


def clean_text(
    model: Model,
    documents: Documents,
    places: Int[Tensor, "batch at"] | None = None,
    minus: Float[Tensor, " d_model"] | None = None,
) -> CleanText:
    """Run a batch of documents without any ablation.

    Args:
        model: the model.
        documents: few enough for one pass (see `Documents.groups`).
        places: the positions to look at, ascending and each once; by default all of `destinations`.
        minus: an output direction that is subtracted from that of every next token, such as `mean_unembedding`.

    Raises:
        PositionError: a place without a next token, or places out of order.
    """
    places = destinations(documents) if places is None else places
    beyond = int(places.min()) < 0 or int(places.max()) > documents.length - 2
    if beyond or bool((places.diff(dim=1) <= 0).any()):
        raise PositionError(
            f"Places {places[0].tolist()[:8]} …: expected positions 0 to {documents.length - 2} of documents of "
            f"{documents.length} tokens (the last has no next token), ascending, each once."
        )
    layout = _layout(documents, places)
    read = clean_sites(model, layout.last)
    clean = model.run(layout.batch, read=read)
    ends = layout.gather(clean, {s: p for s, p in read.items() if Site.parse(s).component != "resid_pre"})
    last = ends[Site("resid_post", model.facts.n_layers - 1)]
    following = documents.next_tokens.gather(1, places).reshape(-1, 1)
    direction = attribution.output_direction(model, following, last)
    if minus is not None:
        final = attribution.final_norm(model)
        direction = direction - final.centre(final.gain * minus) / final.scale(last)
    return CleanText(documents, places, layout, clean, ends, direction)


def mean_unembedding(model: Model) -> Float[Tensor, " d_model"]:
    """Return the mean output direction of the vocabulary, walked through in blocks.

    The logit minus the mean logit is what is left of a logit when a change that all tokens share, which changes no
    prediction, is taken out: what one gets from weights with a centred unembedding.
    """
    total = torch.zeros(model.facts.d_model, dtype=torch.float64)
    for start in range(0, model.facts.d_vocab, _VOCABULARY_BLOCK):
        total += model.unembedding(slice(start, start + _VOCABULARY_BLOCK)).sum(0, dtype=torch.float64)
    return (total / model.facts.d_vocab).to(model.unembedding(slice(0, 1)).dtype)


def text_repair(
    model: Model, text: CleanText, components: Sequence[Component], baseline: Baseline
) -> Iterator[TextRepair]:
    """Ablate components one at a time, at all positions of the documents, and say what made good the loss.

    The blocks below a component are not run again, and several components of a block go through one pass as rows.

    Args:
        model: the model.
        text: the documents.
        components: what to ablate; measured in forward order.
        baseline: what to set them to; a resample baseline must be that of these documents.
    """
    ordered = sorted(components, key=lambda c: (c.layer, c.part, c.head or 0))
    for component in ordered:
        for site in component.sites:
            model.facts.check(site)
    for part, run in ablated_runs(model, text.layout, text.clean, ordered, baseline, from_layer_on=True):
        for i, component in enumerate(part):
            yield _measure(model, component, text, rows_of(run, i, text.layout.n_prompts))


def repair_on_documents(
    model: Model,
    documents: Documents,
    components: Sequence[Component],
    ablation: str = "resample",
    *,
    per_document: int | None = None,
    draws: int = 1,
    seed: int = 0,
) -> pd.DataFrame:
    """Measure self-repair on documents: one row a component, draw, document and position, as in `frame_of`.

    But for the rows themselves, memory does not grow with the number of documents.
    """
    ablations = TextAblation(model, documents, components, ablation, draws=draws, seed=seed)
    frames: list[pd.DataFrame] = []
    for which in documents.groups(TOKENS_A_GROUP):
        some = documents.pick(which)
        text = clean_text(model, some, destinations(some, per_document, seed))
        for draw, baseline in enumerate(ablations.baselines(which)):
            frames += [frame_of(one, text, which, draw) for one in text_repair(model, text, components, baseline)]
    return pd.concat(frames, ignore_index=True)


def frame_of(one: TextRepair, text: CleanText, which: Sequence[int], draw: int = 0) -> pd.DataFrame:
    """Return one row a document and place, in logits.

    Args:
        one: what was measured.
        text: on which documents.
        which: their numbers.
        draw: number of the draw of the baseline.
    """
    n_at = text.places.shape[1]
    values = {
        "direct_effect": one.direct_effect,
        "direct_effect_ablated": one.direct_effect_ablated,
        "logit_change": one.logit_change,
        "self_repair": one.self_repair,
        "heads_part": one.heads,
        "mlps_part": one.mlps,
        "norm_part": one.final_norm,
        "norm_ratio": one.norm_ratio,
    }
    numbers = torch.tensor(list(which), dtype=torch.int32).repeat_interleave(n_at)
    head = -1 if one.component.head is None else one.component.head
    return pd.DataFrame(
        {"document": numbers.numpy(), "position": text.places.flatten().int().numpy(), "draw": draw}
        | {"label": one.component.label, "part": one.component.part, "layer": one.component.layer, "head": head}
        | {name: value.flatten().numpy() for name, value in values.items()}
    )


def _layout(documents: Documents, places: Int[Tensor, "batch at"]) -> Layout:
    """Lay documents out so that each place of each counts as the end of a prompt of its own."""
    n, n_at = places.shape
    mask = torch.zeros(documents.tokens.shape, dtype=torch.bool).scatter(1, places, True)

    def resolve(batch: TokenBatch) -> Tensor:  # a pass may hold the documents several times, once for each ablation
        return mask.repeat(len(batch.ids) // n, 1)

    at = Positions(f"{n_at} places of each document", resolve)
    row, slot = torch.arange(n).repeat_interleave(n_at), torch.arange(n_at).repeat(n)
    return Layout(as_batch(documents), at, row, slot)


def _measure(model: Model, component: Component, text: CleanText, ablated: Run) -> TextRepair:
    facts, u, clean = model.facts, text.direction, text.ends
    before, after = own_direct_effect(model, component, clean, u), own_direct_effect(model, component, ablated, u)
    heads, mlps = torch.zeros_like(before), torch.zeros_like(before)
    for layer in range(component.layer, facts.n_layers):
        heads = heads + _change(Site("attn_out", layer), clean, ablated, u)
        mlps = mlps + _change(Site("mlp_out", layer), clean, ablated, u)
        if layer == component.layer:
            heads, mlps = _of_others(model, component, heads, mlps, after - before)
    last, final = Site("resid_post", facts.n_layers - 1), attribution.final_norm(model)
    ratio = (final.scale(ablated[last]) / final.scale(clean[last]))[..., 0]
    norm = (ablated[last] * u).sum(-1) * (1 / ratio - 1)
    change = ((ablated[last] - clean[last]) * u).sum(-1) + norm
    values = (before, after, change, heads, mlps, norm, ratio)
    return TextRepair(component, *(value.reshape(text.places.shape) for value in values))


def own_direct_effect(
    model: Model, component: Component, run: Run, direction: Float[Tensor, "prompt 1 d_model"]
) -> Float[Tensor, "prompt 1"]:
    """Return a component's own direct effect, from what a run read at its block."""
    if component.head is None:
        return torch.stack([(run[site] * direction).sum(-1) for site in component.sites]).sum(0)
    z = run[Site("z", component.layer)]
    y = attribution.through_post_norm(model, component.layer, z, direction)
    return (z[:, :, component.head] * y[:, :, component.head]).sum(-1)


def _change(site: Site, clean: Run, ablated: Run, direction: Tensor) -> Tensor:
    return ((ablated[site] - clean[site]) * direction).sum(-1)


def _of_others(model: Model, component: Component, heads: Tensor, mlps: Tensor, own: Tensor) -> tuple[Tensor, Tensor]:
    """Leave the component's own change out of what its block's attention and MLP changed by."""
    nothing = torch.zeros_like(own)
    if component.part == "layer":
        return nothing, nothing
    if component.part == "mlp":
        return nothing, mlps - own
    # Without a shared post-norm the other heads of the block are what they were, and a difference would be rounding.
    return (heads - own if model.facts.post_norms else nothing), (nothing if model.facts.parallel else mlps)
