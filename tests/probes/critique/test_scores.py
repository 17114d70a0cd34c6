import numpy as np
import pytest

from mechint.errors import PromptError
from mechint.probes.critique.scores import blocks_of, cohens_d, out_of_fold, partial_auroc, project, scored
from mechint.vectors.auroc import auroc
from mechint.vectors.samples import Samples

N = 400
RNG = np.random.default_rng(0)
Y = np.repeat([1, 0], N)
PAIRS = np.tile(np.arange(N), 2)


def test_equal_rows_project_to_equal_numbers_wherever_they_stand() -> None:
    row, direction = RNG.standard_normal(640), RNG.standard_normal(640)
    for n in range(1, 40):
        assert len(set(project(np.tile(row, (n, 1)), direction))) == 1
    assert project(row[None], direction)[0] == pytest.approx(float(row @ direction))


def test_no_fold_cuts_a_problem_and_every_row_is_asked_once() -> None:
    groups = np.tile(np.arange(N) // 2, 2)  # two pairs a problem
    asked_of: list[int] = []

    def learn(fitted: np.ndarray, asked: np.ndarray) -> np.ndarray:
        assert not set(groups[fitted]) & set(groups[asked])
        assert not set(PAIRS[fitted]) & set(PAIRS[asked])
        asked_of.extend(asked.tolist())
        return np.zeros(len(asked))

    value, _ = out_of_fold(Samples(np.zeros((2 * N, 1)), Y, groups, PAIRS), learn)
    assert sorted(asked_of) == list(range(2 * N))
    assert value == 0.5


def test_no_fold_cuts_a_block_and_every_problem_needs_one() -> None:
    groups = np.tile(np.arange(N) // 2, 2)
    block_of = {str(group): str(group % 7) for group in range(N // 2)}
    blocks = blocks_of([str(group) for group in groups], block_of)
    assert blocks is not None

    def learn(fitted: np.ndarray, asked: np.ndarray) -> np.ndarray:
        assert not {group % 7 for group in groups[fitted]} & {group % 7 for group in groups[asked]}
        return np.zeros(len(asked))

    out_of_fold(Samples(np.zeros((2 * N, 1)), Y, groups, PAIRS), learn, blocks=blocks)
    assert blocks_of(["a"], None) is None
    with pytest.raises(PromptError, match=r"1 problems have no block \(first: 'b'\)"):
        blocks_of(["a", "b"], {"a": "0"})


def test_one_problem_is_no_two_folds() -> None:
    one = Samples(np.zeros((4, 1)), np.array([1, 1, 0, 0]), np.zeros(4, dtype=int), np.array([0, 1, 0, 1]))
    with pytest.raises(PromptError, match="4 rows of 1 problems"):
        out_of_fold(one, lambda fitted, asked: np.zeros(len(asked)))


def test_separated_scores_have_p_of_the_smallest_possible_and_ties_one_of_one() -> None:
    apart = scored(Y.astype(float), Y, PAIRS, n_resamples=199)
    tied = scored(np.zeros(2 * N), Y, PAIRS, n_resamples=199)

    assert (apart.value, apart.low, apart.high, apart.p) == (1.0, 1.0, 1.0, 1 / 200)
    assert (tied.value, tied.low, tied.high, tied.p) == (0.5, 0.5, 0.5, 1.0)


def test_p_of_scores_without_labels_is_uniform_enough() -> None:
    p = [
        scored(RNG.standard_normal(2 * 30), np.repeat([1, 0], 30), np.tile(np.arange(30), 2), n_resamples=99).p
        for _ in range(100)
    ]

    assert 0.3 < float(np.median(np.array(p, dtype=float))) < 0.7
    assert np.mean(np.array(p, dtype=float) < 0.05) <= 0.12


def covaried(own: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Scores that follow a covariate, which follows the labels, and the labels by themselves as much as `own`."""
    rng = np.random.default_rng(seed)
    covariate = 1.0 * Y + rng.standard_normal(2 * N)
    other = own * (Y - 0.5) + rng.standard_normal(2 * N)
    return 2.0 * covariate + other, covariate


def test_scores_that_follow_a_covariate_alone_tell_nothing_without_it() -> None:
    train, test = covaried(0.0, 1), covaried(0.0, 2)
    left = partial_auroc(test[0], Y, PAIRS, test[1], train_scores=train[0], train_covariate=train[1], n_resamples=200)

    assert auroc(test[0], Y) > 0.7
    assert left.value == pytest.approx(0.5, abs=0.06)
    assert left.low < 0.5 < left.high


def test_what_a_covariate_does_not_tell_is_left() -> None:
    train, test = covaried(2.0, 1), covaried(2.0, 2)
    train = (train[0][:700], train[1][:700])  # of another size
    left = partial_auroc(test[0], Y, PAIRS, test[1], train_scores=train[0], train_covariate=train[1], n_resamples=200)

    assert left.low > 0.7
    assert left.value < auroc(test[0], Y)


def test_a_covariate_that_does_not_vary_takes_nothing() -> None:
    scores = RNG.standard_normal(2 * N) + Y
    flat = np.full(2 * N, 3.0)
    left = partial_auroc(scores, Y, PAIRS, flat, train_scores=scores, train_covariate=flat, n_resamples=50)

    assert left.value == auroc(scores, Y)


def test_cohens_d_is_the_distance_in_standard_deviations_whatever_scale_and_place() -> None:
    scores = RNG.standard_normal(2 * N) + 0.8 * Y
    found, moved = (cohens_d(one, Y, PAIRS, n_resamples=500) for one in (scores, 1e4 + 7.0 * scores))
    first, second = scores[Y == 1], scores[Y == 0]
    by_hand = (first.mean() - second.mean()) / np.sqrt((first.var(ddof=1) + second.var(ddof=1)) / 2)

    assert found.value == pytest.approx(by_hand)
    assert found.low < 0.8 < found.high
    assert (moved.value, moved.low, moved.high) == pytest.approx((found.value, found.low, found.high), rel=1e-6)
    assert cohens_d(-scores, Y, PAIRS, n_resamples=10).value == pytest.approx(-by_hand)


def test_scores_that_do_not_vary_have_no_d() -> None:
    assert np.isnan(cohens_d(np.ones(2 * N), Y, PAIRS, n_resamples=10).value)


def test_rows_of_few_problems_have_wider_intervals_than_rows_of_many() -> None:
    few = np.tile(np.arange(N) // 40, 2)
    shared = np.random.default_rng(5).standard_normal(10)[few]
    scores = RNG.standard_normal(2 * N) + (2 * Y - 1) * shared
    clustered, single = (scored(scores, Y, groups, n_resamples=500) for groups in (few, PAIRS))

    assert clustered.high - clustered.low > 2 * (single.high - single.low)
