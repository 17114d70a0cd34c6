"""The words that measure a concept are told by nothing it is fitted on, and its sets are drawn as they say."""

import re

import pytest

from mechint.errors import PromptError
from mechint.prompts import CONCEPTS, Concept, ContrastPairs

NUMBERS = {"sentiment": 224, "tense": 1920, "gender": 3840, "topic": 320, "formality": 80, "french": 1200}
"""28 x 8; 10 x 24 x 8; 20 x 24 x 8; 5 x 4 x 4 x 4; 20 x 4; 10 x 20 x 6."""


def every_pair(name: str) -> ContrastPairs:
    return CONCEPTS[name].pairs(NUMBERS[name], 0)


def words(text: str) -> set[str]:
    return set(re.findall(r"[^\W\d_]+", text.lower()))


def test_every_concept_is_counted() -> None:
    assert set(NUMBERS) == set(CONCEPTS)


@pytest.mark.parametrize("name", CONCEPTS)
def test_words_that_measure_a_concept_are_in_none_of_its_texts(name: str) -> None:
    concept, pairs = CONCEPTS[name], every_pair(name)
    scored = {word.strip() for word in (*concept.positive, *concept.negative)}
    texts = [one.text for one in (*pairs.positive, *pairs.negative)]
    texts += [p.prompt for p in concept.openings(56, 0)]

    assert not scored & set[str]().union(*map(words, texts))
    assert not set(concept.positive) & set(concept.negative)


@pytest.mark.parametrize("name", CONCEPTS)
def test_both_sides_end_with_one_token_so_that_it_tells_nothing(name: str) -> None:
    pairs = every_pair(name)

    assert {one.text[-1] for one in (*pairs.positive, *pairs.negative)} == {"."}
    assert all(a.text != b.text for a, b in zip(pairs.positive, pairs.negative, strict=True))


@pytest.mark.parametrize("name", CONCEPTS)
def test_there_are_groups_enough_to_shuffle_labels_of_those_that_are_fitted_on(name: str) -> None:
    split = CONCEPTS[name].pairs(80, 0).split(train=0.6, select=0.2, test=0.2)

    assert len(split.train.groups) >= 10  # 252 halves


@pytest.mark.parametrize("name", CONCEPTS)
def test_a_set_is_drawn_by_its_seed_and_holds_no_more_than_there_is(name: str) -> None:
    concept: Concept = CONCEPTS[name]

    assert concept.pairs(20, 1).content_hash == concept.pairs(20, 1).content_hash != concept.pairs(20, 2).content_hash
    assert concept.openings(8, 0)[:4] == concept.openings(4, 0)
    with pytest.raises(PromptError, match=f"There are {NUMBERS[name]} pairs"):
        concept.pairs(NUMBERS[name] + 1, 0)
    with pytest.raises(PromptError, match="openings; 65 were asked for"):
        concept.openings(65, 0)
