"""Random tokens, repeated once: `[BOS] r_1 … r_n r_1 … r_n`.

Nothing but the repetition predicts the second half: an induction head at the second r_k attends to the token after
the first r_k and raises its logit; an anti-induction head lowers it. The score is defined in McDougall et al. 2023,
"Copy Suppression" (arXiv 2310.04625), with r of 30 tokens.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from mechint.errors import PromptError
from mechint.prompts.encoding import Tokenizer, tokenize
from mechint.prompts.prompt import check_number
from mechint.statistics import generator


@dataclass(frozen=True)
class RepeatedTokens:
    """Rows of random tokens, each repeated once, all of one length.

    Examples:
        >>> rows = RepeatedTokens(tokens=((0, 7, 8, 9, 7, 8, 9),), length=3)
        >>> rows.destinations, rows.sources, rows.correct
        ((4, 5, 6), (2, 3, 4), ((8, 9, 7),))
    """

    tokens: tuple[tuple[int, ...], ...]
    """Token ids, with the beginning-of-sequence token if the tokenizer has one."""
    length: int
    """Tokens of one half."""

    @property
    def ids(self) -> tuple[str, ...]:
        """A name for each row."""
        return tuple(f"repeated-{index:04d}" for index in range(len(self.tokens)))

    @cached_property
    def start(self) -> int:
        """Position of the first random token: 1 after a beginning-of-sequence token, else 0."""
        return len(self.tokens[0]) - 2 * self.length

    @property
    def destinations(self) -> tuple[int, ...]:
        """The positions of the second half."""
        first = self.start + self.length
        return tuple(range(first, first + self.length))

    @property
    def sources(self) -> tuple[int, ...]:
        """For each destination, the position just after the earlier instance of its token."""
        return tuple(position - self.length + 1 for position in self.destinations)

    @property
    def correct(self) -> tuple[tuple[int, ...], ...]:
        """For each row and destination, the token that continues the repetition: the one at the source."""
        return tuple(tuple(row[source] for source in self.sources) for row in self.tokens)


def repeated_tokens(tokenizer: Tokenizer, n: int = 100, length: int = 30, seed: int = 0) -> RepeatedTokens:
    """Return n rows of `length` different random tokens, repeated once.

    Drawn are ordinary tokens: not special, not added, and with a text that can be read. Row i depends on the seed and
    on i, not on n.

    Raises:
        PromptError: the vocabulary has fewer ordinary tokens than `length`, or n or length is not positive.
    """
    check_number(n)
    check_number(length)
    excluded = {*tokenizer.all_special_ids, *tokenizer.get_added_vocab().values()}
    bos = tokenize("", tokenizer)
    rows: list[tuple[int, ...]] = []
    for index in range(n):
        half = _draw(tokenizer, excluded, length, generator(seed, "repeated", index))
        rows.append((*bos, *half, *half))
    return RepeatedTokens(tuple(rows), length)


def _draw(tokenizer: Tokenizer, excluded: set[int], length: int, rng: np.random.Generator) -> tuple[int, ...]:
    drawn: list[int] = []
    for token in rng.permutation(len(tokenizer)).tolist():
        if token not in excluded and _is_readable(str(tokenizer.decode([token]))):
            drawn.append(token)
            if len(drawn) == length:
                return tuple(drawn)
    raise PromptError(f"The vocabulary has {len(drawn)} ordinary tokens; {length} different ones were asked for.")


def _is_readable(text: str) -> bool:
    bare = text.strip()
    return bool(bare) and bare.isprintable() and "\ufffd" not in bare and not (bare[0] == "<" and bare[-1] == ">")
