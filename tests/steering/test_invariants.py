"""I1 to I10: what the decode loop promises, whatever the family, the padding and the company."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from mechint.model.base import Logits
from mechint.model.transformer_lens import TransformerLensModel
from mechint.positions import TokenBatch, everywhere, generated, prompt
from mechint.steering.generation import Completions, generate
from mechint.steering.methods import Edit, LogitsMethod, StepState
from mechint.steering.parts import add, project_out
from mechint.steering.plan import Plan
from tests.families import VOCAB, plain, tiny, tokenizer
from tests.steering.few import FAMILIES, NO_END, PRODUCING, PROMPTS, SITE, by_transformers, vector

N = 14
GREEDY: dict[str, Any] = {"max_new_tokens": N, "logits": "all"}
SAMPLED: dict[str, Any] = {**GREEDY, "temperature": 1.3, "top_k": 30, "top_p": 0.95, "seed": 3}
every_family = pytest.mark.parametrize("family", FAMILIES)
both_ways = pytest.mark.parametrize("how", [GREEDY, SAMPLED], ids=["greedy", "sampled"])


@pytest.fixture(autouse=True)
def endless(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let texts go on to their last token: random models hit an end-of-text token by chance."""
    monkeypatch.setattr(TransformerLensModel, "end_tokens", NO_END)


def tokens(found: Completions) -> list[list[int]]:
    return [list(one.tokens) for one in found]


def plan(dose: float = 1.5) -> Plan:
    return add(vector(), dose, where=PRODUCING) + add(vector(1), lambda t: 0.1 * t, where=generated(2, 9))


class Bias(LogitsMethod):
    """Adds to the logits of a few tokens, more with every token written."""

    def __init__(self, ids: Sequence[int], size: float) -> None:
        self.ids, self.size = torch.tensor(ids), size

    def edit(self, t: Tensor) -> Edit:
        return Edit(bias=(self.ids, self.size * (1 + t)[:, None].expand(-1, len(self.ids)).float()))


class Nosy:
    """Tries something on the side for every row at every step, and does nothing with it."""

    sites = (SITE,)

    def start(self, model: Any, n_rows: int) -> None:
        self.seen = 0

    def step(self, state: StepState) -> None:
        places = [1, 0] if len(state.rows) > 1 else [0]
        branches = state.probe(places, "w40 w41", max_new_tokens=3)
        assert sorted(branches) == sorted(places)
        assert all(len(b.tokens) == 3 for b in branches.values())
        self.seen += 1


@every_family
@pytest.mark.parametrize("prompts", [PROMPTS[:1], PROMPTS], ids=["one", "padded"])
def test_i1_without_intervention_it_is_transformers_generate(family: str, prompts: list[str]) -> None:
    model = tiny(family)

    found = generate(model, prompts, max_new_tokens=N)

    assert tokens(found) == by_transformers(family, [model.tokenize(p) for p in prompts], N)


@every_family
@pytest.mark.parametrize("where", [everywhere, PRODUCING, generated(3, 7), prompt(slice(1, 3))], ids=str)
def test_i1_steered_it_is_transformers_with_the_same_raw_hook(family: str, where: Any) -> None:
    model, step = tiny(family), vector().step(SITE, 3.0)
    rows = [model.tokenize(p) for p in PROMPTS]

    found = generate(model, PROMPTS, add(vector(), 3.0, where=where), max_new_tokens=N)

    assert tokens(found) == by_transformers(family, rows, N, step, where)
    assert tokens(found) != by_transformers(family, rows, N)


@every_family
@both_ways
def test_i2_a_row_is_the_same_alone_and_in_company(family: str, how: dict[str, Any]) -> None:
    model = tiny(family)
    together = generate(model, PROMPTS, plan(), **how)

    for one, text in zip(together, PROMPTS, strict=True):
        alone = generate(model, text, plan(), **how)[0]
        assert alone.tokens == one.tokens
        torch.testing.assert_close(alone.logits, one.logits, rtol=1e-4, atol=1e-4)
    apart = generate(model, PROMPTS, plan(), batch_size=2, **how)
    assert tokens(apart) == tokens(together)


