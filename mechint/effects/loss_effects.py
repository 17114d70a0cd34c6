r"""What a head does to the loss, split into its direct and its indirect effect.

With r the final residual stream, h what the head adds to the stream at every position, and mu its mean per position:

    both       r_both = the final stream of a run in which the head adds mu instead of h
    direct     r_direct = r + (mu - h)             nothing but the head's own term changes
    indirect   r_indirect = r_both - (mu - h)      everything later answers, but the head's own term stays

so that r_direct + r_indirect - r = r_both. Each is read once with the final norm's scale frozen at that of the clean
run, and once with its own. "indirect, excluding" another, later head is the same with that head's z kept at the clean
run's in the rerun (behind a post-norm its term still moves with the scale of its block). The control is a change in a
random direction along the direct path, the scale frozen, as long as that of mu - h behind the final norm, where W_U
reads it: before it, a few dimensions may hold most of the length (Gemma 3), and a random direction would be far larger.

For a head of the last block r_indirect - r is what the block's own MLP adds because it reads the head; where attention
and MLP run in parallel (GPT-J, NeoX) it does not, and the indirect effect is 0. Behind a post-norm (Gemma 2 and 3) h is
the normalised term, and its block's scale is frozen. McDougall et al. 2023, "Copy Suppression", appendix on direct and
indirect effects.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor

from mechint import interventions
from mechint.effects.attribution import final_norm, head_outputs
from mechint.effects.divergence import Divergence, divergence
from mechint.effects.documents import Documents
from mechint.effects.head_outputs import rows_of, to_logits
from mechint.effects.sampling import random_directions
from mechint.errors import ConfigError
from mechint.interventions import Intervention
from mechint.model.base import Model, Restart, Run
from mechint.sites import Site, head_label
from mechint.statistics import bootstrap_ratio

BOTH, DIRECT, INDIRECT, EXCLUDING, CONTROL = (
    "both",
    "direct",
    "indirect",
    "indirect, excluding",
    "random direction",
)
FROZEN, RECOMPUTED = "frozen", "recomputed"
"""Scale of the final norm: of the clean run, or of the changed stream itself."""
MEASURES = ("loss_change", "absolute_loss_change", "kl")


def loss_effect_sums(
    model: Model,
    documents: Documents,
    heads: Sequence[tuple[int, int]],
    means: Float[Tensor, "layer head pos d_model"],
    at: Int[Tensor, "batch at"],
    *,
    excluding: tuple[int, int] | None = None,
    seed: int = 0,
) -> pd.DataFrame:
    """Set heads to their means, one at a time, and add up what that does to the loss of each document.

    Args:
        model: the model.
        documents: few enough for one pass (see `Documents.batches`).
        heads: pairs of layer and query head.
        means: mean outputs of every head (see `mean_outputs`).
        at: positions at which the loss is looked at (see `sampling.destinations`); the head is changed everywhere.
        excluding: a later head that is kept at its clean z in a further rerun.
        seed: of the random directions.

    Returns:
        Rows with `id`, `layer`, `head`, `label`, `effect`, `scale`, `n` positions, and sums over them, in nats:
        `loss` of the clean run, `loss_change` (ablated minus clean), `absolute_loss_change`, `kl` (clean to ablated).

    Raises:
        ConfigError: the excluded head does not come after every head that is ablated.
    """
    if excluding is not None and any(layer >= excluding[0] for layer, _ in heads):
        raise ConfigError(
            f"excluding {head_label(*excluding)}: expected a head of a later block than all of "
            f"{', '.join(head_label(*head) for head in heads)}, since no other head can answer them."
        )
    last, layers = Site("resid_post", model.facts.n_layers - 1), sorted({layer for layer, _ in heads})
    sites = [Site(part, layer) for layer in layers for part in ("resid_pre", "z", "attn_out")]
    kept = [] if excluding is None else [Site("z", *excluding)]
    clean = model.run(rows_of(documents), read=[*sites, *kept, last])
    return pd.concat(
        [
            _rows(documents, layer, head, _effects(model, documents, (layer, head), means, at, clean, kept, seed))
            for layer, head in heads
        ],
        ignore_index=True,
    )


def _effects(
    model: Model,
    documents: Documents,
    head: tuple[int, int],
    means: Float[Tensor, "layer head pos d_model"],
    at: Int[Tensor, "batch at"],
    clean: Run,
    kept: Sequence[Site],
    seed: int,
) -> tuple[list[tuple[str, str]], Divergence]:
    """Return each effect with its scale, and what it does."""
    before, own = clean[Site("resid_post", model.facts.n_layers - 1)], torch.arange(len(documents))[:, None]
    streams = changed_streams(model, documents, head, means[head], clean, kept)
    final, here = final_norm(model), before[own, at]
    after = torch.stack([stream[own, at] for stream in streams.values()])
    frozen, recomputed = to_logits(model, after - here, here.expand_as(after)), final(after) - final(here)
    size = frozen[list(streams).index(DIRECT)].norm(dim=-1)
    random = random_directions(size[None], here.shape[-1], documents.ids, seed, *head)
    names = [(effect, scale) for scale in (FROZEN, RECOMPUTED) for effect in streams]
    truth, changes = documents.tokens[own, at + 1].flatten(), torch.cat([frozen, recomputed, random]).flatten(1, 2)
    return [*names, (CONTROL, FROZEN)], divergence(model, final(here).flatten(0, 1), changes, truth)


def changed_streams(
    model: Model,
    documents: Documents,
    head: tuple[int, int],
    mean: Float[Tensor, "pos d_model"],
    clean: Run,
    kept: Sequence[Site] = (),
) -> dict[str, Float[Tensor, "batch pos d_model"]]:
    """Return the final stream of each effect of setting one head to its mean.

    Args:
        model: the model.
        documents: the documents of the clean run.
        head: layer and query head.
        mean: its mean output at every position.
        clean: a run that read `resid_pre`, `z` and `attn_out` of the block, `kept`, and the last `resid_post`.
        kept: z of a head that keeps its clean value in a further rerun; none: no such effect.
    """
    layer, number = head
    written, _ = head_outputs(model, layer, clean[Site("z", layer)])
    away = mean - written[:, :, number]
    last, attention = Site("resid_post", model.facts.n_layers - 1), Site("attn_out", layer)
    restart = Restart(layer, clean[Site("resid_pre", layer)])

    def rerun(more: Mapping[str | Site, Intervention]) -> Tensor:
        write: dict[str | Site, Intervention] = {attention: interventions.replace(clean[attention] + away), **more}
        return model.run(rows_of(documents), read=[last], write=write, from_=restart)[last]

    both = rerun({})
    streams = {BOTH: both, DIRECT: clean[last] + away, INDIRECT: both - away}
    if kept:
        streams[EXCLUDING] = rerun({site: interventions.replace(clean[site]) for site in kept}) - away
    return streams


def _rows(documents: Documents, layer: int, head: int, found: tuple[list[tuple[str, str]], Divergence]) -> pd.DataFrame:
    names, told = found
    shape = (len(told.kl), len(documents), -1)
    sums = {"loss_change": told.loss_change, "absolute_loss_change": told.loss_change.abs(), "kl": told.kl}
    loss = told.loss.view(len(documents), -1)
    return pd.DataFrame(
        {"id": np.tile(np.array(documents.ids, dtype=object), len(names))}
        | {"layer": layer, "head": head, "label": head_label(layer, head)}
        | {"effect": [effect for effect, _ in names for _ in documents.ids]}
        | {"scale": [scale for _, scale in names for _ in documents.ids]}
        | {"n": loss.shape[1], "loss": np.tile(loss.sum(1).numpy(), len(names))}
        | {name: values.view(shape).sum(2).flatten().numpy() for name, values in sums.items()}
    )


def loss_effect_table(rows: pd.DataFrame, clusters: Mapping[str, str], seed: int = 0) -> pd.DataFrame:
    """Summarise rows of `loss_effect_sums`: means over positions, with intervals that draw clusters of documents.

    Returns:
        One row a head, effect and scale: `loss_change`, `absolute_loss_change` and `kl` in nats a position, each with
        `_low` and `_high`; `loss`, the clean run's; `n_positions` went in.
    """
    found: list[dict[str, Any]] = []
    for _, own in rows.groupby(["label", "effect", "scale"], sort=False):
        about: dict[str, Any] = own.iloc[0][["layer", "head", "label", "effect", "scale"]].to_dict()
        above = own[list(MEASURES)].to_numpy(dtype=float)
        below = np.repeat(own["n"].to_numpy(dtype=float)[:, None], len(MEASURES), 1)
        ends = bootstrap_ratio(above, below, [clusters[str(name)] for name in own["id"]], seed=seed)
        about |= {"n_positions": own["n"].sum(), "loss": own["loss"].sum() / own["n"].sum()}
        for end, values in zip(("", "_low", "_high"), ends, strict=True):
            about |= {f"{name}{end}": float(values[i]) for i, name in enumerate(MEASURES)}
        found.append(about)
    return pd.DataFrame(found)
