"""Writing NRRD and MetaImage through SimpleITK, which does not notice a full disk: what it wrote is read back."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from nfops.arrays import Array
from nfops.errors import InputError, OutputError
from nfops.grid import Grid
from nfops.image import Header
from nfops.io.itk_position import place
from nfops.io.itk_read import ENGINES, opened, read_raw

SPACE, NO_SPACE = b"\nspace: left-posterior-superior\n", b"\nspace dimension: 3\n"
VECTOR, LIST = b"\nkinds: vector ", b"\nkinds: list "
HEADER_BYTES = 4096


def write_itk(path: Path, kind: str, grid: Grid, header: Header, values: Array) -> None:
    """Write values (C, K, J, I) of the dtype to store; kind: "nrrd" or "mha".

    Channels are the fourth dimension of a MetaImage, and a list of images in an NRRD, whose fourth dimension would
    cost it the position of the other three.
    """
    import SimpleITK as itk  # noqa: N813

    image = _itk_image(kind, grid, header, values)
    writer = itk.ImageFileWriter()
    writer.SetImageIO(ENGINES[kind])
    writer.UseCompressionOn()
    with _plain_name(path, kind) as name:
        writer.SetFileName(name)
        try:
            writer.Execute(image)
        except RuntimeError as error:
            raise OutputError(path, "ITK cannot write it", "is the disk full?") from error
    if kind == "nrrd":
        _correct(path, {VECTOR: LIST} if header.is_oriented else {VECTOR: LIST, SPACE: NO_SPACE})


def check_written(path: Path, grid: Grid, header: Header, values: Array) -> None:
    """Read back what was written; OutputError if a value, or a corner that is known, is not where it was."""
    try:
        with opened(path) as found:
            again, _ = read_raw(found)
    except InputError as error:
        raise OutputError(path, f"what was written cannot be read back: {error.what}", "is the disk full?") from error
    is_there = not header.is_oriented or found.stored.grid.same_as(grid)
    if not (is_there and again.dtype == values.dtype and np.array_equal(again, values)):
        raise OutputError(path, "what was written reads differently")


def _itk_image(kind: str, grid: Grid, header: Header, values: Array) -> Any:
    import SimpleITK as itk  # noqa: N813

    is_flat = header.ndim == 2 and not header.is_oriented and grid.shape[2] == 1
    if kind == "mha" and (len(values) > 1 or header.ndim == 4):
        image = itk.GetImageFromArray(values, isVector=False)
    elif len(values) > 1:
        image = itk.GetImageFromArray(np.moveaxis(values, 0, -1), isVector=True)
    else:
        image = itk.GetImageFromArray(values[0, 0] if is_flat else values[0])
    place(image, grid, is_oriented=header.is_oriented, step=header.time_step[0] or 1.0)
    return image


@contextmanager
def _plain_name(path: Path, kind: str) -> Iterator[str]:
    """Another name in the same folder, in ASCII and lower case, for a file that becomes `path`.

    On other names ITK ends the process, or makes a pair of files.
    """
    folder = os.open(path.parent, os.O_RDONLY)
    name = f".nfops-{secrets.token_hex(4)}.{kind}"
    try:
        yield f"/proc/self/fd/{folder}/{name}"
        os.replace(name, path.name, src_dir_fd=folder, dst_dir_fd=folder)
    finally:
        with suppress(FileNotFoundError):
            os.unlink(name, dir_fd=folder)
        os.close(folder)


def _correct(path: Path, changes: dict[bytes, bytes]) -> None:
    """Say in an NRRD's header what ITK cannot: in place, filled up with spaces."""
    with path.open("r+b") as file:
        start = file.read(HEADER_BYTES)
        for old, new in changes.items():
            at = start.find(old, 0, start.find(b"\n\n"))
            if at >= 0:
                file.seek(at)
                ending = old[-1:]
                file.write(new[:-1].ljust(len(old) - 1) + ending)
