"""Which file-name suffix belongs to which format module: the one table that a new format adds a line to."""

import importlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol, cast

from nfops.arrays import Array
from nfops.errors import InputError, UsageError
from nfops.grid import Grid
from nfops.image import Header, Image
from nfops.io.contents import GZIP, content_of, refuse_detached, refuse_name
from nfops.io.dicom.finding import DicomFiles
from nfops.io.dicom.headers import looks_like_dicom
from nfops.io.opening import first_bytes, is_folder, refuse_text
from nfops.io.piped import PipedScan
from nfops.io.reading import Reading
from nfops.io.saving import SaveOptions

FORMATS = {
    ".nii.gz": "nifti",
    ".nii": "nifti",
    ".mgz": "mgh",
    ".mgh": "mgh",
    ".nrrd": "itk",
    ".mha": "itk",
    ".png": "picture",
    ".tif": "picture",
    ".tiff": "picture",
    ".csv": "signal",
    ".txt": "signal",
}
"""Suffix -> module of nfops.io that reads and writes it; longer suffixes stand before their endings."""

READ_ONLY = {".dcm": "dicom.format"}
"""Suffixes of inputs only: a DICOM series is written as a folder."""

TEXT_FORMATS = ("signal",)
"""Modules whose files are text: what else is text is no image, and of a folder's files they may be anything."""


class Reader(Protocol):
    """What a module has that reads a format.

    One may have `refuse(scan, reading)`, too: what `load` would raise where `describe` only tells of it.
    """

    def load(self, scan: Path | DicomFiles | PipedScan, reading: Reading) -> Image:
        """Read a file."""

    def describe(self, scan: Path | DicomFiles | PipedScan, reading: Reading) -> dict[str, Any]:
        """Say what a file holds, from its header where that is possible."""


class Writer(Protocol):
    """What a module has that writes a format."""

    def save(self, path: Path, image: Image, options: SaveOptions) -> tuple[str, ...]:
        """Write a file whole or not at all; returns warnings."""

    def save_slabs(
        self, path: Path, grid: Grid, header: Header, slabs: Iterable[Array], options: SaveOptions, *, channels: int = 1
    ) -> tuple[str, ...]:
        """The same, from slabs along k."""


def supported_suffixes() -> tuple[str, ...]:
    """Every suffix that can be read and written."""
    return tuple(FORMATS)


def suffix_of(path: Path) -> str:
    """The known suffix of a file name in lower case (".nii.gz" whole), or "" if it has none."""
    name = path.name.lower()
    return next((suffix for suffix in (*FORMATS, *READ_ONLY) if name.endswith(suffix) and name != suffix), "")


def is_text(path: Path) -> bool:
    """Whether a file of this name is one of numbers as text."""
    return FORMATS.get(suffix_of(path)) in TEXT_FORMATS


def output_stem(path: Path) -> str:
    """A file name without its suffix: "sub.1.nii.gz" -> "sub.1"."""
    suffix = suffix_of(path) or path.suffix
    return path.name[: len(path.name) - len(suffix)]


def input_format(scan: Path | DicomFiles | PipedScan) -> Reader:
    """The module that reads `scan`: a folder and whatever begins like DICOM are DICOM, the rest goes by its suffix.

    Raises:
        NotFoundError, InputError: as `first_bytes`, or no module knows the suffix, or the content is of another one.
    """
    if isinstance(scan, PipedScan):
        return cast(Reader, _module("piped"))
    if isinstance(scan, DicomFiles) or is_folder(scan):
        return cast(Reader, _module("dicom.format"))
    start = first_bytes(scan)
    if looks_like_dicom(start):
        return cast(Reader, _module("dicom.format"))
    refuse_detached(scan)
    suffix, content = suffix_of(scan), content_of(start)
    if content and FORMATS.get(suffix) != content.module:
        refuse_name(scan, output_stem(scan), content, is_packed=start.startswith(GZIP))
    if not is_text(scan) and not content:
        refuse_text(scan, start)
    if not suffix and start.startswith(b"\x1f\x8b"):
        raise InputError(scan, "is gzipped, and its name does not say what is in it", "unpack it first")
    if not suffix:
        raise InputError(scan, "unknown image format", f"supported: {', '.join(FORMATS)} and DICOM")
    return cast(Reader, _module((FORMATS | READ_ONLY)[suffix]))


def output_format(path: Path) -> Writer:
    """The module that writes `path`; UsageError if no module knows its suffix."""
    suffix = suffix_of(path)
    if suffix in READ_ONLY:
        raise UsageError(path, "DICOM is not written by its suffix", "name a folder, labels NAME.dcm, and say --dicom")
    if suffix not in FORMATS:
        raise UsageError(path, "unknown suffix for an output", f"supported: {', '.join(FORMATS)}")
    return cast(Writer, _module(FORMATS[suffix]))


def _module(name: str) -> Any:
    return importlib.import_module(f"nfops.io.{name}")
