from collections import Counter

import pytest

from mechint.errors import PromptError, TokenError
from mechint.prompts import encode, ioi, single_token_names
from mechint.prompts.ioi import NAMES, TEMPLATES
from tests.prompts.toy import bytes_like_gpt2, words


def test_a_row_depends_on_the_seed_and_its_index_but_not_on_how_many_there_are() -> None:
    assert ioi(n=10) == ioi(n=40)[:10]
    assert ioi(n=10).content_hash != ioi(n=10, seed=1).content_hash


def test_the_target_occurs_once_and_the_distractor_twice() -> None:
    for prompt in ioi(n=200):
        named = Counter(word.strip(".,") for word in prompt.prompt.split())

        assert named[prompt.target.strip()] == 1
        assert named[prompt.distractor.strip()] == 2


def test_the_counterfactual_differs_by_three_other_names_none_repeated() -> None:
    for prompt in ioi(n=200):
        before, after = prompt.prompt.split(), prompt.counterfactual.split()
        changed = [(a, b) for a, b in zip(before, after, strict=True) if a != b]
        fresh = {b for _, b in changed}

        assert len(changed) == len(fresh) == 3
        assert fresh <= set(NAMES) - {prompt.target.strip(), prompt.distractor.strip()}
        assert sorted(a for a, _ in changed) == sorted(
            [prompt.target.strip(), prompt.distractor.strip(), prompt.distractor.strip()]
        )


@pytest.mark.parametrize("n", [2, 64, 100])
def test_both_orders_are_equally_frequent(n: int) -> None:
    first = [p.prompt.index(p.target) < p.prompt.index(p.distractor) for p in ioi(n=n)]

    assert sum(first) == n / 2


def test_every_template_is_used() -> None:
    openings = {template.split("{")[0] for template in TEMPLATES}

    assert {o for o in openings for p in ioi(n=100) if p.prompt.startswith(o)} == openings


def test_the_cluster_is_the_pair_of_names_whichever_is_asked_for() -> None:
    for prompt in ioi(n=50):
        assert set(prompt.cluster.split("+")) == {prompt.target.strip(), prompt.distractor.strip()}
        assert prompt.cluster == "+".join(sorted(prompt.cluster.split("+")))


def test_names_stand_only_after_a_space() -> None:
    assert all(
        template[template.index("{" + slot) - 1] == " "
        for template in TEMPLATES
        for slot in ("first", "second", "giver")
    )
    assert len(set(NAMES)) == len(NAMES) >= 80


def test_with_a_tokenizer_only_its_own_single_token_names_are_drawn_and_every_prompt_encodes() -> None:
    tokenizer = bytes_like_gpt2()
    assert set(single_token_names(tokenizer, ["Mary", "Michelle", "Zebediah"])) == {"Mary", "Michelle"}

    encoded = encode(ioi(n=40, tokenizer=tokenizer), tokenizer)

    assert all(at is not None for at in encoded.target_positions)
    for row, other, target in zip(encoded.tokens, encoded.counterfactual, encoded.target, strict=True):
        assert len(row) == len(other)
        assert target not in other


def test_fewer_than_one_is_refused() -> None:
    with pytest.raises(PromptError, match="0 were asked for"):
        ioi(n=0)


def test_a_tokenizer_that_knows_no_names_is_refused_with_the_number_it_knows() -> None:
    with pytest.raises(TokenError, match=r"Only 2 of .* names are one token"):
        ioi(tokenizer=words("and", "Mary", "John"))
