"""One session of a run in its folder: whose folder it is, that nobody else writes to it, and how the session ended."""

import contextlib
import time
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any

from mechint.errors import OutputError
from mechint.experiment.config import ExperimentConfig
from mechint.experiment.files import canonical, write_atomic
from mechint.experiment.manifest import FILE, Manifest, now, peak_memory, read_manifest, write_manifest
from mechint.experiment.parts import Parts
from mechint.experiment.toml import PROMPTS_FILE, to_toml
from mechint.results import Unit


class Interrupted(KeyboardInterrupt):
    """Ctrl-C during a run: what was measured is kept."""

    def __init__(self, folder: Path, done: int, total: int) -> None:
        super().__init__(f"Interrupted; {done} of {total} units are kept in {folder}.")
        self.folder, self.done, self.total = folder, done, total


def look_at(folder: Path, resume: bool) -> Manifest | None:
    """Return the manifest of the run that was begun in this folder, if there is one and it is to go on."""
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"{folder} is a file. Give a folder that is new or empty.")
    if not folder.exists() or not any(folder.iterdir()):
        return None
    if not resume:
        hint = "Add --resume to go on with it, or give" if (folder / FILE).exists() else "Give"
        raise OutputError(f"{folder} exists and is not empty. {hint} another folder: nothing is overwritten.")
    return read_manifest(folder)


def check_same_experiment(folder: Path, before: Manifest, manifest: Manifest) -> None:
    """Raise an error unless a run may go on: same experiment, same prompts, same model."""
    if before.get("uid") != manifest["uid"]:
        old, new = before.get("experiment", {}), manifest["experiment"]
        changed = [key for key in sorted({*old, *new}) if canonical(old.get(key)) != canonical(new.get(key))]
        told = "; ".join(f"{key} was {canonical(old.get(key))} and is now {canonical(new.get(key))}" for key in changed)
        raise OutputError(
            f"{folder} holds another experiment, so it cannot be resumed with this one: {told or 'another version'}. "
            "Give another folder, or the settings it was begun with."
        )
    if before["data"]["hash"] != manifest["data"]["hash"]:
        raise OutputError(f"The prompts are not those {folder} was begun with. Give another folder.")
    if before["model"]["fingerprint"] != manifest["model"]["fingerprint"]:
        raise OutputError(f"The model is not the one {folder} was begun with. Give another folder.")


def begin(folder: Path, config: ExperimentConfig, manifest: Manifest) -> None:
    """Write down what is about to be run, before anything is measured."""
    write_manifest(folder, manifest)
    write_atomic(folder / "experiment.toml", to_toml(config))
    if config.prompts.file is not None and Path(config.prompts.file) != folder / PROMPTS_FILE:
        write_atomic(folder / PROMPTS_FILE, Path(config.prompts.file).read_bytes())


@contextlib.contextmanager
def only_one(folder: Path) -> Generator[None]:
    """Keep a second process from writing to the same folder."""
    from filelock import FileLock, Timeout

    try:
        (folder / "parts").mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / "parts" / ".lock", timeout=0)
        lock.acquire()
    except Timeout as error:
        raise OutputError(f"Another process is writing to {folder}. Wait for it, or give another folder.") from error
    except OSError as error:
        raise OutputError(f"Cannot write to {folder}: {error.strerror or error}.") from error
    try:
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def recorded(folder: Path, manifest: Manifest, parts: Parts, units: Sequence[Unit]) -> Generator[None]:
    """Write into the manifest how this session ended, whatever happens."""
    session: dict[str, Any] = {"started": now(), "status": "running"}
    manifest["sessions"] = [*manifest["sessions"], session]
    start, status = time.monotonic(), "failed"
    try:
        yield
        status = "complete"
    except KeyboardInterrupt as stop:
        status = "interrupted"
        done = sum(parts.path(unit).exists() for unit in units)
        raise Interrupted(folder, done, len(units)) from stop
    except BaseException as error:
        session["error"] = f"{type(error).__name__}: {error}"
        raise
    finally:
        session |= {"status": status, "finished": now(), "seconds": round(time.monotonic() - start, 3)}
        manifest |= {
            "status": status,
            "finished": now(),
            "wall_seconds": round(sum(part.get("seconds", 0.0) for part in manifest["sessions"]), 3),
            "peak_memory_bytes": peak_memory(),
        }
        # On a full disk this fails too, and what went wrong first is what must be told.
        with contextlib.suppress(OutputError):
            write_manifest(folder, manifest)
