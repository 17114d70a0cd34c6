"""Published reasoning errors as typed rows: error traces, BIG-Bench Mistake and ProcessBench.

Files are JSON lines in UTF-8; ProcessBench is also read as one JSON array, as it is published. None is part of this
package. Sources: error traces of "Decoding the Critique Mechanism in Large Reasoning Models" (arXiv 2603.16331),
BIG-Bench Mistake (Tyen et al. 2023, arXiv 2311.08516) and ProcessBench (Zheng et al. 2024, arXiv 2412.06559).
"""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from mechint.errors import PromptError
from mechint.prompts.encoding import Tokenizer
from mechint.prompts.files import read_text
from mechint.prompts.prompt import listed
from mechint.prompts.reasoning.audit import Audit
from mechint.prompts.reasoning.audit_steps import StepSolution, audit_steps
from mechint.prompts.reasoning.audit_traces import ErrorTrace, audit_traces, minimal_pairs
from mechint.prompts.reasoning.natural_errors import natural_pairs
from mechint.prompts.reasoning.pairs import Pairs


@dataclass(frozen=True)
class ErrorTraces:
    """Solutions that stop after a calculation error that was put into them."""

    name: str
    rows: tuple[ErrorTrace, ...]

    def __len__(self) -> int:
        return len(self.rows)

    def pairs(self) -> Pairs:
        """Return the minimal pairs: the same text with the result of the last equation recomputed."""
        return minimal_pairs(self.rows, self.name)

    def audit(self, tokenizer: Tokenizer | None = None) -> Audit:
        """Return what these traces hold and what is wrong with them; with a tokenizer, also how many align."""
        return audit_traces(self.rows, self.name, tokenizer)


@dataclass(frozen=True)
class BigBenchRow:
    """A row of BIG-Bench Mistake."""

    input: str
    steps: tuple[str, ...]
    target: str
    answer: str | None
    """None where the solution comes to none."""
    mistake_index: int | None
    """The first step with a mistake, from 0; None: no step has one."""


@dataclass(frozen=True)
class BigBenchMistake:
    """Solutions in steps with the index of the first mistake, judged by people."""

    name: str
    rows: tuple[BigBenchRow, ...]

    def __len__(self) -> int:
        return len(self.rows)

    def pairs(self) -> Pairs:
        """Return the minimal pairs: each solution up to its first false result, and the same with the true one."""
        return natural_pairs([(row.input, row.steps) for row in self.rows], self.name)

    def solutions(self) -> tuple[StepSolution, ...]:
        """Return the rows in the form that is common to all step-labelled data."""
        return tuple(StepSolution(row.steps, row.mistake_index, row.answer == row.target) for row in self.rows)

    def audit(self) -> Audit:
        """Return label noise, the checker's agreement, and what length and position alone tell."""
        return audit_steps(self.solutions(), self.name)


@dataclass(frozen=True)
class ProcessBenchRow:
    """A row of ProcessBench."""

    id: str
    generator: str
    problem: str
    steps: tuple[str, ...]
    final_answer_correct: bool
    label: int
    """The first step with a mistake, from 0; -1: no step has one."""


@dataclass(frozen=True)
class ProcessBench:
    """Solutions of mathematical problems in steps, with the index of the first mistake."""

    name: str
    rows: tuple[ProcessBenchRow, ...]

    def __len__(self) -> int:
        return len(self.rows)

    def solutions(self) -> tuple[StepSolution, ...]:
        """Return the rows in the form that is common to all step-labelled data."""
        return tuple(
            StepSolution(row.steps, None if row.label < 0 else row.label, row.final_answer_correct) for row in self.rows
        )

    def audit(self) -> Audit:
        """Return label noise, the checker's agreement, and what length and position alone tell."""
        return audit_steps(self.solutions(), self.name)


_Check = tuple[str, Callable[[Any], bool]]
_TEXT: _Check = ("text in quotation marks", lambda x: isinstance(x, str))
_SOME_TEXT: _Check = ("text that is not blank", lambda x: isinstance(x, str) and bool(x.strip()))
_INDEX: _Check = ("a whole number, 0 or more", lambda x: type(x) is int and x >= 0)
_STEPS: _Check = (
    "a list of at least one text",
    lambda x: isinstance(x, list) and bool(cast("list[Any]", x)) and all(isinstance(s, str) for s in x),
)


def load_error_traces(path: str | Path) -> ErrorTraces:
    """Read traces that end in an error: objects with `id`, `question`, `ground_truth` and `search`.

    Raises:
        PromptError: the file is missing, empty or no UTF-8, or lines cannot be used; the first five are named.
    """
    path = Path(path)
    fields = {"id": _INDEX, "question": _SOME_TEXT, "ground_truth": _TEXT, "search": _TEXT}
    rows = tuple(ErrorTrace(**fields) for _, fields in _objects(path, fields))
    if len({row.id for row in rows}) < len(rows):
        raise PromptError(f"{path}: {len(rows)} rows share {len({r.id for r in rows})} ids. Give each its own.")
    return ErrorTraces(path.stem, rows)


