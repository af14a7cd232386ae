"""What a NIfTI file may hold between header and values. Comments are kept; the rest may name the patient (B14)."""

import struct
from collections.abc import Sequence

COMMENT = 6
NAMES = {2: "DICOM", 4: "AFNI", 8: "XCEDE", 18: "workflow", 30: "patient data", 32: "CIFTI", 44: "MATLAB"}
MOST_COMMENT_BYTES = 1 << 20


def read_extensions(block: bytes, byte_order: str) -> tuple[tuple[bytes, ...], tuple[str, ...]]:
    """(comments, warnings) from the bytes between header and values; byte_order: "<" or ">"."""
    comments: list[bytes] = []
    dropped: list[str] = []
    place = 4
    while block[:1] != b"\0" and place + 8 <= len(block):
        size, code = struct.unpack_from(f"{byte_order}2i", block, place)
        if size < 16 or size % 16 or place + size > len(block):
            dropped.append("a damaged one")
            break
        if code == COMMENT and sum(map(len, comments)) + size <= MOST_COMMENT_BYTES:
            comments.append(block[place + 8 : place + size].rstrip(b"\0"))
        else:
            dropped.append(NAMES.get(code, f"code {code}"))
        place += size
    what = f"header extensions were dropped, they may hold what identifies the patient: {', '.join(dropped)}"
    return tuple(comments), (what,) if dropped else ()


def extension_bytes(comments: Sequence[bytes]) -> bytes:
    """What stands between header and values: four bytes that say whether there is more, then the comments."""
    parts = [bytes([1 if comments else 0, 0, 0, 0])]
    for comment in comments:
        size = -(-(len(comment) + 8) // 16) * 16
        parts.append(struct.pack("<2i", size, COMMENT) + comment.ljust(size - 8, b"\0"))
    return b"".join(parts)
