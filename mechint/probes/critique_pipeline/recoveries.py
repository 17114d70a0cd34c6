"""Which texts the vector is made of: hidden recoveries beside their originals, or a given answer behind both solutions.

    S = {problems: injected (thinking incorrect, final correct), original (correct, correct)}     both short enough

Twins that are the same tokens, as where a tokenizer knows no numbers, are no pair.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import pandas as pd

from mechint.probes.critique_pipeline.judge import CORRECT, INCORRECT
from mechint.probes.critique_pipeline.tasks import Item, Row, Task
from mechint.probes.critique_pipeline.vectors import Answers

RECOVERIES, FORCED = "hidden recoveries", "teacher-forced answers"


@dataclass(frozen=True)
class Found:
    """Pairs for the vector, or that there are too few."""

    source: str
    """`RECOVERIES` or `FORCED`; empty where there is no vector."""
    answers: Answers | None
    recoveries: int
    """How many hidden recoveries there were, used or not."""


def by_run(texts: pd.DataFrame) -> dict[tuple[str, str], dict[str, Any]]:
    """Return the rows of the runs by run and problem."""
    records = cast("list[dict[str, Any]]", texts.to_dict(orient="records"))
    return {(one["run"], one["id"]): one for one in records}


def tokens_of(record: Mapping[str, Any]) -> Row:
    """Return the whole row of a run: prompt and what was written."""
    return tuple(int(token) for token in str(record["tokens"]).split())


def is_hidden(record: Mapping[str, Any]) -> bool:
    """Whether thinking is wrong and the final answer right."""
    return (record["thinking"], record["final"]) == (INCORRECT, CORRECT)


def find(texts: pd.DataFrame, task: Task, original: str, *, fewest: int, most_tokens: int, forced: bool) -> Found:
    """Return the pairs of the first part.

    Args:
        texts: rows of the runs.
        task: whose they are.
        original: the run that the injected one is compared with.
        fewest: pairs without which there is no vector.
        most_tokens: longer texts are left out.
        forced: with too few recoveries, take the right answer behind both solutions.
    """
    runs = by_run(texts)
    pairs: list[tuple[Item, tuple[Row, Row], tuple[int, int]]] = []
    for item in task.items("train"):
        wrong, right = runs[("injected", item.id)], runs[(original, item.id)]
        if is_hidden(wrong) and (right["thinking"], right["final"]) == (CORRECT, CORRECT):
            rows = tokens_of(wrong), tokens_of(right)
            pairs.append((item, rows, (int(wrong["answer_start"]), int(right["answer_start"]))))
    usable = [one for one in pairs if _fits(one[1], one[2], most_tokens)]
    if len(usable) >= fewest:
        return Found(RECOVERIES, _answers(task, usable), len(pairs))
    if forced:
        given = [(item, task.forced(item, wrong=True), task.forced(item, wrong=False)) for item in task.items("train")]
        made = [(item, (a[0], b[0]), (a[1], b[1])) for item, a, b in given if a is not None and b is not None]
        usable = [one for one in made if _fits(one[1], one[2], most_tokens)]
        if len(usable) >= fewest:
            return Found(FORCED, _answers(task, usable), len(pairs))
    return Found("", None, len(pairs))


def _fits(rows: tuple[Row, Row], starts: tuple[int, int], most: int) -> bool:
    return rows[0] != rows[1] and all(start < len(row) <= most for row, start in zip(rows, starts, strict=True))


def _answers(task: Task, pairs: list[tuple[Item, tuple[Row, Row], tuple[int, int]]]) -> Answers:
    texts = [tuple(task.read(row[at:]) for row, at in zip(rows, starts, strict=True)) for _, rows, starts in pairs]
    return Answers(
        tuple(item.group for item, _, _ in pairs),
        tuple(rows for _, rows, _ in pairs),
        tuple(starts for _, _, starts in pairs),
        tuple((wrong, right) for wrong, right in texts),
    )
