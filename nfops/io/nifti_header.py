"""A NIfTI header read strictly: the corrupt is refused, the doubtful is said, nothing is repaired in silence."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nfops.errors import InputError
from nfops.grid import Grid
from nfops.image import Header
from nfops.io.archives import archive_kind
from nfops.io.nifti_position import find_position
from nfops.io.saving import StoredType

DTYPES = {
    2: "uint8",
    4: "int16",
    8: "int32",
    16: "float32",
    64: "float64",
    256: "int8",
    512: "uint16",
    768: "uint32",
    1024: "int64",
    1280: "uint64",
}
REFUSED_DTYPES = {1: "binary", 32: "complex64", 128: "RGB", 1536: "float128", 1792: "complex128", 2048: "complex256"}
REFUSED_DTYPES[2304] = "RGBA"
MM_PER_UNIT = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 0.001}


@dataclass(frozen=True)
class Stored:
    """How a NIfTI file stores its values: value = number * slope + intercept; `offset` is the first one's byte."""

    dtype: StoredType
    offset: int
    slope: float
    intercept: float
    channels: int
    grid: Grid
    header: Header

    @property
    def count(self) -> int:
        """Number of values."""
        i, j, k = self.grid.shape
        return i * j * k * self.channels

    @property
    def end(self) -> int:
        """Position of the first byte after the values."""
        return self.offset + self.count * self.dtype.itemsize


def parse_header(path: Path, block: bytes, xform: str = "sform") -> Stored:
    """Read the first bytes of a NIfTI-1 or NIfTI-2 file (540 are enough for both).

    Raises:
        InputError: not NIfTI, a corrupt field, no usable position, values that are not one real number (RGB, complex)
        or more than four dimensions.
    """
    raw = raw_header(path, block)
    ndim, sizes = _sizes(path, raw)
    shape = (sizes[0], sizes[1], sizes[2])
    unit_code, time_unit = int(raw["xyzt_units"]) & 7, int(raw["xyzt_units"]) & 0x38
    if unit_code not in MM_PER_UNIT:
        raise corrupt(path, "xyzt_units", f"spatial unit {unit_code}")
    position = find_position(path, raw, shape, MM_PER_UNIT[unit_code], xform)
    slope, intercept = _scaling(path, raw)
    dtype = _dtype(path, raw)
    slice_dim = int(raw["dim_info"]) >> 4 & 3
    header = Header(
        file_dtype=dtype.newbyteorder("=").name,
        is_scaled=(slope, intercept) != (1.0, 0.0),
        ndim=ndim,
        xform_code=position.xform_code,
        is_oriented=position.xform_code > 0,
        unit_mm=MM_PER_UNIT[unit_code],
        time_step=(float(raw["pixdim"][4]), time_unit) if ndim == 4 else (0.0, 0),
        slice_axis=slice_dim - 1 if slice_dim else None,
        intent=(int(raw["intent_code"]), bytes(raw["intent_name"].item()).decode("latin-1")),
        warnings=position.warnings,
    )
    return Stored(dtype, _offset(path, raw), slope, intercept, sizes[3], Grid(shape, position.affine), header)


def corrupt(path: Path, field: str, found: object) -> InputError:
    """The error for a field that cannot be right."""
    return InputError(path, f"corrupt header field {field}: {found}")


def raw_header(path: Path, block: bytes) -> Any:
    """The nibabel header of these bytes, unchecked and unrepaired."""
    from nibabel.nifti1 import Nifti1Header
    from nibabel.nifti2 import Nifti2Header

    for order in "<>":
        size = int(np.frombuffer(block[:4].ljust(4, b"\0"), f"{order}i4")[0])
        if size in (348, 540):
            break
    else:
        kind = archive_kind(block)
        raise InputError(path, f"is a {kind} archive, not an image" if kind else "is not a NIfTI file")
    if len(block) < size:
        raise InputError(path, f"ends inside the header ({len(block)} of {size} bytes)")
    kind, version = (Nifti1Header, b"1") if size == 348 else (Nifti2Header, b"2")
    raw = kind(block[:size], endianness=order, check=False)
    magic = bytes(raw["magic"].item())[:3]
    if magic == b"ni" + version:
        raise InputError(path, "is one half of a .hdr/.img pair", "convert the pair to a single .nii.gz")
    if magic != b"n+" + version:
        raise corrupt(path, "magic", repr(magic))
    return raw


def _sizes(path: Path, raw: Any) -> tuple[int, tuple[int, int, int, int]]:
    """(dimensions that the file counts, at most 4; (I, J, K, T))."""
    ndim = int(raw["dim"][0])
    if not 1 <= ndim <= 7:
        raise corrupt(path, "dim", f"{ndim} dimensions")
    dims = [int(n) for n in raw["dim"][1 : ndim + 1]]
    if min(dims) < 1:
        raise corrupt(path, "dim", dims)
    if any(n > 1 for n in dims[4:]):
        raise InputError(path, f"has the shape {'x'.join(map(str, dims))}, expected at most 4 dimensions")
    i, j, k, t = [*dims, 1, 1, 1][:4]
    return min(ndim, 4), (i, j, k, t)


def _dtype(path: Path, raw: Any) -> StoredType:
    code, bits = int(raw["datatype"]), int(raw["bitpix"])
    if code in REFUSED_DTYPES:
        raise InputError(path, f"stores {REFUSED_DTYPES[code]} values, expected one real number per voxel")
    if code not in DTYPES:
        raise corrupt(path, "datatype", code)
    dtype = np.dtype(DTYPES[code])
    if bits != dtype.itemsize * 8:
        raise corrupt(path, "bitpix", f"{bits} bits for {dtype.name}")
    return dtype.newbyteorder(raw.endianness)


def _offset(path: Path, raw: Any) -> int:
    offset, header_size = float(raw["vox_offset"]), int(raw["sizeof_hdr"])
    if not (np.isfinite(offset) and offset >= header_size + 4 and offset == int(offset)):
        raise corrupt(path, "vox_offset", f"{offset:g}, expected at least {header_size + 4}")
    return int(offset)


def _scaling(path: Path, raw: Any) -> tuple[float, float]:
    """(slope, intercept); a slope of 0, NaN or infinity means none (B8)."""
    slope, intercept = float(raw["scl_slope"]), float(raw["scl_inter"])
    if slope == 0 or not np.isfinite(slope):
        return 1.0, 0.0
    if not np.isfinite(intercept):
        raise corrupt(path, "scl_inter", intercept)
    return slope, intercept
