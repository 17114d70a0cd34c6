"""Every way to name a model, and what is said when there is none."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import BertConfig, BertModel, T5Config, T5ForConditionalGeneration

from mechint.errors import CorruptModelError, UnknownModelError, UnsupportedModelError
from mechint.model import loading
from mechint.model.loading import load_parts, wrap_parts
from tests.model import small

pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.fixture
def model_folder(tmp_path: Path) -> Path:
    return small.folder(tmp_path / "my-model")


def test_a_folder_gives_its_weights_in_float32_with_eager_attention_in_eval_mode(model_folder: Path) -> None:
    parts = load_parts(model_folder)

    expected = small.gpt2().state_dict()
    assert {
        name: torch.equal(tensor, expected[name]) for name, tensor in parts.hf_model.state_dict().items()
    } == dict.fromkeys(expected, True)
    assert parts.hf_model.config._attn_implementation == "eager"
    assert not parts.hf_model.training
    assert parts.tokenizer("the cat")["input_ids"] == [0, 3, 4]
    assert (parts.name, parts.source["kind"]) == ("my-model", "folder")


def test_half_precision_weights_are_read_in_float32(tmp_path: Path) -> None:
    small.gpt2().bfloat16().save_pretrained(tmp_path)
    small.tokenizer().save_pretrained(tmp_path)

    assert {p.dtype for p in load_parts(str(tmp_path)).hf_model.parameters()} == {torch.float32}


def test_buffers_outside_the_state_dict_are_real_and_right(tmp_path: Path) -> None:
    from transformers import Gemma3ForCausalLM, Gemma3TextConfig

    config = Gemma3TextConfig(
        vocab_size=len(small.WORDS),
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=6,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=2,
    )
    built = Gemma3ForCausalLM(config).eval()
    built.save_pretrained(tmp_path)
    small.tokenizer().save_pretrained(tmp_path)
    loaded: Any = load_parts(tmp_path).hf_model

    buffers = dict(built.named_buffers())
    assert {"model.embed_tokens.embed_scale"} < set(buffers)
    assert set(dict(loaded.named_buffers())) == set(buffers)
    for name, buffer in loaded.named_buffers():
        assert buffer.device.type == "cpu"
        assert torch.equal(buffer, buffers[name]), name
    assert loaded.lm_head.weight.data_ptr() == loaded.model.embed_tokens.weight.data_ptr()
    ids = torch.tensor([[0, 3, 4, 5]])
    with torch.no_grad():
        torch.testing.assert_close(loaded(ids).logits, built(ids).logits, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("gemma3-270", r"Did you mean 'gemma3-270m'\?.*these are: gemma3-270m.*HF_HUB_OFFLINE is set"),
        (
            "no-such-org/no-such-model",
            r"not embedded.*no folder and no GGUF file.*local hub cache.*HF_HUB_OFFLINE is set",
        ),
        ("./no-such-folder", r"no folder.*neither an id of the Hugging Face hub"),
        ("no-such-file.gguf", r"no GGUF file of that name"),
        ("organism:no-such", r"neither an id"),
        ("", r"No model ''|no config\.json"),
    ],
)
def test_an_unknown_name_says_what_was_tried(
    spec: str, says: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.chdir(tmp_path)

    with pytest.raises(UnknownModelError, match=says):
        load_parts(spec)


def test_without_a_network_an_unknown_id_fails_at_once_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_network(*_: Any) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    for name in ("HF_HUB_OFFLINE", *loading._PROXIES):
        monkeypatch.delenv(name, raising=False)
    asked: list[Any] = []
    monkeypatch.setattr(socket, "getaddrinfo", lambda *what: asked.append(what) or no_network())

    with pytest.raises(UnknownModelError, match=r"huggingface\.co cannot be reached"):
        load_parts("no-such-org/no-such-model")
    assert len(asked) == 1


def test_a_folder_without_a_model_is_unknown_and_its_gguf_file_is_pointed_at(tmp_path: Path) -> None:
    with pytest.raises(UnknownModelError, match=r"has no config\.json"):
        load_parts(tmp_path)
    (tmp_path / "x.gguf").write_bytes(b"GGUF")
    with pytest.raises(UnknownModelError, match=r"x\.gguf: load that file"):
        load_parts(tmp_path)


def _truncate(folder: Path) -> None:
    path = folder / "model.safetensors"
    os.truncate(path, path.stat().st_size - 1000)


def _drop_a_block(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "n_layer": 3}))


def _widen(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "n_embd": 20}))


@pytest.mark.parametrize(
    ("harm", "says"),
    [
        (_truncate, "SafetensorError"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"not weights"), "cannot be read"),
        (lambda folder: (folder / "model.safetensors").unlink(), "model.safetensors"),
        (lambda folder: (folder / "config.json").write_text("{"), "config.json"),
        (_drop_a_block, r"missing keys transformer\.h\.2.* and \d+ more"),
        (_widen, "cannot be read|mismatched keys"),
        (lambda folder: [(folder / name).unlink() for name in ("tokenizer.json",)], "has no tokenizer"),
        (lambda folder: (folder / "tokenizer.json").write_text("{"), "The tokenizer of"),
    ],
    ids=[
        "truncated",
        "garbage",
        "no weights",
        "config cut",
        "blocks missing",
        "other width",
        "no tokenizer",
        "bad tokenizer",
    ],
)
def test_a_damaged_folder_is_corrupt_and_says_where(model_folder: Path, harm: Any, says: str) -> None:
    harm(model_folder)

    with pytest.raises(CorruptModelError, match=says) as caught:
        load_parts(model_folder)
    assert "my-model" in str(caught.value)


def test_what_is_no_causal_language_model_is_unsupported(tmp_path: Path) -> None:
    T5ForConditionalGeneration(
        T5Config(vocab_size=10, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2)
    ).save_pretrained(tmp_path / "t5")
    small.tokenizer().save_pretrained(tmp_path / "t5")
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "config.json").write_text('{"model_type": "made-up"}')
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "config.json").write_text(
        '{"model_type": "made-up", "auto_map": {"AutoConfig": "code.C", "AutoModelForCausalLM": "code.M"}}'
    )

    for name in ("t5", "new", "foreign"):
        with pytest.raises(UnsupportedModelError, match=name):
            load_parts(tmp_path / name)


def test_wrap_takes_a_model_as_it_is_but_eager_and_in_eval_mode() -> None:
    model = small.gpt2(attn_implementation="sdpa").train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}

    parts = wrap_parts(model, small.tokenizer(), name="mine")

    assert parts.hf_model is model
    assert model.config._attn_implementation == "eager"
    assert not model.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert parts.name == "mine"
    assert parts.source["attention_before"] == "sdpa"
    assert parts.source["dtype"] == "float32"
    assert wrap_parts(small.gpt2(), small.tokenizer()).name == "GPT2LMHeadModel"


def test_wrap_refuses_what_it_cannot_read() -> None:
    words = small.tokenizer()
    bert = BertModel(
        BertConfig(vocab_size=10, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8)
    )
    with torch.device("meta"):
        nowhere = small.gpt2()
    packed = small.gpt2()
    packed.hf_quantizer = object()

    for model, says in (
        (torch.nn.Linear(2, 2), "a Linear"),
        ("gpt2", "a str"),
        (bert, "BertModel"),
        (nowhere, "meta"),
        (packed, "packed"),
    ):
        with pytest.raises(UnsupportedModelError, match=says):
            wrap_parts(model, words)
    with pytest.raises(UnsupportedModelError, match="tokenizer is a NoneType"):
        wrap_parts(small.gpt2(), None)


def test_nothing_touches_the_network_with_a_folder_or_a_cached_hub_id(model_folder: Path, tmp_path: Path) -> None:
    repository = tmp_path / "hub" / "models--org--name"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("a" * 40)
    (repository / "snapshots").mkdir()
    model_folder.rename(repository / "snapshots" / ("a" * 40))
    small.folder(model_folder)
    code = f"""
import socket
def refuse(*args, **kwargs):
    raise SystemExit(f"NETWORK {{args}}")
socket.getaddrinfo = socket.create_connection = socket.socket.connect = refuse
from mechint.model.loading import load_parts
print(load_parts({str(model_folder)!r}).source["kind"])
parts = load_parts("org/name")
print(parts.source["kind"], parts.name, parts.source["revision"])
"""
    home = str(Path(loading.__file__).parents[2])
    environment = {**os.environ, "PYTHONPATH": home, "HF_HUB_CACHE": str(tmp_path / "hub")}
    for offline in ("1", "0"):  # what is cached needs no network even when it may be used
        done = subprocess.run(
            [sys.executable, "-c", code],
            env={**environment, "HF_HUB_OFFLINE": offline},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.split() == ["folder", "hub", "name", "a" * 40]


def test_listing_models_and_their_errors_needs_no_torch() -> None:
    code = "import sys; from mechint.model.embedded import list_models; list_models(); print('torch' in sys.modules)"
    home = str(Path(loading.__file__).parents[2])

    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": home}, capture_output=True, text=True, check=True
    )

    assert done.stdout.strip() == "False"
