"""Twins as rows of tokens alone, whatever language they are written in.

What reads and steers twins needs no more than this: two rows of as many tokens for each item, a place R at which the
wrong (or the true) result has just been read, and the places of a stub S whose own tokens are the same in both rows.
`Twins.tokens` makes them of worked arithmetic, an organism makes them in its own language.
"""

import hashlib
import json
from collections.abc import Collection
from dataclasses import asdict, dataclass

from mechint.errors import PromptError

Row = tuple[int, ...]


@dataclass(frozen=True)
class TokenTwins:
    """Pairs of rows that differ in a result only.

    Raises:
        PromptError: the fields have different lengths, an id occurs twice, the rows of a pair have different lengths,
            are the same, or differ at the stub or behind R, or a place is none of its row.

    Examples:
        >>> true, wrong = ((0, 5, 9), (0, 6, 9)), ((0, 4, 9), (0, 7, 9))
        >>> two = TokenTwins("demo", ("a", "b"), ("a", "b"), true, wrong, result=(1, 1), stub=((2,), (2,)))
        >>> len(two), two.pick({"b"}).true
        (2, ((0, 6, 9),))
    """

    name: str
    ids: tuple[str, ...]
    groups: tuple[str, ...]
    """The problem of each: pairs of one group never stand in two parts of a split."""
    true: tuple[Row, ...]
    wrong: tuple[Row, ...]
    result: tuple[int, ...]
    """R of each: the position of the last token of the result; nothing differs behind it."""
    stub: tuple[Row, ...]
    """Positions of the stub of each; may be empty."""

    def __post_init__(self) -> None:
        sizes = {name: len(value) for name, value in asdict(self).items() if name != "name"}
        if len(set(sizes.values())) > 1:
            raise PromptError(f"Twins {self.name!r}: as many of each field are expected, given were {sizes}.")
        if len(set(self.ids)) < len(self.ids):
            raise PromptError(f"Twins {self.name!r}: ids occur twice. Give each pair its own.")
        for name, true, wrong, result, stub in zip(
            self.ids, self.true, self.wrong, self.result, self.stub, strict=True
        ):
            if len(true) != len(wrong):
                raise PromptError(f"Twins {name!r}: rows of {len(true)} and {len(wrong)} tokens. Give as many of both.")
            if not all(0 <= at < len(true) for at in (result, *stub)):
                raise PromptError(f"Twins {name!r}: places {(result, *stub)} in a row of {len(true)} tokens.")
            differing = [at for at, (a, b) in enumerate(zip(true, wrong, strict=True)) if a != b]
            if not differing or differing[-1] > result or set(differing) & set(stub):
                raise PromptError(
                    f"Twins {name!r}: the rows differ at {differing}. They must differ up to R ({result}) alone, and "
                    "not at the stub."
                )

    def __len__(self) -> int:
        """Return the number of pairs."""
        return len(self.ids)

    def __repr__(self) -> str:
        return f"TokenTwins {self.name!r}: {len(self)} pairs in {len(set(self.groups))} groups"

    @property
    def content_hash(self) -> str:
        """SHA-256 of all that can change a number."""
        told = {name: value for name, value in asdict(self).items() if name != "name"}
        return f"sha256:{hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()}"

    def side(self, *, wrong: bool) -> tuple[Row, ...]:
        """Return the rows of one side."""
        return self.wrong if wrong else self.true

    def pick(self, groups: Collection[str], name: str | None = None) -> "TokenTwins":
        """Return the pairs of some groups, in their order."""
        wanted = set(groups)
        return self.rows([at for at, group in enumerate(self.groups) if group in wanted], name)

    def rows(self, which: Collection[int], name: str | None = None) -> "TokenTwins":
        """Return the pairs at these places."""
        fields = {key: tuple(value[at] for at in which) for key, value in vars(self).items() if key != "name"}
        return TokenTwins(name or self.name, **fields)
