"""The statistics keep their promises: coverage, exactness, invariance, and NaN where nothing is known."""

from itertools import product
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from mechint import statistics as ms
from mechint.statistics.bootstrap import _weighted_median, _weights


def normal(*shape: int, seed: int = 0, mean: float = 0.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(mean, 1.0, size=shape)


class TestSeeds:
    def test_seeds_differ_by_seed_by_label_and_by_the_order_of_labels(self) -> None:
        seeds = {ms.derive_seed(*key) for key in [(0, "a"), (1, "a"), (0, "b"), (0, "a", "b"), (0, "b", "a"), (0,)]}

        assert len(seeds) == 6

    def test_a_seed_is_stable_across_releases(self) -> None:
        assert ms.derive_seed(0, "ioi", 7) == 3578561068242895080

    @given(st.integers(0, 2**40), st.text())
    def test_a_seed_has_63_bits(self, seed: int, label: str) -> None:
        assert 0 <= ms.derive_seed(seed, label.encode("unicode_escape")) < 2**63


class TestBootstrapMean:
    def test_the_interval_is_scipys_bca_for_the_same_draws(self) -> None:
        values = np.random.default_rng(1).exponential(size=(30, 1))
        _, low, high = ms.bootstrap_mean(values, n_resamples=500, seed=3)
        weights = np.concatenate(list(_weights(30, 500, 3)))
        draws = SimpleNamespace(bootstrap_distribution=(weights @ values[:, 0]) / 30)

        peer = stats.bootstrap((values[:, 0],), np.mean, n_resamples=0, bootstrap_result=draws, method="BCa")

        assert (low[0], high[0]) == pytest.approx(tuple(peer.confidence_interval), rel=1e-9)

    def test_clusters_agree_with_scipy_resampling_cluster_sums_as_pairs(self) -> None:
        values, clusters = normal(60, 1, seed=2), np.repeat(np.arange(20), 3)
        sums = values.reshape(20, 3).sum(axis=1)
        _, low, high = ms.bootstrap_mean(values, clusters, n_resamples=20_000)

        peer = stats.bootstrap(
            (sums, np.full(20, 3.0)),
            lambda s, n, axis: s.sum(axis=axis) / n.sum(axis=axis),
            paired=True,
            n_resamples=20_000,
            rng=np.random.default_rng(0),
        ).confidence_interval

        assert (low[0], high[0]) == pytest.approx((peer.low, peer.high), abs=0.02)

    def test_it_covers_the_truth_as_often_as_it_says(self) -> None:
        data = np.random.default_rng(5).exponential(size=(40, 600))  # 600 experiments side by side, true mean 1
        _, low, high = ms.bootstrap_mean(data, n_resamples=1000)

        coverage = ((low <= 1) & (high >= 1)).mean()

        assert 0.90 <= coverage <= 0.97

    def test_correlated_clusters_are_covered_only_when_they_are_declared(self) -> None:
        rng = np.random.default_rng(6)
        data = np.repeat(rng.normal(size=(30, 400)), 5, axis=0) + 0.3 * rng.normal(size=(150, 400))
        clusters = np.repeat(np.arange(30), 5)

        covered = {}
        for name, labels in {"declared": clusters, "ignored": None}.items():
            _, low, high = ms.bootstrap_mean(data, labels, n_resamples=600)
            covered[name] = ((low <= 0) & (high >= 0)).mean()

        assert covered["declared"] > 0.90
        assert covered["ignored"] < 0.70

    def test_it_knows_nothing_of_the_order_of_rows(self) -> None:
        values, clusters = normal(50, 3), np.repeat(np.arange(10), 5)
        order = np.random.default_rng(0).permutation(50)

        np.testing.assert_allclose(
            ms.bootstrap_mean(values, clusters), ms.bootstrap_mean(values[order], clusters[order]), rtol=1e-10
        )

    def test_repeating_every_row_within_its_cluster_adds_no_certainty(self) -> None:
        values, clusters = normal(12, 2), np.arange(12)

        once = ms.bootstrap_mean(values, clusters)
        thrice = ms.bootstrap_mean(np.repeat(values, 3, axis=0), np.repeat(clusters, 3))

        np.testing.assert_allclose(once, thrice, rtol=1e-10)

    def test_it_scales_and_shifts_with_the_values(self) -> None:
        values = normal(25, 2)

        np.testing.assert_allclose(
            ms.bootstrap_mean(3.0 * values + 2.0), 3.0 * np.array(ms.bootstrap_mean(values)) + 2.0, rtol=1e-9
        )

    def test_a_mirrored_sample_has_the_mirrored_interval(self) -> None:
        values = np.random.default_rng(1).exponential(size=(25, 1))

        mean, low, high = ms.bootstrap_mean(values)
        np.testing.assert_allclose(ms.bootstrap_mean(-values), [-mean, -high, -low], rtol=1e-9)

    def test_a_statistic_has_the_same_interval_whatever_stands_beside_it(self) -> None:
        values = normal(30, 4)
        values[:7, 2] = np.nan

        together = np.array(ms.bootstrap_mean(values))
        alone = np.hstack([np.array(ms.bootstrap_mean(values[:, [j]])) for j in range(4)])

        np.testing.assert_allclose(together, alone, rtol=1e-10)

    def test_undefined_values_are_as_if_their_rows_did_not_exist(self) -> None:
        values = normal(30, 1)
        holes = np.vstack([values, np.full((9, 1), np.nan)])

        np.testing.assert_allclose(ms.bootstrap_mean(values), ms.bootstrap_mean(holes), rtol=1e-10)

    @pytest.mark.parametrize("clusters", [None, ["same"] * 4])
    def test_one_cluster_has_a_mean_but_no_interval(self, clusters: list[str] | None) -> None:
        values = np.array([[2.0], [np.nan], [np.nan], [np.nan]]) if clusters is None else np.full((4, 1), 2.0)

        mean, low, high = ms.bootstrap_mean(values, clusters)

        assert mean[0] == 2.0
        assert np.isnan([low[0], high[0]]).all()

    def test_a_statistic_that_is_never_defined_is_nan_and_harms_no_other(self) -> None:
        values = np.hstack([np.full((9, 1), np.nan), normal(9, 1)])

        result = np.array(ms.bootstrap_mean(values))

        assert np.isnan(result[:, 0]).all()
        assert np.isfinite(result[:, 1]).all()

    def test_a_dead_head_has_the_interval_from_zero_to_zero(self) -> None:
        assert [end.tolist() for end in ms.bootstrap_mean(np.zeros((9, 1)))] == [[0.0], [0.0], [0.0]]

    def test_infinite_values_and_missing_labels_are_refused(self) -> None:
        with pytest.raises(ValueError, match="1 values are infinite"):
            ms.bootstrap_mean(np.array([[1.0], [np.inf]]))
        with pytest.raises(ValueError, match="3 cluster labels for 2 rows"):
            ms.bootstrap_mean(np.ones((2, 1)), ["a", "b", "c"])

    def test_float32_values_are_summed_in_double_precision(self) -> None:
        mean, _, _ = ms.bootstrap_mean(np.full((10_000, 1), 0.1, dtype=np.float32), n_resamples=10)

        assert mean[0] == pytest.approx(np.float64(np.float32(0.1)), rel=1e-12)


class TestBootstrapRatio:
    def test_a_constant_share_is_known_exactly(self) -> None:
        effect = np.random.default_rng(0).uniform(1, 2, size=(20, 2))

        np.testing.assert_allclose(ms.bootstrap_ratio(0.3 * effect, effect), np.full((3, 2), 0.3), rtol=1e-12)

    def test_over_ones_it_is_the_mean(self) -> None:
        values = normal(20, 3)

        np.testing.assert_allclose(ms.bootstrap_ratio(values, np.ones_like(values)), ms.bootstrap_mean(values))

    def test_it_covers_the_true_share(self) -> None:
        rng = np.random.default_rng(4)
        effect = rng.normal(2, 1, size=(50, 500))
        _, low, high = ms.bootstrap_ratio(0.4 * effect + 0.5 * rng.normal(size=effect.shape), effect, n_resamples=800)

        assert 0.90 <= ((low <= 0.4) & (high >= 0.4)).mean() <= 0.98

    def test_a_share_of_an_effect_that_may_be_zero_has_no_interval(self) -> None:
        effect = normal(40, 1)
        effect += 0.1 - effect.mean()
        clear = effect + 3

        ratio, low, high = ms.bootstrap_ratio(np.hstack([clear, clear]), np.hstack([effect, clear]))

        assert np.isfinite(ratio).all()
        assert np.isnan([low[0], high[0]]).all()
        assert np.isfinite([low[1], high[1]]).all()

    def test_rows_where_either_is_missing_are_left_out(self) -> None:
        top, bottom = normal(20, 1, mean=1), normal(20, 1, seed=1, mean=5)
        top[3], bottom[4] = np.nan, np.nan
        kept = [row for row in range(20) if row not in (3, 4)]

        np.testing.assert_allclose(ms.bootstrap_ratio(top, bottom), ms.bootstrap_ratio(top[kept], bottom[kept]))


class TestBootstrapMedian:
    @given(st.lists(st.tuples(st.integers(-5, 5), st.integers(0, 3)), min_size=1, max_size=12))
    def test_the_weighted_median_is_the_median_of_the_repeated_values(self, pairs: list[tuple[int, int]]) -> None:
        pairs = sorted([*pairs, (0, 1)])
        ranked, weights = np.array([float(v) for v, _ in pairs]), np.array([[float(w) for _, w in pairs]])

        assert _weighted_median(ranked, weights)[0] == np.median(np.repeat(ranked, weights[0].astype(int)))

    def test_it_covers_the_true_median(self) -> None:
        _, low, high = ms.bootstrap_median(np.random.default_rng(8).exponential(size=(41, 300)), n_resamples=500)

        assert 0.90 <= ((low <= np.log(2)) & (high >= np.log(2))).mean() <= 0.98

    def test_it_commutes_with_increasing_maps_up_to_the_midpoints(self) -> None:
        values = normal(31, 1)

        median, low, high = ms.bootstrap_median(values)

        np.testing.assert_allclose(ms.bootstrap_median(np.exp(values)), np.exp([median, low, high]), rtol=0.02)

    def test_undefined_values_and_single_clusters_are_treated_as_for_the_mean(self) -> None:
        values = np.array([[1.0, np.nan, 1.0], [3.0, np.nan, np.nan], [np.nan, np.nan, np.nan]])

        median, low, high = ms.bootstrap_median(values)

        np.testing.assert_array_equal(median, [2.0, np.nan, 1.0])
        np.testing.assert_array_equal(low, [1.0, np.nan, np.nan])
        np.testing.assert_array_equal(high, [3.0, np.nan, np.nan])


class TestSignFlip:
    @pytest.mark.parametrize("alternative", ["greater", "less", "two-sided"])
    def test_few_clusters_are_enumerated_exactly(self, alternative: ms.Alternative) -> None:
        values = normal(10, 3, mean=0.4)
        clusters = ["a", "a", "b", "c", "c", "c", "d", "e", "f", "f"]
        sums = np.stack([values[[i for i, c in enumerate(clusters) if c == name]].sum(0) for name in "abcdef"])
        every = np.array([np.array(signs) @ sums for signs in product([1, -1], repeat=6)])
        observed = sums.sum(axis=0)
        expected = {
            "greater": (every >= observed - 1e-9).mean(axis=0),
            "less": (every <= observed + 1e-9).mean(axis=0),
            "two-sided": (abs(every) >= abs(observed) - 1e-9).mean(axis=0),
        }

        np.testing.assert_array_equal(
            ms.sign_flip_test(values, clusters, alternative=alternative), expected[alternative]
        )

    def test_the_exact_p_is_scipys(self) -> None:
        values = normal(9, 1, mean=0.5)
        peer = stats.permutation_test((values[:, 0],), np.sum, permutation_type="samples", alternative="greater")

        assert ms.sign_flip_test(values, alternative="greater")[0] == pytest.approx(peer.pvalue)

    def test_draws_approach_the_exact_p(self) -> None:
        values = normal(12, 2, mean=0.3)

        drawn = ms.sign_flip_test(values, n_resamples=4000)
        exact = ms.sign_flip_test(values, n_resamples=5000)

        assert not np.array_equal(drawn, exact)
        np.testing.assert_allclose(drawn, exact, atol=0.03)

    def test_a_drawn_p_is_never_zero(self) -> None:
        assert ms.sign_flip_test(np.ones((60, 1)), alternative="greater", n_resamples=999)[0] == 1 / 1000

    def test_p_is_uniform_where_there_is_no_effect(self) -> None:
        p = ms.sign_flip_test(normal(30, 1500, seed=3), n_resamples=999)

        assert stats.kstest(p, "uniform").pvalue > 0.01
        assert (p <= 0.05).mean() == pytest.approx(0.05, abs=0.02)

    def test_copies_within_a_cluster_are_no_evidence(self) -> None:
        values = normal(8, 1, mean=0.5)

        copied = ms.sign_flip_test(np.repeat(values, 5, axis=0), np.repeat(np.arange(8), 5))

        assert copied == ms.sign_flip_test(values)
        assert ms.sign_flip_test(np.repeat(values, 5, axis=0))[0] < copied[0]

    def test_it_knows_nothing_of_units(self) -> None:
        values = normal(40, 3, mean=0.2)

        np.testing.assert_array_equal(ms.sign_flip_test(values), ms.sign_flip_test(1e-6 * values))

    def test_less_is_greater_in_the_mirror(self) -> None:
        values = normal(40, 3, mean=0.2)

        np.testing.assert_array_equal(
            ms.sign_flip_test(values, alternative="less"), ms.sign_flip_test(-values, alternative="greater")
        )

    def test_undefined_values_are_as_if_their_rows_did_not_exist(self) -> None:
        values = normal(30, 2, mean=0.3)
        values[5:, 0] = np.nan

        p = ms.sign_flip_test(values)

        assert p[0] == ms.sign_flip_test(values[:5, [0]])[0]
        assert p[1] == ms.sign_flip_test(values[:, [1]])[0]
        assert np.isnan(ms.sign_flip_test(np.full((4, 1), np.nan))[0])

    def test_a_dead_head_is_no_finding(self) -> None:
        assert ms.sign_flip_test(np.zeros((40, 1)))[0] == 1.0


class TestMaxSignFlip:
    def test_one_statistic_needs_no_correction(self) -> None:
        values = normal(10, 1, mean=0.5)

        assert ms.max_sign_flip_test(values) == ms.sign_flip_test(values)

    def test_copies_of_a_statistic_cost_nothing_and_holm_would_charge_for_them(self) -> None:
        values = normal(10, 1, mean=0.7)

        copies = ms.max_sign_flip_test(np.repeat(values, 20, axis=1))

        np.testing.assert_array_equal(copies, np.repeat(ms.sign_flip_test(values), 20))
        assert (ms.holm(ms.sign_flip_test(np.repeat(values, 20, axis=1))) > copies).all()

    def test_any_false_finding_is_as_rare_as_promised(self) -> None:
        least = [ms.max_sign_flip_test(normal(25, 10, seed=s), n_resamples=299, seed=s).min() for s in range(300)]

        assert np.mean(np.array(least) <= 0.05) == pytest.approx(0.05, abs=0.035)

    def test_it_finds_the_one_head_with_an_effect(self) -> None:
        values = normal(40, 30, seed=1)
        values[:, 4] += 1.0

        assert np.flatnonzero(ms.max_sign_flip_test(values) <= 0.05).tolist() == [4]

    def test_nan_and_dead_statistics_are_left_alone(self) -> None:
        values = np.hstack([np.full((8, 1), np.nan), np.zeros((8, 1)), normal(8, 1, mean=1)])

        p = ms.max_sign_flip_test(values)

        assert np.isnan(p[0])
        assert p[1] == 1.0
        assert np.isnan(ms.max_sign_flip_test(values[:, :1])).all()


class TestLabelPermutation:
    def test_separated_groups_have_the_smallest_p_there_is(self) -> None:
        assert ms.label_permutation_test([4, 5, 6, 7], [0, 1, 2, 3]) == pytest.approx(2 / 70)

    def test_p_is_uniform_where_labels_mean_nothing(self) -> None:
        p = [
            ms.label_permutation_test(normal(15, seed=s), normal(12, seed=s + 1000), n_resamples=199, seed=s)
            for s in range(200)
        ]

        assert stats.kstest(p, "uniform").pvalue > 0.01

    def test_too_few_values_give_nan(self) -> None:
        assert np.isnan(ms.label_permutation_test([1.0, float("nan")], [1.0, 2.0]))


class TestCorrections:
    @pytest.mark.parametrize("correct", [ms.holm, ms.benjamini_yekutieli])
    @settings(max_examples=10)  # statsmodels collects garbage in every call of Holm
    @given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
    def test_a_correction_keeps_the_order_and_never_helps(self, correct, p: list[float]) -> None:
        raw = np.sort(p)
        corrected = correct(raw)

        assert (np.diff(corrected) >= -1e-12).all()
        assert (corrected >= raw - 1e-12).all()
        assert (corrected <= 1).all()

    @settings(max_examples=10)  # statsmodels collects garbage in every call of Holm
    @given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
    def test_holm_is_its_formula(self, p: list[float]) -> None:
        raw = np.sort(p)

        expected = np.minimum(1, np.maximum.accumulate(raw * np.arange(len(raw), 0, -1)))

        np.testing.assert_allclose(ms.holm(raw), expected, atol=1e-12)

    @pytest.mark.parametrize("correct", [ms.holm, ms.benjamini_yekutieli])
    def test_tests_not_made_are_not_counted(self, correct) -> None:
        assert np.array_equal(
            correct(np.array([np.nan, 0.01, np.nan, 0.2])),
            np.insert(correct(np.array([0.01, 0.2])), [0, 1], np.nan),
            equal_nan=True,
        )
        assert np.isnan(correct(np.array([np.nan, np.nan]))).all()


class TestEstimate:
    def test_it_gathers_the_parts(self) -> None:
        values = normal(20, mean=1)

        estimate = ms.estimate_mean(values, alternative="greater")

        assert estimate.value == pytest.approx(values.mean())
        assert estimate.low < estimate.value < estimate.high
        assert estimate.p == ms.sign_flip_test(values[:, None], alternative="greater")[0]
        assert ms.estimate_mean(values).p is None

    @given(st.integers(0, 50), st.integers(0, 50))
    def test_wilson_holds_the_share_within_zero_and_one(self, k: int, more: int) -> None:
        n = k + more
        low, high = ms.wilson(k, n)

        assert np.isnan([low, high]).all() if n == 0 else 0 <= low <= k / n <= high <= 1

    def test_wilson_of_ten_in_twenty_is_the_textbook_value(self) -> None:
        assert ms.wilson(10, 20) == pytest.approx((0.2993, 0.7007), abs=1e-4)
