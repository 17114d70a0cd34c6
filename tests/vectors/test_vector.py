import math
import pickle
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from mechint import interventions
from mechint.capture.activations import identity
from mechint.capture.storage import write_tensors
from mechint.errors import InterventionError, OutputError, SiteError
from mechint.sites import Site
from mechint.vectors.vector import Calibration, SteeringVector
from tests.families import tiny

LOW, HIGH = Site.parse("L0.resid_post"), Site.parse("L2.resid_post")
DONE = Calibration("kl", 0.5, dose=0.2, low=0.1, high=0.4, details={"texts": 64})


def vector(seed: int = 0, **changes: object) -> SteeringVector:
    g = torch.Generator().manual_seed(seed)
    directions = {site: torch.randn(32, generator=g) for site in (HIGH, LOW)}
    made = SteeringVector(directions, {LOW: 4.0, HIGH: 8.0}, "joy", "mean_diff", {"weights": "a"}, {"n": 3}, DONE)
    return replace(made, **changes)  # type: ignore[arg-type]


def close(a: SteeringVector, b: SteeringVector) -> bool:
    return all(torch.allclose(a[site], b[site], atol=1e-6) for site in (LOW, HIGH))


def test_sites_are_in_forward_order_however_they_were_given() -> None:
    assert vector().sites == (LOW, HIGH)


def test_a_vector_does_not_change_when_its_tensors_do() -> None:
    given = torch.ones(4)
    kept = SteeringVector({LOW: given}, {}, "joy", "by hand")
    given.zero_()

    assert kept[LOW].tolist() == [1.0] * 4


def test_a_dose_of_one_is_as_long_as_the_median_activation() -> None:
    v = vector()

    assert float(v.step(HIGH, 1.0).norm()) == pytest.approx(8.0)
    assert torch.allclose(v.step(LOW, -0.5), -2.0 * v[LOW] / v[LOW].norm())


def test_a_dose_in_norm_units_does_not_depend_on_how_long_the_vector_is() -> None:
    assert torch.allclose((7 * vector()).step(LOW, 0.3), vector().step(LOW, 0.3))


def test_a_raw_dose_multiplies_the_vector_and_a_calibrated_one_the_calibrated_dose() -> None:
    v = vector()

    assert torch.allclose(v.step(LOW, 3.0, "raw"), 3 * v[LOW])
    assert torch.allclose(v.step(LOW, 2.0, "calibrated"), v.step(LOW, 0.4))


def test_a_step_written_into_a_model_moves_its_stream_by_that_step() -> None:
    model, v = tiny("gemma3"), vector()
    rows = [[0, 5, 6, 7]]
    step = v.step(LOW, 0.5)
    before = model.run(rows, read=[LOW])[LOW]
    after = model.run(rows, read=[LOW], write={LOW: interventions.add(step)})[LOW]

    assert torch.allclose(after - before, step.expand_as(before), atol=1e-4)


def test_vectors_add_subtract_and_scale_as_vectors_do() -> None:
    a, b = vector(0), vector(1)

    assert close(a + b - b, a)
    assert close(3 * (a - b), 3 * a - 3 * b)
    assert close(-1 * -a, a)
    assert close(a * 4 / 4, a)


def test_algebra_drops_the_calibration_and_remembers_the_parts() -> None:
    made = vector(0) + vector(1)

    assert made.calibration is None
    assert [part["provenance"] for part in made.provenance["parts"]] == [{"n": 3}, {"n": 3}]
    assert (-made).concept == "less joy + joy"
    assert (2 * vector()).calibration is None


def test_what_is_projected_out_is_gone_and_the_rest_stays() -> None:
    a, b = vector(0), vector(1)
    rest = a.project_out(b)

    assert rest.cosine(b) == {LOW: pytest.approx(0, abs=1e-6), HIGH: pytest.approx(0, abs=1e-6)}
    assert close(rest.project_out(b), rest)
    for site in (LOW, HIGH):
        gone = a[site] - rest[site]
        assert abs(float(torch.cosine_similarity(gone, b[site], dim=0))) == pytest.approx(1)


def test_a_vector_without_itself_is_refused() -> None:
    with pytest.raises(InterventionError, match="other than zero"):
        vector().project_out(-2 * vector())
    with pytest.raises(InterventionError, match="other than zero"):
        vector() - vector()


def test_cosine_is_one_with_any_multiple() -> None:
    assert vector().cosine(-3 * vector()) == {LOW: pytest.approx(-1), HIGH: pytest.approx(-1)}


def test_restriction_keeps_the_calibration_only_if_all_sites_stay() -> None:
    v = vector()

    assert v.at("L2.resid_post").sites == (HIGH,)
    assert v.at(LOW).calibration is None
    assert v.at([HIGH, LOW]).calibration == DONE
    with pytest.raises(SiteError, match=r"no direction at L1\.resid_post"):
        v.at("L1.resid_post")


@pytest.mark.parametrize("dose", [math.nan, math.inf])
@pytest.mark.parametrize("unit", ["norm", "calibrated", "raw"])
def test_a_dose_that_is_no_number_is_refused(dose: float, unit: str) -> None:
    with pytest.raises(InterventionError, match="finite"):
        vector().step(LOW, dose, unit)  # type: ignore[arg-type]


