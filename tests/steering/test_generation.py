"""Generating: ends of texts, streaming, what cannot be done, and methods in transformers' own loop."""

from typing import Any

import pytest
import torch
from torch import Tensor

from mechint.errors import ConfigError, InterventionError, PositionError, PromptError, SiteError
from mechint.model.transformer_lens import TransformerLensModel
from mechint.prompts import Prompt
from mechint.steering.generation import generate, stream
from mechint.steering.methods import Edit, LogitsMethod, StepState, as_logits_processor
from mechint.steering.parts import add
from tests.families import tiny
from tests.steering.few import NO_END, PROMPTS, by_transformers, vector

DRAWN: dict[str, Any] = {"temperature": 2.0, "max_new_tokens": 12}


@pytest.fixture
def endless(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TransformerLensModel, "end_tokens", NO_END)


def test_an_end_token_ends_its_row_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny("llama")
    monkeypatch.setattr(TransformerLensModel, "end_tokens", NO_END)
    free = generate(model, PROMPTS, **DRAWN)
    end = free[0].tokens[4]
    monkeypatch.setattr(TransformerLensModel, "end_tokens", frozenset({end}))

    found = generate(model, PROMPTS, **DRAWN)

    for one, whole in zip(found, free, strict=True):
        length = whole.tokens.index(end) + 1 if end in whole.tokens else 12
        assert one.tokens == whole.tokens[:length]
        assert one.finish == ("eos" if end in whole.tokens else "length")
    assert found[0].finish == "eos"


@pytest.mark.usefixtures("endless")
def test_a_stop_text_ends_its_row_and_is_cut_off() -> None:
    model = tiny("llama")
    free = generate(model, PROMPTS, **DRAWN)
    stop = str(model.tokenizer.decode(free[1].tokens[3:5]))

    found = generate(model, PROMPTS, stop=[stop, "never to be met"], **DRAWN)

    assert found[1].tokens == free[1].tokens[:5]
    assert found[1].finish == "stop"
    assert stop not in found[1].text
    assert free[1].text.startswith(found[1].text)
    assert {one.finish for one in found} <= {"stop", "length"}


@pytest.mark.usefixtures("endless")
def test_a_method_that_stops_a_row_waits_for_its_forced_tokens() -> None:
    class Close(LogitsMethod):
        def step(self, state: StepState) -> Edit:
            due = state.t == 3
            return Edit(force=dict.fromkeys(due.nonzero()[:, 0].tolist(), (40, 41)), stop=due)

    for one in generate(tiny("gpt2"), PROMPTS, methods=[Close()], **DRAWN):
        assert len(one.tokens) == 5
        assert one.tokens[3:] == (40, 41)
        assert one.finish == "method"


@pytest.mark.usefixtures("endless")
def test_pieces_of_a_stream_are_the_text() -> None:
    model = tiny("gemma3")
    settings = {"max_new_tokens": 9, "temperature": 1.5, "seed": 4}
    pieces = list(stream(model, PROMPTS[0], add(vector(), 1.0), **settings))

    assert len(pieces) == 9
    assert "".join(pieces) == generate(model, PROMPTS[0], add(vector(), 1.0), **settings)[0].text
    with pytest.raises(ConfigError, match="does not know batch_size"):
        list(stream(model, PROMPTS[0], batch_size=2))


@pytest.mark.usefixtures("endless")
def test_a_prompt_given_twice_is_drawn_twice_and_ids_name_rows() -> None:
    model = tiny("gemma3")
    twice = generate(model, ["w5 w6", "w5 w6"], **DRAWN)
    named = generate(model, [Prompt("w5 w6", "w9 w9 w9")], **DRAWN)

    assert twice[0].tokens != twice[1].tokens
    assert named[0].tokens != generate(model, "w9 w9 w9", **DRAWN)[0].tokens  # its id seeds it


