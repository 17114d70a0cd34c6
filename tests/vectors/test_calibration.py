"""Damage is what dense arithmetic says, and a calibrated dose meets its target."""

from typing import Any

import numpy as np
import pytest
import torch

from mechint.errors import ConfigError, InterventionError
from mechint.interventions import add
from mechint.model.base import Logits, Model
from mechint.positions import everywhere, prompt
from mechint.prompts import Prompt, PromptSet
from mechint.sites import Site
from mechint.vectors.calibration import calibrate
from mechint.vectors.damage import NeutralTexts
from mechint.vectors.vector import SteeringVector
from tests.families import FAMILIES, random_rows, tiny

LENGTH = 16
SITE = Site("resid_post", 1)


def texts(n: int = 8) -> PromptSet:
    words = [" ".join(f"w{t}" for t in row[1:]) for row in random_rows(n, LENGTH)]
    return PromptSet("random words", tuple(Prompt(str(i), text) for i, text in enumerate(words)))


def neutral(model: Model, positions: int = 6) -> NeutralTexts:
    return NeutralTexts(model, texts(), length=LENGTH, positions=positions)


def vector(seed: int = 0) -> SteeringVector:
    direction = torch.randn(32, generator=torch.Generator().manual_seed(seed))
    return SteeringVector({SITE: direction}, {SITE: 4.0}, "anything", "random", tiny_model())


def tiny_model() -> dict[str, str]:
    return {"name": "tiny", "weights": str(tiny("gemma3").fingerprint["weights"])}


@pytest.mark.parametrize("family", FAMILIES)
def test_damage_is_that_of_dense_arithmetic_at_every_position(family: str) -> None:
    model, step = tiny(family), vector().step(SITE, 0.7)
    rows = [list(model.tokenize(p.prompt)) for p in texts()]

    found = NeutralTexts(model, texts(), length=LENGTH, positions=99).damage({SITE: [add(step)]})

    at = Logits(at=everywhere)
    p, q = (model.run(rows, write=w, logits=at).logits.double().log_softmax(-1) for w in (None, {SITE: add(step)}))  # type: ignore
    kl = (p.exp() * (p - q)).sum(-1)[:, 1:-1].flatten()
    own = torch.tensor(rows)[:, 1:, None]
    loss = (p - q)[:, :-1].gather(2, own)[:, 1:, 0].flatten()
    np.testing.assert_allclose(found.kl, kl, rtol=2e-3, atol=1e-7)
    np.testing.assert_allclose(found.loss_change, loss, rtol=1e-3, atol=2e-5)
    assert found.perplexity_ratio == pytest.approx(float(loss.mean().exp()), rel=1e-4)
    assert found.document.tolist() == np.repeat(np.arange(8), LENGTH - 2).tolist()


def test_no_steering_is_no_damage() -> None:
    found = neutral(tiny("gemma3")).damage()

    assert np.abs(found.kl).max() < 1e-9
    assert np.abs(found.loss_change).max() == 0


def test_plans_in_force_are_measured_like_writes() -> None:
    from mechint.steering.parts import add as adding

    model = tiny("gemma3")
    measured = neutral(model)
    with model.apply(adding(vector(), 0.7)):
        applied = measured.damage()

    with model.apply(adding(vector(), 0.7)):
        measured.damage()
        with pytest.raises(InterventionError, match="outside of any plan"):
            neutral(model)
    np.testing.assert_array_equal(applied.kl, measured.damage({SITE: [add(vector().step(SITE, 0.7))]}).kl)


@pytest.mark.parametrize(
    ("target", "reached"),
    [
        ({"target_kl": 0.05}, lambda damage: damage.p95_kl),
        ({"target_kl": 0.05, "statistic": "mean"}, lambda damage: damage.mean_kl),
        ({"perplexity": 1.05}, lambda damage: damage.perplexity_ratio),
    ],
)
def test_the_calibrated_dose_meets_its_target(target: dict[str, Any], reached: Any) -> None:
    model = tiny("gemma3")
    measured = neutral(model)

    found = calibrate(model, vector(), texts=measured, tolerance=1e-4, **target)

    assert found.calibration is not None
    damage = measured.damage({SITE: [add(found.step(SITE, 1.0, "calibrated"))]})
    wanted = target.get("target_kl") or target["perplexity"]
    assert reached(damage) == pytest.approx(wanted, rel=2e-3)
    assert found.calibration.low < found.calibration.dose < found.calibration.high
    assert found.calibration.details["n"] == 8


