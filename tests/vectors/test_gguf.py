from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mechint.capture.activations import identity, record
from mechint.errors import InterventionError, OutputError
from mechint.sites import Site
from mechint.steering.parts import add
from mechint.vectors.gguf import export_gguf, import_gguf, read_gguf
from mechint.vectors.vector import Calibration, SteeringVector
from tests.families import plain, random_rows, tiny

ONE, TWO = Site("resid_post", 1), Site("resid_post", 2)


def vector(*sites: Site, seed: int = 0, width: int = 32, **changes: Any) -> SteeringVector:
    g = torch.Generator().manual_seed(seed)
    chosen = sites or (ONE, TWO)
    made = SteeringVector(
        {site: torch.randn(width, generator=g) for site in chosen},
        {site: 4.0 + site.layer for site in chosen if site.layer is not None},
        "joy",
        "mean_diff",
        identity(tiny("gemma3")),
        {"n": 3, "note": "ä"},
        Calibration("kl", 0.5, dose=0.3, low=0.1, high=0.4),
    )
    return replace(made, **changes)


def write(
    path: Path, tensors: Mapping[str, np.ndarray], hint: str | None = "gemma3", arch: str = "controlvector"
) -> Path:
    """A file as somebody else writes it."""
    writer = gguf.GGUFWriter(path, arch)
    if hint is not None:
        writer.add_string("controlvector.model_hint", hint)
    writer.add_uint32("controlvector.layer_count", len(tensors))
    for name, values in tensors.items():
        writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def ones(n: int = 32) -> np.ndarray:
    return np.ones(n, dtype=np.float32)


def as_llama_cpp_loads(path: Path) -> dict[int, np.ndarray]:
    """The rules of its loader, restated: names, type, axes, lengths; no metadata."""
    found: dict[int, np.ndarray] = {}
    for tensor in gguf.GGUFReader(path).tensors:
        prefix, _, number = tensor.name.partition(".")
        assert prefix == "direction"
        assert int(number) > 0
        assert tensor.tensor_type == gguf.GGMLQuantizationType.F32
        assert len(tensor.shape) == 1
        found[int(number)] = np.array(tensor.data)
    assert len({len(v) for v in found.values()}) == 1
    return found


def adding(step: torch.Tensor) -> Any:
    def hook(module: Any, args: Any, out: Any) -> Any:
        return (out[0] + step, *out[1:]) if isinstance(out, tuple) else out + step

    return hook


