"""Running an experiment into a folder, so that it can be stopped at any time and goes on where it was.

Each unit's rows are kept as soon as they are measured (`parts.py`). When all are there the analysis concludes, and
tables, figures, report and manifest are written. Tables are always made from the rows as they were kept, so an
interrupted run and an uninterrupted one give the same.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from mechint.errors import OutputError
from mechint.experiment import sources
from mechint.experiment.config import ExperimentConfig
from mechint.experiment.files import content_hash, write_atomic, write_frame
from mechint.experiment.manifest import Manifest, start_manifest
from mechint.experiment.parts import RECEIPT, Parts
from mechint.experiment.prepare import LoadModel, MakePrompts, prepare
from mechint.experiment.registry import ANALYSES, AnalysisKind
from mechint.experiment.session import begin, check_same_experiment, look_at, only_one, recorded
from mechint.experiment.size import estimated
from mechint.results import CLOSER_LOOK, Analysis, Findings, Unit, join_parts, not_in


@dataclass(frozen=True)
class Outcome:
    """How a run ended."""

    folder: Path
    findings: Findings | None
    """None after a dry run."""
    manifest: Manifest
    plan: pd.DataFrame
    """A row for each raw table: its units, and how many were there already; a closer look may add units later. Of a dry
    run without the model: what it would cost instead (`size`)."""


def run(
    config: ExperimentConfig,
    out: str | Path,
    *,
    resume: bool = False,
    dry_run: bool = False,
    progress: bool | None = None,
    argv: Sequence[str] | None = None,
    analyses: Mapping[str, AnalysisKind] = ANALYSES,
    load_model: LoadModel = sources.load_model,
    make_prompts: MakePrompts = sources.make_prompts,
) -> Outcome:
    """Run an experiment into a folder.

    Args:
        config: the experiment.
        out: a new or empty folder, or with `resume` one in which this experiment was begun.
        resume: measure only what is not there yet.
        dry_run: write nothing; say what there would be to do.
        progress: show a progress bar on standard error; by default only in a terminal.
        argv: the command, for the manifest.
        analyses: the analyses that there are.
        load_model: gives the model.
        make_prompts: gives the prompts, for the model's tokenizer.

    Raises:
        OutputError: the folder holds something else, or cannot be written.
        Interrupted: Ctrl-C; call again with `resume=True`.
        MechintError: whatever the model, the prompts or the analysis object to.
    """
    folder = Path(out)
    before = look_at(folder, resume)
    if dry_run and (size := estimated(config, analyses)) is not None:
        return Outcome(folder, None, {}, size)
    ready = prepare(config, analyses=analyses, load_model=load_model, make_prompts=make_prompts)
    fingerprint = dict(getattr(ready.model, "fingerprint", {}))
    parts = Parts(folder / "parts", ready.config.uid(), fingerprint, str(ready.prompts.content_hash))
    words = sys.argv if argv is None else argv
    manifest = start_manifest(ready.config, model=ready.model, prompts=ready.prompts, argv=words)
    if before is not None:
        check_same_experiment(folder, before, manifest)
        manifest |= {"created": before["created"], "sessions": before.get("sessions", [])}
    plan = _plan(ready.units, parts)
    if dry_run:
        return Outcome(folder, None, manifest, plan)
    with only_one(folder):
        begin(folder, ready.config, manifest)
        units = list(ready.units)
        with recorded(folder, manifest, parts, units):
            _measure(ready.analysis, units, parts, ready.analysis.kind, progress)
            while later := _follow_up(ready.analysis, units, _raw(units, parts, manifest)):
                units += later  # in place: the manifest of an interrupted run counts them
                _measure(ready.analysis, later, parts, CLOSER_LOOK, progress)
            findings = _conclude(folder, ready.analysis.conclude(_raw(units, parts, manifest)), manifest)
        _present(folder, findings, manifest)
    return Outcome(folder, findings, manifest, plan)


def _measure(analysis: Analysis, units: Sequence[Unit], parts: Parts, what: str, progress: bool | None) -> None:
    from tqdm.auto import tqdm

    hidden = None if progress is None else not progress
    for unit in tqdm(units, desc=what, unit="unit", disable=hidden):
        if parts.load(unit) is None:
            parts.save(unit, analysis.measure(unit))


def _follow_up(analysis: Analysis, units: Sequence[Unit], raw: Mapping[str, pd.DataFrame]) -> list[Unit]:
    return not_in({unit.name for unit in units}, analysis.follow_up(raw))


def _raw(units: Sequence[Unit], parts: Parts, manifest: Manifest) -> dict[str, pd.DataFrame]:
    """Put the parts together, and add up their receipts into the manifest."""
    raw: dict[str, list[pd.DataFrame]] = {}
    receipts: dict[str, float] = {}
    for unit in units:
        frame = parts.load(unit)
        if frame is None:
            raise OutputError(
                f"The rows of {unit.name} vanished from {parts.folder} during the run. Run with --resume."
            )
        for name, count in frame.attrs.get(RECEIPT, {}).items():
            receipts[name] = receipts.get(name, 0) + count
        frame.attrs = {}
        raw.setdefault(unit.table, []).append(frame)
    manifest |= {"units": {table: len(frames) for table, frames in raw.items()}, "receipts": receipts}
    return join_parts(raw)


def _conclude(folder: Path, found: Findings, manifest: Manifest) -> Findings:
    """Write the tables, and what was found into the manifest."""
    kept = {name: write_frame(folder / f"{name}.parquet", frame) for name, frame in found.tables.items()}
    manifest |= {
        "kind": found.kind,
        "verdict": found.verdict,
        "notes": list(found.notes),
        "tables": {
            name: {"hash": content_hash(frame), "rows": len(frame), "columns": [str(c) for c in frame.columns]}
            for name, frame in kept.items()
        },
    }
    return replace(found, tables=kept)


def _present(folder: Path, findings: Findings, manifest: Manifest) -> None:
    from mechint.experiment.report import write_report

    write_atomic(folder / "verdict.txt", findings.verdict.rstrip() + "\n")
    write_report(folder, findings, manifest)


def _plan(units: Sequence[Unit], parts: Parts) -> pd.DataFrame:
    there: dict[str, list[bool]] = {}
    for unit in units:
        there.setdefault(unit.table, []).append(parts.load(unit) is not None)
    rows = [{"table": table, "units": len(done), "measured": sum(done)} for table, done in there.items()]
    return pd.DataFrame(rows, columns=["table", "units", "measured"])
