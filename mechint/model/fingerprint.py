"""Which model it was: hashes of content, equal however the same content was loaded.

    weights   = xxh3_128 over (name, dtype, shape, xxh3_128 of bytes) of every tensor of the state dict, by name
    tokenizer = xxh3_128 of the serialised tokenizer, without its padding and truncation settings, and its bos/eos ids
    config    = xxh3_128 of the architecture's settings (rotary base, windows, …), without names and versions

Take it from a model that no backend has instrumented, or from what was kept before: backends rename and add tensors.
"""

import json
from collections.abc import Mapping
from typing import Any, cast

import torch
import xxhash
from torch import Tensor
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

_NOT_CONTENT = frozenset(
    {
        "_name_or_path",
        "transformers_version",
        "architectures",
        "dtype",
        "torch_dtype",
        "quantization_config",
        "use_cache",
        "output_attentions",
        "output_hidden_states",
        "return_dict",
        "id2label",
        "label2id",
    }
)
"""Settings that differ between copies of one model, or that do not change what it computes."""


def fingerprint(hf_model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> dict[str, str]:
    """Return the hashes, attention implementation and dtype of a model that no backend has touched.

    Examples:
        >>> from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast
        >>> from tokenizers import Tokenizer, models
        >>> ids = {"bos_token_id": 0, "eos_token_id": 1}
        >>> small = GPT2Config(n_layer=1, n_embd=4, n_head=1, vocab_size=2, n_positions=4, **ids)
        >>> words = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel({"a": 0, "b": 1})))
        >>> sorted(fingerprint(GPT2LMHeadModel(small), words))
        ['attention', 'config', 'dtype', 'tokenizer', 'weights']
    """
    return fingerprint_of(hf_model.config, hf_model.state_dict(), tokenizer)


def fingerprint_of(
    config: PreTrainedConfig, state: Mapping[str, Tensor], tokenizer: PreTrainedTokenizerBase
) -> dict[str, str]:
    """Return the same from a configuration and a state dict that were kept from before a backend came.

    Args:
        config: of the model.
        state: its tensors by their original names; a backend may rename and add tensors.
        tokenizer: of the model.
    """
    return {
        "weights": hash_weights(state),
        "tokenizer": hash_tokenizer(tokenizer),
        "config": _hash_json({k: v for k, v in config.to_dict().items() if k not in _NOT_CONTENT}),
        "attention": str(getattr(config, "_attn_implementation", None)),
        "dtype": "+".join(
            sorted({str(t.dtype).removeprefix("torch.") for t in state.values() if t.is_floating_point()})
        ),
    }


def hash_weights(state: Mapping[str, Tensor]) -> str:
    """Hash a state dict: names, dtypes, shapes and bytes.

    Examples:
        >>> a = {"w": torch.zeros(2, 3), "b": torch.ones(2)}
        >>> hash_weights(a) == hash_weights(dict(reversed(a.items()))), hash_weights(a) == hash_weights({"w": a["w"]})
        (True, False)
    """
    digest = xxhash.xxh3_128()
    known: dict[tuple[Any, ...], bytes] = {}
    for name, tensor in sorted(state.items()):
        # Tied matrices are two names for the same bytes, the largest of the model: read them once.
        storage = (tensor.device, tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride())
        if storage not in known:
            flat = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
            known[storage] = xxhash.xxh3_128(cast("bytes", flat.numpy())).digest()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode() + known[storage])
    return digest.hexdigest()


def hash_tokenizer(tokenizer: PreTrainedTokenizerBase) -> str:
    """Hash what text becomes tokens by, and the ids of the special tokens that this package uses."""
    ids = f" bos={tokenizer.bos_token_id} eos={tokenizer.eos_token_id}"
    backend: Any = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None or not hasattr(backend, "to_str"):
        return _hash_json({"vocabulary": tokenizer.get_vocab(), "class": type(tokenizer).__name__, "ids": ids})
    padding, truncation = backend.padding, backend.truncation  # a call with padding=True leaves these switched on
    backend.no_padding()
    backend.no_truncation()
    try:
        content = backend.to_str()
    finally:
        if padding is not None:
            backend.enable_padding(**padding)
        if truncation is not None:
            backend.enable_truncation(**truncation)
    return xxhash.xxh3_128_hexdigest((content + ids).encode())


def _hash_json(content: dict[str, Any]) -> str:
    return xxhash.xxh3_128_hexdigest(json.dumps(content, sort_keys=True, default=str).encode())
