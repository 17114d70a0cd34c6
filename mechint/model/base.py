"""Facts about a model, and the contract of the one verb that runs it.

`Model.run` serves capture (`read`), ablation, patching and injection (`write`), scoring (`logits`), and the speed of
all of them: `from_` restarts in the middle from a residual stream that is known already, `stop_after` ends early, and
logits are computed for the positions and vocabulary columns that are asked for, none by default (the unembedding of
a small model with a large vocabulary costs more than all its blocks).
"""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mechint.errors import PositionError, SiteError
from mechint.interventions import Intervention
from mechint.model.weights import Weights
from mechint.positions import Positions, TokenBatch, everywhere, prompt
from mechint.prompts import tokenize
from mechint.sites import Site

Write = Mapping[str | Site, Intervention | Sequence[Intervention]]
Read = Sequence[str | Site] | Mapping[str | Site, Positions]
Rows = TokenBatch | Sequence[Sequence[int]]


@dataclass(frozen=True)
class ModelFacts:
    """What an analysis needs to know about an architecture."""

    name: str
    family: str
    """Class of the model in transformers, such as `Gemma3ForCausalLM`."""
    n_layers: int
    n_heads: int
    """Query heads of a block."""
    n_kv_heads: int
    """Key/value heads of a block."""
    d_model: int
    d_head: int
    d_vocab: int
    n_ctx: int
    """Longest text in tokens."""
    parallel: bool
    """Attention and MLP of a block read the same residual stream (GPT-J, NeoX)."""
    post_norms: bool
    """Attention and MLP outputs are normalised before they are added (Gemma 2 and 3, OLMo 2)."""
    windows: tuple[int | None, ...]
    """Sliding attention window of each block in tokens, None where attention is full."""
    logit_cap: float | None
    """c where final logits are c·tanh(logits / c)."""
    tied: bool
    """Embedding and unembedding are one matrix."""
    learned_positions: bool
    """Position is added to the token embedding (GPT-2), not turned into a rotation of queries and keys."""
    hidden: tuple[str, ...] = ()
    """Components that the backend does not show for this family."""
    read_only: tuple[str, ...] = ("resid_mid",)
    """Components whose rewriting the backend would not carry on."""

    @property
    def shortest_window(self) -> int:
        """Longest text in which every position sees every earlier one in every block."""
        return min([self.n_ctx, *(window for window in self.windows if window is not None)])

    def check(self, site: str | Site) -> Site:
        """Read a site and make sure that this model has it.

        Raises:
            SiteError: it has not; the message names the valid ones.
        """
        site = Site.parse(site)
        if site.layer is not None and site.layer >= self.n_layers:
            raise SiteError(f"{site}: {self.name} has blocks L0 to L{self.n_layers - 1}.")
        heads = self.n_kv_heads if site.of_kv_head else self.n_heads
        if site.head is not None and site.head >= heads:
            kind = ("KV", "key/value") if site.of_kv_head else ("H", "query")
            raise SiteError(
                f"{site}: {self.name} has {kind[1]} heads {kind[0]}0 to {kind[0]}{heads - 1} in each block."
            )
        if site.component in self.hidden:
            raise SiteError(f"{site}: the backend does not show {site.component!r} of {self.name} ({self.family}).")
        if site.component == "resid_mid" and self.parallel:
            raise SiteError(
                f"{site}: attention and MLP of {self.name} run in parallel, so there is no stream between them."
            )
        return site

    def check_columns(self, columns: Int[Tensor, "*batch column"], n_rows: int, n_at: int) -> None:
        """Make sure that these vocabulary entries exist, and fit the rows and positions.

        Raises:
            PositionError: they do not.
        """
        if columns.numel() == 0 or int(columns.min()) < 0 or int(columns.max()) >= self.d_vocab:
            raise PositionError(f"Expected columns of the vocabulary of {self.name}: ids 0 to {self.d_vocab - 1}.")
        if columns.ndim != 1 and (
            columns.ndim != 3 or columns.shape[0] not in (1, n_rows) or columns.shape[1] not in (1, n_at)
        ):
            raise PositionError(
                f"Columns of shape {list(columns.shape)} do not fit {n_rows} rows and {n_at} positions. Expected one "
                f"list [column], or one for every row and position [{n_rows}, {n_at}, column]."
            )


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


class Model(Weights):
    """A model that can be read and rewritten at its sites."""

    facts: ModelFacts
    tokenizer: Any
    """A transformers tokenizer."""
    source: Mapping[str, str]
    """Where the weights come from, for the manifest."""

    @abstractmethod
    def run(
        self,
        tokens: Rows,
        read: Read = (),
        write: Write | None = None,
        logits: Logits | None = None,
        from_: Restart | None = None,
        stop_after: str | Site | None = None,
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

        Raises:
            SiteError: a site that this model has not, or that this run does not reach.
            PositionError: positions that select nothing, or a text longer than the model's context.
            NeverFiredError: an intervention that touched no token.
            InterventionError: an intervention that made NaN, infinity, or another shape.
        """

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
