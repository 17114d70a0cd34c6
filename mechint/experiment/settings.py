"""Checking settings against a dataclass, and saying in plain words what is wrong with them."""

import dataclasses
import difflib
import json
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import BaseModel, TypeAdapter, ValidationError

from mechint.errors import ConfigError
from mechint.experiment.registry import AnalysisKind


def settings_of(
    analysis: str, given: Mapping[str, Any], analyses: Mapping[str, AnalysisKind], origin: str
) -> tuple[Any, dict[str, Any]]:
    """Return an analysis's settings as its own dataclass, and as plain data with every default.

    Raises:
        ConfigError: no such analysis, an unknown setting, or an impossible value.
    """
    if analysis not in analyses:
        raise ConfigError(
            f"{origin}: analysis = {analysis!r} is not known. {suggestion(analysis, analyses)}"
            f"Known: {', '.join(sorted(analyses)) or 'none'}."
        )
    kind = analyses[analysis].settings()
    names = [field.name for field in dataclasses.fields(kind) if field.init]
    for key in given:
        if key not in names:
            raise ConfigError(
                f"{origin}: [settings] of {analysis} has no {key!r}. {suggestion(key, names)}"
                f"Settings are: {', '.join(names) or 'none'}."
            )
    try:
        adapter = TypeAdapter(kind)
        settings = adapter.validate_json(json.dumps(dict(given), default=str), strict=True)
    except ValidationError as error:
        told = "; ".join(f"{_place(item['loc'])}: {_told(item)}" for item in error.errors())
        raise ConfigError(f"{origin}: [settings] of {analysis}: {told}.") from error
    return settings, adapter.dump_python(settings, mode="json")


def plain_errors(error: ValidationError, kind: type[BaseModel], origin: str) -> str:
    """Say each thing that is wrong: the key, what was given, what is allowed, and what may have been meant."""
    lines: list[str] = []
    for item in error.errors():
        place = _place(item["loc"])
        if item["type"] == "extra_forbidden":
            allowed = _keys(kind, item["loc"][:-1])
            near = suggestion(str(item["loc"][-1]), allowed)
            lines.append(f"unknown key {place!r}. {near}Allowed here: {', '.join(allowed)}")
        elif item["type"] == "missing":
            lines.append(f"{place!r} is missing: it must be given")
        else:
            lines.append(f"{place!r}: {_told(item)}")
    return f"{origin}: " + "; ".join(lines) + "."


def suggestion(given: str, allowed: Iterable[str]) -> str:
    """Return a question with the nearest allowed word, or nothing.

    Examples:
        >>> suggestion("layres", ["layers", "seed"])
        "Did you mean 'layers'? "
    """
    near = difflib.get_close_matches(given, list(allowed), n=1)
    return f"Did you mean {near[0]!r}? " if near else ""


def _told(item: Any) -> str:
    message = str(item["msg"]).removeprefix("Value error, ")
    given = item["input"]
    return message if isinstance(given, dict) else f"{message}; given: {json.dumps(given, default=str)}"


def _place(loc: tuple[int | str, ...]) -> str:
    return ".".join(str(part) for part in loc) or "the settings"


def _keys(kind: type[BaseModel], loc: tuple[int | str, ...]) -> list[str]:
    """Return the keys allowed at a place of a nested model."""
    for part in loc:
        if isinstance(part, int):
            continue
        inner = kind.model_fields[part].annotation if part in kind.model_fields else None
        candidates = [inner, *getattr(inner, "__args__", ())]
        found = next((c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)), None)
        if found is None:
            return []
        kind = found
    return list(kind.model_fields)