@every_family
def test_i3_the_cached_run_is_a_full_recomputation(family: str) -> None:
    model = tiny(family)
    written = generate(model, PROMPTS, plan(), read=[SITE], **SAMPLED)

    for text, one in zip(PROMPTS, written, strict=True):
        start = model.tokenize(text)
        batch = TokenBatch.from_rows([[*start, *one.tokens]], prompt_lengths=[len(start)])
        with model.apply(plan()):
            run = model.run(batch, read=[SITE], logits=Logits(at=everywhere))
        assert run.logits is not None
        torch.testing.assert_close(run.logits[0, len(start) - 1 : -1], one.logits, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(
            run[SITE][0, len(start) - 1 : -1], one.activations[SITE], rtol=1e-4, atol=1e-4
        )  # I10: what was recorded while writing is what a reader of the same text sees


@every_family
@both_ways
def test_i4_strength_zero_is_the_identity_bit_by_bit(family: str, how: dict[str, Any]) -> None:
    model = tiny(family)
    nothing = (
        add(vector(), 0.0, where=PRODUCING)
        + add(vector(1), 0.0, norm="preserve", unit="token")
        + project_out(vector(2), 0.0).resolving("raise")
    )

    steered = generate(model, PROMPTS, nothing, methods=[Bias([5, 9], 0.0)], **how)
    plainly = generate(model, PROMPTS, **how)

    assert tokens(steered) == tokens(plainly)
    assert all(torch.equal(a.logits, b.logits) for a, b in zip(steered, plainly, strict=True))


@every_family
@both_ways
def test_i5_a_probe_at_every_step_changes_nothing(family: str, how: dict[str, Any]) -> None:
    model, nosy = tiny(family), Nosy()

    probed = generate(model, PROMPTS, plan(), methods=[nosy], **how)
    left_alone = generate(model, PROMPTS, plan(), **how)

    assert nosy.seen == N
    assert tokens(probed) == tokens(left_alone)
    assert all(torch.equal(a.logits, b.logits) for a, b in zip(probed, left_alone, strict=True))
    assert probed.receipt is not None
    assert left_alone.receipt is not None
    assert probed.receipt.table().equals(left_alone.receipt.table())


def test_i5_a_probe_says_what_the_row_would_have_written() -> None:
    model = tiny("gemma3")
    branches: list[Any] = []

    class Once(Nosy):
        def step(self, state: StepState) -> None:
            if not branches:
                places = [list(state.rows).index(row) for row in (2, 0)]
                found = state.probe(places, "w40 w41", max_new_tokens=5)
                branches.append({row: found[place] for row, place in zip((2, 0), places, strict=True)})

    generate(model, PROMPTS, max_new_tokens=2, methods=[Once()])

    for row in (0, 2):
        expected = generate(model, f"{PROMPTS[row]} w40 w41", max_new_tokens=5, measure=True)[0]
        assert branches[0][row].tokens == expected.tokens
        assert branches[0][row].entropy == pytest.approx(expected.entropy, rel=1e-4)


@both_ways
def test_i6_the_order_of_additive_edits_does_not_matter(how: dict[str, Any]) -> None:
    model, methods = tiny("llama"), [Bias([5, 9], 0.7), Bias([9, 12, 9], -0.4), Bias([3], 2.0)]
    parts = plan().parts

    one = generate(model, PROMPTS, Plan(parts), methods=methods, **how)
    other = generate(model, PROMPTS, Plan(parts[::-1]), methods=methods[::-1], **how)

    assert tokens(one) == tokens(other)
    assert tokens(one) != tokens(generate(model, PROMPTS, Plan(parts), **how))


@every_family
def test_i7_neither_prompt_length_nor_padding_shifts_a_schedule(family: str) -> None:
    model = tiny(family)
    scheduled = add(vector(), lambda t: float(t + 2), where=prompt(-1) | generated(0, 5))

    receipt = generate(model, PROMPTS, scheduled, max_new_tokens=N).receipt

    assert receipt is not None
    fired = receipt.to_frame("tokens")
    lengths = [len(model.tokenize(p)) for p in PROMPTS]
    for row, length in enumerate(lengths):
        mine = fired[fired["row"] == row].sort_values("position")
        assert mine["position"].tolist() == list(range(length - 1, length + 5))
        assert mine["t"].tolist() == [-1, 0, 1, 2, 3, 4]
        assert mine["dose"].tolist() == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("where", ["in a part", "in a method", "in the user's own code"])
def test_i8_an_exception_leaves_no_hook_behind(where: str) -> None:
    model = TransformerLensModel(plain("gemma3"), tokenizer(), name="fresh")
    before = model.run([[0, 5, 6]], logits=Logits()).logits

    def broken(t: int) -> float:
        if t == 3:
            raise RuntimeError("broken schedule")
        return 1.0

    class Broken(LogitsMethod):
        def edit(self, t: Tensor) -> None:
            if int(t[0]) == 3:
                raise RuntimeError("broken method")

    def run() -> None:
        if where == "in a part":
            generate(model, PROMPTS, add(vector(), broken), max_new_tokens=N)
        elif where == "in a method":
            generate(model, PROMPTS, plan(), methods=[Broken()], max_new_tokens=N)
        else:
            with model.apply(plan()):
                raise RuntimeError("broken cell")

    with pytest.raises(RuntimeError, match="broken"):
        run()

    assert model.steerings == ()
    assert all(not point.fwd_hooks for point in model._points.values())
    assert not model.hf_model.base_model._forward_pre_hooks
    assert torch.equal(model.run([[0, 5, 6]], logits=Logits()).logits, before)


@both_ways
def test_i9_forced_tokens_come_exactly_once_in_order_and_draws_stay_aligned(how: dict[str, Any]) -> None:
    model = tiny("qwen3")

    class Force(Nosy):
        def step(self, state: StepState) -> Edit:
            due = [place for place, row in enumerate(state.rows) if row == 1 and int(state.t[place]) == 4]
            return Edit(force=dict.fromkeys(due, (40, 41, 42)))

    forced = generate(model, PROMPTS, methods=[Force()], **how)
    free = generate(model, PROMPTS, **how)

    assert forced[1].tokens[:4] == free[1].tokens[:4]
    assert forced[1].tokens[4:7] == (40, 41, 42)
    assert forced[1].forced == (*[False] * 4, *[True] * 3, *[False] * (N - 7))
    assert [tokens(forced)[i] for i in (0, 2, 3)] == [tokens(free)[i] for i in (0, 2, 3)]


@both_ways
def test_i9_draws_stay_aligned_when_tokens_are_forced(how: dict[str, Any]) -> None:
    model = tiny("qwen3")
    free = generate(model, PROMPTS, **how)

    class ForceWhatWouldCome(Nosy):
        def step(self, state: StepState) -> Edit:
            due = [place for place in range(len(state.rows)) if int(state.t[place]) == 4]
            return Edit(force={place: free[state.rows[place]].tokens[4:7] for place in due})

    assert tokens(generate(model, PROMPTS, methods=[ForceWhatWouldCome()], **how)) == tokens(free)


@every_family
def test_recording_without_a_second_pass_keeps_places_and_tokens_apart(family: str) -> None:
    model = tiny(family)

    found = generate(model, PROMPTS, read={SITE: everywhere, "final_norm": generated(1, 3)}, measure=True, **GREEDY)

    for text, one in zip(PROMPTS, found, strict=True):
        length = len(model.tokenize(text))
        assert one.places[SITE] == tuple(range(length + N - 1))  # the last token is never read
        assert [p - length for p in one.places[model.facts.check("final_norm")]] == [1, 2]
        assert one.logits is not None
        assert one.logits.shape == (N, VOCAB)
        log_p = one.logits.double().log_softmax(-1)
        expected = log_p[torch.arange(N), torch.tensor(one.tokens)]
        torch.testing.assert_close(torch.tensor(one.logprob), expected.float())
        torch.testing.assert_close(torch.tensor(one.entropy), -(log_p.exp() * log_p).sum(-1).float())


def test_own_runs_and_foreign_loops_are_steered_alike() -> None:
    model = tiny("gemma3")
    ids = torch.tensor([model.tokenize(PROMPTS[2])])

    with model.apply(plan()) as run:
        theirs = model.hf_model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=N,
            do_sample=False,
            eos_token_id=None,
            pad_token_id=0,
        )

    assert theirs[0, ids.shape[1] :].tolist() == list(generate(model, PROMPTS[2], plan(), max_new_tokens=N)[0].tokens)
    ours = generate(model, PROMPTS[2], plan(), max_new_tokens=N).receipt
    assert ours is not None
    assert run.receipt.to_frame("tokens").equals(ours.to_frame("tokens"))
