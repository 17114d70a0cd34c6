"""Steering vectors on disk: one safetensors file, a tensor a site, and a JSON header that says what they are."""

from dataclasses import asdict
from pathlib import Path

from mechint import __version__
from mechint.capture.storage import read_tensors, write_tensors
from mechint.errors import MechintError, OutputError
from mechint.sites import Site
from mechint.vectors.vector import Calibration, SteeringVector

KIND, FORMAT = "steering_vector", 1


def save(vector: SteeringVector, path: str | Path, *, overwrite: bool = False) -> Path:
    """Write a vector, and return the path.

    Raises:
        OutputError: the file exists and may not be replaced, or it cannot be written.
    """
    header = {
        "kind": KIND,
        "format": FORMAT,
        "mechint": __version__,
        "concept": vector.concept,
        "method": vector.method,
        "model": dict(vector.model),
        "norms": {str(site): norm for site, norm in vector.norms.items()},
        "provenance": dict(vector.provenance),
        "calibration": None if vector.calibration is None else asdict(vector.calibration),
    }
    tensors = {str(site): direction for site, direction in vector.directions.items()}
    return write_tensors(Path(path), tensors, header, overwrite=overwrite)


def load(path: str | Path) -> SteeringVector:
    """Read a vector that `save` wrote.

    Raises:
        OutputError: the file is missing, damaged, of another kind, or of a format that is not known here.
    """
    tensors, header = read_tensors(Path(path), KIND, (FORMAT,))
    try:
        return SteeringVector(
            directions={Site.parse(name): tensor for name, tensor in tensors.items()},
            norms={Site.parse(name): float(norm) for name, norm in header["norms"].items()},
            concept=header["concept"],
            method=header["method"],
            model=header["model"],
            provenance=header["provenance"],
            calibration=None if header["calibration"] is None else Calibration(**header["calibration"]),
        )
    except (KeyError, TypeError, AttributeError, ValueError, MechintError) as error:
        raise OutputError(f"{path} is damaged: its header does not describe a vector ({error}).") from error