def test_a_longer_estimate_of_one_direction_is_calibrated_to_the_same_dose() -> None:
    model = tiny("gemma3")
    measured = neutral(model)

    one, tenfold = (calibrate(model, v, target_kl=0.05, texts=measured) for v in (vector(), 10 * vector()))

    assert one.calibration is not None
    assert tenfold.calibration is not None
    assert one.calibration.dose == pytest.approx(tenfold.calibration.dose, rel=0.03)


def test_a_smaller_target_needs_a_smaller_dose_and_its_interval_narrows_with_texts() -> None:
    model = tiny("gemma3")
    measured = neutral(model)
    few, many = (calibrate(model, vector(), target_kl=kl, texts=measured).calibration for kl in (0.02, 0.2))
    assert few is not None
    assert many is not None
    assert few.dose < many.dose
    more = NeutralTexts(model, texts(64), length=LENGTH, positions=6)
    wide, narrow = few, calibrate(model, vector(), target_kl=0.02, texts=more).calibration
    assert narrow is not None
    assert narrow.high / narrow.low < wide.high / wide.low


def test_a_target_effect_is_what_the_caller_measures() -> None:
    spread = np.random.default_rng(0).normal(1, 0.2, 40)

    found = calibrate(
        tiny("gemma3"), vector(), target_effect=0.6, effect=lambda v, dose: 2 * dose * spread, tolerance=1e-5
    )

    assert found.calibration is not None
    assert found.calibration.dose == pytest.approx(0.3 / spread.mean(), rel=1e-3)
    # By the normal approximation of the bootstrap of 1 / mean.
    half = 1.96 * found.calibration.dose * spread.std() / 40**0.5 / spread.mean()
    assert found.calibration.high - found.calibration.low == pytest.approx(2 * half, rel=0.15)


def test_only_the_steered_tokens_count_for_positions() -> None:
    model = tiny("gemma3")
    first_only = calibrate(model, vector(), target_kl=0.005, texts=neutral(model), where=prompt(-1))
    everywhere_ = calibrate(model, vector(), target_kl=0.005, texts=neutral(model))

    assert first_only.calibration is not None
    assert everywhere_.calibration is not None
    assert first_only.calibration.dose > everywhere_.calibration.dose  # steering the first token alone does less


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({}, ConfigError, "Got 0 targets"),
        ({"target_kl": 0.1, "perplexity": 1.2}, ConfigError, "Got 2 targets"),
        ({"target_kl": -1.0}, ConfigError, "above 0"),
        ({"perplexity": 1.0}, ConfigError, "above 1"),
        ({"target_kl": float("nan")}, ConfigError, "finite"),
        ({"target_kl": 0.1, "statistic": "median"}, ConfigError, "Expected 'p95' or 'mean'"),
        ({"target_effect": 1.0}, ConfigError, "belong together"),
        ({"target_kl": 1e9}, InterventionError, "No dose up to 16"),
        ({"target_kl": 1e-13}, InterventionError, "Even a dose of"),
    ],
)
def test_targets_that_cannot_be_met_are_refused(settings: Any, error: Any, message: str) -> None:
    model = tiny("gemma3")
    with pytest.raises(error, match=message):
        calibrate(model, vector(), texts=neutral(model), **settings)


def test_a_vector_of_another_width_is_refused() -> None:
    wrong = SteeringVector({SITE: torch.ones(31)}, {SITE: 1.0}, "x", "y")
    with pytest.raises(InterventionError, match="31 numbers"):
        calibrate(tiny("gemma3"), wrong, target_kl=0.1)
