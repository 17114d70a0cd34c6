import pytest
import torch
from torch import Tensor

from mechint import interventions
from mechint.errors import ConfigError, SiteError
from mechint.positions import everywhere, prompt
from mechint.vectors.estimators.gradient import elicit
from tests.families import FAMILIES, tiny
from tests.vectors.planted import cosine

TEXTS = ["w5 w6 w7 w8", "w9 w4 w30"]
START, END = "L0.resid_post", "L2.resid_post"


def change(family: str, vector: Tensor) -> float:
    """The objective, through `Model.run` instead of through autograd."""
    model, total = tiny(family), 0.0
    write = {START: interventions.add(vector, where=everywhere - prompt(0))}
    for text in TEXTS:
        rows = [model.tokenize(text)]
        before, after = model.run(rows, read=[END])[END], model.run(rows, read=[END], write=write)[END]
        total += float(((after - before)[0, 1:] ** 2).sum(-1).mean()) / len(TEXTS)
    return total


@pytest.mark.parametrize("family", FAMILIES)
def test_the_change_is_what_the_model_shows_and_more_than_random_ones_make(family: str) -> None:
    vector = elicit(tiny(family), TEXTS, START, END, dose=0.1, steps=15)
    step = vector.step(START, 0.1)
    random = [torch.randn(32, generator=torch.Generator().manual_seed(seed)) for seed in range(10)]

    assert torch.allclose(step, vector[START], atol=1e-6)
    assert vector.provenance["change"][-1] == pytest.approx(change(family, step), rel=1e-3)
    assert change(family, step) > 1.5 * max(change(family, r * step.norm() / r.norm()) for r in random)


def test_a_small_vector_ends_at_the_top_singular_vector_of_the_jacobian() -> None:
    model = tiny("gpt2")
    size = 1e-2 * 4
    columns: list[Tensor] = []
    for axis in range(32):
        unit = size * torch.eye(32)[axis]
        sides = []
        for sign in (1.0, -1.0):
            write = {START: interventions.add(sign * unit, where=everywhere - prompt(0))}
            moved = [model.run([model.tokenize(text)], read=[END], write=write)[END][0, 1:] for text in TEXTS]
            sides.append(torch.cat([(h / len(h) ** 0.5).flatten() for h in moved]))
        columns.append((sides[0] - sides[1]) / (2 * size))
    top = torch.linalg.svd(torch.stack(columns, 1).double())[2][0]
    found = elicit(model, TEXTS, START, END, dose=1e-3, steps=200)[START]

    assert abs(cosine(found, top)) > 0.99


def test_the_change_grows_at_every_step() -> None:
    history = elicit(tiny("gemma3"), TEXTS, START, END, dose=0.5, steps=15).provenance["change"]

    assert len(history) > 2
    assert history == sorted(history)


def test_it_leaves_the_model_as_it_was() -> None:
    model = tiny("llama")
    before = model.all_logits([[0, 5, 6]])
    elicit(model, TEXTS, START, END, steps=2)

    assert torch.equal(model.all_logits([[0, 5, 6]]), before)


def test_sites_in_the_wrong_order_and_doses_that_are_none_are_refused() -> None:
    with pytest.raises(SiteError, match="of a later one"):
        elicit(tiny("gpt2"), TEXTS, END, START)
    with pytest.raises(SiteError, match="Expected resid_post"):
        elicit(tiny("gpt2"), TEXTS, "L0.mlp_out", END)
    with pytest.raises(ConfigError, match="positive dose"):
        elicit(tiny("gpt2"), TEXTS, START, END, dose=0.0)
    with pytest.raises(ConfigError, match="one token only"):
        elicit(tiny("gpt2"), ["<bos>"], START, END)
