"""Tables for people: estimates with their intervals in one cell, rounded to what the interval supports."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import pandas as pd

from mechint.experiment import columns as known

_TOKENS = {"target", "distractor", "token"}
"""Columns that hold single tokens, in which blanks are made visible."""


@dataclass(frozen=True)
class Cell:
    """What is shown in one place of a table."""

    text: str
    interval: str = ""
    """The interval, shown smaller."""
    note: str = ""
    """The p-value, shown smaller."""
    order: str = ""
    """What to sort by."""
    is_number: bool = False


@dataclass(frozen=True)
class Shown:
    """A table as headings and cells."""

    titles: tuple[str, ...]
    units: tuple[str, ...]
    numeric: tuple[bool, ...]
    rows: tuple[tuple[Cell, ...], ...]


def shown(frame: pd.DataFrame, names: Sequence[str] | None = None) -> Shown:
    """Turn a table into headings and cells; ends of intervals and p-values go into the cell of their estimate.

    Args:
        frame: the table.
        names: which columns, in which order; by default all.
    """
    extras = {f"{name}_{end}" for name in frame.columns for end in ("low", "high", "p")}
    wanted = [name for name in (frame.columns if names is None else names) if name in frame and name not in extras]
    rows = cast(list[dict[str, Any]], frame.to_dict(orient="records"))
    digits = {name: _column_digits(rows, name) for name in wanted}
    return Shown(
        tuple(known.title(name) for name in wanted),
        tuple(known.unit(name).replace("yes or no", "") for name in wanted),
        tuple(_is_numeric(frame, name) for name in wanted),
        tuple(tuple(cell(row, name, digits[name]) for name in wanted) for row in rows),
    )


def cell(row: Mapping[str, Any], name: str, digits: int | None = None) -> Cell:
    """Return what to show of one column of one row, with so many decimals or as many as its interval supports.

    Examples:
        >>> cell({"x": 0.5234, "x_low": 0.412, "x_high": 0.631, "x_p": 0.0002}, "x")
        Cell(text='0.52', interval='[0.41, 0.63]', note='p < 0.001', order='0.5234', is_number=True)
        >>> cell({"x": float("nan")}, "x").text
        '–'
    """
    value = row[name]
    if value is None or value is pd.NA or (isinstance(value, float) and math.isnan(value)):
        return Cell("–", order="", is_number=True)
    if isinstance(value, bool | np.bool_):
        return Cell("yes" if value else "no", order=str(int(value)))
    if not isinstance(value, int | float | np.integer | np.floating):
        text = "none" if name == "failed" and value == "" else str(value)
        return Cell(_visible(text) if name in _TOKENS else text, order=text)
    low, high, p = (_number(row.get(f"{name}_{end}")) for end in ("low", "high", "p"))
    if isinstance(value, int | np.integer) or (low is None and float(value).is_integer()):
        return Cell(f"{int(value):,}", note=p_text(p), order=str(int(value)), is_number=True)
    digits = _digits(float(value), low, high) if digits is None else digits
    interval = "" if low is None or high is None else f"[{_fixed(low, digits)}, {_fixed(high, digits)}]"
    return Cell(_fixed(float(value), digits), interval, p_text(p), repr(float(value)), True)


def p_text(p: float | None) -> str:
    """Write a p-value.

    Examples:
        >>> p_text(0.0001), p_text(0.0423), p_text(None)
        ('p < 0.001', 'p = 0.042', '')
    """
    if p is None:
        return ""
    return "p < 0.001" if p < 0.001 else f"p = {min(p, 1.0):.3f}"


def _digits(value: float, low: float | None, high: float | None) -> int:
    """Choose decimals: two significant digits of half the interval, or three of the number itself."""
    width = (high - low) / 2 if low is not None and high is not None else 0.0
    scale, significant = (width, 2) if width > 0 else (abs(value), 3)
    if scale == 0 or not math.isfinite(scale):
        return 2
    return int(
        min(4, max(0 if scale >= 100 else 1 if scale >= 10 else 2, significant - 1 - math.floor(math.log10(scale))))
    )


def _column_digits(rows: Sequence[Mapping[str, Any]], name: str) -> int | None:
    """Return decimals that suit the larger numbers of a column, so that all can be compared at a glance."""
    wanted = sorted(
        _digits(value, _number(row.get(f"{name}_low")), _number(row.get(f"{name}_high")))
        for row in rows
        if (value := _number(row[name])) is not None
    )
    return min(wanted[len(wanted) // 4], 3) if wanted else None


def _visible(token: str) -> str:
    return token.replace(" ", "·").replace("\n", "↵").replace("\t", "⇥")


def _fixed(value: float, digits: int) -> str:
    text = f"{value:,.{digits}f}"
    return text[1:] if text.startswith("-") and not text.strip("-0.,") else text.replace("-", "−")


def _number(value: Any) -> float | None:
    if not isinstance(value, int | float | np.integer | np.floating) or math.isnan(float(value)):
        return None
    return float(value)


def _is_numeric(frame: pd.DataFrame, name: str) -> bool:
    return pd.api.types.is_numeric_dtype(frame[name]) and not pd.api.types.is_bool_dtype(frame[name])
