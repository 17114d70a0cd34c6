"""Measures of confidence: hand-worked values, identities, what bias does, and the ends of the scale."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import brier_score_loss

from mechint.statistics import aurc, brier, calibration_error, faithful_calibration, partial_spearman, risk_coverage
from mechint.statistics.confidence import calibrated_errors, equal_mass_index, squared_error_unbiased
from mechint.statistics.partial import partial_spearman_draws, residuals

ANSWERS = st.lists(st.tuples(st.floats(0, 1), st.integers(0, 1)), min_size=1, max_size=40)


def calibrated(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    c = rng.random(n)
    return c, (rng.random(n) < c).astype(int)


class TestCalibration:
    def test_the_error_of_a_hand_worked_case(self) -> None:
        c, y = np.array([0.05, 0.15, 0.95, 1.0]), np.array([0, 1, 1, 0])

        # Bins: .05 -> 0; .15 -> 1; {.95, 1} with mean .975 -> .5.
        assert calibration_error(c, y, 10) == pytest.approx((0.05 + 0.85 + 2 * 0.475) / 4)
        # Two bins of equal mass: mean .1 -> .5, and mean .975 -> .5.
        assert calibration_error(c, y, 2, equal_mass=True) == pytest.approx((2 * 0.4 + 2 * 0.475) / 4)

    def test_full_confidence_counts(self) -> None:
        assert calibration_error(np.ones(4), np.array([1, 0, 0, 0]), 10) == 0.75

    @given(ANSWERS)
    def test_bins_of_equal_mass_keep_ties_together_and_order(self, pairs: list[tuple[float, int]]) -> None:
        c = np.round([one for one, _ in pairs], 1)
        index = equal_mass_index(c, 4)

        for one in set(c):
            assert len(set(index[c == one])) == 1
        assert (np.diff(index[np.argsort(c, kind="stable")]) >= 0).all()

    def test_without_ties_bins_of_equal_mass_are_equal(self) -> None:
        assert np.bincount(equal_mass_index(np.random.default_rng(0).random(40), 8)).tolist() == [5] * 8

    def test_a_faultless_forecaster_has_an_error_too_and_it_is_what_is_drawn(self) -> None:
        found = [calibration_error(*calibrated(200, seed), 10) for seed in range(200)]
        drawn = calibrated_errors(calibrated(200)[0], 10)

        assert np.mean(found) == pytest.approx(drawn.mean(), rel=0.1)
        # Biased up: each of B bins of N / B answers errs by about sqrt(2 p (1 - p) B / (pi N)), p (1 - p) being 1/6.
        assert drawn.mean() == pytest.approx((2 * 10 / (6 * np.pi * 200)) ** 0.5, rel=0.15)

    def test_the_unbiased_error_is_right_on_average(self) -> None:
        fair = [squared_error_unbiased(*calibrated(200, seed)) for seed in range(400)]
        off = []
        for seed in range(400):
            rng = np.random.default_rng(seed)
            off.append(squared_error_unbiased(np.full(200, 0.9), (rng.random(200) < 0.6).astype(int)))

        assert np.mean(fair) == pytest.approx(0.0, abs=3 * np.std(fair) / 20)
        assert np.mean(off) == pytest.approx(0.09, abs=3 * np.std(off) / 20)

    @pytest.mark.parametrize(("c", "y"), [([1.1], [1]), ([0.5], [2]), ([], []), ([np.nan], [1])])
    def test_other_numbers_are_refused(self, c: list[float], y: list[int]) -> None:
        with pytest.raises(ValueError, match="Expected as many of both"):
            calibration_error(np.array(c, dtype=float), np.array(y, dtype=int))


class TestBrier:
    @given(ANSWERS, st.integers(1, 20))
    def test_murphys_parts_add_up_exactly(self, pairs: list[tuple[float, int]], n_bins: int) -> None:
        c, y = (np.array(column) for column in zip(*pairs, strict=True))
        one = brier(c.astype(float), y, n_bins)

        assert one.score == pytest.approx(one.reliability - one.resolution + one.uncertainty + one.within, abs=1e-12)
        assert one.score == pytest.approx(((c - y) ** 2).mean())

    def test_the_score_is_that_of_scikit_learn(self) -> None:
        c, y = calibrated(100)

        assert brier(c, y).score == pytest.approx(brier_score_loss(y, c))

    def test_with_one_confidence_a_bin_nothing_is_left_within(self) -> None:
        rng = np.random.default_rng(0)
        c, y = rng.choice([0.05, 0.45, 0.85], 90), rng.integers(0, 2, 90)

        assert brier(c, y).within == pytest.approx(0.0, abs=1e-12)

    def test_always_saying_the_share_that_is_right_has_no_skill(self) -> None:
        y = np.array([1, 1, 1, 0])

        assert brier(np.full(4, 0.75), y).skill == pytest.approx(0.0)
        assert brier(y.astype(float), y).skill == 1.0
        assert np.isnan(brier(np.full(3, 0.5), np.ones(3, dtype=int)).skill)


class TestRiskAndCoverage:
    def test_a_perfect_ranking_has_the_least_area(self) -> None:
        c, y = np.linspace(1, 0, 10), np.array([1] * 7 + [0] * 3)

        assert aurc(c, y) == pytest.approx(sum(j / (7 + j) for j in (1, 2, 3)) / 10)
        assert aurc(c[::-1].copy(), y) > aurc(c, y)

    def test_what_tells_nothing_gives_the_share_that_is_wrong(self) -> None:
        assert aurc(np.full(5, 0.3), np.array([1, 0, 0, 1, 1])) == pytest.approx(0.4)

    @given(ANSWERS, st.randoms())
    def test_the_order_of_answers_does_not_matter(self, pairs: list[tuple[float, int]], rng: object) -> None:
        shuffled = list(pairs)
        rng.shuffle(shuffled)  # type: ignore[attr-defined]
        first, second = (
            risk_coverage(np.round([c for c, _ in rows], 1), np.array([y for _, y in rows]))
            for rows in (pairs, shuffled)
        )

        assert first[1] == pytest.approx(second[1])


class TestFaithfulness:
    @pytest.mark.parametrize("said", [0.0, 0.3, 0.5, 1.0])
    def test_what_a_constant_comes_to_depends_on_the_constant(self, said: float) -> None:
        intrinsic = np.linspace(0, 1, 2001)
        one = faithful_calibration(np.full(2001, said), intrinsic)

        expected = 1 - (said**2 + (1 - said) ** 2) / 2
        assert [one.mfg, one.cmfg, one.cmfg_star] == pytest.approx([expected] * 3, abs=0.002)

    def test_full_agreement_counts_and_empty_bins_do_not(self) -> None:
        # As released, I = 1 is in no bin, and the nine empty bins count as 0: MFG .8, cMFG 0.
        one = faithful_calibration(np.full(5, 0.8), np.ones(5))

        assert one.mfg == one.cmfg == one.cmfg_star == pytest.approx(0.8)
        assert one.empty == 9

    def test_every_degree_of_agreement_weighs_the_same(self) -> None:
        intrinsic = np.concatenate([np.full(90, 0.95), np.full(10, 0.05)])
        one = faithful_calibration(np.full(100, 0.95), intrinsic)

        assert one.mfg == pytest.approx(0.91)
        assert one.cmfg == pytest.approx((1.0 + 0.1) / 2)

    def test_a_bins_weight_is_its_width(self) -> None:
        one = faithful_calibration(np.array([0.0, 0.2, 0.9, 0.5]), np.array([0.0, 0.2, 0.8, 1.0]), 2)

        # Two bins with an edge at .5, of width .5 each: F = (1, 1) and (.9, .5).
        assert one.cmfg_star == pytest.approx((1.0 + 0.7) / 2)
        assert one.variance == pytest.approx(0.25 * 0.08 / 2)

    def test_the_variance_is_that_of_repetitions(self) -> None:
        intrinsic = np.linspace(0, 1, 400)
        found = [
            faithful_calibration(np.clip(intrinsic + np.random.default_rng(seed).normal(0, 0.1, 400), 0, 1), intrinsic)
            for seed in range(300)
        ]

        assert np.mean([one.variance for one in found]) == pytest.approx(np.var([o.cmfg_star for o in found]), rel=0.25)


class TestPartial:
    def test_with_one_covariate_it_is_the_formula(self) -> None:
        x, y, z = np.random.default_rng(0).normal(size=(3, 50)) + np.random.default_rng(1).normal(size=50)
        xy, xz, yz = (stats.spearmanr(*pair).statistic for pair in ((x, y), (x, z), (y, z)))

        assert partial_spearman(x, y, z[:, None]) == pytest.approx((xy - xz * yz) / ((1 - xz**2) * (1 - yz**2)) ** 0.5)

    def test_a_common_cause_is_taken_out(self) -> None:
        rng = np.random.default_rng(0)
        z = rng.normal(size=400)
        x, y = z + 0.5 * rng.normal(size=400), z + 0.5 * rng.normal(size=400)
        low, high = np.quantile(partial_spearman_draws(x, y, z[:, None], n_resamples=300), [0.025, 0.975])

        assert stats.spearmanr(x, y).statistic > 0.7
        assert low < 0 < high

    def test_residuals_have_nothing_of_the_covariates(self) -> None:
        x, *z = np.random.default_rng(0).normal(size=(4, 30))
        left = residuals(x, np.array(z).T)

        assert np.array(z) @ left == pytest.approx(0, abs=1e-10)
        assert residuals(2 + 3 * z[0], np.array(z).T).tolist() == [0.0] * 30
        assert residuals(x, np.ones((30, 1))) == pytest.approx(x - x.mean())

    def test_draws_take_clusters_whole(self) -> None:
        x, y = np.random.default_rng(0).normal(size=(2, 20))
        nothing = np.zeros((20, 1))

        assert np.isnan(partial_spearman_draws(np.ones(20), y, nothing, n_resamples=5)).all()
        one = partial_spearman_draws(x, y, nothing, ["a"] * 20, n_resamples=5)
        assert one == pytest.approx(stats.spearmanr(x, y).statistic)
