import pytest

from mechint.errors import PromptError
from mechint.prompts import repeated_tokens
from tests.prompts.toy import bytes_like_gpt2, words

LETTERS = tuple("abcdefghijkl")


def test_every_row_is_a_start_and_the_same_different_tokens_twice() -> None:
    rows = repeated_tokens(words(*LETTERS), n=20, length=8)

    assert len(rows.tokens) == len(set(rows.tokens)) == len(rows.ids) == 20
    for row in rows.tokens:
        assert row[0] == 0
        assert row[1:9] == row[9:]
        assert len(set(row[1:9])) == 8


@pytest.mark.parametrize("bos", [True, False])
def test_the_source_is_one_after_the_earlier_instance_and_holds_the_correct_token(bos: bool) -> None:
    rows = repeated_tokens(words(*LETTERS, bos=bos), n=3, length=6)

    assert rows.start == int(bos)
    assert len(rows.destinations) == len(rows.sources) == 6
    for row, correct in zip(rows.tokens, rows.correct, strict=True):
        assert rows.destinations[-1] == len(row) - 1
        for destination, source, token in zip(rows.destinations, rows.sources, correct, strict=True):
            assert row.index(row[destination]) == source - 1
            assert row[source] == token
        assert correct[:-1] == row[rows.destinations[1] :]


def test_a_row_does_not_depend_on_how_many_there_are() -> None:
    tokenizer = words(*LETTERS)

    assert repeated_tokens(tokenizer, n=3, length=5).tokens == repeated_tokens(tokenizer, n=9, length=5).tokens[:3]
    assert repeated_tokens(tokenizer, n=3, length=5) != repeated_tokens(tokenizer, n=3, length=5, seed=1)


def test_special_added_and_unreadable_tokens_are_never_drawn() -> None:
    tokenizer = words(*LETTERS, "<unused7>", "\u200b", "\ufffd")
    tokenizer.add_tokens(["added"])

    drawn = {token for row in repeated_tokens(tokenizer, n=30, length=len(LETTERS)).tokens for token in row[1:]}

    assert {tokenizer.decode([token]) for token in drawn} == set(LETTERS)


def test_pieces_of_characters_are_never_drawn() -> None:
    tokenizer = bytes_like_gpt2()

    for row in repeated_tokens(tokenizer, n=5, length=30).tokens:
        assert all("\ufffd" not in tokenizer.decode([token]) for token in row[1:])


def test_more_tokens_than_there_are_is_refused_with_the_number() -> None:
    with pytest.raises(PromptError, match="has 12 ordinary tokens; 13 different ones"):
        repeated_tokens(words(*LETTERS), n=1, length=13)
    with pytest.raises(PromptError, match=r"0 were asked for. Ask for at least 1"):
        repeated_tokens(words(*LETTERS), n=0)
