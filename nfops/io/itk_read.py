"""Reading NRRD and MetaImage through SimpleITK: sizes and storage checked first, by a name that harms nothing."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from nfops.arrays import Array
from nfops.errors import InputError
from nfops.grid import Grid
from nfops.image import Header, Image
from nfops.io.contents import META, NRRD, refuse_name
from nfops.io.formats import output_stem
from nfops.io.itk_position import find_position
from nfops.io.itk_storage import TextHeader, check_storage, read_text_header
from nfops.io.nifti_header import Stored
from nfops.io.nifti_read import NEEDS_DOUBLE, narrowed, rounding, size_text
from nfops.io.opening import first_bytes
from nfops.memory import require_memory

ENGINES = {"nrrd": "NrrdImageIO", "mha": "MetaImageIO"}
CONTENTS = {"nrrd": NRRD, "mha": META}
DTYPES = {
    **{f"{bits}-bit unsigned integer": f"uint{bits}" for bits in (8, 16, 32, 64)},
    **{f"{bits}-bit signed integer": f"int{bits}" for bits in (8, 16, 32, 64)},
    **{f"{bits}-bit float": f"float{bits}" for bits in (32, 64)},
}
"""ITK's words for what a pixel is."""

PLACES = ("domain", "space", "time")
LIST = "list"
"""NRRD's word for an axis of which each entry is an image of its own."""


@dataclass(frozen=True)
class Opened:
    """A file whose header was understood, and the ITK reader that stands ready to read its values."""

    path: Path
    text: TextHeader
    stored: Stored
    reader: Any


@contextmanager
def opened(path: Path) -> Iterator[Opened]:
    """Read the header of a file; InputError if it is damaged, detached, or not what its name says (B16).

    ITK gets the name of a descriptor: on a name that is not UTF-8 it ends the process, others it judges by the suffix.
    """
    import SimpleITK as itk  # noqa: N813

    first_bytes(path)
    text = read_text_header(path)
    content = CONTENTS[text.kind]
    if not path.name.lower().endswith(content.suffix):
        refuse_name(path, output_stem(path), content, is_packed=False)
    descriptor = os.open(path, os.O_RDONLY)
    try:
        reader = itk.ImageFileReader()
        reader.SetImageIO(ENGINES[text.kind])
        reader.SetFileName(f"/proc/self/fd/{descriptor}")
        with explained(path):
            reader.ReadImageInformation()
        yield Opened(path, text, _understood(path, text, reader), reader)
    finally:
        os.close(descriptor)


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """ITK's long complaints as one line."""
    try:
        yield
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise InputError(path, f"ITK cannot read it ({lines[-1] if lines else 'it does not say why'})") from error


def read_image(found: Opened) -> Image:
    """The values, too: (C, I, J, K), float64 only where that changes one."""
    stored = found.stored
    raw, notes = read_raw(found)
    may_need_double = stored.dtype.name in NEEDS_DOUBLE
    values = raw.astype(np.float64 if may_need_double else np.float32)
    if may_need_double:
        values = narrowed(values)
    warnings = (*stored.header.warnings, *notes, *rounding(values, stored.dtype))
    return Image(values.transpose(0, 3, 2, 1), stored.grid, replace(stored.header, warnings=warnings))


def read_raw(found: Opened) -> tuple[Array, tuple[str, ...]]:
    """((C, K, J, I) values as stored, warnings). Raises before ITK allocates: memory first, then whole storage."""
    import SimpleITK as itk  # noqa: N813

    stored = found.stored
    size = stored.dtype.itemsize
    needed = stored.count * (2 * size + (8 if stored.dtype.name in NEEDS_DOUBLE else 4))
    require_memory(found.path, needed, f"the image that its header promises, {size_text(stored)},")
    notes = check_storage(found.path, found.text, stored.count * size)
    with explained(found.path):
        image = found.reader.Execute()
    values = itk.GetArrayFromImage(image)
    if image.GetNumberOfComponentsPerPixel() > 1:
        values = np.moveaxis(values, -1, 0)
    i, j, k = stored.grid.shape
    return values.reshape(stored.channels, k, j, i), notes


# --- what a header means -----------------------------------------------------------------------------------------


def _understood(path: Path, text: TextHeader, reader: Any) -> Stored:
    sizes = [int(size) for size in reader.GetSize()]
    dtype, components = _pixel(path, text, reader)
    if len(sizes) > 4 or min(sizes) < 1 or (len(sizes) == 4 and components > 1):
        whole = "x".join(map(str, (*sizes, components) if components > 1 else sizes))
        raise InputError(path, f"has the shape {whole}, expected at most 4 dimensions")
    i, j, k, frames = [*sizes, 1, 1][:4]
    affine, is_oriented, notes = find_position(path, reader, text)
    header = Header(
        format=text.kind,
        file_dtype=dtype,
        ndim=4 if components > 1 else len(sizes),
        xform_code=int(is_oriented),
        is_oriented=is_oriented,
        time_step=(float(reader.GetSpacing()[3]), 0) if len(sizes) == 4 else (0.0, 0),
        warnings=notes,
    )
    return Stored(np.dtype(dtype), text.start, 1.0, 0.0, frames * components, Grid((i, j, k), affine), header)


def _pixel(path: Path, text: TextHeader, reader: Any) -> tuple[str, int]:
    """(dtype, numbers in each pixel), more than one only where an NRRD calls them a list (C17)."""
    import SimpleITK as itk  # noqa: N813

    word = str(itk.GetPixelIDValueAsString(reader.GetPixelID()))
    components = int(reader.GetNumberOfComponents())
    dtype = DTYPES.get(word.removeprefix("vector of "))
    kind = next((kind for kind in text.fields.get("kinds", "").split() if kind not in PLACES), "")
    if dtype is None or (components > 1 and kind != LIST):
        many = f"{components} numbers ({kind or word})" if dtype else word
        raise InputError(path, f"stores {many} in each voxel, expected one real number")
    return dtype, components
