"""Sparse autoencoders of SAELens: where they sit, and what their features write. The only door to `sae_lens`.

Objects are read by their attributes (`W_dec`, `cfg.d_in`, `cfg.metadata`), so one that is in memory needs no import.
"""

from dataclasses import dataclass
from typing import Any

from jaxtyping import Float
from torch import Tensor

from mechint.capture.passes import width_at
from mechint.errors import ConfigError, SiteError
from mechint.model.base import Model
from mechint.sites import Site


@dataclass(frozen=True, eq=False)
class SparseAutoencoder:
    """What of a SAELens object is needed here."""

    site: Site
    """Where its output belongs: for a transcoder, where it writes."""
    decoder: Float[Tensor, "row width"]
    """What each feature writes; `W_dec`."""
    model_name: str
    """Of the model that it was trained on; empty where its metadata do not say."""
    neuronpedia_id: str

    @classmethod
    def of(cls, sae: Any, model: Model | None = None) -> "SparseAutoencoder":
        """Read a SAELens object, and check that a model has its place.

        Raises:
            ConfigError: no SAELens object of version 6.
            SiteError: its hook is no site, or the model has no such site, or another width there.
        """
        metadata: Any = getattr(getattr(sae, "cfg", None), "metadata", None)
        decoder: Any = getattr(sae, "W_dec", None)
        if metadata is None or not isinstance(decoder, Tensor) or decoder.ndim != 2:
            raise ConfigError(
                f"A {type(sae).__name__} is no SAE of SAELens 6: expected `W_dec` [feature, width] and `cfg.metadata`. "
                "Give what sae_lens.SAE.from_pretrained(...) returns."
            )
        hook = metadata.hook_name_out or metadata.hook_name
        if not hook:
            raise SiteError("The metadata of this SAE name no hook, so its place is not known. Set metadata.hook_name.")
        site = Site.parse(str(hook))
        if metadata.hook_head_index is not None:
            site = Site(site.component, site.layer, int(metadata.hook_head_index))
        if model is not None:
            expected = width_at(model, model.facts.check(site))
            if decoder.shape[1] != expected:
                raise SiteError(
                    f"This SAE writes {decoder.shape[1]} numbers at {site}; {model.facts.name} has {expected} there. "
                    f"It was trained on {metadata.model_name or 'another model'}."
                )
        name, page = metadata.model_name or "", metadata.neuronpedia_id or ""
        return cls(site, decoder.detach().float().cpu(), str(name), str(page))

    def feature(self, index: int) -> Float[Tensor, " width"]:
        """Return what one feature writes, with length 1.

        Raises:
            ConfigError: there is no such feature, or it writes nothing.
        """
        if not 0 <= index < len(self.decoder):
            raise ConfigError(f"Feature {index}: this SAE has features 0 to {len(self.decoder) - 1}.")
        row = self.decoder[index].double()
        if float(row.norm()) == 0:
            raise ConfigError(f"Feature {index} of this SAE writes nothing: its decoder row is zero. Choose another.")
        return (row / row.norm()).float()


def load_sae(release: str, sae_id: str) -> Any:
    """Load a published SAE by SAELens' own names; needs `sae_lens` installed, and a network once.

    Raises:
        ConfigError: `sae_lens` is not installed.
    """
    try:
        from sae_lens import SAE  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise ConfigError("SAEs by name need SAELens. Install it: pip install 'sae-lens>=6,<7'.") from error
    return SAE.from_pretrained(release, sae_id)
