"""CSPA of a model's heads on documents: one row a document, position, head and rule; see `cspa`.

All heads of a block and all rules are changes of one clean prediction, so the softmax over the vocabulary and the
reading of W_U, which is nearly all of the cost, are shared (`effects.divergence`).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mechint.effects.attribution import final_norm
from mechint.effects.divergence import divergence
from mechint.effects.documents import Documents
from mechint.effects.head_outputs import HeadRun, read_heads, to_logits
from mechint.errors import ConfigError
from mechint.model.base import Model
from mechint.probes.copy_suppression.context_tokens import eligible_sources, kept_sources
from mechint.probes.copy_suppression.cspa import (
    Baseline,
    Rule,
    check_rules,
    keep_projections,
    keep_sources,
    keep_span,
    unit,
)
from mechint.probes.copy_suppression.word_forms import WordForms
from mechint.sites import head_label
from mechint.statistics import generator

_NUMBERS_A_CALL = 2**26
"""Numbers in the changes of one pass over the vocabulary: 256 MB."""


@dataclass(frozen=True)
class Vocabulary:
    """What CSPA needs to know of a vocabulary."""

    excluded: Int[Tensor, " column"]
    """Tokens that are no sources of interest: see `context_tokens.function_tokens`."""
    forms: WordForms | None = None
    """Needed by rules that project on several forms of a token."""
    seed: int = 0
    """Of the controls."""


@torch.no_grad()
def cspa_effects(
    model: Model,
    documents: Documents,
    heads: Sequence[tuple[int, int]],
    rules: Sequence[Rule],
    means: Float[Tensor, "layer head pos d_model"],
    at: Int[Tensor, "batch at"],
    vocabulary: Vocabulary,
) -> pd.DataFrame:
    """Measure rules on heads: one row a document, position, head and rule.

    Columns: `id`, `position`, `label`, `layer`, `head`, `rule`, `baseline`; `kl` of CSPA and `kl_ablated` of the full
    ablation, to the rule's own baseline, from the clean prediction; `loss_change` and `loss_change_ablated`: loss minus
    clean loss; all in nats.

    Args:
        model: the model.
        documents: few enough for one pass (see `Documents.batches`).
        heads: pairs of layer and query head, best of one layer.
        rules: what is kept.
        means: mean output of every head at every position (see `head_outputs.mean_outputs`).
        at: positions of each document (see `effects.sampling.destinations`).
        vocabulary: which tokens are no sources, and word forms.

    Raises:
        ConfigError: rules that do not go together, word forms that are needed and missing, or means of another length.
    """
    check_rules(rules)
    if means.shape[2] != documents.length:
        raise ConfigError(
            f"Means of {means.shape[2]} positions for documents of {documents.length} tokens. Give `mean_outputs` of "
            "documents of the same length."
        )
    baselines: tuple[Baseline, ...] = tuple(dict.fromkeys(rule.baseline for rule in rules))
    a_head = (len(rules) + len(baselines)) * at.numel() * model.facts.d_model
    size = max(1, _NUMBERS_A_CALL // a_head)
    ordered = sorted(heads)
    frames: list[pd.DataFrame] = []
    places = _Places(model, documents, vocabulary)
    pending: list[tuple[HeadRun, Tensor]] = []
    for i, run in enumerate(read_heads(model, documents, ordered)):
        pending.append((run, _changes(places, run, rules, baselines, means[run.layer, run.head], at)))
        if len(pending) == size or i == len(ordered) - 1 or ordered[i + 1][0] != run.layer:
            frames += _measured(model, documents, pending, rules, baselines, at)
            pending = []
    return pd.concat(frames, ignore_index=True)


def _changes(
    places: "_Places",
    run: HeadRun,
    rules: Sequence[Rule],
    baselines: Sequence[Baseline],
    mean: Float[Tensor, "pos d_model"],
    at: Int[Tensor, "batch at"],
) -> Float[Tensor, "change batch at d_model"]:
    """Return h' - h as logits see it: of every full ablation, then of every rule."""
    output = run.output
    rewritten = [places.baseline(name, mean).expand_as(output) for name in baselines]
    rewritten += [places.rewritten(run, rule, mean) for rule in rules]
    here = at[..., None].expand(-1, -1, output.shape[-1])
    resid = run.resid_final.gather(1, here)
    return torch.stack([to_logits(places.model, (new - output).gather(1, here), resid) for new in rewritten])


def _measured(
    model: Model,
    documents: Documents,
    pending: Sequence[tuple[HeadRun, Float[Tensor, "change batch at d_model"]]],
    rules: Sequence[Rule],
    baselines: Sequence[Baseline],
    at: Int[Tensor, "batch at"],
) -> Iterator[pd.DataFrame]:
    resid = pending[0][0].resid_final.gather(1, at[..., None].expand(-1, -1, model.facts.d_model))
    changes = torch.cat([changes for _, changes in pending]).flatten(1, 2)
    following = documents.tokens.gather(1, at + 1).flatten()
    found = divergence(model, final_norm(model)(resid).flatten(0, 1), changes, following)
    n_each = len(baselines) + len(rules)
    kl, loss = (values.view(len(pending), n_each, -1).numpy() for values in (found.kl, found.loss_change))
    for i, (run, _) in enumerate(pending):
        for j, rule in enumerate(rules, start=len(baselines)):
            full = baselines.index(rule.baseline)
            yield pd.DataFrame(
                {"id": np.repeat(np.array(documents.ids, dtype=object), at.shape[1]), "position": at.flatten().numpy()}
                | {"label": head_label(run.layer, run.head), "layer": run.layer, "head": run.head}
                | {"rule": rule.name, "baseline": rule.baseline}
                | {"kl": kl[i, j], "kl_ablated": kl[i, full]}
                | {"loss_change": loss[i, j], "loss_change_ablated": loss[i, full]}
            )


