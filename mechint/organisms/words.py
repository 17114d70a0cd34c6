"""The vocabulary of the written organisms: the words of the two-name prompts, one token each."""

import re
from collections.abc import Sequence
from typing import Any

from mechint.prompts.ioi import NAMES, PLACES, TEMPLATES, THINGS

BOS, UNKNOWN = "<bos>", "<unk>"


def vocabulary() -> list[str]:
    """Return every word that the two-name prompts are made of, names first; two special tokens come before them."""
    text = " ".join([*(re.sub(r"\{\w+\}", " ", template) for template in TEMPLATES), *PLACES, *THINGS])
    fillers = sorted(set(re.findall(r"\w+|[^\w\s]", text)) - set(NAMES))
    return [BOS, UNKNOWN, *NAMES, *fillers]


def word_tokenizer(known: Sequence[str] | None = None, **special: str) -> Any:
    """Return a transformers tokenizer that makes one token of each word and punctuation mark.

    Args:
        known: the words, the two special tokens among them; by default `vocabulary()`.
        special: other special tokens among them, such as eos_token="<eos>".
    """
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({word: i for i, word in enumerate(known or vocabulary())}, unk_token=UNKNOWN))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=words, bos_token=BOS, unk_token=UNKNOWN, **special)
