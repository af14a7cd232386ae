"""Walking through folders for DICOM files, whatever they are called."""

import os
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from nfops.errors import InputError
from nfops.io.dicom.headers import MAGIC, PREAMBLE, is_dicom

DEEPEST = 32


def dicom_files(folder: Path, *, is_deep: bool = True) -> tuple[list[Path], int]:
    """The DICOM files of a folder and, `is_deep`, of those below it; and how many files were looked at.

    DICOMDIR and hidden files are left out; links to folders are followed once. What is left of a file that was cut at
    its very beginning counts as DICOM where it lies among such files: reading it says that it is damaged.
    """
    seen = 0
    files: list[Path] = []
    stubs: dict[tuple[Path, str], list[Path]] = defaultdict(list)
    for path in _walk(folder, is_deep):
        seen += 1
        if is_dicom(path):
            files.append(path)
        elif _is_stub(path):
            stubs[_alike(path)].append(path)
    among = {_alike(path) for path in files} if stubs else set()
    return files + [path for alike, group in stubs.items() if alike in among for path in group], seen


def has_dicom(folder: Path) -> bool:
    """Whether a folder has a DICOM file, in it or below it."""
    return any(is_dicom(path) for path in _walk(folder, is_deep=True))


def _alike(path: Path) -> tuple[Path, str]:
    """What the files of a series have in common: folder and suffix; the numbers of a UID are no suffix."""
    suffix = path.suffix.lower()
    return path.parent, "" if suffix[1:].isdigit() else suffix


def _is_stub(path: Path) -> bool:
    """Whether a file is empty or ends within the zeros before DICOM's first word."""
    try:
        return path.stat().st_size < PREAMBLE + len(MAGIC) and not any(path.read_bytes())
    except OSError:
        return False


def _walk(folder: Path, is_deep: bool) -> Iterator[Path]:
    """The files of a folder in the order of their names, those of the folders below after them."""
    seen = {os.path.realpath(folder)}
    waiting = [(folder, 0)]
    while waiting:
        here, depth = waiting.pop(0)
        try:
            entries = sorted(here.iterdir())
        except OSError as error:
            raise InputError(here, f"cannot be read: {error.strerror}") from error
        for entry in entries:
            if entry.name.startswith(".") or entry.name.upper() == "DICOMDIR":
                continue
            if entry.is_dir():
                real = os.path.realpath(entry)
                if is_deep and depth < DEEPEST and real not in seen:
                    seen.add(real)
                    waiting.append((entry, depth + 1))
            elif entry.is_file():
                yield entry
