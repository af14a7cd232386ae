"""Archives are told apart by their first bytes and never opened: what they unpack to is the user's to decide (C42)."""

MAGICS = ((0, b"PK\x03\x04", "zip"), (0, b"PK\x05\x06", "zip"), (257, b"ustar", "tar"), (0, b"7z\xbc\xaf", "7z"))
PACKED = ((0, b"\x1f\x8b", "gzip"), (0, b"BZh", "bzip2"), (0, b"\xfd7zXZ", "xz"))


def archive_kind(start: bytes, *, or_packed: bool = False) -> str:
    """Its name ("zip") by the first bytes, of which 262 are enough; "" for no archive. or_packed: "gzip" counts too."""
    kinds = MAGICS + (PACKED if or_packed else ())
    return next((kind for place, magic, kind in kinds if start[place:].startswith(magic)), "")
