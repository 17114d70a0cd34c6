"""What an analysis is, and what it returns: units of work in, tidy tables and a sentence out.

An analysis is a list of *units* (a few seconds of work each), a function that measures one unit and returns its
rows, and a function that turns all rows into a `Findings`. The same object therefore runs in a notebook
(`complete`), and in an experiment that is interrupted and resumed unit by unit. The tables are the contract
between mathematics and pictures: every figure is drawn from them alone, with no model at hand.
"""

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import pandas as pd

from mechint.errors import OutputError

if TYPE_CHECKING:
    import plotly.graph_objects as go


CLOSER_LOOK = "closer look"
"""Title of the progress bar of units that follow up on others."""


@dataclass(frozen=True)
class Unit:
    """A piece of work that is done, saved and resumed as a whole."""

    table: str
    """Name of the raw table its rows belong to, such as `"ablation"`."""
    name: str
    """Unique within the analysis, such as `"ablation/L3/0-16"`; random numbers are seeded by it."""
    inputs: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """What `measure` needs to know (JSON types only): layer, prompt range, …"""


@dataclass(frozen=True, repr=False)
class Findings:
    """What an analysis found, as tables and sentences.

    Examples:
        >>> found = Findings("demo", {"heads": pd.DataFrame({"layer": [0], "head": [1]})}, "No head stands out.")
        >>> found.to_frame().columns.tolist()
        ['layer', 'head']
        >>> found
        demo: No head stands out.
        Tables: heads (1 x 2).
    """

    kind: str
    """Which analysis; picks the figures."""
    tables: Mapping[str, pd.DataFrame]
    """Tidy tables by name; the first is the main one."""
    verdict: str
    """What was found, or that nothing was, in plain sentences."""
    notes: Sequence[str] = ()
    """What a reader must know to read the tables: exclusions, sample sizes, departures."""

    def __repr__(self) -> str:
        sizes = ", ".join(f"{name} ({len(frame)} x {frame.shape[1]})" for name, frame in self.tables.items())
        return f"{self.kind}: {self.verdict}\nTables: {sizes}."

    def to_frame(self, table: str | None = None) -> pd.DataFrame:
        """Return a copy of a table, the main one by default.

        Raises:
            OutputError: no table of that name.
        """
        name = next(iter(self.tables)) if table is None else table
        if name not in self.tables:
            raise OutputError(f"No table {name!r} in these {self.kind} findings. There are: {', '.join(self.tables)}.")
        return self.tables[name].copy()

    def figures(self) -> "dict[str, go.Figure]":
        """Draw every figure of this kind of finding, by name."""
        from mechint.plots import figures

        return figures.draw(self.kind, self.tables)

    def plot(self, figure: str | None = None) -> "go.Figure":
        """Draw one figure, the first by default."""
        drawn = self.figures()
        name = next(iter(drawn)) if figure is None else figure
        if name not in drawn:
            raise OutputError(f"No figure {name!r} of {self.kind}. There are: {', '.join(drawn)}.")
        return drawn[name]

    def save(self, folder: str | Path) -> Path:
        """Write every table as a parquet file into a new or empty folder, and return the folder.

        Raises:
            OutputError: the folder already holds something.
        """
        folder = Path(folder)
        if folder.exists() and any(folder.iterdir()):
            raise OutputError(f"{folder} exists and is not empty. Give another folder: nothing is overwritten.")
        folder.mkdir(parents=True, exist_ok=True)
        for name, frame in self.tables.items():
            frame.to_parquet(folder / f"{name}.parquet", index=False)
        return folder


@runtime_checkable
class Analysis(Protocol):
    """What the runner needs of an analysis."""

    kind: str

    def units(self) -> Sequence[Unit]:
        """List the units, in the order in which they are best done."""
        ...

    def measure(self, unit: Unit) -> pd.DataFrame:
        """Do one unit and return its rows."""
        ...

    def follow_up(self, raw: Mapping[str, pd.DataFrame]) -> Sequence[Unit]:
        """List the units that can be named only once others are done, such as a closer look at what stood out.

        Called again, with all rows, for as long as it names units that were not done.
        """
        ...

    def conclude(self, raw: Mapping[str, pd.DataFrame]) -> Findings:
        """Turn all rows, by table, into the findings."""
        ...


def complete(analysis: Analysis, progress: bool | None = None) -> Findings:
    """Run an analysis to its end in memory.

    Args:
        analysis: what to run.
        progress: show a progress bar on standard error; by default only in a terminal.
    """
    from tqdm.auto import tqdm

    parts: dict[str, list[pd.DataFrame]] = {}
    hidden = None if progress is None else not progress
    done, units, what = set[str](), list(analysis.units()), analysis.kind
    while units:
        for unit in tqdm(units, desc=what, unit="unit", disable=hidden):
            parts.setdefault(unit.table, []).append(analysis.measure(unit))
        done |= {unit.name for unit in units}
        units, what = not_in(done, analysis.follow_up(join_parts(parts))), CLOSER_LOOK
    return analysis.conclude(join_parts(parts))


def not_in(done: Container[str], units: Iterable[Unit]) -> list[Unit]:
    """Return the units whose names are not among those done."""
    return [unit for unit in units if unit.name not in done]


def join_parts(parts: Mapping[str, Sequence[pd.DataFrame]]) -> dict[str, pd.DataFrame]:
    """Put the rows of each table's units together."""
    return {table: pd.concat(frames, ignore_index=True) for table, frames in parts.items()}
