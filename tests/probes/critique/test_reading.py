from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from mechint.capture.activations import Activations
from mechint.errors import InterventionError, PromptError, SiteError
from mechint.probes.critique.reading import Signal, choose_layer, layer_map, probing, read, transfer
from mechint.probes.critique.recording import record_twins
from mechint.probes.critique.scores import out_of_fold
from mechint.statistics import Estimate
from mechint.vectors.auroc import auroc
from mechint.vectors.fit import fit
from mechint.vectors.samples import Samples
from tests.families import tiny
from tests.probes.critique.toy import SITES, WIDTH, recorded, tied, token_twins
from tests.vectors.planted import direction

EMBED, EARLY, LATE = SITES
FEW = {"shuffles": 2, "n_resamples": 300}
NOTHING = torch.zeros(WIDTH)


def data(late: float, seed: int, n: int = 80, early: float = 0.0) -> Activations:
    deltas = {EMBED: NOTHING, EARLY: direction(WIDTH, early, 2) if early else NOTHING, LATE: NOTHING}
    return recorded(n, deltas | ({LATE: direction(WIDTH, late)} if late else {}), seed=seed)


@pytest.fixture(scope="module")
def planted() -> tuple[Activations, Activations]:
    return data(3.0, 1, early=0.7), data(3.0, 2, early=0.7)


def test_a_planted_direction_is_found_at_its_site(planted: tuple[Activations, Activations]) -> None:
    found = read(*planted, **FEW)
    row = found.layers.set_index("site")

    assert found.signal.found
    assert found.signal.site == str(LATE)
    assert found.signal.sentence.startswith("Signal: wrong results are told from true ones at L1.resid_post (result)")
    assert row.loc[str(LATE), "auroc"] > 0.95
    assert row.loc[str(EMBED), "low"] < 0.5 < row.loc[str(EMBED), "high"]
    assert auroc(found.test_scores, np.repeat([1, 0], 80)) == found.signal.auroc.value


def test_nothing_is_found_where_nothing_is_planted() -> None:
    found = read(data(0.0, 1), data(0.0, 2), **FEW)

    assert not found.signal.found
    assert found.signal.sentence.startswith("No signal at")
    assert (found.layers["p_holm"] >= found.layers["p"]).all()


def test_pairs_that_are_tied_are_exactly_at_chance(planted: tuple[Activations, Activations]) -> None:
    found = read(*map(tied, planted), **FEW)

    assert found.layers["cv_auroc"].tolist() == [0.5] * 3
    assert found.layers[["auroc", "low", "high"]].to_numpy().tolist() == [[0.5] * 3] * 3
    assert found.layers["p"].tolist() == [1.0] * 3


@pytest.mark.parametrize("family", ["gemma3", "gpt2"])
@pytest.mark.parametrize("at", ["stub", "stub_last"])
def test_the_embedding_of_the_stub_is_exactly_at_chance(family: str, at) -> None:
    train, test = (record_twins(tiny(family), token_twins(24, seed=k), SITES, at) for k in (1, 2))
    row = read(train, test, **FEW).layers.set_index("site").loc["embed"]

    assert row[["cv_auroc", "auroc", "low", "high", "p"]].tolist() == [0.5, 0.5, 0.5, 0.5, 1.0]


def test_the_layer_is_chosen_without_the_test(planted: tuple[Activations, Activations]) -> None:
    train, test = planted
    # In these test data the late site says nothing, and the early one everything.
    turned = data(0.0, 2, early=9.0)
    one, other = (read(train, given, **FEW) for given in (test, turned))

    assert other.layers.set_index("site").loc[str(EARLY), "auroc"] > 0.75
    assert one.signal.site == other.signal.site == str(LATE)
    for column in ("cv_auroc", "shuffled", "shuffled_sd", "chosen"):
        assert one.layers[column].tolist() == other.layers[column].tolist()
    assert not other.signal.found


def test_the_embedding_is_no_candidate(planted: tuple[Activations, Activations]) -> None:
    train = replace(planted[0], values={EMBED: planted[0][LATE], EARLY: planted[0][EARLY]})
    layers = layer_map(train, shuffles=0)

    assert layers["cv_auroc"].idxmax() == 0
    assert choose_layer(layers) == EARLY
    with pytest.raises(SiteError, match="Record blocks"):
        choose_layer(layers[:1])


def test_exchanged_labels_come_to_chance_at_every_site(planted: tuple[Activations, Activations]) -> None:
    layers = layer_map(planted[0], shuffles=20)

    assert layers["shuffled"].to_numpy() == pytest.approx(0.5, abs=0.04)
    assert layers["cv_auroc"].max() > 0.95


def test_blocks_are_kept_whole_wherever_labels_are_learnt(planted: tuple[Activations, Activations]) -> None:
    train, test = planted
    one_block = dict.fromkeys(train.groups, "all")
    with pytest.raises(PromptError, match="1 problems \\(or blocks"):
        read(train, test, blocks=one_block, **FEW)
    each_its_own = dict(zip(train.groups, train.groups, strict=True))
    one, other = (read(train, test, blocks=blocks, **FEW).layers for blocks in (None, each_its_own))
    pd.testing.assert_frame_equal(one, other)


