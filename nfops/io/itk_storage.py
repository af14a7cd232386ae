"""How an NRRD or MetaImage file stores its values, by its own text header: checked before ITK is let near it.

ITK allocates what a header promises, overlooks a bad CRC and opens whatever other file a header names.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from nfops.errors import InputError
from nfops.io.bytestream import GzipStream
from nfops.io.contents import META_IMAGE
from nfops.io.nifti_header import corrupt

LONGEST_HEADER = 1 << 20
GZIP_BITS, GZIP_OR_ZLIB_BITS = 31, 47
PACKED = ("gzip", "gz")
NEVER_NAN = {"spaceorigin": "space origin", "spacedirections": "space directions"}
POSITIONS = ("Offset", "Position", "Origin", "ElementSpacing", "ElementSize")
MATRICES = ("TransformMatrix", "Rotation", "Orientation")
NEEDED = ("NDims", "DimSize", "ElementType")
"""Without these ITK complains on stderr by itself."""


@dataclass(frozen=True)
class TextHeader:
    """kind: "nrrd" or "mha". fields: those of an NRRD in lower case without spaces. start: byte of the first value."""

    kind: str
    fields: Mapping[str, str]
    start: int

    def has(self, *names: str) -> bool:
        """Whether one of these fields is there."""
        return any(name in self.fields for name in names)


def read_text_header(path: Path) -> TextHeader:
    """The fields of a header with its values behind it.

    Raises:
        InputError: neither NRRD nor MetaImage, a header without end, values in another file or not in binary.
    """
    with path.open("rb") as file:
        start = file.read(LONGEST_HEADER)
    if start.startswith(b"NRRD000"):
        header = _nrrd_header(path, start)
        is_elsewhere = header.has("datafile")
    elif META_IMAGE.match(start):
        header = _meta_header(path, start)
        is_elsewhere = header.fields["ElementDataFile"].upper() != "LOCAL"
    else:
        raise InputError(path, "is neither an NRRD nor a MetaImage file")
    if is_elsewhere:
        raise InputError(
            path, "is a detached header, its values are in another file", f"convert the pair to one .{header.kind} file"
        )
    return header


def check_storage(path: Path, header: TextHeader, needed: int) -> tuple[str, ...]:
    """Read packed values to their end, measure plain ones; warnings.

    needed: bytes that the values take. Raises InputError where they are not whole.
    """
    if header.kind == "nrrd":
        is_packed, wbits = _nrrd_encoding(path, header), GZIP_BITS
    else:
        is_packed, wbits = _meta_encoding(path, header), GZIP_OR_ZLIB_BITS
    if is_packed:
        return _check_packed(path, header, needed, wbits)
    there = path.stat().st_size - header.start
    if there < needed:
        raise InputError(path, f"is truncated: {there} of {needed} bytes of values")
    return ()


def _check_packed(path: Path, header: TextHeader, needed: int, wbits: int) -> tuple[str, ...]:
    with GzipStream(path, header.start, wbits) as stream:
        stream.expected = needed
        stream.finish()
        packed = stream.packed_end - header.start
        promised = header.fields.get("CompressedDataSize", packed)
        if stream.position < needed:
            raise InputError(path, f"holds {stream.position} of the {needed} bytes its header promises")
        if str(packed) != str(promised):
            raise corrupt(path, "CompressedDataSize", f"{promised}, the packed values take {packed} bytes")
        return tuple(stream.warnings)


# --- NRRD --------------------------------------------------------------------------------------------------------


def _nrrd_header(path: Path, start: bytes) -> TextHeader:
    fields: dict[str, str] = {}
    position = 0
    while True:
        end = start.find(b"\n", position)
        if end < 0:
            raise InputError(path, "ends inside the header")
        line = start[position:end].decode("utf-8", "replace").strip()
        position = end + 1
        if not line:
            break
        name, colon, value = line.partition(":")
        if colon and not line.startswith("#") and not value.startswith("="):
            fields[name.replace(" ", "").lower()] = value.strip()
    for name, words in NEVER_NAN.items():
        if any(word in fields.get(name, "").lower() for word in ("nan", "inf")):
            raise corrupt(path, words, fields[name])  # ITK would take 0 for it
    return TextHeader("nrrd", fields, position)


def _nrrd_encoding(path: Path, header: TextHeader) -> bool:
    """Whether the values are packed. InputError for an encoding whose end cannot be checked, or skipped bytes."""
    for name in ("lineskip", "byteskip"):
        if header.fields.get(name, "0") != "0":
            raise InputError(path, f"skips bytes before its values ({name}), which nfops does not read")
    encoding = header.fields.get("encoding", "").lower()
    if encoding not in ("raw", *PACKED):
        raise InputError(path, f"has the encoding {encoding or 'unknown'}, expected raw or gzip")
    return encoding in PACKED


# --- MetaImage ---------------------------------------------------------------------------------------------------


def _meta_header(path: Path, start: bytes) -> TextHeader:
    fields: dict[str, str] = {}
    position = 0
    while "ElementDataFile" not in fields:
        end = start.find(b"\n", position)
        if end < 0:
            raise InputError(path, "ends inside the header")
        name, _, value = start[position:end].decode("utf-8", "replace").partition("=")
        fields[name.strip()] = value.strip()
        position = end + 1
    missing = [name for name in NEEDED if name not in fields]
    if missing:
        raise InputError(path, f"has no {missing[0]} in its header")
    _check_numbers(path, fields)
    return TextHeader("mha", fields, position)


def _check_numbers(path: Path, fields: Mapping[str, str]) -> None:
    sizes = fields["DimSize"].split()
    if not all(size.isascii() and size.isdigit() and int(size) > 0 for size in sizes):
        raise corrupt(path, "DimSize", fields["DimSize"])
    if fields["NDims"] != str(len(sizes)):
        raise corrupt(path, "NDims", f"{fields['NDims']}, DimSize has {len(sizes)}")
    for names, count in ((POSITIONS, len(sizes)), (MATRICES, len(sizes) ** 2)):
        for name in names:
            if name in fields and not _are_finite(fields[name].split(), count):
                raise corrupt(path, name, fields[name])
    if fields.get("HeaderSize", "0") != "0":
        raise InputError(path, "skips bytes before its values (HeaderSize), which nfops does not read")


def _are_finite(words: Sequence[str], count: int) -> bool:
    try:
        return len(words) == count and all(math.isfinite(float(word)) for word in words)
    except ValueError:
        return False


def _meta_encoding(path: Path, header: TextHeader) -> bool:
    """Whether the values are packed; InputError where they are text."""
    if not _is_true(header.fields.get("BinaryData", "True")):
        raise InputError(path, "stores its values as text, expected binary ones")
    is_packed = _is_true(header.fields.get("CompressedData", "False"))
    if is_packed and not header.has("CompressedDataSize"):
        raise InputError(path, "is compressed, but has no CompressedDataSize in its header")  # ITK reads nonsense
    return is_packed


def _is_true(value: str) -> bool:
    """As ITK has it: by the first letter."""
    return value[:1] in ("T", "t", "1")
