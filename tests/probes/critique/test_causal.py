"""A planted critique is found, a bias is called a bias, and a vector that means nothing has no effect beyond random."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

from mechint.capture.activations import Activations
from mechint.errors import ConfigError, InterventionError, PromptError
from mechint.model.base import Model
from mechint.positions import prompt
from mechint.probes.critique import causal_summary as summary
from mechint.probes.critique.causal import CritiqueEvaluation, CritiqueSettings
from mechint.probes.critique.causal_verdict import verdict
from mechint.probes.critique.layer_effects import layer_effects
from mechint.probes.critique.measures import AtResult, TokenMargin
from mechint.probes.critique.recording import record_twins
from mechint.prompts import Prompt, PromptSet
from mechint.prompts.reasoning import TokenTwins
from mechint.results import Analysis, Findings, complete
from mechint.sites import Site
from mechint.steering.arms import Arms
from mechint.steering.parts import add
from mechint.vectors.damage import NeutralTexts
from mechint.vectors.fit import fit
from mechint.vectors.vector import SteeringVector
from tests.families import random_rows, tiny
from tests.probes.critique.toy import token_twins

SITE = Site("resid_post", 1)
MODEL = tiny("llama")
TRAIN, TEST, SELECT = (token_twins(n, seed=seed) for n, seed in ((24, 1), (16, 2), (16, 3)))
RECORDED = record_twins(MODEL, TRAIN, [SITE], progress=False)
VECTOR = replace(fit(RECORDED, concept="critique"), calibration=None)
MARGIN = TokenMargin((5, 6), (7, 8))
ALL = {"random": 50, "random_covariance": 20, "shuffled_labels": 20}
QUICK = {"random": 50}


def no_damage(model: Model) -> np.ndarray:
    model.run([[0, 5, 6]])  # a plan that meets no pass is an error
    return np.zeros(4)


@dataclass(frozen=True)
class Along:
    """What stands along a direction where a row ends, as much as each side lets through: a planted mechanism."""

    direction: Tensor
    wrong: float
    true: float
    site: Site = SITE
    name: str = "planted margin"
    unit: str = "nats"
    threshold: float | None = 0.0
    refused: Mapping[str, str] = field(default_factory=dict[str, str])

    def side(self, model: Model, twins: TokenTwins, *, wrong: bool) -> np.ndarray:
        each = np.random.default_rng(0).uniform(0.5, 1.5, len(twins))  # pairs differ, as they do
        values = (self.wrong if wrong else self.true) * each * ends(model, twins, wrong, self.direction, self.site)
        return np.where([name in self.refused for name in twins.ids], np.nan, values)


def ends(model: Model, twins: TokenTwins, wrong: bool, direction: Tensor, site: Site = SITE) -> np.ndarray:
    """What stands along a direction where each row ends, in units of the median |h| of one site."""
    stream = model.run(twins.side(wrong=wrong), read={site: prompt(-1)}, stop_after=SITE)[site][:, 0]
    return (stream.double() @ direction.double()).numpy() / VECTOR.norms[SITE]


UNIT = VECTOR.unit(SITE)
ACROSS = torch.linalg.qr(torch.stack([UNIT, torch.ones(32)], 1))[0][:, 1]


def evaluated(
    metric: Any, vector: SteeringVector = VECTOR, clean: Any = no_damage, arms: Any = None, **settings: Any
) -> Findings:
    settings = {"draws": QUICK, **settings}
    given = arms or Arms(vector, RECORDED)
    analysis = CritiqueEvaluation(MODEL, TEST, given, metric, CritiqueSettings(**settings), clean=clean)
    return complete(analysis, progress=False)


def effect(found: Findings, side: str, dose: float, arm: str = "vector", mode: str = "add") -> dict[str, Any]:
    (row,) = summary.records(found.to_frame("doses"), arm=arm, side=side, dose=dose, mode=mode)
    return row


def test_a_planted_critique_is_claimed() -> None:
    found = evaluated(Along(UNIT, 2.0, 0.4), draws=ALL)

    assert found.verdict.startswith("Critique: rows with an error are moved beyond every null")
    assert all(found.to_frame("criteria")["met"])
    tests = found.to_frame("tests").set_index(["null", "side"])
    assert tests.loc[("random", "difference"), "p"] == pytest.approx(1 / 51)
    assert tests.loc[("shuffled_labels", "wrong"), "p"] == pytest.approx(1 / 21)


def test_what_moves_both_sides_alike_is_called_a_bias() -> None:
    found = evaluated(Along(UNIT, 2.0, 2.0))

    assert found.verdict.startswith("A bias toward saying wrong, not better discrimination")
    assert not all(found.to_frame("criteria")["met"])
    assert "AUROC" in found.verdict
    assert effect(found, "true", 0.2)["effect"] == pytest.approx(effect(found, "wrong", 0.2)["effect"], rel=1e-3)


def concluded(wrong: float, true: float, loss: float | None = 0.0, **settings: Any) -> Findings:
    """An evaluation of rows that were not measured: effects of so many nats a dose, random ones a tenth as large."""
    chosen = CritiqueSettings(draws={"random": 50}, modes=("add",), **settings)
    evaluation = CritiqueEvaluation(MODEL, TEST, Arms(VECTOR), MARGIN, chosen, clean=no_damage)
    rng = np.random.default_rng(0)
    each, plain = rng.uniform(0.5, 1.5, len(TEST)), rng.standard_normal((2, len(TEST)))

    def rows(arm: str, draw: int, dose: float, moved: tuple[float, float]) -> pd.DataFrame:
        mode = "none" if arm == "none" else "add"
        about = {"arm": arm, "draw": draw, "mode": mode, "dose": dose, "id": TEST.ids}
        sides = {name: plain[k] + moved[k] * dose * each for k, name in enumerate(("wrong", "true"))}
        return pd.DataFrame({**about, **sides})

    doses = chosen.of_vector("add")
    frames = [rows("none", 0, 0.0, (0, 0))] + [rows("vector", 0, dose, (wrong, true)) for dose in doses]
    pushes = 0.03 * abs(wrong) * rng.standard_normal((50, 2))
    frames += [rows("random", k, 0.2, (push[0], push[1])) for k, push in enumerate(pushes)]
    raw = {"effects": pd.concat(frames, ignore_index=True)}
    if loss is not None:
        raw["damage"] = pd.DataFrame([{"mode": "add", "dose": d, "loss_rise": loss, "kl": 0.0} for d in doses])
    return evaluation.conclude(raw)


@pytest.mark.parametrize(
    ("wrong", "true", "said"),
    [
        (2.0, 0.4, "Critique: rows with an error are moved beyond every null"),
        (2.0, 2.0, "A bias toward saying wrong, not better discrimination"),
        (2.0, 1.9, "A bias toward saying wrong"),  # an interval above 0, but little beside what both sides move
        (-2.0, -2.0, "A bias against saying wrong"),
        (-2.0, 0.1, "The contrary: rows without an error are moved more"),
        (0.0, 0.0, "No effect beyond random (not told from random)"),
    ],
)
def test_the_verdict_is_of_the_difference(wrong: float, true: float, said: str) -> None:
    assert concluded(wrong, true).verdict.startswith(said)


def test_a_vector_that_means_nothing_has_no_effect_beyond_random() -> None:
    direction = torch.randn(32, generator=torch.Generator().manual_seed(4))
    nothing = replace(VECTOR, directions={SITE: direction}, concept="nothing")

    found = evaluated(MARGIN, nothing, draws=ALL)

    assert found.verdict.startswith("No effect beyond random (not told from random")
    assert not all(found.to_frame("tests")["beaten"])


def gradient_of_the_difference() -> SteeringVector:
    """What moves a real margin of wrong rows and not that of true ones: finite differences along every axis."""

    def difference(axis: Tensor | None) -> float:
        if axis is None:
            wrong, true = (AtResult(MARGIN).side(MODEL, TEST, wrong=wrong) for wrong in (True, False))
            return float((wrong - true).mean())
        with MODEL.apply(add(SteeringVector({SITE: axis}, VECTOR.norms, "axis", "axis", VECTOR.model), 0.02)):
            return difference(None)

    base = difference(None)
    slopes = torch.tensor([difference(axis) - base for axis in torch.eye(32)])
    return replace(VECTOR, directions={SITE: slopes}, concept="the gradient")


def test_a_direction_that_moves_a_real_margin_of_wrong_rows_alone_is_beyond_every_null() -> None:
    found = evaluated(AtResult(MARGIN), gradient_of_the_difference(), doses=(0.05, 0.1, 0.2), draws=ALL)

    tests = found.to_frame("tests")
    assert tests.loc[tests["side"] == "difference", "beaten"].all()
    assert effect(found, "difference", 0.1)["effect"] > 0


def test_without_a_damage_guard_or_beyond_it_nothing_is_claimed() -> None:
    unmeasured, harmful = concluded(2.0, 0.4, None), concluded(2.0, 0.4, 0.11)

    for found in (unmeasured, harmful):
        assert found.verdict.startswith("No claim: the difference is beyond every null, but 'little damage' is not met")
    assert "was not measured" in unmeasured.verdict
    assert "rises by 0.11 nats" in harmful.verdict
    assert concluded(2.0, 0.4, 0.1).verdict.startswith("Critique")


def test_damage_by_a_function_is_what_steering_adds_to_its_losses() -> None:
    def losses(model: Model) -> np.ndarray:
        return -MARGIN(model, TEST.true[:4])

    found = evaluated(Along(UNIT, 2.0, 0.4), clean=losses, draws={})

    moved = evaluated(MARGIN, draws={}, clean=None).to_frame("doses")
    assert effect(found, "true", 0.2)["loss_rise"] != 0
    with MODEL.apply(add(VECTOR, 0.2)):
        steered = losses(MODEL)
    assert effect(found, "true", 0.2)["loss_rise"] == pytest.approx((steered - losses(MODEL)).mean(), abs=1e-5)
    assert "loss_rise" not in moved


def test_neutral_texts_tell_the_damage_of_every_dose() -> None:
    words = [" ".join(f"w{t}" for t in row[1:]) for row in random_rows(4, 12)]
    texts = PromptSet("w", tuple(Prompt(str(i), text) for i, text in enumerate(words)))
    clean = NeutralTexts(MODEL, texts, length=10, positions=4)
    found = evaluated(Along(UNIT, 2.0, 0.4), clean=clean, draws={"random": 2})

    kl = [effect(found, "true", dose)["kl"] for dose in (0.1, 0.2, 0.4)]
    assert 0 < kl[0] < kl[1] < kl[2]
    assert np.isfinite(effect(found, "true", 1.0, mode="ablate")["loss_rise"])
    assert np.isnan(effect(found, "true", 0.2, arm="random")["loss_rise"])


def test_without_nulls_there_is_no_evidence() -> None:
    found = evaluated(Along(UNIT, 2.0, 0.4), draws={})

    assert found.verdict.startswith("No evidence: no null was measured")


def test_the_true_side_stands_beside_the_wrong_one_in_every_arm_and_at_every_dose() -> None:
    other = replace(VECTOR, directions={SITE: ACROSS}, concept="other")
    draws = {"random": 3, "random_covariance": 2, "shuffled_labels": 2, "orthogonal": 1, "other_concept": 1}
    found = evaluated(MARGIN, arms=Arms(VECTOR, RECORDED, other, ACROSS), draws=draws, test_ablation=True)

    doses = found.to_frame()
    for _, part in doses.groupby(["arm", "mode", "dose"]):
        assert sorted(part["side"]) == ["difference", "true", "wrong"]
        value = {row["side"]: row["effect"] for row in summary.records(part)}
        assert value["difference"] == pytest.approx(value["wrong"] - value["true"])
    assert sorted({row["dose"] for row in summary.records(doses, arm="vector", mode="add")}) == [
        -0.4, -0.2, -0.1, 0.1, 0.2, 0.4,
    ]  # fmt: skip
    assert {row["arm"]: row["draws"] for row in summary.records(doses)} == {"vector": 1, **draws}
    assert "rows without" in found.verdict


def test_the_effect_of_a_linear_mechanism_is_what_was_planted_at_each_dose() -> None:
    """The margin rises by gain x dose, whatever the row says; ablation moves it to that of the mean."""
    found = evaluated(Along(UNIT, 1.0, 0.0), draws={})
    each = np.random.default_rng(0).uniform(0.5, 1.5, len(TEST)).mean()
    for dose in (-0.4, -0.1, 0.2):
        assert effect(found, "wrong", dose)["effect"] == pytest.approx(dose * each, rel=1e-4)
        assert effect(found, "true", dose)["effect"] == 0

    true = RECORDED[SITE][torch.tensor(RECORDED.labels) == 0].double().mean((0, 1))
    before = Along(UNIT, 1.0, 0.0).side(MODEL, TEST, wrong=True)
    level = np.random.default_rng(0).uniform(0.5, 1.5, len(TEST)) * float(true @ UNIT.double()) / VECTOR.norms[SITE]
    expected = (level - before).mean()
    assert effect(found, "wrong", 1.0, mode="ablate")["effect"] == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("unit", ["norm", "raw"])
def test_every_control_is_as_long_as_the_vector_and_the_orthogonal_one_is_what_remains(unit: str) -> None:
    other = replace(VECTOR, directions={SITE: 7 * ACROSS}, concept="other")
    slanted = UNIT + ACROSS
    arms = Arms(VECTOR, RECORDED, other, slanted)
    evaluation = CritiqueEvaluation(MODEL, TEST, arms, MARGIN, CritiqueSettings(unit=unit))
    length = VECTOR.norms[SITE] if unit == "norm" else float(VECTOR[SITE].norm())

    for arm in ALL | {"other_concept": 1, "vector": 1}:
        made = evaluation._made(arm, 0)  # pyright: ignore[reportPrivateUsage]
        assert float(made[SITE].norm()) == pytest.approx(length, rel=1e-5)
    rest = evaluation._made("orthogonal", 0)[SITE]  # pyright: ignore[reportPrivateUsage]
    assert abs(float(rest @ slanted)) < 1e-4 * length
    assert float(rest.norm()) == pytest.approx(length * np.sqrt(0.5), rel=1e-4)


def test_what_remains_beside_the_direction_that_is_read_has_no_effect() -> None:
    arms = Arms(VECTOR, RECORDED, None, UNIT + 0.01 * ACROSS)
    found = evaluated(Along(UNIT, 1.0, 0.5), arms=arms, draws={"orthogonal": 1})

    whole, rest = (effect(found, "wrong", 0.2, arm=arm)["effect"] for arm in ("vector", "orthogonal"))
    assert abs(rest) < 0.01 * whole


def test_doses_are_also_told_in_units_of_the_stream() -> None:
    found = evaluated(Along(UNIT, 2.0, 0.4), unit="raw", doses=(0.5, 1.0, 1.5), draws={})
    relative = float(VECTOR[SITE].norm()) / VECTOR.norms[SITE]

    assert effect(found, "wrong", -1.5)["relative_dose"] == pytest.approx(-1.5 * relative)
    assert f"at dose 1 ({relative:.3g} of the median |h|)" in found.verdict


@dataclass(frozen=True)
class Noisy(Along):
    """Scores of their own, hardly apart, and what steering adds to them."""

    def side(self, model: Model, twins: TokenTwins, *, wrong: bool) -> np.ndarray:
        own = 0.4 * (np.random.default_rng(wrong).standard_normal(len(twins)) + 0.3 * wrong)
        moved = ends(model, twins, wrong, self.direction) - UNSTEERED[wrong]
        return own + (self.wrong if wrong else self.true) * moved


UNSTEERED = {wrong: ends(MODEL, TEST, wrong, UNIT) for wrong in (False, True)}


def test_detection_tells_a_moved_criterion_from_better_discrimination() -> None:
    bias, better = (
        summary.records(evaluated(Noisy(UNIT, 1.0, true), draws={}).to_frame("detection"), mode="add", dose=0.4)[0]
        for true in (1.0, -1.0)
    )

    assert bias["criterion_change_high"] < 0
    assert bias["auroc_change"] == pytest.approx(0, abs=1e-9)
    assert better["auroc_change_low"] > 0
    assert better["d_prime"] > bias["d_prime"]


def test_pairs_that_a_metric_refuses_are_left_out_and_told() -> None:
    refused = dict.fromkeys(TEST.ids[:3], "glued")
    metric = replace(Along(UNIT, 1.0, 0.0), refused=refused)
    found = evaluated(metric, draws={})

    each = np.random.default_rng(0).uniform(0.5, 1.5, len(TEST))[3:].mean()
    assert effect(found, "wrong", 0.2)["effect"] == pytest.approx(0.2 * each, rel=1e-4)
    assert any("3 of 16 pairs have no planted margin: glued" in note for note in found.notes)


def test_problems_that_were_fitted_or_chosen_on_are_not_reported_on() -> None:
    with pytest.raises(PromptError, match=r"12 problems .* are among those that were fitted or chosen on"):
        CritiqueEvaluation(MODEL, TRAIN, Arms(VECTOR, RECORDED), MARGIN)
    chosen = layer_effects(MODEL, VECTOR, SELECT, MARGIN, 0.2)
    with pytest.raises(PromptError, match="chosen on"):
        CritiqueEvaluation(MODEL, SELECT, Arms(VECTOR, RECORDED), MARGIN, chosen_on=chosen.groups)
    CritiqueEvaluation(MODEL, TEST, Arms(VECTOR, RECORDED), MARGIN, chosen_on=chosen.groups)


def two_layers() -> tuple[SteeringVector, Activations]:
    recorded = record_twins(MODEL, TRAIN, [Site("resid_post", 0), SITE], progress=False)
    return fit(recorded), recorded


def test_the_layer_is_the_one_at_which_the_twins_to_choose_on_move_most() -> None:
    vector, _ = two_layers()
    first, second = vector.sites

    for planted in (first, second):
        metric = Along(vector.unit(planted), 1.0, 0.1, site=planted)
        found = layer_effects(MODEL, vector.at(planted), SELECT, metric, 0.2)
        assert found.site == planted
        (row,) = summary.records(found.table)
        each = np.random.default_rng(0).uniform(0.5, 1.5, len(SELECT)).mean()
        expected = 2 * 0.2 * each * vector.norms[planted] / VECTOR.norms[SITE]
        assert row["wrong"] == pytest.approx(expected, rel=1e-3)
        assert row["difference"] == pytest.approx(0.9 * expected, rel=1e-3)
    # Read after the first block, what is added after the second is too late.
    both = layer_effects(MODEL, vector, SELECT, Along(vector.unit(first), 1.0, 0.1, site=first), 0.2)
    assert both.site == first
    assert both.table["chosen"].tolist() == [True, False]
    assert summary.records(both.table, chosen=False)[0]["wrong"] == 0
    assert both.groups == tuple(dict.fromkeys(SELECT.groups))


def test_plus_minus_swapped_is_the_opposite_effect() -> None:
    one = layer_effects(MODEL, VECTOR, SELECT, MARGIN, 0.2).table
    other = layer_effects(MODEL, -VECTOR, SELECT, MARGIN, 0.2).table

    np.testing.assert_allclose(one[["wrong", "true"]], -other[["wrong", "true"]], atol=1e-6)


def test_an_interrupted_evaluation_goes_on_unit_by_unit() -> None:
    def made() -> CritiqueEvaluation:
        settings = CritiqueSettings(draws={"random": 2}, test=(0.2, 0.4), test_ablation=True)
        return CritiqueEvaluation(MODEL, TEST, Arms(VECTOR, RECORDED), MARGIN, settings, clean=no_damage)

    assert isinstance(made(), Analysis)
    units = made().units()
    assert len({unit.name for unit in units}) == len(units)
    raw: dict[str, list[pd.DataFrame]] = {}
    for unit in units:
        raw.setdefault(unit.table, []).append(made().measure(unit))
    piecewise = made().conclude({name: pd.concat(parts, ignore_index=True) for name, parts in raw.items()})

    assert piecewise.verdict == complete(made(), progress=False).verdict
    assert set(piecewise.to_frame("tests")["mode"]) == {"add", "ablate"}


# Counting


def rows_of(arm: str, draw: int, wrong: float, true: float, dose: float = 0.2) -> pd.DataFrame:
    mode, dose = ("none", 0.0) if arm == "none" else ("add", dose)
    ids = [str(i) for i in range(6)]
    return pd.DataFrame({"arm": arm, "draw": draw, "mode": mode, "dose": dose, "id": ids, "wrong": wrong, "true": true})


def test_p_counts_draws_as_large_in_either_direction_and_the_vector_itself() -> None:
    draws = [(0.0, 0.0), (3.0, 1.0), (-2.0, 0.0), (5.0, 4.5), (-1.0, 1.5)]  # differences 0, 2, -2, .5, -2.5
    effects = pd.concat(
        [rows_of("none", 0, 1.0, 1.0), rows_of("vector", 0, 4.0, 2.0)]  # moves 3 and 1: difference 2
        + [rows_of("random", k, 1.0 + wrong, 1.0 + true) for k, (wrong, true) in enumerate(draws)]
    )

    tested = summary.tests(effects, [summary.Cell("add", 0.2)]).set_index("side")

    assert tested.loc["difference", "effect"] == 2
    assert tested.loc["difference", "p"] == (1 + 3) / 6
    assert tested.loc["wrong", "p"] == (1 + 2) / 6


def test_several_cells_are_corrected_for_each_other() -> None:
    effects = pd.concat(
        [rows_of("none", 0, 0.0, 0.0)]
        + [rows_of("vector", 0, 9.0, 0.0, dose) for dose in (0.2, 0.4)]
        + [rows_of("random", k, 0.1 * k, 0.0, dose) for dose in (0.2, 0.4) for k in range(99)]
    )
    one, two = (summary.tests(effects, [summary.Cell("add", d) for d in doses]) for doses in ([0.2], [0.2, 0.4]))

    assert one["p_corrected"].tolist() == one["p"].tolist() == [0.1, 0.1]
    assert two["p_corrected"].tolist() == [0.2] * 4


def test_thresholds_of_the_nulls() -> None:
    assert summary.beaten("random", 1 / 51)
    assert not summary.beaten("random", 2 / 51)
    assert summary.beaten("shuffled_labels", 1 / 21)
    assert not summary.beaten("shuffled_labels", 2 / 21)


def curve(values: Mapping[float, float]) -> pd.DataFrame:
    rows = [
        {"arm": "vector", "mode": "add", "dose": dose, "relative_dose": dose, "side": side, "draws": 1}
        | {"effect": value, "effect_low": value - 0.01, "effect_high": value + 0.01, "loss_rise": 0.01, "kl": 0.0}
        for dose, value in values.items()
        for side in ("difference", "wrong", "true")
    ]
    return pd.DataFrame(rows)


@pytest.mark.parametrize(
    ("values", "unmet"),
    [
        ({-0.2: -2, -0.1: -1, 0.1: 1, 0.2: 2}, []),
        ({-0.2: -2, -0.1: -1, 0.1: 1, 0.2: 2, 0.4: 0.5}, []),  # what lies beyond the tested dose does not count
        ({-0.2: 0.5, -0.1: 0.2, 0.1: 1, 0.2: 2}, ["changes sign", "grows with the dose"]),
        ({-0.2: -2, -0.1: -1, 0.1: 2.5, 0.2: 2}, ["grows with the dose"]),
        ({-0.2: -2, 0.2: 2}, ["grows with the dose"]),  # two doses show no growth
    ],
)
def test_criteria_of_the_dose_response(values: Mapping[float, float], unmet: list[str]) -> None:
    cell = summary.Cell("add", 0.2)
    null = {"mode": "add", "dose": 0.2, "null": "random", "side": "difference", "p_corrected": 0.01, "beaten": True}

    judged = summary.judge(curve(values), pd.DataFrame([null]), cell)

    assert [row["criterion"] for row in summary.records(judged) if not row["met"]] == unmet


def test_the_verdict_names_the_null_that_was_not_beaten() -> None:
    cell, doses = summary.Cell("add", 0.2), curve({-0.2: -2, -0.1: -1, 0.1: 1, 0.2: 2})
    nulls = [("random", True), ("shuffled_labels", False)]
    tested = pd.DataFrame(
        [
            {"mode": "add", "dose": 0.2, "null": null, "side": side, "p_corrected": 0.01 if beaten else 0.3}
            | {"beaten": beaten}
            for null, beaten in nulls
            for side in ("difference", "wrong")
        ]
    )
    said = verdict("critique", ("margin", "nats"), cell, doses, tested, summary.judge(doses, tested, cell), None)

    assert said.startswith("No effect beyond random (not told from shuffled labels)")


# Refusals


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"doses": ()}, "Expected positive numbers"),
        ({"doses": (-0.1, 0.2)}, "Expected positive numbers"),
        ({"test": (0.3,)}, "none of the doses"),
        ({"modes": ("ablate",)}, "Expected 'add'"),
        ({"modes": ("add",), "test_ablation": True}, "needs the mode 'ablate'"),
        ({"unit": "own"}, "Expected one of norm, raw"),
        ({"draws": {"placebo": 3}}, "there are the arms"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(settings: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        CritiqueSettings(**settings)


def test_what_cannot_be_measured_is_refused() -> None:
    with pytest.raises(ConfigError, match="needs the mean of the true side"):
        CritiqueEvaluation(MODEL, TEST, Arms(VECTOR), MARGIN)
    with pytest.raises(PromptError, match="two problems at least"):
        CritiqueEvaluation(MODEL, TEST.rows([0, 1]), Arms(VECTOR, RECORDED), MARGIN)
    with pytest.raises(InterventionError, match="is not known"):
        CritiqueEvaluation(MODEL, TEST, Arms(replace(VECTOR, norms={}), RECORDED), MARGIN)
    with pytest.raises(ConfigError, match="Expected a positive dose"):
        layer_effects(MODEL, VECTOR, SELECT, MARGIN, -0.2)
    with pytest.raises(ConfigError, match="by='both'"):
        layer_effects(MODEL, VECTOR, SELECT, MARGIN, 0.2, by="both")
    with pytest.raises(PromptError, match="no twins"):
        layer_effects(MODEL, VECTOR, SELECT.rows([]), MARGIN, 0.2)
