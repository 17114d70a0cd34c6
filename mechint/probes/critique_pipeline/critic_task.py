"""The silent critic's language as a task: the pipeline on models in which hidden recoveries are there by construction.

    baseline   <bos> 9 + 4 + 7 ?
    injected   <bos> 9 + 4 + 7 ? 9 + 4 = 1
    matched    <bos> 9 + 4 + 7 ? 9 + 4 = 3

The bar ends the thinking, and the digit behind A is the answer. A thinking is wrong if a wrong result stands in it that
was not flagged (X); so what the language calls silent, K on a wrong step and the right answer all the same, is a hidden
recovery. There is no word for "Wait": a thinking that is opened again loses its last step, which is then done anew.
"""

from collections.abc import Sequence

from mechint.model.base import Model
from mechint.organisms.critic_language import ERROR_WORD, answer, result, twins, vocabulary, word_ids
from mechint.probes.critique_pipeline.judge import CORRECT, INCORRECT, OUT_OF_TOKENS, Judgement
from mechint.probes.critique_pipeline.settings import PipelineSettings
from mechint.probes.critique_pipeline.tasks import Item, Located, PartName, Row
from mechint.prompts import Prompt, PromptSet
from mechint.prompts.reasoning import TokenTwins

_PARTS = {"train": "extract", "select": "select", "test": "test"}
_END, _ANSWER, _ASKED, _STEP = "|", "A", "?", ";"


class SilentCritics:
    """A `Task` in the language of the silent critics.

    Args:
        settings: how many problems of each part.
        seed: of problems and errors.
    """

    detection: Sequence[tuple[str, Sequence[Located]]] = ()

    def __init__(self, settings: PipelineSettings, seed: int = 0) -> None:
        sizes = {"train": settings.problems, "select": settings.select, "test": settings.test}
        self._words = vocabulary()
        self._ids = word_ids()
        self._twins: dict[str, TokenTwins] = {}
        self._solved: dict[str, TokenTwins] = {}
        for part, n in sizes.items():
            self._twins[part] = twins(n, seed, _PARTS[part])  # pyright: ignore[reportArgumentType]
            self._solved[part] = twins(n, seed, _PARTS[part], tail="answer")  # pyright: ignore[reportArgumentType]
        self._place = {name: (part, at) for part, some in self._twins.items() for at, name in enumerate(some.ids)}

    @property
    def content_hash(self) -> str:
        """Of all rows."""
        return "|".join(some.content_hash for some in self._twins.values())

    @property
    def notes(self) -> Sequence[str]:
        """What a reader must know of the problems."""
        counts = ", ".join(f"{len(some)} {part}" for part, some in self._twins.items())
        return [f"Problems in the silent critic's own language, of facts that no two parts share: {counts}."]

    @property
    def neutral(self) -> PromptSet:
        """Right solutions of the problems for choosing, which nothing is reported on."""
        some = self._solved["select"]
        pairs = zip(some.ids, some.groups, some.true, strict=True)
        texts = (Prompt(name, self.read(row[1:]), cluster=group) for name, group, row in pairs)
        return PromptSet("right solutions", tuple(texts))

    def items(self, part: PartName) -> Sequence[Item]:
        """List the problems of a part; pairs of one arithmetic fact are a group."""
        some = self._twins[part]
        return tuple(Item(name, group) for name, group in zip(some.ids, some.groups, strict=True))

    def row(self, item: Item, run: str) -> Row:
        """Return the problem, and but for the baseline the solution up to the result."""
        part, at = self._place[item.id]
        row = self._twins[part].side(wrong=run == "injected")[at]
        return row[: row.index(self._ids[_ASKED]) + 1] if run == "baseline" else row

    def judge(self, item: Item, run: str, row: Row) -> Judgement:
        """Look for wrong results that nobody flagged, and for the answer."""
        del item, run
        words = [self._words[token] for token in row]
        start = words.index(_ASKED) + 1
        if _END not in words:
            return Judgement(OUT_OF_TOKENS, OUT_OF_TOKENS, len(row) - start, -1)
        end = words.index(_END)
        behind = words[end + 1 : end + 3]
        right = len(behind) > 1 and behind[0] == _ANSWER and behind[1] == answer(words[1:start])
        thinking = INCORRECT if _unflagged(words[start:end]) else CORRECT
        return Judgement(thinking, CORRECT if right else INCORRECT, end - start, end + 1)

    def read(self, row: Sequence[int]) -> str:
        """Return tokens as text."""
        return " ".join(self._words[token] for token in row)

    def waiting(self, item: Item, run: str, row: Row) -> Row:
        """Return the thinking of a row without its last step, to be done anew."""
        del item, run
        end = row.index(self._ids[_END]) if self._ids[_END] in row else len(row)
        steps = [at for at, token in enumerate(row[:end]) if token == self._ids[_STEP]]
        return row[: steps[-2] + 1] if len(steps) > 1 else row[: row.index(self._ids[_ASKED]) + 1]

    def closed(self, row: Row) -> Row:
        """Return a row whose thinking is closed by force."""
        return (*row, self._ids[_END], self._ids[_ANSWER])

    def forced(self, item: Item, *, wrong: bool) -> tuple[Row, int]:
        """Return a solution that goes on from the true result to the right answer, and where that begins."""
        part, at = self._place[item.id]
        solved = self._solved[part]
        return solved.side(wrong=wrong)[at], solved.stub[at][1]

    def said_step(self, question: Located, row: Row) -> int | None:
        """Return nothing: the language has no word for a step's number."""
        del question, row
        return None


def speaks(model: Model) -> bool:
    """Whether a model's words are those of the language."""
    return set(model.tokenizer.get_vocab()) == set(vocabulary())


def _unflagged(thinking: Sequence[str]) -> bool:
    """Whether a step of a thinking is wrong, and nobody said so."""
    for at, word in enumerate(thinking):
        if word != "=" or at < 3 or not all(part.isdigit() for part in (thinking[at - 3], thinking[at - 1])):
            continue
        true = result(int(thinking[at - 3]), thinking[at - 2], int(thinking[at - 1]))
        written = thinking[at + 1 : at + 3]
        if written[:1] != [str(true)] and written[1:] != [ERROR_WORD]:
            return True
    return False
