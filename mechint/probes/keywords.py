"""From keyword arguments to a frozen dataclass of settings, for the functions that a notebook calls."""

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeVar

from mechint.errors import ConfigError

Settings = TypeVar("Settings")


def settings_from(kind: type[Settings], given: Mapping[str, Any]) -> Settings:
    """Make settings, and refuse a name that is none of their fields.

    Raises:
        ConfigError: an unknown name, or an impossible value.
    """
    known = [field.name for field in dataclasses.fields(kind)]  # pyright: ignore[reportArgumentType]
    for name in given:
        if name not in known:
            raise ConfigError(f"{name!r} is not a setting here. There are: {', '.join(known)}.")
    return kind(**given)
