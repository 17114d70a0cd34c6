import math

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from mechint.capture.activations import Activations, identity
from mechint.errors import InterventionError, PromptError, SiteError
from mechint.sites import Site
from mechint.statistics.drawn import percentiles
from mechint.vectors.auroc import auroc, auroc_draws, auroc_p
from mechint.vectors.fit import fit
from mechint.vectors.report import report, token_table
from mechint.vectors.samples import Samples
from mechint.vectors.vector import SteeringVector
from tests.families import tiny
from tests.vectors.planted import SITE, direction, planted

WIDTH = 24
TRAIN = planted(200, direction(WIDTH, 2.0))
TEST = planted(80, direction(WIDTH, 2.0), seed=9, first=1000)
VECTOR = fit(TRAIN, concept="joy")


def test_a_planted_difference_is_found_with_the_auroc_that_it_must_have() -> None:
    found = report(VECTOR, TEST, train=TRAIN)
    row = found.to_frame("sites").iloc[0]
    best = 0.5 * (1 + math.erf(2.0 / 2))

    assert row["auroc_low"] < best < row["auroc_high"]
    assert row["auroc_p"] < 0.01
    assert row["split_half"] > 0.8
    assert row["length"] == pytest.approx(float(VECTOR[SITE].norm()) / 10)
    assert "tells held-out texts apart" in found.verdict


def test_the_best_site_is_the_one_that_tells_held_out_texts_apart_whichever_comes_first() -> None:
    noise = planted(200, direction(WIDTH, 1e-6), seed=3)
    for planted_at, other in ((SITE, Site.parse("L2.resid_post")), (SITE, Site.parse("L0.resid_post"))):
        both = {planted_at: TRAIN.values[SITE], other: noise.values[SITE]}
        vector = fit(Activations(**{**vars(TRAIN), "values": both, "norms": dict.fromkeys(both, 10.0)}))
        held_out = {planted_at: TEST.values[SITE], other: planted(80, direction(WIDTH, 1e-6), seed=4).values[SITE]}
        select = Activations(**{**vars(TEST), "values": held_out, "norms": dict.fromkeys(both, 10.0)})

        assert vector.best_site(select).sites == (planted_at,)
        assert (-vector).best_site(select).sites == (other,)  # the wrong way round it tells nothing, and noise beats it

    with pytest.raises(PromptError, match="training and test data"):
        VECTOR.best_site(TRAIN)


def test_meaningless_labels_are_said_to_be_no_finding() -> None:
    gaps = (TEST.single(SITE)[:80] - TEST.single(SITE)[80:]) @ VECTOR[SITE]
    y = torch.tensor([1] * 80 + [0] * 80)
    exchanged = gaps.argsort()[::2]  # every second pair, by size: neither side scores higher
    y[exchanged], y[exchanged + 80] = 0, 1
    null = Activations(**{**vars(TEST), "labels": tuple(y.tolist())})
    found = report(VECTOR, null, train=TRAIN)

    assert found.to_frame("sites")["auroc_p"][0] > 0.05
    assert "does not tell" in found.verdict


def test_the_halves_of_noise_do_not_agree() -> None:
    noise = planted(100, direction(WIDTH, 1e-6))
    row = report(VECTOR, TEST, train=Activations(**{**vars(noise), "groups": noise.groups})).to_frame().iloc[0]

    assert abs(row["split_half"]) < 0.3


def test_words_that_give_the_sides_away_are_held_against_the_vector() -> None:
    told = tuple(f"text {i} is good" for i in range(80)) + tuple(f"text {i} is bad" for i in range(80))
    found = report(VECTOR, Activations(**{**vars(TEST), "texts": told}))
    silent = report(VECTOR, TEST)

    assert found.to_frame()["words_auroc"][0] > 0.99
    assert "may be owed to them" in found.verdict
    assert silent.to_frame()["words_auroc"][0] < 0.7
    assert "less by" in silent.verdict
    assert any("within the test texts" in note for note in silent.notes)


