r"""A judge by rule: which result a text states, whether it is the expected one, and where a thinking ends.

    thinking   the last two paragraphs of what stands before the end of the thinking
    final      all that stands after it
    no end     both are "out_of_tokens"

The result of a text is what its last `\boxed{}` holds, or else its last number. Two results are equal if their exact
values are, or else if they are the same text. The paper (arXiv 2603.16331) asks a model of 0.5B parameters instead,
whose prompt it cuts at 2048 tokens; a rule reads the whole text and always says the same.
"""

import importlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from mechint.errors import ConfigError
from mechint.prompts.reasoning.expressions import literals, plain, value

CORRECT, INCORRECT, OUT_OF_TOKENS = VERDICTS = ("correct", "incorrect", "out_of_tokens")
_PARAGRAPHS = 2
_FRACTION = re.compile(r"\\[dt]?frac\{([^{}]*)\}\{([^{}]*)\}")
_WORDS = re.compile(r"\\(?:text|mathrm|mbox)\{([^{}]*)\}")
_LAYOUT = re.compile(r"\\(?:left|right|[,;! ])|\\%|%|°|\^\\circ|\^\{\\circ\}")


@dataclass(frozen=True)
class Judgement:
    """What was said of one text."""

    thinking: str
    """"correct", "incorrect" or "out_of_tokens"."""
    final: str
    thinking_tokens: int
    answer_start: int
    """Place in the row of the first token after the end of the thinking; -1 where it does not end."""

    @property
    def hidden(self) -> bool:
        """Whether the answer is right although the thinking is wrong: the paper's hidden critique."""
        return (self.thinking, self.final) == (INCORRECT, CORRECT)


def stated(text: str) -> str | None:
    r"""Return the result that a text states; None where there is none.

    Examples:
        >>> stated(r"So 3 + 4 = 8, no, \boxed{\frac{7}{2}}."), stated("5-3 is 2 apples."), stated("none")
        ('\\frac{7}{2}', '2', None)
    """
    boxed = text.rfind(r"\boxed{")
    if boxed >= 0 and (inner := _braced(text[boxed + len(r"\boxed") :])) is not None:
        return inner
    found = list(literals(text))
    if not found:
        return None
    last = found[-1]
    # In "5-3" the sign belongs to the subtraction, not to the number.
    joined = last.group().startswith("-") and last.start() > 0 and text[last.start() - 1].isalnum()
    return last.group()[1:] if joined else last.group()


def equal(given: str, expected: str) -> bool:
    r"""Whether two results are the same number, or the same text where they are no numbers.

    Examples:
        >>> equal(r"\frac{7}{2}", "3.5"), equal("$1,200", "1200"), equal("12", "1.2"), equal(r"\text{Tom}", "tom")
        (True, True, False, True)
    """
    a, b = _bare(given), _bare(expected)
    left, right = value(a), value(b)
    return left == right if left is not None and right is not None else a.casefold() == b.casefold()


def numeric(text: str, answer: str) -> bool:
    """Whether the result that a text states is the answer."""
    found = stated(text)
    return found is not None and equal(found, answer)


def math_verify() -> Callable[[str, str], bool]:
    """Return the same by the package math-verify, which reads LaTeX.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        package: Any = importlib.import_module("math_verify")
    except ImportError as error:
        raise ConfigError(
            'judge = "math_verify" needs its package: pip install math-verify. Or use "numeric".'
        ) from error

    def judged(text: str, answer: str) -> bool:
        return bool(package.verify(package.parse(f"${answer}$"), package.parse(text)))

    return judged


def end_of_thinking(row: Sequence[int], start: int, decode: Callable[[Sequence[int]], str], end: str) -> int:
    """Return the place of the first token behind the end of the thinking, which begins at `start`; -1 without an end.

    Found in the text, not among tokens: a tokenizer may join the end tag with what follows.
    """
    written = list(row[start:])
    if end not in decode(written):
        return -1
    low, high = 1, len(written)  # the tag is there with the first `high` tokens, and not with fewer than `low`
    while low < high:
        middle = (low + high) // 2
        if end in decode(written[:middle]):
            high = middle
        else:
            low = middle + 1
    return start + high


def last_paragraphs(thinking: str) -> str:
    """Return the last two paragraphs."""
    return "\n\n".join([part for part in thinking.split("\n\n") if part.strip()][-_PARAGRAPHS:])


def verdict(correct: bool) -> str:
    """Return the word for it."""
    return CORRECT if correct else INCORRECT


def _braced(text: str) -> str | None:
    depth = 0
    for at, character in enumerate(text):
        depth += (character == "{") - (character == "}")
        if depth == 0:
            return text[1:at]
    return None


def _bare(text: str) -> str:
    text = _LAYOUT.sub("", _WORDS.sub(r"\1", text))
    while (replaced := _FRACTION.sub(r"((\1)/(\2))", text)) != text:
        text = replaced
    return plain(text).strip().strip(".").strip()
