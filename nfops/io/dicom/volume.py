"""A DICOM series as an `Image`: frames decoded into one array, rescaled, on the grid that their positions say."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from nfops.arrays import Array
from nfops.errors import InputError
from nfops.grid import WORLD_DIRECTIONS, Grid
from nfops.image import Header, Image
from nfops.io.dicom.finding import Series
from nfops.io.dicom.flaws import find_flaws
from nfops.io.dicom.frames import Frame
from nfops.io.dicom.pixels import cut_tile, read_frames
from nfops.io.dicom.regrid import rectangular
from nfops.io.nifti_read import NEEDS_DOUBLE, narrowed
from nfops.io.picture_frame import PictureFrame
from nfops.io.reading import Reading
from nfops.memory import require_memory

SECONDS = 8
"""NIfTI's code of that unit."""

GREY = ("MONOCHROME1", "MONOCHROME2")
QUANTITATIVE = ("CT", "MR", "PT")
OF_PATIENT = {"L": "L", "R": "R", "A": "A", "P": "P", "H": "S", "F": "I"}
"""DICOM's letters for directions in the body -> ours: head is superior, feet inferior."""


def read_volume(where: object, series: Series, reading: Reading) -> Image:
    """The values of a series on its grid, (T, I, J, K); of colours (3, I, J, K).

    Raises:
        InputError: slices that are missing, uneven or tilted where `reading` does not allow it; damaged or undecodable
        pixels; what `reading` refuses. MemoryLimitError: larger than the memory.
    """
    how = check(where, series, reading)
    values = _decode(where, series, reading)
    grid, is_oriented, notes = place(series, reading.picture)
    if how:
        values, grid = rectangular(values, series.stack)
    return Image(values, grid, header_of(series, is_oriented, (*series.notes, *how, *notes)))


def check(where: object, series: Series, reading: Reading) -> tuple[str, ...]:
    """Raise for flaws that the reading does not allow; else what is done about them, () where there are none."""
    done = []
    for flaw in find_flaws(series.stack):
        if not (flaw.is_tilted and reading.untilt) and not (flaw.is_uneven and reading.resample_uniform):
            raise InputError(where, flaw.what, flaw.hint)
        done.append(f"{flaw.what}: resampled linearly to a rectangular grid")
    return tuple(done)


def place(series: Series, picture: PictureFrame | None) -> tuple[Grid, bool, tuple[str, ...]]:
    """(grid, whether the body position is known, warnings): a radiograph lies as its words or the recipe say."""
    stack = series.stack
    frame = stack.frames[0][0]
    notes = () if frame.spacing_mm else ("the size of a pixel is not known: 1 mm is assumed",)
    if stack.is_oriented:
        return stack.grid(), bool(frame.spacing_mm), notes
    between_rows, between_columns = frame.spacing_mm or (1.0, 1.0)
    own = _patient_axes(series.patient_orientation)
    lying = picture or PictureFrame()
    pixel_mm = (between_columns, between_rows)
    if lying.pixel_mm is not None and (lying.pixel_mm_is_override or not frame.spacing_mm):
        pixel_mm, notes = lying.pixel_mm, ()
    lying = replace(lying, axes=own) if own else lying
    return lying.grid(frame.columns, frame.rows, pixel_mm), bool(own or picture) and not notes, notes


def _patient_axes(letters: Sequence[str]) -> tuple[str, str] | None:
    """The directions of a row and a column by PatientOrientation, as ("L", "F"); None where it does not say."""
    found = [OF_PATIENT.get(word[:1]) for word in letters[:2]]
    if len(found) < 2 or found[0] is None or found[1] is None:
        return None
    axes = (found[0], found[1])
    return axes if WORLD_DIRECTIONS[axes[0]][0] != WORLD_DIRECTIONS[axes[1]][0] else None