@pytest.mark.usefixtures("endless")
def test_methods_act_alike_in_transformers_own_loop() -> None:
    class Wave(LogitsMethod):
        def edit(self, t: Tensor) -> Edit:
            size = 3.0 * (-1.0) ** t
            forbidden = (t % 3 == 0)[:, None]
            return Edit(bias=(torch.tensor([7, 8]), size[:, None].expand(-1, 2)), mask=(torch.tensor([9]), forbidden))

    model = tiny("llama")
    rows = [model.tokenize(PROMPTS[0])]
    ids = torch.tensor(rows)

    ours = generate(model, PROMPTS[0], methods=[Wave()], max_new_tokens=10)[0].tokens
    theirs = model.hf_model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=10,
        do_sample=False,
        eos_token_id=None,
        pad_token_id=0,
        logits_processor=[as_logits_processor([Wave()])],
    )

    assert theirs[0, ids.shape[1] :].tolist() == list(ours)
    assert list(ours) != by_transformers("llama", rows, 10)[0]


def test_a_method_that_looks_further_does_not_fit_there() -> None:
    class Looks:
        sites = ()

        def start(self, model: Any, n_rows: int) -> None: ...

        def step(self, state: StepState) -> None: ...

    with pytest.raises(InterventionError, match=r"Looks looks at activations.*model.generate"):
        as_logits_processor([Looks()])


class Replace(LogitsMethod):
    def edit(self, t: Tensor) -> Edit:
        return Edit(logits={0: torch.zeros(50)})


class Force(LogitsMethod):
    def edit(self, t: Tensor) -> Edit:
        return Edit(force={0: (5,)})


class Forbid(LogitsMethod):
    def edit(self, t: Tensor) -> Edit:
        return Edit(mask=(torch.arange(50), torch.ones(len(t), 50, dtype=torch.bool)))


@pytest.mark.parametrize(
    ("methods", "message"),
    [
        ([Replace(), Replace()], "replace the logits of row 0"),
        ([Force(), Force()], "force tokens on row"),
        ([Forbid()], "forbid every token"),
    ],
)
def test_methods_that_contradict_each_other_are_an_error(methods: Any, message: str) -> None:
    with pytest.raises(InterventionError, match=message):
        generate(tiny("gpt2"), PROMPTS, methods=methods, max_new_tokens=3)


@pytest.mark.parametrize(
    ("prompts", "settings", "error", "message"),
    [
        ([], {}, PromptError, "No prompts"),
        (PROMPTS, {"max_new_tokens": 0}, ConfigError, "max_new_tokens=0"),
        (PROMPTS, {"batch_size": 0}, ConfigError, "batch_size=0"),
        (PROMPTS, {"stop": ""}, ConfigError, "stop text is empty"),
        (PROMPTS, {"max_new_tokens": 60}, PositionError, "The longest prompt has 14 tokens; with 60 new ones"),
        (PROMPTS, {"read": ["L9.resid_post"]}, SiteError, "has blocks L0 to L5"),
    ],
)
def test_bad_input_is_told_before_anything_runs(prompts: Any, settings: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        generate(tiny("gemma3"), prompts, **{"max_new_tokens": 4, **settings})


def test_an_empty_prompt_is_the_beginning_of_a_text() -> None:
    model = tiny("gemma3")

    assert generate(model, "", max_new_tokens=3)[0].tokens == tuple(by_transformers("gemma3", [[0]], 3)[0])


def test_an_empty_prompt_needs_a_token_that_begins_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TransformerLensModel, "tokenize", lambda self, text: [])
    with pytest.raises(PromptError, match="begins texts with no token of its own"):
        generate(tiny("gemma3"), "", max_new_tokens=3)


def test_the_table_has_a_row_for_each_prompt() -> None:
    found = generate(tiny("gemma3"), PROMPTS, max_new_tokens=3, measure=True)

    frame = found.to_frame()
    assert frame["prompt"].tolist() == PROMPTS
    assert {"text", "n_tokens", "n_forced", "finish", "entropy", "logprob"} <= set(frame)
    assert len(found) == 4
    assert str(found[0]) == PROMPTS[0] + found[0].text
