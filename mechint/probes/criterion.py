"""Conditions that a finding has to meet, fixed before looking, and their table for the report."""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd


@dataclass(frozen=True)
class Criterion:
    """One condition, in words."""

    name: str
    threshold: str
    meaning: str


def criteria_table(criteria: Sequence[Criterion]) -> pd.DataFrame:
    """Return conditions as a table."""
    return pd.DataFrame([{"criterion": c.name, "threshold": c.threshold, "meaning": c.meaning} for c in criteria])
