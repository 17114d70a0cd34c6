"""The harness itself scores; where it is not installed, what it would call is called with a stand-in for its class."""

import copy
import math
import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

from mechint.errors import ConfigError, InterventionError, NeverFiredError, PromptError
from mechint.model.base import Logits
from mechint.model.transformer_lens import TransformerLensModel
from mechint.positions import TokenBatch, generated, prompt
from mechint.steering.gates import gate
from mechint.steering.lm_eval import lm_eval_model
from mechint.steering.parts import add
from mechint.steering.plan import Plan
from tests.families import plain, tiny, tokenizer
from tests.steering.few import vector

# Key, context, continuation: of three lengths, out of order.
REQUESTS = [
    (("a", "b"), [0, 5, 6, 7], [8, 9]),
    (("c", "d"), [0, 10], [11]),
    (None, [0, 12, 13, 14, 15, 16], [17, 18, 19]),
    (("e", "f"), [0, 5, 6, 7, 8], [20, 21]),
]
PLAN = add(vector(), 1.5, where=prompt(-1) | generated())


class StandIn:
    """What HFLM keeps of its arguments, and its greedy generation."""

    def __init__(self, *, pretrained: Any, tokenizer: Any, max_length: int, **settings: Any) -> None:
        self.model, self.tokenizer, self.max_length, self.settings = pretrained, tokenizer, max_length, settings
        self.cached: list[Any] = []
        self.cache_hook = SimpleNamespace(add_partial=lambda *entry: self.cached.append(entry))

    def generate_until(self, requests: Any, disable_tqdm: bool = False) -> list[str]:
        written: list[str] = []
        for context, settings in requests:
            ids = torch.tensor([[0, *self.tokenizer(context)["input_ids"]]])
            new = settings["max_gen_toks"]
            greedy = {"do_sample": False, "eos_token_id": None, "pad_token_id": 0}
            out = self.model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=new, **greedy)
            written.append(self.tokenizer.decode(out[0, ids.shape[1] :]))
        return written


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    module: Any = ModuleType("lm_eval.models.huggingface")
    module.HFLM = StandIn
    monkeypatch.setitem(sys.modules, "lm_eval", ModuleType("lm_eval"))
    monkeypatch.setitem(sys.modules, "lm_eval.models", ModuleType("lm_eval.models"))
    monkeypatch.setitem(sys.modules, "lm_eval.models.huggingface", module)


def one_by_one(family: str, plan: Plan | None) -> list[tuple[float, bool]]:
    """Each request by itself, token after token: log-probabilities summed, and whether each was the most likely."""
    model, answers = tiny(family), []
    for _, context, rest in REQUESTS:
        score, greedy = 0.0, True
        for i, token in enumerate(rest):
            batch = TokenBatch.from_rows([context + rest[:i]], prompt_lengths=[len(context)])
            last = prompt(-1) if i == 0 else generated(i - 1)
            if plan is None:
                logits = model.run(batch, logits=Logits(at=last)).logits
            else:
                with plan.on(model, strict=False):
                    logits = model.run(batch, logits=Logits(at=last)).logits
            score += float(logits[0, 0].log_softmax(-1)[token])
            greedy &= int(logits[0, 0].argmax()) == token
        answers.append((score, greedy))
    return answers


@pytest.mark.parametrize("plan", [None, PLAN, add(vector(), 1.0)])
@pytest.mark.parametrize("family", ["gpt2", "gemma3"])
def test_a_score_is_the_sum_of_steered_log_probabilities_of_its_continuation(
    family: str, plan: Plan | None, stand_in: None
) -> None:
    lm = lm_eval_model(tiny(family), plan, batch_size=2)
    scores = lm._loglikelihood_tokens(REQUESTS, disable_tqdm=True)

    for (score, greedy), (expected, best) in zip(scores, one_by_one(family, plan), strict=True):
        assert score == pytest.approx(expected, abs=1e-3)
        assert greedy == best
    assert sorted(key for _, key, _ in lm.cached) == [("a", "b"), ("c", "d"), ("e", "f")]


def test_what_the_model_would_write_counts_as_greedy(stand_in: None) -> None:
    model = tiny("gemma3")
    for plan in (None, PLAN):
        written = list(model.generate("w5 w6", plan, max_new_tokens=3)[0].tokens)
        (score,) = lm_eval_model(model, plan)._loglikelihood_tokens([(None, [0, 5, 6], written)], True)
        assert score[1]
        other = [written[0], (written[1] + 1) % 50, written[2]]
        ((_, greedy),) = lm_eval_model(model, plan)._loglikelihood_tokens([(None, [0, 5, 6], other)], True)
        assert not greedy


def test_steering_changes_scores_and_says_what_it_did(stand_in: None) -> None:
    bare = lm_eval_model(tiny("gemma3"))
    lm = lm_eval_model(tiny("gemma3"), PLAN)
    before, after = (x._loglikelihood_tokens(REQUESTS, True) for x in (bare, lm))

    assert max(abs(a[0] - b[0]) for a, b in zip(after, before, strict=True)) > 0.1
    assert bare.receipts == []
    # The last token of each prompt, and of each continuation all but the last.
    (receipt,) = lm.receipts
    assert receipt.table()["tokens"].sum() == sum(len(rest) for _, _, rest in REQUESTS)


