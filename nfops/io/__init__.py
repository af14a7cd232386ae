"""Images in and out of files: the seam that the rest of nfops uses; formats are imported when a file needs them."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from nfops.arrays import Array
from nfops.grid import Grid
from nfops.image import Header, Image
from nfops.io.dicom.finding import DicomFiles
from nfops.io.formats import input_format, output_format, output_stem, suffix_of, supported_suffixes
from nfops.io.inputs import list_inputs, parse_shard, plan_outputs, take_shard
from nfops.io.picture_frame import PictureFrame
from nfops.io.piped import PipedScan
from nfops.io.publish import publishing, publishing_together, refuse_existing
from nfops.io.publish_folder import publishing_directory
from nfops.io.reading import Reading
from nfops.io.saving import SaveOptions

__all__ = [
    "DicomFiles",
    "PictureFrame",
    "PipedScan",
    "Reading",
    "SaveOptions",
    "describe_image",
    "list_inputs",
    "load_image",
    "output_stem",
    "parse_shard",
    "plan_outputs",
    "publishing",
    "publishing_directory",
    "publishing_together",
    "refuse_existing",
    "refuse_image",
    "save_image",
    "save_slabs",
    "suffix_of",
    "supported_suffixes",
    "take_shard",
]


def load_image(scan: Path | DicomFiles | PipedScan, reading: Reading | None = None) -> Image:
    """Read an image: (C, I, J, K) values in the file's own axes, its grid in world mm, its header with warnings.

    scan: a file, a folder with one DICOM series, DICOM files that are one, or NIfTI from a pipe. reading: what the
    user or the recipe says where the files leave something open.

    Raises:
        NotFoundError: no such file. InputError: damaged, or not an image nfops can use. MemoryLimitError: too large.
        NothingMatchedError: a folder without DICOM images.
    """
    return input_format(scan).load(scan, reading or Reading())


def describe_image(scan: Path | DicomFiles | PipedScan, reading: Reading | None = None) -> dict[str, Any]:
    """What `nfops info --json` prints; reads headers only, and values where they take no time.

    Keys: kind, path, shape (I, J, K), spacing_mm, affine, orientation (None if unknown), dtype, channels, series,
    intensity_range (None if it was not read), warnings. Errors as for `load_image`.
    """
    return input_format(scan).describe(scan, reading or Reading())


def refuse_image(scan: Path | DicomFiles | PipedScan, reading: Reading) -> None:
    """Raise what `load_image` would, as far as headers tell: `describe_image` tells of flaws, and goes on."""
    refuse = getattr(input_format(scan), "refuse", None)
    if refuse is not None:
        refuse(scan, reading)


def save_image(path: Path, image: Image, options: SaveOptions | None = None) -> tuple[str, ...]:
    """Write an image whole or not at all, in the format of the suffix; returns warnings.

    Raises:
        UsageError: unknown suffix, or an image that the format cannot hold. ResultError: NaN, infinite or
        out-of-range values. OutputError: the file exists (without `force`) or cannot be written.
    """
    return output_format(path).save(path, image, options or SaveOptions())


def save_slabs(
    path: Path,
    grid: Grid,
    header: Header,
    slabs: Iterable[Array],
    options: SaveOptions | None = None,
    *,
    channels: int = 1,
) -> tuple[str, ...]:
    """As `save_image`, from slabs (I, J, n) or (1, I, J, n) that follow each other along k, channel after channel.

    A large volume is written as it is computed and never is in memory. Formats that cannot do this collect the slabs.
    """
    return output_format(path).save_slabs(path, grid, header, slabs, options or SaveOptions(), channels=channels)
