r"""Heads token by token: what a head does at every position of a text, for reading rather than for averaging.

At position d, with h_d what the head writes, mu_d its mean there, and everything along the direct path with the clean
final scale (see `effects.head_outputs`):

    loss_change         loss of the next token with mu_d for h_d, minus clean      above 0: the head helps here
    loss_change_kept    the same with h'_d, the part of h_d that copy suppression explains
    kl                  KL(clean || mu_d for h_d)
    suppressed, boosted the most negative and most positive of h_d · u_t over the whole vocabulary
    in_context          tokens of the text up to d, by their logits in the logit lens at d before the head's block
    steps               tokens of the text that are predicted, attended to, suppressed; see `three_steps`

The logit lens is the final norm applied to the stream before the block. Position 0, where heads rest, is a source of
attention but no token of the text. McDougall et al. 2023, "Copy Suppression", section 3, and its web page.
"""

import functools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor

from mechint.effects.attribution import final_norm
from mechint.effects.divergence import divergence
from mechint.effects.documents import Documents
from mechint.effects.head_outputs import HeadRun, read_heads, to_logits
from mechint.effects.predictions import Predictions, extreme_tokens, predictions
from mechint.errors import ConfigError
from mechint.model.base import Model
from mechint.probes.copy_suppression.context_tokens import eligible_sources, kept_sources
from mechint.probes.copy_suppression.cspa import keep_projections, unit
from mechint.probes.copy_suppression.three_steps import ATTENDED_TOP, LENS_TOP, LOWERED_TOP
from mechint.sites import head_label

SOURCES, EXTREMES, LIKELIEST, IN_CONTEXT = 8, 10, 5, 5
"""How many sources, tokens of the direct effect, predictions and tokens of the text are listed."""
DIGITS = 5
"""Decimals of the numbers in lists."""

Keep = Callable[[HeadRun, Float[Tensor, "pos d_model"]], Float[Tensor, "batch pos d_model"]]
"""From a head and its means to the output that is left to it."""
Name = Callable[[int], str]


def token_details(
    model: Model,
    documents: Documents,
    heads: Sequence[tuple[int, int]],
    means: Float[Tensor, "layer head pos d_model"],
    *,
    cspa: Keep | None = None,
    excluded: Int[Tensor, " column"] | None = None,
) -> pd.DataFrame:
    """Describe some heads at every position of documents.

    Meant for the few heads and documents that somebody reads: each head takes several products of every position with
    the whole of W_U.

    Args:
        model: the model.
        documents: texts of one length.
        heads: pairs of layer and query head.
        means: mean outputs (see `mean_outputs`), over many more texts if possible.
        cspa: what copy suppression keeps of a head's output, such as `copy_suppression_kept`; without it
            `loss_change_kept` is NaN.
        excluded: tokens that are not counted among those of the text, such as `context_tokens.function_tokens`.

    Returns:
        One row a head, document and position, the heads in the given order: `label`, `document`, `position`, `token`,
        `next_token` (empty at the end), in nats `loss`, `loss_change`, `loss_change_kept` (NaN at the end) and `kl`;
        and as JSON, the most important first, `attention` [position, weight], `suppressed` and `boosted` [token,
        logits], `predicted` and `predicted_without` [token, probability], `in_context` [token, first position, logit],
        `steps` {predicted, attended, suppressed, same: tokens}. Logits are those before a soft-cap.

    Raises:
        ConfigError: no heads.
    """
    if not heads:
        raise ConfigError("No heads to describe. Give at least one, such as (10, 7).")
    left_out = frozenset[int]() if excluded is None else frozenset[int](excluded.tolist())
    frames = [_batch(model, batch, heads, means, cspa, left_out) for batch in documents.batches()]
    order = {head_label(*head): place for place, head in enumerate(heads)}
    together = pd.concat(frames, ignore_index=True)
    return together.sort_values(by="label", key=lambda labels: labels.map(order), kind="stable", ignore_index=True)


