"""SHA-256 of what is read and written, in blocks."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

BLOCK = 1 << 20


def sha256_of(path: Path) -> str:
    """Hexadecimal SHA-256 of a file; of a folder that of all files in and below it."""
    if path.is_dir():
        return sha256_of_all(file for file in path.rglob("*") if file.is_file())
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()


def sha256_of_all(files: Iterable[Path]) -> str:
    """One SHA-256 of the contents of several files, whatever their names and order; of a single one its own."""
    digests = sorted(sha256_of(file) for file in files)
    return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()
