"""Vectors of other packages: by their attributes always, by the packages themselves where they are installed."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mechint.errors import ConfigError, InterventionError
from mechint.sites import Site
from mechint.steering.parts import add
from mechint.vectors.gguf import export_gguf, import_gguf
from mechint.vectors.imports import import_vector
from mechint.vectors.vector import SteeringVector
from tests.families import plain, random_rows, tiny

ONE, TWO = Site("resid_post", 1), Site("resid_post", 2)


@dataclass
class Control:
    """What a repeng.ControlVector shows."""

    model_type: str
    directions: dict[Any, np.ndarray]


@dataclass
class Layers:
    """What a steering_vectors.SteeringVector shows."""

    layer_activations: dict[int, torch.Tensor]
    layer_type: str = "decoder_block"


def values(seed: int = 0) -> torch.Tensor:
    return torch.randn(32, generator=torch.Generator().manual_seed(seed))


def test_blocks_of_repeng_are_outputs_of_the_same_blocks() -> None:
    locked = values(1).numpy()
    locked.flags.writeable = False  # as what repeng read from a file
    given = Control("gemma3_text", {np.int64(2): values(2).numpy(), 1: locked})
    back = import_vector(given, tiny("gemma3"), concept="joy")

    assert back.sites == (ONE, TWO)
    assert torch.equal(back[ONE], values(1))
    assert torch.equal(back[TWO], values(2))
    assert (back.concept, back.method, back.norms) == ("joy", "repeng", {})
    back.check(tiny("gemma3"))


def test_modules_of_steering_vectors_are_our_sites() -> None:
    components = {"decoder_block": "resid_post", "self_attn": "attn_out", "mlp": "mlp_out"}
    for layer_type, component in components.items():
        back = import_vector(Layers({1: values()[None]}, layer_type), tiny("llama"), concept="joy")
        assert back.sites == (Site(component, 1),)
        assert torch.equal(back[back.sites[0]], values())


def test_blocks_counted_from_the_end_are_found() -> None:
    assert import_vector(Layers({-1: values()}), tiny("llama"), concept="joy").sites == (TWO,)
    with pytest.raises(InterventionError, match="each once"):
        import_vector(Layers({-1: values(), 2: values()}), tiny("llama"), concept="joy")


def test_half_precision_is_kept_to_the_bit() -> None:
    half = values().bfloat16()

    assert torch.equal(import_vector(Layers({1: half}), tiny("llama"), concept="joy")[ONE], half.float())


@pytest.mark.parametrize("layer_type", ["self_attn", "mlp"])
def test_a_module_whose_output_is_normalised_afterwards_is_refused(layer_type: str) -> None:
    with pytest.raises(InterventionError, match="behind the norm"):
        import_vector(Layers({1: values()}, layer_type), tiny("gemma3"), concept="joy")


@pytest.mark.parametrize("layer_type", ["input_layernorm", "post_attention_layernorm"])
def test_a_module_that_is_no_site_is_refused(layer_type: str) -> None:
    with pytest.raises(InterventionError, match="no site here"):
        import_vector(Layers({1: values()}, layer_type), tiny("llama"), concept="joy")


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(InterventionError, match="blocks 0 to 2"):
        import_vector(Layers({3: values()}), tiny("llama"), concept="joy")
    with pytest.raises(InterventionError, match="16 numbers"):
        import_vector(Layers({1: values()[:16]}), tiny("llama"), concept="joy")
    with pytest.raises(InterventionError, match="at one site at least"):
        import_vector(Layers({}), tiny("llama"), concept="joy")
    with pytest.raises(InterventionError, match="not finite"):
        import_vector(Layers({1: values() / 0}), tiny("llama"), concept="joy")


@pytest.mark.parametrize("obj", [None, {1: values()}, SteeringVector({ONE: values()}, {}, "joy", "by hand")])
def test_another_object_is_refused(obj: Any) -> None:
    with pytest.raises(ConfigError, match="no vector of repeng"):
        import_vector(obj, tiny("llama"), concept="joy")


def test_a_vector_for_another_kind_of_model_is_taken_with_a_warning() -> None:
    with pytest.warns(UserWarning, match="'gpt2'; tiny-llama is a LlamaForCausalLM"):
        import_vector(Control("gpt2", {1: values().numpy()}), tiny("llama"), concept="joy")
    for hint, family in (("gpt_neox", "neox"), ("qwen3", "qwen3"), ("gemma2", "gemma2"), ("gptj", "gptj")):
        import_vector(Control(hint, {1: values().numpy()}), tiny(family), concept="joy")


def repeng_itself(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(np, "float_", np.float64, raising=False)  # repeng 0.4.0 asks for what NumPy 2 took out
    return pytest.importorskip("repeng")


def test_repeng_reads_our_files_and_we_read_its(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    repeng = repeng_itself(monkeypatch)
    ours = SteeringVector({ONE: values(1), TWO: values(2)}, {ONE: 4.0, TWO: 5.0}, "joy", "mean_diff")
    theirs = repeng.ControlVector.import_gguf(export_gguf(ours, tmp_path / "ours.gguf", dose=0.5, model_hint="llama"))
    theirs.export_gguf(tmp_path / "theirs.gguf")
    back = import_gguf(tmp_path / "theirs.gguf", tiny("llama"))

    assert theirs.model_type == "llama"
    assert theirs.directions.keys() == {1, 2}
    for site in (ONE, TWO):
        assert torch.equal(torch.from_numpy(np.array(theirs.directions[site.layer])), ours.step(site, 0.5))
        assert torch.equal(back[site], ours.step(site, 0.5))
        assert torch.equal(import_vector(theirs, tiny("llama"), concept="joy")[site], ours.step(site, 0.5))


def test_repeng_steers_as_the_imported_vector_does(monkeypatch: pytest.MonkeyPatch) -> None:
    repeng = repeng_itself(monkeypatch)
    theirs = repeng.ControlVector("llama", {1: values(1).numpy(), 2: values(2).numpy()})
    controlled, rows = repeng.ControlModel(plain("llama"), [1, 2]), random_rows(1, 9)  # it takes one row at a time
    controlled.set_control(theirs, 1.5)
    model = tiny("llama")
    with model.apply(add(import_vector(theirs, model, concept="joy"), 1.5, unit="raw")):
        steered = model.all_logits(rows)

    torch.testing.assert_close(steered, controlled(torch.tensor(rows)).logits, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("layer_type", ["decoder_block", "self_attn", "mlp"])
def test_steering_vectors_steers_as_the_imported_vector_does(layer_type: str) -> None:
    package: Any = pytest.importorskip("steering_vectors")
    theirs = package.SteeringVector({1: values(1), 2: values(2)}, layer_type)
    hf, model, rows = plain("llama"), tiny("llama"), random_rows(2, 9)
    with theirs.apply(hf, multiplier=1.5), torch.no_grad():
        expected = hf(torch.tensor(rows)).logits
    with model.apply(add(import_vector(theirs, model, concept="joy"), 1.5, unit="raw")):
        steered = model.all_logits(rows)

    torch.testing.assert_close(steered, expected, rtol=1e-4, atol=1e-4)
