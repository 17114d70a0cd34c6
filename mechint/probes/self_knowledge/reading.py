r"""Reading a model at the last token of many texts: log probabilities of labels, the stream, and the lens on it.

    p^l = softmax over the labels of  W_U · Norm_f(h^l)             h^l: the stream behind block l

The lens goes through the final norm at every block (Xie et al. 2024, "Calibrating Reasoning in Language Models with
Internal Consistency", arXiv 2405.18711), and at the last block it gives what the model says, but for a final soft-cap.
What texts have in common at their beginning, such as examples, is read once.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mechint.effects.attribution import final_norm
from mechint.model.base import Logits, Model
from mechint.positions import TokenBatch, prompt
from mechint.sites import Site

_BATCH = 64


@dataclass(frozen=True, eq=False)
class Read:
    """What was read behind each of some texts."""

    log_p: Float[np.ndarray, "prompt column"]
    """Of each label, in nats, among the whole vocabulary."""
    streams: Float[Tensor, "prompt layer d_model"]
    """Behind every block; of width 0 if they were not asked for."""

    @property
    def mass(self) -> Float[np.ndarray, " prompt"]:
        """The probability of all labels together."""
        return np.exp(self.log_p).sum(1)

    @property
    def among(self) -> Float[np.ndarray, "prompt column"]:
        """The probability of each label among all of them."""
        p = np.exp(self.log_p - self.log_p.max(1, keepdims=True))
        return p / p.sum(1, keepdims=True)


@torch.no_grad()
def read_last(
    model: Model, rows: Sequence[Sequence[int]], labels: Sequence[Sequence[int]], *, streams: bool = False
) -> Read:
    """Read labels, equally many for every row, and the stream behind the last token of each row.

    Args:
        model: what is read.
        rows: token rows.
        labels: of each row.
        streams: whether to keep the streams.
    """
    sites = [Site("resid_post", layer) for layer in range(model.facts.n_layers)] if streams else []
    shared = _beginning(rows)
    past = model.new_past()
    if shared:
        model.run(TokenBatch.from_rows([shared], pad_left=True), past=past)
    log_p = np.empty((len(rows), len(labels[0])))
    kept = torch.empty(len(rows), len(sites), model.facts.d_model if streams else 0)
    for part in _alike([len(row) for row in rows]):
        batch = TokenBatch.from_rows([rows[i] for i in part], pad_left=True)
        run = model.run(
            batch,
            read=dict.fromkeys(sites, prompt(-1)),
            logits=Logits(at=prompt(-1)),
            past=past.fork([0] * len(part)) if shared else None,
        )
        assert run.logits is not None
        every = run.logits[:, 0].double()
        wanted = torch.tensor([list(labels[i]) for i in part])
        log_p[part] = (every.gather(1, wanted) - every.logsumexp(-1, keepdim=True)).numpy()
        for at, site in enumerate(sites):
            kept[part, at] = run[site][:, 0].float()
    return Read(log_p, kept)


@torch.no_grad()
def lens(
    model: Model, streams: Float[Tensor, "prompt layer d_model"], labels: Sequence[Sequence[int]]
) -> Float[np.ndarray, "prompt layer column"]:
    """Return p^l of every row, block and label."""
    columns, norm = torch.tensor([list(own) for own in labels]), final_norm(model)
    directions, bias = model.unembedding(columns), model.output_bias(columns)
    logits = torch.einsum("nld,nkd->nlk", norm(streams), directions) + bias[:, None]
    return logits.double().softmax(-1).numpy()


def _beginning(rows: Sequence[Sequence[int]]) -> Sequence[int]:
    """Return what all rows begin with; at least the last token of each is left to read."""
    shortest = min(rows, key=len)[:-1]
    differing = (at for at, token in enumerate(shortest) if any(row[at] != token for row in rows))
    return shortest[: next(differing, len(shortest))]


def _alike(lengths: Sequence[int]) -> list[list[int]]:
    """Divide rows into batches of one length."""
    by_length: dict[int, list[int]] = {}
    for at, length in enumerate(lengths):
        by_length.setdefault(length, []).append(at)
    return [own[start : start + _BATCH] for own in by_length.values() for start in range(0, len(own), _BATCH)]
