"""Comparing tables with numbers that were published or found before."""

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd

from mechint.errors import OutputError
from mechint.experiment.config import Expectation, ExperimentConfig

PASS, FAIL, NOT_RUN = "pass", "fail", "not run here"


def compare_expectations(config: ExperimentConfig, tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Return one row for each expected number: where it is, what was expected and found, and how that went.

    A number that was found on another model than the one that was run is "not run here", and so is a number whose
    table is missing if the experiment says that it cannot be run here.
    """
    rows = [_compare(item, config, tables) for item in config.expect]
    columns = ["number", "expected", "tolerance", "found", "status", "source", "note"]
    return pd.DataFrame(rows, columns=columns)


def _compare(item: Expectation, config: ExperimentConfig, tables: Mapping[str, pd.DataFrame]) -> dict[str, Any]:
    where = ", ".join(f"{column} = {value}" for column, value in item.where.items())
    told: dict[str, Any] = {
        "number": f"{item.table}.{item.column}" + (f" where {where}" if where else ""),
        "expected": str(item.value),
        "tolerance": item.tolerance,
        "found": "",
        "source": item.source,
        "note": "",
    }
    if item.model is not None and item.model != config.model:
        return told | {"status": NOT_RUN, "note": f"Found on {item.model}; this is {config.model}."}
    try:
        found = _look_up(item, tables)
    except OutputError as error:
        status = NOT_RUN if config.not_run_here else FAIL
        return told | {"status": status, "note": config.not_run_here or str(error)}
    return told | {
        "found": f"{found:.6g}" if isinstance(found, float) else str(found),
        "status": PASS if _agrees(found, item) else FAIL,
    }


def _look_up(item: Expectation, tables: Mapping[str, pd.DataFrame]) -> Any:
    if item.table not in tables:
        raise OutputError(f"There is no table {item.table!r}. There are: {', '.join(tables)}.")
    frame = tables[item.table]
    for column in (*item.where, item.column):
        if column not in frame:
            raise OutputError(f"{item.table} has no column {column!r}.")
    chosen = pd.Series(True, index=frame.index)
    for column, value in item.where.items():
        chosen &= frame[column] == value
    if int(chosen.sum()) != 1:
        raise OutputError(f"{int(chosen.sum())} rows of {item.table} match; one was expected.")
    return frame.loc[chosen, item.column].iloc[0]


def _agrees(found: Any, item: Expectation) -> bool:
    if isinstance(item.value, str | bool):
        return str(found) == str(item.value)
    return math.isfinite(float(found)) and abs(float(found) - item.value) <= item.tolerance
