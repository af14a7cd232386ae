"""What a file is by its first bytes: content decides, and a name that says otherwise is refused (B16)."""

import re
import zlib
from dataclasses import dataclass
from pathlib import Path

from nfops.errors import InputError

GZIP = b"\x1f\x8b"
UNPACK = 1024
META_IMAGE = re.compile(rb"\s*(ObjectType|NDims|Comment)[ \t]*=")
DETACHED = {".nhdr": ".nrrd", ".mhd": ".mha"}
"""Suffix of a header whose values are in another file -> suffix of the format that has both in one."""


@dataclass(frozen=True)
class Content:
    """A format as the first bytes show it: its name for people, its module, its suffixes, gzipped or not."""

    name: str
    module: str
    suffix: str
    packed_suffix: str = ""


NIFTI = Content("NIfTI", "nifti", ".nii", ".nii.gz")
MGH = Content("MGH", "mgh", ".mgh", ".mgz")
NRRD = Content("NRRD", "itk", ".nrrd")
META = Content("MetaImage", "itk", ".mha")
PNG = Content("PNG", "picture", ".png")
TIFF = Content("TIFF", "picture", ".tif")


def content_of(start: bytes) -> Content | None:
    """The format of a file that starts with these bytes, gzipped or not; None if they are of none for certain."""
    start = unpacked(start)
    magic = {b"NRRD000": NRRD, b"\x89PNG\r\n\x1a\n": PNG, b"II*\0": TIFF, b"MM\0*": TIFF}
    for bytes_, content in magic.items():
        if start.startswith(bytes_):
            return content
    if start[344:347] == b"n+1" or start[4:7] == b"n+2":
        return NIFTI
    if start[:4] == b"\0\0\0\1" and int.from_bytes(start[20:24], "big") <= 10 and len(start) >= 24:
        return MGH
    return META if META_IMAGE.match(start) else None


def unpacked(start: bytes) -> bytes:
    """The first bytes of what is packed, if it is gzip; else the same bytes."""
    if not start.startswith(GZIP):
        return start
    try:
        return zlib.decompressobj(wbits=31).decompress(start, UNPACK)
    except zlib.error:
        return b""


def refuse_detached(path: Path) -> None:
    """Raise InputError for a header that leaves its values in another file, which may be anywhere."""
    whole = DETACHED.get(path.suffix.lower())
    if whole:
        raise InputError(
            path, "is a detached header, its values are in another file", f"convert the pair to one {whole} file"
        )


def refuse_name(path: Path, stem: str, content: Content, *, is_packed: bool) -> None:
    """Raise InputError, with the right name, for a file of `content` whose name says something else."""
    suffix = content.packed_suffix if is_packed else content.suffix
    hint = f"rename it to {stem.removesuffix(content.suffix)}{suffix}" if suffix else "unpack it first"
    what = f"is a {'gzipped ' if is_packed else ''}{content.name} file, but its name does not say so"
    raise InputError(path, what, hint)
