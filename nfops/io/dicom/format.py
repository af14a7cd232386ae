"""DICOM as nfops.io expects a format: what to load, and what to say without decoding."""

import gc
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nfops.errors import InputError, NfopsError
from nfops.image import Image
from nfops.io.description import DECODE_UP_TO_BYTES, finite_range
from nfops.io.dicom.finding import DicomFiles, Found, Series, choose_series, find
from nfops.io.dicom.flaws import find_flaws
from nfops.io.dicom.volume import check, header_of, place, read_volume
from nfops.io.reading import Reading


def load(scan: Path | DicomFiles, reading: Reading) -> Image:
    """The volume of a file, a folder with all below it, or a list of files.

    Raises:
        NothingMatchedError: no image at all. InputError: several series and none chosen; damaged or undecodable; no
        rectangular grid where `reading` does not allow to make one.
    """
    with _no_collection():
        return read_volume(scan, _chosen(scan, reading), reading)


@contextmanager
def _no_collection() -> Iterator[None]:
    """Python's search for cycles goes through the elements of every slice again and again: a tenth of the time."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def refuse(scan: Path | DicomFiles, reading: Reading) -> None:
    """Raise what `load` would, as far as the headers tell."""
    check(scan, _chosen(scan, reading), reading)


def _chosen(scan: Path | DicomFiles, reading: Reading) -> Series:
    """The one series that is meant, of a modality that is allowed."""
    found = find(scan)
    series = choose_series(scan, found, wanted_series(scan, reading, found))
    if reading.modality and series.modality not in reading.modality:
        allowed = " or ".join(reading.modality)
        raise InputError(scan, f"has the modality {series.modality or 'unknown'}, the recipe takes {allowed}")
    return series


def describe(scan: Path | DicomFiles, reading: Reading) -> dict[str, Any]:
    """What the headers say; of a small image the pixels are read, too, for their range.

    Of several series, of which none is chosen, only the list.
    """
    found = find(scan)
    document = {"kind": "dicom", "path": str(scan)}
    wanted = wanted_series(scan, reading, found)
    if wanted is None and len(found.series) > 1:
        nothing = dict.fromkeys(("shape", "spacing_mm", "affine", "orientation", "dtype", "channels"))
        return (
            document
            | nothing
            | {"series": _listed(found.series), "intensity_range": None, "warnings": _left_out(found)}
        )
    series = choose_series(scan, found, wanted)
    grid, is_oriented, notes = place(series, reading.picture)
    flaws = [flaw.what for flaw in find_flaws(series.stack)]
    header = header_of(series, is_oriented, (*series.notes, *flaws, *notes, *_left_out(found)))
    return document | {
        "shape": list(grid.shape),
        "spacing_mm": [float(s) for s in grid.spacing_mm],
        "affine": grid.affine.tolist(),
        "orientation": grid.orientation if is_oriented else None,
        "dtype": header.file_dtype,
        "channels": 3 if header.is_colour else len(series.stack.frames),
        "series": _listed((series,)),
        "intensity_range": _range(scan, series, reading),
        "warnings": list(header.warnings),
    }


def _range(scan: Path | DicomFiles, series: Series, reading: Reading) -> list[float] | None:
    """[smallest, largest] value of an image that takes no time to read; None for others and for what is refused."""
    if 4 * math.prod(series.stack.sizes) > DECODE_UP_TO_BYTES:
        return None
    try:
        return finite_range(read_volume(scan, series, reading).values)
    except NfopsError:
        return None  # a missing decoder, a flaw of the grid: what the headers say is worth knowing all the same


def wanted_series(scan: Path | DicomFiles, reading: Reading, found: Found) -> str | None:
    """Which series is meant: the one that a list of files was made for, or the one that the user named."""
    if isinstance(scan, DicomFiles) and scan.series:
        return scan.series
    if reading.series != "all":
        return reading.series
    if len(found.series) > 1:
        raise InputError(scan, "--series all makes several outputs", "use it with --out-dir")
    return None


def _listed(found: Sequence[Series]) -> list[dict[str, Any]]:
    return [
        {
            "index": index,
            "number": series.number,
            "description": series.description,
            "modality": series.modality,
            "title": series.title(),
            "shape": list(series.stack.sizes),
            "files": len(series.stack.files),
        }
        for index, series in enumerate(found, start=1)
    ]


def _left_out(found: Found) -> list[str]:
    """What was seen and is in no series: other files, documents without image, copies."""
    others = [f"{found.others} files that are no DICOM were left out"] if found.others else []
    copies = dict.fromkeys(note for series in found.series for note in series.notes if len(found.series) > 1)
    skipped = [f"{count} files without image were left out ({kind})" for kind, count in found.skipped.items()]
    return [*others, *skipped, *copies]
