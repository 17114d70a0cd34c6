"""From a name, a folder or a file to a model in memory.

| spec | what happens |
|---|---|
| an embedded name, `gemma3-270m` | assembled and converted once, then read from the cache |
| a folder | read with transformers |
| a GGUF file | converted once, then read from the cache |
| a Hugging Face id, `gpt2` or `org/name` | the local hub cache first; then the network, unless HF_HUB_OFFLINE is set |

An embedded name wins over a folder of the same name: write `./gemma3-270m` for the folder.
"""

import difflib
import logging
import os
import re
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import huggingface_hub
from transformers import AutoConfig, PreTrainedModel, PreTrainedTokenizerBase

from mechint.errors import CorruptModelError, UnknownModelError, UnsupportedModelError
from mechint.model import cache, conversion
from mechint.model.agreement import Reference
from mechint.model.backends import Backend, behind
from mechint.model.base import Model
from mechint.model.embedded import EMBEDDED
from mechint.model.reading import check, in_terminal, read_model, read_tokenizer, reading

log = logging.getLogger(__name__)

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
_PROXIES = ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")


@dataclass(frozen=True)
class Parts:
    """A model and tokenizer as transformers reads them, before a backend instruments the model."""

    hf_model: PreTrainedModel
    """In eval mode, float32 unless wrapped, eager attention."""
    tokenizer: PreTrainedTokenizerBase
    name: str
    source: dict[str, str]
    """For manifests: where the weights came from; no paths for embedded models."""
    reference: Reference
    """The same weights for a run without any backend (see `agreement`)."""


def load(
    spec: str | Path,
    *,
    progress: bool | None = None,
    backend: Backend = "transformer_lens",
    remote: bool | str = False,
) -> Model:
    """Load a model by name, folder, GGUF file or Hugging Face id; organisms are loaded one layer higher.

    Args:
        spec: what to load (see the module's table).
        progress: show progress bars on standard error; by default only in a terminal.
        backend: what runs it, "transformer_lens" or "nnsight".
        remote: with nnsight: "local" packs every run as for a server, True sends it to NDIF.

    Raises:
        ConfigError: no such backend, or one that runs models here alone.
        UnknownModelError: there is no such model here; the message lists what was tried.
        CorruptModelError: files are truncated, altered or missing.
        UnsupportedModelError: not a causal language model with plain weights.
        CacheError: the converted copy cannot be written.
    """
    return _with_backend(load_parts(spec, progress=progress), backend, remote)


def wrap(
    hf_model: Any,
    tokenizer: Any,
    *,
    name: str | None = None,
    backend: Backend = "transformer_lens",
    remote: bool | str = False,
) -> Model:
    """Take a transformers model that is in memory already; it is instrumented in place and put in eval mode.

    Attention is set to eager, so that patterns can be seen and rewritten; weights and dtype stay as they are.

    Args:
        hf_model: a causal `PreTrainedModel` with plain weights on one device.
        tokenizer: its transformers tokenizer.
        name: what to call it; by default the name it was loaded by, or its class.
        backend: what runs it, "transformer_lens" or "nnsight".
        remote: with nnsight: "local" packs every run as for a server.

    Raises:
        ConfigError: no such backend, or one that runs models here alone.
        UnsupportedModelError: something else was given, or its attention cannot be eager.
    """
    return _with_backend(wrap_parts(hf_model, tokenizer, name=name), backend, remote)


def load_parts(spec: str | Path, *, progress: bool | None = None) -> Parts:
    """Do what `load` does, without a backend."""
    if isinstance(spec, str) and spec in EMBEDDED:
        return _embedded(spec, progress)
    path = Path(spec).expanduser()
    if path.is_dir():
        return _folder(path)
    if path.is_file():
        return _gguf_file(path, progress)
    if isinstance(spec, str) and _HUB_ID.fullmatch(spec) and path.suffix != ".gguf":
        return _hub(spec, progress)
    raise UnknownModelError(_unknown(str(spec), "It is neither an id of the Hugging Face hub."))


def wrap_parts(hf_model: Any, tokenizer: Any, *, name: str | None = None) -> Parts:
    """Do what `wrap` does, without a backend."""
    what = "The model given to wrap"
    check(hf_model, what)
    if not isinstance(tokenizer, PreTrainedTokenizerBase):
        raise UnsupportedModelError(
            f"The tokenizer is a {type(tokenizer).__name__}. Expected a transformers tokenizer, such as "
            "AutoTokenizer.from_pretrained(...) returns."
        )
    before = str(getattr(hf_model.config, "_attn_implementation", None))
    if before != "eager":
        with reading(what):
            hf_model.set_attn_implementation("eager")
        log.info("Attention of %s is now eager (was %s).", type(hf_model).__name__, before)
    if getattr(hf_model.config, "_attn_implementation", None) != "eager":
        raise UnsupportedModelError(
            f"The attention of this {type(hf_model).__name__} stays {before}. "
            'Load it with attn_implementation="eager": other kinds do not show their patterns.'
        )
    source = _source(
        "wrapped",
        "an object in memory",
        attention_before=before,
        dtype=str(hf_model.dtype).removeprefix("torch."),
        class_name=type(hf_model).__name__,
    )
    name = name or Path(str(hf_model.config.name_or_path or "")).name or type(hf_model).__name__
    return Parts(hf_model.eval(), tokenizer, name, source, Reference.of(hf_model))