def copy_suppression_kept(model: Model, excluded: Int[Tensor, " column"]) -> Keep:
    """Return the rule of the copy-suppression-preserving ablation, for `token_details`; see `cspa`.

    Args:
        model: the model.
        excluded: as in `token_details`.
    """
    final = final_norm(model)

    def keep(run: HeadRun, mean: Float[Tensor, "pos d_model"]) -> Float[Tensor, "batch pos d_model"]:
        outputs = final.centre(final.gain * model.unembedding(run.tokens))
        lens = torch.einsum("bqd,bkd->bqk", run.resid_pre, outputs)
        eligible = eligible_sources(run.tokens, excluded, model.facts.windows[run.layer])
        kept = kept_sources(lens[..., None], run.tokens, eligible)[..., 0]
        return keep_projections(run.attention, run.sources, run.post_factor, mean, unit(outputs), kept)

    return keep


def _batch(
    model: Model,
    documents: Documents,
    heads: Sequence[tuple[int, int]],
    means: Float[Tensor, "layer head pos d_model"],
    cspa: Keep | None,
    left_out: frozenset[int],
) -> pd.DataFrame:
    runs, shape, name = list(read_heads(model, documents, heads)), documents.tokens.shape, namer(model.tokenizer)
    clean = runs[0].resid_final
    away = [means[run.layer, run.head] - run.output for run in runs]
    if cspa is not None:
        away += [cspa(run, means[run.layer, run.head]) - run.output for run in runs]
    changes = torch.stack([to_logits(model, change, clean) for change in away]).flatten(1, 2)
    normalised = final_norm(model)(clean).flatten(0, 1)
    # The last position has no next token: any will do, and what comes of it is taken out again.
    following = documents.tokens.roll(-1, dims=1).flatten()
    moved = divergence(model, normalised, changes, following)
    likeliest = predictions(model, normalised, changes[: len(runs)], LIKELIEST)
    known = torch.ones(shape)
    known[:, -1] = torch.nan
    loss, loss_change = moved.loss * known.flatten(), moved.loss_change * known.flatten()
    if cspa is None:
        loss_change = torch.cat([loss_change, torch.full_like(loss_change, torch.nan)])
    places = {
        "document": np.repeat(np.array(documents.ids, dtype=object), documents.length),
        "position": np.tile(np.arange(documents.length), len(documents)),
        "token": [name(token) for row in documents.tokens.tolist() for token in row],
        "next_token": [text for row in documents.next_tokens.tolist() for text in [*map(name, row), ""]],
        "loss": loss.numpy(),
    }
    frames = [
        pd.DataFrame(
            {"label": head_label(run.layer, run.head), **places}
            | {"loss_change": loss_change[j].numpy(), "loss_change_kept": loss_change[len(runs) + j].numpy()}
            | {"kl": moved.kl[j].numpy()}
            | {"predicted": _likely(likeliest, 0, name), "predicted_without": _likely(likeliest, j + 1, name)}
            | _head_lists(model, documents, run, left_out, name)
        )
        for j, run in enumerate(runs)
    ]
    return pd.concat(frames, ignore_index=True)


