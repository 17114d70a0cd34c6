"""Fine-tuning with adapters: it changes what it should, as it did before, on every family."""

import numpy as np
import pytest
import torch

from mechint.errors import ConfigError, TokenError
from mechint.probes.privileged_access.settings import Lora
from mechint.probes.privileged_access.tuning import Example, Plain, tune
from tests.families import tiny

_FEW = Lora(rank=4, steps=40, rows=4, rate=1e-2)
_TOLD = [Example("w5 w6", " w7"), Example("w8 w9 w10", " w11 w12")]


@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma3"])
def test_a_copy_computes_what_the_backend_computes(family):
    model = tiny(family)
    rows = [[0, 5, 6, 7]]

    with torch.no_grad():
        plain = Plain(model).hf(input_ids=torch.tensor(rows), use_cache=False).logits

    torch.testing.assert_close(plain, model.all_logits(rows), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma3"])
def test_what_was_told_is_answered_and_the_backend_s_model_stays_as_it_was(family):
    model = tiny(family)
    plain, rows = Plain(model), [[0, 5, 6, 7]]
    before = model.all_logits(rows)

    losses = tune(plain, _TOLD, _FEW, 0, progress=False)

    assert losses[-1] < losses[0] / 2
    assert plain.answers(["w5 w6"], 1) == ["w7"]
    assert plain.answers(["w8 w9 w10"], 2) == ["w11 w12"]
    assert torch.equal(model.all_logits(rows), before)


def test_the_same_seed_gives_the_same_weights_and_another_seed_others():
    tuned: list[Plain] = []
    for seed in (0, 0, 1):
        tuned.append(Plain(tiny("llama")))
        tune(tuned[-1], _TOLD, Lora(rank=2, steps=3, rows=2), seed, progress=False)
    one, again, other = ([p.detach() for p in plain.hf.parameters()] for plain in tuned)

    assert all(torch.equal(a, b) for a, b in zip(one, again, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_adapters_leave_embedding_and_unembedding_alone():
    plain = Plain(tiny("llama"))
    before = {name: value.clone() for name, value in plain.hf.state_dict().items()}

    tune(plain, _TOLD, Lora(rank=2, steps=2, rows=2), 0, progress=False)

    changed = {name for name, value in plain.hf.state_dict().items() if not torch.equal(value, before[name])}
    assert changed
    assert all(".layers." in name and "norm" not in name for name in changed)


def test_the_company_of_a_prompt_changes_no_answer():
    plain = Plain(tiny("gemma3"))
    prompts = ["w5", "w6 w7 w8 w9", "w10 w11"]

    together = plain.label_probs(prompts, ["w3", "w4"])
    alone = np.concatenate([plain.label_probs([prompt], ["w3", "w4"]) for prompt in prompts])

    np.testing.assert_allclose(together, alone, rtol=1e-4)
    assert plain.answers(prompts, 3) == [plain.answers([prompt], 3)[0] for prompt in prompts]


def test_labels_are_probabilities_of_the_whole_vocabulary():
    plain = Plain(tiny("llama"))

    every = plain.label_probs(["w5 w6"], [f"w{i}" for i in range(2, 50)])

    assert 0 < every.sum() < 1


def test_what_cannot_be_told_or_asked_is_refused():
    plain = Plain(tiny("llama"))

    with pytest.raises(ConfigError, match="No examples"):
        tune(plain, [], _FEW, 0)
    with pytest.raises(ConfigError, match="does not begin a token"):
        tune(plain, [Example("w5", "")], _FEW, 0)
    with pytest.raises(TokenError, match="last token"):
        plain.label_probs(["w5"], ["w3 w4", "w5 w6"])
