"""Texts of any kind as rows to record: with ids, groups, labels where there are two sides, and a content hash."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mechint.errors import PromptError
from mechint.prompts import ContrastPairs, Prompt, PromptSet, contrast, encode

AnyTexts = PromptSet | ContrastPairs | Sequence[str]


@dataclass(frozen=True)
class Texts:
    """Texts in the order in which they were given; of contrast data, the positive ones first.

    Examples:
        >>> Texts.of(["One", "Two"]).texts
        ('One', 'Two')
    """

    name: str
    content_hash: str
    texts: tuple[str, ...]
    ids: tuple[str, ...]
    """Of prompts or texts; the two texts of a pair have one id."""
    groups: tuple[str, ...]
    labels: tuple[int, ...] | None
    """1 for positive and 0 for negative texts; None where there are no sides."""

    @classmethod
    def of(cls, given: AnyTexts) -> "Texts":
        """Read prompts, contrast data or plain texts.

        Raises:
            PromptError: there are none, or one is blank.
        """
        if isinstance(given, ContrastPairs):
            sides = (*given.positive, *given.negative)
            return cls(
                given.name,
                given.content_hash,
                tuple(one.text for one in sides),
                tuple(one.id for one in sides),
                tuple(one.group for one in sides),
                (1,) * len(given.positive) + (0,) * len(given.negative),
            )
        if not given:
            raise PromptError("There are no texts to record. Give at least one.")
        if isinstance(given, PromptSet):
            ids, groups = [one.id for one in given], [one.cluster or one.id for one in given]
            return cls(
                given.name, given.content_hash, tuple(one.prompt for one in given), tuple(ids), tuple(groups), None
            )
        # The ids of contrast data are hashes of the texts: equal texts fall into one group, whatever list they are in.
        sides = contrast(given, ["-"], paired=False).positive
        digest = hashlib.sha256(json.dumps(list(given)).encode()).hexdigest()
        return cls(
            "texts", digest, tuple(given), tuple(one.id for one in sides), tuple(one.group for one in sides), None
        )

    def tokens(self, tokenizer: Any, n_ctx: int) -> list[list[int]]:
        """Return the token ids of every text.

        Raises:
            PromptError: a text is longer than the model reads, or has words that its tokenizer does not know.
        """
        sides = self.labels or (None,) * len(self.ids)
        rows = zip(self.ids, sides, self.texts, strict=True)
        names = {None: "", 0: "/negative", 1: "/positive"}
        prompts = tuple(Prompt(one + names[side], text) for one, side, text in rows)
        return [list(row) for row in encode(PromptSet(self.name, prompts), tokenizer, n_ctx=n_ctx).tokens]
