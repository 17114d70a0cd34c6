"""The crossed bootstrap against plain definitions, and its claims on data made by chance."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from mechint.statistics import bootstrap_mean, generator
from mechint.statistics.crossed import Crossed
from mechint.statistics.equivalence import equivalence_p, smallest_detectable


def test_its_auroc_is_the_usual_one_ties_counting_half():
    rng = generator(0, "auroc")
    x, y = rng.integers(0, 6, (5, 7)).astype(float), rng.integers(0, 5, (5, 7)).astype(float)
    labels = np.repeat([1, 0], 35)
    assert Crossed(5, 7, n_resamples=10).auroc(x, y).value == pytest.approx(
        roc_auc_score(labels, np.concatenate([x.ravel(), y.ravel()]))
    )


def test_a_draw_of_the_auroc_is_that_of_the_repeated_cells():
    rng = generator(1, "auroc")
    x, y = rng.normal(size=(3, 4)), rng.normal(size=(3, 4))
    crossed = Crossed(3, 4, n_resamples=20)
    times = crossed._weights[7].astype(int).ravel()  # pyright: ignore[reportPrivateUsage]
    scores = np.concatenate([np.repeat(x.ravel(), times), np.repeat(y.ravel(), times)])
    labels = np.repeat([1, 0], times.sum())
    assert crossed.auroc(x, y).draws[6] == pytest.approx(roc_auc_score(labels, scores))


def test_an_effect_of_whole_concepts_is_less_certain_than_rows_suggest():
    rng = generator(2, "concepts")
    cells = np.repeat(rng.normal(size=(12, 1)), 16, axis=1) + 0.1 * rng.normal(size=(12, 16))
    found = Crossed(12, 16).mean(cells)
    _, low, high = bootstrap_mean(cells.reshape(-1, 1))
    assert found.high - found.low > 2 * float((high - low)[0])


def test_intervals_of_crossed_noise_cover_the_truth_about_as_often_as_they_say():
    covered = 0
    for i in range(200):
        rng = generator(3, "coverage", i)
        cells = rng.normal(size=(12, 1)) + rng.normal(size=(1, 12)) + rng.normal(size=(12, 12))
        found = Crossed(12, 12, n_resamples=400, seed=i).mean(cells)
        covered += found.low < 0 < found.high
    assert 0.88 <= covered / 200 <= 1.0  # percentile intervals of 12 clusters cover a little less than 95 %


@pytest.mark.parametrize("shape", [(1, 4), (4, 1)])
def test_one_cluster_of_a_kind_has_no_interval(shape: tuple[int, int]):
    with pytest.raises(ValueError, match="at least two"):
        Crossed(*shape)


def test_equivalence_at_a_tenth_is_the_ninety_percent_interval_within_the_margin():
    draws = generator(4, "draws").normal(0.02, 0.03, 4999)
    low, high = np.quantile(draws, [0.05, 0.95])
    for margin in (0.03, 0.05, 0.08, 0.1):
        assert (equivalence_p(draws, 0.0, margin) < 0.05) == (-margin < low and high < margin)


def test_an_undefined_draw_counts_against_equivalence():
    assert equivalence_p(np.full(99, np.nan), 0.0, 0.1) == 1.0


def test_the_smallest_effect_is_found_as_often_as_its_power_says():
    size, rng = smallest_detectable(1.0), generator(5, "power")
    found = np.abs(rng.normal(size, 1.0, 20_000)) > 1.96
    assert found.mean() == pytest.approx(0.8, abs=0.01)
