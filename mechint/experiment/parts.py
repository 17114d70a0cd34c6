"""What has been measured so far, one parquet file a unit, under a name that says exactly what it is.

The name is a hash of the experiment, the model's fingerprint, the prompts and the unit, so that a part can never be
taken for another's. A part that cannot be read, or whose content is not what was written, is measured again.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from mechint.errors import OutputError
from mechint.experiment.files import as_stored, content_hash, digest, read_frame, write_frame
from mechint.results import Unit

logger = logging.getLogger(__name__)

RECEIPT = "receipt"
"""Key in `frame.attrs` under which `measure` may leave counts, such as how many interventions fired."""


@dataclass(frozen=True)
class Parts:
    """The parts of one experiment, with one model, on one set of prompts."""

    folder: Path
    uid: str
    fingerprint: Mapping[str, Any]
    data_hash: str

    def path(self, unit: Unit) -> Path:
        """Return where the rows of a unit are, or will be."""
        key = digest(self.uid, dict(self.fingerprint), self.data_hash, unit.table, unit.name, dict(unit.inputs))
        return self.folder / f"{key[:32]}.parquet"

    def load(self, unit: Unit) -> pd.DataFrame | None:
        """Return the rows of a unit, or None if it has to be measured."""
        path = self.path(unit)
        if not path.exists():
            return None
        try:
            frame = read_frame(path)
        except OutputError as error:
            logger.warning("Measuring %s again: %s", unit.name, error)
            return None
        if frame.attrs.get("content") != content_hash(frame):
            logger.warning("Measuring %s again: %s is not what was written.", unit.name, path)
            return None
        return frame

    def save(self, unit: Unit, frame: pd.DataFrame) -> None:
        """Keep the rows of a unit.

        Raises:
            OutputError: they cannot be written.
        """
        receipt = dict(frame.attrs.get(RECEIPT, {}))
        kept = as_stored(frame.reset_index(drop=True))
        kept.attrs = {"unit": unit.name, "content": content_hash(kept), RECEIPT: receipt}
        write_frame(self.path(unit), kept)
