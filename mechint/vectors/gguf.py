"""Control vectors of llama.cpp, written by its rules and read back; what it cannot say is refused with the reason.

    l_out(k) + s · direction.k      at every token, those of the prompt included; k: block from 0; s: scale asked for

llama.cpp reads tensors only: each named `direction.k` with k > 0 (a `direction.0`, or any other name, invalidates the
whole file), float32, of one axis, all equally long. Dose and unit are baked into the tensors, so that scale 1 is what
was asked for here. In the metadata, which other readers pass over, the vector stands as it was: a file of this package
comes back exactly. That the blocks agree (`direction.k` is our `Lk.resid_post`) is in llama.cpp's `build_cvec` and in
`repeng`, which writes and reads the same files.
"""

import base64
import binascii
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import gguf
import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mechint.errors import InterventionError, MechintError, OutputError
from mechint.model.base import Model
from mechint.sites import Site
from mechint.vectors.dose import DoseUnit
from mechint.vectors.imports import declared
from mechint.vectors.saved import load, save
from mechint.vectors.vector import SteeringVector
from mechint.whole_files import beside

_KIND = "controlvector"
_HINT, _COUNT = f"{_KIND}.model_hint", f"{_KIND}.layer_count"
_VECTOR, _DOSE, _UNIT, _CONCEPT = "mechint.vector", "mechint.dose", "mechint.unit", "mechint.concept"
_NAME = re.compile(r"direction\.(\d+)")


@dataclass(frozen=True, eq=False)
class ControlFile:
    """What is in a control-vector file."""

    directions: Mapping[int, Float[Tensor, " width"]]
    """By block: what llama.cpp adds at scale 1."""
    model_hint: str
    """What the file says it is for; empty where it does not."""
    vector: SteeringVector | None
    """What it was made of, if this package wrote it."""
    dose: float
    """Of that vector; 1 raw in a file of somebody else."""
    unit: DoseUnit


def export_gguf(
    vector: SteeringVector,
    path: str | Path,
    *,
    dose: float = 1.0,
    unit: DoseUnit = "norm",
    model_hint: str | None = None,
    overwrite: bool = False,
) -> Path:
    """Write a vector for llama.cpp and repeng, and return the path.

    Args:
        vector: directions at `resid_post` of blocks after the first.
        path: of the file, by custom `*.gguf`.
        dose: what scale 1 of llama.cpp will mean (`--control-vector-scaled FILE:0.5` is half of it).
        unit: of the dose: "norm", "calibrated" or "raw".
        model_hint: the kind of model, such as "gemma3"; by default the name of the vector's model.
        overwrite: replace a file.

    Raises:
        InterventionError: a site at which llama.cpp does not act, widths that differ, a dose that makes no vector or
            that the vector has no length for.
        OutputError: the file exists and may not be replaced, or it cannot be written.
    """
    path = Path(path)
    steps = {_block(site): vector.step(site, dose, unit) for site in vector.sites}
    if len({len(step) for step in steps.values()}) > 1:
        raise InterventionError("A control vector has one width; the directions of this one differ. Restrict it: at().")
    if bad := [k for k, v in steps.items() if not bool(torch.isfinite(v).all()) or float(v.norm()) == 0]:
        raise InterventionError(
            f"Dose {dose:g} ({unit}) leaves no vector at block {bad[0]}: it is zero or too long for float32. Expected "
            "a dose other than 0 that float32 can hold."
        )
    if path.exists() and not overwrite:
        raise OutputError(f"{path} exists. Give another name, or overwrite=True.")
    try:
        with beside(path) as place:
            writer = gguf.GGUFWriter(place, _KIND)
            writer.add_string(_HINT, model_hint or vector.model.get("name", "unknown"))
            writer.add_uint32(_COUNT, len(steps))
            writer.add_string(_CONCEPT, vector.concept)
            writer.add_string(_VECTOR, _packed(vector))
            writer.add_float64(_DOSE, dose)
            writer.add_string(_UNIT, unit)
            for block, step in steps.items():
                writer.add_tensor(f"direction.{block}", step.numpy())
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_tensors_to_file()
            writer.close()
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror or error}.") from error
    return path


def import_gguf(path: str | Path, model: Model, *, concept: str | None = None) -> SteeringVector:
    """Read a control vector for a model.

    A file of this package gives the vector that was exported, norms and calibration included (`read_gguf(path).dose`
    is the dose). One of somebody else gives directions whose norms are not known: doses in unit "raw", where 1 is scale
    1 of llama.cpp; see `vectors.imports` for how to measure norms.

    Args:
        path: of the file.
        model: the model that it belongs to.
        concept: what more of it means; by default what the file says, or its name.

    Raises:
        OutputError: the file is missing or damaged, or llama.cpp would refuse it.
        InterventionError: it does not fit the model.
    """
    found = read_gguf(path)
    if found.vector is None:
        directions = {Site("resid_post", k): v for k, v in found.directions.items()}
        name = Path(path).name
        return declared(
            directions, model, concept=concept or Path(path).stem, method="gguf", model_hint=found.model_hint, file=name
        )
    found.vector.check(model)
    return found.vector if concept is None else replace(found.vector, concept=concept)


