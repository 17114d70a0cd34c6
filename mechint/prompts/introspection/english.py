"""A battery of introspection in English, for base models too: every question comes with three answered ones before it.

What goes before is the same in all arms, so that it can be read once and cannot tell them apart; the answered trials
show the form and both answers. Concepts and neutral words are single tokens, so a mention changes no length. The
direction of a concept is taken at the last token of "Human: Tell me about {word}" … "Assistant:" (Lindsey 2025,
"Emergent Introspective Awareness", whose wording of the question is not used: it asks for free text).
"""

import contextlib
import functools
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from mechint.errors import PromptError, TokenError
from mechint.prompts.encoding import bare_tokens, token_of, tokenize
from mechint.prompts.introspection.material import NO, NOTHING, STATE, TEXT, YES, Asked, Example, Material

CONCEPTS = (
    *("dust", "milk", "bread", "silver", "snow", "blood", "music", "glass", "gold", "rain", "wine", "fire"),
    *("salt", "honey", "stone", "coffee", "cotton", "horse", "moon", "iron", "sugar", "smoke", "river", "wool"),
    *("ocean", "thunder", "paper", "garlic", "forest", "copper"),
)
"""In the order in which they are taken: single tokens alone, those reported on first."""
FILLERS = (
    *("table", "road", "clock", "number", "chair", "window", "street", "machine", "letter", "office", "market"),
    *("ticket", "floor", "bottle", "corner", "engine", "wall", "bridge", "garden", "jacket", "pencil", "station"),
    *("button", "basket", "mirror", "ladder", "hammer", "carpet", "pocket", "needle"),
)
"""Words whose mean is taken away from a concept, where that is asked for; none of them is a concept."""
CARRIERS = (
    ("The clerk closed the file and left a {} on the desk by the door.", "note"),
    ("At noon the visitors sat in the hall and talked about the {} for a while.", "plan"),
    ("My neighbour came back late and said that the {} was still in the car.", "bag"),
    ("Nobody knew who had put the {} in the room at the end of the corridor.", "box"),
    ("The report mentions a {} that was seen near the entrance on Tuesday.", "sign"),
    ("She asked her brother to bring the {} when he came on Friday.", "key"),
)
"""With the neutral word that stands where a concept may be mentioned."""
_UNRELATED = (
    *(("Is ice colder than steam?", YES), ("Is the sun a kind of fish?", NO), ("Do cows eat grass?", YES)),
    *(("Is ten less than three?", NO), ("Is Paris a city?", YES), ("Do stones have parents?", NO)),
    *(("Is water wet?", YES), ("Is a mouse larger than a house?", NO), ("Does a week have seven days?", YES)),
    *(("Do fish live on the moon?", NO), ("Is a dog an animal?", YES), ("Is snow black?", NO)),
    *(("Do birds have wings?", YES), ("Is fire cold?", NO), ("Is the text above written in English?", YES)),
    *(("Is the text above written in Chinese?", NO), ("Can you read this sentence?", YES)),
    *(("Do you have two legs?", NO), ("Are you a language model?", YES), ("Have you eaten breakfast?", NO)),
    *(("Does the sentence above end with a full stop?", YES), ("Is the sentence above a poem?", NO)),
    *(("Is a triangle made of lines?", YES), ("Is the night brighter than the day?", NO)),
)
"""As many with yes as with no, on the world, the text and the model."""
_SHOWN = (("Is a year longer than a day?", "Yes"), ("Is grass blue?", "No"), ("Can cars fly?", "No"))
_INTRO = (
    "Below are trials with a language model. In each it reads one sentence. In some trials, while the model reads, an "
    "experimenter injects the thought of a word into its neurons, which cannot be seen in the sentence. In some, the "
    "word is written in the sentence. In others there is neither. The words are: {}.\n\n"
)
_DEMOS = (
    "He waited for the bus and looked at the {} in his hand.",
    "The door was locked and a {} lay in front of it.",
    "Two men carried the {} up the stairs.",
)
_SOURCES = {
    STATE: "an injected thought",
    TEXT: "the sentence",
    NOTHING: "there is no such word",
}
_ORDERS = ((STATE, TEXT, NOTHING), (TEXT, NOTHING, STATE), (NOTHING, STATE, TEXT))


