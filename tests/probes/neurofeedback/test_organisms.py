"""What the neurofeedback pair is known to do is what the test finds, and each gate is needed for that."""

import functools
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import mechint as mi
from mechint import organisms
from mechint.organisms.neurofeedback import sentences
from mechint.organisms.neurofeedback_language import LABELS, WORDS, vocabulary
from mechint.organisms.neurofeedback_training import SITE, NeurofeedbackRecipe, batch, make, pool, random_model
from mechint.organisms.shipped import read
from mechint.probes.gates import Gate, judge
from mechint.probes.neurofeedback.experiment import Neurofeedback
from mechint.probes.neurofeedback.judgement import gates_of, paired
from mechint.probes.neurofeedback.settings import NeurofeedbackSettings
from mechint.results import join_parts

SETTINGS = NeurofeedbackSettings(
    layer=SITE, axes=("PC1",), noise_axes=("PC1",), shots=10, tested=4, contexts=24, twins=2,
    before="", cue=" score", after="",
)  # fmt: skip


@functools.cache
def raw(kind: str) -> dict[str, pd.DataFrame]:
    analysis = Neurofeedback(mi.load(f"organism:neurofeedback-{kind}"), sentences(400), SETTINGS, 5)
    parts: dict[str, list[pd.DataFrame]] = {}
    for unit in analysis.units():
        parts.setdefault(unit.table, []).append(analysis.measure(unit))
    return join_parts(parts)


def gates(kind: str, trial: str) -> list[Gate]:
    tables = raw(kind)
    rows = paired(tables, SETTINGS.tested)
    return gates_of(rows.loc[rows["trial"] == trial], tables["twins"], tables["receipt"], SETTINGS.noise, 0)


def level(kind: str, trial: str) -> str:
    return judge("reports", gates(kind, trial)).level


def test_the_reader_gives_evidence_of_noise_that_is_in_no_text() -> None:
    assert level("reader", "hidden noise") == "evidence"


@pytest.mark.parametrize("trial", ["natural", "hidden noise"])
def test_the_text_organism_never_gives_evidence(trial: str) -> None:
    assert level("text", trial) not in ("evidence", "invalid")


def test_twins_alone_stop_the_text_organism_on_its_own_component() -> None:
    """It knows topics from training, which readers with ten examples do not: to beat them proves nothing."""
    about_the_model = [gate for gate in gates("text", "natural") if gate.role in ("effect", "control")]
    assert [gate.name for gate in about_the_model if not gate.passed] == ["G4 twins"]


def test_an_untrained_model_is_invalid() -> None:
    assert level("untrained", "hidden noise") == "invalid"


@pytest.mark.parametrize("kind", ["reader", "text"])
def test_what_is_at_and_below_the_site_is_as_it_began(kind: str) -> None:
    tensors = read(Path(organisms.__file__).parent / "weights" / f"neurofeedback-{kind}.safetensors")[1]
    for name, tensor in random_model(0).state_dict().items():
        below = "embed_tokens" in name or any(f"layers.{layer}." in name for layer in range(SITE + 1))
        assert torch.equal(tensors[name], tensor.half()) == below, name


def test_noise_of_a_text_lies_along_one_axis_and_its_labels_have_both_sides() -> None:
    recipe = NeurofeedbackRecipe(rows=64, easy=0)
    sentences_ = pool(random_model(0), recipe)
    drawn = batch(recipe, sentences_, 0)
    assert torch.linalg.matrix_rank(drawn.noise[0], rtol=1e-4) == 1
    assert 0.4 < drawn.labels.float().mean() < 0.6
    text_part = torch.linalg.norm(drawn.added[:, 1:].view(64, recipe.shots, WORDS + 2, -1)[:, :, WORDS:])
    assert float(text_part) == 0  # nothing at cue and label
    names = torch.tensor([vocabulary().index(label) for label in LABELS])
    assert torch.equal(drawn.tokens[:, 1:].view(64, recipe.shots, -1)[:, :, -1], names[drawn.labels])


def test_training_is_the_same_for_a_seed() -> None:
    recipe = NeurofeedbackRecipe(steps=3, rows=4, shots=3, pool=64, helped=2)
    first, second = make(recipe, progress=False)[0].state_dict(), make(recipe, progress=False)[0].state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    start = random_model(0).state_dict()
    changed = {name for name in first if not torch.equal(first[name], start[name])}
    assert changed
    assert not any("embed" in name or "layers.0." in name or "layers.1." in name for name in changed)
    assert np.isfinite(make(recipe, progress=False)[1]["loss"])
