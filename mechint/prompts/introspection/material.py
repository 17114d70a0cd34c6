"""A text with a question about it, in tokens; and the whole of what a battery needs to ask one model.

Questions, by name:

    detect            was something injected?                    yes, no
    flip 0, flip 1    the same, in letters whose meaning is told in the prompt and swapped between the two
    identify          which concept?                             the concepts, in some languages also none
    source 0, 1, …    where does it come from?                   state, text, nothing; one order of the options each
    unrelated 0, 1, … questions that have nothing to do with it  yes, no

Concepts and carriers (the texts in which something is injected, or a concept is mentioned) are crossed. A mention takes
the place of a neutral word of as many tokens, so nothing but the word differs.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mechint.errors import PromptError

YES, NO = "yes", "no"
STATE, TEXT, NOTHING = "state", "text", "nothing"


@dataclass(frozen=True)
class Asked:
    """One text and question.

    Raises:
        PromptError: the text is not within the tokens, or a label has no token, or one that another has.
    """

    tokens: tuple[int, ...]
    start: int
    stop: int
    """The text into which is injected: tokens `start` to `stop`, the last excluded."""
    labels: Mapping[str, tuple[int, ...]]
    """Single tokens by what they mean; several spellings of one answer are added up."""
    right: str = ""
    """The label that is right whatever is injected; empty where that depends."""

    def __post_init__(self) -> None:
        if not 0 < self.start < self.stop < len(self.tokens):
            raise PromptError(
                f"A text at tokens {self.start} to {self.stop} of {len(self.tokens)}. Expected at least one token "
                "before it (BOS) and the question behind it."
            )
        ids = [token for spelt in self.labels.values() for token in spelt]
        if not all(self.labels.values()) or len(set(ids)) < len(ids):
            raise PromptError(f"Labels {dict(self.labels)}. Expected a token for each, and no token for two.")


@dataclass(frozen=True)
class Example:
    """A text whose activation at one token stands for a concept."""

    tokens: tuple[int, ...]
    at: int


class Material(ABC):
    """Everything that is asked of one model."""

    name: str
    concepts: tuple[str, ...]
    """Reported on."""
    developing: tuple[str, ...]
    """Others, on which layer and dose are chosen; empty where these are given."""
    n_carriers: int
    n_sources: int
    """Orders of the options of the source question."""
    n_unrelated: int
    reads_on: bool
    """Whether what follows a text is one that a model should go on predicting well, so that it shows damage."""
    graded: bool
    """Whether graded questions can be asked too; they are in English."""

    @abstractmethod
    def asked(self, question: str, carrier: int, mention: str | None = None) -> Asked:
        """Return a question about a carrier.

        Args:
            question: by name, such as "detect" or "unrelated 3".
            carrier: which text, from 0.
            mention: a concept that the text shall mention.

        Raises:
            PromptError: no such question, carrier or concept.
        """

    @abstractmethod
    def examples(self, concept: str) -> Sequence[Example]:
        """Return texts in which a concept is there, to take its direction from."""

    @abstractmethod
    def fillers(self) -> Sequence[Example]:
        """Return the same texts with words that are no concept."""

    @property
    @abstractmethod
    def content_hash(self) -> str:
        """A hash of all texts and labels."""

    def __len__(self) -> int:
        """Return the number of concepts times carriers, the cells that are reported on."""
        return len(self.concepts) * self.n_carriers

    def questions(self, family: str) -> tuple[str, ...]:
        """List the questions of a family: "flip", "source", "unrelated", or one that stands alone.

        Examples:
            >>> from mechint.organisms.introspection_material import Invented
            >>> Invented(2).questions("flip")
            ('flip 0', 'flip 1')
        """
        counts = {"flip": 2, "source": self.n_sources, "unrelated": self.n_unrelated}
        if family in ("detect", "identify"):
            return (family,)
        return tuple(f"{family} {i}" for i in range(counts[family]))