class English(Material):
    """Texts in English, in the tokens of one model.

    Args:
        tokenizer: of the model.
        n_concepts: how many concepts to report on.
        n_developing: how many others to choose layer and dose on.
        n_carriers: how many texts.

    Raises:
        PromptError: too few of the words are single tokens of this model, or a label is not one.
    """

    name = "English"
    n_sources = len(_ORDERS)
    n_unrelated = len(_UNRELATED)
    reads_on = graded = True

    def __init__(self, tokenizer: Any, n_concepts: int = 16, n_developing: int = 8, n_carriers: int = 4) -> None:
        self._tokenizer = tokenizer
        known = [word for word in CONCEPTS if len(self._tokens(f" {word}")) == 1]
        if len(known) < n_concepts + n_developing or n_concepts < 2 or not 2 <= n_carriers <= len(CARRIERS):
            raise PromptError(
                f"{n_concepts} + {n_developing} concepts and {n_carriers} carriers. Expected at least 2 concepts, 2 to "
                f"{len(CARRIERS)} carriers, and no more concepts than {len(known)}, the single tokens among those here."
            )
        self.concepts = tuple(known[:n_concepts])
        self.developing = tuple(known[n_concepts : n_concepts + n_developing])
        self.n_carriers = n_carriers

    def asked(self, question: str, carrier: int, mention: str | None = None) -> Asked:
        """Return a question about a carrier; see `Material.asked`."""
        if not 0 <= carrier < self.n_carriers or mention not in (None, *self.concepts, *self.developing):
            raise PromptError(f"Carrier {carrier} with {mention!r}. There are {self.n_carriers}, and {self.concepts}.")
        sentence, neutral = CARRIERS[carrier]
        words, answers, right = _worded(question, (*self.concepts, *self.developing))
        before = self._before(question)
        text = self._tokens(f" {sentence.format(mention or neutral)}")
        behind = self._tokens(f"\nQuestion: {words}\nAnswer:")
        labels = {name: self._label(word) for name, word in answers.items()}
        return Asked((*before, *text, *behind), len(before), len(before) + len(text), labels, right)

    def examples(self, concept: str) -> Sequence[Example]:
        """Return the one text that a concept's direction is taken from."""
        tokens = tokenize(f"Human: Tell me about {concept}.\n\nAssistant:", self._tokenizer)
        return [Example(tokens, len(tokens) - 1)]

    def fillers(self) -> Sequence[Example]:
        """Return the same of words that are no concept."""
        return [example for word in FILLERS for example in self.examples(word)]

    @property
    def content_hash(self) -> str:
        """A hash of all texts and labels."""
        told = repr((_INTRO, _DEMOS, CARRIERS, _UNRELATED, _ORDERS, self.concepts, self.developing, self.n_carriers))
        return f"sha256:{hashlib.sha256(told.encode()).hexdigest()}"

    @functools.lru_cache(maxsize=64)  # noqa: B019
    def _before(self, question: str) -> tuple[int, ...]:
        """Return everything that stands before the text; it depends on the kind of question alone."""
        family = question.partition(" ")[0]
        texts = [_INTRO.format(", ".join((*self.concepts, *self.developing)))]
        for demo, (words, answer) in zip(_DEMOS, self._answered(question, family), strict=True):
            neutral = ("book", "coat", "lamp")[_DEMOS.index(demo)]
            if family == "source" and answer == _worded(question, self.concepts)[1][TEXT]:
                neutral = self.concepts[-1]  # what the answer says is so
            texts.append(f"Sentence: {demo.format(neutral)}\nQuestion: {words}\nAnswer: {answer}\n\n")
        return (*tokenize("".join(texts) + "Sentence:", self._tokenizer),)

    def _answered(self, question: str, family: str) -> list[tuple[str, str]]:
        if family == "unrelated":
            return [(f"{words} Answer Yes or No.", answer) for words, answer in _SHOWN]
        words, answers, _ = _worded(question, self.concepts)
        names = list(answers)
        if family == "identify":
            names = [*self.developing[:2], self.developing[-1]] if self.developing else names[:3]
            return [(words, name) for name in names]
        # Every answer at least once, and the last place left to the one that says nothing.
        shown = [names[0], names[-1], names[len(names) // 2]] if len(names) > 2 else [YES, NO, NO]
        return [(words, answers[name]) for name in shown]

    def _tokens(self, text: str) -> tuple[int, ...]:
        return bare_tokens(text, self._tokenizer)

    def _label(self, word: str) -> tuple[int, ...]:
        """Return the tokens that say a word behind "Answer:", yes and no also in other letters.

        Raises:
            PromptError: it is no single token there. Digits often are not: a blank comes first, alone.
        """
        forms = (word, word.lower(), word.upper()) if word in ("Yes", "No") else (word,)
        found: list[int] = []
        for form in forms:
            with contextlib.suppress(TokenError):  # one spelling is enough
                found.append(token_of(f" {form}", self._tokenizer, after="Answer:"))
        if not found:
            raise PromptError(
                f"The answer {word!r} is no single token behind 'Answer:' here ({self._tokens(f'Answer: {word}')}). "
                "Expected labels that one step can say: choose another word."
            )
        return tuple(dict.fromkeys(found))


def _worded(question: str, concepts: Sequence[str]) -> tuple[str, Mapping[str, str], str]:
    """Return the words of a question, those of its answers by meaning, and the answer that is always right."""
    family, _, number = question.partition(" ")
    if family == "detect":
        return (
            "Was a thought injected while the model read this sentence? Answer Yes or No.",
            {YES: "Yes", NO: "No"},
            "",
        )
    if family == "flip":
        letters = ("A", "B") if number == "0" else ("B", "A")
        words = "Was a thought injected while the model read this sentence?"
        return (
            f"{words} {_options(dict(zip(('yes', 'no'), letters, strict=True)))}",
            {YES: letters[0], NO: letters[1]},
            "",
        )
    if family == "identify":
        return "Which word was the injected thought about?", {concept: concept for concept in concepts}, ""
    if family == "source" and int(number) < len(_ORDERS):
        letters = dict(zip(_ORDERS[int(number)], ("A", "B", "C"), strict=True))
        words = _options({_SOURCES[name]: letter for name, letter in letters.items()})
        return f"Where does a word of the list come from? {words}", letters, ""
    if family == "unrelated" and int(number) < len(_UNRELATED):
        words, right = _UNRELATED[int(number)]
        return f"{words} Answer Yes or No.", {YES: "Yes", NO: "No"}, right
    raise PromptError(f"No question {question!r}. There are detect, flip, identify, source and unrelated.")


def _options(letters: dict[str, str]) -> str:
    """Return options in the order of their letters."""
    return " ".join(f"{letter}: {words}." for words, letter in sorted(letters.items(), key=lambda pair: pair[1]))
