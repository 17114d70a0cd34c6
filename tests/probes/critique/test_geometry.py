from dataclasses import replace

import numpy as np
import pytest
import torch

from mechint.errors import InterventionError, PromptError
from mechint.probes.critique.geometry import (
    cosines,
    geometry,
    participation_ratio,
    sign_balanced,
    sign_balanced_vector,
    slope,
)
from mechint.probes.critique.recording import record_twins
from mechint.vectors.fit import fit
from mechint.vectors.samples import Samples
from tests.families import tiny
from tests.probes.critique.toy import SITES, WIDTH, recorded, tied, token_twins
from tests.vectors.planted import cosine, direction

SITE = SITES[2]
DELTA = direction(WIDTH, 4.0)


def test_a_planted_direction_has_its_length_and_both_halves_find_it() -> None:
    row = geometry(recorded(300, {SITE: DELTA})).iloc[0]

    # |v|² is |delta|² and noise of variance 2/n in each dimension; the median |h| of the toy is 20.
    assert row["length"] == pytest.approx(np.sqrt(16 + 12 * 2 / 300) / 20, abs=0.01)
    assert row["split_half"] > 0.95
    assert row["low"] <= row["split_half"] <= row["high"]
    assert row["cos_lda"] > 0.95  # the noise is the same in all directions


def test_noise_has_halves_that_do_not_agree() -> None:
    row = geometry(recorded(300, {SITE: torch.zeros(WIDTH)})).iloc[0]

    assert row["low"] < 0 < row["high"]
    assert abs(row["split_half"]) < 0.3


