r"""A small transformer in which copy suppression was learned, and a twin in which there was nothing to learn it from.

Both are two-block GPT-2s (4 heads, 64 dimensions, tied embeddings) that read the language of `organisms.language`: a
verb says which kind of noun follows, so the nouns of that kind are predicted from a word nearby, those in the text too.
In the language of `trained-copy-suppression` a mentioned noun is ten times less likely to come; in that of
`trained-no-suppression` mention makes no difference. Start and settings are the same.

No head, sign or pattern was asked for: the loss is the next token's. See `organisms.training` for how it was done, and
docs/organisms.md for what was found. The weights in `weights/` are those that
`python -m mechint.organisms.training NAME OUT` makes; their header says how.
"""

from typing import Any

import numpy as np
import torch

from mechint.model.backends import behind
from mechint.model.base import Model
from mechint.organisms import ORGANISMS, PREFIX
from mechint.organisms.language import COMMA, NOUNS, REPEAT, STOP, document, kind_of, vocabulary
from mechint.organisms.shipped import FOLDER, corrupt, read
from mechint.organisms.words import word_tokenizer
from mechint.prompts import Prompt, PromptSet
from mechint.prompts.prompt import check_number
from mechint.statistics import generator


def build(rule: bool = True, backend: str = "transformer_lens", remote: bool | str = False) -> Model:
    """Return the organism, or its twin, with the weights that are shipped.

    Args:
        rule: whether it was trained on the language in which mentioned nouns rarely come again.
        backend: what runs it (see `backends.behind`).
        remote: where it runs, with nnsight.

    Raises:
        CorruptModelError: the file is missing, or is not what the trainer wrote.
    """
    from transformers import GPT2Config, GPT2LMHeadModel

    name = "trained-copy-suppression" if rule else "trained-no-suppression"
    header, tensors = read(FOLDER / f"{name}.safetensors")
    config = GPT2Config(**header["config"])
    config._attn_implementation = "eager"  # pyright: ignore[reportPrivateUsage]
    with torch.random.fork_rng():  # building a model draws numbers, none of which are kept
        model: Any = GPT2LMHeadModel(config).eval()
    try:
        left = model.load_state_dict(tensors, strict=False)
    except RuntimeError as error:
        raise corrupt(name, str(error)) from error
    # The unembedding is the embedding, which is stored once.
    if left.unexpected_keys or set(left.missing_keys) - {"lm_head.weight"}:
        raise corrupt(name, f"tensors {left.unexpected_keys + left.missing_keys} do not fit its header")
    model.requires_grad_(False)
    source = {"kind": "organism", "description": ORGANISMS[name][-1], "data": str(header["data"])}
    tokenizer = word_tokenizer(vocabulary())
    return behind(backend, model, tokenizer, name=f"{PREFIX}{name}", source=source, remote=remote)


def header(name: str) -> dict[str, Any]:
    """Return how an organism was trained: config, seed, steps, losses, hash of the data, versions.

    Raises:
        CorruptModelError: the file is missing, or is not what the trainer wrote.

    Examples:
        >>> header("trained-copy-suppression")["repeat"], header("trained-no-suppression")["repeat"]
        (0.1, 1.0)
    """
    return read(FOLDER / f"{name}.safetensors")[0]


def text(words: list[str]) -> str:
    """Write words and punctuation as one writes them.

    Examples:
        >>> text(["Frank", "drank", "the", "tea", ",", "the", "milk", "and", "the", "rum", "."])
        'Frank drank the tea, the milk and the rum.'
    """
    return " ".join(words).replace(f" {COMMA}", COMMA).replace(f" {STOP}", STOP)


def documents(n: int = 64, seed: int = 0, *, repeat: float = REPEAT) -> PromptSet:
    """Return plain texts of at least 64 words, of whole sentences.

    None of them was trained on. Text i depends on the seed and on i, not on n.

    Args:
        n: number of texts.
        seed: of every choice.
        repeat: weight of a mentioned noun against 1; 1 gives the twin's language.

    Raises:
        PromptError: n is not positive.
    """
    check_number(n)
    made = [document(repeat, generator(seed, "organism-document", i)) for i in range(n)]
    return PromptSet(
        "things mentioned once", tuple(Prompt(f"document-{seed}-{i:04d}", text(words)) for i, words in enumerate(made))
    )


def prompts(n: int = 64, seed: int = 0, *, repeat: float = REPEAT) -> PromptSet:
    """Return beginnings of documents that stop where a noun comes next.

    The target is a noun of the kind that is called for, and it has been mentioned (once); the distractor is one of the
    same kind that has not. What does not look back predicts both alike.

    Args:
        n: number of prompts.
        seed: of every choice.
        repeat: weight of a mentioned noun against 1, in the text before.

    Raises:
        PromptError: n is not positive.
    """
    check_number(n)
    return PromptSet("one mentioned and one new noun", tuple(_prompt(i, seed, repeat) for i in range(n)))


def _prompt(index: int, seed: int, repeat: float) -> Prompt:
    rng = generator(seed, "organism-prompt", index)
    places: list[_Place] = []
    while not places:  # a document about one kind of thing may have run through it before its middle
        places = _places(document(repeat, rng))
    words, once, never = places[int(rng.integers(len(places)))]
    target, distractor = str(rng.choice(np.array(once))), str(rng.choice(np.array(never)))
    return Prompt(f"mentioned-{seed}-{index:04d}", text(words), f" {target}", f" {distractor}")


_Place = tuple[list[str], list[str], list[str]]


def _places(words: list[str]) -> list[_Place]:
    """List beginnings of a document that a noun follows, with those of its kind that they mention once, and never."""
    found: list[_Place] = []
    for at in range(len(words) // 2, len(words)):
        if words[at] in NOUNS:
            times = {noun: words[:at].count(noun) for noun in kind_of(words[at])}
            once, never = ([noun for noun in times if times[noun] == count] for count in (1, 0))
            if once and never:
                found.append((words[:at], once, never))
    return found
