"""Rewrites in closed form, and what they refuse."""

import itertools
import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from mechint import interventions
from mechint.errors import InterventionError, NeverFiredError
from mechint.interventions import Intervention, add, clamp, derangement, mean, project_out, replace, resample, zero
from mechint.positions import Positions, everywhere, prompt, rows, tokens
from mechint.sites import Site
from tests.families import random_rows, tiny

WIDTH = 6
OFFSET = torch.tensor([[0, 1, 2, 3], [0, 0, 1, 2]])  # the second row begins with one token of padding
seeds = st.integers(0, 10_000)


def numbers(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def stream(seed: int = 0) -> Tensor:
    return numbers(seed, 2, 4, WIDTH)


def test_zero_is_zero() -> None:
    assert torch.equal(zero()(stream(), OFFSET), torch.zeros(2, 4, WIDTH))


def test_mean_is_looked_up_by_the_place_in_the_text_not_in_the_batch() -> None:
    values = numbers(1, 5, WIDTH)

    assert torch.equal(mean(values)(stream(), OFFSET), values[OFFSET])


def test_replace_and_resample_give_what_was_given() -> None:
    values = stream(1)

    assert torch.equal(replace(values)(stream(), OFFSET), values)
    assert torch.equal(resample(values)(stream(), OFFSET), values)
    assert torch.equal(replace(values[0, 0])(stream(), OFFSET), values[0, 0].expand(2, 4, -1))


@given(seeds, st.floats(-4, 4, width=32), st.floats(-4, 4, width=32))
def test_adding_twice_is_adding_the_sum(seed: int, a: float, b: float) -> None:
    h, v = stream(seed), numbers(seed + 1, WIDTH)

    torch.testing.assert_close(add(v, a)(h, OFFSET), h + a * v)
    torch.testing.assert_close(add(v, b)(add(v, a)(h, OFFSET), OFFSET), add(v, a + b)(h, OFFSET), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(add(v, -a)(add(v, a)(h, OFFSET), OFFSET), h, rtol=1e-5, atol=1e-5)
    assert torch.equal(add(v, 0.0)(h, OFFSET), h)


@given(seeds, st.integers(1, 4))
def test_project_out_removes_the_span_and_nothing_else(seed: int, n: int) -> None:
    h, directions = stream(seed), numbers(seed + 1, n, WIDTH)

    left = project_out(directions)(h, OFFSET)

    torch.testing.assert_close(left @ directions.T, torch.zeros(2, 4, n), rtol=0, atol=1e-4)
    basis = torch.linalg.qr(directions.T)[0]
    torch.testing.assert_close(left, h - h @ basis @ basis.T, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(project_out(directions)(left, OFFSET), left, rtol=1e-4, atol=1e-5)


@given(seeds, st.floats(-3, 3).filter(lambda scale: abs(scale) > 0.01))
def test_dependent_directions_do_no_harm(seed: int, scale: float) -> None:
    h, v = stream(seed), numbers(seed + 1, WIDTH)

    once, more = project_out(v)(h, OFFSET), project_out(torch.stack([v, scale * v, torch.zeros(WIDTH)]))(h, OFFSET)

    torch.testing.assert_close(once, more, rtol=1e-4, atol=1e-5)


@given(seeds, st.floats(-2, 2), st.floats(0, 2))
def test_clamp_bounds_one_component_and_leaves_the_rest(seed: int, low: float, more: float) -> None:
    h, v = stream(seed), numbers(seed + 1, WIDTH)
    unit = v / v.norm()
    bounded = clamp(v, low, low + more)

    new = bounded(h, OFFSET)

    torch.testing.assert_close(new @ unit, (h @ unit).clamp(low, low + more), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(project_out(v)(new, OFFSET), project_out(v)(h, OFFSET), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(bounded(new, OFFSET), new, rtol=1e-4, atol=1e-5)


def test_clamp_to_nothing_is_projecting_out() -> None:
    v = numbers(1, WIDTH)

    torch.testing.assert_close(clamp(v, 0.0, 0.0)(stream(), OFFSET), project_out(v)(stream(), OFFSET))


def test_a_vector_may_have_one_row_a_head() -> None:
    z, v = numbers(0, 2, 4, 3, WIDTH), numbers(1, 3, WIDTH)

    assert torch.equal(add(v)(z, OFFSET), z + v)


MODEL = tiny("llama")
ROWS = random_rows(2, 6)


@pytest.mark.parametrize("where", [prompt(-1), prompt(slice(1, 3)), rows([1]), rows([0]) & prompt(0)])
@pytest.mark.parametrize("site", ["L1.resid_post", "L1.z", "L1H2.z", "L1.pattern", "L1H2.pattern", "L1KV1.v"])
def test_everything_that_is_not_selected_stays_bit_for_bit(site: str, where: Positions) -> None:
    whole = Site.parse(site).whole
    clean = MODEL.run(ROWS, read=[whole])[whole]

    written = MODEL.run(ROWS, read=[whole], write={site: zero(where)})[whole]

    selected = where.mask(MODEL.batch(ROWS))
    by_position = (written != clean).movedim(whole.position_axis, 1)
    assert not by_position[~selected].any()
    assert by_position[selected].any()
    head = Site.parse(site).head
    if head is not None:
        others = [h for h in range(written.shape[whole.head_axis]) if h != head]
        index = torch.tensor(others)
        assert torch.equal(written.index_select(whole.head_axis, index), clean.index_select(whole.head_axis, index))


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("make", [add, project_out, clamp])
def test_what_is_not_finite_is_refused_before_any_run(make: Callable[[Tensor], Intervention], bad: float) -> None:
    vector = torch.tensor([1.0, bad])

    with pytest.raises(InterventionError, match="NaN or infinity"):
        make(vector)


@pytest.mark.parametrize("coefficient", [math.nan, math.inf])
def test_a_coefficient_must_be_finite(coefficient: float) -> None:
    with pytest.raises(InterventionError, match="Expected a finite number"):
        add(torch.ones(2), coefficient)


def test_zero_directions_are_refused() -> None:
    with pytest.raises(InterventionError, match="every direction is zero"):
        project_out(torch.zeros(2, WIDTH))
    with pytest.raises(InterventionError, match="other than zero"):
        clamp(torch.zeros(WIDTH), 0.0, 1.0)


@pytest.mark.parametrize(("low", "high"), [(1.0, 0.0), (math.nan, 1.0), (0.0, math.nan)])
def test_clamp_refuses_bounds_the_wrong_way_round(low: float, high: float) -> None:
    with pytest.raises(InterventionError, match="low <= high"):
        clamp(torch.ones(WIDTH), low, high)


WRONG = {
    "add": add(torch.ones(WIDTH + 1)),
    "a single number to add": add(torch.ones(1)),
    "a number without width": add(torch.tensor(1.0)),
    "project_out": project_out(torch.ones(WIDTH + 1)),
    "clamp": clamp(torch.ones(WIDTH + 1), 0.0, 1.0),
    "mean": mean(torch.ones(4, WIDTH + 1)),
    "replace": replace(torch.ones(WIDTH + 1)),
    "resample": resample(torch.ones(3, 4, WIDTH)),
    "own rewrite": Intervention("own", lambda h, _: h[:, :1]),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_shape_is_refused_and_nothing_is_stretched_to_fit(name: str) -> None:
    with pytest.raises(InterventionError, match=r"shape \[|made \[2, 1, 6\]|out of an activation"):
        WRONG[name](stream(), OFFSET)


def test_means_that_are_too_short_are_refused() -> None:
    with pytest.raises(InterventionError, match="cover 3 positions, the text has 4"):
        mean(numbers(0, 3, WIDTH))(stream(), OFFSET)


def test_at_moves_an_intervention_and_keeps_the_rest() -> None:
    moved = add(torch.ones(WIDTH), 2.0).at(prompt(-1))

    assert (moved.name, str(moved.where)) == ("add(2)", "prompt(-1)")
    assert torch.equal(moved(stream(), OFFSET), stream() + 2.0)
    assert zero().where is everywhere


def test_an_intervention_that_selects_nothing_raises() -> None:
    with pytest.raises(NeverFiredError, match=r"zero at L1.z on tokens\(\{1\}\) selects no token"):
        MODEL.run(ROWS, write={"L1.z": zero(tokens({1}))})


def test_a_site_without_any_intervention_raises() -> None:
    with pytest.raises(NeverFiredError, match=r"No intervention is given at L1.z"):
        MODEL.run(ROWS, write={"L1.z": []})


@given(st.integers(2, 30), seeds)
def test_a_derangement_is_a_permutation_that_fixes_no_point(n: int, seed: int) -> None:
    drawn = derangement(n, torch.Generator().manual_seed(seed))

    assert sorted(drawn.tolist()) == list(range(n))
    assert not (drawn == torch.arange(n)).any()


@pytest.mark.parametrize("n", [3, 4])
def test_every_derangement_is_equally_likely(n: int) -> None:
    every = [p for p in itertools.permutations(range(n)) if all(i != j for i, j in enumerate(p))]
    generator = torch.Generator().manual_seed(0)
    draws = 300 * len(every)
    counts = dict.fromkeys(every, 0)
    for _ in range(draws):
        counts[tuple(derangement(n, generator).tolist())] += 1

    chi2 = sum((count - 300) ** 2 / 300 for count in counts.values())

    assert chi2 < {3: 10.8, 4: 26.1}[n]  # the 99.9 % quantiles for 1 and 8 degrees of freedom


@pytest.mark.parametrize("n", [0, 1])
def test_fewer_than_two_rows_cannot_be_resampled(n: int) -> None:
    with pytest.raises(InterventionError, match="give at least two"):
        interventions.derangement(n, torch.Generator())