@given(
    dose=st.floats(-50, 50).filter(lambda x: abs(x) > 1e-3),
    unit=st.sampled_from(["norm", "calibrated", "raw"]),
    seed=st.integers(0, 1000),
)
def test_a_vector_comes_back_exactly_and_its_tensors_are_the_dose(
    dose: float, unit: Any, seed: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    given_ = vector(seed=seed)
    path = export_gguf(given_, tmp_path_factory.mktemp("gguf") / "v.gguf", dose=dose, unit=unit)
    found, back = read_gguf(path), import_gguf(path, tiny("gemma3"))

    assert as_llama_cpp_loads(path).keys() == {1, 2}
    for site in (ONE, TWO):
        assert torch.equal(back[site], given_[site])
        assert torch.equal(torch.from_numpy(as_llama_cpp_loads(path)[site.layer or 0]), given_.step(site, dose, unit))
    assert (found.dose, found.unit) == (dose, unit)
    assert (back.norms, back.concept, back.method) == (given_.norms, given_.concept, given_.method)
    assert (back.model, back.provenance, back.calibration) == (given_.model, given_.provenance, given_.calibration)


def test_metadata_say_what_the_format_asks_for(tmp_path: Path) -> None:
    path = export_gguf(vector(), tmp_path / "v.gguf", model_hint="gemma3")
    fields = {name: field.contents() for name, field in gguf.GGUFReader(path).fields.items()}

    assert fields["general.architecture"] == "controlvector"
    assert fields["controlvector.model_hint"] == "gemma3"
    assert fields["controlvector.layer_count"] == 2
    assert fields["mechint.concept"] == "joy"


def test_what_llama_cpp_would_do_with_a_file_is_what_the_plan_does_here(tmp_path: Path) -> None:
    """A plain transformers model to whose block outputs the tensors are added, everywhere, against our plan."""
    v, rows = vector(), random_rows(2, 9)
    path = export_gguf(v, tmp_path / "v.gguf", dose=0.7)
    hf, ours = plain("gemma3"), tiny("gemma3")
    for block, values in as_llama_cpp_loads(path).items():
        hf.model.layers[block].register_forward_hook(adding(torch.from_numpy(values)))
    with ours.apply(add(v, 0.7)):
        steered = ours.all_logits(rows)

    torch.testing.assert_close(steered, hf(torch.tensor(rows)).logits, rtol=1e-4, atol=1e-4)
    assert float((steered - ours.all_logits(rows)).abs().max()) > 0.1


@pytest.mark.parametrize(
    ("site", "reason"),
    [
        ("L0.resid_post", "block 0"),
        ("L1.resid_mid", "resid_post"),
        ("L1.attn_out", "resid_post"),
        ("embed", "resid_post"),
        ("final_norm", "resid_post"),
    ],
)
def test_a_site_at_which_llama_cpp_does_not_act_is_refused(site: str, reason: str, tmp_path: Path) -> None:
    with pytest.raises(InterventionError, match=reason):
        export_gguf(vector(Site.parse(site), ONE), tmp_path / "v.gguf", unit="raw")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("dose", "unit"), [(0.0, "norm"), (1e39, "raw"), (1e-60, "raw"), (float("nan"), "norm")])
def test_a_dose_that_leaves_no_vector_is_refused(dose: float, unit: Any, tmp_path: Path) -> None:
    with pytest.raises(InterventionError, match="dose"):
        export_gguf(vector(), tmp_path / "v.gguf", dose=dose, unit=unit)


def test_a_dose_without_a_length_is_refused_and_a_raw_one_is_not(tmp_path: Path) -> None:
    unknown = vector(norms={}, calibration=None)
    with pytest.raises(InterventionError, match="not known"):
        export_gguf(unknown, tmp_path / "v.gguf")
    with pytest.raises(InterventionError, match="not calibrated"):
        export_gguf(unknown, tmp_path / "v.gguf", unit="calibrated")

    assert read_gguf(export_gguf(unknown, tmp_path / "v.gguf", unit="raw")).unit == "raw"


def test_directions_of_two_lengths_are_refused(tmp_path: Path) -> None:
    uneven = SteeringVector({ONE: torch.ones(4), TWO: torch.ones(5)}, {}, "joy", "by hand")

    with pytest.raises(InterventionError, match="one width"):
        export_gguf(uneven, tmp_path / "v.gguf", unit="raw")


def test_a_file_is_replaced_only_where_that_was_asked_for(tmp_path: Path) -> None:
    path = export_gguf(vector(), tmp_path / "v.gguf")
    with pytest.raises(OutputError, match="exists"):
        export_gguf(vector(seed=1), path)
    export_gguf(vector(seed=1), path, overwrite=True)

    assert torch.equal(import_gguf(path, tiny("gemma3"))[ONE], vector(seed=1)[ONE])
    assert [p.name for p in tmp_path.iterdir()] == ["v.gguf"]


def test_a_foreign_file_gives_raw_directions_at_the_same_blocks_and_no_norms(tmp_path: Path) -> None:
    path = write(tmp_path / "calm.gguf", {"direction.2": 2 * ones(), "direction.1": ones(), "direction.3": 0 * ones()})
    back = import_gguf(path, tiny("gemma3"))

    assert back.sites == (ONE, TWO)
    assert torch.equal(back.step(TWO, 1.0, "raw"), torch.full((32,), 2.0))
    assert (back.concept, back.norms) == ("calm", {})
    assert back.provenance["model_hint"] == "gemma3"
    assert import_gguf(path, tiny("gemma3"), concept="rest").concept == "rest"
    with pytest.raises(InterventionError, match="raw"):
        add(back, 1.0)


