"""Facts about a model, and the contract of the one verb that runs it.

`Model.run` serves capture (`read`), ablation, patching and injection (`write`), scoring (`logits`), and the speed of
all of them: `from_` restarts in the middle from a residual stream that is known already, `stop_after` ends early, and
logits are computed for the positions and vocabulary columns that are asked for, none by default (the unembedding of
a small model with a large vocabulary costs more than all its blocks).
"""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mechint.errors import PositionError, SiteError
from mechint.model.model_facts import ModelFacts
from mechint.model.past import Past
from mechint.model.steered import Steering
from mechint.model.steered import Write as Write
from mechint.model.weights import Weights
from mechint.positions import Positions, TokenBatch, everywhere, prompt
from mechint.prompts import tokenize
from mechint.sites import Site

Acting = TypeVar("Acting", covariant=True)
Read = Sequence[str | Site] | Mapping[str | Site, Positions]
Rows = TokenBatch | Sequence[Sequence[int]]


@dataclass(frozen=True)
class Logits:
    """Which logits to compute."""

    at: Positions = field(default_factory=lambda: prompt(-1))
    """Positions, equally many in every row."""
    columns: Int[Tensor, "*batch column"] | None = None
    """Vocabulary entries: one list for all, or one for every row and position `[batch, at, column]`; None for all."""
    capped: bool = True
    """Apply the model's final soft-cap; without it logits are linear in the normalised stream."""


@dataclass(frozen=True)
class Restart:
    """A residual stream from which to go on: what stood before block `layer`, so the blocks below are not run."""

    layer: int
    resid_pre: Float[Tensor, "batch pos d_model"]


@dataclass(frozen=True)
class Fired:
    """What one intervention did in one run."""

    site: str
    intervention: str
    tokens: int
    """Tokens that were rewritten; a token counts once, whether one head of it was rewritten or all."""
    relative_change: float
    """Mean over these of |h' - h| / |h|, all rewritten heads together; 0 where h was zero."""


@dataclass(frozen=True)
class Run:
    """What a run gave."""

    activations: Mapping[Site, Tensor]
    """By site: `[batch, at, ...]`, axes as in `Site.axes` (one head: without its axis)."""
    logits: Float[Tensor, "batch at column"] | None
    receipt: tuple[Fired, ...] = ()
    """One entry an intervention, in forward order."""

    def __repr__(self) -> str:
        """Say what is there, not every number of it."""
        read = ", ".join(f"{site} {tuple(value.shape)}" for site, value in self.activations.items()) or "nothing read"
        logits = "no logits" if self.logits is None else f"logits {tuple(self.logits.shape)}"
        return f"Run: {read}; {logits}; {len(self.receipt)} interventions fired"

    def __getitem__(self, site: str | Site) -> Tensor:
        """Return the activation that was read at a site.

        Raises:
            SiteError: it was not asked for.
        """
        site = Site.parse(site)
        if site not in self.activations:
            raise SiteError(
                f"{site} was not read in this run. Read: {', '.join(map(str, self.activations)) or 'nothing'}."
            )
        return self.activations[site]


@runtime_checkable
class Applicable(Protocol[Acting]):
    """Something that can act on a model for a while, such as a plan of steering."""

    def on(self, model: "Model") -> AbstractContextManager[Acting]:
        """Act on every pass until the context is left."""
        ...


