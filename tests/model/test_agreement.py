"""Agreement is measured against another process, finds a planted error, and is remembered."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mechint.errors import ModelError
from mechint.model import agreement as module
from mechint.model.agreement import Reference, agreement, compare, plain_logits, probe_tokens
from mechint.model.fingerprint import fingerprint
from tests.model import small

pytestmark = pytest.mark.usefixtures("own_cache")


def _logits(model: Any, error: float = 0.0) -> Callable[[list[list[int]]], Tensor]:
    def logits(rows: list[list[int]]) -> Tensor:
        with torch.no_grad():
            found = model(torch.tensor(rows)).logits.clone()
        found[0, 3, 5] += error
        return found

    return logits


def _measure(model: Any, reference: Reference, error: float = 0.0) -> dict[str, float]:
    marks = fingerprint(model, small.tokenizer())
    return agreement(_logits(model, error), reference, marks, vocabulary=len(small.WORDS), context=32, bos=0)


def test_a_model_agrees_with_itself_in_another_process_from_a_folder(tmp_path: Path) -> None:
    place = small.folder(tmp_path / "model")
    model = small.gpt2(attn_implementation="eager")

    found = _measure(model, Reference.of(model, str(place)))

    assert found["max_abs_logit_difference"] < 1e-5
    assert found["kl_mean"] < 1e-9
    assert found["top_token_agreement"] == 1.0
    assert found["tokens"] == 34


@pytest.mark.parametrize("tied", [True, False])
def test_weights_in_memory_are_compared_as_they_were_before_a_backend_renamed_them(tied: bool) -> None:
    model = small.gpt2(tie_word_embeddings=tied)
    reference = Reference.of(model)
    rows = [[0, 3, 4, 5]]
    expected = _logits(model)(rows)
    model.transformer.h[0].attn = torch.nn.Identity()

    torch.testing.assert_close(plain_logits(reference, rows), expected, rtol=0, atol=1e-5)


def test_a_planted_error_of_one_logit_is_found(tmp_path: Path) -> None:
    model = small.gpt2()

    found = _measure(model, Reference.of(model, str(small.folder(tmp_path / "model"))), error=0.25)

    assert found["max_abs_logit_difference"] == pytest.approx(0.25, abs=1e-5)
    assert found["kl_mean"] > 1e-5


def test_it_is_measured_once_for_a_fingerprint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reference = Reference.of(small.gpt2(), str(small.folder(tmp_path / "model")))
    first = _measure(small.gpt2(), reference)
    monkeypatch.setattr(module, "plain_logits", lambda *_: pytest.fail("measured again"))

    assert _measure(small.gpt2(), reference) == first
    with pytest.raises(pytest.fail.Exception, match="measured again"):
        _measure(small.gpt2(seed=1), reference)


def test_a_cache_that_cannot_be_written_does_not_lose_the_measurement(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("MECHINT_CACHE", str(tmp_path / "file"))
    reference = Reference.of(small.gpt2(), str(small.folder(tmp_path / "model")))

    assert _measure(small.gpt2(), reference)["tokens"] == 34


def test_a_process_that_fails_says_why(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"exit code 1.*config\.json"):
        plain_logits(Reference.of(small.gpt2(), str(tmp_path)), [[1, 2]])


def test_compare_knows_a_known_divergence() -> None:
    plain = torch.tensor([[[0.0, 0.0]]])
    ours = torch.tensor([[[0.0, float(torch.log(torch.tensor(3.0)))]]])  # probabilities 1/4 and 3/4 against 1/2 and 1/2

    found = compare(ours, plain)

    assert found["kl_mean"] == pytest.approx(0.5 * torch.log(torch.tensor(4.0 / 3.0)).item(), abs=1e-7)
    assert compare(ours + 7.0, ours)["kl_mean"] == pytest.approx(0, abs=1e-12)


def test_probe_tokens_are_fixed_start_with_bos_and_fit_the_context() -> None:
    assert probe_tokens(50, 1024, 7) == probe_tokens(50, 1024, 7)
    assert all(row[0] == 7 and len(row) == 17 for row in probe_tokens(50, 1024, 7))
    assert all(len(row) == 5 for row in probe_tokens(50, 5, 7))
    assert all(0 <= token < 3 for row in probe_tokens(3, 1024, None) for token in row)


def test_the_other_process_imports_no_backend() -> None:
    code = (
        "import sys, mechint.model.plain_transformers; print('transformer_lens' in sys.modules, 'torch' in sys.modules)"
    )
    home = str(Path(module.__file__).parents[2])

    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": home}, capture_output=True, text=True, check=True
    )

    assert done.stdout.split() == ["False", "False"]
