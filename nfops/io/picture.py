"""PNG and TIFF: single pictures of grey or RGB values, i along a row, j down a column, one slice."""

import struct
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nfops.arrays import Array
from nfops.errors import InputError, MemoryLimitError, OutputError, ResultError, UsageError
from nfops.grid import Grid
from nfops.image import Header, Image
from nfops.io.opening import first_bytes
from nfops.io.picture_frame import PictureFrame
from nfops.io.picture_spacing import save_settings, stored_pixel_mm
from nfops.io.publish import publishing
from nfops.io.reading import Reading
from nfops.io.saving import SaveOptions, StoredType
from nfops.memory import require_memory

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

GREY_MODES = {"1": "uint8", "L": "uint8", "I;16": "uint16", "I;16B": "uint16", "I;16L": "uint16"}
SUFFIXES = {"PNG": (".png",), "TIFF": (".tif", ".tiff")}
PILLOW_ERRORS = (OSError, SyntaxError, ValueError, TypeError, LookupError, ArithmeticError, struct.error, EOFError)
"""What Pillow raises over damaged files, TIFF above all."""

LARGEST_CLIPPED = 0.5
"""A grey level this far outside the range is cut off by rounding alone; only beyond is it worth a warning."""


def load(path: Path, reading: Reading) -> Image:
    """Read a picture: (C, columns, rows, 1) with one or three channels, centred on the world's origin.

    The spacing is the user's own (an override), else the file's, else the recipe's, else 1 mm with a warning.

    Raises:
        InputError: damaged, not what its suffix says, several pages, or colours that are neither grey nor RGB.
        MemoryLimitError: more pixels than a picture should have.
    """
    frame = reading.picture or PictureFrame()
    with _opened(path) as (opened, notes):
        pixels, dtype, found = _pixels(path, opened)
        stored_mm = stored_pixel_mm(opened)
    notes += found
    pixel_mm = frame.pixel_mm if frame.pixel_mm_is_override else stored_mm or frame.pixel_mm
    if pixel_mm is None:
        notes.append("the size of a pixel is not known: 1 mm is assumed")
    values = np.ascontiguousarray(pixels.transpose(2, 1, 0)[..., None], dtype=np.float32)
    header = Header(
        format="picture",
        file_dtype=dtype,
        ndim=2,
        is_oriented=reading.picture is not None and pixel_mm is not None,
        slice_axis=2,
        is_colour=values.shape[0] == 3,
        warnings=tuple(notes),
    )
    return Image(values, frame.grid(values.shape[1], values.shape[2], pixel_mm or (1.0, 1.0)), header)


def describe(path: Path, reading: Reading) -> dict[str, Any]:
    """What the picture holds; it is read whole."""
    image = load(path, reading)
    return {
        "kind": "picture",
        "path": str(path),
        "shape": list(image.grid.shape),
        "spacing_mm": [float(s) for s in image.grid.spacing_mm],
        "affine": image.grid.affine.tolist(),
        "orientation": image.grid.orientation if image.header.is_oriented else None,
        "dtype": image.header.file_dtype,
        "channels": image.channels,
        "series": None,
        "intensity_range": [float(image.values.min()), float(image.values.max())],
        "warnings": list(image.header.warnings),
    }


def save(path: Path, image: Image, options: SaveOptions) -> tuple[str, ...]:
    """Write one slice: 8 bit, or 16 bit where the options say so; i runs along the rows.

    Raises:
        UsageError: several slices, two or more than three channels, a dtype pictures do not have.
        ResultError: NaN or infinite values, several labels where one mask was asked for.
    """
    from PIL import Image as pillow  # noqa: N813

    if image.grid.shape[2] != 1:
        shape = "x".join(map(str, image.grid.shape))
        raise UsageError(path, f"a picture holds one slice, the image is {shape}", "write .nii.gz instead")
    dtype = _dtype(path, image, options)
    pixels, notes = _to_pixels(path, image.values[..., 0].transpose(2, 1, 0), dtype, options.mask_255)
    pixels = np.ascontiguousarray(pixels[..., 0] if image.channels == 1 else pixels)
    spacing = image.grid.spacing_mm
    with publishing(path, options.force, lambda written: _check(written, pixels), options.together) as temporary:
        pillow.fromarray(pixels).save(temporary, **save_settings(temporary, (float(spacing[0]), float(spacing[1]))))
    return notes


def save_slabs(
    path: Path, grid: Grid, header: Header, slabs: Iterable[Array], options: SaveOptions, *, channels: int = 1
) -> tuple[str, ...]:
    """A picture has one slice: collect what comes and write it."""
    blocks = [np.asarray(slab).reshape(slab.shape[-3:]) for slab in slabs]
    values = np.concatenate(blocks, axis=2).reshape(*grid.shape[:2], channels, grid.shape[2]).transpose(2, 0, 1, 3)
    return save(path, Image(values.astype(np.float32, copy=False), grid, header), options)


