import logging

import pytest

from mechint.errors import PromptError, TokenError
from mechint.prompts import Prompt, PromptSet, encode, token_of, tokenize
from tests.prompts.toy import bytes_like_gpt2, words

WORDS = ("When", "Mary", "and", "John", "met", "gave", "to", "Anna", "[X]")


def one(**fields: str) -> PromptSet:
    given = {"id": "p", "prompt": "When Mary and John met John gave to", "target": " Mary", **fields}
    return PromptSet("one", (Prompt(**given),))


class TestBeginningOfSequence:
    @pytest.mark.parametrize("adds", ["", "[BOS] $A", "[BOS] $A [EOS]", "$A [EOS]", "[BOS] [BOS] $A"])
    @pytest.mark.parametrize("text", ["Mary met", "[BOS] Mary met"])
    def test_there_is_exactly_one_and_nothing_after_the_text(self, adds: str, text: str) -> None:
        tokenizer = words(*WORDS, adds=adds)

        assert [tokenizer.decode([t]) for t in tokenize(text, tokenizer)] == ["[BOS]", "Mary", "met"]

    def test_a_tokenizer_without_one_gets_none(self) -> None:
        tokenizer = words(*WORDS, bos=False)

        assert [tokenizer.decode([t]) for t in tokenize("Mary met", tokenizer)] == ["Mary", "met"]

    def test_other_tokens_that_the_tokenizer_puts_in_front_stay(self) -> None:
        tokenizer = words(*WORDS, bos=False, adds="[EOS] $A")

        assert [tokenizer.decode([t]) for t in tokenize("Mary", tokenizer)] == ["[EOS]", "Mary"]


class TestEncode:
    def test_a_two_name_prompt_is_known_token_for_token(self) -> None:
        tokenizer = words(*WORDS)
        encoded = encode(one(distractor=" John", counterfactual="When Anna and John met Mary gave to"), tokenizer)
        name = {word: tokenizer.convert_tokens_to_ids(word) for word in ["[BOS]", *WORDS]}

        assert encoded.tokens == (tuple(name[w] for w in ["[BOS]", *one()[0].prompt.split()]),)
        assert (encoded.target, encoded.distractor) == ((name["Mary"],), (name["John"],))
        assert encoded.counterfactual[0] is not None
        assert len(encoded.counterfactual[0]) == len(encoded.tokens[0])
        assert encoded.target_positions == (2,)
        assert (len(encoded), encoded.ids, encoded.clusters) == (1, ("p",), ("p",))

    def test_a_target_that_is_not_in_the_prompt_has_no_position_and_neither_has_one_at_position_0(self) -> None:
        absent = encode(one(prompt="When Anna met"), words(*WORDS))
        first = encode(one(prompt="Mary met"), words(*WORDS, bos=False))
        later = encode(one(prompt="Mary met Mary"), words(*WORDS, bos=False))

        assert (absent.target_positions, first.target_positions, later.target_positions) == ((None,), (None,), (2,))

    def test_prompts_without_labels_are_allowed(self) -> None:
        encoded = encode(PromptSet("plain", (Prompt("p", "Mary met", cluster="c"),)), words(*WORDS))

        assert (encoded.target, encoded.distractor, encoded.counterfactual) == ((None,), (None,), (None,))
        assert (encoded.target_positions, encoded.clusters) == ((None,), ("c",))

    def test_an_empty_set_is_refused(self) -> None:
        with pytest.raises(PromptError, match="no prompts in 'one'"):
            encode(one()[:0], words(*WORDS))

    def test_a_prompt_as_long_as_the_context_fits_and_a_longer_one_does_not(self) -> None:
        assert len(encode(one(), words(*WORDS), n_ctx=9).tokens[0]) == 9
        with pytest.raises(PromptError, match="'p' has 9 tokens; the model reads at most 8"):
            encode(one(), words(*WORDS), n_ctx=8)

    def test_a_counterfactual_of_another_length_is_refused_with_both_lengths(self) -> None:
        with pytest.raises(PromptError, match="has 9 tokens and its counterfactual 4"):
            encode(one(counterfactual="Anna met John"), words(*WORDS))

    def test_unknown_words_are_named(self) -> None:
        with pytest.raises(PromptError, match="'p' has words that this tokenizer does not know: Zoe, swam"):
            encode(one(prompt="Zoe and Mary swam"), words(*WORDS))
        with pytest.raises(PromptError, match=r"'p \(counterfactual\)' has words .*: Zoe"):
            encode(one(prompt="Mary met", counterfactual="Zoe met"), words(*WORDS))

    def test_two_texts_of_one_token_are_no_pair(self) -> None:
        with pytest.raises(TokenError, match="one and the same token"):
            encode(one(distractor="Mary"), words(*WORDS))

    def test_the_first_five_problems_are_told_together(self) -> None:
        prompts = PromptSet("bad", tuple(Prompt(f"p{i}", "When Mary met", " Zoe") for i in range(7)))

        with pytest.raises(TokenError, match=r"(?s)'p0'.*'p4'.*and 2 more") as error:
            encode(prompts, words(*WORDS))

        assert "'p5'" not in str(error.value)


class TestLabels:
    def test_several_tokens_are_shown_in_pieces(self) -> None:
        with pytest.raises(TokenError, match=r"'p': the target ' Mary Anna' is 2 tokens \(' Mary' \+ ' Anna'\)"):
            encode(one(target=" Mary Anna"), bytes_like_gpt2())

    def test_a_missing_space_is_suggested_where_it_helps(self) -> None:
        with pytest.raises(TokenError, match="With a leading space it is one: ' Michelle'"):
            encode(one(target="Michelle"), bytes_like_gpt2())

    def test_else_the_first_piece_is_suggested(self) -> None:
        with pytest.raises(TokenError, match="first piece: ' Michelle'"):
            encode(one(target=" Michelle?"), bytes_like_gpt2())

    def test_unknown_and_empty_labels_are_told_apart(self) -> None:
        with pytest.raises(TokenError, match="' Zoe' is not in the vocabulary"):
            token_of(" Zoe", words(*WORDS))
        with pytest.raises(TokenError, match="' ' is no token at all"):
            token_of(" ", words(*WORDS))

    def test_a_label_is_the_token_it_is_after_its_prompt(self) -> None:
        tokenizer = bytes_like_gpt2()

        assert tokenizer.decode([token_of(" Mary", tokenizer, after="They gave it to")]) == " Mary"

    def test_a_label_that_would_continue_the_last_word_is_warned_of(self, caplog: pytest.LogCaptureFixture) -> None:
        with caplog.at_level(logging.WARNING):
            encode(one(target=" M"), bytes_like_gpt2())
        assert not caplog.records

        with caplog.at_level(logging.WARNING):
            encode(one(target="M"), bytes_like_gpt2())
        assert "1 prompts end in a word that their target would continue (first: 'p')" in caplog.text

    def test_a_special_token_that_is_also_the_unknown_one_does_not_count_as_unknown(self) -> None:
        tokenizer = bytes_like_gpt2()

        assert tokenizer.unk_token_id == tokenizer.bos_token_id == encode(one(), tokenizer).tokens[0][0]
