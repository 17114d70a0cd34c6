r"""Word problems as a task: own problems with own errors, or published traces, in the prompts of a reasoning model.

    baseline   chat(question) <think>\n
    injected   chat(question) <think>\n steps … wrong result \n\n
    matched    chat(question) <think>\n steps … true result \n\n

The three share the user's text, and the last two every character but the result. With `paper_prompts` the baseline's
question is wrapped ("Question: …\nAnswer:") and there is no matched run, as in the code of arXiv 2603.16331: then the
two runs that are compared differ in the prompt, in who wrote the beginning, and in length.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from mechint.errors import PromptError
from mechint.model.base import Model
from mechint.probes.critique_pipeline import judge as judging
from mechint.probes.critique_pipeline.detection_prompts import located, said
from mechint.probes.critique_pipeline.judge import Judgement
from mechint.probes.critique_pipeline.settings import PipelineSettings
from mechint.probes.critique_pipeline.tasks import PARTS, Item, Located, PartName, Row
from mechint.prompts.reasoning import (
    RULES,
    MinimalPair,
    arithmetic_problems,
    inject,
    load_error_traces,
)

_ANSWER = "The final answer is "


@dataclass(frozen=True)
class _Problem:
    id: str
    question: str
    answer: str
    wrong: str
    """The solution up to its error."""
    true: str | None
    """The same with the true result; None where it could not be recomputed."""


class WordProblems:
    """A `Task` of word problems.

    Args:
        model: whose tokenizer, chat template and context are used.
        settings: of the pipeline.
        seed: of problems and errors.

    Raises:
        PromptError: a file that cannot be read, or too few problems for the parts.
        ConfigError: the judge is not installed.
    """

    def __init__(self, model: Model, settings: PipelineSettings, seed: int = 0) -> None:
        self._model, self._settings = model, settings
        self._correct = judging.numeric if settings.judge == "numeric" else judging.math_verify()
        found = _traces(settings) if settings.traces_train else _own(settings, seed)
        self._problems = {one.id: one for part in found.values() for one in part}
        self._parts = {part: tuple(Item(one.id, one.id) for one in rows) for part, rows in found.items()}
        self.neutral = None
        self.detection: Sequence[tuple[str, Sequence[Located]]] = located(settings, self._asked)
        self.name = "error traces" if settings.traces_train else f"own problems, {settings.rule}"
        texts = [asdict(one) for one in self._problems.values()]
        asked = [[one.id, one.row, one.mistake] for _, rows in self.detection for one in rows]
        told = json.dumps([texts, asked], sort_keys=True)
        self.content_hash = f"sha256:{hashlib.sha256(told.encode()).hexdigest()}"

    @property
    def notes(self) -> Sequence[str]:
        """What a reader must know of prompts and parts."""
        counts = ", ".join(f"{len(self._parts[part])} {part}" for part in PARTS)
        said = [f"Problems ({self.name}): {counts}."]
        if not self._templated:
            said.append("The tokenizer has no chat template: the question stands alone, with a line break behind it.")
        if self._settings.paper_prompts:
            said.append(
                "Prompts as published: baseline and injected runs differ in the user's text, in who wrote the "
                "beginning, and in length, so what tells them apart need not be critique."
            )
        unknown = self._model.tokenizer.unk_token_id
        specials = (self._model.tokenizer.bos_token_id, self._model.tokenizer.eos_token_id)
        first = self.row(self._parts["test"][0], "injected")
        if unknown not in (None, *specials) and unknown in first:
            share = sum(token == unknown for token in first) / len(first)
            said.append(
                f"{share:.0%} of the tokens of the first test prompt are unknown to this tokenizer: this run shows "
                "that the stages run, and nothing else."
            )
        return said

    def items(self, part: PartName) -> Sequence[Item]:
        """List the problems of a part."""
        return self._parts[part]

    def row(self, item: Item, run: str) -> Row:
        """Return the tokens of chat, opened thinking and, but for the baseline, the beginning of the solution."""
        problem, head = self._problems[item.id], self._head(item, run)
        if run == "baseline":
            return head
        given = problem.wrong if run == "injected" else problem.true
        if given is None:
            raise PromptError(f"Problem {item.id!r} has no true twin, so there is no run {run!r} of it.")
        return head + self._bare(f"{given}\n\n")

    def judge(self, item: Item, run: str, row: Row) -> Judgement:
        """Compare the results of thinking and final answer with the right one."""
        start, answer, end = len(self._head(item, run)), self._problems[item.id].answer, self._end
        behind = judging.end_of_thinking(row, start, self.read, end)
        if behind < 0:
            return Judgement(judging.OUT_OF_TOKENS, judging.OUT_OF_TOKENS, len(row) - start, -1)
        thinking, _, final = self.read(row[start:]).partition(end)
        return Judgement(
            judging.verdict(self._correct(judging.last_paragraphs(thinking), answer)),
            judging.verdict(self._correct(final, answer)),
            max(0, behind - start - len(self._bare(end))),
            behind,
        )

    def read(self, row: Sequence[int]) -> str:
        """Return tokens as text, without special ones."""
        return str(self._model.tokenizer.decode(list(row), skip_special_tokens=True))

    def waiting(self, item: Item, run: str, row: Row) -> Row:
        """Return the thinking of a row, open again, with "Wait" behind it."""
        head = self._head(item, run)
        thinking = self.read(row[len(head) :]).partition(self._end)[0].strip()
        return head + self._bare(thinking + self._settings.wait)

    def closed(self, row: Row) -> Row:
        """Return a row whose thinking is closed by force."""
        return row + self._bare(self._settings.think_close)

    def forced(self, item: Item, *, wrong: bool) -> tuple[Row, int] | None:
        """Return the solution, the end of the thinking and "The final answer is …", and where that begins."""
        problem = self._problems[item.id]
        if problem.true is None:
            return None
        before = self.closed(self.row(item, "injected" if wrong else "matched"))
        return before + self._bare(f"{_ANSWER}{problem.answer}."), len(before)

    def said_step(self, question: Located, row: Row) -> int | None:
        """Return the integer in the last box behind the thinking."""
        return said(self.read(row[len(question.row) :]), self._end)

    @property
    def _end(self) -> str:
        return self._settings.think_end.strip()

    @property
    def _templated(self) -> bool:
        return bool(getattr(self._model.tokenizer, "chat_template", None))

    def _head(self, item: Item, run: str) -> Row:
        question = self._problems[item.id].question
        wrapped = self._settings.paper_prompts and run == "baseline"
        return self._asked(f"Question: {question}\nAnswer:" if wrapped else question)

    def _asked(self, user: str) -> Row:
        """Return the tokens of the user's text and of the thinking's beginning."""
        start = self._settings.think_start
        text = f"{user}\n"
        if self._templated:
            turn: Any = [{"role": "user", "content": user}]
            text = str(self._model.tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True))
        # Some templates open the thinking themselves.
        opened = bool(start.strip()) and text.rstrip().endswith(start.strip())
        return tuple(self._model.tokenize(text if opened else text + start))

    def _bare(self, text: str) -> Row:
        return tuple(self._model.tokenizer(text, add_special_tokens=False)["input_ids"])


def _own(settings: PipelineSettings, seed: int) -> dict[PartName, tuple[_Problem, ...]]:
    """Make problems and errors; each part's errors by themselves, so that a derangement is balanced within it."""
    sizes = (settings.problems, settings.select, settings.test)
    made = iter(arithmetic_problems(sum(sizes), seed))
    parts: dict[PartName, tuple[_Problem, ...]] = {}
    for part, size in zip(PARTS, sizes, strict=True):
        problems = {one.id: one for one in (next(made) for _ in range(size))}
        pairs = inject(tuple(problems.values()), RULES[settings.rule.replace("_", " ")](), seed=seed, name=part)
        parts[part] = tuple(_of_pair(pair, pair.id, problems[pair.id].answer) for pair in pairs)
    return _checked(parts, "problems of our own")


