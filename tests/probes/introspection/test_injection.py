"""The instrument is exact: what is injected, where, and that nothing else is."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

import mechint.organisms
from mechint.errors import InterventionError
from mechint.model.base import Logits
from mechint.organisms import load
from mechint.organisms.introspection_material import Invented
from mechint.organisms.introspection_training import directions, random_model
from mechint.organisms.shipped import read
from mechint.positions import TokenBatch, everywhere
from mechint.probes.introspection.battery import CONCEPT, NONE, Battery
from mechint.probes.introspection.cells import Cells
from mechint.probes.introspection.directions import concept_directions, mixture, random_direction
from mechint.probes.introspection.injection import Reader, Row
from mechint.probes.introspection.validity import validity
from mechint.prompts.introspection import Asked
from mechint.sites import Site
from tests.families import FAMILIES, tiny

SITE = Site("resid_post", 1)


def asked(*tokens: int, start: int = 2, stop: int = 5) -> Asked:
    return Asked(tokens, start, stop, {"yes": (7, 8), "no": (9,)})


def direction(width: int, seed: int) -> torch.Tensor:
    return random_direction(width, seed, "test")


def close(a: Any, b: Any) -> bool:
    return torch.allclose(a.log_probs, b.log_probs, atol=1e-4) and a.said == b.said


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_injected_is_what_was_meant_and_nothing_else_changes(family: str):
    model = tiny(family)
    rows = [Row(asked(0, 3, 4, 5, 6, 7, 8), 0.5 * direction(model.facts.d_model, i), held=i == 1) for i in range(3)]
    error, elsewhere = Reader(model, SITE).receipt(rows)
    assert error < 1e-4
    assert elsewhere == 0.0


@pytest.mark.parametrize("family", ["gpt2", "gemma3"])
def test_mixed_rows_are_answered_as_alone(family: str):
    model = tiny(family)
    rows = [
        Row(asked(0, 3, 4, 5, 6, 7, 8), 0.5 * direction(model.facts.d_model, 0)),
        Row(asked(0, 3, 4, 5, 6, 7, 8, 9, 10)),
        Row(asked(0, 9, 4, 5, 6, 7, 8), direction(model.facts.d_model, 1), held=True),
        Row(asked(0, 9, 4, 5, 6, 7, 8, start=1, stop=3), direction(model.facts.d_model, 2)),
    ]
    reader = Reader(model, SITE)
    for together, row in zip(reader.answers(rows), rows, strict=True):
        assert close(together, reader.answers([row])[0])


def test_a_long_beginning_is_read_once_and_changes_nothing():
    model = tiny("gemma3")
    long = (0, *(2 + i % 40 for i in range(20)))
    rows = [
        Row(Asked((*long, 5, 6, 7, 8), 21, 23, {"yes": (7,), "no": (9,)}), vector)
        for vector in (None, direction(model.facts.d_model, 0))
    ]
    reader = Reader(model, SITE)
    shared = reader.answers(rows)
    for one, row in zip(shared, rows, strict=True):
        batch = TokenBatch.from_rows([row.asked.tokens])
        write = reader._writes([row], batch)  # pyright: ignore[reportPrivateUsage]
        logits = model.run(batch, write=write, logits=Logits()).logits
        assert logits is not None
        expected = logits[0, 0].log_softmax(-1)
        assert torch.allclose(one.log_probs, expected[[7, 9]], atol=1e-4)


def test_an_injection_at_the_text_is_one_that_is_switched_off_before_the_question():
    model = tiny("llama")
    row = Row(asked(0, 3, 4, 5, 6, 7, 8), direction(model.facts.d_model, 0))
    reader, past = Reader(model, SITE), model.new_past()
    before, whole = (TokenBatch.from_rows([row.asked.tokens[:end]]) for end in (row.asked.stop, None))
    model.run(before, write=reader._writes([row], before), past=past)  # pyright: ignore[reportPrivateUsage]
    logits = model.run(whole, logits=Logits(), past=past).logits
    assert logits is not None
    expected = logits[0, 0].log_softmax(-1)
    answer = reader.answers([row])[0]
    assert torch.allclose(answer.log_probs, torch.stack([expected[[7, 8]].logsumexp(0), expected[9]]), atol=1e-4)


def test_spellings_of_a_label_are_added_up_and_mass_is_theirs():
    model = tiny("gpt2")
    answer = Reader(model, SITE).answers([Row(asked(0, 3, 4, 5, 6, 3))])[0]
    logits = model.run([[0, 3, 4, 5, 6, 3]], logits=Logits()).logits
    assert logits is not None
    probabilities = logits[0, 0].softmax(-1)
    assert float(answer.log_probs[0].exp()) == pytest.approx(float(probabilities[[7, 8]].sum()), abs=1e-5)
    assert answer.mass == pytest.approx(float(probabilities[[7, 8, 9]].sum()), abs=1e-5)


def test_no_vector_is_no_hook_and_an_error_leaves_none_behind():
    model = tiny("gpt2")
    reader, row = Reader(model, SITE), Row(asked(0, 3, 4, 5, 6, 7))
    before = reader.answers([row])[0]
    with pytest.raises(InterventionError, match="width"):
        reader.answers([replace(row, vector=torch.ones(3))])
    after = reader.answers([row])[0]
    logits = model.run([row.asked.tokens], logits=Logits()).logits
    assert logits is not None
    assert torch.equal(before.log_probs, after.log_probs)
    assert torch.equal(after.log_probs[1], logits[0, 0].log_softmax(-1)[9])


def test_controls_have_draws_of_their_own_and_stand_nearly_at_right_angles():
    width, n = 256, 400
    drawn = torch.stack([random_direction(width, 0, "milk", i) for i in range(n)])
    assert torch.allclose(drawn.norm(dim=1), torch.ones(n), atol=1e-5)
    unit = direction(width, 1)
    assert float((drawn @ unit).abs().mean()) == pytest.approx(math.sqrt(2 / (math.pi * width)), rel=0.15)
    assert float((drawn @ drawn.T - torch.eye(n)).abs().max()) < 0.5


def test_a_mixture_lies_in_the_span_of_concepts_and_is_none_of_them():
    units = torch.linalg.qr(torch.randn(32, 5, generator=torch.Generator().manual_seed(0)))[0].T
    mixed = mixture(units, 0, "milk", 0)
    inside = (mixed @ units.T) @ units
    assert torch.allclose(inside, mixed, atol=1e-5)
    assert float((units @ mixed).max()) < 0.999


def test_directions_are_those_that_the_organism_was_trained_with():
    model = load("organism:introspection-reader")
    found = concept_directions(model, Invented(2), SITE, Invented.concepts)
    hf = random_model(0)
    hf.load_state_dict(_weights("reader"))
    assert float((found * directions(hf, 0)).sum(1).min()) > 0.98


def _weights(kind: str) -> dict[str, torch.Tensor]:
    folder = Path(mechint.organisms.__file__).parent / "weights"
    tensors = read(folder / "introspection-0.safetensors")[1]
    own = {key: value for key, value in tensors.items() if "/" not in key or key.startswith(f"{kind}/")}
    return {key.removeprefix(f"{kind}/"): value.float() for key, value in own.items()}


def test_another_backend_answers_alike():
    rows = [Row(Invented(4).asked("detect", i % 4), direction(64, i) if i % 2 else None) for i in range(8)]
    ours = Reader(load("organism:introspection-reader"), SITE).answers(rows)
    theirs = Reader(load("organism:introspection-reader", backend="nnsight"), SITE).answers(rows)
    for a, b in zip(ours, theirs, strict=True):
        assert torch.allclose(a.log_probs, b.log_probs, rtol=1e-3, atol=1e-4)


class Deaf(Reader):
    """A reader whose injections never arrive."""

    def _writes(self, rows: Any, batch: Any) -> Any:
        del rows, batch
        return {}


def test_a_reader_whose_hooks_do_nothing_gives_no_verdict():
    battery = Battery(load("organism:introspection-reader"), Invented(2), SITE, 1.0)
    battery._reader = Deaf(battery._reader.model, SITE)  # pyright: ignore[reportPrivateUsage]
    receipt = battery.receipt().iloc[0].to_dict()
    asked = [battery.ask(q, arms=(NONE, CONCEPT)) for q in ("detect", "flip 0", "flip 1", "source 0", "unrelated 0")]
    gates = validity("detects", Cells(pd.concat(asked, ignore_index=True)), receipt)
    assert not gates[0].passed
    assert receipt["relative_error"] == pytest.approx(1.0)


def test_the_surprise_at_what_follows_is_that_of_whole_rows_read_anew():
    model = tiny("gemma3")
    begin = (0, *(2 + i % 40 for i in range(20)))
    row = Row(Asked((*begin, 5, 6, 7, 8, 9), 21, 23, {"yes": (7,)}), direction(model.facts.d_model, 0))
    reader = Reader(model, SITE)
    batch = TokenBatch.from_rows([row.asked.tokens])
    write = reader._writes([row], batch)  # pyright: ignore[reportPrivateUsage]
    logits = model.run(batch, write=write, logits=Logits(at=everywhere)).logits
    assert logits is not None
    log_probs = logits[0].log_softmax(-1)
    expected = -sum(float(log_probs[at - 1, row.asked.tokens[at]]) for at in (23, 24, 25)) / 3
    assert reader.continuation_nll([row])[0] == pytest.approx(expected, abs=1e-4)
