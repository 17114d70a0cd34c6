"""Tiny random models of every family, and a tokenizer for them."""

import functools
import os
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers

from mechint.model.transformer_lens import TransformerLensModel

VOCAB = 50
_ROTARY: dict[str, Any] = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
}
_GEMMA: dict[str, Any] = {
    **_ROTARY,
    "head_dim": 16,
    "sliding_window": 8,
    "query_pre_attn_scalar": 16,
}
CONFIGS: dict[str, Any] = {
    "gpt2": lambda: transformers.GPT2Config(vocab_size=VOCAB, n_positions=64, n_embd=32, n_layer=3, n_head=4),
    "llama": lambda: transformers.LlamaConfig(**_ROTARY, num_key_value_heads=2),
    "neox": lambda: transformers.GPTNeoXConfig(**_ROTARY),
    "neox-sequential": lambda: transformers.GPTNeoXConfig(**_ROTARY, use_parallel_residual=False),
    "gptj": lambda: transformers.GPTJConfig(
        vocab_size=VOCAB, n_positions=64, n_embd=32, n_layer=3, n_head=4, rotary_dim=4
    ),
    "gemma2": lambda: transformers.Gemma2Config(**_GEMMA, num_key_value_heads=2),
    "gemma3": lambda: transformers.Gemma3TextConfig(**{**_GEMMA, "num_hidden_layers": 6}, num_key_value_heads=1),
    "qwen3": lambda: transformers.Qwen3Config(**_ROTARY, head_dim=16, num_key_value_heads=2),
}
FAMILIES = tuple(CONFIGS)


@functools.cache
def tokenizer() -> Any:
    """Words w2 to w49, split at spaces; token 0 begins every text, token 1 is the unknown word."""
    vocabulary = {"<bos>": 0, "<unk>": 1} | {f"w{i}": i for i in range(2, VOCAB)}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return transformers.PreTrainedTokenizerFast(tokenizer_object=words, bos_token="<bos>", unk_token="<unk>")


def plain(family: str, seed: int = 0) -> Any:
    """A random transformers model whose norms, biases and weights are all far from their neutral start."""
    torch.manual_seed(seed)
    model = transformers.AutoModelForCausalLM.from_config(CONFIGS[family](), attn_implementation="eager").eval()
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(False)
        spread = 0.3 if "norm" in name or "ln_" in name or name.endswith("bias") else 0.15
        parameter.add_(spread * torch.randn_like(parameter))
    return model


BACKEND = os.environ.get("MECHINT_TEST_BACKEND", "transformer_lens")
"""Which backend the tests run on; nnsight changes every object in its process, so it has processes of its own."""


def wrapped(family: str, **settings: Any) -> Any:
    """The same model behind the backend."""
    if BACKEND == "nnsight":
        from mechint.model.nnsight import NNsightModel

        return NNsightModel(plain(family), tokenizer(), **settings)
    return TransformerLensModel(plain(family), tokenizer(), **settings)


@functools.cache
def tiny(family: str) -> Any:
    """The same, shared among tests: a run leaves no trace (which is itself tested)."""
    return wrapped(family, name=f"tiny-{family}")


def random_rows(n: int, length: int, seed: int = 0) -> list[list[int]]:
    """Rows of random tokens that begin with <bos>."""
    generator = torch.Generator().manual_seed(seed)
    return [[0, *torch.randint(4, VOCAB, (length - 1,), generator=generator).tolist()] for _ in range(n)]
