"""What is drawn is what was asked for, and depends on a document's name alone."""

import torch

from mechint.effects.documents import Documents
from mechint.effects.sampling import another_head, destinations, random_directions
from tests.families import random_rows, tiny

DOCUMENTS = Documents(tuple("abcd"), tuple("abcd"), torch.tensor(random_rows(4, 8)))


def test_positions_are_all_that_have_a_next_token_or_a_sample_of_them() -> None:
    assert destinations(DOCUMENTS).tolist() == [[1, 2, 3, 4, 5, 6]] * 4
    assert torch.equal(destinations(DOCUMENTS, 99), destinations(DOCUMENTS))

    sample = destinations(DOCUMENTS, 3)

    assert sample.shape == (4, 3)
    assert (sample.diff(dim=1) > 0).all()
    assert sample.min() >= 1
    assert sample.max() <= 6
    assert torch.equal(destinations(DOCUMENTS.pick([2]), 3)[0], sample[2])
    assert not torch.equal(destinations(DOCUMENTS, 3, seed=1), sample)


def test_every_position_can_be_drawn() -> None:
    many = Documents(tuple(map(str, range(60))), tuple(map(str, range(60))), torch.zeros(60, 8, dtype=torch.long))

    assert set(destinations(many, 2).flatten().tolist()) == {1, 2, 3, 4, 5, 6}


def test_random_directions_have_the_given_lengths_and_no_common_direction() -> None:
    lengths = torch.rand(3, 4, 5, generator=torch.Generator().manual_seed(0)) + 0.5

    drawn = random_directions(lengths, 64, DOCUMENTS.ids, 0, "L1")

    torch.testing.assert_close(drawn.norm(dim=-1), lengths)
    flat = torch.nn.functional.normalize(drawn.flatten(0, 2), dim=-1)
    cosines = flat @ flat.T - torch.eye(len(flat))
    assert cosines.abs().max() < 0.6
    assert cosines.mean().abs() < 0.02
    assert torch.equal(random_directions(lengths[:, 2:3], 64, ["c"], 0, "L1")[:, 0], drawn[:, 2])
    assert not torch.equal(random_directions(lengths, 64, DOCUMENTS.ids, 0, "L2"), drawn)


def test_a_vector_of_length_zero_stays_zero() -> None:
    assert random_directions(torch.zeros(1, 1, 1), 8, ["a"], 0).abs().sum() == 0


def test_the_other_head_is_another_head_of_the_layer() -> None:
    facts = tiny("llama").facts
    drawn = {another_head(facts, 1, 2, seed) for seed in range(40)}

    assert drawn == {(1, 0), (1, 1), (1, 3)}
