"""The repair of the planted mover is its closed form, head by head; where nothing reads the mover, there is none."""

from math import exp
from typing import Any

import pytest
import torch

import mechint as mi
from mechint.effects.ablation import Component
from mechint.effects.baselines import Baseline
from mechint.effects.self_repair import Repair, repair
from mechint.errors import PromptError
from mechint.model.base import Model
from mechint.organisms import self_repair as organism
from mechint.organisms.self_repair import BACKUP, MOVER, SUPPRESSOR, Circuit
from mechint.positions import prompt
from mechint.prompts import encode
from mechint.prompts.ioi import NAMES

CASES = [(3, 2.0), (10, 3.0), (30, 3.0)]
PUBLISHED = {(3, 2.0): 0.4830, (10, 3.0): 0.7559, (30, 3.0): 0.6718}
"""Repair by the suppressor for each logit that the mover writes, at alpha = 4, beta = 1.5, b_0 = 4."""


def suppressor_effect(x: float, n: int, c: Circuit) -> float:
    return -c.alpha * exp(c.beta * x) / (exp(c.beta * x) + n + exp(c.b_0))


def backup_effect(x: float, n: int, c: Circuit) -> float:
    return c.eta * exp(c.kappa - c.gamma * x) / (exp(c.kappa - c.gamma * x) + n + exp(c.b_1))


def ablate_mover(model: Model, n: int, prompts: int = 4) -> Repair:
    """Zero-ablate it on texts of n different words, watching the name's logit."""
    encoded = encode(organism.prompts(prompts, length=n), model.tokenizer)
    targets = torch.tensor([token or 0 for token in encoded.target])
    return repair(model, encoded.tokens, [Component(*MOVER)], Baseline(), targets)[0]


def all_of(value: float, like: torch.Tensor) -> torch.Tensor:
    return torch.full_like(like, value)


@pytest.fixture(scope="module")
def model() -> Model:
    return mi.load("organism:self-repair")


@pytest.fixture(scope="module")
def twin() -> Model:
    return mi.load("organism:self-repair-unplanted")


@pytest.fixture(scope="module", params=CASES, ids=lambda case: f"n={case[0]},g={case[1]:g}")
def case(request: pytest.FixtureRequest) -> tuple[int, Circuit, Repair]:
    n, g = request.param
    circuit = Circuit(g=g)
    return n, circuit, ablate_mover(organism.build(circuit=circuit), n)


def test_the_suppressor_repairs_what_the_closed_form_says(case: tuple[int, Circuit, Repair]) -> None:
    n, c, found = case
    layer, head = SUPPRESSOR

    expected = suppressor_effect(0, n, c) - suppressor_effect(c.g, n, c)

    torch.testing.assert_close(found.heads[layer, :, head], all_of(expected, found.norm), rtol=1e-5, atol=1e-5)
    assert expected / c.g == pytest.approx(PUBLISHED[n, c.g], abs=1e-4)


def test_the_backup_repairs_what_the_closed_form_says(case: tuple[int, Circuit, Repair]) -> None:
    n, c, found = case
    layer, head = BACKUP

    expected = backup_effect(0, n, c) - backup_effect(c.g, n, c)

    assert expected > 0.1
    torch.testing.assert_close(found.heads[layer, :, head], all_of(expected, found.norm), rtol=1e-5, atol=1e-5)


def test_the_loss_is_what_the_mover_wrote_and_nothing_else_repairs_it(case: tuple[int, Circuit, Repair]) -> None:
    _, c, found = case
    others = found.heads.clone()
    for layer, head in (SUPPRESSOR, BACKUP):
        others[layer, :, head] = 0

    torch.testing.assert_close(found.direct_change, all_of(-c.g, found.norm), rtol=1e-5, atol=1e-5)
    assert others.abs().max() == 0
    assert found.mlps.abs().max() == 0
    assert found.norm.abs().max() < 1e-5
    torch.testing.assert_close(found.total, found.heads_part, rtol=0, atol=1e-5)


