"""DICOM as nfops.io expects a format: what to load, and what to say without decoding."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from nfops.arrays import Array
from nfops.errors import InputError, UsageError
from nfops.grid import Grid
from nfops.image import Header, Image
from nfops.io.dicom.finding import DicomFiles, Found, choose_series, find
from nfops.io.dicom.flaws import find_flaws
from nfops.io.dicom.volume import header_of, place, read_volume
from nfops.io.reading import Reading
from nfops.io.saving import SaveOptions


def load(scan: Path | DicomFiles, reading: Reading) -> Image:
    """The volume of a file, a folder with all below it, or a list of files.

    Raises:
        NothingMatchedError: no image at all. InputError: several series and none chosen; damaged or undecodable; no
        rectangular grid where `reading` does not allow to make one.
    """
    found = find(scan)
    series = choose_series(scan, found, wanted_series(scan, reading, found))
    if reading.modality and series.modality not in reading.modality:
        allowed = " or ".join(reading.modality)
        raise InputError(scan, f"has the modality {series.modality or 'unknown'}, the recipe takes {allowed}")
    return read_volume(scan, series, reading)


def describe(scan: Path | DicomFiles, reading: Reading) -> dict[str, Any]:
    """What the headers say; no pixel is decoded, so the intensity range is not known.

    Of several series, of which none is chosen, only the list.
    """
    found = find(scan)
    document = {"kind": "dicom", "path": str(scan)}
    wanted = wanted_series(scan, reading, found)
    if wanted is None and len(found.series) > 1:
        nothing = dict.fromkeys(("shape", "spacing_mm", "affine", "orientation", "dtype", "channels"))
        return document | nothing | {"series": _listed(found), "intensity_range": None, "warnings": _skipped(found)}
    series = choose_series(scan, found, wanted)
    grid, is_oriented, notes = place(series, reading.picture)
    flaws = [flaw.what for flaw in find_flaws(series.stack)]
    header = header_of(series, is_oriented, (*series.notes, *flaws, *notes, *_skipped(found)))
    return document | {
        "shape": list(grid.shape),
        "spacing_mm": [float(s) for s in grid.spacing_mm],
        "affine": grid.affine.tolist(),
        "orientation": grid.orientation if is_oriented else None,
        "dtype": header.file_dtype,
        "channels": 3 if header.is_colour else len(series.stack.frames),
        "series": _listed(Found((series,), found.seen, found.skipped)),
        "intensity_range": None,
        "warnings": list(header.warnings),
    }


def save(path: Path, image: Image, options: SaveOptions) -> tuple[str, ...]:  # noqa: ARG001
    """Refuse: a DICOM series is a folder, and needs the series that it comes from."""
    raise UsageError(path, "a DICOM series is a folder of files", "name the folder, and say --dicom")


def save_slabs(
    path: Path,
    grid: Grid,
    header: Header,
    slabs: Iterable[Array],
    options: SaveOptions,
    *,
    channels: int = 1,  # noqa: ARG001
) -> tuple[str, ...]:
    """Refuse, as `save` does."""
    return save(path, Image(next(iter(slabs)), grid, header), options)


def wanted_series(scan: Path | DicomFiles, reading: Reading, found: Found) -> str | None:
    """Which series is meant: the one that a list of files was made for, or the one that the user named."""
    if isinstance(scan, DicomFiles) and scan.series:
        return scan.series
    if reading.series != "all":
        return reading.series
    if len(found.series) > 1:
        raise InputError(scan, "--series all makes several outputs", "use it with --out-dir")
    return None


def _listed(found: Found) -> list[dict[str, Any]]:
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
        for index, series in enumerate(found.series, start=1)
    ]


def _skipped(found: Found) -> list[str]:
    return [f"{count} files without image were left out ({kind})" for kind, count in found.skipped.items()]
