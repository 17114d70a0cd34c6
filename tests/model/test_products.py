"""All ways to a product are the same numbers, and the choice is made once."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from mechint.model import cache, products


@pytest.fixture(autouse=True)
def small_enough(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MECHINT_CACHE", str(tmp_path))
    monkeypatch.setattr(products, "_LEAST_NUMBERS", 1)
    products.fastest.cache_clear()
    yield
    products.fastest.cache_clear()


@pytest.mark.parametrize("d_vocab", [30, 64, 200])
@pytest.mark.parametrize("way", ["rows first", "weights first", "in blocks"])
@pytest.mark.parametrize("shape", [(2, 8), (3, 1, 8), (2, 5, 8), (1, 8), (40, 8)])
def test_the_way_does_not_change_the_product(way: str, shape: tuple[int, ...], d_vocab: int, monkeypatch: Any) -> None:
    monkeypatch.setattr(products, "_time", lambda *about: way)
    generator = torch.Generator().manual_seed(0)
    x, W = torch.randn(*shape, generator=generator), torch.randn(d_vocab, 8, generator=generator)

    found = products.product(x, W)

    torch.testing.assert_close(found, torch.einsum("...d,vd->...v", x, W))


def test_the_choice_is_kept_for_a_size(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[Any, ...]] = []
    monkeypatch.setattr(products, "_time", lambda *about: asked.append(about) or "weights first")
    x, W = torch.ones(3, 8), torch.ones(30, 8)
    products.product(x, W)
    products.fastest.cache_clear()  # as in a new process

    products.product(x, W)
    products.product(x[:2], W)

    assert [about[0] for about in asked] == [3, 2]
    assert set(json.loads((cache.root() / "products.json").read_text()).values()) == {"weights first"}


@pytest.mark.parametrize("content", ["{", '{"x": 1}', "[]"])
def test_a_damaged_note_is_no_obstacle(content: str) -> None:
    (cache.root() / "products.json").write_text(content)

    assert products.product(torch.ones(3, 8), torch.ones(30, 8)).sum() == 3 * 30 * 8


def test_it_is_timed_for_real() -> None:
    assert products.fastest(2, 64, 8, "float32", "cpu", 1) in ("rows first", "weights first", "in blocks")
