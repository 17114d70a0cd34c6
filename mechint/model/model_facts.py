"""What an analysis needs to know about an architecture, and which sites and vocabulary entries it therefore has."""

from dataclasses import dataclass

from jaxtyping import Int
from torch import Tensor

from mechint.errors import PositionError, SiteError
from mechint.sites import Site


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
