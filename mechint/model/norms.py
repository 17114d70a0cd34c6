"""Normalisations, written so that they can be frozen."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Norm:
    """A normalisation, written so that it can be frozen: `norm(x) = C x / scale(x) * gain + bias`."""

    gain: Float[Tensor, " d_model"]
    bias: Float[Tensor, " d_model"] | None
    eps: float
    centred: bool
    """C subtracts the mean over d_model (LayerNorm); otherwise C is the identity (RMSNorm)."""

    def centre(self, x: Float[Tensor, "*batch d_model"]) -> Float[Tensor, "*batch d_model"]:
        """Apply C."""
        return x - x.mean(-1, keepdim=True) if self.centred else x

    def scale(self, x: Float[Tensor, "*batch d_model"]) -> Float[Tensor, "*batch 1"]:
        """Return what the norm divides by: the root mean square of C x."""
        return (self.centre(x).pow(2).mean(-1, keepdim=True) + self.eps).sqrt()

    def __call__(self, x: Float[Tensor, "*batch d_model"]) -> Float[Tensor, "*batch d_model"]:
        """Normalise."""
        y = self.centre(x) / self.scale(x) * self.gain
        return y if self.bias is None else y + self.bias
