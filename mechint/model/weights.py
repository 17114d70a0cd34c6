"""The weights of a model as formulas need them: heads apart, norms written out, whatever the family calls them.

W_Q, W_K, W_V map the output of the attention's input norm to one head's space, W_O maps a head's space to the block's
attention output; all act on row vectors, as in `q = x W_Q + b_Q`.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor

from mechint.model.norms import Norm as Norm
from mechint.model.scoring import Scoring


@dataclass(frozen=True)
class Projections:
    """From the output of the attention's input norm to queries, keys and values, before QK-norm and rotation."""

    W_Q: Float[Tensor, "head d_model d_head"]
    b_Q: Float[Tensor, "head d_head"]
    W_K: Float[Tensor, "kv_head d_model d_head"]
    b_K: Float[Tensor, "kv_head d_head"]
    W_V: Float[Tensor, "kv_head d_model d_head"]
    b_V: Float[Tensor, "kv_head d_head"]


class Weights(ABC):
    """What can be known of a model without running it on a text."""

    @abstractmethod
    def unembed(self, normalised: Float[Tensor, "*batch d_model"]) -> Float[Tensor, "*batch d_vocab"]:
        """Turn the output of the final norm into logits, before the soft-cap."""

    @abstractmethod
    def unembedding(self, columns: Int[Tensor, "*batch"] | slice) -> Float[Tensor, "*batch d_model"]:
        """Return the output direction of vocabulary entries: rows of W_U, without the gain of the final norm.

        A slice gives a view where the model does not scale its logits, so that W_U can be walked through in blocks.
        """

    @abstractmethod
    def output_bias(self, columns: Int[Tensor, "*batch"] | slice) -> Float[Tensor, "*batch"]:
        """Return the bias of the unembedding at vocabulary entries, zero where there is none."""

    @abstractmethod
    def output_weights(self, layer: int) -> tuple[Float[Tensor, "head d_head d_model"], Float[Tensor, " d_model"]]:
        """Return W_O of every query head of a block, and the bias of the attention output (zeros if there is none)."""

    @abstractmethod
    def norm(self, where: str, layer: int | None = None) -> Norm | None:
        """Return a norm: `final`; or `attn_in`, `mlp_in`, `attn_post`, `mlp_post` of a block.

        None where the model has no such norm, as most have none after attention and MLP.
        """

    @abstractmethod
    def projections(self, layer: int) -> Projections:
        """Return W_Q, W_K, W_V of every head of a block, with their biases (zeros if there are none).

        Raises:
            UnsupportedModelError: they do not reproduce the block's own queries, keys and values.
        """

    @abstractmethod
    def scoring(self, layer: int) -> Scoring:
        """Return how a block turns queries and keys into attention.

        Raises:
            UnsupportedModelError: no reading of its modules gives the block's own attention (ALiBi, attention sinks,
                frequencies that depend on the length of the text).
        """

    @abstractmethod
    def mlp_output_weights(self, layer: int) -> tuple[Float[Tensor, "d_mlp d_model"], Float[Tensor, " d_model"]]:
        """Return what each neuron of an MLP writes when it is 1, and the bias of its output; before a post-norm."""
