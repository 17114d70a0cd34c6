"""A tiny random model that reads bytes, so any text: worked arithmetic too."""

import functools

import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers
from tokenizers.pre_tokenizers import ByteLevel

from mechint.model.base import Model
from mechint.model.transformer_lens import TransformerLensModel


@functools.cache
def model() -> Model:
    """A random Llama that reads bytes."""
    vocabulary = {"<bos>": 0} | {letter: i + 1 for i, letter in enumerate(sorted(ByteLevel.alphabet()))}
    letters = Tokenizer(models.BPE(vocabulary, []))
    letters.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=letters, bos_token="<bos>")
    config = transformers.LlamaConfig(
        vocab_size=len(vocabulary), hidden_size=32, intermediate_size=48, num_hidden_layers=4, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=1024,
    )  # fmt: skip
    torch.manual_seed(0)
    random = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    for parameter in random.parameters():
        parameter.requires_grad_(False)
        parameter.add_(0.1 * torch.randn_like(parameter))
    return TransformerLensModel(random, tokenizer, name="letters")
