"""What the pipeline needs of a task, whatever language it is written in: rows of tokens in, judgements out.

Word problems of our own or published traces are one (`word_problems`); a model organism with a language of its own can
be another, since no stage of the pipeline looks at text.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

from mechint.probes.critique_pipeline.judge import Judgement
from mechint.prompts import PromptSet

Row = tuple[int, ...]
PartName = Literal["train", "select", "test"]
PARTS: tuple[PartName, ...] = ("train", "select", "test")


@dataclass(frozen=True)
class Item:
    """A problem."""

    id: str
    group: str
    """Problems of one group never stand in two folds."""


@dataclass(frozen=True)
class Located:
    """A solution in steps, and the question where its first mistake is."""

    id: str
    group: str
    row: Row
    """The question as tokens, up to where the model goes on."""
    mistake: int | None
    """The first wrong step, from 0; None: there is none."""


@runtime_checkable
class Task(Protocol):
    """Problems with an error put into their solutions.

    A *run* is a way to begin: "baseline" with the problem alone, "injected" with a solution that stops at an error,
    "matched" with the same solution without the error.
    """

    @property
    def content_hash(self) -> str:
        """A hash of all that can change a number."""
        ...

    @property
    def notes(self) -> Sequence[str]:
        """What a reader must know: how many problems, which prompts."""
        ...

    @property
    def detection(self) -> Sequence[tuple[str, Sequence[Located]]]:
        """Sets of solutions in which errors are to be found, by name; may be empty."""
        ...

    @property
    def neutral(self) -> PromptSet | None:
        """Texts with nothing wrong in them, in a language of the task's own, for damage; None: English will do."""
        ...

    def items(self, part: PartName) -> Sequence[Item]:
        """List the problems of a part."""
        ...

    def row(self, item: Item, run: str) -> Row:
        """Return the tokens after which the model goes on."""
        ...

    def judge(self, item: Item, run: str, row: Row) -> Judgement:
        """Judge a row that begins with `row(item, run)`, or with one that `waiting` or `closed` made of it."""
        ...

    def read(self, row: Sequence[int]) -> str:
        """Return tokens as text, for people."""
        ...

    def waiting(self, item: Item, run: str, row: Row) -> Row:
        """Return the thinking of a row, open again, with "Wait" behind it."""
        ...

    def closed(self, row: Row) -> Row:
        """Return a row whose thinking is closed by force."""
        ...

    def forced(self, item: Item, *, wrong: bool) -> tuple[Row, int] | None:
        """Return solution, end of thinking and right answer, and where that begins; the same answer for both sides.

        None where the problem has no pair of solutions.
        """
        ...

    def said_step(self, question: Located, row: Row) -> int | None:
        """Return which step a row that begins with a question's names, -1 for none, None where it names nothing."""
        ...
