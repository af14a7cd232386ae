"""NIfTI through standard input and output: real bytes, spooled to a file without a name that nobody has to delete."""

import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from nfops.arrays import Array
from nfops.errors import InputError, MemoryLimitError, OutputError, ResultError
from nfops.grid import Grid
from nfops.image import Header, Image
from nfops.io.bytestream import GzipStream, PlainStream
from nfops.io.contents import GZIP, NIFTI, content_of
from nfops.io.description import DECODE_UP_TO_BYTES, description
from nfops.io.digest import sha256_of
from nfops.io.nifti_read import check_nifti, read_header, read_image
from nfops.io.nifti_write import shear_warning, write_nifti
from nfops.io.publish import REASONS
from nfops.io.reading import Reading
from nfops.io.saving import SaveOptions, stored_dtype

DASH = "-"
BLOCK = 1 << 20
SNIFFED = 1024


@dataclass(frozen=True)
class PipedScan:
    """The bytes of standard input; `file` has them and is gone when this process ends. str() is "-", as the user says.

    is_packed: they are gzipped.
    """

    file: Path
    is_packed: bool

    def __str__(self) -> str:
        return DASH

    def stream(self) -> PlainStream:
        """The bytes, unpacked."""
        return GzipStream(self.file) if self.is_packed else PlainStream(self.file)


def spool(stream: BinaryIO) -> PipedScan:
    """Take in all that comes through a pipe, if it begins like NIfTI.

    Raises:
        InputError: nothing, or no NIfTI. OutputError: the temporary folder is missing or full.
    """
    start = stream.read(SNIFFED)
    if not start:
        raise InputError(DASH, "nothing came through standard input")
    content = content_of(start)
    if content is not NIFTI:
        what = f"this is {content.name}" if content else "this is none"
        raise InputError(DASH, f"only NIfTI comes through standard input, {what}", "name the file instead")
    with _explaining(temporary_folder()) as folder:
        descriptor = _nameless(folder)
        with os.fdopen(os.dup(descriptor), "wb") as file:
            file.write(start)
            shutil.copyfileobj(stream, file, BLOCK)
    return PipedScan(_path_of(descriptor), start.startswith(GZIP))


def load(scan: PipedScan, reading: Reading) -> Image:
    """Read what came through the pipe. Raises as for a file, "-" in place of its name."""
    with _told_as_dash(scan.file), scan.stream() as stream:
        return read_image(stream, read_header(stream, reading.xform))


def describe(scan: PipedScan, reading: Reading) -> dict[str, Any]:
    """What the header says; the intensity range too where unpacking takes no time."""
    with _told_as_dash(scan.file), scan.stream() as stream:
        stored = read_header(stream, reading.xform)
        image = read_image(stream, stored) if stored.end < DECODE_UP_TO_BYTES else None
    return description("nifti", Path(DASH), stored, image)


def send(
    target: BinaryIO, grid: Grid, header: Header, slabs: Iterable[Array], options: SaveOptions, *, channels: int = 1
) -> tuple[str, tuple[str, ...]]:
    """Write an image as plain NIfTI-1 (NIfTI-2 where a size needs it) to a pipe; (its SHA-256, warnings).

    Whole or not at all: not one byte is sent before the whole was computed, written and read back.

    Raises:
        ResultError: NaN, infinite or out-of-range values. OutputError: the temporary folder is missing or full.
        BrokenPipeError: nobody reads.
    """
    with _explaining(temporary_folder()) as folder:
        descriptor = _nameless(folder)
    try:
        path = _path_of(descriptor)
        with _told_as_dash(path), _explaining(folder):
            write_nifti(path, grid, header, stored_dtype(options, header), slabs, channels=channels)
            check_nifti(path)
        with path.open("rb") as file:
            shutil.copyfileobj(file, target, BLOCK)
        target.flush()
        return sha256_of(path), shear_warning(grid, header)
    finally:
        os.close(descriptor)


def temporary_folder() -> Path:
    """$TMPDIR, or the system's folder. Raises OutputError where $TMPDIR is not there (C64), rather than use another."""
    named = os.environ.get("TMPDIR")
    if named and not Path(named).is_dir():
        raise OutputError(named, "no such directory, but TMPDIR names it", "create it, or set TMPDIR to another")
    return Path(named or tempfile.gettempdir())


def _nameless(folder: Path) -> int:
    """A descriptor of a new file that has no name, or whose name is deleted at once: it cannot be left behind."""
    with tempfile.TemporaryFile(dir=folder) as file:
        return os.dup(file.fileno())


def _path_of(descriptor: int) -> Path:
    return Path(f"/proc/self/fd/{descriptor}")


@contextmanager
def _explaining(folder: Path) -> Iterator[Path]:
    """What the operating system refused in the temporary folder, in one line."""
    try:
        yield folder
    except OSError as error:
        if error.errno not in REASONS:
            raise
        raise OutputError(folder, f"cannot be written: {REASONS[error.errno]}", "TMPDIR names another") from error


@contextmanager
def _told_as_dash(path: Path) -> Iterator[None]:
    """Errors about the file without a name are about "-"."""
    try:
        yield
    except (InputError, MemoryLimitError, ResultError) as error:
        if error.where not in (str(path), path.name):
            raise
        raise type(error)(DASH, error.what, error.hint) from error