def test_groups_that_were_fitted_on_are_no_test() -> None:
    with pytest.raises(PromptError, match="are in both training and test data"):
        report(VECTOR, TRAIN)
    with pytest.raises(PromptError, match="are in both training and test data"):
        report(2 * VECTOR, TRAIN)


def test_data_of_another_model_site_or_kind_are_refused() -> None:
    with pytest.raises(InterventionError, match="of planted"):
        report(VECTOR, Activations(**{**vars(TEST), "model": {"weights": "1", "name": "other"}}))
    with pytest.raises(SiteError, match="was not recorded"):
        report(SteeringVector({Site.parse("L7.resid_post"): torch.ones(WIDTH)}, {}, "joy", "by hand"), TEST)
    with pytest.raises(PromptError, match="no sides"):
        report(VECTOR, Activations(**{**vars(TEST), "labels": None}))


def test_the_direction_of_a_token_promotes_that_token_first() -> None:
    model = tiny("gemma3")
    norm = model.norm("final")
    assert norm is not None
    rows = model.unembedding(slice(0, model.facts.d_vocab))
    longest = int(rows.norm(dim=-1).argmax())  # whose product with itself is larger than any other's (Cauchy-Schwarz)
    vector = SteeringVector(
        {Site.parse("L3.resid_post"): rows[longest] / norm.gain}, {}, "a token", "by hand", identity(model)
    )
    up, down = token_table(vector, model, 3), token_table(-1 * vector, model, 3)

    assert up["id"][0] == longest
    assert down.loc[down["end"] == "suppressed", "id"].iloc[0] == longest
    assert up["value"][0] == pytest.approx(
        float(rows[longest].norm() ** 2 / (rows[longest] / norm.gain).norm()), rel=1e-4
    )


def test_auroc_is_that_of_scikit_learn_ties_included() -> None:
    rng = np.random.default_rng(0)
    scores, y = rng.integers(5, size=60).astype(float), rng.integers(2, size=60)

    assert auroc(scores, y) == pytest.approx(roc_auc_score(y, scores))


def test_bootstrap_draws_centre_on_the_auroc_and_widen_with_clusters() -> None:
    rng = np.random.default_rng(0)
    y = np.repeat([0, 1], 60)
    scores = rng.standard_normal(120) + y
    alone = auroc_draws(scores, y, np.arange(120))
    # Ten copies of each text are no new evidence.
    copied = auroc_draws(np.repeat(scores, 10), np.repeat(y, 10), np.repeat(np.arange(120), 10))
    naive = auroc_draws(np.repeat(scores, 10), np.repeat(y, 10), np.arange(1200))

    assert alone.mean() == pytest.approx(auroc(scores, y), abs=0.01)
    assert np.std(copied) == pytest.approx(np.std(alone), rel=0.1)
    assert np.std(naive) < 0.5 * np.std(alone)
    assert percentiles(np.array([np.nan])) == pytest.approx((np.nan, np.nan), nan_ok=True)


def test_p_is_uniform_where_nothing_is_there() -> None:
    rng = np.random.default_rng(0)
    y, groups = np.tile([0, 1], 20), np.repeat(np.arange(20), 2)
    p = [auroc_p(rng.standard_normal(40), y, groups, n_resamples=200, seed=i) for i in range(200)]

    assert np.mean(np.array(p) <= 0.05) < 0.1
    assert np.mean(p) == pytest.approx(0.5, abs=0.07)


@pytest.mark.parametrize("paired", [True, False])
def test_shuffled_labels_keep_groups_together(paired: bool) -> None:
    y = np.array([0, 1, 0, 1, 0, 1]) if paired else np.array([0, 0, 1, 1, 0, 0])
    samples = Samples(np.zeros((6, 2)), y, np.array([0, 0, 1, 1, 2, 2]), np.arange(6))
    drawn = {tuple(samples.shuffled(seed).y.tolist()) for seed in range(100)}

    assert len(drawn) == (8 if paired else 3)
    for labels in drawn:
        for group in range(3):
            pair = labels[2 * group : 2 * group + 2]
            assert (sum(pair) == 1) if paired else (pair[0] == pair[1])
