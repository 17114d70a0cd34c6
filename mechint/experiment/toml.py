"""Writing an experiment back as the TOML file that would run it."""

import json
from collections.abc import Mapping
from typing import Any

from mechint.experiment.config import ExperimentConfig

PROMPTS_FILE = "prompts.jsonl"
"""What a file of prompts is called in the folder of results, where a copy is kept."""


def resolved(config: ExperimentConfig) -> dict[str, Any]:
    """Return an experiment as plain data in which a file of prompts is the copy beside it."""
    told = config.model_dump(mode="json", exclude_none=True)
    if config.prompts.file is not None:
        told["prompts"]["file"] = PROMPTS_FILE
    return told


def to_toml(config: ExperimentConfig) -> str:
    """Return the text of an experiment file that reads back as this experiment."""
    told = resolved(config)
    sections = {name: told.pop(name) for name in ("prompts", "settings", "run")}
    expected = told.pop("expect", [])
    lines = [f"{_key(name)} = {_value(value)}" for name, value in told.items()]
    for name, section in sections.items():
        lines += [
            "",
            f"[{name}]",
            *(f"{_key(key)} = {_value(item)}" for key, item in section.items() if item is not None),
        ]
    for item in expected:
        lines += ["", "[[expect]]", *(f"{_key(key)} = {_value(part)}" for key, part in item.items())]
    return "\n".join(lines) + "\n"


def _value(value: Any) -> str:
    """Write one TOML value.

    Examples:
        >>> _value(True), _value(0.5), _value({"a": [1, "x"]})
        ('true', '0.5', '{ a = [1, "x"] }')
    """
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return repr(value)  # inf and nan are written alike in Python and TOML
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007F")
    if isinstance(value, Mapping):
        inner = ", ".join(f"{_key(key)} = {_value(item)}" for key, item in value.items() if item is not None)
        return f"{{ {inner} }}" if inner else "{}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(_value(item) for item in value)}]"
    return str(value)


def _key(name: str) -> str:
    bare = name.isascii() and name.replace("_", "").replace("-", "").isalnum()
    return name if bare else _value(name)
