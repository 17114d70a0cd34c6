"""What steering costs on ordinary text: how far predictions move, token by token, where nothing calls for it.

On texts that have nothing to do with the concept, for every position with a next token,

    KL(p || p')  of the clean and the steered prediction        loss' - loss  of the token that really follows

so exp(mean(loss' - loss)) is the ratio of perplexities. Positions are sampled, since a vocabulary of 262,144 makes a
KL costly; the clean pass is made once. For positions that speak of generated tokens, a text counts as generated after
its first token.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from mechint.effects.divergence import divergence
from mechint.effects.documents import Documents
from mechint.effects.sampling import destinations
from mechint.errors import InterventionError
from mechint.model.base import Model, Write
from mechint.positions import TokenBatch, columns
from mechint.prompts import PromptSet, natural
from mechint.sites import Site

_FINAL = Site("final_norm")


@dataclass(frozen=True, eq=False)
class Damage:
    """What a change does at each sampled position; in nats."""

    kl: Float[np.ndarray, " at"]
    loss_change: Float[np.ndarray, " at"]
    document: Int[np.ndarray, " at"]
    """Which document each position is of: positions of one document are drawn together in a bootstrap."""

    @property
    def mean_kl(self) -> float:
        """Average over positions."""
        return float(self.kl.mean())

    @property
    def p95_kl(self) -> float:
        """The KL that 5 % of the positions exceed: a vector can spare most tokens and ruin a few."""
        return float(np.quantile(self.kl, 0.95))

    @property
    def perplexity_ratio(self) -> float:
        """Steered over clean perplexity."""
        return math.exp(float(self.loss_change.mean()))


class NeutralTexts:
    """Texts on which damage is measured, with the clean predictions at hand.

    Args:
        model: whose.
        texts: what to read; by default passages of Python's manual (`prompts.natural`).
        n: how many passages, if no texts are given.
        length: tokens of each, BOS included.
        positions: sampled in each text.
        seed: of the sample.

    Raises:
        PromptError: fewer than two texts are that long.
        InterventionError: a plan is in force on the model, so that its predictions are not clean.
    """

    def __init__(
        self,
        model: Model,
        texts: PromptSet | None = None,
        *,
        n: int = 32,
        length: int = 64,
        positions: int = 16,
        seed: int = 0,
    ) -> None:
        if model.steerings:
            raise InterventionError("Neutral texts are read without steering first. Make them outside of any plan.")
        self.model = model
        chosen = natural(n=n, seed=seed, min_words=length, joined=True) if texts is None else texts
        self._documents = Documents.cut(chosen, model, length)
        self._at = destinations(self._documents, positions, seed)
        self.name, self.clusters = chosen.name, self._documents.clusters
        self._clean = self._pass({})

    def __len__(self) -> int:
        return len(self._documents)

    @property
    def about(self) -> dict[str, Any]:
        """What was read, for a record of the measurement."""
        rows, at = self._at.shape
        return {"texts": self.name, "n": rows, "length": self._documents.length, "positions": at}

    @torch.no_grad()
    def damage(self, write: Write | None = None) -> Damage:
        """Measure what writes do, or, without any, the plans that are in force on the model."""
        steered = self._pass(write or {})
        clean, places = self._clean.flatten(0, 1), self._at
        next_tokens = self._documents.next_tokens.gather(1, places).flatten()
        found = divergence(self.model, clean, (steered - self._clean).flatten(0, 1)[None], next_tokens)
        document = np.repeat(np.arange(len(places)), places.shape[1])
        return Damage(found.kl[0].numpy(), found.loss_change[0].numpy(), document)

    def _pass(self, write: Write) -> Float[Tensor, "batch at d_model"]:
        """Return the output of the final norm at the sampled positions."""
        found: list[Tensor] = []
        for which in self._documents.groups():
            rows = self._documents.tokens[which].tolist()
            batch = TokenBatch.from_rows(rows, prompt_lengths=[1] * len(rows), tokenizer=self.model.tokenizer)
            found.append(self.model.run(batch, read={_FINAL: columns(self._at[which])}, write=write)[_FINAL])
        return torch.cat(found).float()
