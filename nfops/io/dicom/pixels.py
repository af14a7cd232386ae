"""The pixels of DICOM frames as float32 values: decoded, masked to the bits that count, rescaled."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from nfops.arrays import Array
from nfops.errors import InputError
from nfops.io.dicom.frames import Frame
from nfops.io.dicom.headers import read_header, refusing
from nfops.io.dicom.multiframe import frame_count

if TYPE_CHECKING:
    from pydicom import Dataset
    from pydicom.uid import UID

DECODERS = "pip install 'nfops[dicom]'"


def read_frames(path: Path, wanted: Sequence[int], dataset: "Dataset | None" = None) -> Iterator[Array]:
    """The stored values of these frames of a file, (rows, columns) or (rows, columns, 3), one after the other.

    Raises:
        InputError: no decoder for the transfer syntax, damaged or too few pixels.
    """
    found = read_header(path) if dataset is None else dataset
    refuse_undecodable(path, found)
    with refusing(path, "damaged pixels"):
        yield from _decoded(path, found, wanted)


def stored_type(dataset: "Dataset") -> str:
    """The numpy name of what a file stores: "int16", "uint8", "float32"."""
    if "FloatPixelData" in dataset:
        return "float32"
    if "DoubleFloatPixelData" in dataset:
        return "float64"
    bits = int(dataset.get("BitsAllocated", 16))
    sign = "" if dataset.get("PixelRepresentation") == 1 else "u"
    return f"{sign}int{max(8, bits)}"


def stored_range(dataset: "Dataset") -> tuple[float, float]:
    """(lowest, highest) value that the stored bits can hold."""
    bits = int(dataset.get("BitsStored") or dataset.get("BitsAllocated", 16))
    if dataset.get("PixelRepresentation") == 1:
        return -(2.0 ** (bits - 1)), 2.0 ** (bits - 1) - 1
    return 0.0, 2.0**bits - 1


def refuse_undecodable(path: Path, dataset: "Dataset") -> None:
    """Raise InputError, before anything is decoded, for a transfer syntax that this installation cannot decode."""
    from pydicom.pixels import get_decoder

    syntax: UID | None = dataset.file_meta.get("TransferSyntaxUID")
    if syntax is None or not syntax.is_compressed or syntax.is_deflated:
        return
    try:
        is_available = get_decoder(syntax).is_available
    except NotImplementedError:
        raise InputError(path, f"has the transfer syntax {syntax.name} ({syntax}), which nfops does not read") from None
    if not is_available:
        raise InputError(path, f"no decoder is installed for {syntax.name} ({syntax})", DECODERS)


def _decoded(path: Path, dataset: "Dataset", wanted: Sequence[int]) -> Iterator[Array]:
    from pydicom.pixels import iter_pixels, pixel_array

    _complete(dataset)
    if frame_count(path, dataset) == 1:
        yield _masked(pixel_array(dataset), dataset)
        return
    for frame in iter_pixels(dataset, indices=list(wanted)):
        yield _masked(frame, dataset)


def _complete(dataset: "Dataset") -> None:
    """Supply what old files leave out and pydicom insists on; fetch the pixels if they were left in the file."""
    for keyword, value in (("SamplesPerPixel", 1), ("PhotometricInterpretation", "MONOCHROME2")):
        if keyword not in dataset:
            setattr(dataset, keyword, value)
    if "PixelData" in dataset:
        if "PixelRepresentation" not in dataset:
            dataset.PixelRepresentation = 0
        if "BitsStored" not in dataset:
            dataset.BitsStored = dataset.BitsAllocated
        if "HighBit" not in dataset:
            dataset.HighBit = dataset.BitsStored - 1
    if "TransferSyntaxUID" not in dataset.file_meta:
        dataset.file_meta.TransferSyntaxUID = _guessed_syntax(dataset)


def _guessed_syntax(dataset: "Dataset") -> str:
    from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

    is_implicit, is_little = dataset.original_encoding
    if is_little is False:
        return str(ExplicitVRBigEndian)
    return str(ImplicitVRLittleEndian if is_implicit else ExplicitVRLittleEndian)


def _masked(frame: Array, dataset: "Dataset") -> Array:
    """Only the stored bits: above and below them old files keep overlays (B40)."""
    allocated, stored = int(dataset.get("BitsAllocated", 0)), int(dataset.get("BitsStored", 0))
    high = int(dataset.get("HighBit", stored - 1))
    if frame.dtype.kind not in "iu" or not 0 < stored < allocated or allocated != frame.dtype.itemsize * 8:
        return frame
    left = allocated - 1 - high
    return np.right_shift(np.left_shift(frame, left), allocated - stored)


def cut_tile(picture: Array, frame: Frame) -> Array:
    """The part of a stored frame that is this slice."""
    if frame.tile is None:
        return picture
    row, column = frame.tile
    return picture[row : row + frame.rows, column : column + frame.columns]


def same_pixels(one: Frame, other: Frame) -> bool:
    """Whether two frames hold the same stored values."""
    first, second = (cut_tile(next(read_frames(f.path, [f.index])), f) for f in (one, other))
    return np.array_equal(first, second)