def test_pairs_of_one_problem_or_block_stay_in_one_half() -> None:
    """Differences that all pairs of a problem share and other problems do not: halves of problems see noise."""
    rng = np.random.default_rng(0)
    given = recorded(200, {SITE: torch.zeros(WIDTH)}, a_problem=50, noise=0.01)
    own = torch.from_numpy(rng.standard_normal((4, WIDTH))).float()[[i // 50 for i in range(200)]]
    values = torch.cat([given[SITE][:200, 0] + own, given[SITE][200:, 0]])[:, None]
    by_problem = replace(given, values={SITE: values})
    by_pair = replace(by_problem, groups=by_problem.ids)
    blocks = dict(zip(by_problem.ids, by_problem.groups, strict=True))

    assert geometry(by_problem)["split_half"].iloc[0] < 0.7
    assert geometry(by_pair)["split_half"].iloc[0] > 0.95
    assert geometry(by_pair, blocks=blocks)["split_half"].iloc[0] < 0.7


@pytest.mark.parametrize("n", [1, 3, 12])
def test_the_participation_ratio_counts_equal_dimensions_whatever_the_length(n: int) -> None:
    even = torch.cat([torch.ones(n), torch.zeros(WIDTH - n)])

    assert participation_ratio(even) == pytest.approx(n)
    assert participation_ratio(-7.0 * even) == pytest.approx(n)
    assert np.isnan(participation_ratio(torch.zeros(WIDTH)))


def test_a_massive_dimension_is_seen_in_the_activations_and_only_in_a_vector_that_follows_it() -> None:
    massive = torch.zeros(WIDTH)
    massive[3] = 1000.0
    plain, along = recorded(100, {SITE: DELTA}), recorded(100, {SITE: DELTA + massive})
    shifted = replace(plain, values={SITE: plain[SITE] + massive})
    rows = [geometry(one, halvings=2).iloc[0] for one in (plain, shifted, along)]

    assert rows[0]["activations_largest_share"] < 0.5
    assert rows[1]["activations_largest_share"] > 0.99
    assert rows[1]["largest_share"] == pytest.approx(rows[0]["largest_share"], abs=1e-3)
    assert rows[2]["largest_share"] > 0.99


def test_noise_of_another_size_in_one_direction_parts_the_discriminant_from_the_mean_difference() -> None:
    given = recorded(2000, {SITE: torch.ones(WIDTH)})
    loud = torch.ones(WIDTH)
    loud[0] = 20.0
    centred = given[SITE] - given[SITE].mean(0)
    stretched = replace(given, values={SITE: centred * loud})
    row = geometry(stretched, halvings=2).iloc[0]

    # v = (20, 1, …), Σ^(-1) v = (1/20, 1, …): cosine (1 + 11) / (√(400 + 11) √(1/400 + 11)) = .18.
    assert row["cos_lda"] == pytest.approx(12 / np.sqrt(411 * 11.0025), abs=0.05)


def test_twins_that_do_not_differ_have_no_direction() -> None:
    row = geometry(tied(recorded(20, {SITE: DELTA}))).iloc[0]

    assert row[["length", "participation", "largest_share", "split_half", "lda_split_half", "cos_lda"]].isna().all()
    assert row["activations_largest_share"] > 0


@pytest.mark.parametrize("family", ["gemma3", "gpt2"])
def test_the_embedding_of_the_stub_has_no_direction_and_the_blocks_have_one(family: str) -> None:
    table = geometry(record_twins(tiny(family), token_twins(), SITES, "stub"), halvings=3).set_index("site")

    assert np.isnan(table.loc["embed", "length"])
    assert (table.loc[[str(site) for site in SITES[1:]], "length"] > 0).all()


def test_vectors_are_compared_two_by_two_at_every_site() -> None:
    given = recorded(50, {SITES[1]: DELTA, SITE: DELTA})
    vector = fit(given, folds=0)
    table = cosines({"v": vector, "more": 3 * vector, "less": -1 * vector})

    assert table[["one", "other"]].drop_duplicates().to_numpy().tolist() == [
        ["v", "more"],
        ["v", "less"],
        ["more", "less"],
    ]
    assert table["cosine"].to_numpy() == pytest.approx([1, 1, -1, -1, -1, -1])
    with pytest.raises(InterventionError, match="has sites"):
        cosines({"v": vector, "one site": vector.at(SITE)})
    with pytest.raises(InterventionError, match="1 vectors"):
        cosines({"v": vector})


def test_the_slope_on_a_number_is_the_direction_along_which_true_rows_move_with_it() -> None:
    given = recorded(200, {SITE: DELTA})
    along = direction(WIDTH, 2.0, seed=9).float()
    z = np.tile(np.arange(200.0) % 10, 2)
    values = given[SITE] + torch.from_numpy(z).float()[:, None, None] * along
    found = slope(replace(given, values={SITE: values}), z.tolist(), "a larger number")

    assert found[SITE].numpy() == pytest.approx(along.numpy(), abs=0.1)
    assert found.norms == {SITE: 20.0}


def test_the_slope_on_a_label_is_the_mean_difference() -> None:
    given = recorded(40, {SITE: DELTA})
    # Of the true rows every second one is called 1.
    z = np.tile(np.arange(40) % 2, 2).astype(float)
    x = given[SITE][40:, 0].double()

    found = slope(given, z.tolist(), "odd")[SITE]
    assert found.numpy() == pytest.approx((x[1::2].mean(0) - x[::2].mean(0)).numpy(), abs=1e-5)


def test_wrong_rows_do_not_enter_a_slope() -> None:
    given = recorded(40, {SITE: DELTA})
    z = np.tile(np.arange(40.0), 2)
    other = z.copy()
    other[:40] = 7.0

    assert torch.equal(slope(given, z.tolist(), "x")[SITE], slope(given, other.tolist(), "x")[SITE])


def test_balancing_signs_takes_out_what_follows_the_sign() -> None:
    """Three quarters of the errors are too small, and a second direction tells by how much the number is off."""
    n, by_sign = 400, direction(WIDTH, 6.0, seed=9)
    given = recorded(n, {SITE: DELTA}, noise=0.1)
    deltas = np.where(np.arange(n) % 4 == 0, 3.0, -3.0)
    values = given[SITE].double()[:, 0]
    values[:n] += torch.from_numpy(np.sign(deltas))[:, None] * by_sign
    skewed = replace(given, values={SITE: values.float()[:, None]})
    plain = fit(skewed, folds=0)[SITE]
    balanced = sign_balanced_vector(skewed, dict(zip(given.ids[:n], deltas, strict=True)), "wrong")[SITE]

    assert plain.numpy() == pytest.approx((DELTA - by_sign / 2).float().numpy(), abs=0.05)
    assert balanced.numpy() == pytest.approx(DELTA.float().numpy(), abs=0.05)
    assert cosine(plain, balanced) < 0.95


def test_with_as_many_of_both_signs_balancing_changes_nothing_whatever_the_order_of_the_rows() -> None:
    samples = Samples.of(recorded(20, {SITE: DELTA}), SITE)
    deltas = np.where(samples.pairs % 2 == 0, 1.0, -5.0)
    mean = samples.positive.mean(0) - samples.negative.mean(0)
    order = np.random.default_rng(0).permutation(40)

    assert torch.allclose(sign_balanced(samples, deltas), mean)
    assert torch.allclose(sign_balanced(samples.pick(order), deltas[order]), mean)


def test_what_cannot_be_balanced_sloped_or_halved_is_refused() -> None:
    given = recorded(4, {SITE: DELTA})
    samples = Samples.of(given, SITE)
    with pytest.raises(PromptError, match="3 deltas of 8"):
        sign_balanced(samples, np.ones(3))
    with pytest.raises(PromptError, match="4 deltas are above 0 and 0 below"):
        sign_balanced(samples, np.ones(8))
    with pytest.raises(PromptError, match="1 below, of 4"):
        sign_balanced(samples, np.tile([1.0, 1.0, 0.0, -1.0], 2))
    with pytest.raises(PromptError, match="different deltas"):
        sign_balanced(samples, np.array([1.0, -1, 1, 1, 1, 1, 1, 1]))
    with pytest.raises(PromptError, match="4 pairs have no delta"):
        sign_balanced_vector(given, {}, "x")
    with pytest.raises(PromptError, match="2 numbers of 8"):
        slope(given, [1.0, 2.0], "x")
    with pytest.raises(PromptError, match="between 3 and 3"):
        slope(given, [3.0] * 8, "x")
    with pytest.raises(PromptError, match="cannot be halved"):
        geometry(given.pick(given.ids[:1]))
