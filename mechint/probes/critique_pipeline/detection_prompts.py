r"""Questions for the first wrong step of a solution, and how their answers are read.

The texts ask for `\boxed{k}`; they are raw strings, since "\b" in another one is a backspace (which the published code
sends in every ProcessBench prompt).
"""

import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from mechint.probes.critique_pipeline.settings import PipelineSettings
from mechint.probes.critique_pipeline.tasks import Located, Row
from mechint.prompts.reasoning import load_bbm, load_processbench

_BBM = (
    "Given a problem and its solution steps below, identify whether there is any incorrect reasoning step. Do NOT "
    "solve the problem.\n\nProblem: {problem}\n\nReasoning:\n{steps}\n\n"
    r"Return \boxed{{k}} with the number k of the first incorrect thought, or \boxed{{-1}} if all steps are correct."
)
_PROCESSBENCH = (
    "The following is a math problem and a solution (split into paragraphs, enclosed with tags and indexed from 0):\n\n"
    "[Math Problem]\n\n{problem}\n\n[Solution]\n\n{steps}\n\n"
    "Your task is to review and critique the solution paragraph by paragraph. Once you identify an error in a "
    "paragraph, return the index of the paragraph where the earliest error occurs. Otherwise, return the index of -1 "
    '(which typically denotes "not found").'
    "\n\nPlease put your final answer (i.e., the index) in "
    r"\boxed{{}}."
)
_BOX = re.compile(r"\\boxed\{\s*(-?\d+)\s*\}")
MOST_PROMPT_TOKENS = 4000
"""Longer questions are left out, as in the paper."""


def bbm_question(problem: str, steps: Sequence[str]) -> str:
    """Return the question about a solution of BIG-Bench Mistake."""
    return _BBM.format(problem=problem, steps="\n".join(f"Thought {at}: {step}" for at, step in enumerate(steps)))


def processbench_question(problem: str, steps: Sequence[str]) -> str:
    """Return the question about a solution of ProcessBench."""
    tagged = "\n\n".join(f"<paragraph_{at}>\n{step}\n</paragraph_{at}>" for at, step in enumerate(steps))
    return _PROCESSBENCH.format(problem=problem, steps=tagged)


def said(text: str, end: str) -> int | None:
    r"""Return the integer in the last box behind the end of the thinking; None without one, or below -1.

    Examples:
        >>> said(r"\boxed{1} </think> It is \boxed{3}.", "</think>"), said(r"\boxed{1}", "</think>")
        (3, None)
    """
    _, found, answer = text.partition(end)
    boxes = _BOX.findall(answer) if found else []
    return int(boxes[-1]) if boxes and int(boxes[-1]) >= -1 else None


def located(settings: PipelineSettings, asked: Callable[[str], Row]) -> list[tuple[str, Sequence[Located]]]:
    """Return the questions of each file that the settings name, by name.

    Raises:
        PromptError: a file that cannot be read.
    """
    made = [(Path(path).stem, tuple(_bbm(path, asked))) for path in settings.bbm]
    made += [(Path(path).stem, tuple(_processbench(path, asked))) for path in settings.processbench]
    return [(name, rows[: settings.most_rows or None]) for name, rows in made]


def _bbm(path: str, asked: Callable[[str], Row]) -> Iterator[Located]:
    for at, row in enumerate(load_bbm(path).rows):
        tokens = asked(bbm_question(row.input, row.steps))
        if len(tokens) <= MOST_PROMPT_TOKENS:
            yield Located(f"{Path(path).stem}-{at}", row.input, tokens, row.mistake_index)


def _processbench(path: str, asked: Callable[[str], Row]) -> Iterator[Located]:
    for row in load_processbench(path).rows:
        tokens = asked(processbench_question(row.problem, row.steps))
        if len(tokens) <= MOST_PROMPT_TOKENS:
            yield Located(row.id, row.problem, tokens, None if row.label < 0 else row.label)
