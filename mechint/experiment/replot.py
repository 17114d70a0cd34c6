"""Drawing figures and report again from the tables on disk: no model, no torch."""

from pathlib import Path

from mechint.experiment.report import write_report
from mechint.experiment.saved import read_saved


def replot(folder: str | Path) -> Path:
    """Draw the figures and the report of a finished run again, and return the report's path.

    Raises:
        OutputError: it is no folder of results, or a table is missing or damaged.
    """
    saved = read_saved(folder)
    return write_report(saved.folder, saved.findings, saved.manifest)
