"""Short questions with a right and a wrong answer of one token each, of kinds that are not equally hard.

    addition, division      digits whose result is a digit; the wrong one is off by 1 to 3
    comparison              the larger of two number words; the wrong one is the other
    letter and number word  what comes after, or before; the wrong one is near by
    letters of a word       the first, second or last; the wrong one is another letter of the same word

A small model knows some of these and not others, so there is something to be more or less confident about. Every fact
(3 + 4, the second letter of "river") is one cluster, "kind/fact", whatever its wrong answers. The two answers are not
shown: a model is asked which it would rather write.
"""

from collections.abc import Callable, Sequence

from mechint.errors import PromptError
from mechint.prompts.prompt import Prompt, PromptSet, check_number
from mechint.statistics import generator

NUMBERS = (
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
    "twenty",
)
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
WORDS = (
    "apple",
    "river",
    "stone",
    "garden",
    "music",
    "window",
    "silver",
    "orange",
    "candle",
    "bridge",
    "pencil",
    "mirror",
    "forest",
    "winter",
    "summer",
    "doctor",
    "animal",
    "number",
    "letter",
    "island",
    "carpet",
    "hammer",
    "pillow",
    "basket",
    "rocket",
    "castle",
    "flower",
    "sugar",
    "coffee",
    "tiger",
    "zebra",
    "lemon",
    "kitten",
    "planet",
    "ocean",
    "market",
    "school",
    "guitar",
    "jacket",
    "monkey",
)
Question = tuple[str, str, str, tuple[str, ...]]
"""Fact, question, right answer, wrong answers."""


def two_choice(n: int = 600, seed: int = 0) -> PromptSet:
    """Return questions, as many of each kind as can be.

    The prompt is "Q: …", a new line and "A:", the target the right answer with its leading space, the distractor the
    wrong one; before digits the space is in the prompt, since some tokenizers make a token of it.

    Args:
        n: how many.
        seed: which facts and wrong answers.

    Raises:
        PromptError: fewer than one, or more than there are.

    Examples:
        >>> one = two_choice(10)[0]
        >>> one.cluster.split("/")[0], one.prompt.startswith("Q: What is "), one.prompt.endswith("A: ")
        ('addition', True, True)
    """
    check_number(n)
    kinds = list(KINDS)
    made: list[Prompt] = []
    for place, kind in enumerate(kinds):
        wanted = n // len(kinds) + (place < n % len(kinds))
        every = [(fact, *rest, wrong) for fact, *rest, wrongs in KINDS[kind]() for wrong in wrongs]
        if wanted > len(every):
            most = len(kinds) * min(sum(len(q[-1]) for q in make()) for make in KINDS.values())
            raise PromptError(
                f"{n} questions were asked for. There are {len(every)} of {kind}; ask for {most} or less."
            )
        for index in generator(seed, "two choice", kind).permutation(len(every))[:wanted]:
            fact, question, right, wrong = every[int(index)]
            space = " " if right.isdigit() else ""
            answers = (right, wrong) if space else (f" {right}", f" {wrong}")
            cluster, name = f"{kind}/{fact}", f"{kind.replace(' ', '-')}-{index:04d}"
            made.append(Prompt(name, f"Q: {question}\nA:{space}", *answers, cluster=cluster))
    return PromptSet("two-choice questions", tuple(made))


def _near(true: int, low: int, high: int, steps: Sequence[int]) -> tuple[str, ...]:
    return tuple(str(true + step) for step in steps if low <= true + step <= high)


_STEPS = (-3, -2, -1, 1, 2, 3)


def _addition() -> list[Question]:
    pairs = [(a, b) for a in range(1, 9) for b in range(1, 10 - a)]
    return [(f"{a}+{b}", f"What is {a} + {b}?", str(a + b), _near(a + b, 0, 9, _STEPS)) for a, b in pairs]


def _division() -> list[Question]:
    pairs = [(a, b) for a in range(2, 10) for b in range(2, 10)]
    return [(f"{a * b}/{b}", f"What is {a * b} / {b}?", str(a), _near(a, 0, 9, _STEPS)) for a, b in pairs]


def _comparison() -> list[Question]:
    found: list[Question] = []
    for a in range(len(NUMBERS)):
        for b in range(a):
            # Both orders are one fact.
            for one, other in ((a, b), (b, a)):
                question = f"Which is more, {NUMBERS[one]} or {NUMBERS[other]}?"
                found.append((f"{a + 1}>{b + 1}", question, NUMBERS[a], (NUMBERS[b],)))
    return found


def _neighbours(names: Sequence[str], what: str, step: int) -> Callable[[], list[Question]]:
    def make() -> list[Question]:
        found: list[Question] = []
        side = "after" if step > 0 else "before"
        for at in range(max(0, -step), len(names) - max(0, step)):
            wrong = [names[i] for i in range(at - 3, at + 4) if 0 <= i < len(names) and i not in (at, at + step)]
            found.append((names[at], f"Which {what} comes {side} {names[at]}?", names[at + step], tuple(wrong)))
        return found

    return make


def _spelling(place: int, name: str) -> Callable[[], list[Question]]:
    def make() -> list[Question]:
        found: list[Question] = []
        for word in WORDS:
            right = word[place].upper()
            wrong = sorted({letter.upper() for letter in word} - {right})
            found.append((word, f"What is the {name} letter of the word {word}?", right, tuple(wrong)))
        return found

    return make


KINDS: dict[str, Callable[[], list[Question]]] = {
    "addition": _addition,
    "division": _division,
    "comparison": _comparison,
    "letter after": _neighbours(LETTERS, "letter", 1),
    "letter before": _neighbours(LETTERS, "letter", -1),
    "number after": _neighbours(NUMBERS, "number", 1),
    "number before": _neighbours(NUMBERS, "number", -1),
    "first letter": _spelling(0, "first"),
    "second letter": _spelling(1, "second"),
    "last letter": _spelling(-1, "last"),
}
"""By name: every question of a kind."""