def test_generation_under_the_plan_is_that_of_the_plan(stand_in: None) -> None:
    model, plan = tiny("gemma3"), add(vector(), 30.0, where=prompt(-1) | generated())
    lm = lm_eval_model(model, plan)
    (text,) = lm.generate_until([("w5 w6 w7", {"max_gen_toks": 6})])

    assert text == model.generate("w5 w6 w7", plan, max_new_tokens=6).texts[0]
    assert text != model.generate("w5 w6 w7", max_new_tokens=6).texts[0]
    assert len(lm.receipts) == 1


def test_a_plan_that_never_acts_on_these_requests_is_an_error(stand_in: None) -> None:
    lm = lm_eval_model(tiny("gemma3"), add(vector(), 1.0, where=generated()))

    with pytest.raises(NeverFiredError, match="never acted"):
        lm._loglikelihood_tokens([(None, [0, 5, 6], [7])], True)


def test_a_gate_has_no_place_in_a_single_pass(stand_in: None) -> None:
    lm = lm_eval_model(tiny("gemma3"), add(vector(), 1.0).when(gate("entropy", "<", 9.0)))

    with pytest.raises(InterventionError, match="would never open"):
        lm._loglikelihood_tokens(REQUESTS, True)


def test_requests_that_are_too_long_lose_the_beginning_of_their_context_with_a_warning(stand_in: None) -> None:
    lm = lm_eval_model(tiny("gemma3"))
    long = [0, *range(5, 45), *range(5, 45)]
    with pytest.warns(UserWarning, match="lose the beginning"):
        ((cut, _),) = lm._loglikelihood_tokens([(None, long, [7, 8])], True)
    ((expected, _),) = lm._loglikelihood_tokens([(None, long[-63:], [7, 8])], True)

    assert cut == pytest.approx(expected)
    with pytest.raises(PromptError, match="65 tokens"):
        lm._loglikelihood_tokens([(None, [0], [7] * 65)], True)
    with pytest.raises(PromptError, match="token of context"):
        lm._loglikelihood_tokens([(None, [], [7])], True)


def test_the_tokenizer_of_the_model_is_left_as_it_was(stand_in: None) -> None:
    lm = lm_eval_model(tiny("gemma3"))
    lm.tokenizer.add_tokens(["w99"])

    assert lm.tokenizer is not tiny("gemma3").tokenizer
    assert len(tokenizer()) == 50


def test_without_the_harness_the_error_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lm_eval.models.huggingface", None)

    with pytest.raises(ConfigError, match=r"pip install 'lm-eval\[hf\]'"):
        lm_eval_model(tiny("gemma3"))


def test_an_empty_batch_is_refused(stand_in: None) -> None:
    with pytest.raises(ConfigError, match="batch_size=0"):
        lm_eval_model(tiny("gemma3"), batch_size=0)


def toy_tasks() -> list[Any]:
    """A multiple-choice task, a perplexity task and one that generates, all in memory."""
    pytest.importorskip("lm_eval")
    from datasets import Dataset
    from lm_eval.api.task import ConfigurableTask

    docs = [{"text": f"w5 w{i} w7", "one": "w8 w9", "two": "w10", "answer": i % 2} for i in range(20, 26)]
    common: dict[str, Any] = {
        "custom_dataset": lambda **_: {"test": Dataset.from_list(docs)},
        "test_split": "test",
        "doc_to_text": "{{text}}",
    }
    choice = {"output_type": "multiple_choice", "doc_to_choice": "{{[one, two]}}", "doc_to_target": "answer"}
    settings = {"until": ["w3"], "max_gen_toks": 5, "do_sample": False}
    writing = {"output_type": "generate_until", "doc_to_target": "{{one}}", "generation_kwargs": settings}
    rolling = {"output_type": "loglikelihood_rolling", "doc_to_text": "", "doc_to_target": "{{text}}"}
    made = {"toy_choice": choice, "toy_writing": writing, "toy_rolling": rolling}
    return [ConfigurableTask(config={"task": name, **common, **config}) for name, config in made.items()]


def evaluated(lm: Any) -> dict[str, Any]:
    import lm_eval

    found = lm_eval.simple_evaluate(model=lm, tasks=toy_tasks(), bootstrap_iters=0, log_samples=True)
    return {
        name: [sample["resps"] for sample in sorted(samples, key=lambda s: s["doc_id"])]
        for name, samples in found["samples"].items()
    }


def flat(found: Any) -> list[Any]:
    return [x for part in found for x in flat(part)] if isinstance(found, list | tuple) else [found]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("family", ["llama", "gemma3"])
def test_the_harness_gives_its_own_scores_without_a_plan_and_others_with_one(family: str) -> None:
    toy_tasks()
    from lm_eval.models.huggingface import HFLM

    words = copy.deepcopy(tokenizer())
    words.eos_token = "w48"  # the harness cannot do without one
    model = TransformerLensModel(plain(family), words, name="with an end token")
    own = evaluated(HFLM(plain(family), tokenizer=copy.deepcopy(words), max_length=64, batch_size=2))
    same = evaluated(lm_eval_model(model, batch_size=4))
    steered = lm_eval_model(model, add(vector(2), 30.0))
    other = evaluated(steered)

    assert own.keys() == same.keys() == {"toy_choice", "toy_writing", "toy_rolling"}
    for name in own:
        for a, b in zip(flat(own[name]), flat(same[name]), strict=True):
            assert math.isclose(a, b, abs_tol=1e-3) if isinstance(a, float) else a == b
        assert flat(own[name]) != flat(other[name])
    assert len(steered.receipts) >= 3
