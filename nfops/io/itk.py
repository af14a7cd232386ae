"""NRRD and MetaImage (.nrrd, .mha) as nfops.io expects a format: header and values in one file, never detached."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from nfops.arrays import Array
from nfops.grid import Grid
from nfops.image import Header, Image
from nfops.io.description import DECODE_UP_TO_BYTES, description
from nfops.io.formats import suffix_of
from nfops.io.itk_read import opened, read_image
from nfops.io.itk_write import check_written, write_itk
from nfops.io.nifti_write import stored_blocks
from nfops.io.publish import publishing
from nfops.io.reading import Reading
from nfops.io.saving import SaveOptions, StoredType, refuse_shear, slabs_of, stored_dtype
from nfops.memory import require_memory

COPIES = 3
"""Of the values while they are written: ours, ITK's, and what is read back."""


def load(path: Path, reading: Reading) -> Image:  # noqa: ARG001
    """Read an NRRD or MetaImage file; it leaves nothing open, so `reading` is not used.

    Raises:
        InputError: damaged, detached or unusable. MemoryLimitError: larger than the memory.
    """
    with opened(path) as found:
        return read_image(found)


def describe(path: Path, reading: Reading) -> dict[str, Any]:  # noqa: ARG001
    """What the header says; the intensity range too where reading takes no time."""
    with opened(path) as found:
        is_small = found.stored.count * found.stored.dtype.itemsize < DECODE_UP_TO_BYTES
        image = read_image(found) if is_small else None
    return description(found.text.kind, path, found.stored, image)


def save(path: Path, image: Image, options: SaveOptions) -> tuple[str, ...]:
    """Write an image whole or not at all."""
    return save_slabs(path, image.grid, image.header, slabs_of(image), options, channels=image.channels)


def save_slabs(
    path: Path, grid: Grid, header: Header, slabs: Iterable[Array], options: SaveOptions, *, channels: int = 1
) -> tuple[str, ...]:
    """Collect slabs (I, J, n) along k, channel after channel, for ITK writes whole images; returns warnings.

    Raises:
        UsageError: a sheared grid. MemoryLimitError: an image that must be streamed.
    """
    refuse_shear(path, grid)
    kind = suffix_of(path).removeprefix(".")
    values = _collected(path, grid, stored_dtype(options, header), slabs, channels)
    with publishing(
        path, options.force, lambda written: check_written(written, grid, header, values), options.together
    ) as temporary:
        write_itk(temporary, kind, grid, header, values)
    return _lost(kind, header, channels)


def _collected(path: Path, grid: Grid, dtype: StoredType, slabs: Iterable[Array], channels: int) -> Array:
    """(C, K, J, I), as ITK has it."""
    i, j, k = grid.shape
    require_memory(path, COPIES * i * j * k * channels * dtype.itemsize, f"writing {i}x{j}x{k}x{channels}")
    values = np.empty((channels * k, j, i), dtype)
    done = 0
    for block in stored_blocks(path.name, grid, dtype, slabs, channels):
        values[done : done + block.shape[2]] = block.T
        done += block.shape[2]
    return values.reshape(channels, k, j, i)


def _lost(kind: str, header: Header, channels: int) -> tuple[str, ...]:
    """What the format cannot say of the image."""
    lost = []
    if kind == "mha" and not header.is_oriented:
        lost.append("a MetaImage always has a position: this one's, which is not known, is a guess")
    if kind == "nrrd" and channels > 1 and header.time_step[0] > 0:
        lost.append("the time step was not kept: an NRRD has no place for it")
    return tuple(lost)
