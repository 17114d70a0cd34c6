"""Checking a folder of results: are the tables what was measured, is this the same environment, do the numbers hold?

A difference is *critical* if the numbers cannot be trusted or not be compared, a *warning* if they may differ for
that reason, and *info* otherwise.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd

from mechint.errors import OutputError
from mechint.experiment import sources
from mechint.experiment.config import read_config
from mechint.experiment.expectations import FAIL, NOT_RUN, PASS, compare_expectations
from mechint.experiment.files import as_stored, content_hash, read_frame
from mechint.experiment.manifest import Manifest, environment, read_manifest
from mechint.experiment.parts import Parts
from mechint.experiment.prepare import LoadModel, MakePrompts, prepare
from mechint.experiment.registry import ANALYSES, AnalysisKind
from mechint.experiment.saved import read_back

CRITICAL, WARNING, INFO = "critical", "warning", "info"
_NUMERIC = {"torch", "transformers", "transformer-lens", "numpy", "scipy", "statsmodels", "tokenizers", "mechint"}
RELATIVE, ABSOLUTE = 1e-4, 1e-4
"""Differences that another processor's order of summation explains."""


@dataclass(frozen=True)
class Verification:
    """What a check of a folder found."""

    checks: pd.DataFrame
    """One row a check: `check`, `status`, `severity`, `recorded`, `found`, `note`."""

    def differing(self) -> list[dict[str, Any]]:
        """Return the checks that did not pass."""
        rows = cast(list[dict[str, Any]], self.checks.to_dict(orient="records"))
        return [row for row in rows if row["status"] != PASS]

    @property
    def status(self) -> str:
        """`"failed"` if anything critical differs, `"warnings"` if something may, else `"passed"`."""
        pairs = zip(self.checks["status"], self.checks["severity"], strict=True)
        bad = {severity for status, severity in pairs if status == FAIL}
        if CRITICAL in bad:
            return "failed"
        return "warnings" if WARNING in bad else "passed"


def verify(
    folder: str | Path,
    *,
    remeasure: int = 0,
    analyses: Mapping[str, AnalysisKind] = ANALYSES,
    load_model: LoadModel = sources.load_model,
    make_prompts: MakePrompts = sources.make_prompts,
) -> Verification:
    """Check a folder of results.

    Args:
        folder: where the results are.
        remeasure: load the model and measure so many units again, spread evenly, to compare with what was kept.
        analyses: the analyses that there are.
        load_model: gives the model.
        make_prompts: gives the prompts.

    Raises:
        OutputError: it is no folder of results.
        MechintError: the model or prompts cannot be had (only with `remeasure`).
    """
    folder = Path(folder)
    manifest = read_manifest(folder)
    status = manifest.get("status")
    rows = [_check("run", status == "complete", CRITICAL, "complete", status, "Go on with --resume.")]
    tables: dict[str, pd.DataFrame] = {}
    for name, told in manifest.get("tables", {}).items():
        try:
            tables[name] = read_frame(folder / f"{name}.parquet")
        except OutputError as error:
            rows.append(_check(f"table {name}", False, CRITICAL, told["hash"][:12], "", str(error)))
            continue
        found = content_hash(tables[name])
        note = "" if found == told["hash"] else "The table is not the one that was measured."
        rows.append(_check(f"table {name}", found == told["hash"], CRITICAL, told["hash"][:12], found[:12], note))
    rows += _environment(manifest)
    rows += _expectations(manifest, tables)
    if remeasure > 0:
        rows += _remeasured(folder, manifest, remeasure, analyses, load_model, make_prompts)
    return Verification(pd.DataFrame(rows, columns=["check", "status", "severity", "recorded", "found", "note"]))


def _check(name: str, good: bool, severity: str, recorded: Any, found: Any, note: str = "") -> dict[str, Any]:
    status = PASS if good else FAIL
    return {
        "check": name, "status": status, "severity": "" if good else severity, "recorded": str(recorded),
        "found": str(found), "note": "" if good else note,
    }  # fmt: skip


