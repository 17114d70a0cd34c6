"""Reading a folder of results back, without a model."""

from dataclasses import dataclass
from pathlib import Path

from mechint.errors import OutputError
from mechint.experiment.config import ExperimentConfig
from mechint.experiment.files import read_frame
from mechint.experiment.manifest import Manifest, read_manifest
from mechint.results import Findings


@dataclass(frozen=True)
class Saved:
    """A finished run, as it is on disk."""

    folder: Path
    config: ExperimentConfig
    findings: Findings
    manifest: Manifest


def read_saved(folder: str | Path) -> Saved:
    """Read the tables and the manifest of a finished run.

    Raises:
        OutputError: it is no folder of results, the run has not finished, or a table is missing or damaged.
    """
    folder = Path(folder)
    manifest = read_manifest(folder)
    if "tables" not in manifest:
        raise OutputError(
            f"The run in {folder} has not finished (it is {manifest.get('status')}), so it has no tables yet. "
            f"Go on with: mechint run {folder / 'experiment.toml'} --out {folder} --resume"
        )
    tables = {name: read_frame(folder / f"{name}.parquet") for name in manifest["tables"]}
    findings = Findings(manifest["kind"], tables, manifest["verdict"], tuple(manifest["notes"]))
    return Saved(folder, read_back(manifest), findings, manifest)


def read_back(manifest: Manifest) -> ExperimentConfig:
    """Return the experiment of a manifest."""
    return ExperimentConfig.model_validate(manifest["experiment"])
