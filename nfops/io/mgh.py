"""FreeSurfer's .mgh and .mgz: big-endian values behind a header of 284 bytes, RAS+ already; never scaled."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from nfops.arrays import Array
from nfops.errors import InputError, UsageError
from nfops.grid import Grid
from nfops.image import Header, Image
from nfops.io.bytestream import GzipStream, PlainStream
from nfops.io.contents import GZIP, MGH, content_of, refuse_name
from nfops.io.description import DECODE_UP_TO_BYTES, description
from nfops.io.formats import output_stem
from nfops.io.nifti_header import Stored, corrupt
from nfops.io.nifti_position import LARGEST_MM, SMALLEST_MM, check_affine
from nfops.io.nifti_read import check_length, finished, read_values, require_whole
from nfops.io.nifti_write import opened, stored_blocks
from nfops.io.opening import first_bytes
from nfops.io.publish import publishing
from nfops.io.reading import Reading
from nfops.io.saving import SaveOptions, StoredType, refuse_shear, slabs_of, stored_dtype

PACKED = ".mgz"
HEADER_BYTES, FIELD_BYTES, FOOTER_BYTES = 284, 90, 20
DTYPES = {0: "uint8", 1: "int32", 3: "float32", 4: "int16", 10: "uint16"}
WRITTEN = ("uint8", "int16", "int32", "float32")
"""Those that every version of FreeSurfer reads (B18)."""

WIDER = {"int8": "int16", "uint16": "int32", "uint32": "int32", "int64": "int32", "uint64": "int32"}
MILLISECONDS = 16
SECONDS_PER = {8: 1.0, 16: 1e-3, 24: 1e-6}
"""NIfTI's codes of time units."""


def load(path: Path, reading: Reading) -> Image:  # noqa: ARG001
    """Read an MGH file; it leaves nothing open, so `reading` is not used.

    Raises:
        InputError: damaged or unusable. MemoryLimitError: larger than the memory.
    """
    with _opened(path) as stream:
        return _read_image(stream, _read_header(stream))


def describe(path: Path, reading: Reading) -> dict[str, Any]:  # noqa: ARG001
    """What the header says; the intensity range too where unpacking takes no time."""
    with _opened(path) as stream:
        stored = _read_header(stream)
        image = _read_image(stream, stored) if stored.end < DECODE_UP_TO_BYTES else None
    return description("mgh", path, stored, image)


def save(path: Path, image: Image, options: SaveOptions) -> tuple[str, ...]:
    """Write an image whole or not at all."""
    return save_slabs(path, image.grid, image.header, slabs_of(image), options, channels=image.channels)


def save_slabs(
    path: Path, grid: Grid, header: Header, slabs: Iterable[Array], options: SaveOptions, *, channels: int = 1
) -> tuple[str, ...]:
    """Write slabs (I, J, n) along k, channel after channel, as they come; whole or not at all.

    Raises:
        UsageError: a number type that MGH does not have, or a sheared grid.
    """
    refuse_shear(path, grid)
    dtype = _written_dtype(path, options, header)
    fields, footer = _header_bytes(grid, header, dtype, channels)
    is_packed = _says_packed(path)
    with (
        publishing(path, options.force, _check, options.together) as temporary,
        opened(temporary, is_packed=is_packed) as file,
    ):
        file.write(fields)
        for block in stored_blocks(path.name, grid, dtype, slabs, channels):
            file.write(block.tobytes(order="F"))
        file.write(footer)
    return ()


# --- reading -----------------------------------------------------------------------------------------------------


def _says_packed(path: Path) -> bool:
    return path.name.lower().endswith(PACKED)


def _opened(path: Path) -> PlainStream:
    """The bytes of a file, unpacked if it is gzipped; InputError if its suffix says otherwise (B16)."""
    start = first_bytes(path)
    is_packed = start.startswith(GZIP)
    if is_packed != _says_packed(path) and content_of(start) is MGH:
        refuse_name(path, output_stem(path), MGH, is_packed=is_packed)
    if _says_packed(path) and not is_packed:
        raise InputError(path, "is not gzipped, but its name says so")
    return GzipStream(path) if is_packed else PlainStream(path)


def _read_header(stream: PlainStream) -> Stored:
    """Read up to the first value; sizes are checked before anything of that size is read or allocated."""
    block = stream.read(HEADER_BYTES)
    if block[:4] != b"\0\0\0\1":
        raise InputError(stream.path, "is not an MGH file")
    if len(block) < HEADER_BYTES:
        raise InputError(stream.path, f"ends inside the header ({len(block)} of {HEADER_BYTES} bytes)")
    stored = _parse(stream.path, block)
    require_whole(stream, stored)
    return stored