def header_of(series: Series, is_oriented: bool, notes: Sequence[str]) -> Header:
    """What the files say beside values and positions."""
    frames = [frame for volume in series.stack.frames for frame in volume]
    return Header(
        format="dicom",
        file_dtype=series.dtype,
        is_scaled=any((frame.slope, frame.intercept) != (1.0, 0.0) for frame in frames),
        ndim=4 if len(series.stack.frames) > 1 else 3,
        is_oriented=is_oriented,
        slice_axis=2,
        is_colour=series.photometric not in GREY,
        warnings=tuple(notes),
        files=series.stack.files,
        modality=series.modality,
        time_step=(series.repetition_s, SECONDS) if len(series.stack.frames) > 1 else (0.0, 0),
    )


def _decode(where: object, series: Series, reading: Reading) -> Array:
    """(C, I, J, K) values, rescaled; in memory as in the files, i fastest."""
    stack = series.stack
    is_colour = series.photometric not in GREY
    if is_colour and len(stack.frames) > 1:
        raise InputError(where, f"holds {len(stack.frames)} colour images, expected one")
    channels = 3 if is_colour else len(stack.frames)
    i, j, k = stack.shape
    is_double = series.dtype in NEEDS_DOUBLE
    require_memory(where, (8 if is_double else 4) * channels * i * j * k, f"the image, {i}x{j}x{k}x{channels},")
    values = np.empty((channels, k, j, i), np.float64 if is_double else np.float32)
    tones = _Tones.of(where, series, reading)
    for path, places in _places(series).items():
        wanted = sorted({frame.index for _, _, frame in places})
        for index, picture in zip(wanted, read_frames(path, wanted, series.datasets[path]), strict=True):
            for t, slice_number, frame in places:
                if frame.index == index:
                    target = values[:, slice_number] if is_colour else values[t, slice_number]
                    _fill(target, cut_tile(picture, frame), frame, tones)
    if reading.padding == "min" and np.isnan(values).any():
        values[np.isnan(values)] = np.nanmin(values)
    return (narrowed(values) if is_double else values).transpose(0, 3, 2, 1)


def _places(series: Series) -> dict[Path, list[tuple[int, int, Frame]]]:
    """For each file the (volume, slice, frame) that come from it."""
    found: dict[Path, list[tuple[int, int, Frame]]] = {}
    for t, volume in enumerate(series.stack.frames):
        for k, frame in enumerate(volume):
            found.setdefault(frame.path, []).append((t, k, frame))
    return found


@dataclass(frozen=True)
class _Tones:
    """mirror: stored values are counted down from this one, None if bright is large. padding: (lowest, highest)
    stored value that is no measurement, None if such are kept.
    """

    mirror: float | None
    padding: tuple[float, float] | None

    @classmethod
    def of(cls, where: object, series: Series, reading: Reading) -> "_Tones":
        """What the recipe and the files say (B39, B40)."""
        is_kept = reading.padding == "keep" or not series.padding
        padding = None if is_kept else (min(series.padding), max(series.padding))
        how = reading.monochrome1
        if series.photometric != "MONOCHROME1" or how == "keep":
            return cls(None, padding)
        if how == "error" or (how == "auto" and series.modality in QUANTITATIVE):
            what = f"is {series.modality} stored as MONOCHROME1, where small values are bright"
            raise InputError(where, what, "say with `monochrome1: invert` or `keep` in the recipe's data section")
        return cls(sum(series.stored_range), padding)


def _fill(target: Array, tile: Array, frame: Frame, tones: _Tones) -> None:
    """Put the decoded pixels of a slice into their place, rescaled."""
    pixels = np.moveaxis(tile, -1, 0) if tile.ndim == 3 else tile
    if pixels.shape != target.shape:
        raise InputError(frame.path, f"decodes to the shape {pixels.shape}, its header promises {target.shape}")
    stored = pixels if tones.mirror is None else tones.mirror - pixels
    if (frame.slope, frame.intercept) == (1.0, 0.0):
        target[...] = stored
    elif frame.slope == 1.0 and frame.intercept.is_integer():
        np.add(stored, target.dtype.type(frame.intercept), out=target, casting="unsafe")
    else:  # in double precision: the same value as any other reader's, rounded once
        target[...] = stored * frame.slope + frame.intercept
    if tones.padding:
        lowest, highest = tones.padding
        target[(pixels >= lowest) & (pixels <= highest)] = np.nan
