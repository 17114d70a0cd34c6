"""The measurements behind a copy-suppression scan, a chunk of prompts at a time: one row a prompt and head.

At the last position d of a prompt, with s the first occurrence of the target token t in it, A the attention of a head,
v its values, u_t the output direction of t (final norm's scale frozen, post-norms applied; see `effects.attribution`):

    attention             A_ds
    cs_score              -(A_ds v_s W_O) · u_t                  what the one edge d -> s takes off the target's logit
    cs_control            -(A_ds v_s W_O) · u_r                  the same edge, r a random other token of the prompt
    direct_effect_target  c · u_t                                the whole head
    direct_effect_difference   c · (u_t - u_distractor)

Anti-induction score: on `[BOS] r_1 … r_n r_1 … r_n`, at every position of the second half, minus the effect on the
correct token of the edge to the position after the earlier instance. McDougall et al. 2023, "Copy Suppression",
section 5 and appendix; all in logits.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from mechint.effects import attribution
from mechint.effects.task import labels, missing, required
from mechint.model.base import Logits, Model
from mechint.positions import TokenBatch, columns, everywhere, prompt
from mechint.prompts import Encoded, RepeatedTokens
from mechint.sites import Site
from mechint.statistics import generator


def random_other_tokens(encoded: Encoded, seed: int) -> list[int]:
    """Draw for each prompt a token of it that is neither its first nor its target nor its distractor."""
    drawn: list[int] = []
    for i, row in enumerate(encoded.tokens):
        others = sorted({token for token in row[1:] if token not in (encoded.target[i], encoded.distractor[i])})
        rng = generator(seed, "random-token", encoded.ids[i])
        drawn.append(int(rng.choice(others)) if others else -1)
    return drawn


def edges(model: Model, encoded: Encoded, seed: int) -> pd.DataFrame:
    """Measure every head's edge to the target and its direct effects, for a chunk of prompts."""
    facts, n = model.facts, len(encoded)
    last, n_layers = prompt(-1), model.facts.n_layers
    read = attribution.stream_sites(model, last)
    read |= {Site("pattern", layer): last for layer in range(n_layers)}
    read |= {Site("v", layer): everywhere for layer in range(n_layers)}
    run = model.run(TokenBatch.from_rows(encoded.tokens), read=read)
    others = random_other_tokens(encoded, seed)
    wanted = torch.cat([labels(encoded), torch.tensor(others).clamp(min=0)[:, None]], 1)
    u = attribution.output_direction(model, wanted, run[Site("resid_post", n_layers - 1)].expand(-1, 3, -1))
    place = required(encoded.target_positions)
    values: dict[str, list[Tensor]] = {}
    for layer in range(n_layers):
        parts = attribution.source_effects(model, run, layer, u)  # [prompt, 3 tokens, head, source]
        edge = parts.take_along_dim(place[:, None, None, None], 3)[..., 0]
        direct = parts.sum(-1)
        pattern = run[Site("pattern", layer)][:, :, 0]
        found = {
            "attention": pattern.take_along_dim(place[:, None, None], 2)[..., 0],
            "cs_score": -edge[:, 0],
            "cs_control": -edge[:, 2],
            "direct_effect_target": direct[:, 0],
            "direct_effect_difference": direct[:, 0] - direct[:, 1],
        }
        for name, value in found.items():
            values.setdefault(name, []).append(value)
    stacked = {name: torch.stack(parts, 1).numpy().astype(float) for name, parts in values.items()}
    absent = missing(encoded.target_positions).numpy()
    for name in ("attention", "cs_score", "cs_control"):
        stacked[name][absent] = np.nan
    stacked["cs_control"][np.array(others) < 0] = np.nan
    stacked["direct_effect_difference"][missing(encoded.distractor).numpy()] = np.nan
    return _frame(encoded.ids, n_layers, facts.n_heads, {k: v.reshape(n, -1) for k, v in stacked.items()})


def prompt_rows(model: Model, encoded: Encoded) -> pd.DataFrame:
    """Measure what the model says at the end of each prompt of a chunk."""
    logits = model.run(TokenBatch.from_rows(encoded.tokens), logits=Logits(columns=labels(encoded)[:, None])).logits
    if logits is None:  # pragma: no cover - a run that is asked for logits gives them
        raise RuntimeError("no logits")
    found = logits[:, 0].numpy().astype(float)
    found[missing(encoded.distractor).numpy(), 1] = np.nan
    return pd.DataFrame(
        {
            "id": encoded.ids,
            "n_tokens": [len(row) for row in encoded.tokens],
            "target_position": [np.nan if p is None else float(p) for p in encoded.target_positions],
            "logit_target": found[:, 0],
            "logit_distractor": found[:, 1],
        }
    )


def anti_induction(model: Model, repeated: RepeatedTokens, chunk: range) -> pd.DataFrame:
    """Measure every head's anti-induction score on some rows of repeated random tokens."""
    rows = [repeated.tokens[i] for i in chunk]
    destinations = torch.tensor(repeated.destinations).expand(len(rows), -1)
    at = columns(destinations)
    n_layers = model.facts.n_layers
    read = attribution.stream_sites(model, at)
    read |= {Site("pattern", layer): at for layer in range(n_layers)}
    read |= {Site("v", layer): everywhere for layer in range(n_layers)}
    run = model.run(TokenBatch.from_rows(rows), read=read)
    correct = torch.tensor([repeated.correct[i] for i in chunk])
    u = attribution.output_direction(model, correct, run[Site("resid_post", n_layers - 1)])
    source = torch.tensor(repeated.sources)[None, :, None, None]
    scores: list[Tensor] = []
    for layer in range(n_layers):
        parts = attribution.source_effects(model, run, layer, u)  # [row, destination, head, source]
        scores.append(-parts.take_along_dim(source, 3)[..., 0].mean(1))
    table = torch.stack(scores, 1).numpy().astype(float).reshape(len(rows), -1)
    return _frame([repeated.ids[i] for i in chunk], n_layers, model.facts.n_heads, {"anti_induction_score": table})


def _frame(ids: Sequence[str], n_layers: int, n_heads: int, values: dict[str, np.ndarray]) -> pd.DataFrame:
    """One row a prompt and head, from arrays [prompt, layer x head]."""
    count = n_layers * n_heads
    keys = {
        "id": np.repeat(np.array(ids, dtype=object), count),
        "layer": np.tile(np.repeat(np.arange(n_layers), n_heads), len(ids)),
        "head": np.tile(np.arange(n_heads), len(ids) * n_layers),
    }
    return pd.DataFrame({**keys, **{name: value.reshape(-1) for name, value in values.items()}})
