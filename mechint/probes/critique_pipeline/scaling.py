"""Test-time scaling: after a thinking, "Wait" is appended and the model thinks on, stack by stack.

Stack 0 is the injected prompt. A thinking that runs out of tokens is closed by force and answered; stack k + 1 begins
with the thinking of stack k, open again. Thinking tokens are counted from the beginning, the given solution included.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

from mechint.probes.critique_pipeline.tasks import Item, Row, Task

Write = Callable[[Sequence[Row], Sequence[str], int], Sequence[Row]]
"""From rows, their names and the most that is written to what was written."""


def scaled(
    task: Task, items: Sequence[Item], write: Write, *, stacks: int, most: int, answer: int
) -> list[dict[str, Any]]:
    """Return a row for each problem and stack: judgements, thinking tokens, whether the thinking was closed by force.

    Args:
        task: whose problems these are.
        items: the problems.
        write: writes on from rows.
        stacks: how often "Wait" is appended.
        most: tokens of a thinking and its answer, at most.
        answer: tokens after a thinking that was closed by force, at most.
    """
    begun = [task.row(item, "injected") for item in items]
    found: list[dict[str, Any]] = []
    for stack in range(stacks + 1):
        names = [f"{item.id}/stack {stack}" for item in items]
        texts = [row + tuple(new) for row, new in zip(begun, write(begun, names, most), strict=True)]
        judged = [task.judge(item, "injected", row) for item, row in zip(items, texts, strict=True)]
        late = [at for at, one in enumerate(judged) if one.answer_start < 0]
        closed = [task.closed(texts[at]) for at in late]
        answers = write(closed, [f"{names[at]}/answer" for at in late], answer) if late else []
        for at, row, new in zip(late, closed, answers, strict=True):
            texts[at] = row + tuple(new)
            judged[at] = task.judge(items[at], "injected", texts[at])
        for at, (item, one) in enumerate(zip(items, judged, strict=True)):
            told = {"id": item.id, "group": item.group, "stack": stack, "closed_by_force": at in late}
            found.append(told | asdict(one))
        begun = [task.waiting(item, "injected", row) for item, row in zip(items, texts, strict=True)]
    return found
