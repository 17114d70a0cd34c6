"""Twins: the two texts of a minimal pair as tokens that agree everywhere but in the literal.

Activations of twins are compared position by position, so both need as many tokens, and may differ in those of the
literal only. Two places are read: R, the last token of the literal (`Twin.result`), where the twins differ in what
was read; and S, a fixed sentence appended to both (`Twin.stub`), whose own tokens are the same, so that anything that
tells the twins apart there was carried by the model.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import overload

from mechint.errors import PromptError
from mechint.prompts.encoding import Tokenizer, tokenize
from mechint.prompts.reasoning.pairs import MinimalPair, Pairs
from mechint.prompts.reasoning.token_twins import TokenTwins

STUB = "\n\nLet me check that step."
"""What is appended to both texts; it says nothing of what will be found."""


@dataclass(frozen=True)
class Twin:
    """A minimal pair as two rows of tokens, and the places in them."""

    pair: MinimalPair
    true: tuple[int, ...]
    """Token ids of the text with the true literal, beginning-of-sequence token included."""
    wrong: tuple[int, ...]
    """As many, of the text with the wrong one."""
    literal: tuple[int, ...]
    """Positions that hold the literal; nowhere else do the rows differ."""
    stub: tuple[int, ...]
    """Positions that hold the stub; empty where none was appended."""

    @property
    def result(self) -> int:
        """R: the position of the last token of the literal."""
        return self.literal[-1]


@dataclass(frozen=True)
class Twins(Sequence[Twin]):
    """Twins, and the pairs that are none under this tokenizer."""

    name: str
    twins: tuple[Twin, ...]
    apart: Mapping[str, str]
    """From the id of a pair that is not aligned to the reason."""

    def __len__(self) -> int:
        return len(self.twins)

    def __iter__(self) -> Iterator[Twin]:
        return iter(self.twins)

    @overload
    def __getitem__(self, index: int) -> Twin: ...
    @overload
    def __getitem__(self, index: slice) -> "Twins": ...
    def __getitem__(self, index: int | slice) -> "Twin | Twins":
        return self.twins[index] if isinstance(index, int) else replace(self, twins=self.twins[index])

    def __repr__(self) -> str:
        return f"Twins {self.name!r}: {len(self)} aligned, {len(self.apart)} apart"

    @property
    def groups(self) -> tuple[str, ...]:
        """The problem of each, in their order."""
        return tuple(twin.pair.group for twin in self.twins)

    @property
    def tokens(self) -> TokenTwins:
        """The twins as rows of tokens alone."""
        fields = zip(*((t.pair.id, t.pair.group, t.true, t.wrong, t.result, t.stub) for t in self.twins), strict=True)
        return TokenTwins(self.name, *fields)

    @property
    def reasons(self) -> dict[str, int]:
        """How many pairs are apart for which reason, the most frequent first."""
        return dict(Counter(self.apart.values()).most_common())


def twins(pairs: Pairs, tokenizer: Tokenizer, *, stub: str = STUB) -> Twins:
    """Tokenise both texts of every pair and keep those that agree outside the literal.

    Args:
        pairs: at least one.
        tokenizer: a transformers tokenizer that tells which characters a token holds (a "fast" one).
        stub: appended to both texts; may be empty.

    Returns:
        Twins in the order of the pairs, and the other pairs' ids with the reason; none is dropped silently.

    Raises:
        PromptError: no pairs, or a tokenizer that does not tell the places of its tokens.
    """
    if not pairs:
        raise PromptError(f"There are no pairs in {pairs.name!r}. Give at least one.")
    if not getattr(tokenizer, "is_fast", False):
        raise PromptError(
            "This tokenizer does not tell which characters its tokens hold, so the literal cannot be found in them. "
            "Give a fast one: AutoTokenizer.from_pretrained(…, use_fast=True)."
        )
    aligned: list[Twin] = []
    apart: dict[str, str] = {}
    for pair in pairs:
        found = _twin(pair, tokenizer, stub)
        if isinstance(found, Twin):
            aligned.append(found)
        else:
            apart[pair.id] = found
    return Twins(pairs.name, tuple(aligned), apart)


def _twin(pair: MinimalPair, tokenizer: Tokenizer, stub: str) -> Twin | str:
    """Return the twin, or why there is none."""
    rows: list[tuple[int, ...]] = []
    places: list[tuple[tuple[int, ...], tuple[int, ...]]] = []
    for wrong in (False, True):
        text = pair.text(wrong=wrong)
        rows.append(tokenize(text + stub, tokenizer))
        spans = pair.span(wrong=wrong), (len(text), len(text) + len(stub))
        literal, stubbed = (_holding(text + stub, span, len(rows[-1]), tokenizer) for span in spans)
        places.append((literal, stubbed))
    if reason := _special(rows, tokenizer):
        return reason
    if len(rows[0]) != len(rows[1]):
        return "the two literals have different numbers of tokens"
    if places[0] != places[1] or not places[0][0]:
        return "the two literals stand at different positions"
    literal, stubbed = places[0]
    differing = {at for at, (a, b) in enumerate(zip(*rows, strict=True)) if a != b}
    if not differing:
        return "the two literals are the same tokens"
    if differing - set(literal):
        return "tokens outside the literal differ"
    if set(literal) & set(stubbed):
        return "a token holds the end of the literal and the beginning of the stub"
    return Twin(pair, rows[0], rows[1], literal, stubbed)


def _special(rows: Sequence[tuple[int, ...]], tokenizer: Tokenizer) -> str | None:
    """Return what is wrong with the tokens that stand for no text of their own."""
    bos, unknown = tokenizer.bos_token_id, tokenizer.unk_token_id
    if bos is not None and any(row[0] != bos or row.count(bos) != 1 for row in rows):
        return "not exactly one beginning-of-sequence token, in front"
    if unknown not in (None, bos, tokenizer.eos_token_id) and any(unknown in row for row in rows):
        return "words that the tokenizer does not know"
    return None


def _holding(text: str, span: tuple[int, int], length: int, tokenizer: Tokenizer) -> tuple[int, ...]:
    """Return the positions, in the row that `tokenize` gives, of the tokens that hold characters of a span."""
    offsets = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    before = length - len(offsets)  # the beginning-of-sequence token
    start, end = span
    return tuple(before + at for at, (first, last) in enumerate(offsets) if first < end and last > start)