def _environment(manifest: Manifest) -> list[dict[str, Any]]:
    before, here = manifest["environment"], environment()
    rows: list[dict[str, Any]] = []
    for name, version in before["packages"].items():
        found = here["packages"].get(name, "not installed")
        minor = version.split(".")[:2] == found.split(".")[:2]
        severity = WARNING if name in _NUMERIC and not minor else INFO
        rows.append(_check(f"version of {name}", version == found, severity, version, found))
    alike = ("python", "platform", "machine")
    return rows + [_check(name, before[name] == here[name], INFO, before[name], here[name]) for name in alike]


def _expectations(manifest: Manifest, tables: Mapping[str, pd.DataFrame]) -> list[dict[str, Any]]:
    compared = compare_expectations(read_back(manifest), tables)
    return [
        {
            "check": f"expected {row['number']}",
            "status": row["status"],
            "severity": CRITICAL if row["status"] == FAIL else "",
            "recorded": f"{row['expected']} ± {row['tolerance']:g} ({row['source']})",
            "found": row["found"],
            "note": row["note"],
        }
        for row in compared.to_dict(orient="records")
    ]


def _remeasured(
    folder: Path,
    manifest: Manifest,
    count: int,
    analyses: Mapping[str, AnalysisKind],
    load_model: LoadModel,
    make_prompts: MakePrompts,
) -> list[dict[str, Any]]:
    config = read_config(folder / "experiment.toml", analyses=analyses)
    ready = prepare(config, analyses=analyses, load_model=load_model, make_prompts=make_prompts)
    told, found = manifest["model"]["fingerprint"], dict(getattr(ready.model, "fingerprint", {}))
    data = str(ready.prompts.content_hash)
    rows = [
        _check("model fingerprint", told == found, CRITICAL, told, found, "These are other weights."),
        _check("prompts", manifest["data"]["hash"] == data, CRITICAL, manifest["data"]["hash"], data, "Other prompts."),
    ]
    parts = Parts(folder / "parts", manifest["uid"], told, manifest["data"]["hash"])
    places = np.unique(np.linspace(0, len(ready.units) - 1, min(count, len(ready.units))).round().astype(int))
    for unit in (ready.units[place] for place in places):
        kept = parts.load(unit)
        if kept is None:
            rows.append({"check": f"again: {unit.name}", "status": NOT_RUN, "severity": INFO, "recorded": "",
                         "found": "", "note": "Its rows were not kept."})  # fmt: skip
            continue
        difference = _difference(kept, as_stored(ready.analysis.measure(unit).reset_index(drop=True)))
        good = difference <= 1.0
        note = "" if good else f"Differs by more than {ABSOLUTE:g} + {RELATIVE:g} of the number."
        rows.append(_check(f"again: {unit.name}", good, CRITICAL, "1 = at tolerance", f"{difference:.3g}", note))
    return rows


def _difference(kept: pd.DataFrame, again: pd.DataFrame) -> float:
    """Return the largest difference as a multiple of what is tolerated; infinity if the tables do not match."""
    if list(kept.columns) != list(again.columns) or len(kept) != len(again):
        return float("inf")
    largest = 0.0
    for name in kept.columns:
        if pd.api.types.is_numeric_dtype(kept[name]) and pd.api.types.is_numeric_dtype(again[name]):
            old, new = kept[name].to_numpy(dtype=float), again[name].to_numpy(dtype=float)
            if (np.isnan(old) != np.isnan(new)).any():
                return float("inf")
            apart = np.nan_to_num(np.abs(new - old)) / (ABSOLUTE + RELATIVE * np.abs(np.nan_to_num(old)))
            largest = max(largest, float(apart.max(initial=0.0)))
        elif kept[name].astype(str).tolist() != again[name].astype(str).tolist():
            return float("inf")
    return largest
