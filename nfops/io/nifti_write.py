"""Writing NIfTI in one pass over slabs, so that a volume need not be in memory: always a fresh header."""

import gzip
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from nfops import __version__
from nfops.arrays import Array
from nfops.errors import ResultError
from nfops.grid import Grid
from nfops.image import Header
from nfops.io.nifti_extensions import extension_bytes
from nfops.io.nifti_scale import Scale
from nfops.io.publish import untemporary
from nfops.io.saving import StoredType, to_stored

GZIP_LEVEL = 4
LARGEST_NIFTI1_SIZE = 32767
LARGEST_QFORM_ERROR_VOXELS = 0.05
UNSCALED = Scale()
UNIT_CODES = {1000.0: 1, 1.0: 2, 0.001: 3}


def write_nifti(
    path: Path,
    grid: Grid,
    header: Header,
    dtype: StoredType,
    slabs: Iterable[Array],
    *,
    channels: int = 1,
    scale: Scale = UNSCALED,
) -> None:
    """Write slabs (1, I, J, n) or (I, J, n) that follow each other along k, one channel after the other.

    header: what the input said; of it the units, the code of the affine, the time step, the slice axis, the intent,
    the comments and the number of dimensions are kept. scale: slope and intercept, of values already scaled.

    Raises:
        ResultError: NaN or infinite values, values out of the range of `dtype`, too few or too many slabs.
    """
    with opened(path, is_packed=path.name.lower().endswith(".gz")) as file:
        file.write(header_bytes(grid, header, dtype, channels, scale))
        for block in stored_blocks(untemporary(path).name, grid, dtype, slabs, channels):
            file.write(block.tobytes(order="F"))


def stored_blocks(name: str, grid: Grid, dtype: StoredType, slabs: Iterable[Array], channels: int) -> Iterator[Array]:
    """Slabs as blocks (I, J, n) of `dtype`; ResultError as for `write_nifti`, at the end for too few or too many."""
    i, j, k = grid.shape
    written = 0
    for slab in slabs:
        thickness = int(slab.shape[-1])
        if slab.size != i * j * thickness:
            raise ResultError(name, f"a slab of the shape {slab.shape}, expected {(i, j, thickness)}")
        written += thickness
        if written > k * channels:
            break
        yield to_stored(slab.reshape(i, j, thickness), dtype, name)
    if written != k * channels:
        raise ResultError(name, f"{written} slices were made, expected {k * channels}")


def header_bytes(grid: Grid, header: Header, dtype: StoredType, channels: int, scale: Scale = UNSCALED) -> bytes:
    """A NIfTI-1 header, NIfTI-2 where a size needs it, and the comments behind it, or that there are none."""
    from nibabel.nifti1 import Nifti1Header
    from nibabel.nifti2 import Nifti2Header

    shape = _stored_shape(grid, header, channels)
    raw = (Nifti1Header if max(shape) <= LARGEST_NIFTI1_SIZE else Nifti2Header)(endianness="<")
    raw.set_data_dtype(dtype)
    raw.set_data_shape(shape)
    _set_position(raw, grid, header)
    raw["pixdim"][4] = header.time_step[0] if len(shape) == 4 else 0
    raw["xyzt_units"] = UNIT_CODES.get(header.unit_mm, 2) | (header.time_step[1] if len(shape) == 4 else 0)
    raw["dim_info"] = 0 if header.slice_axis is None else (header.slice_axis + 1) << 4
    raw["intent_code"], raw["intent_name"] = header.intent[0], header.intent[1].encode("latin-1", "replace")[:15]
    raw["descrip"] = f"nfops {__version__}".encode()
    raw["scl_slope"], raw["scl_inter"] = scale.slope, scale.intercept
    extensions = extension_bytes(header.comments)
    raw["vox_offset"] = int(raw["sizeof_hdr"]) + len(extensions)
    return bytes(raw.binaryblock) + extensions


def shear_warning(grid: Grid, header: Header) -> tuple[str, ...]:
    """What to say of a grid that a qform cannot hold (B4)."""
    is_sheared = header.is_oriented and not grid.is_orthogonal()
    return ("the grid is sheared: only the sform holds its position, the qform is left out",) if is_sheared else ()


def _stored_shape(grid: Grid, header: Header, channels: int) -> tuple[int, ...]:
    if channels > 1 or header.ndim == 4:
        return (*grid.shape, channels)
    return grid.shape[:2] if header.ndim == 2 and grid.shape[2] == 1 else grid.shape


def _set_position(raw: Any, grid: Grid, header: Header) -> None:
    """Write sform and qform from the one affine with the input's code (B3), neither for a guessed position (B1).

    The qform is left out where it cannot hold the position: a shear, or a rotation that float32 quaternions blur (B4).
    """
    affine = np.array(grid.affine)
    affine[:3] /= header.unit_mm
    if header.is_oriented:
        raw.set_sform(affine, header.xform_code)
        raw.set_qform(affine, header.xform_code, strip_shears=True)
        kept = np.array(raw.get_qform())
        kept[:3] *= header.unit_mm
        if not grid.is_orthogonal() or not Grid(grid.shape, kept).same_as(grid, LARGEST_QFORM_ERROR_VOXELS):
            raw["qform_code"] = 0
    raw["pixdim"][1:4] = grid.spacing_mm / header.unit_mm


@contextmanager
def opened(path: Path, *, is_packed: bool) -> Iterator[BinaryIO | gzip.GzipFile]:
    """A file to write to, gzipped if it is to be packed."""
    with path.open("wb") as file:
        if is_packed:
            # no name and no time in the stream: the same values give the same bytes
            with gzip.GzipFile("", "wb", GZIP_LEVEL, file, mtime=0) as packed:
                yield packed
        else:
            yield file
