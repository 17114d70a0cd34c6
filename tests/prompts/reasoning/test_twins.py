from dataclasses import replace

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from mechint.errors import PromptError
from mechint.prompts.reasoning import STUB, Derangement, MinimalPair, OffBy, Pairs, arithmetic_problems, inject, twins
from tests.prompts.toy import bytes_like_gpt2, words

PAIRS = inject(arithmetic_problems(40), OffBy())


def pair(wrong: str, true: str, tail: str = ".", prefix: str = "So ") -> MinimalPair:
    return MinimalPair(f"{wrong}-{true}", "p", "How many?", prefix, wrong, true, tail, f"{int(true) + 5} - 5", "-")


def merging(*merges: tuple[str, str]) -> PreTrainedTokenizerFast:
    """Byte-level tokens, but for these merges."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {piece: at for at, piece in enumerate(["[BOS]", *letters, *("".join(both) for both in merges)])}
    tokenizer = Tokenizer(models.BPE(vocabulary, list(merges)))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["[BOS]"])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="[BOS]")


@pytest.mark.parametrize(
    "pairs", [PAIRS, inject(arithmetic_problems(40), Derangement())], ids=["off by", "derangement"]
)
def test_twins_are_the_same_tokens_outside_the_literal(pairs: Pairs) -> None:
    tokenizer = bytes_like_gpt2()
    found = twins(pairs, tokenizer)

    assert len(found) == len(pairs)
    assert found.groups == tuple(one.group for one in pairs)
    for twin in found:
        assert len(twin.true) == len(twin.wrong)
        differing = {at for at, (a, b) in enumerate(zip(twin.true, twin.wrong, strict=True)) if a != b}
        assert differing
        assert differing <= set(twin.literal)
        assert twin.true.count(tokenizer.bos_token_id) == twin.wrong.count(tokenizer.bos_token_id) == 1
        assert twin.true[0] == tokenizer.bos_token_id


def test_the_places_hold_the_literal_and_the_stub() -> None:
    tokenizer = bytes_like_gpt2()
    for twin in twins(PAIRS, tokenizer):
        for row, literal in ((twin.true, twin.pair.true), (twin.wrong, twin.pair.wrong)):
            assert tokenizer.decode([row[at] for at in twin.literal]).strip() == literal
            assert tokenizer.decode([row[at] for at in twin.stub]) == STUB
            assert twin.stub[-1] == len(row) - 1
        assert twin.result == max(twin.literal) < min(twin.stub)


def test_without_a_stub_there_is_no_place_for_it() -> None:
    assert {twin.stub for twin in twins(PAIRS, bytes_like_gpt2(), stub="")} == {()}


def test_what_stands_before_the_literal_decides_its_place() -> None:
    one, other = (twins(Pairs("x", (pair("13", "12", prefix=p),)), merging())[0] for p in ("So ", "So then "))

    assert [at + len("then ") for at in one.literal] == list(other.literal)


@pytest.mark.parametrize(
    ("one", "merges", "reason"),
    [
        (pair("10", "9"), (), "different numbers of tokens"),
        (pair("13", "12", tail=""), (("2", "Ċ"),), "different numbers of tokens"),
        (pair("13", "12", tail="", prefix="[BOS] "), (), "not exactly one beginning-of-sequence token"),
        (pair("13", "12", tail=""), (("2", "Ċ"), ("3", "Ċ")), "the end of the literal and the beginning of the stub"),
        (pair("13", "12"), (("1", "2"), ("3", ".")), "stand at different positions"),
        (pair("23", "13", prefix="Soaa"), (("a", "1"), ("a", "a")), "tokens outside the literal differ"),
    ],
)
def test_pairs_that_are_not_aligned_are_reported_with_the_reason(one: MinimalPair, merges, reason: str) -> None:
    good = pair("27", "28")
    found = twins(Pairs("x", (one, good)), merging(*merges))

    assert [twin.pair for twin in found] == [good]
    assert list(found.apart) == [one.id]
    assert reason in found.apart[one.id]
    assert found.reasons == {found.apart[one.id]: 1}


def test_literals_that_a_tokenizer_does_not_know_are_reported() -> None:
    known = words("Question:", "How", "many?", "Answer:", "So", "12", "7", "9", "Let", "me", "check", "that", "step.")
    spaced = Pairs("x", (pair("13", "12", tail=" "), pair("7", "9", tail=" ")))
    found = twins(spaced, known)

    assert found.apart == {"13-12": "words that the tokenizer does not know"}
    assert [twin.literal for twin in found] == [(6,)]


def test_a_tokenizer_without_a_beginning_gets_none() -> None:
    vocabulary = ("Question:", "How", "many?", "Answer:", "So", "7", "9")
    (twin,) = twins(Pairs("x", (pair("7", "9", tail=" "),)), words(*vocabulary, bos=False), stub="")

    assert twin.literal == (len(twin.true) - 1,) == (5,)


def test_no_pairs_and_slow_tokenizers_are_refused() -> None:
    with pytest.raises(PromptError, match="no pairs in 'off by'"):
        twins(PAIRS[:0], bytes_like_gpt2())
    with pytest.raises(PromptError, match="Give a fast one"):
        twins(PAIRS, object())


def test_rows_alone_hold_what_the_twins_hold_and_refuse_what_is_no_twin() -> None:
    found = twins(PAIRS, bytes_like_gpt2())
    rows = found.tokens

    assert (rows.true, rows.wrong) == (tuple(t.true for t in found), tuple(t.wrong for t in found))
    assert rows.pick(rows.groups[:3]).ids == rows.ids[:3]
    assert rows.content_hash != rows.pick(rows.groups[:3]).content_hash
    with pytest.raises(PromptError, match="differ at"):
        replace(rows, wrong=rows.true)
    with pytest.raises(PromptError, match="not at the stub"):
        replace(rows, stub=tuple((at,) for at in rows.result))
    with pytest.raises(PromptError, match="places"):
        replace(rows, result=(10_000,) * len(rows))
