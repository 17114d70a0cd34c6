"""A GGUF file is converted once, exactly, and its copy is healed when damaged."""

import errno
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from mechint.errors import CacheError, CorruptModelError, UnknownModelError, UnsupportedModelError
from mechint.model import cache, conversion, embedded
from mechint.model.embedded import EmbeddedModel, list_models
from mechint.model.fingerprint import fingerprint
from mechint.model.loading import load_parts
from tests.model import small

pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.fixture
def gguf_file(tmp_path: Path) -> Path:
    small.write_gguf(tmp_path / "tiny.gguf")
    return tmp_path / "tiny.gguf"


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> EmbeddedModel:
    """An embedded model `tiny`, installed as a Python package."""
    module = "tiny_weights_" + str(abs(hash(str(tmp_path))))
    model = small.embed(tmp_path, module)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setitem(embedded.EMBEDDED, "tiny", model)
    return model


def _entries() -> set[str]:
    folder = cache.root() / "models"
    return {p.name for p in folder.iterdir() if not p.name.endswith(".lock")} if folder.exists() else set()


def test_the_numbers_are_those_of_the_file(tmp_path: Path) -> None:
    written = small.write_gguf(tmp_path / "tiny.gguf")
    state = load_parts(tmp_path / "tiny.gguf").hf_model.state_dict()

    for theirs, ours in {
        "token_embd.weight": "model.embed_tokens.weight",
        "output.weight": "lm_head.weight",
        "blk.0.ffn_up.weight": "model.layers.0.mlp.up_proj.weight",
        "blk.1.ffn_down.weight": "model.layers.1.mlp.down_proj.weight",
        "blk.1.attn_v.weight": "model.layers.1.self_attn.v_proj.weight",
    }.items():
        np.testing.assert_array_equal(state[ours].numpy(), written[theirs])


def test_the_copy_equals_a_direct_read_by_transformers_in_weights_buffers_tokens_and_logits(gguf_file: Path) -> None:
    direct: Any = AutoModelForCausalLM.from_pretrained(gguf_file.parent, gguf_file=gguf_file.name, dtype=torch.float32)
    words: Any = AutoTokenizer.from_pretrained(gguf_file.parent, gguf_file=gguf_file.name)
    parts = load_parts(gguf_file)

    assert set(parts.hf_model.state_dict()) == set(direct.state_dict())
    for name, tensor in [*direct.state_dict().items(), *direct.named_buffers()]:
        kept = dict(parts.hf_model.named_buffers()).get(name, parts.hf_model.state_dict().get(name))
        assert kept is not None
        assert torch.equal(kept, tensor), name
    for text in conversion.SAMPLES:
        assert parts.tokenizer(text)["input_ids"] == words(text)["input_ids"]
        assert parts.tokenizer(text)["input_ids"][0] == parts.tokenizer.bos_token_id == 1
    ids = torch.tensor([[1, 260, 270, 285]])
    with torch.no_grad():
        torch.testing.assert_close(parts.hf_model(ids).logits, direct(ids).logits, rtol=0, atol=1e-6)


