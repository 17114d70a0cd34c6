"""The libraries that can run a model, chosen by name; one is imported only when it is chosen.

| backend | what for |
|---|---|
| `transformer_lens` | the reference: everything in this package is measured on it |
| `nnsight` | the transformers modules themselves, here or (`remote`) on NDIF's servers |
"""

from collections.abc import Mapping
from typing import Any, Literal, get_args

from mechint.errors import ConfigError, UnsupportedModelError
from mechint.model.agreement import Reference
from mechint.model.base import Model

Backend = Literal["transformer_lens", "nnsight"]


def behind(
    backend: str,
    hf_model: Any,
    tokenizer: Any,
    *,
    name: str,
    source: Mapping[str, str],
    reference: Reference | None = None,
    remote: bool | str = False,
) -> Model:
    """Put a transformers model behind a backend, which instruments it in place.

    Args:
        backend: `transformer_lens` or `nnsight`.
        hf_model: a causal language model in eval mode with eager attention.
        tokenizer: its tokenizer.
        name: how it is called in tables.
        source: where the weights come from, for the manifest.
        reference: the same weights for a run without a backend.
        remote: where runs take place; only nnsight's can take place elsewhere (see `NNsightModel`).

    Raises:
        ConfigError: no such backend, or one that runs here alone.
        UnsupportedModelError: the backend does not reproduce this model exactly, or is not installed.
    """
    if backend not in get_args(Backend):
        raise ConfigError(f"No backend {backend!r}. There are: {', '.join(get_args(Backend))}.")
    if backend == "nnsight":
        try:
            from mechint.model.nnsight import NNsightModel

            return NNsightModel(hf_model, tokenizer, name=name, source=source, reference=reference, remote=remote)
        except ModuleNotFoundError as error:
            if error.name != "nnsight":
                raise
            raise UnsupportedModelError(
                "The backend nnsight is not installed. Install it with: pip install 'mechint[nnsight]'."
            ) from error
    if remote:
        raise ConfigError(f'remote={remote!r} needs backend="nnsight"; {backend} runs models here.')
    from mechint.model.transformer_lens import TransformerLensModel

    return TransformerLensModel(hf_model, tokenizer, name=name, source=source, reference=reference)