def test_norms_of_an_imported_vector_can_be_measured(tmp_path: Path) -> None:
    model = tiny("gemma3")
    back = import_gguf(write(tmp_path / "v.gguf", {"direction.1": ones()}), model)
    recorded = record(model, ["w5 w6 w7", "w8 w9"], back.sites)
    measured = replace(back, norms=recorded.norms)

    assert float(measured.step(ONE, 1.0).norm()) == pytest.approx(recorded.norms[ONE])


@pytest.mark.parametrize(
    ("tensors", "reason"),
    [
        ({"direction.0": ones(), "direction.1": ones()}, "direction.0"),
        ({"direction.x": ones()}, "direction.x"),
        ({"directions.1": ones()}, "directions.1"),
        ({"direction.1": ones(), "token_embd.weight": ones()}, "token_embd"),
        ({"direction.1": ones().astype(np.float16)}, "F16"),
        ({"direction.1": np.ones((2, 16), dtype=np.float32)}, "one axis"),
        ({"direction.1": ones(), "direction.2": ones(16)}, "one length"),
        ({}, "one at least"),
    ],
)
def test_a_file_that_llama_cpp_would_refuse_is_refused(
    tensors: Mapping[str, np.ndarray], reason: str, tmp_path: Path
) -> None:
    with pytest.raises(OutputError, match=reason):
        read_gguf(write(tmp_path / "v.gguf", tensors))


def test_a_file_that_does_not_fit_the_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InterventionError, match="16 numbers"):
        import_gguf(write(tmp_path / "narrow.gguf", {"direction.1": ones(16)}), tiny("gemma3"))
    with pytest.raises(InterventionError, match="L0 to L5"):
        import_gguf(write(tmp_path / "deep.gguf", {"direction.6": ones()}), tiny("gemma3"))


def test_a_file_for_another_kind_of_model_is_taken_with_a_warning(tmp_path: Path) -> None:
    path = write(tmp_path / "v.gguf", {"direction.1": ones()}, hint="llama")
    with pytest.warns(UserWarning, match="says that it is for 'llama'"):
        import_gguf(path, tiny("gemma3"))

    assert import_gguf(path, tiny("llama")).sites == (ONE,)
    unsaid = write(tmp_path / "u.gguf", {"direction.1": ones()}, hint=None)
    assert read_gguf(unsaid).model_hint == ""
    assert import_gguf(unsaid, tiny("gemma3")).sites == (ONE,)


def test_our_own_file_on_other_weights_is_taken_with_a_warning(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="not on these of tiny-llama"):
        import_gguf(export_gguf(vector(), tmp_path / "v.gguf"), tiny("llama"))


def test_tensors_that_were_changed_behind_the_metadata_are_noticed(tmp_path: Path) -> None:
    path = export_gguf(vector(), tmp_path / "v.gguf")
    reader = gguf.GGUFReader(path, "r+")
    reader.tensors[0].data[3] += 1
    reader.data.flush()

    with pytest.raises(OutputError, match="was changed"):
        read_gguf(path)


@pytest.mark.parametrize("content", [b"", b"GGUF", b"no such thing as this one", b"GGUF" + 60 * b"\xff"])
def test_what_is_no_gguf_file_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "v.gguf"
    path.write_bytes(content)

    with pytest.raises(OutputError, match="damaged, or no GGUF"):
        read_gguf(path)


def test_a_file_cut_short_or_absent_is_refused(tmp_path: Path) -> None:
    whole = export_gguf(vector(), tmp_path / "v.gguf").read_bytes()
    for share in (0.2, 0.6, 0.99):
        (tmp_path / "cut.gguf").write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(OutputError, match="damaged"):
            read_gguf(tmp_path / "cut.gguf")
    with pytest.raises(OutputError, match="no file"):
        read_gguf(tmp_path / "absent.gguf")