def test_in_the_twin_both_heads_are_there_and_repair_nothing(twin: Model) -> None:
    n, c = 10, Circuit()

    found = ablate_mover(twin, n)

    torch.testing.assert_close(found.direct_change, all_of(-c.g, found.norm), rtol=1e-5, atol=1e-5)
    assert found.heads.abs().max() < 1e-5
    assert found.total.abs().max() < 1e-5
    effects = mi.direct_effects(twin, organism.prompts(3, length=n), progress=False).to_frame().set_index("label")
    assert effects.loc["L1H1", "direct_effect"] == pytest.approx(suppressor_effect(0, n, c), abs=1e-4)
    assert effects.loc["L1H2", "direct_effect"] == pytest.approx(backup_effect(0, n, c), abs=1e-4)


def test_every_number_of_the_circuit_counts_as_written() -> None:
    c = Circuit(g=1.75, alpha=3.25, beta=0.8, b_0=2.25, eta=1.6, kappa=2.5, gamma=0.7, b_1=1.2)
    n = 6

    found = ablate_mover(organism.build(circuit=c), n)

    (s, suppressor), (b, backup) = SUPPRESSOR, BACKUP
    expected = suppressor_effect(0, n, c) - suppressor_effect(c.g, n, c)
    torch.testing.assert_close(found.heads[s, :, suppressor], all_of(expected, found.norm), rtol=1e-5, atol=1e-5)
    expected = backup_effect(0, n, c) - backup_effect(c.g, n, c)
    torch.testing.assert_close(found.heads[b, :, backup], all_of(expected, found.norm), rtol=1e-5, atol=1e-5)


def test_every_norm_is_the_identity(model: Model) -> None:
    rows = encode(organism.prompts(3), model.tokenizer).tokens

    run = model.run(rows, read={f"L{model.facts.n_layers - 1}.resid_post": prompt(-1), "final_norm": prompt(-1)})

    stream = run[f"L{model.facts.n_layers - 1}.resid_post"]
    torch.testing.assert_close(run["final_norm"], stream, rtol=1e-5, atol=1e-4)


def test_the_call_on_loaded_organisms_names_the_repairers(model: Model, twin: Model) -> None:
    data = organism.prompts(8)

    found = mi.self_repair(model, data, ablate="L0H0", ablation="zero", progress=False)
    nothing = mi.self_repair(twin, data, ablate="L0H0", ablation="zero", progress=False)

    by_component = found.to_frame("repair").set_index("component")["repair"]
    assert by_component.sort_values(ascending=False).index[:2].tolist() == ["L1H1", "L1H2"]
    assert by_component["L1H1"] / 3 == pytest.approx(PUBLISHED[10, 3.0], abs=1e-4)
    assert "the rest of organism:self-repair-unplanted adds +0.00 [+0.00, +0.00]" in nothing.verdict


def test_the_scan_finds_the_suppressor_and_in_the_twin_nobody(model: Model, twin: Model) -> None:
    small: dict[str, Any] = {
        "ov_rows": 20,
        "induction_rows": 2,
        "induction_length": 8,
        "examples": 1,
        "progress": False,
    }
    data = organism.prompts(10)

    found = mi.copy_suppression(model, data, **small).to_frame()
    nobody = mi.copy_suppression(twin, data, **small).to_frame()

    assert found[found["suppresses"]]["label"].tolist() == ["L1H1"]
    score = found.set_index("label").loc["L1H1", "cs_score"]
    assert score == pytest.approx(-suppressor_effect(Circuit().g, 10, Circuit()), abs=1e-4)
    assert not nobody["suppresses"].any()


def test_prompts_are_different_words_with_one_name_that_is_the_target() -> None:
    for one in organism.prompts(20, seed=3, length=12):
        *words, last = one.prompt.split(" ")
        assert last == organism.LAST
        assert len(set(words)) == 12
        assert [f" {word}" for word in words if word in NAMES] == [one.target]
    assert organism.prompts(5)[:3].prompts == organism.prompts(3).prompts
    with pytest.raises(PromptError, match="0 were asked for"):
        organism.prompts(2, length=0)
