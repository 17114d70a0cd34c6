"""The trainer learns, does the same twice, and writes what the organisms are loaded from."""

import hashlib
import json
import math
import re
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch

from mechint.organisms import shipped, training
from mechint.organisms.language import LENGTH, token_rows, vocabulary
from mechint.organisms.training import RECIPES, Recipe, best_noun_loss, losses, make, random_model, training_rows

SHORT = Recipe(repeat=0.1, steps=40, rows=16, held_out=16)


def test_a_few_steps_take_the_loss_far_below_that_of_guessing() -> None:
    rows = token_rows(16, 0.1, 0, "held-out")
    before = losses(random_model(SHORT.seed), rows).token

    model, header = make(SHORT, progress=False)

    after = losses(model, rows).token
    assert after < math.log(len(vocabulary())) < before
    assert header["loss"] == pytest.approx(after)


def test_a_seed_gives_the_same_weights_bit_for_bit_and_another_gives_others() -> None:
    recipe = replace(SHORT, steps=3)
    first, about = make(recipe, progress=False)

    torch.manual_seed(5)  # what others drew before does not matter
    again, about_again = make(recipe, progress=False)
    other, about_other = make(replace(recipe, seed=1), progress=False)

    assert about == about_again
    assert about["data"] != about_other["data"]
    for name, tensor in first.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name])
    assert not torch.equal(first.transformer.wte.weight, other.transformer.wte.weight)


def test_training_leaves_the_random_numbers_and_threads_of_others_alone() -> None:
    threads, state = torch.get_num_threads(), torch.get_rng_state()

    make(replace(SHORT, steps=1), progress=False)

    assert torch.get_num_threads() == threads
    assert torch.equal(torch.get_rng_state(), state)


def test_the_two_organisms_differ_in_the_rule_alone() -> None:
    recipes = [asdict(recipe) for recipe in RECIPES.values()]

    assert {key for key in recipes[0] if recipes[0][key] != recipes[1][key]} == {"repeat"}
    assert RECIPES["trained-no-suppression"].repeat == 1


def test_half_of_the_rows_begin_a_document_and_half_are_cut_out_of_one() -> None:
    rows = training_rows(SHORT, step=3)

    assert rows.shape == (16, LENGTH)
    assert (rows[:8, 0] == 0).all()
    assert (rows[8:] != 0).all()
    whole = token_rows(16, 0.1, 0, "train", start=48, length=2 * LENGTH)
    for row, document in zip(rows[8:].tolist(), whole[8:].tolist(), strict=True):
        assert any(document[at : at + LENGTH] == row for at in range(1, 25))


def test_the_hash_is_that_of_all_rows_in_their_order() -> None:
    recipe = replace(SHORT, steps=2)

    _, header = make(recipe, progress=False)

    seen = torch.cat([training_rows(recipe, 0), training_rows(recipe, 1)])
    assert header["data"] == f"sha256:{hashlib.sha256(seen.to(torch.int32).numpy().tobytes()).hexdigest()}"


def test_the_best_loss_on_nouns_is_that_of_the_weights() -> None:
    token = {word: i for i, word in enumerate(vocabulary())}
    row = torch.tensor([[token[word] for word in re.findall(r"\w+|[,.]", "Alice drank the tea, the rum and the tea.")]])

    expected = (math.log(12) + math.log(11.1) + math.log(10.2 / 0.1)) / 3

    assert best_noun_loss(row, 0.1) == pytest.approx(expected)
    assert best_noun_loss(row, 1.0) == pytest.approx(math.log(12))


def test_the_loss_on_nouns_is_the_mean_over_nouns() -> None:
    rows = token_rows(2, 0.1, 0, "held-out")
    model = random_model(0)

    with torch.no_grad():
        logits = model(rows).logits.double().log_softmax(-1)
    words = vocabulary()
    found: list[float] = []
    for b, row in enumerate(rows.tolist()):
        found += [-float(logits[b, at - 1, row[at]]) for at in range(1, LENGTH) if row[at] >= words.index("bear")]

    assert losses(model, rows).noun == pytest.approx(sum(found) / len(found), rel=1e-4)


def test_the_command_writes_a_file_with_its_header(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(RECIPES, "trained-no-suppression", replace(SHORT, repeat=1.0, steps=2))

    training.main(["trained-no-suppression", str(tmp_path / "out.safetensors")])

    header, tensors = shipped.read(tmp_path / "out.safetensors")
    assert json.loads(capsys.readouterr().out) == header
    assert header["steps"] == 2
    model, _ = make(RECIPES["trained-no-suppression"], progress=False)
    assert set(tensors) == set(model.state_dict()) - {"lm_head.weight"}
    assert all(torch.equal(tensor, model.state_dict()[name]) for name, tensor in tensors.items())
