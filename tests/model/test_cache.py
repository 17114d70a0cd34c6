"""A cache folder is complete or absent."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections import namedtuple
from pathlib import Path

import pytest

from mechint.errors import CacheError
from mechint.model import cache

pytestmark = pytest.mark.usefixtures("own_cache")

_SLOW = """
import sys, time
from pathlib import Path
from mechint.model import cache
counter, seconds = Path(sys.argv[1]), float(sys.argv[2])
def build(folder):
    with counter.open("a") as file:
        file.write("built\\n")
    (folder / "weights").write_text("x" * 100)
    time.sleep(seconds)
    return {}
print(cache.obtain("slow", build, waiting=lambda: print("waited")))
"""


def _start(counter: Path, seconds: float) -> subprocess.Popen[str]:
    home = str(Path(cache.__file__).parents[2])
    return subprocess.Popen(
        [sys.executable, "-c", _SLOW, str(counter), str(seconds)],
        env={**os.environ, "PYTHONPATH": home},
        stdout=subprocess.PIPE,
        text=True,
    )


class Builder:
    """Builds a folder of one file, and counts how often."""

    def __init__(self, content: str = "weights") -> None:
        self.content, self.built = content, 0

    def __call__(self, folder: Path) -> dict[str, int]:
        self.built += 1
        (folder / "weights").write_text(self.content)
        (folder / "sub").mkdir()
        (folder / "sub" / "more").write_text("more")
        return {"answer": 42}


def _leftovers() -> list[str]:
    return [path.name for path in (cache.root() / "models").iterdir() if path.name.endswith(".partial")]


def test_a_folder_is_built_once_and_then_found() -> None:
    builder = Builder()

    first, second = cache.obtain("a", builder), cache.obtain("a", builder)

    assert first == second
    assert builder.built == 1
    assert (first / "weights").read_text() == "weights"
    assert cache.read_seal(first)["about"] == {"answer": 42}


@pytest.mark.parametrize("harm", ["truncate", "alter", "delete", "unseal", "garble the seal", "older layout"])
def test_a_damaged_folder_is_built_again(harm: str) -> None:
    builder = Builder()
    place = cache.obtain("a", builder)
    if harm == "truncate":
        (place / "weights").write_text("weig")
    elif harm == "alter":
        (place / "weights").write_text("wEights")
    elif harm == "delete":
        (place / "sub" / "more").unlink()
    elif harm == "unseal":
        (place / cache.SEAL).unlink()
    elif harm == "garble the seal":
        (place / cache.SEAL).write_text("{")
    else:
        seal = json.loads((place / cache.SEAL).read_text())
        (place / cache.SEAL).write_text(json.dumps({**seal, "layout": 0}))

    assert cache.damage(place) is not None
    again = cache.obtain("a", builder)

    assert builder.built == 2
    assert cache.damage(again) is None
    assert (again / "weights").read_text() == "weights"
    assert _leftovers() == []


def test_two_processes_that_start_together_build_once(tmp_path: Path) -> None:
    counter = tmp_path / "counter"

    processes = [_start(counter, 2), _start(counter, 2)]
    outputs = [process.communicate(timeout=60)[0] for process in processes]

    assert [process.returncode for process in processes] == [0, 0]
    assert counter.read_text() == "built\n"
    assert sorted("waited" in output for output in outputs) == [False, True]


def test_a_killed_build_leaves_nothing_that_looks_complete_and_is_cleaned_up(tmp_path: Path) -> None:
    counter = tmp_path / "counter"
    process = _start(counter, 60)
    deadline = time.monotonic() + 60
    while not counter.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.communicate()

    assert not cache.folder("slow").exists()
    assert len(_leftovers()) == 1
    place = cache.obtain("slow", Builder())

    assert cache.damage(place) is None
    assert _leftovers() == []


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        # what safetensors raises: not an OSError
        RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)"),
    ],
)
def test_a_full_disk_is_a_cache_error_and_leaves_the_old_folder(error: Exception) -> None:
    place = cache.obtain("a", Builder())
    (place / "weights").write_text("damaged")

    def full(folder: Path) -> dict[str, int]:
        (folder / "half").write_text("half")
        raise error

    with pytest.raises(CacheError, match=r"the disk is full.*MECHINT_CACHE") as caught:
        cache.obtain("a", full)

    assert caught.value.__cause__ is error
    assert _leftovers() == []
    assert (place / "weights").read_text() == "damaged"


def test_space_is_required_before_writing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage(10**10, 10**10 - 10**9, 10**9))

    cache.require_space(tmp_path, 10**9)
    with pytest.raises(CacheError, match=r"1\.40 GB are needed .* 1\.00 GB are free"):
        cache.require_space(tmp_path, 14 * 10**8)


def test_a_cache_that_cannot_be_a_folder_is_a_cache_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("MECHINT_CACHE", str(tmp_path / "file"))

    with pytest.raises(CacheError, match="MECHINT_CACHE"):
        cache.obtain("a", Builder())
    with pytest.raises(CacheError, match="MECHINT_CACHE"):
        cache.write_json(cache.root() / "x.json", {})


def test_no_permission_is_a_cache_error() -> None:
    def forbidden(folder: Path) -> dict[str, int]:
        raise PermissionError(errno.EACCES, "Permission denied")

    with pytest.raises(CacheError, match=r"no permission \(Permission denied\)"):
        cache.obtain("a", forbidden)


def test_another_error_of_a_build_passes_unchanged_and_leaves_nothing() -> None:
    def broken(folder: Path) -> dict[str, int]:
        (folder / "half").write_text("half")
        raise KeyError("a bug")

    with pytest.raises(KeyError, match="a bug"):
        cache.obtain("a", broken)
    assert _leftovers() == []
    assert not cache.folder("a").exists()


def test_the_cache_folder_is_read_from_the_environment_at_each_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MECHINT_CACHE", "~/elsewhere")
    assert cache.root() == Path.home() / "elsewhere"
    monkeypatch.delenv("MECHINT_CACHE")
    assert cache.root().name == "mechint"