def _read_image(stream: PlainStream, stored: Stored) -> Image:
    """The rest of a stream whose header was read; of what stands after the values only the repetition time counts."""
    values = read_values(stream, stored)
    step = stream.read(FOOTER_BYTES)[:4]
    if stored.header.ndim == 4 and len(step) == 4:
        step_ms = float(np.frombuffer(step, ">f4")[0])
        time_step = (step_ms if np.isfinite(step_ms) else 0.0, MILLISECONDS)
        stored = replace(stored, header=replace(stored.header, time_step=time_step))
    return finished(stream, stored, values)


def _parse(path: Path, block: bytes) -> Stored:
    from nibabel.freesurfer.mghformat import header_dtype

    raw = np.frombuffer(block[:FIELD_BYTES], header_dtype)[0]
    sizes = [int(n) for n in raw["dims"]]
    if min(sizes) < 1:
        raise corrupt(path, "dims", sizes)
    i, j, k, frames = sizes
    code = int(raw["type"])
    if code not in DTYPES:
        raise InputError(path, f"stores values of MGH's type {code}, expected one real number per voxel")
    affine, is_oriented, notes = _position(path, raw, block)
    header = Header(
        format="mgh",
        file_dtype=DTYPES[code],
        ndim=4 if frames > 1 else 3,
        xform_code=int(is_oriented),
        is_oriented=is_oriented,
        warnings=notes,
    )
    dtype = np.dtype(DTYPES[code]).newbyteorder(">")
    return Stored(dtype, HEADER_BYTES, 1.0, 0.0, frames, Grid((i, j, k), affine), header)


def _position(path: Path, raw: Any, block: bytes) -> tuple[Array, bool, tuple[str, ...]]:
    """(affine, whether the file knows it, what is odd). Without goodRASFlag at most the spacing is known (B1)."""
    from nibabel.freesurfer.mghformat import MGHHeader

    if int(raw["goodRASFlag"]) > 0:
        header = MGHHeader(block[:FIELD_BYTES] + bytes(FOOTER_BYTES), check=False)
        with np.errstate(all="ignore"):  # of numbers without sense the next line speaks
            affine = np.array(header.get_affine(), np.float64)
        check_affine(path, affine, 1.0, "header's")
        return affine, True, ()
    delta = np.array(raw["delta"], np.float64)
    is_known = bool(((delta >= SMALLEST_MM) & (delta <= LARGEST_MM)).all())
    known = "only the spacing is known" if is_known else "voxels of 1 mm are assumed"
    note = f"no orientation (goodRASFlag is 0): {known}"
    return np.diag([*(delta if is_known else np.ones(3)), 1.0]), False, (note,)


# --- writing -----------------------------------------------------------------------------------------------------


def _written_dtype(path: Path, options: SaveOptions, header: Header) -> StoredType:
    """The dtype to store; for "same" the next wider one where MGH has no such integers."""
    dtype = stored_dtype(options, header)
    name = WIDER.get(dtype.name, dtype.name) if options.dtype == "same" else dtype.name
    if name not in WRITTEN:
        hint = f"choose --dtype {', '.join(WRITTEN[:-1])} or {WRITTEN[-1]}, or write .nii.gz"
        raise UsageError(path, f"an MGH file cannot store {name}", hint)
    return np.dtype(name).newbyteorder(">")


def _header_bytes(grid: Grid, header: Header, dtype: StoredType, channels: int) -> tuple[bytes, bytes]:
    """(what stands before the values, what stands after them)."""
    from nibabel.freesurfer.mghformat import MGHHeader

    raw = MGHHeader(check=False)
    raw.set_data_dtype(dtype.newbyteorder("="))
    raw["dims"] = (*grid.shape, channels)
    raw["delta"] = grid.spacing_mm
    raw["goodRASFlag"] = int(header.is_oriented)
    if header.is_oriented:
        raw["Mdc"] = grid.directions.T
        raw["Pxyz_c"] = (grid.affine @ [*(np.array(grid.shape) / 2), 1.0])[:3]
    step, unit = header.time_step
    raw["tr"] = step * SECONDS_PER.get(unit, 0.0) * 1000
    fields, footer = raw.binaryblock[:FIELD_BYTES], raw.binaryblock[FIELD_BYTES:]
    return fields.ljust(HEADER_BYTES, b"\0"), footer


def _check(path: Path) -> None:
    """Read a file through to its end, as a reader would, without keeping it; InputError if it is not whole."""
    with _opened(path) as stream:
        check_length(stream, _read_header(stream).end + FOOTER_BYTES)
