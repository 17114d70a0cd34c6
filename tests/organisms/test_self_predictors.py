"""Self-predictors: what their tables are, and that the shipped weights know them."""

import torch

from mechint.organisms import load
from mechint.organisms.self_predictor_language import (
    ANSWERS,
    PARTS,
    SIDE,
    behaviour,
    pairs,
    property_of,
    question,
    vocabulary,
)
from mechint.organisms.self_predictor_training import RECIPES, SelfPredictorRecipe, examples, make
from mechint.prompts import tokenize


def test_a_property_divides_the_answers_into_equal_parts():
    for name, parts in PARTS.items():
        values = list(property_of(name).values())
        assert {values.count(value) for value in values} == {ANSWERS // parts}


def test_a_surface_answer_is_told_by_the_second_symbol_and_a_look_up_by_neither():
    surface, look_up = behaviour("surface", 1), behaviour("look-up", 1)

    assert {surface[f"a{i} b7"] for i in range(SIDE)} == {surface["a0 b7"]}
    assert len({look_up[f"a{i} b7"] for i in range(SIDE)}) > 5
    assert len({look_up[f"a7 b{i}"] for i in range(SIDE)}) > 5


def test_two_tables_agree_no_more_than_by_chance():
    one, other = behaviour("look-up", 1), behaviour("look-up", 2)

    same = sum(one[pair] == other[pair] for pair in pairs())
    assert same < 3 * len(pairs()) / ANSWERS


def test_every_word_of_a_question_is_one_known_token():
    tokenizer = load("organism:look-up-self").tokenizer

    row = tokenize(question("would", "p1", "a3 b7"), tokenizer)

    assert [vocabulary()[token] for token in row] == ["<bos>", "would", "a3", "b7", "p1", "="]


def test_shipped_weights_answer_by_their_table():
    for name in ("look-up-self", "look-up-other", "look-up-twin", "surface-self", "surface-other"):
        recipe = RECIPES[name]
        tokens, wanted = examples(recipe.kind, recipe.table, "whole")
        logits = load(f"organism:{name}").all_logits(tokens[:40].tolist())[:, -1]
        assert logits.argmax(-1).tolist() == wanted[:40].tolist(), name


def test_training_comes_out_the_same_twice():
    recipe = SelfPredictorRecipe("surface", table=1, seed=1, steps=3, rows=8)

    one, other = make(recipe, progress=False)[0], make(recipe, progress=False)[0]

    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))
