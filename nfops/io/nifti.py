"""NIfTI, plain and gzipped, as nfops.io expects a format."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from nfops.arrays import Array
from nfops.grid import Grid
from nfops.image import Header, Image
from nfops.io.nifti_read import check_nifti, open_stream, read_header, read_nifti
from nfops.io.nifti_write import write_nifti
from nfops.io.publish import publishing
from nfops.io.reading import Reading
from nfops.io.saving import SaveOptions, stored_dtype

DECODE_UP_TO_BYTES = 64 << 20
SLAB_VALUES = 1 << 22


def load(path: Path, reading: Reading) -> Image:  # noqa: ARG001
    """Read a NIfTI file; it leaves nothing open, so `reading` is not used."""
    return read_nifti(path)


def describe(path: Path, reading: Reading) -> dict[str, Any]:  # noqa: ARG001
    """What the header says; the intensity range too where unpacking takes no time."""
    with open_stream(path) as stream:
        stored = read_header(stream)
    grid, header, intensity_range = stored.grid, stored.header, None
    if stored.end < DECODE_UP_TO_BYTES:
        image = read_nifti(path)
        header, intensity_range = image.header, finite_range(image.values)
    return {
        "kind": "nifti",
        "path": str(path),
        "shape": list(grid.shape),
        "spacing_mm": [float(s) for s in grid.spacing_mm],
        "affine": grid.affine.tolist(),
        "orientation": grid.orientation if header.is_oriented else None,
        "dtype": header.file_dtype,
        "channels": stored.channels,
        "series": None,
        "intensity_range": intensity_range,
        "warnings": list(header.warnings),
    }


def save(path: Path, image: Image, options: SaveOptions) -> tuple[str, ...]:
    """Write an image whole or not at all."""
    step = max(1, SLAB_VALUES // (image.grid.shape[0] * image.grid.shape[1]))
    starts = range(0, image.grid.shape[2], step)
    slabs = (channel[..., k : k + step] for channel in image.values for k in starts)
    return save_slabs(path, image.grid, image.header, slabs, options, channels=image.channels)


def save_slabs(
    path: Path, grid: Grid, header: Header, slabs: Iterable[Array], options: SaveOptions, *, channels: int = 1
) -> tuple[str, ...]:
    """Write slabs (I, J, n) along k, channel after channel, as they come; whole or not at all."""
    with publishing(path, options.force, check_nifti, options.together) as temporary:
        write_nifti(temporary, grid, header, stored_dtype(options, header), slabs, channels=channels)
    sheared = header.is_oriented and not grid.is_orthogonal()
    return ("the grid is sheared: only the sform holds its position, the qform is left out",) if sheared else ()


def finite_range(values: Array) -> list[float] | None:
    """[smallest, largest] finite value, None if there is none."""
    finite = values[np.isfinite(values)]
    return [float(finite.min()), float(finite.max())] if finite.size else None
