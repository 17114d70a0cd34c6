"""d' and criterion of known counts, and what a shift of the threshold does and does not change."""

from typing import Any

import numpy as np
import pytest
from scipy.stats import norm

from mechint.statistics.signal_detection import (
    QUANTITIES,
    criterion,
    d_prime,
    signal_change,
    signal_detection,
)
from mechint.vectors.auroc import auroc

RNG = np.random.default_rng(0)
Y = np.tile([1, 0], 200)
SCORES = RNG.standard_normal(400) + 1.5 * Y
PAIRS = np.repeat(np.arange(200), 2)


def test_equal_rates_are_no_discrimination_whatever_they_are() -> None:
    for k in (0, 3, 10):
        assert d_prime(k, 10, k, 10) == 0
    assert criterion(5, 10, 5, 10) == pytest.approx(0)
    assert criterion(10, 10, 10, 10) < criterion(5, 10, 5, 10) < criterion(0, 10, 0, 10)


def test_exchanged_sides_change_the_sign_of_d_prime_and_not_the_criterion() -> None:
    assert d_prime(9, 12, 2, 20) == -d_prime(2, 20, 9, 12)
    assert criterion(9, 12, 2, 20) == criterion(2, 20, 9, 12)


def test_calling_everything_its_opposite_changes_the_sign_of_both() -> None:
    assert d_prime(12 - 9, 12, 20 - 2, 20) == pytest.approx(-d_prime(9, 12, 2, 20))
    assert criterion(12 - 9, 12, 20 - 2, 20) == pytest.approx(-criterion(9, 12, 2, 20))


def test_perfect_counts_stay_finite_by_the_log_linear_rule() -> None:
    assert d_prime(10, 10, 0, 10) == pytest.approx(2 * norm.ppf(10.5 / 11))


def test_two_normal_distributions_have_the_d_prime_of_their_distance() -> None:
    rng, n = np.random.default_rng(1), 200_000
    y = np.repeat([1, 0], n)
    scores = rng.standard_normal(2 * n) + 2.0 * y

    found = signal_detection(scores, y, threshold=1.0, matched=float(norm.sf(1.0)), n_resamples=1)

    assert found.d_prime.value == pytest.approx(2.0, abs=0.02)
    assert found.criterion.value == pytest.approx(0.0, abs=0.02)
    assert found.auroc.value == pytest.approx(norm.cdf(2 / np.sqrt(2)), abs=0.005)
    assert found.matched_hit_rate.value == pytest.approx(norm.cdf(1.0), abs=0.01)


def test_a_threshold_shift_moves_the_criterion_alone() -> None:
    before, after = (signal_detection(SCORES + shift, Y, PAIRS) for shift in (0.0, 1.0))

    assert after.criterion.high < before.criterion.low
    assert after.hit_rate.value > before.hit_rate.value
    assert after.auroc == before.auroc
    assert after.matched_hit_rate == before.matched_hit_rate

    change = signal_change(SCORES, SCORES + 1.0, Y, PAIRS)
    assert change.criterion.high < 0
    assert (change.auroc.value, change.auroc.low, change.auroc.high) == (0, 0, 0)


def test_better_discrimination_is_told_from_a_shift() -> None:
    change = signal_change(SCORES, SCORES + 1.0 * Y - 0.5, Y, PAIRS)

    assert change.d_prime.low > 0
    assert change.auroc.low > 0
    assert change.matched_hit_rate.low > 0


@pytest.mark.parametrize("transform", [np.exp, lambda s: 3 * s - 7, np.arctan])
def test_what_needs_no_threshold_depends_on_the_order_of_scores_alone(transform: Any) -> None:
    one, other = signal_detection(SCORES, Y), signal_detection(transform(SCORES), Y)

    assert one.auroc == other.auroc
    assert one.matched_hit_rate == other.matched_hit_rate


def test_the_auroc_is_that_of_the_ranks_ties_included() -> None:
    scores = np.round(SCORES)

    assert signal_detection(scores, Y).auroc.value == pytest.approx(auroc(scores, Y))
    assert signal_detection(np.zeros(400), Y).auroc.value == 0.5


def test_the_matched_hit_rate_allows_no_more_false_alarms_than_it_says() -> None:
    y, scores = np.array([1, 1, 1, 0, 0]), np.array([4.0, 3.0, 1.0, 2.0, 0.0])

    def hits(matched: float) -> float:
        return signal_detection(scores, y, matched=matched).matched_hit_rate.value

    assert [hits(rate) for rate in (0.0, 0.49, 0.5, 1.0)] == pytest.approx([2 / 3, 2 / 3, 1, 1])
    assert signal_detection(np.zeros(5), y, matched=0.9).matched_hit_rate.value == 0  # ties go together


def test_intervals_hold_the_value_and_copies_within_a_cluster_do_not_narrow_them() -> None:
    alone = signal_detection(SCORES, Y, PAIRS)
    copied = signal_detection(np.tile(SCORES, 4), np.tile(Y, 4), np.tile(PAIRS, 4))

    for name in QUANTITIES:
        one = getattr(alone, name)
        assert one.low <= one.value <= one.high
    assert copied.auroc.low == pytest.approx(alone.auroc.low)
    apart = signal_detection(np.tile(SCORES, 4), np.tile(Y, 4))
    assert apart.auroc.high - apart.auroc.low < 0.7 * (alone.auroc.high - alone.auroc.low)


def test_one_cluster_gives_no_interval() -> None:
    found = signal_detection(SCORES, Y, np.zeros(400, dtype=int))

    assert np.isnan([found.auroc.low, found.d_prime.high]).all()
    assert np.isfinite(found.auroc.value)


def test_the_table_has_every_number_with_its_ends() -> None:
    found = signal_detection(SCORES, Y)
    frame = found.to_frame()

    assert list(frame.columns) == [f"{name}{end}" for name in QUANTITIES for end in ("", "_low", "_high")]
    assert frame.loc[0, "d_prime"] == found.d_prime.value


@pytest.mark.parametrize(
    ("scores", "y", "settings", "message"),
    [
        (np.ones(3), np.ones(3, dtype=int), {}, "items of both sides"),
        (np.array([np.nan, 1.0]), np.array([0, 1]), {}, "1 of them not finite"),
        (np.ones(2), np.array([0, 1]), {"matched": 2.0}, "rate from 0 to 1"),
    ],
)
def test_scores_that_cannot_be_judged_are_refused(scores: Any, y: Any, settings: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        signal_detection(scores, y, **settings)


def test_more_hits_than_items_are_refused() -> None:
    with pytest.raises(ValueError, match="11 of 10"):
        d_prime(11, 10, 0, 10)
