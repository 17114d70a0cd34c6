"""Tokens that are forms of one word: with and without a space before it, capitalised, plural.

A head that suppresses " dog" where it attends to "Dogs" suppresses the same word. Two tokens are forms of one word if
their texts agree after the space before them, the case and a plural ending are taken away; an ending counts as a plural
only where the singular is in the vocabulary as well, and by the spelling rules of English (dogs, boxes, cities; not
"this", "glass", "bus"). Pieces of longer words are no forms of them. The rules read the texts of the vocabulary, so
they serve every tokenizer; they do not know irregular plurals, nor that "new" and "news" are different words. McDougall
et al. 2023, "Copy Suppression", appendix, use a dictionary made for GPT-2 instead.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

_LEAST_STEM = 3
"""Letters of the shortest singular: below it, an ending in s is seldom a plural ("his", "was")."""


class WordForms:
    """The forms of every token of a vocabulary.

    Args:
        texts: the text of every token, None where it has none.

    Examples:
        >>> forms = WordForms(["<s>", " dog", "Dog", "dogs", " cat", "this"])
        >>> forms.of(1), forms.of(4), forms.related(2, 3), forms.related(1, 4)
        ((1, 2, 3), (4,), True, False)
    """

    def __init__(self, texts: Sequence[str | None]) -> None:
        lowered = [_word(text) for text in texts]
        words = {word for word in lowered if word is not None}
        self._words = [
            None if word is None else next((stem for stem in _singulars(word) if stem in words), word)
            for word in lowered
        ]
        self._groups: dict[str, list[int]] = defaultdict(list)
        for token, word in enumerate(self._words):
            if word is not None:
                self._groups[word].append(token)

    @classmethod
    def of_tokenizer(cls, tokenizer: Any, d_vocab: int) -> "WordForms":
        """Read the vocabulary of a tokenizer."""
        return cls(token_texts(tokenizer, d_vocab))

    def of(self, token: int) -> tuple[int, ...]:
        """Return the forms of a token: itself first, then the others by their id."""
        word = self._words[token]
        group: list[int] = [] if word is None else self._groups[word]
        return (token, *(other for other in group if other != token))

    def related(self, a: int, b: int) -> bool:
        """Whether two tokens are forms of one word; every token is one of its own."""
        return a == b or (self._words[a] is not None and self._words[a] == self._words[b])

    def table(self, tokens: Int[Tensor, "*batch"], most: int) -> Int[Tensor, "*batch form"]:
        """Return up to `most` forms of every token, itself first; -1 where there are fewer."""
        distinct, where = tokens.unique(return_inverse=True)
        rows = [self.of(int(token))[:most] for token in distinct]
        return torch.tensor([[*row, *[-1] * (most - len(row))] for row in rows])[where]


def token_texts(tokenizer: Any, d_vocab: int) -> list[str | None]:
    """Return the text of every token, a space before a word as a space; None for special and missing tokens.

    A token of single bytes that are no character by themselves has the text of a replacement character.
    """
    special, size = set(tokenizer.all_special_ids), min(d_vocab, len(tokenizer))
    pieces: list[str | None] = tokenizer.convert_ids_to_tokens(list(range(size)))
    byte_level = "Ġ" in "".join(piece or "" for piece in pieces)
    texts = [
        None if piece is None or token in special else _text(piece, tokenizer, byte_level)
        for token, piece in enumerate(pieces)
    ]
    return texts + [None] * (d_vocab - size)


def _text(piece: str, tokenizer: Any, byte_level: bool) -> str:
    if byte_level:
        # Bytes are written as letters here, a space as Ġ and a line break as Ċ.
        plain = piece.isascii() or (piece[0] == "Ġ" and piece[1:].isascii())
        return piece.replace("Ġ", " ") if plain else str(tokenizer.convert_tokens_to_string([piece]))
    if len(piece) == 6 and piece.startswith("<0x") and piece.endswith(">"):
        byte = int(piece[3:5], 16)
        return chr(byte) if byte < 128 else "\N{REPLACEMENT CHARACTER}"
    return piece.replace("▁", " ")


def _word(text: str | None) -> str | None:
    """Take away case and the space before; None where nothing is left, or what is left is no whole character."""
    if text is None or "\N{REPLACEMENT CHARACTER}" in text:
        return None
    return text.removeprefix(" ").casefold() or None


def _singulars(word: str) -> Iterator[str]:
    """Yield what a word may be the plural of."""
    if not word.isalpha():
        return
    stems: list[str] = []
    if word.endswith("ies"):
        stems.append(word[:-3] + "y")
    if word.endswith(("xes", "zes", "ches", "shes", "sses")):
        stems.append(word[:-2])
    if word.endswith("s") and not word.endswith(("ss", "us", "is")):
        stems.append(word[:-1])
    yield from (stem for stem in stems if len(stem) >= _LEAST_STEM)
