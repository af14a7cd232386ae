"""The pixels of DICOM frames as float32 values: decoded, masked to the bits that count, rescaled."""

import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nfops.arrays import Array
from nfops.errors import InputError, NfopsError
from nfops.io.dicom.elements import has, tag_of, text, whole
from nfops.io.dicom.frames import Frame
from nfops.io.dicom.headers import read_header, refusing
from nfops.io.dicom.multiframe import frame_count

if TYPE_CHECKING:
    from pydicom import Dataset
    from pydicom.uid import UID

DECODERS = "pip install 'nfops[dicom]'"
AGAIN = "the file is damaged: copy it again"
LEAST_BOMB, LARGEST_RATIO = 64 << 20, 1000
"""Even a picture of zeros packs no better than this: the header lies."""

LARGE = 1 << 30
OLD_JPEG = tuple(f"1.2.840.10008.1.2.4.{n}" for n in (50, 51, 57, 70))
JPEG_DECODER = "the file is damaged, or needs pip install pylibjpeg-libjpeg"
NATIVE = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1")
"""Implicit and explicit little endian."""


def read_frames(path: Path, wanted: Sequence[int], dataset: "Dataset | None" = None) -> Iterator[Array]:
    """The stored values of these frames of a file, (rows, columns) or (rows, columns, 3), one after the other.

    Raises:
        InputError: no decoder for the transfer syntax, damaged or too few pixels.
    """
    found = read_header(path) if dataset is None else dataset
    refuse_undecodable(path, found)
    with refusing(path, "damaged pixels") if not _is_compressed(found) else _refusing_stream(path, found):
        yield from _decoded(path, found, wanted)


def stored_type(dataset: "Dataset") -> str:
    """The numpy name of what a file stores: "int16", "uint8", "float32"."""
    if has(dataset, "FloatPixelData"):
        return "float32"
    if has(dataset, "DoubleFloatPixelData"):
        return "float64"
    bits = whole(dataset, "BitsAllocated", 16)
    sign = "" if whole(dataset, "PixelRepresentation") == 1 else "u"
    return f"{sign}int{max(8, bits)}"


def stored_range(dataset: "Dataset") -> tuple[float, float]:
    """(lowest, highest) value that the stored bits can hold."""
    bits = whole(dataset, "BitsStored") or whole(dataset, "BitsAllocated", 16)
    if whole(dataset, "PixelRepresentation") == 1:
        return -(2.0 ** (bits - 1)), 2.0 ** (bits - 1) - 1
    return 0.0, 2.0**bits - 1


def promised_bytes(path: Path, dataset: "Dataset") -> int:
    """How many bytes the decoded pixels of a file take, by its header."""
    samples = whole(dataset, "Rows") * whole(dataset, "Columns") * whole(dataset, "SamplesPerPixel", 1)
    return samples * whole(dataset, "BitsAllocated", 16) // 8 * frame_count(path, dataset)


def refuse_undecodable(path: Path, dataset: "Dataset") -> None:
    """Raise InputError, before anything is decoded, for a transfer syntax that this installation cannot decode."""
    from pydicom.pixels import get_decoder

    syntax = _syntax(dataset)
    if syntax is None or not _is_compressed(dataset):
        return
    try:
        is_available = get_decoder(syntax).is_available
    except NotImplementedError:
        raise InputError(path, f"has the transfer syntax {syntax.name} ({syntax}), which nfops does not read") from None
    if not is_available:
        raise InputError(path, f"no decoder is installed for {syntax.name} ({syntax})", DECODERS)
    promised = promised_bytes(path, dataset)
    if promised > LEAST_BOMB + LARGEST_RATIO * path.stat().st_size:
        raise InputError(path, f"promises {promised} bytes of pixels in a file of {path.stat().st_size}", AGAIN)


