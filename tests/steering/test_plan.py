"""Plans: algebra, conflicts, what was meant and never happened, and the rehearsal."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mechint.errors import InterventionError, NeverFiredError, SiteError
from mechint.model.base import Logits
from mechint.model.transformer_lens import TransformerLensModel
from mechint.positions import TokenBatch, after, everywhere, generated, prompt, tokens
from mechint.sites import Site
from mechint.steering.generation import generate
from mechint.steering.parts import ablate, add, clamp, project_out, replace
from mechint.steering.plan import Plan
from mechint.vectors.dose import Calibration
from tests.families import random_rows, tiny
from tests.steering.few import FAMILIES, NO_END, PROMPTS, SITE, vector

ROWS = random_rows(2, 9)


def read(plan: Plan, family: str = "gemma3", site: Site = SITE) -> tuple[torch.Tensor, torch.Tensor]:
    """The activation at a site without and with a plan."""
    model = tiny(family)
    clean = model.run(ROWS, read=[site])[site]
    with model.apply(plan):
        return clean, model.run(ROWS, read=[site])[site]


@pytest.mark.parametrize("family", FAMILIES)
def test_dose_one_is_as_long_as_the_median_activation(family: str) -> None:
    clean, steered = read(add(vector(norm=3.0), 1.0), family)

    torch.testing.assert_close((steered - clean).norm(dim=-1), torch.full((2, 9), 3.0), rtol=1e-4, atol=0)
    torch.testing.assert_close(steered - clean, 3 * vector().unit(SITE).expand_as(clean), rtol=1e-4, atol=1e-4)


def test_units_of_dose_say_what_they_mean() -> None:
    calibrated = vector().with_calibration(Calibration("kl", 0.5, dose=0.25, low=0.2, high=0.3))
    lengths = {
        "norm": 2.0,
        "raw": float(vector().directions[SITE].norm()),
        "calibrated": 0.25 * 2.0,
    }
    for unit, length in lengths.items():
        clean, steered = read(add(calibrated, 1.0, unit=unit))
        torch.testing.assert_close((steered - clean).norm(dim=-1), torch.full((2, 9), length), rtol=1e-4, atol=0)
    clean, steered = read(add(calibrated))
    torch.testing.assert_close((steered - clean).norm(dim=-1), torch.full((2, 9), 0.5), rtol=1e-4, atol=0)
    clean, steered = read(add(calibrated, 0.3, unit="token"))
    torch.testing.assert_close((steered - clean).norm(dim=-1), 0.3 * clean.norm(dim=-1), rtol=1e-4, atol=0)


@given(dose=st.floats(-20, 20).filter(lambda x: abs(x) > 1e-3))
def test_preserving_norms_changes_direction_only(dose: float) -> None:
    clean, steered = read(add(vector(), dose, norm="preserve"))

    torch.testing.assert_close(steered.norm(dim=-1), clean.norm(dim=-1), rtol=1e-4, atol=0)
    plain = clean + dose * 2.0 * vector().unit(SITE)
    assert torch.cosine_similarity(steered, plain, dim=-1).min() > 0.9999


def test_projecting_out_leaves_nothing_along_and_everything_across() -> None:
    clean, steered = read(project_out(vector()))
    u = vector().unit(SITE)

    assert (steered @ u).abs().max() < 1e-4
    torch.testing.assert_close(steered, clean - (clean @ u)[..., None] * u, rtol=1e-4, atol=1e-4)
    half = read(project_out(vector(), 0.5))[1]
    torch.testing.assert_close(half @ u, (clean @ u) / 2, rtol=1e-3, atol=1e-4)


def test_clamping_moves_only_what_is_outside() -> None:
    u = vector().unit(SITE)
    clean, steered = read(clamp(vector(), low=0.0, high=0.5))  # norm 2: from 0 to 1

    along = clean @ u
    assert bool((along < 0).any())
    assert bool((along > 1).any())
    torch.testing.assert_close(steered @ u, along.clamp(0, 1), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(
        steered - (steered @ u)[..., None] * u, clean - along[..., None] * u, rtol=1e-4, atol=1e-4
    )


def test_replacing_and_ablating_are_what_a_run_writes() -> None:
    from mechint.interventions import replace as written
    from mechint.interventions import zero

    model, values = tiny("llama"), torch.arange(32.0)
    cases: dict[Any, Any] = {
        replace(SITE, values): {SITE: written(values)},
        ablate(["L0H1", "L2H3"]): {"L0H1.z": zero(), "L2H3.z": zero()},
    }
    for plan, writes in cases.items():
        expected = model.run(ROWS, write=writes, logits=Logits()).logits
        with model.apply(plan):
            found = model.run(ROWS, logits=Logits()).logits
        assert torch.equal(found, expected)


def test_ablating_to_means_goes_by_place_and_refuses_longer_texts() -> None:
    model = tiny("llama")
    site = Site("z", 1)
    means = model.run(ROWS, read=[site])[site].mean(0)
    with model.apply(ablate("L1H2", to=means)):
        found = model.run([ROWS[0]], read=[site])[site][0]
    torch.testing.assert_close(found[:, 2], means[:, 2])
    with pytest.raises(InterventionError, match="cover 9 places, the text has 10 so far"):
        generate(model, ["w5 w6 w7 w8 w9 w10 w11 w12"], ablate("L1H2", to=means), max_new_tokens=4)


def test_parts_that_only_add_never_conflict() -> None:
    both = add(vector(), 0.5) + add(vector(1), -0.3)
    clean, steered = read(both)

    expected = clean + 1.0 * vector().unit(SITE) - 0.6 * vector(1).unit(SITE)
    torch.testing.assert_close(steered, expected, rtol=1e-4, atol=1e-4)


def test_parts_that_want_one_token_need_a_policy() -> None:
    first, last = add(vector(), 1.0), project_out(vector(1), where=prompt(-1))
    with pytest.raises(InterventionError, match=r"both act at L1.resid_post on token 8 of row 0.*resolving"):
        read(first + last)

    in_order = read((first + last).resolving("sequential"))[1]
    only_last = read((first + last).resolving("priority"))[1]
    clean, added = read(first)
    projected = read(last)[1]
    torch.testing.assert_close(only_last[:, -1], projected[:, -1])
    torch.testing.assert_close(only_last[:, :-1], added[:, :-1])
    u = vector(1).unit(SITE)
    torch.testing.assert_close(in_order[:, -1], added[:, -1] - (added[:, -1] @ u)[:, None] * u, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(clean, added)


def test_parts_on_different_tokens_do_not_conflict() -> None:
    read(add(vector(), 1.0, where=prompt(0)) + project_out(vector(), where=prompt(-1)))


def test_nested_plans_act_together() -> None:
    model = tiny("gemma3")
    with model.apply(add(vector(), 0.5)), model.apply(add(vector(1), -0.3)):
        nested = model.run(ROWS, read=[SITE])[SITE]
    assert model.steerings == ()
    torch.testing.assert_close(nested, read(add(vector(), 0.5) + add(vector(1), -0.3))[1])


@pytest.mark.parametrize("where", [generated(), tokens({1}), after("nowhere"), prompt(40)], ids=str)
def test_a_plan_that_never_acts_is_an_error(where: Any) -> None:
    model = tiny("gemma3")
    with pytest.raises(NeverFiredError, match="never acted in 1 calls"), model.apply(add(vector(), 1.0, where=where)):
        model.run(ROWS)
    with pytest.raises(NeverFiredError, match="never acted in 0 calls"), model.apply(add(vector(), 1.0)):
        pass
    with model.apply(add(vector(), 0.0, where=where)):  # a dose of nothing is meant to do nothing
        model.run(ROWS)
    with add(vector(), 1.0, where=where).on(model, strict=False):
        model.run(ROWS)


def test_another_error_is_not_hidden_by_one_about_the_plan() -> None:
    with pytest.raises(ZeroDivisionError), tiny("gemma3").apply(add(vector(), 1.0)):
        _ = 1 / 0


def test_the_rehearsal_is_what_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny("llama")
    monkeypatch.setattr(TransformerLensModel, "end_tokens", NO_END)
    plan = add(vector(), lambda t: 1.0 + t / 10, where=prompt(-1) | generated(1, 3)) + ablate("L2H0", where=prompt(0))

    rehearsed = plan.dry_run(model, PROMPTS, max_new_tokens=4)
    receipt = generate(model, PROMPTS, plan, max_new_tokens=5).receipt

    assert receipt is not None
    happened = receipt.to_frame("tokens")
    keys = ["row", "position", "t", "site", "dose"]
    assert len(rehearsed) == 4 * (3 + 1)
    for frame in (rehearsed, happened):
        frame["dose"] = frame["dose"].astype(float).round(5)
    assert sorted(map(tuple, rehearsed[keys].to_numpy())) == sorted(map(tuple, happened[keys].to_numpy()))


def test_a_receipt_tells_how_much_was_changed() -> None:
    model = tiny("gemma3")
    clean = model.run(ROWS, read=[SITE])[SITE]
    with model.apply(add(vector(norm=3.0), 0.5, where=prompt(slice(2, 4)))) as run:
        model.run(ROWS)

    frame = run.receipt.to_frame("tokens").sort_values(["row", "position"])
    expected = 1.5 / clean[:, 2:4].norm(dim=-1).flatten()
    torch.testing.assert_close(torch.tensor(frame["change"].to_numpy()).float(), expected, rtol=1e-4, atol=0)
    (part,) = run.receipt.table().to_dict("records")
    assert (part["tokens"], part["rows"], part["dose"]) == (4, 2, 0.5)
    assert part["change_max"] == pytest.approx(float(expected.max()), rel=1e-4)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: add(vector(), math.nan), InterventionError, "dose is nan"),
        (lambda: add(vector(), math.inf), InterventionError, "dose is inf"),
        (lambda: add(vector()), InterventionError, "Give a dose, such as dose=0.3"),
        (lambda: add(vector(), 1.0, norm="keep"), InterventionError, "expected one of free, preserve"),
        (lambda: add(vector(), 1.0, unit="calibrated"), InterventionError, "not calibrated"),
        (lambda: add(vector(), 1.0, unit="volts"), InterventionError, "no unit of dose"),
        (lambda: clamp(vector(), 2.0, 1.0), InterventionError, "low <= high"),
        (lambda: clamp(vector()), InterventionError, "one of them finite"),
        (lambda: ablate([]), InterventionError, "given no site"),
        (lambda: ablate("L1"), SiteError, "as a head"),
        (lambda: add(vector(), 1.0).resolving("first"), InterventionError, "no policy"),
        (lambda: Plan(()), InterventionError, "at least one part"),
    ],
)
def test_what_cannot_be_meant_is_refused_at_once(make: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()


def test_what_does_not_fit_the_model_is_refused_before_it_runs() -> None:
    model = tiny("gemma3")
    deep = vector(site=Site("resid_post", 40))
    with pytest.raises(SiteError, match="has blocks L0 to L5"):
        generate(model, PROMPTS, add(deep, 1.0))
    with pytest.raises(InterventionError, match="16 numbers does not fit activations of width 32"):
        generate(model, PROMPTS, add(vector(width=16), 1.0), max_new_tokens=2)
    with pytest.raises(InterventionError, match=r"do not fit an activation of shape"):
        generate(model, PROMPTS, replace(SITE, torch.zeros(31)), max_new_tokens=2)
    with pytest.raises(InterventionError, match="at t = 2: the dose is nan"):
        generate(model, PROMPTS, add(vector(), lambda t: math.nan if t == 2 else 1.0), max_new_tokens=8)


def test_doses_are_those_of_whole_rows_however_padded() -> None:
    part = add(vector(), lambda t: float(t)).parts[0]
    for left in (False, True):
        batch = TokenBatch.from_rows([[1, 2, 3, 4], [5, 6]], prompt_lengths=[2, 1], pad_left=left)
        doses = part.doses(batch)
        assert doses[0].tolist() == [-2, -1, 0, 1]
        assert doses[1, batch.real[1]].tolist() == [-1, 0]
        assert doses[1, ~batch.real[1]].tolist() == [0, 0]


def test_everywhere_is_every_token_of_prompt_and_text() -> None:
    receipt = generate(tiny("gpt2"), PROMPTS, add(vector(), 1.0, where=everywhere), max_new_tokens=3).receipt

    assert receipt is not None
    lengths = [len(tiny("gpt2").tokenize(p)) for p in PROMPTS]
    assert receipt.to_frame("tokens").groupby("row").size().tolist() == [n + 2 for n in lengths]


def test_a_part_that_stands_in_a_plan_twice_acts_and_is_counted_twice() -> None:
    model, once = tiny("llama"), add(vector(), 0.5, where=prompt())
    twice = generate(model, PROMPTS, once + once, max_new_tokens=3)

    assert [c.tokens for c in twice] == [
        c.tokens for c in generate(model, PROMPTS, add(vector(), 1.0, where=prompt()), max_new_tokens=3)
    ]
    assert len(twice.receipt.table()) == 2
    assert twice.receipt.table()["tokens"].nunique() == 1


def test_only_a_calibrated_vector_has_a_dose_of_its_own_and_only_in_that_unit() -> None:
    calibrated = vector().with_calibration(Calibration("kl", 0.5, dose=0.25, low=0.2, high=0.3))

    assert add(calibrated).parts[0].dose == add(calibrated, unit="calibrated").parts[0].dose == 1.0
    for unit in ("norm", "raw"):
        with pytest.raises(InterventionError, match="Give a dose"):
            add(calibrated, unit=unit)
