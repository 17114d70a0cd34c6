"""Writing on from rows of tokens, in batches, under a plan or none; and what plans cost on neutral text."""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext

import pandas as pd
import torch

from mechint.errors import PromptError
from mechint.model.base import Model
from mechint.prompts import PromptSet
from mechint.steering.decoder import Decoder, Row, Settings
from mechint.steering.plan import Plan
from mechint.steering.sampling import Sampling, generators
from mechint.vectors.damage import NeutralTexts

_PASSAGE, _POSITIONS = 32, 8  # tokens of a neutral text, and those of them at which damage is measured


@torch.no_grad()
def write(
    model: Model,
    rows: Sequence[Sequence[int]],
    names: Sequence[str],
    plan: Plan | None = None,
    *,
    max_new_tokens: int,
    temperature: float,
    batch: int,
    seed: int,
) -> list[tuple[int, ...]]:
    """Return what the model writes behind each row, without the token that ends a text.

    Args:
        model: what writes.
        rows: of tokens; they are used as they are.
        names: of the rows: what is drawn for one depends on its name and the seed, not on its company.
        plan: what to change meanwhile.
        max_new_tokens: the most that is written; less where the model reads no further, and nothing behind a row that
            fills its context.
        temperature: 0 takes the most likely token.
        batch: rows written together.
        seed: of the draws.
    """
    written = [Row(at, generator) for at, generator in enumerate(generators(names, seed))]
    order = sorted((at for at in range(len(rows)) if len(rows[at]) < model.facts.n_ctx), key=lambda at: len(rows[at]))
    for first in range(0, len(order), batch):
        part = order[first : first + batch]
        room = model.facts.n_ctx - max(len(rows[at]) for at in part)
        settings = Settings(min(max_new_tokens, room), Sampling(temperature), end=model.end_tokens)
        with nullcontext() if plan is None else model.apply(plan):
            for _ in Decoder(model, [list(rows[at]) for at in part], [written[at] for at in part], settings).steps():
                pass
    ended = [one.tokens[:-1] if one.finish == "eos" else one.tokens for one in written]
    return [tuple(tokens) for tokens in ended]


def damage(model: Model, texts: PromptSet, plans: Mapping[float, Plan | None], seed: int) -> pd.DataFrame:
    """Return `alpha`, `kl_mean`, `kl_p95` (nats) and `perplexity_ratio` of each plan; no rows for foreign texts.

    Neutral texts are in English, and a model may read a language of its own: then nothing can be measured on them.
    """
    columns = ["alpha", "kl_mean", "kl_p95", "perplexity_ratio"]
    try:
        neutral = NeutralTexts(model, texts, length=_PASSAGE, positions=_POSITIONS, seed=seed)
    except PromptError:
        return pd.DataFrame(columns=columns, dtype=float)
    rows: list[tuple[float, ...]] = []
    for alpha, plan in plans.items():
        with nullcontext() if plan is None else model.apply(plan):
            found = neutral.damage()
        rows.append((alpha, found.mean_kl, found.p95_kl, found.perplexity_ratio))
    return pd.DataFrame(rows, columns=columns)
