"""A cache folder is complete or absent: built aside, sealed, then renamed, by one process at a time.

A folder `<cache>/models/<key>` ends with `complete.json`: the size and xxh3_128 hash of every file, and what the
folder was made from. `obtain` reads the folder only if all of that still holds, and otherwise builds it again.
A build that dies half-way (disk full, power cut, kill) leaves only a `.partial` folder, which the next build of the
same key removes.
"""

import errno
import json
import logging
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import filelock
import platformdirs
import xxhash

from mechint.errors import CacheError

log = logging.getLogger(__name__)

LAYOUT = 1
"""Raise it when the files of a folder change meaning: older folders are then built again."""
SEAL = "complete.json"
_FULL = (errno.ENOSPC, errno.EDQUOT)
_FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)


def root() -> Path:
    """Return the cache folder: `$MECHINT_CACHE`, or the user's cache folder for mechint. It need not exist.

    Examples:
        >>> root().is_absolute()
        True
    """
    chosen = os.environ.get("MECHINT_CACHE")
    return Path(chosen).expanduser().absolute() if chosen else Path(platformdirs.user_cache_dir("mechint"))


def folder(key: str) -> Path:
    """Return where the folder of a key is, or would be.

    Examples:
        >>> folder("my model/1").name
        'my-model-1'
    """
    return root() / "models" / re.sub(r"[^A-Za-z0-9._-]+", "-", key)


def obtain(
    key: str,
    build: Callable[[Path], Mapping[str, Any]],
    *,
    waiting: Callable[[], None] | None = None,
) -> Path:
    """Return the complete folder of a key, building it if it is absent, damaged or of an older layout.

    Args:
        key: name of the folder; it should contain a hash of what the folder is made from.
        build: fills an empty folder and returns what is to be remembered about it (JSON types).
        waiting: called once if another process is building the same folder; it is waited for.

    Raises:
        CacheError: disk full, no permission, or the cache cannot be a folder. Nothing half-made is left.
    """
    place = folder(key)
    with _border(f"cache folder {place}"):
        if damage(place) is None:
            return place
        place.parent.mkdir(parents=True, exist_ok=True)
        with _locked(place, waiting):
            problem = damage(place)
            if problem is None:
                return place
            if place.exists():
                log.warning("The cached copy %s is built again: %s.", place, problem)
            _remove_leftovers(place)
            _build(place, build)
    return place


def damage(place: Path) -> str | None:
    """Say what is wrong with a cache folder, or return None if every file is as it was sealed."""
    try:
        seal = read_seal(place)
    except FileNotFoundError:
        return "it is not complete"
    except (ValueError, NotADirectoryError) as error:
        return f"{SEAL} cannot be read ({error})"
    if seal.get("layout") != LAYOUT:
        return "it was written by another version of mechint"
    for name, expected in seal["files"].items():
        path = place / name
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != expected["size"]:
            return f"{name} has {path.stat().st_size} bytes instead of {expected['size']}"
        if hash_file(path) != expected["xxh3_128"]:
            return f"the content of {name} has changed"
    return None


def read_seal(place: Path) -> dict[str, Any]:
    """Return the content of `complete.json`.

    Raises:
        FileNotFoundError: the folder is not complete.
        ValueError: the file is not what `obtain` writes.
    """
    seal = json.loads((place / SEAL).read_text(encoding="utf-8"))
    if not isinstance(seal, dict) or not isinstance(seal.get("files"), dict):
        raise ValueError("not a list of files")
    return seal


def hash_file(path: Path) -> str:
    """Return the xxh3_128 hash of a file (about 4 GB a second when the file is in memory)."""
    digest, buffer = xxhash.xxh3_128(), bytearray(1 << 22)
    with path.open("rb") as file:
        while size := file.readinto(buffer):
            digest.update(memoryview(buffer)[:size])
    return digest.hexdigest()


def require_space(place: Path, needed: int) -> None:
    """Refuse early when a disk cannot hold what is about to be written.

    Raises:
        CacheError: fewer than `needed` bytes are free where `place` is.
    """
    free = shutil.disk_usage(place).free
    if free < needed:
        raise CacheError(
            f"{needed / 1e9:.2f} GB are needed in {place.parent}, and {free / 1e9:.2f} GB are free. "
            "Make room, or set MECHINT_CACHE to a folder on another disk."
        )


def is_disk_full(error: BaseException) -> bool:
    """Whether an error means that the disk is full; safetensors says so in words only.

    Examples:
        >>> is_disk_full(OSError(errno.ENOSPC, "No space left on device")), is_disk_full(ValueError("no"))
        (True, False)
    """
    words = str(error).lower()
    return getattr(error, "errno", None) in _FULL or "no space left" in words or "os error 28" in words


def versions(*packages: str) -> dict[str, str]:
    """Return the installed versions of some packages, without importing them."""
    found: dict[str, str] = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file so that it is there whole or not at all.

    Raises:
        CacheError: it cannot be written.
    """
    with _border(f"cache file {path}"):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".partial", dir=path.parent)
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                json.dump(content, file, indent=1)
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise


@contextmanager
def _border(what: str) -> Generator[None, None, None]:
    """Map what the operating system says to `CacheError`."""
    try:
        yield
    except Exception as error:
        if is_disk_full(error):
            why = "the disk is full. Make room, or set MECHINT_CACHE to a folder on another disk"
        elif not isinstance(error, OSError):
            raise
        elif error.errno in _FORBIDDEN:
            why = f"there is no permission ({error.strerror}). Set MECHINT_CACHE to a folder that you may write to"
        else:
            why = f"{error}. Set MECHINT_CACHE to a folder that can be written"
        raise CacheError(f"Cannot write the {what}: {why}.") from error


@contextmanager
def _locked(place: Path, waiting: Callable[[], None] | None) -> Generator[None, None, None]:
    lock = filelock.FileLock(place.parent / f".{place.name}.lock")
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        log.info("Another process is preparing %s; waiting for it.", place.name)
        if waiting is not None:
            waiting()
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _build(place: Path, build: Callable[[Path], Mapping[str, Any]]) -> None:
    partial = Path(tempfile.mkdtemp(prefix=f".{place.name}.", suffix=".partial", dir=place.parent))
    try:
        about = build(partial)
        _seal(partial, about)
        if place.exists():
            place.rename(partial.with_name(f"{partial.name}.old.partial"))
        partial.rename(place)
        _sync(place.parent)
    finally:
        _remove_leftovers(place)


def _seal(partial: Path, about: Mapping[str, Any]) -> None:
    files: dict[str, Any] = {}
    for path in sorted(p for p in partial.rglob("*") if p.is_file()):
        _sync(path)
        files[path.relative_to(partial).as_posix()] = {"size": path.stat().st_size, "xxh3_128": hash_file(path)}
    seal = {"layout": LAYOUT, "about": dict(about), "files": files}
    (partial / SEAL).write_text(json.dumps(seal, indent=1), encoding="utf-8")
    _sync(partial / SEAL)
    _sync(partial)


def _remove_leftovers(place: Path) -> None:
    """Remove what builds of this key left aside; only call with the lock held."""
    for leftover in place.parent.glob(f".{place.name}.*.partial"):
        shutil.rmtree(leftover, ignore_errors=True)


def _sync(path: Path) -> None:
    """Have a file or folder reach the disk, so that a sealed folder survives a power cut."""
    if os.name == "nt" and path.is_dir():  # Windows cannot open folders
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
