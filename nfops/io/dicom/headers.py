"""The header of one DICOM file, read leniently: what scanners write is not always what the standard says."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from nfops.errors import InputError, NfopsError, NotFoundError
from nfops.io.dicom.elements import wanted_tags

if TYPE_CHECKING:
    from pydicom import Dataset

PREAMBLE, MAGIC = 128, b"DICM"
DEFERRED_BYTES = 4096
"""Longer elements, the pixels above all, stay in the file until they are asked for."""

FIRST_ELEMENTS = (b"\x02\x00", b"\x08\x00", b"\x00\x02", b"\x00\x08")
"""How a file without preamble begins: group 2 or 8, in either byte order."""


def looks_like_dicom(start: bytes) -> bool:
    """Whether the first bytes of a file are those of DICOM, with the preamble or, as old archives have it, without."""
    if start[PREAMBLE : PREAMBLE + 4] == MAGIC:
        return True
    # without a preamble: a group, a small element number, then a VR in letters or a short length
    if len(start) < 12 or start[:2] not in FIRST_ELEMENTS:
        return False
    order: Literal["little", "big"] = "little" if start[1] == 0 else "big"
    element = int.from_bytes(start[2:4], order)
    length = int.from_bytes(start[4:8], order)
    return element < 0x100 and ((start[4:6].isalpha() and start[4:6].isupper()) or length <= 256)


def is_dicom(path: Path) -> bool:
    """Whether a file that can be read holds DICOM; False for what cannot be read."""
    try:
        if not path.is_file():  # opening a pipe would wait for its other end
            return False
        with path.open("rb") as file:
            return looks_like_dicom(file.read(PREAMBLE + 4))
    except OSError:
        return False


def read_header(path: Path) -> "Dataset":
    """The elements of a file that a scan is read by; long ones are read when they are asked for.

    Raises:
        InputError: not DICOM, or damaged so that its header cannot be read. NotFoundError: no such file.
    """
    import pydicom

    with refusing(path, "damaged DICOM header"), _refusing_lengths(path):
        tags = list(wanted_tags())
        dataset = pydicom.dcmread(path, force=True, defer_size=DEFERRED_BYTES, specific_tags=tags)
        syntax = dataset.file_meta.get("TransferSyntaxUID")
        if syntax is not None and syntax.is_deflated:  # pydicom cannot go back to an element of a deflated stream
            dataset = pydicom.dcmread(path, force=True, specific_tags=tags)
    if not len(dataset) and not len(dataset.file_meta):
        raise InputError(path, "holds no DICOM elements", "copy it again")
    return dataset


@contextmanager
def _refusing_lengths(path: Path) -> Iterator[None]:
    """Of an element that claims more bytes than the memory holds, pydicom would read as many."""
    try:
        yield
    except MemoryError as error:
        size = path.stat().st_size
        raise InputError(path, f"an element claims more bytes than the {size} of the file", "copy it again") from error


@contextmanager
def refusing(path: Path, what: str) -> Iterator[None]:
    """Turn whatever pydicom raises about a damaged file into one line; its warnings are not ours to show."""
    import pydicom

    try:
        with warnings.catch_warnings(), pydicom.config.disable_value_validation():
            warnings.simplefilter("ignore")
            yield
    except (NfopsError, MemoryError):
        raise
    except FileNotFoundError as error:
        raise NotFoundError(path, "no such file") from error
    except OSError as error:
        raise InputError(path, f"cannot be read: {error.strerror or error}") from error
    except Exception as error:  # pydicom raises nearly anything at damaged bytes
        raise InputError(path, f"{what} ({_in_short(error)})", "copy it again") from error


def _in_short(error: Exception) -> str:
    return " ".join(str(error).split())[:160] or type(error).__name__