def read_gguf(path: str | Path) -> ControlFile:
    """Read a control-vector file, and hold it against the rules of llama.cpp.

    Raises:
        OutputError: the file is missing or damaged, or breaks a rule; the message says which.
    """
    path = Path(path)
    try:
        reader = gguf.GGUFReader(path)
        fields = {name: reader.fields[name].contents() for name in reader.fields}
    except FileNotFoundError as error:
        raise OutputError(f"There is no file {path}. Check the path; the current folder is {Path.cwd()}.") from error
    except (OSError, ValueError, IndexError, KeyError) as error:
        raise OutputError(f"{path} is damaged, or no GGUF file ({error}). Get it, or make it, again.") from error
    directions = dict(sorted(_direction(path, tensor) for tensor in reader.tensors))
    if not directions or len({len(v) for v in directions.values()}) > 1:
        raise OutputError(
            f"{path} holds directions of lengths {[len(v) for v in directions.values()]}. llama.cpp expects one at "
            "least, all of one length. Was another file meant?"
        )
    if _VECTOR in fields:
        vector, dose, unit = _unpacked(path, fields)
        _require_same(path, vector, directions, dose, unit)
    else:
        vector, dose, unit = None, 1.0, cast(DoseUnit, "raw")
        # A direction of zeros does nothing in llama.cpp, and is none here.
        directions = {k: v for k, v in directions.items() if float(v.norm()) > 0}
    return ControlFile(directions, str(fields.get(_HINT, "")), vector, dose, unit)


def _block(site: Site) -> int:
    if site.component != "resid_post" or site.layer is None:
        raise InterventionError(
            f"llama.cpp adds at the output of blocks (resid_post) only; this vector has a direction at {site}. "
            "Restrict it with at(...), or estimate it at resid_post."
        )
    if site.layer == 0:
        raise InterventionError(
            f"llama.cpp takes a direction of block 0 for an error, and refuses the whole file; this vector has one at "
            f"{site}. Leave it out with at(...)."
        )
    return site.layer


def _direction(path: Path, tensor: Any) -> tuple[int, Tensor]:
    match = _NAME.fullmatch(tensor.name)
    if match is None or int(match[1]) == 0:
        raise OutputError(
            f"{path} has a tensor {tensor.name!r}. llama.cpp refuses a file in which one is not named 'direction.k', k "
            "a block after block 0. If repeng wrote it, load it there and give the object to import_vector."
        )
    if tensor.tensor_type != gguf.GGMLQuantizationType.F32 or len(tensor.shape) != 1:
        raise OutputError(
            f"{path}: {tensor.name} is {tensor.tensor_type.name} of shape {list(map(int, tensor.shape))}. llama.cpp "
            "expects F32 with one axis: write it again so."
        )
    return int(match[1]), torch.from_numpy(np.array(tensor.data, dtype=np.float32))


def _packed(vector: SteeringVector) -> str:
    with tempfile.TemporaryDirectory() as folder:
        return base64.b64encode(save(vector, Path(folder) / "vector").read_bytes()).decode("ascii")


def _unpacked(path: Path, fields: Mapping[str, Any]) -> tuple[SteeringVector, float, DoseUnit]:
    try:
        with tempfile.TemporaryDirectory() as folder:
            inner = Path(folder) / "vector"
            inner.write_bytes(base64.b64decode(fields[_VECTOR], validate=True))
            return load(inner), float(fields[_DOSE]), cast(DoseUnit, fields[_UNIT])
    except (KeyError, TypeError, ValueError, binascii.Error, MechintError) as error:
        raise OutputError(f"{path} is damaged: its metadata do not describe a vector ({error}).") from error


def _require_same(
    path: Path, vector: SteeringVector, directions: Mapping[int, Tensor], dose: float, unit: DoseUnit
) -> None:
    """Raise if the tensors are no longer those that were written from the vector."""
    try:
        steps = {site.layer: vector.step(site, dose, unit) for site in vector.sites}
    except MechintError as error:
        raise OutputError(f"{path} is damaged: dose and vector do not belong together ({error}).") from error
    if steps.keys() != directions.keys() or any(
        len(v) != len(steps[k]) or float((v - steps[k]).norm()) > 1e-5 * float(steps[k].norm())
        for k, v in directions.items()
    ):
        raise OutputError(
            f"{path}: its tensors are not dose {dose:g} ({unit}) of the vector in its metadata, so one of them was "
            "changed. Export the vector again, or take the 'mechint.*' entries out of the metadata."
        )
