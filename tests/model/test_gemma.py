"""The embedded Gemma-3-270m itself."""

from pathlib import Path
from typing import Any

import pytest
import torch

from mechint.model import cache, conversion
from mechint.model.embedded import EMBEDDED, list_models
from mechint.model.fingerprint import fingerprint
from mechint.model.loading import Parts, load_parts

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def gemma() -> Parts:
    return load_parts("gemma3-270m")


def test_two_loads_have_the_fingerprint_that_was_written_at_conversion(gemma: Parts) -> None:
    again = load_parts("gemma3-270m")
    marks = fingerprint(gemma.hf_model, gemma.tokenizer)

    assert fingerprint(again.hf_model, again.tokenizer) == marks
    assert marks["weights"] == cache.read_seal(Path(str(gemma.reference.location)))["about"]["weights"]
    assert (marks["attention"], marks["dtype"]) == ("eager", "float32")


def test_the_manifest_says_that_the_weights_were_dequantised(gemma: Parts) -> None:
    assert "dequantised" in gemma.source["note"]
    assert "Q4_K" in gemma.source["quantisation"]
    assert gemma.source["gguf_sha256"] == EMBEDDED["gemma3-270m"].sha256
    assert not any(str(Path.home()) in value for value in gemma.source.values())
    assert [card.ready for card in list_models()] == [True]


def test_tied_matrices_are_one_and_the_embedding_scale_is_right(gemma: Parts) -> None:
    model: Any = gemma.hf_model

    assert model.lm_head.weight.data_ptr() == model.model.embed_tokens.weight.data_ptr()
    assert float(model.model.embed_tokens.embed_scale) == pytest.approx(640**0.5)
    assert {buffer.device.type for buffer in model.buffers()} == {"cpu"}


def test_text_becomes_the_tokens_of_the_gguf_file(gemma: Parts, tmp_path: Path) -> None:
    """A different route to the same vocabulary: transformers' own reading of the GGUF file."""
    from transformers import AutoTokenizer

    EMBEDDED["gemma3-270m"].assemble(tmp_path / "gemma.gguf")
    direct: Any = AutoTokenizer.from_pretrained(tmp_path, gguf_file="gemma.gguf")

    for text in (*conversion.SAMPLES, "Ünïcödé ẞ ﬁ ½ ①", "a\u00a0b\u3000c", "🇩🇪👨‍👩‍👧", "\x00\x01 control", " " * 30):
        ids = gemma.tokenizer(text)["input_ids"]
        assert ids == direct(text)["input_ids"], text
        assert ids[0] == 2
    assert gemma.tokenizer(" Mary", add_special_tokens=False)["input_ids"] == direct.convert_tokens_to_ids(["▁Mary"])
    assert (direct.bos_token_id, direct.eos_token_id, direct.pad_token_id) == (
        gemma.tokenizer.bos_token_id,
        gemma.tokenizer.eos_token_id,
        gemma.tokenizer.pad_token_id,
    )


def test_it_knows_that_the_capital_of_france_is_paris(gemma: Parts) -> None:
    model: Any = gemma.hf_model
    ids = gemma.tokenizer("The capital of France is the city of", return_tensors="pt")["input_ids"]
    with torch.no_grad():
        best = int(model(ids, logits_to_keep=1).logits.argmax())

    assert gemma.tokenizer.decode([best]) == " Paris"