def test_the_second_load_converts_nothing_and_gives_the_same_fingerprint(
    gguf_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = load_parts(gguf_file)
    monkeypatch.setattr(conversion, "_convert", lambda *_: pytest.fail("converted again"))
    second = load_parts(str(gguf_file))

    assert fingerprint(second.hf_model, second.tokenizer) == fingerprint(first.hf_model, first.tokenizer)
    assert second.source == first.source
    assert second.source["quantisation"] == "F32, Q8_0"
    assert second.name == "tiny"


def test_another_content_under_the_same_name_is_converted_anew(gguf_file: Path) -> None:
    first = load_parts(gguf_file)
    small.write_gguf(gguf_file, seed=1)
    second = load_parts(gguf_file)

    assert (
        fingerprint(first.hf_model, first.tokenizer)["weights"]
        != fingerprint(second.hf_model, second.tokenizer)["weights"]
    )
    assert len(_entries()) == 2


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "config.json"])
def test_a_truncated_copy_is_converted_again(gguf_file: Path, name: str) -> None:
    before = load_parts(gguf_file)
    expected = fingerprint(before.hf_model, before.tokenizer)
    path = Path(str(before.reference.location)) / name
    os.truncate(path, path.stat().st_size // 2)

    after = load_parts(gguf_file)

    assert fingerprint(after.hf_model, after.tokenizer) == expected


@pytest.mark.parametrize(
    ("harm", "error"),
    [
        (lambda content: content[:-500], CorruptModelError),
        (lambda content: content[:2000], CorruptModelError),
        (lambda content: content[:24], CorruptModelError),
        (lambda content: b"", CorruptModelError),
        (lambda content: content[:40] + bytes(200) + content[240:], CorruptModelError),
        (lambda content: content.replace(b"llama", b"lxama"), UnsupportedModelError),
        (lambda content: b"PK" + content, UnknownModelError),
    ],
    ids=["tensors cut", "header cut", "almost nothing", "empty", "zeros inside", "unknown architecture", "no GGUF"],
)
def test_a_damaged_gguf_file_is_refused_with_its_name_and_leaves_no_copy(
    gguf_file: Path, harm: Any, error: type[Exception]
) -> None:
    gguf_file.write_bytes(harm(gguf_file.read_bytes()))

    with pytest.raises(error, match=r"tiny\.gguf"):
        load_parts(gguf_file)
    assert _entries() == set()


def test_a_full_disk_while_writing_weights_is_a_cache_error_and_leaves_no_copy(
    gguf_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("transformers.PreTrainedModel.save_pretrained", full)

    with pytest.raises(CacheError, match="disk is full"):
        load_parts(gguf_file)
    assert _entries() == set()


def test_transformers_is_left_as_it_was(gguf_file: Path) -> None:
    import gguf
    from transformers import modeling_gguf_pytorch_utils as legacy

    before = gguf.GGUFReader, legacy.tqdm
    load_parts(gguf_file)

    assert (gguf.GGUFReader, legacy.tqdm) == before


def test_an_embedded_model_is_assembled_converted_and_described_without_paths(
    tiny: EmbeddedModel, tmp_path: Path
) -> None:
    before = {card.name: card.ready for card in list_models()}
    parts = load_parts("tiny")
    after = {card.name: card.ready for card in list_models()}

    assert (before["tiny"], after["tiny"]) == (False, True)
    assert parts.source["kind"] == "embedded"
    assert parts.source["gguf_sha256"] == tiny.sha256
    assert not any(str(tmp_path) in value for value in parts.source.values())
    assert not (Path(str(parts.reference.location)) / "source.gguf").exists()


def test_altered_weights_of_an_embedded_model_name_both_hashes_and_the_remedy(
    tiny: EmbeddedModel, tmp_path: Path
) -> None:
    part = tmp_path / tiny.module / "part1"
    content = bytearray(part.read_bytes())
    content[10] ^= 1
    part.write_bytes(content)

    with pytest.raises(
        CorruptModelError, match=rf"sha256 is [0-9a-f]{{64}}, expected {tiny.sha256}.*pip install --force"
    ):
        load_parts("tiny")
    assert _entries() == set()


def test_a_missing_part_or_package_of_an_embedded_model_names_the_remedy(tiny: EmbeddedModel, tmp_path: Path) -> None:
    (tmp_path / tiny.module / "part2").unlink()
    with pytest.raises(CorruptModelError, match=r"part2.*pip install --force-reinstall"):
        load_parts("tiny")

    (tmp_path / tiny.module / "__init__.py").unlink()
    sys.modules.pop(tiny.module)
    (tmp_path / tiny.module).rename(tmp_path / "gone")
    with pytest.raises(CorruptModelError, match=r"not installed.*pip install --force-reinstall"):
        load_parts("tiny")
    assert "tiny" in [card.name for card in list_models()]


def test_too_little_space_for_an_embedded_model_is_refused_before_anything_is_written(
    tiny: EmbeddedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(EmbeddedModel, "assemble", lambda *_: pytest.fail("began to write"))
    usage = type("usage", (), {"free": 100})
    monkeypatch.setattr("mechint.model.cache.shutil.disk_usage", lambda _: usage)

    with pytest.raises(CacheError, match="GB are needed"):
        load_parts("tiny")
    assert _entries() == set()


def test_stages_are_logged_in_order(tiny: EmbeddedModel, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", logger="mechint.model.progress"):
        load_parts("tiny", progress=False)
        load_parts("tiny", progress=False)

    said = [record.getMessage().removeprefix("tiny: ").split()[0] for record in caplog.records]
    assert said == ["assembling", "reading", "reading", "dequantising", "writing", "checking"]