@contextmanager
def _opened(path: Path) -> Iterator[tuple["Picture", list[str]]]:
    """The picture, whole, and what Pillow had to remark about it."""
    from PIL import Image as pillow  # noqa: N813
    from PIL import UnidentifiedImageError

    first_bytes(path)
    notes: list[str] = []
    try:
        with warnings.catch_warnings(record=True) as remarks:
            warnings.simplefilter("always")
            warnings.simplefilter("error", pillow.DecompressionBombWarning)
            with pillow.open(path, formats=list(SUFFIXES)) as picture:
                picture.verify()  # the checksums of PNG chunks, which reading does not look at
            with pillow.open(path, formats=list(SUFFIXES)) as picture:
                _check_kind(path, picture)
                picture.load()
                notes += [str(remark.message) for remark in remarks]
                yield picture, notes
    except (pillow.DecompressionBombWarning, pillow.DecompressionBombError) as error:
        raise MemoryLimitError(path, "has more pixels than a picture should: it may be a decompression bomb") from error
    except UnidentifiedImageError as error:
        raise InputError(path, "is neither a PNG nor a TIFF picture") from error
    except PILLOW_ERRORS as error:
        raise InputError(path, f"damaged picture ({error})", "copy it again") from error


def _check_kind(path: Path, picture: "Picture") -> None:
    kind = picture.format or ""
    if not path.name.lower().endswith(SUFFIXES[kind]):
        raise InputError(
            path, f"is a {kind} picture, but its name does not say so", f"rename it to {SUFFIXES[kind][0]}"
        )
    if picture.mode not in GREY_MODES and any(";16" in str(tile) for tile in getattr(picture, "tile", ())):
        raise InputError(path, "has 16 bit per colour, expected 8")  # Pillow would drop half of them in silence
    pages = getattr(picture, "n_frames", 1)
    if pages != 1:
        raise InputError(path, f"holds {pages} pages, expected one picture")
    require_memory(path, picture.width * picture.height * 16, f"a picture of {picture.width}x{picture.height}")


def _pixels(path: Path, picture: "Picture") -> tuple[Array, str, list[str]]:
    """((rows, columns, channels) pixels, stored dtype, what was dropped)."""
    notes = []
    if picture.mode in ("P", "PA"):
        picture = picture.convert("RGBA" if picture.mode == "PA" or "transparency" in picture.info else "RGB")
        picture = _grey_if_it_is(picture)
    if picture.mode in ("LA", "RGBA", "La", "RGBa"):
        picture = picture.convert(picture.mode[:-1])
        notes.append("the alpha channel was dropped")
    if picture.mode in GREY_MODES:
        dtype = GREY_MODES[picture.mode]
        grey = picture.convert("L") if picture.mode == "1" else picture
        return np.asarray(grey)[..., None], dtype, notes
    if picture.mode == "RGB":
        return np.asarray(picture), "uint8", notes
    raise InputError(path, f"has pixels of the kind {picture.mode}, expected grey of 8 or 16 bit or RGB")


def _grey_if_it_is(picture: "Picture") -> "Picture":
    """A palette of greys is a grey picture."""
    colours = np.asarray(picture)[..., :3]
    is_grey = (colours == colours[..., :1]).all()
    return picture.convert("LA" if picture.mode == "RGBA" else "L") if is_grey else picture


def _dtype(path: Path, image: Image, options: SaveOptions) -> StoredType:
    name = {"auto": "uint8", "same": image.header.file_dtype}.get(options.dtype, options.dtype)
    if image.channels not in (1, 3):
        raise UsageError(
            path, f"a picture has 1 or 3 channels, the image has {image.channels}", "write .nii.gz instead"
        )
    if name not in (("uint8", "uint16") if image.channels == 1 else ("uint8",)):
        raise UsageError(path, f"a picture cannot store {name}", "choose --dtype auto, or write .nii.gz instead")
    return np.dtype(name)


def _to_pixels(path: Path, values: Array, dtype: StoredType, mask_255: bool) -> tuple[Array, tuple[str, ...]]:
    """(rows, columns, channels) values rounded and cut to the range of `dtype`; a warning if that lost any."""
    bad = values.size - int(np.isfinite(values).sum())
    if bad:
        raise ResultError(path.name, f"{bad} of {values.size} values are NaN or infinite; nothing was written")
    if mask_255:
        labels = np.unique(values)
        if np.count_nonzero(labels) > 1:
            raise ResultError(path.name, f"{len(labels)} labels do not fit a mask of 0 and 255")
        return np.where(values != 0, 255, 0).astype(np.uint8), ()
    highest = float(np.iinfo(dtype).max)
    outside = int(((values < -LARGEST_CLIPPED) | (values > highest + LARGEST_CLIPPED)).sum())
    limits = f"{values.min():g} to {values.max():g}"
    notes = (f"{outside} values of {limits} were cut to 0 to {highest:g}",) if outside else ()
    return np.clip(np.rint(values), 0, highest).astype(dtype), notes


def _check(path: Path, pixels: Array) -> None:
    """Read back what was written."""
    from PIL import Image as pillow  # noqa: N813

    with pillow.open(path) as picture:
        if not np.array_equal(np.asarray(picture), pixels):
            raise OutputError(path, "what was written cannot be read back")