@contextmanager
def _refusing_stream(path: Path, dataset: "Dataset") -> Iterator[None]:
    """As `refusing`, for pixels that a codec unpacks; what its C library prints is kept from the terminal."""
    syntax = _syntax(dataset)
    try:
        with _silenced_stderr(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except NfopsError:
        raise
    except MemoryError as error:  # a fragment that claims more than there is, unless the picture itself is large
        if promised_bytes(path, dataset) > LARGE:
            raise
        raise InputError(path, "damaged stream of compressed pixels", AGAIN) from error
    except Exception as error:  # each codec has errors of its own, and none says more than this
        what = f"no decoder here can unpack its pixels, {getattr(syntax, 'name', 'unknown')} ({syntax})"
        raise InputError(path, what, JPEG_DECODER if syntax in OLD_JPEG else AGAIN) from error


@contextmanager
def _silenced_stderr() -> Iterator[None]:
    """Codecs print about damaged streams by themselves, past Python: our one line says it."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def _syntax(dataset: "Dataset") -> "UID | None":
    found: UID | None = dataset.file_meta.get("TransferSyntaxUID")
    return found


def _is_compressed(dataset: "Dataset") -> bool:
    syntax = _syntax(dataset)
    return syntax is not None and not syntax.is_private and bool(syntax.is_encapsulated)


@dataclass(frozen=True)
class _Bits:
    """How a pixel is stored: bits allocated and stored, and the number of the highest stored one."""

    allocated: int
    stored: int
    high: int

    @classmethod
    def of(cls, dataset: "Dataset") -> "_Bits":
        """What the header says; the pixels of a palette are colours by now, with bits of their own."""
        if text(dataset, "PhotometricInterpretation") == "PALETTE COLOR":
            return cls(0, 0, 0)
        stored = whole(dataset, "BitsStored")
        return cls(whole(dataset, "BitsAllocated"), stored, whole(dataset, "HighBit", stored - 1))


def _decoded(path: Path, dataset: "Dataset", wanted: Sequence[int]) -> Iterator[Array]:
    from pydicom.pixels import iter_pixels, pixel_array

    bits = _Bits.of(dataset)
    plain = _plain_layout(path, dataset)
    if plain is not None:
        yield from (_masked(plain.read(path, index), bits) for index in wanted)
        return
    _complete(dataset)
    is_single = frame_count(path, dataset) == 1
    # pydicom takes the lowest bits for the stored ones, wherever they are
    how: dict[str, Any] = {"correct_unused_bits": False, "decoding_plugin": _decoder_plugin(dataset)}
    many = iter_pixels(dataset, indices=list(wanted), **how)
    for frame in [pixel_array(dataset, **how)] if is_single else many:
        yield _masked(_coloured(frame, dataset), bits)


def _decoder_plugin(dataset: "Dataset") -> str:
    """The decoder to use, "" for pydicom's own choice: gdcm, its first one, ends the process at damaged JPEG 2000."""
    from pydicom.pixels import get_decoder

    syntax = _syntax(dataset)
    if syntax is None or not _is_compressed(dataset):
        return ""
    available = get_decoder(syntax).available_plugins
    return next((plugin for plugin in ("pyjpegls", "pylibjpeg", "pillow") if plugin in available), "")


@dataclass(frozen=True)
class _PlainLayout:
    """Where grey pixels lie uncompressed in a file: from byte `start` on, frame after frame."""

    start: int
    rows: int
    columns: int
    dtype: "np.dtype[Any]"

    def read(self, path: Path, index: int) -> Array:
        """(rows, columns) stored values of a frame."""
        count = self.rows * self.columns
        offset = self.start + index * count * self.dtype.itemsize
        values = np.fromfile(path, self.dtype, count, offset=offset)
        if values.size < count:
            raise InputError(path, f"ends inside its pixels ({values.size} of {count} in frame {index + 1})", AGAIN)
        return values.reshape(self.rows, self.columns)


def _plain_layout(path: Path, dataset: "Dataset") -> _PlainLayout | None:
    """The layout of what needs no decoder, read several times faster than through one; None for anything else."""
    syntax = _syntax(dataset)
    is_little = syntax in NATIVE if syntax is not None else False
    allocated = whole(dataset, "BitsAllocated")
    if not is_little or whole(dataset, "SamplesPerPixel", 1) != 1 or allocated not in (8, 16, 32):
        return None
    if text(dataset, "PhotometricInterpretation") == "PALETTE COLOR" or not has(dataset, "PixelData"):
        return None
    element = dataset.get_item(tag_of("PixelData"), keep_deferred=True)
    if element.value is not None or not isinstance(start := getattr(element, "value_tell", None), int):
        return None
    rows, columns = whole(dataset, "Rows"), whole(dataset, "Columns")
    promised = promised_bytes(path, dataset)
    if element.length < promised:
        raise InputError(path, f"its pixels take {element.length} bytes, its header promises {promised}", AGAIN)
    sign = "i" if whole(dataset, "PixelRepresentation") == 1 else "u"
    return _PlainLayout(start, rows, columns, np.dtype(f"<{sign}{allocated // 8}"))


def _coloured(frame: Array, dataset: "Dataset") -> Array:
    """Pixels that are numbers of a palette as the colours that they stand for."""
    if dataset.PhotometricInterpretation != "PALETTE COLOR":
        return frame
    from pydicom.pixels import apply_color_lut

    return np.asarray(apply_color_lut(frame, dataset))


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


def _masked(frame: Array, bits: "_Bits") -> Array:
    """Only the stored bits: above and below them old files keep overlays (B40)."""
    if (
        frame.dtype.kind not in "iu"
        or not 0 < bits.stored < bits.allocated
        or bits.allocated != 8 * frame.dtype.itemsize
    ):
        return frame
    if bits.high == bits.stored - 1:
        is_signed = frame.dtype.kind == "i"
        lowest, highest = (-(1 << bits.high), (1 << bits.high) - 1) if is_signed else (0, (1 << bits.stored) - 1)
        if frame.max() <= highest and frame.min() >= lowest:
            return frame
    return np.right_shift(np.left_shift(frame, bits.allocated - 1 - bits.high), bits.allocated - bits.stored)


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