def test_a_unit_that_the_vector_does_not_know_is_refused() -> None:
    with pytest.raises(InterventionError, match="not calibrated"):
        vector(calibration=None).step(LOW, 1.0, "calibrated")
    with pytest.raises(InterventionError, match="not known"):
        vector(norms={HIGH: 1.0}).step(LOW, 1.0)


@pytest.mark.parametrize("bad", [torch.zeros(4), torch.tensor([1.0, math.nan]), torch.tensor([math.inf])])
def test_a_direction_that_is_none_is_refused(bad: torch.Tensor) -> None:
    with pytest.raises(InterventionError, match="Expected one vector of finite numbers other than zero"):
        SteeringVector({LOW: bad}, {}, "joy", "by hand")


def test_an_empty_vector_a_bad_norm_and_a_provenance_that_is_no_json_are_refused() -> None:
    with pytest.raises(InterventionError, match="at one site at least"):
        SteeringVector({}, {}, "joy", "by hand")
    with pytest.raises(InterventionError, match="positive median"):
        vector(norms={LOW: 0.0})
    with pytest.raises(InterventionError, match="more than JSON"):
        vector(provenance={"data": object()})


@pytest.mark.parametrize("factor", [0.0, math.nan, math.inf])
def test_a_factor_that_leaves_no_vector_is_refused(factor: float) -> None:
    with pytest.raises(InterventionError, match="Cannot multiply"):
        factor * vector()


def test_vectors_of_other_sites_or_another_model_do_not_mix() -> None:
    with pytest.raises(InterventionError, match="sites L0"):
        vector() + vector().at(LOW)
    with pytest.raises(InterventionError, match="weights a"):
        vector() + vector(model={"weights": "b"})


def test_a_calibration_that_contradicts_itself_is_refused() -> None:
    with pytest.raises(InterventionError, match="low <= dose <= high"):
        Calibration("kl", 0.5, dose=2.0, low=0.1, high=0.4)


def test_a_vector_says_what_it_is() -> None:
    text = repr(vector(model={"name": "small", "weights": "a"}))

    for part in ("joy", "mean_diff", "small", "L0.resid_post", "kl 0.5 at dose 0.2 [0.1, 0.4]"):
        assert part in text


def test_a_saved_vector_comes_back_whole(tmp_path: Path) -> None:
    v = vector()
    back = SteeringVector.load(v.save(tmp_path / "deep" / "joy.safetensors"))

    assert all(torch.equal(back[site], v[site]) for site in v.sites)
    assert back.sites == v.sites
    for name in ("norms", "concept", "method", "model", "provenance", "calibration"):
        assert getattr(back, name) == getattr(v, name)


def test_a_vector_can_be_sent_to_another_process() -> None:
    back = pickle.loads(pickle.dumps(vector()))

    assert close(back, vector())
    assert (back.norms, back.calibration) == (vector().norms, DONE)


def test_a_file_that_exists_is_kept_unless_told_otherwise(tmp_path: Path) -> None:
    path = vector(0).save(tmp_path / "joy.safetensors")
    with pytest.raises(OutputError, match="exists"):
        vector(1).save(path)

    assert close(SteeringVector.load(path), vector(0))
    assert close(SteeringVector.load(vector(1).save(path, overwrite=True)), vector(1))
    assert [p.name for p in tmp_path.iterdir()] == ["joy.safetensors"]


def test_a_file_that_is_no_vector_is_refused(tmp_path: Path) -> None:
    path = vector().save(tmp_path / "joy.safetensors")
    whole = path.read_bytes()
    for name, content in (("cut", whole[: len(whole) // 2]), ("empty", b""), ("text", b"no tensors at all, just text")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(OutputError, match="damaged"):
            SteeringVector.load(tmp_path / name)
    save_file({"x": torch.ones(2)}, tmp_path / "foreign")
    with pytest.raises(OutputError, match="no steering vector"):
        SteeringVector.load(tmp_path / "foreign")
    with pytest.raises(OutputError, match="no file"):
        SteeringVector.load(tmp_path / "missing")


def test_a_format_of_the_future_and_a_header_with_holes_are_refused(tmp_path: Path) -> None:
    tensors = {"L0.resid_post": torch.ones(2)}
    write_tensors(tmp_path / "future", tensors, {"kind": "steering_vector", "format": 99})
    write_tensors(tmp_path / "holes", tensors, {"kind": "steering_vector", "format": 1})
    with pytest.raises(OutputError, match=r"format 99; known here: 1"):
        SteeringVector.load(tmp_path / "future")
    with pytest.raises(OutputError, match="does not describe a vector"):
        SteeringVector.load(tmp_path / "holes")


def test_a_vector_fits_its_own_model_without_a_word() -> None:
    model = tiny("gemma3")

    vector(model=identity(model)).check(model)


def test_other_weights_are_warned_about() -> None:
    with pytest.warns(UserWarning, match="not on these of tiny-gemma3"):
        vector().check(tiny("gemma3"))


@pytest.mark.parametrize(
    ("site", "width", "why"), [("L1.resid_post", 31, "31 numbers"), ("L99.resid_post", 32, "L99"), ("L0H0.z", 32, "16")]
)
def test_another_width_or_a_missing_site_is_refused(site: str, width: int, why: str) -> None:
    v = SteeringVector({Site.parse(site): torch.ones(width)}, {}, "joy", "by hand")
    with pytest.raises(InterventionError, match=why):
        v.check(tiny("gemma3"))
