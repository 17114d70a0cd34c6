"""I1 to I5 on the real model, and beyond its window of 512 tokens, where most blocks have forgotten the beginning."""

from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor
from transformers import (
    LogitsProcessor,
    LogitsProcessorList,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from mechint.model.base import Logits, Model
from mechint.model.loading import load, load_parts
from mechint.model.transformer_lens import TransformerLensModel
from mechint.positions import TokenBatch
from mechint.sites import Site
from mechint.steering.generation import Completions, generate
from mechint.steering.methods import StepState
from mechint.steering.parts import add, project_out
from mechint.steering.plan import Plan
from mechint.steering.sampling import draw, generators
from mechint.vectors.vector import SteeringVector
from tests.steering.few import NO_END, PRODUCING

pytestmark = pytest.mark.real
SITE = Site("resid_post", 9)
PROMPTS = [
    "The weather",
    "I went to the shop to buy some bread, and on the way home I met",
    "Once upon a time there was",
]
N, WINDOW, FAR, DOSE = 5, 512, 40, 0.1
HOW: dict[str, dict[str, Any]] = {
    "greedy": {"logits": "all"},
    "sampled": {"logits": "all", "temperature": 1.3, "top_k": 30, "top_p": 0.95, "seed": 3},
}
both_ways = pytest.mark.parametrize("how", HOW)
steered_or_not = pytest.mark.parametrize("steered", [False, True], ids=["unsteered", "steered"])
Written = Mapping[tuple[bool, str], Completions]


class Gemma(NamedTuple):
    """The model behind the backend, the same untouched by any, and vectors in units of its activations."""

    model: Model
    plain: Any
    norm: float

    def vector(self, seed: int = 0) -> SteeringVector:
        direction = torch.randn(self.model.facts.d_model, generator=torch.Generator().manual_seed(seed))
        about = {"weights": self.model.fingerprint["weights"]}
        return SteeringVector({SITE: direction}, {SITE: self.norm}, f"concept {seed}", "random", about)

    def plan(self, steered: bool) -> Plan | None:
        return add(self.vector(), DOSE, where=PRODUCING) if steered else None

    def rows(self, prompts: list[str]) -> list[list[int]]:
        return [self.model.tokenize(text) for text in prompts]

    def write(self, prompts: list[str], steered: bool, how: str, **settings: Any) -> Completions:
        return generate(self.model, prompts, self.plan(steered), **{"max_new_tokens": N, **HOW[how], **settings})


@pytest.fixture(scope="module")
def gemma() -> Iterator[Gemma]:
    model = load("gemma3-270m")
    h = model.run([model.tokenize(PROMPTS[1])], read=[SITE])[SITE][0, 1:]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TransformerLensModel, "end_tokens", NO_END)
        yield Gemma(model, load_parts("gemma3-270m").hf_model, float(h.norm(dim=-1).median()))


@pytest.fixture(scope="module")
def written(gemma: Gemma) -> Written:
    """What follows all prompts together, by whether steered and how."""
    return {(steered, how): gemma.write(PROMPTS, steered, how, read=[SITE]) for steered in (False, True) for how in HOW}


def tokens(found: Completions) -> list[list[int]]:
    return [list(one.tokens) for one in found]


class Drawn(LogitsProcessor):
    """Ends transformers' own chain of filters with a draw from the generators of our rows."""

    def __init__(self, prompts: list[str], seed: int) -> None:
        self.generators = generators(prompts, seed)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        chosen = draw(scores, self.generators)
        return torch.full_like(scores, -torch.inf).scatter(1, chosen[:, None], 0.0)


def by_transformers(gemma: Gemma, prompts: list[str], n: int, steered: bool, how: str) -> list[list[int]]:
    """What plain transformers writes, with its own cache, padding and filters, and a raw hook for the steering."""
    batch = TokenBatch.from_rows(gemma.rows(prompts), pad_left=True)
    width, step, seen = batch.ids.shape[1], gemma.vector().step(SITE, DOSE), [0]

    def hook(module: Any, args: Any, output: Any) -> Any:
        h = output[0] if isinstance(output, tuple) else output
        # Rows end together: the token before the first new one is the last of the prompt pass.
        first, seen[0] = width - 1 - seen[0], seen[0] + h.shape[1]
        new = h.clone()
        new[:, max(first, 0) :] += step
        return (new, *output[1:]) if isinstance(output, tuple) else new

    chain = LogitsProcessorList()
    if how == "sampled":
        given = HOW[how]
        chain.extend([TemperatureLogitsWarper(given["temperature"]), TopKLogitsWarper(given["top_k"])])
        chain.extend([TopPLogitsWarper(given["top_p"]), Drawn(prompts, given["seed"])])
    handle = gemma.plain.model.layers[SITE.layer].register_forward_hook(hook) if steered else None
    try:
        out = gemma.plain.generate(
            batch.ids,
            attention_mask=batch.real.long(),
            max_new_tokens=n,
            do_sample=False,
            eos_token_id=None,
            pad_token_id=0,
            logits_processor=chain,
        )
    finally:
        if handle is not None:
            handle.remove()
    return out[:, width:].tolist()


def require_close(found: Any, expected: Any) -> None:
    """Compare to 1e-5 of the largest: logits reach 40 here, and plain transformers in one pass is 9e-5 from float64."""
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5 * float(expected.abs().max()))


def require_same_when_read_at_once(gemma: Gemma, text: str, written: Any, plan: Plan | None) -> None:
    """Read a row alone, prompt and what was written after it, in a single pass without a cache."""
    start = gemma.model.tokenize(text)
    batch = TokenBatch.from_rows([[*start, *written.tokens]], prompt_lengths=[len(start)])
    with nullcontext() if plan is None else gemma.model.apply(plan):
        run = gemma.model.run(batch, read={SITE: PRODUCING}, logits=Logits(at=PRODUCING))
    # The last token is read here, and never was while writing.
    require_close(written.logits, run.logits[0, :-1])
    require_close(written.activations[SITE], run[SITE][0, :-1])


