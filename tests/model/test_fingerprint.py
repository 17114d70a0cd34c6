"""Equal content, equal fingerprint; any change of content, another."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from mechint.model.fingerprint import fingerprint, fingerprint_of, hash_tokenizer, hash_weights
from tests.model import small


def test_the_same_content_has_the_same_fingerprint_however_it_was_loaded(tmp_path: Path) -> None:
    in_memory = small.gpt2(attn_implementation="eager")
    small.folder(tmp_path)
    read = AutoModelForCausalLM.from_pretrained(tmp_path, attn_implementation="eager")

    expected = fingerprint(in_memory, small.tokenizer())

    assert fingerprint(read, AutoTokenizer.from_pretrained(tmp_path)) == expected
    assert expected["attention"] == "eager"
    assert expected["dtype"] == "float32"


def test_each_change_of_content_changes_its_own_hash_and_no_other() -> None:
    base = fingerprint(small.gpt2(), small.tokenizer())
    other_weights = fingerprint(small.gpt2(seed=1), small.tokenizer())
    other_setting = fingerprint(small.gpt2(layer_norm_epsilon=1e-3), small.tokenizer())
    words = small.tokenizer()
    words.add_tokens(["dog"])
    other_tokenizer = fingerprint(small.gpt2(), words)

    def differences(other: dict[str, str]) -> set[str]:
        return {name for name in base if base[name] != other[name]}

    assert differences(other_weights) == {"weights"}
    assert differences(other_setting) == {"config"}
    assert differences(other_tokenizer) == {"tokenizer"}
    assert differences(fingerprint(small.gpt2().bfloat16(), small.tokenizer())) == {"weights", "dtype"}


def test_one_flipped_bit_of_one_tensor_changes_the_weights_hash() -> None:
    state = {name: tensor.clone() for name, tensor in small.gpt2().state_dict().items()}
    before = hash_weights(state)
    state["transformer.h.1.mlp.c_fc.bias"].view(torch.int32)[3] ^= 1

    assert hash_weights(state) != before


def test_names_and_shapes_count_but_order_and_memory_layout_do_not() -> None:
    a = torch.arange(6.0).reshape(2, 3)

    assert hash_weights({"a": a, "b": a + 1}) == hash_weights({"b": a + 1, "a": a.T.contiguous().T})
    assert hash_weights({"a": a}) != hash_weights({"c": a})
    assert hash_weights({"a": a}) != hash_weights({"a": a.reshape(3, 2)})
    assert hash_weights({"a": a, "b": a}) == hash_weights({"a": a, "b": a.clone()})


def test_having_tokenized_a_padded_batch_does_not_change_the_tokenizer_hash() -> None:
    words = small.tokenizer()
    words.pad_token = "</s>"
    before = hash_tokenizer(words)
    words(["the cat", "the"], padding=True, truncation=True, max_length=8)
    backend = words.backend_tokenizer
    settings = backend.padding, backend.truncation

    assert hash_tokenizer(words) == before
    assert settings[0] is not None
    assert (backend.padding, backend.truncation) == settings


@pytest.mark.parametrize("name", ["bos_token", "eos_token"])
def test_another_special_token_is_another_tokenizer(name: str) -> None:
    words = small.tokenizer()
    setattr(words, name, "cat")

    assert hash_tokenizer(words) != hash_tokenizer(small.tokenizer())


def test_what_was_kept_before_a_backend_came_gives_the_same_fingerprint() -> None:
    model = small.gpt2()
    config, state = model.config, dict(model.state_dict())
    expected = fingerprint(model, small.tokenizer())
    model.transformer.h[0].attn = torch.nn.Identity()

    assert fingerprint_of(config, state, small.tokenizer()) == expected
