"""CSV and text: signals, a sample on each line and a channel in each column; i runs along the samples.

A first column called time, t or x (also with a unit) says where the samples lie, evenly spaced. Its unit stands where
images have millimetres. Without it samples are 0, 1, 2...
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from nfops.arrays import Array
from nfops.errors import InputError, OutputError, UsageError
from nfops.grid import Grid
from nfops.image import Header, Image
from nfops.io.opening import first_bytes
from nfops.io.publish import publishing
from nfops.io.reading import Reading
from nfops.io.saving import SaveOptions, stored_dtype, to_stored
from nfops.io.signal_text import SignalText, format_text, names_axis, narrowed, read_text

LARGEST_JITTER = 0.05
"""In steps: times are rounded where they are written, but none is further than this from its place."""
LARGEST_INTEGER = 2**31 - 1


def load(path: Path, reading: Reading) -> Image:  # noqa: ARG001
    """Read a signal: values (C, I, 1, 1), its grid along the first world axis.

    Raises:
        InputError: no signal, see `signal_text.read_text`, or samples that are not evenly spaced.
    """
    first_bytes(path)
    text = read_text(path)
    has_axis = names_axis(text.names, len(text.values))
    start, step = _axis(path, text) if has_axis else (0.0, 1.0)
    values = text.values[1:] if has_axis else text.values
    fits_integer = text.is_whole and bool(np.abs(values).max() <= LARGEST_INTEGER)
    values = narrowed(values)
    dtype = "int32" if fits_integer else values.dtype.name
    header = Header(format="signal", file_dtype=dtype, ndim=1, is_oriented=has_axis, columns=text.names)
    return signal_image(values, start, step, header)


def signal_image(values: Array, start: float, step: float, header: Header) -> Image:
    """Samples (C, I), the first at `start`, as an Image."""
    affine = np.diag([step, 1.0, 1.0, 1.0])
    affine[0, 3] = start
    return Image(values[..., None, None], Grid((values.shape[1], 1, 1), affine), header)


def describe(path: Path, reading: Reading) -> dict[str, Any]:
    """What the signal holds; it is read whole."""
    image = load(path, reading)
    return {
        "kind": "signal",
        "path": str(path),
        "shape": list(image.grid.shape),
        "spacing_mm": [float(s) for s in image.grid.spacing_mm],
        "affine": image.grid.affine.tolist(),
        "orientation": None,
        "dtype": image.header.file_dtype,
        "channels": image.channels,
        "series": None,
        "intensity_range": [float(image.values.min()), float(image.values.max())],
        "warnings": list(image.header.warnings),
    }


def save(path: Path, image: Image, options: SaveOptions) -> tuple[str, ...]:
    """Write a signal; with a column for its axis where the input had one, or where samples are not 0, 1, 2...

    Raises:
        UsageError: more than one axis has samples. ResultError: NaN or infinite values.
    """
    own = image.grid.signal_axis
    if own is None:
        size = "x".join(map(str, image.grid.shape))
        raise UsageError(path, f"a signal has samples along one axis, the image is {size}", "write .nii.gz instead")
    dtype = image.values.dtype if options.dtype == "auto" else stored_dtype(options, image.header)
    values = to_stored(image.values.reshape(image.channels, -1), dtype, path.name)
    names, columns = _named(image.header.columns, values, _position(image.grid, own))
    text = format_text(names, columns, "," if path.suffix.lower() == ".csv" else "\t")
    with publishing(path, options.force, lambda written: _check(written, values), options.together) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return ()


def save_slabs(
    path: Path, grid: Grid, header: Header, slabs: Iterable[Array], options: SaveOptions, *, channels: int = 1
) -> tuple[str, ...]:
    """A signal is small: collect what comes and write it."""
    blocks = [np.asarray(slab).reshape(slab.shape[-3:]) for slab in slabs]
    values = np.concatenate(blocks, axis=2).reshape(*grid.shape[:2], channels, grid.shape[2]).transpose(2, 0, 1, 3)
    return save(path, Image(values if values.dtype.kind == "f" else values.astype(np.float32), grid, header), options)


def _axis(path: Path, text: SignalText) -> tuple[float, float]:
    """Start and step of the first column. Raises InputError, with the line, where it is not evenly spaced."""
    place = text.values[0]
    if len(place) == 1:
        return float(place[0]), 1.0
    step = float(place[-1] - place[0]) / (len(place) - 1)
    even = place[0] + step * np.arange(len(place))
    off = np.abs(place - even) > LARGEST_JITTER * abs(step)
    if step <= 0 or off.any():
        worst = int(np.abs(place - even).argmax())
        what = f"column {text.names[0]!r} is not evenly spaced and rising: {place[worst]:g} where {even[worst]:g} fits"
        raise InputError(f"{path}:{text.first_line + worst}", what, "resample the signal, or leave the column out")
    return float(place[0]), step


def _position(grid: Grid, own: int) -> tuple[float, float]:
    """Start and step along a grid's own axis: world coordinates where that is a world axis."""
    return float(grid.affine[:3, 3] @ grid.directions[:, own]), float(grid.spacing_mm[own])


def _named(known: tuple[str, ...], values: Array, position: tuple[float, float]) -> tuple[list[str], list[Array]]:
    """Names and columns to write; the names of the input where there are as many channels as it had."""
    count, (start, step) = len(values), position
    has_axis = names_axis(known, count + 1)
    if not has_axis and abs(start) < 1e-9 and abs(step - 1) < 1e-9:
        return list(known) if len(known) == count else [], list(values)
    channels = list(known[has_axis:])
    if len(channels) != count:
        channels = ["value"] if count == 1 else [f"value_{number}" for number in range(count)]
    place = np.array([f"{start + step * number:.12g}" for number in range(values.shape[1])])
    return [known[0] if has_axis else "x", *channels], [place, *values]


def _check(path: Path, values: Array) -> None:
    """Read back what was written."""
    if not np.array_equal(load(path, Reading()).values[..., 0, 0], values):
        raise OutputError(path, "what was written cannot be read back")
