"""Every test of loading has a cache of its own."""

from pathlib import Path

import pytest


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder, used by everything in this test."""
    monkeypatch.setenv("MECHINT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"
