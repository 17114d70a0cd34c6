"""The language of the trained organisms: its kinds, its rule, and the independence of its documents."""

import numpy as np
import pytest

from mechint.organisms.language import (
    ACTORS,
    AND,
    COMMA,
    KINDS,
    LENGTH,
    NOUNS,
    STOP,
    THE,
    Speaker,
    document,
    kind_of,
    token_rows,
    vocabulary,
)
from mechint.statistics import generator


def documents(repeat: float, n: int = 400) -> list[list[str]]:
    return [document(repeat, generator(0, "test", i)) for i in range(n)]


def test_every_word_is_there_once_and_every_noun_has_one_kind() -> None:
    words = vocabulary()

    assert len(words) == len(set(words)) == 278
    assert {len(kind) for kind in KINDS.values()} == {12}
    assert all(noun in kind_of(noun) for noun in NOUNS)
    assert sum(map(len, KINDS.values())) == len(set(NOUNS))


def test_a_verb_is_followed_by_nouns_of_its_kind_and_by_nothing_else() -> None:
    speaker = Speaker(0.1, generator(0, "sentences"))
    for _ in range(50):
        actor, verb, *rest, stop = speaker.sentence()
        assert actor in ACTORS
        assert stop == STOP
        nouns = [word for word in rest if word not in (THE, COMMA, AND)]
        assert 1 <= len(nouns) <= 4
        assert set(nouns) <= set(KINDS[verb])
        assert rest.count(THE) == len(nouns)
        assert rest.count(AND) == (len(nouns) > 1)
        assert rest.count(COMMA) == max(0, len(nouns) - 2)


@pytest.mark.parametrize("repeat", [0.1, 1.0, 3.0])
def test_a_mentioned_noun_comes_as_often_as_its_weight_says(repeat: float) -> None:
    # Sum over draws of (was a repetition) - (its probability) has mean 0; its variance is that of Bernoulli draws.
    surplus = variance = 0.0
    for words in documents(repeat):
        mentioned: set[str] = set()
        for noun in (word for word in words if word in NOUNS):
            known = len(mentioned & set(kind_of(noun)))
            p = repeat * known / (repeat * known + 12 - known)
            surplus += (noun in mentioned) - p
            variance += p * (1 - p)
            mentioned.add(noun)

    assert variance > 100
    assert abs(surplus) < 4 * variance**0.5


def test_within_a_kind_new_nouns_are_equally_likely() -> None:
    first = [next(word for word in words if word in NOUNS) for words in documents(0.1, 6000)]
    place = np.bincount([kind_of(noun).index(noun) for noun in first], minlength=12)

    assert float(((place - 500) ** 2 / 500).sum()) < 31.3  # chi-squared with 11 degrees of freedom, p = 0.001


def test_a_document_has_sixty_four_words_and_fits_the_context_with_bos() -> None:
    for words in documents(0.1, 2000):
        assert sum(word.isalpha() for word in words) >= 64
        assert len(words) + 1 <= LENGTH
        assert words[-1] == STOP


def test_rows_are_documents_and_depend_on_their_number_alone() -> None:
    rows = token_rows(6, 0.1, 0, "train")

    assert rows.shape == (6, LENGTH)
    assert (rows[:, 0] == 0).all()
    assert rows.unique().max() < len(vocabulary())
    assert (rows[:, 1:] > 1).all()
    assert token_rows(2, 0.1, 0, "train", start=4).tolist() == rows[4:].tolist()
    assert token_rows(2, 0.1, 0, "train", start=4, length=40).tolist() == rows[4:, :40].tolist()
    for other in (token_rows(6, 0.1, 1, "train"), token_rows(6, 0.1, 0, "held-out")):
        assert not any(row in rows.tolist() for row in other.tolist())
