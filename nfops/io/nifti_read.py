"""Reading NIfTI by its bytes: sizes checked before memory is taken, streams read to their end."""

from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np

from nfops.arrays import Array
from nfops.errors import InputError
from nfops.image import Image
from nfops.io.archives import archive_kind
from nfops.io.bytestream import GzipStream, PlainStream
from nfops.io.nifti_extensions import read_extensions
from nfops.io.nifti_header import Stored, parse_header
from nfops.io.opening import first_bytes
from nfops.io.saving import StoredType
from nfops.memory import require_memory

VALUES_AT_ONCE = 1 << 20
NIFTI1_BYTES, NIFTI2_BYTES = 348, 540
BYTE_ORDERS: tuple[Literal["little", "big"], ...] = ("little", "big")
NEEDS_DOUBLE = ("float64", "int32", "uint32", "int64", "uint64")
LARGEST_EXACT_INTEGER = 2**53


def read_nifti(path: Path, xform: str = "sform") -> Image:
    """A NIfTI-1 or NIfTI-2 file as an Image: (T, I, J, K), native float32, float64 only where that changes a value.

    xform: which affine counts where both are set, "sform" or "qform".

    Raises:
        NotFoundError: no such file. InputError: damaged or unusable. MemoryLimitError: larger than the memory.
    """
    with open_stream(path) as stream:
        return read_image(stream, read_header(stream, xform))


def read_image(stream: PlainStream, stored: Stored) -> Image:
    """The rest of a stream whose header was read, to its end, as an Image."""
    return finished(stream, stored, read_values(stream, stored))


def finished(stream: PlainStream, stored: Stored, values: Array) -> Image:
    """The Image of values that were read, once the stream's end was found to be sound."""
    stream.finish()
    warnings = (*stored.header.warnings, *stream.warnings, *rounding(values, stored.dtype))
    return Image(values, stored.grid, replace(stored.header, warnings=warnings))


def rounding(values: Array, dtype: StoredType) -> tuple[str, ...]:
    """A warning if integers of `dtype` were too large for float64."""
    is_long = dtype.itemsize == 8 and dtype.kind in "iu"
    is_rounded = is_long and np.abs(values).max() > LARGEST_EXACT_INTEGER
    return ("integers beyond 2^53 were rounded to float64",) if is_rounded else ()


def check_nifti(path: Path) -> None:
    """Read a file through to its end, as a reader would, without keeping it; InputError if it is not whole."""
    with open_stream(path) as stream:
        check_length(stream, read_header(stream).end)


def check_length(stream: PlainStream, expected: int) -> None:
    """Read a stream to its end; InputError if that is not where it should be."""
    stream.finish()
    length = stream.position if isinstance(stream, GzipStream) else stream.path.stat().st_size
    if length != expected:
        raise InputError(stream.path, f"holds {length} of {expected} bytes")


def open_stream(path: Path) -> PlainStream:
    """The bytes of a file, unpacked if it is a gzip file; InputError if its suffix says otherwise (B16)."""
    start = first_bytes(path)
    if kind := archive_kind(start):
        raise InputError(path, f"is a {kind} archive, not an image", "unpack it first")
    is_gzip, says_gzip = start.startswith(b"\x1f\x8b"), path.name.lower().endswith(".gz")
    if is_gzip and not says_gzip:
        raise InputError(path, "is gzipped, but its name does not say so", f"rename it to {path.name}.gz")
    if says_gzip and not is_gzip:
        sizes = {int.from_bytes(start[:4], order) for order in BYTE_ORDERS}
        hint = f"rename it to {path.name[:-3]}" if sizes & {NIFTI1_BYTES, NIFTI2_BYTES} else ""
        raise InputError(path, "is not gzipped, but its name says so", hint)
    return GzipStream(path) if is_gzip else PlainStream(path)


def read_header(stream: PlainStream, xform: str = "sform") -> Stored:
    """Read up to the first value; sizes are checked before anything of that size is read or allocated.

    Raises:
        InputError: damaged, or shorter than its header promises. MemoryLimitError: its values do not fit in memory.
    """
    block = stream.read(NIFTI1_BYTES)
    if len(block) == NIFTI1_BYTES and NIFTI2_BYTES in (int.from_bytes(block[:4], order) for order in BYTE_ORDERS):
        block += stream.read(NIFTI2_BYTES - NIFTI1_BYTES)
    stored = parse_header(stream.path, block, xform)
    require_whole(stream, stored)
    byte_order = "<" if int.from_bytes(block[:4], "little") in (NIFTI1_BYTES, NIFTI2_BYTES) else ">"
    comments, warnings = read_extensions(stream.read(stored.offset - stream.position), byte_order)
    header = replace(stored.header, comments=comments, warnings=(*stored.header.warnings, *warnings))
    return replace(stored, header=header)


def require_whole(stream: PlainStream, stored: Stored) -> None:
    """Raise InputError for a plain file shorter than its header promises, MemoryLimitError for one too large."""
    stream.expected = stored.end
    require_memory(stream.path, stored.end, f"the image that its header promises, {size_text(stored)},")
    length = stream.path.stat().st_size
    if not isinstance(stream, GzipStream) and length < stored.end:
        raise InputError(stream.path, f"is truncated: {length} of {stored.end} bytes")


def size_text(stored: Stored) -> str:
    """The sizes of an image for people: "256x256x20x1", channels last."""
    return "x".join(map(str, (*stored.grid.shape, stored.channels)))


def read_values(stream: PlainStream, stored: Stored) -> Array:
    """(T, I, J, K) values; they lie in memory as in the file, i fastest."""
    may_need_double = not stored.header.is_scaled and stored.dtype.newbyteorder("=").name in NEEDS_DOUBLE
    kind = np.dtype(np.float64 if may_need_double else np.float32)
    require_memory(stream.path, stored.count * kind.itemsize, f"the image, {size_text(stored)},")
    values = np.empty(stored.count, kind)
    for start in range(0, stored.count, VALUES_AT_ONCE):
        size = min(VALUES_AT_ONCE, stored.count - start) * stored.dtype.itemsize
        block = stream.read(size)
        if len(block) < size:
            raise InputError(stream.path, f"holds {stream.position} of the {stored.end} bytes its header promises")
        part = np.frombuffer(block, stored.dtype)
        with np.errstate(over="ignore", invalid="ignore"):
            values[start : start + part.size] = (
                part * stored.slope + stored.intercept if stored.header.is_scaled else part
            )
    if may_need_double:
        values = narrowed(values)
    return values.reshape((*stored.grid.shape, stored.channels), order="F").transpose(3, 0, 1, 2)


def narrowed(values: Array) -> Array:
    """float64 as float32 where not one value changes."""
    with np.errstate(over="ignore", invalid="ignore"):
        narrow = values.astype(np.float32)
    return narrow if np.array_equal(narrow, values, equal_nan=True) else values
