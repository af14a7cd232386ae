"""Which file-name suffix belongs to which format module: the one table that a new format adds a line to."""

import importlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol, cast

from nfops.arrays import Array
from nfops.errors import InputError, UsageError
from nfops.grid import Grid
from nfops.image import Header, Image
from nfops.io.picture_frame import PictureFrame
from nfops.io.saving import SaveOptions

FORMATS = {
    ".nii.gz": "nifti",
    ".nii": "nifti",
    ".png": "picture",
    ".tif": "picture",
    ".tiff": "picture",
    ".csv": "signal",
    ".txt": "signal",
}
"""Suffix -> module of nfops.io that reads and writes it; longer suffixes stand before their endings."""

TEXT_FORMATS = ("signal",)
"""Modules whose files are text: what else is text is no image, and of a folder's files they may be anything."""


class Format(Protocol):
    """What a format module has."""

    def load(self, path: Path, picture: PictureFrame | None) -> Image:
        """Read a file."""

    def describe(self, path: Path, picture: PictureFrame | None) -> dict[str, Any]:
        """Say what a file holds, from its header where that is possible."""

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
    """The supported suffix of a file name in lower case (".nii.gz" whole), or "" if it has none."""
    name = path.name.lower()
    return next((suffix for suffix in FORMATS if name.endswith(suffix) and name != suffix), "")


def is_text(path: Path) -> bool:
    """Whether a file of this name is one of numbers as text."""
    return FORMATS.get(suffix_of(path)) in TEXT_FORMATS


def output_stem(path: Path) -> str:
    """A file name without its suffix: "sub.1.nii.gz" -> "sub.1"."""
    suffix = suffix_of(path) or path.suffix
    return path.name[: len(path.name) - len(suffix)]


def input_format(path: Path) -> Format:
    """The module that reads `path`; InputError if no module knows its suffix."""
    suffix = suffix_of(path)
    if not suffix:
        raise InputError(path, "unknown image format", f"supported: {', '.join(FORMATS)}")
    return _module(suffix)


def output_format(path: Path) -> Format:
    """The module that writes `path`; UsageError if no module knows its suffix."""
    suffix = suffix_of(path)
    if not suffix:
        raise UsageError(path, "unknown suffix for an output", f"supported: {', '.join(FORMATS)}")
    return _module(suffix)


def _module(suffix: str) -> Format:
    return cast(Format, importlib.import_module(f"nfops.io.{FORMATS[suffix]}"))
