"""Where an NRRD or MetaImage file says its voxels are: the one place where LPS becomes RAS, and back."""

from pathlib import Path
from typing import Any

import numpy as np

from nfops.arrays import Array
from nfops.grid import Grid
from nfops.io.itk_storage import TextHeader
from nfops.io.nifti_position import check_affine

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
KNOWN_SPACES = ("right-anterior-superior", "left-anterior-superior", "left-posterior-superior", "ras", "las", "lps")
"""Of an NRRD; ITK turns these three to LPS and no other."""

META_POSITIONS = ("Offset", "Position", "Origin", "TransformMatrix", "Rotation", "Orientation")
META_SPACINGS = ("ElementSpacing", "ElementSize")
MM_PER_UNIT = {"um": 0.001, "µm": 0.001, "mm": 1.0, "cm": 10.0, "m": 1000.0}


def find_position(path: Path, reader: Any, header: TextHeader) -> tuple[Array, bool, tuple[str, ...]]:
    """(affine in mm, RAS+; whether the file knows the position; what is odd), as ITK understands the file.

    reader: an ITK image reader that knows the header. Without a known space at most the spacing is known (B1).
    """
    dims = reader.GetDimension()
    unit, notes = _unit_mm(header)
    spacing = np.ones(3)
    spacing[: min(dims, 3)] = reader.GetSpacing()[:3]
    if _is_oriented(header, dims):
        affine = np.eye(4)
        affine[:3, :3] = np.array(reader.GetDirection()).reshape(dims, dims)[:3, :3] * spacing
        affine[:3, 3] = reader.GetOrigin()[:3]
        affine = LPS_TO_RAS @ affine
    else:
        affine = np.diag([*np.abs(spacing), 1.0])
    affine[:3] *= unit
    check_affine(path, affine, 1.0, "header's")
    return affine, _is_oriented(header, dims), (*notes, *_oddities(header, dims))


def _is_oriented(header: TextHeader, dims: int) -> bool:
    if header.kind == "nrrd":
        return dims == 3 and header.fields.get("space", "").lower() in KNOWN_SPACES
    return dims > 2 and header.has(*META_POSITIONS)


def _oddities(header: TextHeader, dims: int) -> list[str]:
    names = ("spacings", "spacedirections") if header.kind == "nrrd" else META_SPACINGS
    is_sized = header.has(*names) and "nan" not in header.fields.get("spacings", "").lower()
    notes = [] if is_sized else ["the size of a voxel is not known: 1 mm is assumed"]
    if not _is_oriented(header, dims):
        space = header.fields.get("space", "none") if header.kind == "nrrd" else "none"
        notes.insert(0, f"no orientation (space {space}): only the spacing is known")
    return notes


def _unit_mm(header: TextHeader) -> tuple[float, list[str]]:
    """Millimetres per unit of the file; a unit that is none, or not one for all axes, is said and taken as mm."""
    text = header.fields.get("spaceunits" if header.kind == "nrrd" else "DistanceUnits", "mm")
    units = {unit.strip('"').lower() for unit in text.split()}
    if len(units) == 1 and units <= MM_PER_UNIT.keys():
        return MM_PER_UNIT[units.pop()], []
    return 1.0, [] if units <= {"", "?", "mm"} else [f"the unit {text} is not known: mm is assumed"]


def place(image: Any, grid: Grid, *, is_oriented: bool, step: float) -> None:
    """Give an ITK image of 2, 3 or 4 dimensions the position of a grid; step: spacing along the fourth."""
    dims = image.GetDimension()
    affine = LPS_TO_RAS @ grid.affine if is_oriented else np.diag([*grid.spacing_mm, 1.0])
    direction, origin, spacing = np.eye(4), np.zeros(4), np.full(4, step)
    spacing[:3] = grid.spacing_mm
    direction[:3, :3] = affine[:3, :3] / grid.spacing_mm
    origin[:3] = affine[:3, 3]
    image.SetSpacing(spacing[:dims].tolist())
    image.SetOrigin(origin[:dims].tolist())
    image.SetDirection(direction[:dims, :dims].ravel().tolist())
