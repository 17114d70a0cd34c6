"""Choosing and ordering the rows of a table for a figure."""

from typing import Any, cast

import pandas as pd


def where(frame: pd.DataFrame, mask: Any) -> pd.DataFrame:
    """Keep the rows for which `mask` holds."""
    return cast(pd.DataFrame, frame[mask])


def known(frame: pd.DataFrame, *columns: str) -> pd.DataFrame:
    """Keep the rows that have a number in each of these columns."""
    return frame.dropna(subset=list(columns))


def flagged(frame: pd.DataFrame, column: str) -> pd.Series:
    """Tell for which rows a column of flags is true; missing flags, or a missing column, are false.

    Examples:
        >>> flagged(pd.DataFrame({"good": [True, None, False]}), "good").tolist()
        [True, False, False]
    """
    if column not in frame:
        return pd.Series(False, index=frame.index)
    return pd.Series([flag is True or str(flag) == "True" for flag in frame[column]], index=frame.index)


def largest(frame: pd.DataFrame, column: str, count: int) -> pd.DataFrame:
    """Return the rows with the largest numbers regardless of sign, from the lowest number to the highest.

    Examples:
        >>> largest(pd.DataFrame({"x": [1.0, -3.0, 2.0, float("nan")]}), "x", 2)["x"].tolist()
        [-3.0, 2.0]
    """
    order = cast(pd.Series, frame[column]).abs().sort_values(ascending=False, kind="stable", na_position="last")
    chosen = known(frame.loc[order.index], column).head(count)
    return chosen.sort_values(by=[column], kind="stable")


def records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the rows as dictionaries."""
    return cast(list[dict[str, Any]], frame.to_dict(orient="records"))


def groups(frame: pd.DataFrame, *columns: str) -> list[pd.DataFrame]:
    """Divide a table by the values of some columns, in the order in which they first occur."""
    return [rows for _, rows in frame.groupby(list(columns), sort=False)]
