"""Every estimator finds what was planted, as exactly as its formula says, and nothing where labels mean nothing."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from mechint.capture.activations import Activations
from mechint.capture.moments import RecordedMoments
from mechint.errors import ConfigError, InterventionError, PromptError, SiteError
from mechint.prompts import contrast
from mechint.vectors.estimators.controls import random_like
from mechint.vectors.estimators.means import discriminant, mean_difference
from mechint.vectors.fit import METHODS, fit
from mechint.vectors.samples import Samples
from mechint.vectors.vector import SteeringVector
from tests.families import tiny
from tests.vectors.planted import SITE, activations, cosine, direction, planted

WIDTH = 24


def found(data: Activations, method: str, **settings: object) -> Tensor:
    return fit(data, method=method, folds=0, **settings)[SITE]  # type: ignore[arg-type]


@pytest.mark.parametrize("method", METHODS)
def test_with_many_texts_every_estimator_finds_the_planted_direction(method: str) -> None:
    delta = direction(WIDTH, 2.0)

    assert cosine(found(planted(3000, delta), method), delta) >= 0.99


def expected_cosine(method: str, n: int, length: float) -> float:
    """The formulas of the docstrings, at unit noise."""
    if method == "pca":
        strength, shape = length**2 / 2, WIDTH / n
        return math.sqrt((1 - shape / strength**2) / (1 + shape / strength))
    if method == "probe":
        z = np.random.default_rng(0).standard_normal(200_000)
        logit = length**2 * np.array([1, -1])[:, None] / 2 + length * z
        p = 1 / (1 + np.exp(-logit))
        information = float((p * (1 - p)).mean())
        return (1 + (WIDTH - 1) / (2 * n * information * length**2)) ** -0.5
    return (1 + 2 * (WIDTH - 1) / (n * length**2)) ** -0.5


@pytest.mark.parametrize(
    ("method", "n", "length"),
    [("mean_diff", 50, 2.0), ("mean_diff", 200, 1.5), ("pca", 100, 2.0), ("pca", 200, 1.5), ("probe", 1000, 2.0)],
)
def test_with_few_texts_the_error_is_what_the_formula_says(method: str, n: int, length: float) -> None:
    delta = direction(WIDTH, length)
    settings = {"C": 1e4} if method == "probe" else {}
    cosines = [cosine(found(planted(n, delta, seed=seed), method, **settings), delta) for seed in range(12)]

    angle = np.mean([1 / cosine**2 - 1 for cosine in cosines])  # tan², which the noise is proportional to
    assert angle == pytest.approx(1 / expected_cosine(method, n, length) ** 2 - 1, rel=0.15)


@pytest.mark.parametrize("method", METHODS)
def test_labels_that_mean_nothing_give_chance(method: str) -> None:
    delta = direction(WIDTH, 2.0)
    data = planted(150, delta)
    cosines, scores = [], []
    for seed in range(20):
        y = Samples.of(data, SITE).shuffled(seed).y
        shuffled = Activations(**{**vars(data), "labels": tuple(int(label) for label in y)})
        vector = fit(shuffled, method=method, folds=5)
        cosines.append(cosine(vector[SITE], delta))
        scores.append(vector.provenance["scores"][str(SITE)]["held_out_auroc"])

    assert abs(np.mean(cosines)) < 0.25
    assert np.mean(scores) == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize("method", METHODS)
def test_held_out_texts_are_told_apart_as_well_as_the_gap_allows(method: str) -> None:
    data = planted(300, direction(WIDTH, 2.0))
    score = fit(data, method=method).provenance["scores"][str(SITE)]
    best = 0.5 * (1 + math.erf(2.0 / 2))  # the probability that N(2, 2) is positive

    assert score["folds"] == 5
    assert best - 0.03 < score["held_out_auroc"] < best + 0.03


def test_the_discriminant_turns_away_from_noise_and_the_mean_difference_does_not() -> None:
    delta = direction(WIDTH, 3.0)
    mix = torch.diag(torch.linspace(0.3, 3.0, WIDTH, dtype=torch.double))
    samples = Samples.of(planted(6000, delta, mix=mix), SITE)
    best = torch.linalg.solve(mix @ mix.T, delta)

    assert cosine(discriminant(samples), best) >= 0.99
    assert cosine(mean_difference(samples), delta) >= 0.99
    assert cosine(best, delta) < 0.8


def test_what_pairs_share_is_no_noise_for_their_principal_difference() -> None:
    delta = direction(WIDTH, 3.0)
    data = planted(400, delta, common=50.0)

    assert cosine(found(data, "pca"), delta) >= 0.99
    assert torch.allclose(found(data, "pca"), delta.float(), atol=0.4)


@pytest.mark.parametrize("method", METHODS)
def test_a_shift_of_all_activations_changes_nothing(method: str) -> None:
    data = planted(100, direction(WIDTH, 2.0))
    moved = Activations(**{**vars(data), "values": {SITE: data[SITE] + 7.0}})

    assert torch.allclose(found(moved, method), found(data, method), atol=1e-3)


@pytest.mark.parametrize("method", ["mean_diff", "pca", "lda"])
def test_a_rotation_of_all_activations_rotates_the_direction(method: str) -> None:
    data = planted(100, direction(WIDTH, 2.0))
    turn = torch.linalg.qr(torch.from_numpy(np.random.default_rng(3).standard_normal((WIDTH, WIDTH))))[0].float()
    turned = Activations(**{**vars(data), "values": {SITE: data[SITE] @ turn}})
    tolerance = 0.05 if method == "lda" else 1e-3  # sklearn standardises before it shrinks

    assert cosine(found(turned, method), found(data, method) @ turn) > 1 - tolerance


@pytest.mark.parametrize("method", METHODS)
def test_exchanged_sides_reverse_the_direction(method: str) -> None:
    data = planted(100, direction(WIDTH, 2.0))
    reverse = Activations(**{**vars(data), "labels": tuple(1 - label for label in data.labels or ())})

    assert torch.allclose(found(reverse, method), -found(data, method), atol=1e-3)


@pytest.mark.parametrize("method", ["mean_diff", "lda"])
def test_moments_give_what_the_activations_give(method: str) -> None:
    data = planted(500, direction(WIDTH, 2.0))

    assert cosine(fit(RecordedMoments.of(data), method=method)[SITE], found(data, method)) > 0.999


def test_several_positions_count_as_several_vectors() -> None:
    first, second = planted(50, direction(WIDTH, 2.0)), planted(50, direction(WIDTH, 2.0), seed=5)
    joined = {"values": {SITE: torch.cat([first[SITE], second[SITE]], 1)}, "offsets": None}
    both = Activations(**{**vars(first), **joined})

    assert torch.allclose(
        found(both, "mean_diff"), (found(first, "mean_diff") + found(second, "mean_diff")) / 2, atol=1e-5
    )
    assert len(Samples.of(both, SITE).differences) == 100


def test_unpaired_texts_have_no_principal_difference() -> None:
    data = planted(20, direction(WIDTH, 2.0))
    loose = activations(data[SITE][:20, 0], data[SITE][20:, 0], paired=False)
    with pytest.raises(PromptError, match="have no pair"):
        fit(loose, method="pca")

    assert torch.allclose(found(loose, "mean_diff"), found(data, "mean_diff"))


def test_data_with_one_side_or_none_are_refused() -> None:
    data = planted(5, direction(WIDTH, 2.0))
    with pytest.raises(PromptError, match="has no sides"):
        fit(Activations(**{**vars(data), "labels": None}))
    with pytest.raises(PromptError, match="10 positive and 0 negative"):
        fit(Activations(**{**vars(data), "labels": (1,) * 10}))
    with pytest.raises(PromptError, match="one side only"):
        fit(RecordedMoments.of(Activations(**{**vars(data), "labels": (1,) * 10})))


def test_sides_that_do_not_differ_give_no_vector() -> None:
    same = torch.randn(4, WIDTH, generator=torch.Generator().manual_seed(0))
    with pytest.raises(InterventionError, match="other than zero"):
        fit(activations(same, same), folds=0)


def test_an_unknown_method_or_site_is_refused() -> None:
    data = planted(5, direction(WIDTH, 2.0))
    with pytest.raises(ConfigError, match="mean_diff, pca, probe, lda"):
        fit(data, method="magic")
    with pytest.raises(ConfigError, match="There are: mean_diff, lda"):
        fit(RecordedMoments.of(data), method="pca")
    with pytest.raises(ConfigError, match="no setting 'C'"):
        fit(data, method="mean_diff", C=1.0)
    with pytest.raises(ConfigError, match="It has: C"):
        fit(data, method="probe", c=1.0)
    with pytest.raises(SiteError, match="was not recorded"):
        fit(data, sites="L0.resid_post")


def test_a_vector_is_fitted_from_a_model_at_several_sites_at_once() -> None:
    pairs = contrast([f"w5 w{i}" for i in range(6, 14)], [f"w5 w{i}" for i in range(20, 28)])
    vector = fit(tiny("gemma3"), pairs, ["L2.resid_post", "L0.mlp_out"], method="mean_diff", concept="high")
    alone = fit(tiny("gemma3"), pairs, "L2.resid_post")

    assert [str(site) for site in vector.sites] == ["L0.mlp_out", "L2.resid_post"]
    assert torch.allclose(vector["L2.resid_post"], alone["L2.resid_post"], atol=1e-5)
    assert vector.model["name"] == "tiny-gemma3"
    assert vector.provenance["data"]["hash"] == pairs.content_hash
    assert set(vector.norms) == set(vector.sites)
    with pytest.raises(ConfigError, match="give pairs and sites"):
        fit(tiny("gemma3"), pairs)


def plain(length: float = 5.0) -> SteeringVector:
    return SteeringVector({SITE: direction(WIDTH, length).float()}, {SITE: 10.0}, "joy", "by hand")


def test_random_vectors_are_as_long_and_each_seed_has_its_own() -> None:
    one, two = random_like(plain(), 0), random_like(plain(), 1)

    assert float(one[SITE].norm()) == pytest.approx(5.0)
    assert torch.equal(one[SITE], random_like(plain(), 0)[SITE])
    assert abs(cosine(one[SITE], two[SITE])) < 0.9


def test_isotropic_draws_have_the_cosines_of_chance() -> None:
    cosines = [cosine(random_like(plain(), seed)[SITE], plain()[SITE]) for seed in range(400)]

    assert np.mean(np.square(cosines)) == pytest.approx(1 / WIDTH, rel=0.25)


def test_covariance_matched_draws_vary_as_the_activations_do() -> None:
    scales = torch.linspace(0.1, 3.0, WIDTH, dtype=torch.double)
    data = planted(200, torch.full((WIDTH,), 1e-6, dtype=torch.double), mix=torch.diag(scales))
    draws = torch.stack([random_like(plain(), seed, data)[SITE] for seed in range(400)]).double()
    isotropic = torch.stack([random_like(plain(), seed)[SITE] for seed in range(400)]).double()

    assert cosine((draws**2).mean(0), scales**2) > 0.98
    assert cosine((isotropic**2).mean(0), scales**2) < 0.8
