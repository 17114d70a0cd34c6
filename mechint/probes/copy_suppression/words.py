"""Numbers and names in sentences."""

from collections.abc import Sequence
from typing import Any


def listed(names: Sequence[str]) -> str:
    """Write names as in a sentence.

    Examples:
        >>> listed(["L1H2", "L3H4", "L5H6"])
        'L1H2, L3H4 and L5H6'
    """
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def interval(row: Any, name: str, signed: bool = False) -> str:
    """Write an estimate with its interval.

    Examples:
        >>> interval({"x": 0.5, "x_low": 0.25, "x_high": 0.75}, "x")
        '0.50 [0.25, 0.75]'
    """
    value, low, high = (number(row[f"{name}{end}"], signed) for end in ("", "_low", "_high"))
    return f"{value} [{low}, {high}]"


def number(value: Any, signed: bool = True) -> str:
    """Write two decimals, and never a negative zero.

    Examples:
        >>> number(-0.001), number(0.126, signed=False)
        ('+0.00', '0.13')
    """
    return format(round(value, 2) + 0.0, "+.2f" if signed else ".2f")
