"""A prompt with the answers that are compared after it, and a named set of them."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, overload

from mechint.errors import PromptError

if TYPE_CHECKING:
    from pandas import DataFrame
else:
    DataFrame = Any  # annotations are checked under pytest, and pandas is not loaded for them


@dataclass(frozen=True)
class Prompt:
    """A text, and the tokens that are compared as its continuation.

    Raises:
        PromptError: blank text, or labels that contradict one another.

    Examples:
        >>> Prompt("mary", "When Mary and John met, John gave a ring to", " Mary", " John").target
        ' Mary'
    """

    id: str
    """Unique in its set."""
    prompt: str
    target: str | None = None
    """Text of exactly one token, such as `" Mary"` with its leading space; None: nothing is compared."""
    distractor: str | None = None
    """Text of the token that the target is compared with."""
    counterfactual: str | None = None
    """A prompt of the same number of tokens in which the target is not called for."""
    cluster: str | None = None
    """Prompts of one cluster are drawn together in the bootstrap; None: a cluster of its own."""

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if value is None:
                continue
            if not value or (name not in ("target", "distractor") and not value.strip()):
                raise PromptError(f"Prompt {self.id!r}: {name!r} is blank. Give some text{_or_leave_out(name)}.")
            if any("\ud800" <= character <= "\udfff" for character in value):
                raise PromptError(
                    f"Prompt {self.id!r}: {name!r} holds half a character (a lone surrogate). Give valid Unicode."
                )
        if self.distractor is not None and self.target is None:
            raise PromptError(
                f"Prompt {self.id!r} has a distractor and no target. Give the target it is compared with."
            )
        if self.target is not None and self.target == self.distractor:
            raise PromptError(
                f"Prompt {self.id!r}: target and distractor are both {self.target!r}. "
                "Give two different tokens; their difference would always be 0."
            )
        if self.counterfactual == self.prompt:
            raise PromptError(
                f"Prompt {self.id!r}: the counterfactual is the prompt itself. "
                "Change what calls for the target, or leave it out."
            )


def _or_leave_out(name: str) -> str:
    return "" if name in ("id", "prompt") else ", or leave it out"


@dataclass(frozen=True)
class PromptSet(Sequence[Prompt]):
    """A named sequence of prompts with unique ids.

    Raises:
        PromptError: two prompts with one id.

    Examples:
        >>> prompts = PromptSet("demo", (Prompt("a", "One"), Prompt("b", "Two")))
        >>> len(prompts), prompts[1].prompt, prompts[:1].name
        (2, 'Two', 'demo')
    """

    name: str
    prompts: tuple[Prompt, ...]

    def __post_init__(self) -> None:
        seen: set[str] = set()
        twice = sorted({prompt.id for prompt in self.prompts if prompt.id in seen or seen.add(prompt.id)})
        if twice:
            raise PromptError(f"Ids occur twice in {self.name!r}: {', '.join(twice[:5])}. Give each prompt its own id.")

    def __len__(self) -> int:
        return len(self.prompts)

    @overload
    def __getitem__(self, index: int) -> Prompt: ...
    @overload
    def __getitem__(self, index: slice) -> "PromptSet": ...
    def __getitem__(self, index: int | slice) -> "Prompt | PromptSet":
        if isinstance(index, slice):
            return replace(self, prompts=self.prompts[index])
        return self.prompts[index]

    @property
    def content_hash(self) -> str:
        """SHA-256 of the prompts in their order, as hexadecimal digits; the name of the set does not count."""
        content = json.dumps([asdict(prompt) for prompt in self.prompts], sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()

    def to_frame(self) -> DataFrame:
        """Return one row a prompt, one column a field."""
        import pandas as pd

        columns = ["id", "prompt", "target", "distractor", "counterfactual", "cluster"]
        return pd.DataFrame([asdict(prompt) for prompt in self.prompts], columns=columns)


def check_number(n: int) -> None:
    """Refuse to make fewer than one.

    Raises:
        PromptError: n is not positive.
    """
    if n < 1:
        raise PromptError(f"{n} were asked for. Ask for at least 1.")


def listed(problems: Sequence[str], most: int = 5) -> str:
    """Return the first few problems, one a line, and how many more there are.

    Examples:
        >>> print(listed(["a", "b", "c"], most=2))
        a
        b
        … and 1 more.
    """
    more = [f"… and {len(problems) - most} more."] if len(problems) > most else []
    return "\n".join([*problems[:most], *more])
