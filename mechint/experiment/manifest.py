"""What was run, with what, on what, and how it ended: `manifest.json` beside every result."""

import dataclasses
import json
import os
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import mechint
from mechint.experiment.config import ExperimentConfig
from mechint.experiment.files import read_json, write_atomic
from mechint.experiment.toml import resolved

FILE = "manifest.json"
PACKAGES = (
    "mechint", "torch", "transformers", "transformer-lens", "tokenizers", "safetensors", "gguf", "datasets", "numpy",
    "scipy", "statsmodels", "pandas", "pyarrow", "plotly",
)  # fmt: skip
"""Packages whose version can change a number or a file."""

Manifest = dict[str, Any]


def start_manifest(config: ExperimentConfig, *, model: Any, prompts: Any, argv: Sequence[str]) -> Manifest:
    """Describe a run that is about to begin.

    Args:
        config: the resolved experiment.
        model: a `Model`; its `facts`, `fingerprint`, `source`, `agreement` and `placement` are kept if it has them.
        prompts: a `PromptSet`.
        argv: the command as it was typed.
    """
    return {
        "format": 1,
        "status": "running",
        "created": now(),
        "finished": None,
        "uid": config.uid(),
        "experiment": resolved(config),
        "command": command(argv),
        "git": git_state(),
        "environment": environment(),
        "model": describe_model(config.model, model),
        "data": {
            "name": str(getattr(prompts, "name", config.prompts.kind)),
            "hash": str(prompts.content_hash),
            "n": len(prompts),
        },
        "units": {},
        "sessions": [],
    }


def now() -> str:
    """Return the time in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def write_manifest(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Write `manifest.json`, whole or not at all.

    Raises:
        OutputError: it cannot be written.
    """
    write_atomic(folder / FILE, json.dumps(manifest, indent=2, ensure_ascii=False, default=str) + "\n")


def read_manifest(folder: Path) -> Manifest:
    """Read `manifest.json`.

    Raises:
        OutputError: there is none, or it cannot be read.
    """
    return read_json(folder / FILE)


def describe_model(spec: str, model: Any) -> dict[str, Any]:
    """Collect what a model says about itself."""
    facts = getattr(model, "facts", None)
    told: dict[str, Any] = {
        name: _portable(getattr(model, name, None)) for name in ("fingerprint", "source", "agreement", "placement")
    }
    known = dataclasses.asdict(facts) if dataclasses.is_dataclass(facts) and not isinstance(facts, type) else {}
    return {"spec": _shortened(spec), "facts": known, **told}


def environment() -> dict[str, Any]:
    """Return versions and machine, as far as they bear on numbers and speed; no names and no paths."""
    torch = sys.modules.get("torch")
    return {
        "python": platform.python_version(),
        "platform": platform.system(),
        "machine": platform.machine(),
        "cpu_count": os.cpu_count(),
        "torch_threads": torch.get_num_threads() if torch is not None else None,
        "packages": {name: version for name in PACKAGES if (version := _version(name)) is not None},
    }


def peak_memory() -> int:
    """Return the largest memory this process ever had, in bytes."""
    try:
        import resource
    except ImportError:  # Windows has no resource module
        import psutil

        return int(getattr(psutil.Process().memory_info(), "peak_wset", 0))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak if sys.platform == "darwin" else peak * 1024)


def git_state() -> dict[str, Any] | None:
    """Return commit and whether it was changed, if this package is being run from its repository."""
    root = Path(mechint.__file__).parent.parent
    if not (root / ".git").exists():
        return None
    commit, changes = _git(root, "rev-parse", "HEAD"), _git(root, "status", "--porcelain")
    return None if commit is None else {"commit": commit, "dirty": bool(changes)}


def command(argv: Sequence[str]) -> str:
    """Return a command line without this machine's folders.

    Examples:
        >>> command(["/opt/venv/bin/mechint", "scan", "--prompts", "/data/mine.jsonl", "--n", "8"])
        'mechint scan --prompts mine.jsonl --n 8'
    """
    words = [_shortened(word) for word in argv]
    if words and words[0] == "__main__.py":
        words[0] = "mechint"
    return " ".join(f'"{word}"' if " " in word else word for word in words)


def _portable(told: Any) -> dict[str, Any]:
    """Copy a mapping without this machine's folders; anything else is nothing."""
    if not isinstance(told, Mapping):
        return {}
    return {str(key): _shortened(value) if isinstance(value, str) else value for key, value in told.items()}


def _shortened(word: str) -> str:
    return Path(word).name if Path(word).is_absolute() else word


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return mechint.__version__ if name == "mechint" else None


def _git(root: Path, *words: str) -> str | None:
    try:
        done = subprocess.run(["git", *words], cwd=root, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
