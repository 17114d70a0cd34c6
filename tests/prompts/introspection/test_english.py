"""Questions in English: one token a label, nothing but a mention differs, every answer shown, no word on both sides."""

from collections import Counter
from typing import Any

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from mechint.errors import PromptError
from mechint.prompts.introspection import English, graded
from mechint.prompts.introspection import english as texts
from mechint.prompts.introspection.material import NO, YES, Asked


def words_of(*left_out: str) -> Any:
    """A tokenizer that makes one token of each word that is used, but of those left out."""
    told = " ".join([str(vars(texts)), str(vars(graded)), "Human Assistant Tell me about Yes No A B C D E"])
    known = sorted({piece for piece, _ in pre_tokenizers.Whitespace().pre_tokenize_str(told)} - set(left_out))
    words = Tokenizer(models.WordLevel({w: i for i, w in enumerate(["<bos>", "<unk>", *known])}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=words, bos_token="<bos>", unk_token="<unk>")


@pytest.fixture(scope="module")
def material() -> English:
    """Of a tokenizer that knows every word."""
    return English(words_of())


def every(material: English) -> list[str]:
    return [q for f in ("detect", "flip", "identify", "source", "unrelated") for q in material.questions(f)]


def test_a_mention_changes_one_token_and_only_within_the_text(material: English):
    for question in every(material):
        plain, mentions = material.asked(question, 0), material.asked(question, 0, material.concepts[0])
        different = [i for i, (a, b) in enumerate(zip(plain.tokens, mentions.tokens, strict=True)) if a != b]
        assert len(different) == 1
        assert plain.start <= different[0] < plain.stop


def test_what_comes_before_the_text_does_not_depend_on_it(material: English):
    for question in every(material):
        before = {material.asked(question, c).tokens[: material.asked(question, c).start] for c in range(4)}
        assert len(before) == 1


def test_swapped_letters_mean_the_opposite(material: English):
    one, other = (material.asked(f"flip {i}", 0).labels for i in range(2))
    assert one[YES] == other[NO]
    assert one[NO] == other[YES]


def test_over_the_orders_each_source_has_each_letter_once(material: English):
    letters = [material.asked(question, 0).labels for question in material.questions("source")]
    for source in letters[0]:
        assert len({labels[source] for labels in letters}) == len(letters)


def test_at_least_twenty_unrelated_questions_as_many_with_yes_as_with_no(material: English):
    right = Counter(material.asked(question, 0).right for question in material.questions("unrelated"))
    assert right[YES] == right[NO]
    assert right.total() >= 20


def test_no_word_stands_on_two_sides(material: English):
    lists = [material.concepts, material.developing, texts.FILLERS, [neutral for _, neutral in texts.CARRIERS]]
    flat = [word for some in lists for word in some]
    assert len(set(flat)) == len(flat)
    assert len(set(texts.CONCEPTS)) == len(texts.CONCEPTS)
    for sentence, neutral in texts.CARRIERS:
        assert not {*sentence.lower().split(), neutral} & set(texts.CONCEPTS)


def test_a_label_of_two_tokens_is_refused():
    with pytest.raises(PromptError, match="single token"):
        English(_split("Yes")).asked("detect", 0)


class _Split:
    """A tokenizer that breaks one word into two."""

    def __init__(self, word: str) -> None:
        self._whole, self._word = words_of(), word

    def __getattr__(self, name: str) -> Any:
        return getattr(self._whole, name)

    def __call__(self, text: str, **settings: Any) -> Any:
        forms = {self._word, self._word.lower(), self._word.upper()}
        parts = [f"{part[0]} {part[1:]}" if part in forms else part for part in text.replace(":", ": ").split(" ")]
        return self._whole(" ".join(parts), **settings)


def _split(word: str) -> Any:
    return _Split(word)


def test_words_that_are_no_single_token_are_left_out_and_too_few_are_refused():
    with pytest.raises(PromptError, match="single tokens"):
        English(words_of(), n_concepts=30)
    with pytest.raises(PromptError, match="carriers"):
        English(words_of(), n_carriers=1)


@pytest.mark.parametrize(
    ("question", "carrier", "mention"), [("detect", 9, None), ("detect", 0, "zebra"), ("guess", 0, None)]
)
def test_what_there_is_not_is_refused(material: English, question: str, carrier: int, mention: str | None):
    with pytest.raises(PromptError):
        material.asked(question, carrier, mention)


@pytest.mark.parametrize(
    ("start", "stop", "labels"),
    [
        (0, 2, {"yes": (1,)}),
        (2, 2, {"yes": (1,)}),
        (1, 5, {"yes": (1,)}),
        (1, 2, {"yes": (1,), "no": (1,)}),
        (1, 2, {"a": ()}),
    ],
)
def test_a_question_that_cannot_be_asked_is_refused(start: int, stop: int, labels: dict[str, tuple[int, ...]]):
    with pytest.raises(PromptError):
        Asked((0, 1, 2, 3, 4), start, stop, labels)


def test_graded_questions_say_where_each_sentence_stands():
    tokenizer = words_of()
    posed = graded.locate(tokenizer, 2)
    for i, (start, stop) in enumerate(posed.spans):
        told = tokenizer.decode(posed.asked.tokens[start:stop]).replace(" .", ".")
        assert told.strip() == graded.SENTENCES[(2 + i) % len(graded.SENTENCES)]


def test_the_two_codes_of_a_book_differ_in_the_marks_alone():
    tokenizer = words_of()
    one, other = (graded.codebook(tokenizer, 0, marks) for marks in (("A", "B", "B", "A"), ("B", "A", "A", "B")))
    assert one.spans == other.spans
    different = [i for i, (a, b) in enumerate(zip(one.asked.tokens, other.asked.tokens, strict=True)) if a != b]
    assert len(different) == 4
