"""NIfTI, plain and gzipped, as nfops.io expects a format."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

from nfops.arrays import Array
from nfops.grid import Grid
from nfops.image import Header, Image
from nfops.io.description import DECODE_UP_TO_BYTES, description
from nfops.io.nifti_read import check_nifti, open_stream, read_header, read_image, read_nifti
from nfops.io.nifti_scale import Scale, choose_scale
from nfops.io.nifti_write import UNSCALED, shear_warning, write_nifti
from nfops.io.publish import publishing
from nfops.io.reading import Reading
from nfops.io.saving import SaveOptions, slabs_of, stored_dtype


def load(path: Path, reading: Reading) -> Image:
    """Read a NIfTI file."""
    return read_nifti(path, reading.xform)


def describe(path: Path, reading: Reading) -> dict[str, Any]:
    """What the header says; the intensity range too where unpacking takes no time."""
    with open_stream(path) as stream:
        stored = read_header(stream, reading.xform)
        image = read_image(stream, stored) if stored.end < DECODE_UP_TO_BYTES else None
    return description("nifti", path, stored, image)


def save(path: Path, image: Image, options: SaveOptions) -> tuple[str, ...]:
    """Write an image whole or not at all."""
    return save_slabs(path, image.grid, image.header, slabs_of(image), options, channels=image.channels)


def save_slabs(
    path: Path, grid: Grid, header: Header, slabs: Iterable[Array], options: SaveOptions, *, channels: int = 1
) -> tuple[str, ...]:
    """Write slabs (I, J, n) along k, channel after channel, as they come; whole or not at all."""
    scale, notes = UNSCALED, cast(tuple[str, ...], ())
    if options.dtype == "int16":
        scale, slabs, notes = _scaled(path, list(slabs))
    with publishing(path, options.force, check_nifti, options.together) as temporary:
        write_nifti(temporary, grid, header, stored_dtype(options, header), slabs, channels=channels, scale=scale)
    return (*shear_warning(grid, header), *notes)


def _scaled(path: Path, slabs: Sequence[Array]) -> tuple[Scale, Iterator[Array], tuple[str, ...]]:
    """(slope and intercept, the slabs as they are to be stored, what is lost): for int16, which the user asked for."""
    scale = choose_scale(slabs, path.name)
    if scale == UNSCALED:
        return scale, iter(slabs), ()
    note = f"stored as int16 with the slope {scale.slope:.6g}: values are off by up to {scale.error(slabs):.3g}"
    return scale, (scale.stored(slab) for slab in slabs), (note,)