def _head_lists(
    model: Model, documents: Documents, run: HeadRun, left_out: frozenset[int], name: Name
) -> dict[str, list[str]]:
    """Return the columns that are lists and belong to the head, as JSON."""
    lens = final_norm(model)(run.resid_pre)
    writes = to_logits(model, run.output, run.resid_final).flatten(0, 1)
    lowered, raised = (_extremes(model, writes, lowest) for lowest in (True, False))
    likely = extreme_tokens(model, lens.flatten(0, 1), LENS_TOP).tolist()
    tokens = documents.tokens
    own = torch.einsum("bqd,bkd->bqk", lens, model.unembedding(tokens)) + model.output_bias(tokens)[:, None]
    columns: dict[str, list[str]] = {
        "attention": [],
        "suppressed": [_json([name(t), v] for t, v in pairs[:EXTREMES]) for pairs in lowered],
        "boosted": [_json([name(t), v] for t, v in pairs) for pairs in raised],
        "in_context": [],
        "steps": [],
    }
    for i, row in enumerate(tokens.tolist()):
        weights, logits = run.attention[i].tolist(), own[i].tolist()
        for d in range(len(row)):
            at = i * len(row) + d
            sources = sorted((s for s in range(d + 1) if weights[d][s] > 0), key=lambda s: (-weights[d][s], s))
            columns["attention"].append(_json([s, weights[d][s]] for s in sources[:SOURCES]))
            # By token where it stands first; position 0 is no token of the text.
            first = {row[s]: s for s in range(d, 0, -1) if row[s] not in left_out}
            best = sorted(first, key=lambda t: (-logits[d][first[t]], first[t]))[:IN_CONTEXT]
            columns["in_context"].append(_json([name(t), first[t], logits[d][first[t]]] for t in best))
            attended = [row[s] for s in sources if s > 0][:ATTENDED_TOP]
            steps = _Steps.of(first, likely[at], attended, [t for t, _ in lowered[at][:LOWERED_TOP]])
            columns["steps"].append(steps.json(name))
    return columns


@dataclass(frozen=True)
class _Steps:
    """Which tokens of the text take which step; see `three_steps`."""

    predicted: list[int]
    attended: list[int]
    suppressed: list[int]

    @classmethod
    def of(cls, first: Mapping[int, int], likely: list[int], attended: list[int], lowered: list[int]) -> "_Steps":
        return cls(*([t for t in dict.fromkeys(found) if t in first] for found in (likely, attended, lowered)))

    def json(self, name: Name) -> str:
        same = [t for t in self.predicted if t in self.attended and t in self.suppressed]
        found = {"predicted": self.predicted, "attended": self.attended, "suppressed": self.suppressed, "same": same}
        return json.dumps({step: [name(t) for t in tokens] for step, tokens in found.items()}, ensure_ascii=False)


def _extremes(model: Model, writes: Float[Tensor, "at d_model"], lowest: bool) -> list[list[tuple[int, float]]]:
    """Return for each position the tokens whose logits the head moves most, and by how much."""
    count = max(EXTREMES, LOWERED_TOP) if lowest else EXTREMES
    tokens = extreme_tokens(model, writes, count, lowest=lowest, with_bias=False)
    values = torch.einsum("nd,ncd->nc", writes, model.unembedding(tokens))
    return [list(zip(t, v, strict=True)) for t, v in zip(tokens.tolist(), values.tolist(), strict=True)]


def _likely(found: Predictions, which: int, name: Name) -> list[str]:
    tokens, chances = found.tokens[which].tolist(), found.probabilities[which].tolist()
    return [_json([name(t), p] for t, p in zip(*pair, strict=True)) for pair in zip(tokens, chances, strict=True)]


def _json(entries: Any) -> str:
    """Write a list of lists, with as many digits as anybody reads."""
    rounded = [[round(x, DIGITS) if isinstance(x, float) else x for x in entry] for entry in entries]
    return json.dumps(rounded, ensure_ascii=False)


def namer(tokenizer: Any) -> Name:
    """Return a function from tokens to their text, with the leading blank that some tokenizers drop.

    A token that is part of a character has no text of its own, and goes by its name in the vocabulary.
    """

    @functools.cache
    def name(token: int) -> str:
        text = str(tokenizer.decode([token], clean_up_tokenization_spaces=False))
        entry = str(tokenizer.convert_ids_to_tokens(token))
        if "�" in text:
            return entry
        blank = entry[:1] in ("▁", "Ġ")  # SentencePiece's and GPT-2's ways of writing one
        return f" {text}" if blank and not text[:1].isspace() else text

    return name
