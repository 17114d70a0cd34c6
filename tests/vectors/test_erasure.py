import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from mechint.capture.activations import record
from mechint.capture.moments import RecordedMoments
from mechint.errors import InterventionError
from mechint.prompts import contrast
from mechint.vectors.erasure import fit_eraser
from mechint.vectors.samples import Samples
from tests.families import tiny
from tests.vectors.planted import SITE, activations, direction, planted

WIDTH = 24
MIX = torch.diag(torch.linspace(0.3, 3.0, WIDTH, dtype=torch.double))
DATA = planted(100, direction(WIDTH, 6.0), mix=MIX)


def loss_of_best_probe(x: np.ndarray, y: np.ndarray) -> float:
    """In nats, on the very data it is fitted on."""
    probe = LogisticRegression(C=1e6, max_iter=10_000).fit(x - x.mean(0), y)
    p = probe.predict_proba(x - x.mean(0))[np.arange(len(y)), y]
    return float(-np.log(np.maximum(p, 1e-12)).mean())


def test_after_erasure_the_best_linear_probe_is_a_constant() -> None:
    samples = Samples.of(DATA, SITE)
    erased = fit_eraser(DATA, SITE)(torch.from_numpy(samples.x)).numpy()

    assert loss_of_best_probe(samples.x, samples.y) < 0.05
    assert loss_of_best_probe(erased, samples.y) == pytest.approx(np.log(2), abs=1e-5)


def test_erasure_changes_less_than_projecting_the_mean_difference_out() -> None:
    x = torch.from_numpy(Samples.of(DATA, SITE).x)
    eraser = fit_eraser(DATA, SITE)
    unit = eraser.removed / eraser.removed.norm()
    centred = x - x.mean(0)
    projected = centred - (centred @ unit)[:, None] * unit
    whiten = torch.linalg.inv(torch.linalg.cholesky(torch.cov(x.T)))
    for metric in (torch.eye(WIDTH, dtype=torch.double), whiten):
        ours = (((eraser(x) - x) @ metric.T) ** 2).sum(1).mean()
        theirs = (((projected - centred) @ metric.T) ** 2).sum(1).mean()
        assert float(ours) < float(theirs)


def test_erasing_twice_is_erasing_once_and_the_mean_stays() -> None:
    x = torch.from_numpy(Samples.of(DATA, SITE).x)
    eraser = fit_eraser(DATA, SITE)

    assert torch.allclose(eraser(eraser(x)), eraser(x), atol=1e-9)
    assert torch.allclose(eraser(x).mean(0), x.mean(0), atol=1e-9)


def test_fewer_texts_than_dimensions_are_no_obstacle() -> None:
    data = planted(8, direction(WIDTH, 6.0))
    samples = Samples.of(data, SITE)
    erased = fit_eraser(data, SITE)(torch.from_numpy(samples.x))

    assert torch.allclose(erased[samples.y == 1].mean(0), erased[samples.y == 0].mean(0), atol=1e-6)


def test_moments_are_enough() -> None:
    assert torch.allclose(fit_eraser(RecordedMoments.of(DATA), SITE).read, fit_eraser(DATA, SITE).read)


def test_written_into_a_model_it_makes_the_means_one() -> None:
    model = tiny("gemma3")
    pairs = contrast([f"w5 w{i}" for i in range(6, 14)], [f"w5 w{i}" for i in range(20, 28)])
    eraser = fit_eraser(record(model, pairs, "L2.resid_post"), "L2.resid_post")
    rows = [model.tokenize(one.text) for one in (*pairs.positive, *pairs.negative)]
    plain = model.run(rows, read=["L2.resid_post"])["L2.resid_post"][:, -1]
    erased = model.run(rows, read=["L2.resid_post"], write={"L2.resid_post": eraser.intervention()})
    after = erased["L2.resid_post"][:, -1]

    assert float((plain[:8].mean(0) - plain[8:].mean(0)).norm()) > 0.1
    assert torch.allclose(after[:8].mean(0), after[8:].mean(0), atol=1e-4)


def test_what_does_not_differ_cannot_be_erased_and_another_width_is_refused() -> None:
    same = torch.randn(4, WIDTH, generator=torch.Generator().manual_seed(0))
    with pytest.raises(InterventionError, match="nothing to erase"):
        fit_eraser(activations(same, same), SITE)
    with pytest.raises(InterventionError, match="expected 24 numbers a token, got 3"):
        fit_eraser(DATA, SITE)(torch.zeros(2, 3))
