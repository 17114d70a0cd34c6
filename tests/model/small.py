"""A small model, its tokenizer, a small GGUF file and a package that holds it in chunks."""

import hashlib
import string
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from mechint.model.embedded import EmbeddedModel

WORDS = ("<s>", "</s>", "<unk>", "the", "cat", "sat", "on", "mat", "Mary", "John")


def tokenizer() -> Any:
    """Words, with <s> before every text."""
    words = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    words.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    return PreTrainedTokenizerFast(tokenizer_object=words, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


def gpt2(seed: int = 0, **settings: Any) -> Any:
    """A random GPT-2 with two blocks."""
    torch.manual_seed(seed)
    config = GPT2Config(
        **{"vocab_size": len(WORDS), "n_positions": 32, "n_embd": 16, "n_layer": 2, "n_head": 2, **settings},
        bos_token_id=0,
        eos_token_id=1,
    )
    return GPT2LMHeadModel(config).eval()


def folder(place: Path, **settings: Any) -> Path:
    """The same, saved as transformers saves it."""
    gpt2(**settings).save_pretrained(place)
    tokenizer().save_pretrained(place)
    return place


def write_gguf(path: Path, seed: int = 0) -> dict[str, np.ndarray]:
    """Write a random Llama of two blocks with one Q8_0 tensor; return what was written, by GGUF name."""
    width, heads, inner = 32, 2, 48
    bytes_ = [f"<0x{i:02X}>" for i in range(256)]
    tokens = ["<unk>", "<s>", "</s>", *bytes_, "▁", *string.ascii_lowercase, "▁a", "ab", "▁ab"]
    pieces = len(tokens) - 259
    file = gguf.GGUFWriter(str(path), "llama")
    file.add_context_length(64)
    file.add_embedding_length(width)
    file.add_block_count(2)
    file.add_feed_forward_length(inner)
    file.add_head_count(heads)
    file.add_head_count_kv(1)
    file.add_layer_norm_rms_eps(1e-5)
    file.add_rope_dimension_count(width // heads)
    file.add_rope_freq_base(10000.0)
    file.add_vocab_size(len(tokens))
    file.add_tokenizer_model("llama")
    file.add_token_list(tokens)
    file.add_token_scores([0.0] * 259 + [-float(i) for i in range(pieces)])
    file.add_token_types([2, 3, 3] + [6] * 256 + [1] * pieces)
    file.add_unk_token_id(0)
    file.add_bos_token_id(1)
    file.add_eos_token_id(2)
    file.add_add_bos_token(True)
    rng = np.random.default_rng(seed)
    key_width = width // heads
    shapes = {"token_embd": (len(tokens), width), "output": (len(tokens), width), "output_norm": (width,)}
    for block in range(2):
        shapes |= {
            f"blk.{block}.{name}": shape
            for name, shape in {
                "attn_norm": (width,),
                "ffn_norm": (width,),
                "attn_q": (width, width),
                "attn_k": (key_width, width),
                "attn_v": (key_width, width),
                "attn_output": (width, width),
                "ffn_gate": (inner, width),
                "ffn_up": (inner, width),
                "ffn_down": (width, inner),
            }.items()
        }
    tensors = {f"{name}.weight": rng.normal(0, 0.2, shape).astype(np.float32) for name, shape in shapes.items()}
    packed = gguf.GGMLQuantizationType.Q8_0
    for name, tensor in tensors.items():
        if name == "blk.0.ffn_up.weight":
            blocks = gguf.quantize(tensor, packed)
            file.add_tensor(name, blocks, raw_dtype=packed)
            tensors[name] = gguf.dequantize(blocks, packed)
        else:
            file.add_tensor(name, tensor)
    file.write_header_to_file()
    file.write_kv_data_to_file()
    file.write_tensors_to_file()
    file.close()
    return tensors


def embed(place: Path, module: str) -> EmbeddedModel:
    """Write a Python package with a GGUF file in three chunks; `place` must be on `sys.path`."""
    write_gguf(place / "whole.gguf")
    content = (place / "whole.gguf").read_bytes()
    (place / "whole.gguf").unlink()
    package = place / module
    package.mkdir()
    third = len(content) // 3 + 1
    for i in range(3):
        (package / f"part{i}").write_bytes(content[i * third : (i + 1) * third])
    (package / "__init__.py").write_text(
        "from pathlib import Path\n"
        f"EXPECTED_SHA256 = {hashlib.sha256(content).hexdigest()!r}\n"
        "def chunk_paths():\n"
        "    return [Path(__file__).parent / f'part{i}' for i in range(3)]\n"
    )
    return EmbeddedModel(
        name="tiny",
        description="two random blocks",
        licence="none",
        note="random",
        distribution=module.replace("_", "-"),
        module=module,
        gguf_bytes=len(content),
        converted_bytes=4 * len(content),
    )