def _with_backend(parts: Parts, backend: str, remote: bool | str) -> Model:
    return behind(
        backend,
        parts.hf_model,
        parts.tokenizer,
        name=parts.name,
        source=parts.source,
        reference=parts.reference,
        remote=remote,
    )


def _embedded(name: str, progress: bool | None) -> Parts:
    model = EMBEDDED[name]
    folder = conversion.convert_embedded(model, progress)
    source = _source(
        "embedded",
        f"{name}, from the Python package {model.distribution}",
        spec=name,
        note=model.note,
        licence=model.licence,
        package_version=cache.versions(model.distribution)[model.distribution],
    )
    return _converted(folder, name, name, source)


def _gguf_file(path: Path, progress: bool | None) -> Parts:
    folder = conversion.convert_file(path, progress)
    source = _source(
        "gguf", f"the GGUF file {path.name}", spec=str(path), note="float32 weights dequantised from a GGUF file"
    )
    return _converted(folder, path.stem, str(path), source)


def _converted(folder: Path, name: str, what: str, source: dict[str, str]) -> Parts:
    about = cache.read_seal(folder)["about"]
    hf_model = read_model(folder, what)
    tokenizer = conversion.read_kept_tokenizer(folder, what)
    source |= {
        "gguf_sha256": about["gguf_sha256"],
        "quantisation": about["quantisation"],
        "converted_by_transformers": about["versions"]["transformers"],
    }
    return Parts(hf_model, tokenizer, name, source, Reference.of(hf_model, str(folder)))


def _folder(folder: Path) -> Parts:
    if not (folder / "config.json").is_file():
        ggufs = sorted(path.name for path in folder.glob("*.gguf"))
        hint = f" It holds {', '.join(ggufs)}: load that file." if ggufs else ""
        raise UnknownModelError(f"The folder {folder} has no config.json, so it is not a Hugging Face model.{hint}")
    what = str(folder)
    hf_model, tokenizer = read_model(folder, what), read_tokenizer(folder, what)
    name = folder.resolve().name
    return Parts(
        hf_model, tokenizer, name, _source("folder", f"the folder {name}", spec=what), Reference.of(hf_model, what)
    )


def _hub(spec: str, progress: bool | None) -> Parts:
    # What is cached is used as it is: no network call, and no silent change of revision.
    folder = _snapshot(spec)
    parts = None if folder is None else _try_snapshot(folder, spec)
    if parts is None:
        if problem := _unreachable():
            found = "not in" if folder is None else "incomplete in"
            raise UnknownModelError(_unknown(spec, f"It is {found} the local hub cache; {problem}"))
        _probe(spec)
        bars = in_terminal() if progress is None else progress
        hf_model = read_model(spec, spec, local=False, bars=bars)
        parts = hf_model, read_tokenizer(spec, spec, local=False, bars=bars)
        folder = _snapshot(spec)
    revision = "unknown" if folder is None else folder.name
    source = _source("hub", f"{spec} of the Hugging Face hub", spec=spec, revision=revision)
    location = None if folder is None else str(folder)
    return Parts(*parts, spec.rsplit("/", 1)[-1], source, Reference.of(parts[0], location))


def _snapshot(spec: str) -> Path | None:
    """Return the folder of an id in the local hub cache, or None."""
    try:
        return Path(huggingface_hub.snapshot_download(spec, local_files_only=True))
    except (OSError, ValueError):  # not there, or not an id
        return None


def _try_snapshot(folder: Path, spec: str) -> tuple[PreTrainedModel, PreTrainedTokenizerBase] | None:
    """Read what the hub cache holds, or return None if files are missing from it; damaged files raise."""
    try:
        return read_model(folder, spec), read_tokenizer(folder, spec)
    except CorruptModelError as error:
        if isinstance(error.__cause__, OSError) or "has no tokenizer" in str(error):
            return None
        raise


def _probe(spec: str) -> None:
    """Ask the hub for the configuration alone, so that a name it does not know is not called corrupt."""
    try:
        with reading(spec):
            AutoConfig.from_pretrained(spec, trust_remote_code=False)
    except CorruptModelError as error:
        raise UnknownModelError(_unknown(spec, f"The Hugging Face hub does not give it: {error.__cause__}")) from error


def _unreachable() -> str | None:
    """Say why the hub cannot be asked, or return None; the hub's own client retries for half a minute."""
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}:
        return "HF_HUB_OFFLINE is set, so the hub was not asked. Unset it to download."
    if any(os.environ.get(name) for name in _PROXIES):
        return None
    host = (
        re.sub(r"^https?://", "", os.environ.get("HF_ENDPOINT", "https://huggingface.co")).split("/")[0].split(":")[0]
    )
    try:
        socket.getaddrinfo(host, 443)
    except OSError as error:
        return f"{host} cannot be reached ({error}). Connect to a network to download."
    return None


def _unknown(spec: str, tried: str) -> str:
    close = difflib.get_close_matches(spec, EMBEDDED, n=1, cutoff=0.5)
    guess = f" Did you mean {close[0]!r}?" if close else ""
    return (
        f"No model {spec!r}.{guess} It is not embedded (these are: {', '.join(EMBEDDED)}), there is no folder and no "
        f"GGUF file of that name here. {tried}"
    )


def _source(kind: str, description: str, **more: str) -> dict[str, str]:
    return {"kind": kind, "description": description, **cache.versions("transformers"), **more}
