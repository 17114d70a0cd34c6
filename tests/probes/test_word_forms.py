"""Forms of a word are found by spelling, in every kind of tokenizer, and other words are not."""

from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from mechint.probes.copy_suppression.context_tokens import function_tokens
from mechint.probes.copy_suppression.word_forms import WordForms, token_texts

TEXTS = [
    "<s>",
    " dog",
    "dog",
    "Dogs",
    " DOG",
    " doghouse",
    " box",
    " boxes",
    " city",
    "cities",
    " this",
    " thi",
    " glass",
]
TEXTS += [" glas", " was", " wa", ",", " ,", "\n", "�", None]


def vocabulary_of(*pieces: str) -> Any:
    words = Tokenizer(models.WordLevel({piece: i for i, piece in enumerate(pieces)}, unk_token="[U]"))
    return PreTrainedTokenizerFast(tokenizer_object=words, bos_token="[B]", unk_token="[U]")


def forms_of(text: str) -> set[str | None]:
    forms = WordForms(TEXTS)
    return {TEXTS[token] for token in forms.of(TEXTS.index(text))}


@pytest.mark.parametrize(
    "group",
    [
        {" dog", "dog", "Dogs", " DOG"},
        {" box", " boxes"},
        {" city", "cities"},
        {",", " ,"},
        {" doghouse"},  # a piece of a longer word is no form of it
        {" this"},  # no plural of "thi"
        {" glass"},
        {" was"},
        {"\n"},
    ],
    ids=str,
)
def test_forms_are_told_from_other_words(group: set[str]) -> None:
    for text in group:
        assert forms_of(text) == group


def test_a_token_comes_first_among_its_own_forms() -> None:
    forms = WordForms(TEXTS)
    for token in range(len(TEXTS)):
        assert forms.of(token)[0] == token
        assert len(set(forms.of(token))) == len(forms.of(token))


def test_being_related_is_an_equivalence() -> None:
    forms = WordForms(TEXTS)
    everything = range(len(TEXTS))
    for a in everything:
        assert forms.related(a, a)
        for b in everything:
            assert forms.related(a, b) == forms.related(b, a) == (b in forms.of(a))
            for c in everything:
                if forms.related(a, b) and forms.related(b, c):
                    assert forms.related(a, c)


def test_broken_characters_and_missing_texts_are_forms_of_nothing_else() -> None:
    forms = WordForms([*TEXTS, "�", None])

    assert forms.of(TEXTS.index("�")) == (TEXTS.index("�"),)
    assert not forms.related(len(TEXTS) - 1, len(TEXTS) + 1)


def test_a_table_of_forms_has_the_token_first_and_is_cut_or_filled() -> None:
    forms = WordForms(TEXTS)
    tokens = torch.tensor([[1, 6], [5, 1]])

    assert forms.table(tokens, 3).tolist() == [[[1, 2, 3], [6, 7, -1]], [[5, -1, -1], [1, 2, 3]]]
    assert forms.table(tokens, 1).tolist() == [[[1], [6]], [[5], [1]]]


def test_spaces_are_read_from_the_pieces_of_every_kind_of_tokenizer() -> None:
    byte_level = vocabulary_of("[B]", "[U]", "Ġdog", "dog", "Ċ")
    sentencepiece = vocabulary_of("[B]", "[U]", "▁dog", "dog", "<0x0A>", "<0xC3>", "été")
    plain = vocabulary_of("[B]", "[U]", "dog")

    assert token_texts(byte_level, 5)[:4] == [None, None, " dog", "dog"]
    assert token_texts(sentencepiece, 8) == [None, None, " dog", "dog", "\n", "�", "été", None]
    assert token_texts(plain, 4) == [None, None, "dog", None]


def test_function_words_are_found_with_space_and_capital_and_nothing_else_is() -> None:
    pieces = ["[B]", "[U]", "▁the", "the", "▁The", "THE", "▁theory", ",", "▁,", "▁▁▁", "▁dog", "<0x0A>", "s", "▁ours"]
    found = function_tokens(vocabulary_of(*pieces), len(pieces) + 1)

    words = {pieces[token] for token in found.tolist() if token < len(pieces)}
    assert words == set(pieces) - {"THE", "▁theory", "▁dog"}
    assert len(pieces) in found.tolist()  # an entry of the vocabulary that the tokenizer does not know


def test_another_list_of_function_words_may_be_given() -> None:
    found = function_tokens(vocabulary_of("[B]", "[U]", "der", "Der", "the"), 5, words=["der"])

    assert found.tolist() == [0, 1, 2, 3]
