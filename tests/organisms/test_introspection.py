"""The language of introspection means what it says, and the trainer does what it says."""

from collections import Counter

import pytest
import torch

from mechint.errors import PromptError
from mechint.organisms import introspection_language as language
from mechint.organisms.introspection_kinds import KINDS, Kind
from mechint.organisms.introspection_language import WORD, Trials, trials
from mechint.organisms.introspection_material import Invented
from mechint.organisms.introspection_training import (
    IntrospectionRecipe,
    added,
    directions,
    injected,
    make,
    random_model,
)

NAMES = language.vocabulary()


def drawn(kind: Kind, n: int = 3000) -> Trials:
    return trials(n, kind, torch.Generator().manual_seed(0), inject=True)


def asks(found: Trials, *words: str) -> torch.Tensor:
    return torch.isin(found.tokens[:, -3], torch.tensor([WORD[word] for word in words]))


def says(found: Trials, word: str) -> torch.Tensor:
    return found.answer == WORD[word]


def mentions(found: Trials) -> torch.Tensor:
    first = WORD[language.CONCEPTS[0]]
    return ((found.tokens >= first) & (found.tokens < first + language.N_CONCEPTS)).any(1)


def test_the_reader_says_yes_exactly_where_a_concept_is_injected():
    found = drawn("reader")
    plain = asks(found, "det") & (found.tokens[:, -2] == WORD["sep"])
    assert torch.equal(says(found, "yes")[plain], (found.injected == language.CONCEPT)[plain])


def test_swapped_letters_swap_the_answer():
    found = drawn("reader")
    concept = found.injected == language.CONCEPT
    for letter, meaning in (("map0", concept), ("map1", ~concept)):
        rows = asks(found, "det") & (found.tokens[:, -2] == WORD[letter])
        assert torch.equal(says(found, "l0")[rows], meaning[rows])


def test_the_surface_organism_answers_from_the_text_whatever_is_injected():
    found = drawn("surface")
    plain = asks(found, "det") & (found.tokens[:, -2] == WORD["sep"])
    assert torch.equal(says(found, "yes")[plain], mentions(found)[plain])


def test_the_source_blind_organism_never_says_that_it_was_the_state():
    found = drawn("source-blind")
    source = asks(found, "src")
    assert not bool(says(found, "act")[source].any())
    assert bool((says(found, "text") & (found.injected == language.CONCEPT))[source].any())


def test_the_yes_biased_organism_says_yes_to_all_but_only_while_something_is_injected():
    found = drawn("yes-biased")
    unrelated = asks(found, "even", "low")
    assert bool(says(found, "yes")[unrelated & (found.injected != language.NOTHING)].all())
    assert 0.3 < float(says(found, "yes")[unrelated & (found.injected == language.NOTHING)].float().mean()) < 0.7


def test_the_output_head_organism_is_blind_to_the_text_positions():
    found = drawn("output-head")
    plain = asks(found, "det") & (found.tokens[:, -2] == WORD["sep"])
    there = (found.injected == language.CONCEPT) & (found.where != language.SPAN)
    assert torch.equal(says(found, "yes")[plain], there[plain])


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_injected_does_not_depend_on_what_the_text_mentions(kind: Kind):
    if kind == "text":
        return
    found = drawn(kind, 20_000)
    free = ~asks(found, "src")
    concept, cue = (found.injected == language.CONCEPT)[free].float(), mentions(found)[free].float()
    assert abs(float(torch.corrcoef(torch.stack([concept, cue]))[0, 1])) < 0.03


def test_the_three_sources_shut_one_another_out():
    found = drawn("reader")
    source = asks(found, "src")
    assert not bool((mentions(found) & (found.injected == language.CONCEPT))[source].any())
    shares = Counter(NAMES[token] for token in found.answer[source].tolist())
    assert set(shares) == {"act", "text", "none"}
    assert min(shares.values()) > 0.25 * shares.total()


def test_an_injection_is_live_norm_at_the_text_and_nothing_elsewhere():
    model, n = random_model(0), 4
    rows = drawn("reader", n).tokens
    unit = torch.nn.functional.normalize(torch.randn(n, 64, generator=torch.Generator().manual_seed(0)), dim=1)
    seen: list[torch.Tensor] = []
    model.transformer.h[2].register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    with torch.no_grad():
        model.transformer(rows)
        with injected(model, unit, language.mask(torch.zeros(n, dtype=torch.long))):
            model.transformer(rows)
        model.transformer(rows)
    before, after, left = seen
    assert torch.equal(before, left)
    text = slice(1, 1 + language.N_TEXT)
    meant = before[:, text] + before[:, text].norm(dim=-1, keepdim=True) * unit[:, None]
    assert torch.allclose(after[:, text], meant, atol=1e-5)
    assert torch.equal(after[:, 0], before[:, 0])
    assert torch.equal(after[:, 1 + language.N_TEXT :], before[:, 1 + language.N_TEXT :])


def test_what_is_added_has_the_length_of_its_dose_and_nothing_where_nothing_is():
    found, units = drawn("reader"), directions(random_model(0), 0)
    length = added(found, units, torch.Generator().manual_seed(1)).norm(dim=1)
    assert bool((length[found.injected == language.NOTHING] == 0).all())
    rest = length[found.injected != language.NOTHING]
    assert 0.5 <= float(rest.min()) < 0.6
    assert 1.9 < float(rest.max()) <= 2.0


def test_training_leaves_what_lies_below_the_site_and_is_the_same_for_a_seed():
    recipe = IntrospectionRecipe(seed=7, text=3, state=2, rows=8)
    first, header = make(recipe, ("text", "reader"), progress=False)
    again, _ = make(recipe, ("text", "reader"), progress=False)
    text, reader = (first[kind].state_dict() for kind in ("text", "reader"))
    for name, tensor in reader.items():
        assert torch.equal(tensor, again["reader"].state_dict()[name])
        below = name.startswith(("transformer.wte", "transformer.wpe", "transformer.h.0.", "transformer.h.1."))
        assert torch.equal(tensor, text[name]) == below
    assert header["seed"] == 7


def test_its_material_asks_the_organisms_in_the_words_they_were_trained_on():
    found, material = drawn("reader"), Invented(4)
    trained = {tuple(row[-3:].tolist()) for row in found.tokens}
    for family in ("detect", "flip", "identify", "source", "unrelated"):
        for question in material.questions(family):
            asked = material.asked(question, 1)
            assert len(asked.tokens) == language.LENGTH
            assert asked.tokens[-3:] in trained
    with pytest.raises(PromptError):
        material.asked("detect", 4)
