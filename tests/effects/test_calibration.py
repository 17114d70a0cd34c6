"""Calibration metrics do what their definitions say, and every head's sums are those of dense logits."""

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

from mechint.effects import attribution
from mechint.effects.calibration import (
    BINNED,
    BINNED_FIRST,
    CLEAN,
    CONTROL,
    DIFFERENCE,
    HEAD,
    MARGINAL,
    bin_index,
    calibration_sums,
    expected_calibration_error,
    overconfidence,
)
from mechint.effects.documents import Documents
from mechint.effects.head_outputs import mean_outputs
from mechint.effects.sampling import destinations
from mechint.model.base import Model
from mechint.positions import everywhere
from mechint.sites import Site
from mechint.statistics import generator
from tests.families import FAMILIES, VOCAB, random_rows, tiny

LAYER, LENGTH = 1, 8
DOCUMENTS = Documents(tuple("abcd"), tuple("abcd"), torch.tensor(random_rows(4, LENGTH)))


def drawn(truth_given_p: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Bins of 400,000 predictions, whose truth is drawn with the probability that is given as a formula in p."""
    rng = generator(0, "predictions")
    p = rng.random(400_000)
    true = rng.random(len(p)) < {"p": p, "half": 0.5 + 0 * p, "between": 0.5 + 2 * (p - 0.5)}[truth_given_p]
    where = bin_index(p, 20)
    return tuple(np.bincount(where, weights=w, minlength=20) for w in (np.ones_like(p), true, p))  # type: ignore[return-value]


def test_calibrated_predictions_have_neither_overconfidence_nor_calibration_error() -> None:
    n, correct, confidence = drawn("p")

    assert overconfidence(n, correct) == pytest.approx(0, abs=0.01)
    assert expected_calibration_error(n, correct, confidence) == pytest.approx(0, abs=0.005)


def test_predictions_that_are_half_right_whatever_they_claim_are_overconfident_by_exactly_one() -> None:
    n = np.array([4.0, 2, 8, 6, 10])

    assert overconfidence(n, n / 2) == pytest.approx(1, abs=1e-15)
    # |1/2 - p| of bins with middles .1 .3 .5 .7 .9
    error = expected_calibration_error(n, n / 2, n * np.array([0.1, 0.3, 0.5, 0.7, 0.9]))
    assert error == pytest.approx((4 * 0.4 + 2 * 0.2 + 6 * 0.2 + 10 * 0.4) / 30)


def test_predictions_that_are_surer_than_they_claim_are_underconfident() -> None:
    n, correct, _ = drawn("between")

    assert overconfidence(n, correct) < -0.3


def test_a_certain_prediction_belongs_to_the_last_bin() -> None:
    assert bin_index(np.array([0.0, 0.01, 0.5, 1.0]), 100).tolist() == [0, 1, 50, 99]


def test_empty_bins_are_left_out_and_no_bins_tell_nothing() -> None:
    n, correct = np.array([0.0, 4, 0, 4]), np.array([0.0, 2, 0, 2])

    assert overconfidence(n, correct) == pytest.approx(1)
    assert np.isnan(overconfidence(0 * n, 0 * n))
    assert np.isnan(overconfidence(np.array([0.0, 5, 0]), np.array([0.0, 1, 0])))  # the bin at one half
    assert np.isnan(expected_calibration_error(0 * n, 0 * n, 0 * n))


def test_many_tables_at_once_are_each_by_itself() -> None:
    rng = generator(0, "tables")
    n = rng.integers(0, 9, (6, 4)).astype(float)
    correct = np.floor(n * rng.random((6, 4)))

    assert overconfidence(n, correct).tolist() == [float(overconfidence(a, b)) for a, b in zip(n, correct, strict=True)]


def log_p(model: Model, normalised: Tensor) -> Tensor:
    everything = torch.arange(VOCAB)
    logits = normalised @ model.unembedding(everything).double().T + model.output_bias(everything).double()
    cap = model.facts.logit_cap
    return (logits if cap is None else cap * torch.tanh(logits / cap)).log_softmax(-1)


def entropy(log_probabilities: Tensor) -> Tensor:
    return -(log_probabilities.exp() * log_probabilities).sum(-1)


def dense(model: Model, head: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Log-probabilities of every position in float64: clean, without the head, of the lens, of the lens with it."""
    terms = attribution.contributions(model, DOCUMENTS.tokens.tolist(), everywhere)
    away = terms.heads[LAYER, :, :, head] - terms.heads[LAYER, :, :, head].mean(0)
    site = Site("resid_pre", LAYER)
    before = model.run(DOCUMENTS.tokens.tolist(), read=[site])[site]
    final = attribution.final_norm(model)

    def through(stream: Tensor) -> Tensor:
        scale = final.scale(terms.resid_final.double())
        normalised = final.centre(stream.double()) / scale * final.gain.double()
        return normalised if final.bias is None else normalised + final.bias.double()

    streams = (terms.resid_final, terms.resid_final - away, before, before + away)
    return tuple(log_p(model, through(stream)) for stream in streams)  # type: ignore[return-value]


def sums(model: Model, documents: Documents = DOCUMENTS, **given: object) -> pd.DataFrame:
    means = mean_outputs(model, DOCUMENTS)[LAYER]
    at = destinations(documents, None, 0)
    return calibration_sums(model, documents, LAYER, means, at, **given)  # type: ignore[arg-type]


@pytest.mark.parametrize("family", FAMILIES)
def test_entropy_changes_of_every_head_equal_those_of_dense_logits(family: str) -> None:
    model = tiny(family)

    found = sums(model).set_index(["counted", "output", "head", "id"]).sort_index()["total"]

    for head in range(4):
        clean, removed, lens, added = dense(model, head)
        for name, change in (
            (MARGINAL, entropy(clean) - entropy(removed)),
            (DIFFERENCE, entropy(added) - entropy(lens)),
        ):
            expected = change[:, 1:-1].sum(1)
            got = torch.tensor(found.loc[name, HEAD, head].to_numpy())
            torch.testing.assert_close(got, expected, rtol=1e-3, atol=3e-5)


@pytest.mark.parametrize("family", ["gpt2", "neox", "gemma2", "gemma3"])
def test_binned_predictions_of_every_head_are_those_of_dense_logits(family: str) -> None:
    model = tiny(family)

    found = sums(model, n_bins=10, n_bins_first=5).groupby(["counted", "output", "head", "bin"])[["n", "correct"]].sum()

    truth = DOCUMENTS.tokens[:, 2:]
    for output, head in ((CLEAN, -1), *((HEAD, h) for h in range(4))):
        table = dense(model, max(head, 0))[0 if output == CLEAN else 1][:, 1:-1].exp()
        for counted, top, bins in ((BINNED, 3, 10), (BINNED_FIRST, 1, 5)):
            p, tokens = table.topk(top)
            where, right = (p * bins).long().clamp(max=bins - 1), tokens == truth[..., None]
            mine = found.loc[counted, output, head]
            expected = {
                b: (int((where == b).sum()), int(right[where == b].sum())) for b in range(bins) if (where == b).any()
            }
            assert {b: (int(n), int(c)) for b, n, c in mine.itertuples()} == expected


@pytest.mark.parametrize("family", FAMILIES)
def test_a_head_that_always_writes_its_mean_changes_nothing(family: str) -> None:
    model, alone = tiny(family), DOCUMENTS.pick([0])
    own = mean_outputs(model, alone)[LAYER]

    found = calibration_sums(model, alone, LAYER, own, destinations(alone, None, 0))

    changes = found[found["counted"].isin([MARGINAL, DIFFERENCE])]
    assert changes["total"].abs().max() < 1e-4
    binned = found[found["bin"] >= 0].set_index(["counted", "output", "head", "bin"]).sort_index()[["n", "correct"]]
    for counted in (BINNED, BINNED_FIRST):
        for head in range(4):
            pd.testing.assert_frame_equal(binned.loc[counted, HEAD, head], binned.loc[counted, CLEAN, -1])


def test_each_position_gives_its_predictions_once() -> None:
    found = sums(tiny("llama"))

    n = found.groupby(["counted", "output", "head", "id"])["n"].sum().reset_index()
    per_position = {BINNED: 3, BINNED_FIRST: 1, MARGINAL: 1, DIFFERENCE: 1}
    assert (n["n"] == n["counted"].map(per_position) * (LENGTH - 2)).all()


def test_what_a_document_gives_does_not_depend_on_its_company() -> None:
    model = tiny("gemma3")

    together, alone = sums(model), sums(model, DOCUMENTS.pick([2]))

    keys = ["counted", "output", "head", "bin"]
    mine = together[together["id"] == "c"].sort_values(keys).reset_index(drop=True)
    pd.testing.assert_frame_equal(mine, alone.sort_values(keys).reset_index(drop=True), rtol=1e-3, atol=1e-5)


def test_the_control_moves_the_predictions_as_a_random_direction_does_and_not_as_the_head() -> None:
    found = sums(tiny("llama")).set_index(["counted", "output", "head", "id"]).sort_index()["total"]

    head, control = found.loc[MARGINAL, HEAD], found.loc[MARGINAL, CONTROL]
    assert (control != 0).all()
    assert not np.allclose(head, control)
    again = sums(tiny("llama"), seed=1).set_index(["counted", "output", "head", "id"]).sort_index()["total"]
    assert np.array_equal(again.loc[MARGINAL, HEAD], head)
    assert not np.allclose(again.loc[MARGINAL, CONTROL], control)