class Model(Weights):
    """A model that can be read and rewritten at its sites."""

    facts: ModelFacts
    tokenizer: Any
    """A transformers tokenizer."""
    source: Mapping[str, str]
    """Where the weights come from, for the manifest."""

    def __repr__(self) -> str:
        """Say which model it is and how large."""
        f = self.facts
        return f"{f.name}: {f.n_layers} blocks, {f.n_heads} heads, d_model {f.d_model}, {f.d_vocab} tokens"

    @abstractmethod
    def run(
        self,
        tokens: Rows,
        read: Read = (),
        write: Write | None = None,
        logits: Logits | None = None,
        from_: Restart | None = None,
        stop_after: str | Site | None = None,
        past: Past | None = None,
    ) -> Run:
        """Run a batch of token rows.

        Args:
            tokens: rows of token ids; padded on the right if they are lists of different lengths.
            read: sites to return, at all positions (padding included); or a mapping from sites to the positions wanted
                of each, equally many in every row (of scores and patterns: the positions attended from). What is read
                at a site is what stands there after the writes to it.
            write: interventions by site, carried out in order.
            logits: which logits to return; none by default.
            from_: go on from this residual stream; sites before it are neither read nor written.
            stop_after: the last site that is needed; everything later is not computed.
            past: what was read of these very rows before. Give the whole rows all the same, padded on the left: only
                the columns that are not in the past are computed, read and written, and the past grows by them.

        Raises:
            SiteError: a site that this model has not, or that this run does not reach.
            PositionError: positions that select nothing, or a text longer than the model's context.
            NeverFiredError: an intervention that touched no token.
            InterventionError: an intervention that made NaN, infinity, or another shape.
        """

    @abstractmethod
    def new_past(self) -> Past:
        """Return an empty past, to be filled by `run`."""

    @abstractmethod
    def steered(self, steering: Steering) -> AbstractContextManager[None]:
        """Let a steering act on every pass through the model, whoever starts it, until the context is left."""

    @property
    @abstractmethod
    def steerings(self) -> Sequence[Steering]:
        """What is in force."""

    def bare(self) -> AbstractContextManager[None]:
        """Let passes go through no more of a backend's own modules than what they read or write needs; a tenth faster.

        The numbers are those of other passes but for rounding, so all that is compared should be measured in one way.
        """
        return nullcontext()

    def apply(self, plan: Applicable[Acting]) -> AbstractContextManager[Acting]:
        """Let a plan act on every pass inside the context, whoever starts it; gives what carries the receipt.

        Raises:
            NeverFiredError: on leaving, if a part of the plan never acted.
        """
        return plan.on(self)

    @property
    @abstractmethod
    def fingerprint(self) -> Mapping[str, str]:
        """Hashes of weights and tokenizer, attention implementation, number format: what makes two runs comparable."""

    @property
    @abstractmethod
    def agreement(self) -> Mapping[str, float]:
        """The measured agreement with plain transformers, run in another process (largest difference, KL)."""

    @property
    @abstractmethod
    def placement(self) -> Mapping[str, str]:
        """Where and how it runs: device, number format, attention implementation."""

    @property
    @abstractmethod
    def end_tokens(self) -> frozenset[int]:
        """Tokens that end a text."""

    def generate(self, prompts: Any, plan: Any = None, **settings: Any) -> Any:
        """Write on from prompts; see `steering.generation.generate`."""
        from mechint.steering.generation import generate

        return generate(self, prompts, plan, **settings)

    def tokenize(self, text: str) -> list[int]:
        """Turn a text into token ids, beginning with BOS exactly once if this tokenizer has one."""
        return list(tokenize(text, self.tokenizer))

    def batch(self, tokens: Rows) -> TokenBatch:
        """Pad rows of ids into a batch, after checking them against the vocabulary and the context length.

        Raises:
            PositionError: an empty row, an id outside the vocabulary, or a row that is too long.
        """
        if not isinstance(tokens, TokenBatch):
            tokens = TokenBatch.from_rows(tokens, tokenizer=self.tokenizer)
        longest = int(tokens.offset.max()) + 1
        if tokens.visible is not None and longest > self.facts.shortest_window:
            raise PositionError(
                f"Texts of {longest} tokens with an attention structure of their own do not fit the sliding window of "
                f"{self.facts.shortest_window} tokens of {self.facts.name}. Give them as plain rows."
            )
        if longest > self.facts.n_ctx:
            raise PositionError(
                f"A row has {longest} tokens; {self.facts.name} reads at most {self.facts.n_ctx}. Shorten it."
            )
        if int(tokens.ids.min()) < 0 or int(tokens.ids.max()) >= self.facts.d_vocab:
            raise PositionError(
                f"Token ids run from {int(tokens.ids.min())} to {int(tokens.ids.max())}; the vocabulary of "
                f"{self.facts.name} has ids 0 to {self.facts.d_vocab - 1}. Was another tokenizer used?"
            )
        return tokens

    @torch.no_grad()
    def all_logits(self, rows: Sequence[Sequence[int]]) -> Float[Tensor, "batch pos d_vocab"]:
        """Return every logit of rows of equal length: costly, meant for checks on short texts."""
        return self._dense(self.run(rows, logits=Logits(at=everywhere)).logits)

    @staticmethod
    def _dense(logits: Tensor | None) -> Tensor:
        if logits is None:
            raise PositionError("This run computed no logits.")
        return logits