def test_twins_in_two_folds_would_be_seen() -> None:
    """A probe that has seen one twin calls its double by the opposite name; in folds of problems it cannot."""
    samples = Samples.of(recorded(60, {LATE: torch.zeros(200)}, common=10.0, noise=0.1), LATE)
    rows = replace(samples, groups=np.arange(len(samples)))
    by_problem, by_row = (out_of_fold(one, probing(one))[0] for one in (samples, rows))

    assert by_problem == pytest.approx(0.5, abs=0.12)
    assert by_row < 0.3


def estimate(low: float, p: float) -> Estimate:
    return Estimate(0.8, low, 0.9, p, 100)


def test_a_signal_needs_both_an_interval_above_the_bar_and_a_corrected_p() -> None:
    assert Signal("L1.z", "result", estimate(0.7, 0.01), 0.65, "length").found
    for low, p, reason in ((0.6, 0.01, "does not lie above length"), (0.7, 0.05, "p is not below .05")):
        signal = Signal("L1.z", "result", estimate(low, p), 0.65, "length")
        assert not signal.found
        assert reason in signal.sentence
        row = signal.to_frame().iloc[0]
        assert row[["low", "p", "bar", "found", "sentence"]].tolist() == [low, p, 0.65, False, signal.sentence]


def test_the_bar_is_the_best_of_chance_embedding_and_surface(planted: tuple[Activations, Activations]) -> None:
    table = pd.DataFrame({"baseline": ["length", "surprisal"], "surface": [True, False], "auroc": [0.999, 1.0]})
    found = read(*planted, table, **FEW)
    assert (found.signal.bar, found.signal.bar_name) == (0.999, "length")
    assert not found.signal.found

    copied = [replace(one, values={EMBED: one[LATE], EARLY: one[EARLY]}) for one in planted]
    found = read(copied[0], copied[1], **FEW)
    assert found.signal.bar_name == "the embedding"
    assert found.signal.bar == found.layers["auroc"].iloc[0]


def test_p_is_corrected_for_all_sites(planted: tuple[Activations, Activations]) -> None:
    layers = read(*planted, **FEW).layers

    assert layers["p"].min() == pytest.approx(1 / 301)
    assert layers["p_holm"].min() == pytest.approx(3 / 301)


def test_data_that_share_a_problem_or_are_of_two_models_are_refused(planted: tuple[Activations, Activations]) -> None:
    train, test = planted
    with pytest.raises(PromptError, match="80 groups are in both"):
        read(train, train, **FEW)
    with pytest.raises(InterventionError, match="other weights than the training data"):
        read(train, replace(test, model={"name": "other", "weights": "1"}), **FEW)
    with pytest.raises(SiteError, match="was not recorded"):
        read(train, replace(test, values={EARLY: test[EARLY]}), **FEW)
    with pytest.raises(PromptError, match="cannot be divided"):
        read(train.pick(train.ids[:1]), test, **FEW)


def test_a_vector_transfers_to_other_twins_and_noise_does_not(planted: tuple[Activations, Activations]) -> None:
    train, test = planted
    table = transfer(fit(train, sites=[LATE]), test, n_resamples=300)
    noise = transfer(fit(data(0.0, 3), sites=[LATE]), test, n_resamples=300)
    row = table.iloc[0]

    # Along the direction two N(±3/2, 1): d = 3, AUROC = Φ(3/√2) = .983; a fitted vector is a little off it.
    assert row["auroc"] == pytest.approx(0.98, abs=0.02)
    assert row["d_low"] < 3.0 < row["d_high"] + 0.3
    assert row["p_holm"] == pytest.approx(1 / 301)
    assert abs(noise["d"].iloc[0]) < row["d"]
    assert table.columns.tolist() == [
        "site", "layer", "auroc", "low", "high", "p", "n", "p_holm", "d", "d_low", "d_high", "n_groups",
    ]  # fmt: skip


def test_the_opposite_vector_is_as_bad_as_the_vector_is_good(planted: tuple[Activations, Activations]) -> None:
    vector = fit(planted[0], sites=[LATE])
    one, other = (transfer(v, planted[1], n_resamples=50).iloc[0] for v in (vector, -1 * vector))

    assert one["auroc"] + other["auroc"] == pytest.approx(1)
    assert one["d"] == pytest.approx(-other["d"])
    assert other["p"] == 1.0


def test_a_vector_is_not_tested_on_what_it_was_fitted_on(planted: tuple[Activations, Activations]) -> None:
    vector = fit(planted[0], sites=[LATE])
    with pytest.raises(PromptError, match="groups are in both"):
        transfer(vector, planted[0])
    with pytest.raises(InterventionError, match="other weights than the vector"):
        transfer(vector, replace(planted[1], model={"name": "other", "weights": "1"}))