@dataclass
class _Places:
    """The source tokens of a batch: which are kept, and along which directions. Shared by the heads of a block."""

    model: Model
    documents: Documents
    vocabulary: Vocabulary
    _layer: int = -1
    _kept: dict[tuple[float, int], Tensor] = field(default_factory=dict[tuple[float, int], Tensor])
    _directions: dict[tuple[str, int], Tensor] = field(default_factory=dict[tuple[str, int], Tensor])

    def rewritten(
        self, run: HeadRun, rule: Rule, mean: Float[Tensor, "pos d_model"]
    ) -> Float[Tensor, "batch pos d_model"]:
        """Return h' of a head under a rule."""
        parts = (run.attention, run.sources, run.post_factor, self.baseline(rule.baseline, mean))
        kept = self.kept(run, rule)
        if not rule.ov:
            return keep_sources(*parts, kept[..., 0])
        directions = self.directions(rule)
        if rule.forms > 1:
            return keep_span(*parts, directions, kept)
        return keep_projections(*parts, directions[..., 0, :], kept[..., 0], rule.sign)

    def baseline(self, name: Baseline, mean: Float[Tensor, "pos d_model"]) -> Float[Tensor, "pos d_model"]:
        """Return what an ablated head is set to at each position."""
        if name == "zero":
            return torch.zeros_like(mean)
        if name == "mean":
            return mean
        order = generator(self.vocabulary.seed, "shuffled mean").permutation(len(mean) - 1) + 1
        return mean[torch.from_numpy(np.concatenate([[0], order]))]

    def kept(self, run: HeadRun, rule: Rule) -> Bool[Tensor, "batch query key form"]:
        """Return which forms of which sources a rule keeps at each destination."""
        if run.layer != self._layer:
            self._layer = run.layer
            self._kept.clear()
        key = (rule.share if rule.qk else -1.0, rule.forms)
        if key not in self._kept:
            tokens = self.tokens("own", rule.forms)
            if rule.qk:
                window = self.model.facts.windows[run.layer]
                own = torch.einsum("bqd,bkfd->bqkf", run.resid_pre, self.outputs(tokens))
                lens = own.masked_fill((tokens < 0)[:, None], -torch.inf)
                eligible = eligible_sources(run.tokens, self.vocabulary.excluded, window)
                self._kept[key] = kept_sources(lens, run.tokens, eligible, rule.share)
            else:
                self._kept[key] = (tokens >= 0)[:, None].expand(-1, tokens.shape[1], -1, -1)
        return self._kept[key]

    def directions(self, rule: Rule) -> Float[Tensor, "batch key form d_model"]:
        """Return the unit vectors that a rule projects on, zeros where there is none."""
        key = (rule.directions, rule.forms)
        if key not in self._directions:
            tokens = self.tokens(*key)
            self._directions[key] = unit(self.outputs(tokens)) * (tokens >= 0)[..., None]
        return self._directions[key]

    def outputs(self, tokens: Int[Tensor, "batch key form"]) -> Float[Tensor, "batch key form d_model"]:
        """Return U[t], the direction of the stream along which a token's logit grows."""
        final = final_norm(self.model)
        return final.centre(final.gain * self.model.unembedding(tokens.clamp(min=0)))

    def tokens(self, which: str, forms: int) -> Int[Tensor, "batch key form"]:
        """Return the tokens whose directions are meant, -1 for none."""
        own = self.documents.tokens
        if which == "random token":
            return _other_tokens(self.documents, self.vocabulary)[..., None]
        if which == "shuffled targets":
            order = generator(self.vocabulary.seed, "shuffled targets").permutation(self.model.facts.d_vocab)
            return torch.from_numpy(order)[own][..., None]
        if forms == 1:
            return own[..., None]
        if self.vocabulary.forms is None:
            raise ConfigError("A rule projects on several forms of a token. Give a Vocabulary with forms=WordForms(…).")
        return self.vocabulary.forms.table(own, forms)


def _other_tokens(documents: Documents, vocabulary: Vocabulary) -> Int[Tensor, "batch key"]:
    """Draw for every source another token of interest of its document; -1 where there is none."""
    drawn = torch.full_like(documents.tokens, -1)
    for i, name in enumerate(documents.ids):
        rng, row = generator(vocabulary.seed, "random token", name), documents.tokens[i]
        content = row[1:][~torch.isin(row[1:], vocabulary.excluded)].unique()
        for place, token in enumerate(row):
            others = content[content != token]
            if len(others):
                drawn[i, place] = others[int(rng.integers(len(others)))]
    return drawn
