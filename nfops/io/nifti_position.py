"""Where a NIfTI file says its voxels are: one affine out of sform, qform and pixdim, and what was odd about them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nfops.arrays import Array
from nfops.errors import InputError, NfopsError
from nfops.grid import Grid

SMALLEST_MM, LARGEST_MM, FURTHEST_MM = 1e-3, 1e3, 1e9
DISAGREEMENT_VOXELS = 0.1


@dataclass(frozen=True)
class Position:
    """affine: (4, 4) in mm. xform_code: the NIfTI code of the form it came from, 0 if the file gives no position."""

    affine: Array
    xform_code: int
    warnings: tuple[str, ...]


@np.errstate(over="ignore", invalid="ignore")  # numbers without sense are found by the checks
def find_position(path: Path, raw: Any, shape: tuple[int, int, int], unit_mm: float, xform: str = "sform") -> Position:
    """Choose the affine: the sform if its code is set, else the qform, else the bare spacing with a warning (B1).

    raw: a nibabel NIfTI header, unchecked. unit_mm: millimetres per unit of the file. xform: "qform" takes that where
    both codes are set (B2).
    """
    sform_code, qform_code = int(raw["sform_code"]), int(raw["qform_code"])
    if xform == "qform" and qform_code > 0:
        sform_code = 0
    pixdim = np.array(raw["pixdim"][1:4], dtype=np.float64)
    sform = np.vstack([raw["srow_x"], raw["srow_y"], raw["srow_z"], [0, 0, 0, 1]]).astype(np.float64)
    for axis in (1, 2):
        if shape[axis] == 1 and pixdim[axis] == 0:  # a single slice has no spacing; anything but 0 will do
            pixdim[axis] = np.linalg.norm(sform[:3, axis]) if sform_code > 0 else 1.0
    warnings: list[str] = []
    if sform_code > 0:
        affine, code = sform, sform_code
        check_affine(path, affine, unit_mm, "sform")
        warnings += _disagreements(raw, affine, pixdim, shape) if qform_code > 0 else _odd_pixdim(affine, pixdim)
    else:
        code = max(qform_code, 0)
        check_spacing(path, pixdim * unit_mm)
        affine = _qform(path, raw, pixdim) if code else np.diag([*pixdim, 1.0])
        check_affine(path, affine, unit_mm, "qform" if code else "pixdim")
    if not code:
        warnings.append("no orientation (sform and qform codes are 0): only the spacing is known")
    affine[:3] *= unit_mm
    return Position(affine, code, tuple(warnings))


def _qform(path: Path, raw: Any, pixdim: Array) -> Array:
    """(4, 4) affine of the quaternion; InputError if it is none (B5)."""
    try:
        return _quaternion_affine(raw, pixdim)
    except ValueError as error:
        hint = "no sform to use instead: repair the header, for instance with fslorient"
        raise InputError(path, f"invalid qform quaternion ({error})", hint) from error


def _quaternion_affine(raw: Any, pixdim: Array) -> Array:
    from nibabel.quaternions import fillpositive, quat2mat

    vector = np.array([raw["quatern_b"], raw["quatern_c"], raw["quatern_d"]], dtype=np.float64)
    origin = np.array([raw["qoffset_x"], raw["qoffset_y"], raw["qoffset_z"]], dtype=np.float64)
    # float32 rounding may lift the norm a little over 1; nibabel's own limit for its headers
    rotation = quat2mat(fillpositive(vector, np.finfo(np.float32).eps * -3))
    qfac = -1.0 if float(raw["pixdim"][0]) < 0 else 1.0  # the standard: 0 counts as 1
    affine = np.eye(4)
    affine[:3, :3] = rotation * (pixdim * [1, 1, qfac])
    affine[:3, 3] = origin
    return affine


def check_affine(path: Path, affine: Array, unit_mm: float, name: str) -> None:
    """Raise InputError for an affine that puts no image anywhere: not finite, singular, spacing without sense."""
    if not np.isfinite(affine).all():
        raise InputError(path, f"the {name} affine has NaN or infinite entries")
    check_spacing(path, np.linalg.norm(affine[:3, :3], axis=0) * unit_mm)
    if (np.abs(affine[:3, 3]) * unit_mm > FURTHEST_MM).any():
        raise InputError(path, f"the {name} affine puts the first voxel at {affine[:3, 3]}, more than 1000 km away")
    try:
        Grid((1, 1, 1), affine)
    except NfopsError as error:
        raise InputError(path, f"the {name} affine is singular: two axes fall together") from error


def check_spacing(path: Path, spacing_mm: Array) -> None:
    """Raise InputError, naming the axis, for a spacing that is not positive or that nobody scans with (C11)."""
    for axis, spacing in zip("ijk", spacing_mm, strict=True):
        if not SMALLEST_MM <= spacing <= LARGEST_MM:
            limits = f"expected {SMALLEST_MM:g} to {LARGEST_MM:g} mm"
            raise InputError(path, f"spacing of {spacing:g} mm along axis {axis}, {limits}")


def _disagreements(raw: Any, affine: Array, pixdim: Array, shape: tuple[int, int, int]) -> list[str]:
    """What to say when sform and qform are both set (B2, B5)."""
    if not (np.isfinite(pixdim).all() and pixdim.min() > 0):
        return _odd_pixdim(affine, pixdim)
    try:
        other = _quaternion_affine(raw, pixdim)
    except ValueError as error:
        return [f"invalid qform quaternion ({error}): the sform is used"]
    ends = np.array([[i, j, k, 1] for i in (0, shape[0]) for j in (0, shape[1]) for k in (0, shape[2])], float)
    distance = np.linalg.norm((ends @ (affine - other).T)[:, :3], axis=1).max()
    voxels = distance / np.linalg.norm(affine[:3, :3], axis=0).min()
    if not voxels <= DISAGREEMENT_VOXELS:
        return [f"sform and qform disagree by {voxels:.2g} voxels at a corner: the sform is used"]
    return _odd_pixdim(affine, pixdim)


def _odd_pixdim(affine: Array, pixdim: Array) -> list[str]:
    """What to say when pixdim is not the spacing of the sform (B6)."""
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    if np.allclose(pixdim, spacing, rtol=1e-3, atol=0):
        return []
    numbers = ["x".join(f"{s:g}" for s in sizes) for sizes in (pixdim, spacing)]
    return [f"pixdim {numbers[0]} is not the spacing of the sform, {numbers[1]}: the sform is used"]
