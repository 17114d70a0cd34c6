"""Reading models with transformers, and what its many exceptions mean.

Weights are read in float32 with eager attention: the attention pattern can be seen and rewritten, and on CPUs
bfloat16 is slower and less exact. Code that comes with a model is never run.
"""

import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging as hf_logging

from mechint.errors import CorruptModelError, MechintError, UnsupportedModelError
from mechint.model.cache import is_disk_full

_UNSUPPORTED = (
    "unrecognized configuration class",
    "does not recognize this architecture",
    "unrecognized model in",
    "requires you to execute",
    "contains custom code",
    "is not supported yet",
    "unknown gguf model_type",
)
"""How transformers says that it does not know an architecture."""
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model", "tekken.json")


def read_model(location: str | Path, what: str, *, local: bool = True, bars: bool = False) -> PreTrainedModel:
    """Read a causal language model in float32 with eager attention.

    Args:
        location: a folder, or an id of the Hugging Face hub.
        what: what to call it in messages.
        local: make no network call.
        bars: show download bars.

    Raises:
        CorruptModelError: files are missing, truncated, or do not fit together.
        UnsupportedModelError: not a causal language model that transformers knows, or its weights are packed.
    """
    with reading(what, bars=bars):
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            str(location),
            dtype=torch.float32,
            attn_implementation="eager",
            local_files_only=local,
            trust_remote_code=False,
            output_loading_info=True,
        )
    hf_model, info = loaded
    for problem in ("missing_keys", "mismatched_keys"):
        if keys := sorted(map(str, info.get(problem) or ())):
            raise CorruptModelError(
                f"The weights of {what} do not fit its config.json: {problem.replace('_', ' ')} "
                f"{', '.join(keys[:3])}{f' and {len(keys) - 3} more' if len(keys) > 3 else ''}. "
                "Random numbers would stand in their place. Get the files again."
            )
    check(hf_model, what)
    return hf_model.eval()


def read_tokenizer(
    location: str | Path, what: str, *, local: bool = True, bars: bool = False
) -> PreTrainedTokenizerBase:
    """Read a tokenizer.

    Raises:
        CorruptModelError: there is none, or its files cannot be read.
    """
    folder = Path(location)
    if folder.is_dir() and not any((folder / name).is_file() for name in _TOKENIZER_FILES):
        # transformers would invent a tokenizer that knows only its special tokens.
        raise CorruptModelError(
            f"{what} has no tokenizer: expected one of {', '.join(_TOKENIZER_FILES)}. "
            "Add it, or load both with transformers and use mechint.wrap(hf_model, tokenizer)."
        )
    with reading(f"The tokenizer of {what}", bars=bars):
        return AutoTokenizer.from_pretrained(str(location), local_files_only=local, trust_remote_code=False)


def check(hf_model: Any, what: str) -> None:
    """Refuse what cannot be read as a causal language model with plain weights.

    Raises:
        UnsupportedModelError: an encoder, an encoder-decoder, packed weights, weights on several devices or on none.
    """
    if not isinstance(hf_model, PreTrainedModel):
        raise UnsupportedModelError(
            f"{what} is a {type(hf_model).__name__}. Expected a transformers PreTrainedModel, such as "
            "AutoModelForCausalLM.from_pretrained(...) returns."
        )
    if hf_model.config.is_encoder_decoder or hf_model.get_output_embeddings() is None:
        raise UnsupportedModelError(
            f"{what} is a {type(hf_model).__name__}: it has no next-token logits, or an encoder beside its decoder. "
            "Expected a causal language model."
        )
    if getattr(hf_model, "hf_quantizer", None) is not None or not all(
        p.is_floating_point() for p in hf_model.parameters()
    ):
        raise UnsupportedModelError(
            f"The weights of {what} are packed by quantisation. Load it dequantised, in float32."
        )
    devices = sorted({str(p.device) for p in hf_model.parameters()})
    if len(devices) > 1 or "meta" in devices:
        raise UnsupportedModelError(f"The weights of {what} are on {' and '.join(devices)}. Expected one real device.")


@contextmanager
def reading(what: str, *, bars: bool = False) -> Generator[None, None, None]:
    """Keep transformers quiet, and map its exceptions to ours.

    Raises:
        CorruptModelError: what was raised inside, chained; a full disk and our own errors pass unchanged.
        UnsupportedModelError: the same, where transformers does not know the architecture or needs a package.
    """
    try:
        with _quiet(bars):
            yield
    except MechintError:
        raise
    except Exception as error:
        if is_disk_full(error):
            raise
        words = " ".join(str(error).split())
        if len(words) > 300:
            words = f"{words[:300]} …"
        if isinstance(error, ImportError):
            raise UnsupportedModelError(f"{what} needs a package that is not installed: {words}") from error
        if any(phrase in words.lower() for phrase in _UNSUPPORTED):
            raise UnsupportedModelError(
                f"{what} is not a causal language model that transformers knows (foreign code is not run): {words}"
            ) from error
        raise CorruptModelError(
            f"{what} cannot be read ({type(error).__name__}: {words}). "
            "Expected complete, unaltered files; get them again, or convert them again."
        ) from error


def in_terminal() -> bool:
    """Whether standard error is a terminal, so that bars may be drawn."""
    return sys.stderr.isatty()


@contextmanager
def _quiet(bars: bool) -> Generator[None, None, None]:
    """Silence transformers' notes and bars; errors still raise."""
    level, had_bars = hf_logging.get_verbosity(), hf_logging.is_progress_bar_enabled()
    hf_logging.set_verbosity_error()
    if had_bars and not bars:
        hf_logging.disable_progress_bar()
    try:
        yield
    finally:
        hf_logging.set_verbosity(level)
        if had_bars and not bars:
            hf_logging.enable_progress_bar()