class Nosy:
    """Tries something on the side at steps from one on, and does nothing with it."""

    sites = (SITE,)

    def __init__(self, first: int = 0) -> None:
        self.first = first

    def start(self, model: Model, n_rows: int) -> None:
        self.seen = 0

    def step(self, state: StepState) -> None:
        if int(state.t[0]) >= self.first:
            branches = state.probe(list(range(len(state.rows)))[::-1], " and then", max_new_tokens=1)
            assert all(len(b.tokens) == 1 for b in branches.values())
            self.seen += len(branches)


@both_ways
@steered_or_not
def test_i1_it_is_transformers_generate(gemma: Gemma, written: Written, steered: bool, how: str) -> None:
    found = tokens(written[steered, how])

    assert found == by_transformers(gemma, PROMPTS, N, steered, how)
    assert found[1:2] == by_transformers(gemma, PROMPTS[1:2], N, steered, how)  # alone, which is the same here: I2


@both_ways
@steered_or_not
def test_i2_a_row_is_the_same_alone_and_in_company(gemma: Gemma, written: Written, steered: bool, how: str) -> None:
    for together, text in zip(written[steered, how], PROMPTS, strict=True):
        (alone,) = gemma.write([text], steered, how)
        assert alone.tokens == together.tokens
        require_close(alone.logits, together.logits)


@both_ways
@steered_or_not
def test_i3_the_cached_run_is_a_full_recomputation(gemma: Gemma, written: Written, steered: bool, how: str) -> None:
    for text, one in zip(PROMPTS, written[steered, how], strict=True):
        require_same_when_read_at_once(gemma, text, one, gemma.plan(steered))


@both_ways
@steered_or_not
def test_i4_strength_zero_is_the_identity_bit_by_bit(gemma: Gemma, written: Written, steered: bool, how: str) -> None:
    nothing = add(gemma.vector(1), 0.0, norm="preserve", unit="token") + project_out(gemma.vector(2), 0.0)
    plan = gemma.plan(steered)

    zero = generate(gemma.model, PROMPTS, nothing if plan is None else plan + nothing, max_new_tokens=N, **HOW[how])

    assert tokens(zero) == tokens(written[steered, how])
    assert all(torch.equal(a.logits, b.logits) for a, b in zip(zero, written[steered, how], strict=True))


@both_ways
@steered_or_not
def test_i5_a_probe_at_every_step_changes_nothing(gemma: Gemma, written: Written, steered: bool, how: str) -> None:
    nosy = Nosy()

    probed = gemma.write(PROMPTS, steered, how, methods=[nosy])

    assert nosy.seen == N * len(PROMPTS)
    assert tokens(probed) == tokens(written[steered, how])
    assert all(torch.equal(a.logits, b.logits) for a, b in zip(probed, written[steered, how], strict=True))


def test_each_of_these_ways_writes_something_else(written: Written) -> None:
    """Without this, the others could agree because nothing that they vary has any effect."""
    for row in range(len(PROMPTS)):
        assert len({way[row].tokens for way in written.values()}) == len(written)


@pytest.fixture(scope="module")
def long_prompts(gemma: Gemma) -> list[str]:
    """Two of 505 and 495 tokens: they outgrow the window 7 and 17 tokens after they are read."""
    text = " ".join(f"On day {i} we walked {i % 7 + 2} miles and saw {i % 5 + 3} birds." for i in range(1, 60))
    ids = gemma.model.tokenize(text)
    found = [gemma.model.tokenizer.decode(ids[1:n]) for n in (505, 495)]
    assert [len(row) for row in gemma.rows(found)] == [505, 495]
    return found


def test_i1_and_i3_hold_while_the_window_is_outgrown(gemma: Gemma, long_prompts: list[str]) -> None:
    found = gemma.write(long_prompts, False, "greedy", max_new_tokens=FAR, read=[SITE])

    assert tokens(found) == by_transformers(gemma, long_prompts, FAR, False, "greedy")
    require_same_when_read_at_once(gemma, long_prompts[1], found[1], None)  # the one that was padded


def test_i2_i3_and_i5_hold_while_the_window_is_outgrown_under_steering(gemma: Gemma, long_prompts: list[str]) -> None:
    nosy = Nosy(first=FAR - 3)  # by then both rows have forgotten their beginnings

    found = gemma.write(long_prompts, True, "sampled", max_new_tokens=FAR, read=[SITE], methods=[nosy])

    assert nosy.seen == 3 * len(long_prompts)
    for text, one in zip(long_prompts, found, strict=True):
        require_same_when_read_at_once(gemma, text, one, gemma.plan(True))


def test_a_window_that_is_outgrown_can_be_told_from_one_that_is_not(
    gemma: Gemma, long_prompts: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wider window changes tokens 512 and later, and none before: the two tests above do cross an edge."""
    ids = torch.tensor(gemma.rows(long_prompts[:1]))
    ids = torch.cat([ids, ids[:, 1:16]], 1)

    def states() -> Tensor:
        with torch.no_grad():
            return gemma.plain.model(ids, use_cache=False).last_hidden_state[0]

    usual = states()
    monkeypatch.setattr(gemma.plain.config, "sliding_window", 4 * WINDOW)
    wider = states()

    changed = (wider - usual).norm(dim=-1) > 1e-3 * usual.norm(dim=-1)
    assert changed.tolist() == [False] * WINDOW + [True] * (ids.shape[1] - WINDOW)