def load_bbm(path: str | Path) -> BigBenchMistake:
    """Read BIG-Bench Mistake: objects with `input`, `steps`, `target`, `answer` and `mistake_index` (null: none).

    Raises:
        PromptError: as in `load_error_traces`; or a mistake in a step that the row does not have.
    """
    path = Path(path)
    index: _Check = ("a whole number, 0 or more, or null", lambda x: x is None or _INDEX[1](x))
    answer: _Check = ("text in quotation marks, or null", lambda x: x is None or _TEXT[1](x))
    fields = {"input": _SOME_TEXT, "steps": _STEPS, "target": _TEXT, "answer": answer, "mistake_index": index}
    rows: list[BigBenchRow] = []
    for where, given in _objects(path, fields):
        _check_place(where, given["mistake_index"], given["steps"])
        rows.append(BigBenchRow(**_with_tuple(given)))
    return BigBenchMistake(path.stem, tuple(rows))


def load_published_pairs(path: str | Path) -> Pairs:
    """Read the minimal pairs of a file of error traces or of BIG-Bench Mistake, whichever it is.

    Raises:
        PromptError: it is neither, or no row of it has a pair.
    """
    try:
        pairs = load_error_traces(path).pairs()
    except PromptError as as_traces:
        try:
            pairs = load_bbm(path).pairs()
        except PromptError as as_steps:
            raise PromptError(f"As error traces: {as_traces}\nAs BIG-Bench Mistake: {as_steps}") from None
    if not pairs:
        raise PromptError(f"{path}: no row has a pair ({pairs.reasons}). Give a file with false results of arithmetic.")
    return pairs


def load_processbench(path: str | Path) -> ProcessBench:
    """Read ProcessBench: `id`, `generator`, `problem`, `steps`, `final_answer_correct` and `label` (-1: no mistake).

    Raises:
        PromptError: as in `load_bbm`.
    """
    path = Path(path)
    fields: dict[str, _Check] = {
        "id": _SOME_TEXT,
        "generator": _TEXT,
        "problem": _SOME_TEXT,
        "steps": _STEPS,
        "final_answer_correct": ("true or false", lambda x: isinstance(x, bool)),
        "label": ("a whole number, -1 or more", lambda x: type(x) is int and x >= -1),
    }
    rows: list[ProcessBenchRow] = []
    for where, given in _objects(path, fields):
        _check_place(where, given["label"], given["steps"])
        rows.append(ProcessBenchRow(**_with_tuple(given)))
    return ProcessBench(path.stem, tuple(rows))


def _with_tuple(given: dict[str, Any]) -> dict[str, Any]:
    return {**given, "steps": tuple(given["steps"])}


def _check_place(where: str, mistake: int | None, steps: list[str]) -> None:
    if mistake is not None and mistake >= len(steps):
        raise PromptError(
            f"{where}: the mistake is in step {mistake} and there are {len(steps)} steps, counted from 0. "
            "Give the index of one of them."
        )


def _objects(path: Path, checks: Mapping[str, _Check]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield each object with where it stands, after checking them all."""
    good: list[tuple[str, dict[str, Any]]] = []
    problems: list[str] = []
    for where, text, item in _items(path):
        problem = item if isinstance(item, PromptError) else _problem(item, text, checks)
        if problem:
            problems.append(f"{where}: {problem}")
        else:
            good.append((where, cast("dict[str, Any]", item)))
    if problems:
        raise PromptError(listed(problems))
    if not good:
        raise PromptError(f"{path} holds no rows. Give one JSON object a line, at least one.")
    yield from good


def _items(path: Path) -> Iterator[tuple[str, str, Any]]:
    """Yield where an item stands, how it begins, and the item; a `PromptError` for what is no JSON."""
    content = read_text(path)
    if content.lstrip().startswith("["):
        whole = _decoded(content)
        if isinstance(whole, PromptError):
            raise PromptError(f"{path}: {whole}")
        yield from ((f"{path}, item {at}", str(item), item) for at, item in enumerate(whole, start=1))
        return
    # Not splitlines(): a JSON string may hold U+2028 and other separators as they are.
    for at, line in enumerate(content.split("\n"), start=1):
        if line.strip():
            yield f"{path}, line {at}", line, _decoded(line)


def _decoded(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}" if "\n" in text else f"column {error.colno}"
        return PromptError(f"no JSON: {error.msg} at {where}. Give one object a line.")
    except (RecursionError, ValueError):
        return PromptError("no JSON that can be read: nested too deeply, or a number too long. Give flat objects.")


def _problem(item: Any, text: str, checks: Mapping[str, _Check]) -> str | None:
    expected = ", ".join(checks)
    if not isinstance(item, dict):
        return f"expected an object with {expected}, got {text[:40]}."
    given = cast("dict[str, Any]", item)
    for what, names in (("missing", checks.keys() - given.keys()), ("unknown", given.keys() - checks.keys())):
        if names:
            return f"{what} fields {', '.join(map(repr, sorted(names)))}. Expected exactly {expected}."
    wrong = [(name, expected) for name, (expected, right) in checks.items() if not right(given[name])]
    return f"{wrong[0][0]!r} is {given[wrong[0][0]]!r:.60}; expected {wrong[0][1]}." if wrong else None
