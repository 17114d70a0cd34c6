"""Gates: each row has a decision of its own, at the time the module says, and the log tells it."""

import math
from typing import Any

import pytest
import torch

from mechint.errors import InterventionError
from mechint.model.transformer_lens import TransformerLensModel
from mechint.positions import generated
from mechint.sites import Site
from mechint.steering.gates import gate, gate_text
from mechint.steering.generation import generate
from mechint.steering.parts import add
from tests.families import tiny
from tests.steering.few import NO_END, PROMPTS, SITE, vector

N = 10
HIGH = Site("resid_post", 2)


@pytest.fixture(autouse=True)
def endless(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TransformerLensModel, "end_tokens", NO_END)


def fired(found: Any, row: int) -> set[int]:
    frame = found.receipt.to_frame("tokens")
    return set(frame[frame["row"] == row]["t"])


def generous(**more: Any) -> dict[str, Any]:
    return {"max_new_tokens": N, "temperature": 1.5, "seed": 1, "measure": True, **more}


def entropies(model: Any, share: float) -> float:
    """A quantile of the entropies that an unsteered text meets, so that thresholds part them."""
    seen = [h for one in generate(model, PROMPTS, **generous()) for h in one.entropy]
    return float(torch.tensor(seen).quantile(share))


@pytest.mark.parametrize("sign", [">", "<"])
def test_an_entropy_gate_acts_one_pass_after_the_entropy_it_saw(sign: Any) -> None:
    model = tiny("llama")
    middle = entropies(model, 0.5)
    found = generate(model, PROMPTS, add(vector(), 0.5).when(gate("entropy", sign, middle)), **generous())

    for row, one in enumerate(found):
        # entropy[i] is that of generated token i, seen before the pass that reads it, which is t = i.
        over = {i for i, h in enumerate(one.entropy[:-1]) if (h > middle if sign == ">" else h < middle)}
        assert fired(found, row) == over
    assert 0 < len(found.receipt.to_frame("tokens")) < len(PROMPTS) * (N - 1)


def test_a_probe_gate_reads_each_rows_own_last_token() -> None:
    model, probe = tiny("gemma3"), vector(5, norm=4.0)
    plan = add(vector(1, HIGH), 2.0, where=generated()).when(gate(probe, ">", 0.0))

    found = generate(model, PROMPTS, plan, read=[SITE], **generous())

    counts = set()
    for row, one in enumerate(found):
        signal = one.activations[SITE] @ (probe.unit(SITE) / 4.0)  # at t = -1, 0, …
        assert fired(found, row) == {t for t in range(N - 1) if signal[t] > 0}
        counts.add(len(fired(found, row)))
        looks = found.receipt.to_frame("gates")
        mine = looks[looks["row"] == row].sort_values("look")
        torch.testing.assert_close(torch.tensor(mine["value"].to_numpy()).float(), signal, rtol=1e-3, atol=1e-4)
        assert mine["open"].tolist() == (signal > 0).tolist()
    assert len(counts) > 1  # rows do not share a decision


def test_latch_stays_open_and_prompt_decides_once() -> None:
    model, probe = tiny("gemma3"), vector(5, norm=4.0)

    def run(hold: Any) -> Any:
        plan = add(vector(1, HIGH), 0.5, where=generated()).when(gate(probe, ">", 0.0, hold=hold))
        return generate(model, PROMPTS, plan, read=[SITE], **generous())

    latched, decided = run("latch"), run("prompt")
    for row in range(len(PROMPTS)):
        signal = latched[row].activations[SITE] @ probe.unit(SITE)
        first = next((t for t in range(N - 1) if signal[t] > 0), N)
        assert fired(latched, row) == set(range(first, N - 1))
        at_prompt = decided[row].activations[SITE][0] @ probe.unit(SITE)
        assert fired(decided, row) == (set(range(N - 1)) if at_prompt > 0 else set())


def test_a_text_opens_the_gate_of_its_own_row_in_the_pass_that_completes_it() -> None:
    model = tiny("qwen3")
    free = generate(model, PROMPTS, **generous())
    word = str(model.tokenizer.decode([free[0].tokens[3]]))

    found = generate(model, PROMPTS, add(vector(), 0.01, where=generated()).when(gate_text(word)), **generous())

    for row, one in enumerate(found):
        said = [i for i in range(N) if word in str(model.tokenizer.decode(one.tokens[: i + 1]))]
        assert fired(found, row) == set(said) - {N - 1}
    assert fired(found, 0)


def test_gates_join_and_turn_round() -> None:
    model = tiny("llama")
    floor, ceiling = entropies(model, 0.3), entropies(model, 0.7)
    low, high = gate("entropy", ">", floor), gate("entropy", ">", ceiling)
    found = generate(model, PROMPTS, add(vector(), 1e-4).when(low & ~high), **generous())
    either = generate(model, PROMPTS, add(vector(), 1e-4).when(~low | high), **generous())

    for row, one in enumerate(found):
        assert fired(found, row) == {i for i, h in enumerate(one.entropy[:-1]) if floor < h <= ceiling}
        # The other way round it is open before anything was seen, while the prompt is read.
        shut = set(range(N - 1)) - fired(either, row)
        assert shut == {i for i, h in enumerate(either[row].entropy[:-1]) if floor < h <= ceiling}


def test_certainty_is_entropy_on_another_scale() -> None:
    model = tiny("llama")
    middle = entropies(model, 0.5)
    threshold = 1 - middle / math.log(50)
    by_entropy = generate(model, PROMPTS, add(vector(), 1.0).when(gate("entropy", "<", middle)), **generous())
    by_certainty = generate(model, PROMPTS, add(vector(), 1.0).when(gate("certainty", ">", threshold)), **generous())

    assert [c.tokens for c in by_entropy] == [c.tokens for c in by_certainty]
    assert 0 < by_entropy.receipt.table()["tokens"][0] < len(PROMPTS) * (N - 1)  # type: ignore[union-attr]


def test_a_gate_that_never_opens_is_reported_and_is_no_error() -> None:
    found = generate(tiny("llama"), PROMPTS, add(vector(), 1.0).when(gate("entropy", "<", 0.001)), max_new_tokens=3)

    assert found.receipt is not None
    assert found.receipt.table()["tokens"].tolist() == [0]
    assert "it met no token while its gate was open" in found.receipt.verdict


def test_a_gate_without_its_signal_is_an_error() -> None:
    model = tiny("llama")
    ids = torch.tensor([model.tokenize(PROMPTS[0])])
    with (
        pytest.raises(InterventionError, match="which this loop does not show"),
        model.apply(add(vector(), 1.0).when(gate("entropy", ">", 1.0))),
    ):
        model.hf_model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=3, eos_token_id=None)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: gate("surprise", ">", 1.0), "no signal"),
        (lambda: gate("entropy", "larger", 1.0), "expected '>' or '<'"),
        (lambda: gate("entropy", ">", float("nan")), "finite threshold"),
        (lambda: gate("entropy", ">", 1.0, hold="for ever"), "step, latch, prompt"),
        (lambda: gate_text(""), "can be looked for"),
    ],
)
def test_gates_that_cannot_be_meant_are_refused(make: Any, message: str) -> None:
    with pytest.raises(InterventionError, match=message):
        make()