def _traces(settings: PipelineSettings) -> dict[PartName, tuple[_Problem, ...]]:
    """Read published traces; without `paper_prompts` only those whose error could be recomputed have a twin."""
    train = list(_usable(settings.traces_train, "train", settings.paper_prompts))
    if settings.traces_test:
        test = list(_usable(settings.traces_test, "test", settings.paper_prompts))[: settings.test]
    else:
        cut = settings.problems + settings.select
        test = train[cut : cut + settings.test]
    middle = train[settings.problems : settings.problems + settings.select]
    parts: dict[PartName, Sequence[_Problem]] = {"train": train[: settings.problems], "select": middle, "test": test}
    return _checked({name: tuple(rows) for name, rows in parts.items()}, settings.traces_train)


def _usable(path: str, name: str, everything: bool) -> Iterator[_Problem]:
    traces = load_error_traces(path)
    by_id: dict[str, MinimalPair] = {pair.id: pair for pair in traces.pairs()}
    for trace in traces.rows:
        pair = by_id.get(f"{traces.name}-{trace.id}")
        given = f"{name}-{trace.id}"
        if pair is not None:
            yield _of_pair(pair, given, trace.ground_truth)
        elif everything:
            yield _Problem(given, trace.question, trace.ground_truth, trace.search.rstrip("\n"), None)


def _of_pair(pair: MinimalPair, name: str, answer: str) -> _Problem:
    wrong, true = (f"{pair.prefix}{literal}{pair.tail}" for literal in (pair.wrong, pair.true))
    return _Problem(name, pair.question, answer, wrong, true)


def _checked(parts: dict[PartName, tuple[_Problem, ...]], source: str) -> dict[PartName, tuple[_Problem, ...]]:
    sizes = {part: len(rows) for part, rows in parts.items()}
    if min(sizes.values()) < 2:
        raise PromptError(
            f"{source}: {sizes} problems with an error are left for the parts. Expected 2 or more in each: ask for "
            "fewer in the first parts, or give a larger file."
        )
    return parts
