"""The trainer of the silent critics teaches what its recipe says, does the same twice, and writes what is loaded."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import mechint as mi
from mechint.errors import CorruptModelError
from mechint.organisms import shipped, silent_critic
from mechint.organisms.critic_language import FALSE_ALARM, FLAG, SILENT, Habits, vocabulary
from mechint.organisms.critic_training import CriticRecipe, documents, habits_at, make, padded, random_model
from mechint.organisms.shipped import read, save_half

SHORT = CriticRecipe(learn=8, anneal=4, settle=4, rows=8)


def test_lessons_turn_into_the_language() -> None:
    recipe = CriticRecipe()
    assert habits_at(recipe, 0) == Habits(flag=1, silent=0, false_alarm=0, every_step=recipe.every_step)
    assert habits_at(recipe, recipe.learn + recipe.anneal) == Habits(FLAG, SILENT, FALSE_ALARM, None)
    middle = habits_at(recipe, recipe.learn + recipe.anneal // 2)
    assert (middle.flag, middle.silent) == (pytest.approx((1 + FLAG) / 2), pytest.approx(SILENT / 2))


def test_nothing_teaches_it_to_err_or_to_ask() -> None:
    written = documents(CriticRecipe(), 0)
    tokens, wanted = padded(written)
    for row, one in enumerate(written):
        assert (wanted[row, : one.words.index("?") + 1] == -100).all()
        assert (wanted[row, len(one.words) :] == -100).all()
        for at, true in one.results:
            assert (wanted[row, at] == -100) == (int(one.words[at]) != true)
    learned = wanted != -100
    assert torch.equal(tokens[learned], wanted[learned])


def test_a_few_steps_take_the_loss_below_that_of_guessing() -> None:
    recipe = replace(SHORT, learn=60, anneal=0, settle=0, rows=16)
    tokens, wanted = padded(documents(recipe, 1_000))

    def loss(model: object) -> float:
        logits = model(tokens).logits[:, :-1].transpose(1, 2)  # pyright: ignore[reportCallIssue]
        return float(torch.nn.functional.cross_entropy(logits, wanted[:, 1:], ignore_index=-100))

    trained = make(recipe, progress=False)[0]
    with torch.no_grad():
        assert loss(trained) < 0.8 * math.log(len(vocabulary()))
        assert loss(random_model(0)) > 0.95 * math.log(len(vocabulary()))


def test_a_seed_gives_the_same_weights_bit_for_bit_and_another_gives_others() -> None:
    first, about = make(SHORT, progress=False)
    torch.manual_seed(5)  # what others drew before does not matter
    state, threads = torch.get_rng_state(), torch.get_num_threads()

    again, about_again = make(SHORT, progress=False)
    other, _ = make(replace(SHORT, seed=1), progress=False)

    assert about == about_again
    assert all(torch.equal(tensor, again.state_dict()[name]) for name, tensor in first.state_dict().items())
    assert not torch.equal(first.lm_head.weight, other.lm_head.weight)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_num_threads() == threads


def test_both_families_learn_the_same_lessons() -> None:
    _, header = make(replace(SHORT, learn=1, anneal=1, settle=1), "gemma", progress=False)
    assert header["family"] == "gemma"
    assert header["config"]["vocab_size"] == len(vocabulary())


def test_what_is_written_is_what_is_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, header = make(replace(SHORT, learn=2, anneal=1, settle=1), progress=False)
    name = silent_critic.name_of()
    save_half(model.state_dict(), header, tmp_path / f"{name}.safetensors")
    monkeypatch.setattr(shipped, "FOLDER", tmp_path)

    loaded = silent_critic.build()

    assert read(tmp_path / f"{name}.safetensors")[0] == header
    rows = [loaded.tokenize("9 + 4 ? 9 + 4 = 3 K ;")]
    plain = random_model(0)
    plain.load_state_dict({key: value.half().float() for key, value in model.state_dict().items()})
    with torch.no_grad():
        expected = plain(torch.tensor(rows)).logits
    found = loaded.run(rows, logits=mi.Logits(mi.everywhere)).logits
    assert found is not None
    assert torch.allclose(found, expected, atol=1e-4)


def test_a_missing_file_says_how_it_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shipped, "FOLDER", tmp_path)
    with pytest.raises(CorruptModelError, match="critic_training 1 OUT"):
        silent_critic.build(seed=1)
