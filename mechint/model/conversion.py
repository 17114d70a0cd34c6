"""GGUF file to float32 folder, once: dequantised by transformers, checked, and kept in the cache.

Lossless: the float32 numbers are those that transformers dequantises (bfloat16 could not hold them). The tokenizer is
kept as `tokenizer.json`, which loads ten times faster than the GGUF's, and is compared with it on sample texts before
the folder is sealed.
"""

import functools
import hashlib
import json
import logging
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gguf
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from mechint.errors import CorruptModelError, UnknownModelError
from mechint.model import cache
from mechint.model.embedded import EmbeddedModel
from mechint.model.fingerprint import hash_weights
from mechint.model.progress import stages
from mechint.model.reading import reading

log = logging.getLogger(__name__)

_STAGES = 5
SAMPLES = (
    "When Mary and John went to the store, John gave a drink to",
    " leading space, trailing space ",
    "two  spaces\n\n\ttab\r\nline — “quotes”… 12 + 35 = 47;",
    "naïve café, 日本語のテキスト, Привет, हिन्दी, مرحبا, 👩‍🔬🙂, e\u0301, \u200b\ufeff",
    "<bos><start_of_turn>user\nHi<end_of_turn></s><|endoftext|>",
    "def f(x):\n    return {'a': [x ** 2 for _ in range(10)]}  # ▁ underscore",
    "",
)
"""Texts that the kept tokenizer must split exactly as the GGUF's does."""

Stage = Callable[[str], None]


def convert_embedded(model: EmbeddedModel, progress: bool | None = None) -> Path:
    """Return the folder of an embedded model, converting it the first time (about 40 s and 1.4 GB for Gemma).

    Raises:
        CorruptModelError: the installed package is altered or incomplete.
        CacheError: the converted copy cannot be written.
    """
    with stages(model.name, _STAGES + 1, progress) as stage:

        def build(folder: Path) -> Mapping[str, Any]:
            log.info("%s is converted to float32 once; this takes about a minute.", model.name)
            cache.require_space(folder, model.gguf_bytes + model.converted_bytes)
            stage("assembling the file and checking its sha256")
            path = folder / "source.gguf"
            model.assemble(path)
            about = _convert(path, folder, model.name, stage)
            path.unlink()
            return {**about, "gguf_sha256": model.sha256}

        return cache.obtain(model.key, build, waiting=lambda: stage("waiting for another process that converts it"))


def convert_file(path: Path, progress: bool | None = None) -> Path:
    """Return the folder of a GGUF file, converting it the first time its content is met.

    Raises:
        UnknownModelError: the file is not a GGUF file.
        CorruptModelError: it is truncated or damaged.
        UnsupportedModelError: transformers cannot read this architecture from GGUF.
        CacheError: the converted copy cannot be written.
    """
    with path.open("rb") as file:
        magic = file.read(4)
    if not magic:
        raise CorruptModelError(f"{path} is empty. Expected a GGUF file; get it again.")
    if magic != b"GGUF":
        raise UnknownModelError(
            f"{path} does not begin with 'GGUF' but with {magic!r}. Expected a GGUF file or a folder."
        )
    digest = cache.hash_file(path)
    with stages(path.name, _STAGES, progress) as stage:

        def build(folder: Path) -> Mapping[str, Any]:
            log.info("%s is converted to float32 once, into the cache.", path.name)
            about = _convert(path, folder, str(path), stage)
            return {**about, "gguf_xxh3_128": digest, "gguf_sha256": _sha256(path)}

        return cache.obtain(
            f"{path.stem}-{digest[:16]}", build, waiting=lambda: stage("waiting for another process that converts it")
        )


def read_kept_tokenizer(folder: Path, what: str) -> PreTrainedTokenizerBase:
    """Read the tokenizer of a converted folder, straight from its serialised form.

    Raises:
        CorruptModelError: its files cannot be read.
    """
    with reading(f"The tokenizer of {what}"):
        settings = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
        settings.pop("tokenizer_class")
        return PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"), **settings)


def _convert(path: Path, folder: Path, what: str, stage: Stage) -> dict[str, Any]:
    """Fill a folder with config.json, model.safetensors and the tokenizer; return what to remember."""
    with _one_quiet_reading(), reading(what):
        stage("reading the file")
        reader = gguf.GGUFReader(path)
        quantisation = _quantisation(reader)
        cache.require_space(folder, 4 * sum(int(tensor.n_elements) for tensor in reader.tensors) + (1 << 26))
        stage("reading the tokenizer")
        tokenizer = AutoTokenizer.from_pretrained(str(path.parent), gguf_file=path.name, local_files_only=True)
        stage("dequantising the weights")
        hf_model: Any = AutoModelForCausalLM.from_pretrained(
            str(path.parent),
            gguf_file=path.name,
            dtype=torch.float32,
            attn_implementation="eager",
            local_files_only=True,
        )
    stage("writing float32 weights")
    hf_model.hf_quantizer = None  # transformers refuses to save anything that was ever packed
    if hasattr(hf_model.config, "quantization_config"):
        del hf_model.config.quantization_config
    hf_model.config.name_or_path = folder.name
    with reading(what):
        hf_model.save_pretrained(folder)
        _keep_tokenizer(tokenizer, folder)
    stage("checking the tokenizer and the files")
    _compare_tokenizers(tokenizer, read_kept_tokenizer(folder, what), what)
    return {
        "weights": hash_weights(hf_model.state_dict()),
        "quantisation": quantisation,
        "tokenizer": {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")},
        "versions": cache.versions("transformers", "torch", "gguf", "tokenizers", "safetensors"),
    }


def _keep_tokenizer(tokenizer: Any, folder: Path) -> None:
    tokenizer.backend_tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        **tokenizer.special_tokens_map,
        "padding_side": tokenizer.padding_side,
        "clean_up_tokenization_spaces": False,
        "tokenizer_class": "PreTrainedTokenizerFast",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=1), encoding="utf-8")


def _compare_tokenizers(original: Any, kept: Any, what: str) -> None:
    for text in SAMPLES:
        expected, found = original(text)["input_ids"], kept(text)["input_ids"]
        if expected != found:
            raise CorruptModelError(
                f"The tokenizer of {what} changes when it is saved: {text!r} becomes {found}, expected {expected}. "
                "Convert the model to a Hugging Face folder with its own tokenizer, and load that."
            )


def _quantisation(reader: Any) -> str:
    """Name the storage types of a GGUF file, the commonest first, such as `Q4_K, Q6_K, F32`."""
    sizes: dict[str, int] = {}
    for tensor in reader.tensors:
        sizes[tensor.tensor_type.name] = sizes.get(tensor.tensor_type.name, 0) + int(tensor.n_elements)
    return ", ".join(sorted(sizes, key=lambda name: -sizes[name]))


@contextmanager
def _one_quiet_reading() -> Generator[None, None, None]:
    """Let transformers parse the file once (it asks for three readers, 15 s each for Gemma), without its bar."""
    from transformers import modeling_gguf_pytorch_utils as legacy

    readers: Any = gguf
    bars: Any = legacy
    original, bar = readers.GGUFReader, bars.tqdm
    opened: dict[str, Any] = {}

    def once(path: str | Path, *args: Any) -> Any:
        if str(path) not in opened:
            opened[str(path)] = original(path, *args)
        return opened[str(path)]

    readers.GGUFReader, bars.tqdm = once, functools.partial(bar, disable=True)
    try:
        yield
    finally:
        readers.GGUFReader, bars.tqdm = original, bar


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
