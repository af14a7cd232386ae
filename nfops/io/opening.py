"""The first look at an input file: is it there, is it a file, and is it what its name says?"""

import difflib
import os
from pathlib import Path

from nfops.errors import InputError, NotFoundError

ANNEX = "annex/objects"


def is_folder(path: Path) -> bool:
    """Whether there is a folder of this name; False where the name itself is impossible."""
    return os.path.isdir(path)  # noqa: PTH112 - Path.is_dir may raise


def first_bytes(path: Path, count: int = 1024) -> bytes:
    """The first bytes of a regular, readable, non-empty file.

    Raises:
        NotFoundError: no such file. InputError: anything else that is not a readable file with content, such as a
        directory, a pipe, an empty file, a pointer left by git-lfs or git-annex, a web page.
    """
    _check_is_file(path)
    try:
        with path.open("rb") as file:
            start = file.read(count)
    except OSError as error:
        raise InputError(path, f"cannot be read: {error.strerror}") from error
    if not start:
        raise InputError(path, "empty file")
    _refuse_stand_in(path, start)
    return start


def _check_is_file(path: Path) -> None:
    try:
        exists = path.exists()
    except OSError as error:
        raise InputError(path, f"cannot be read: {error.strerror}") from error
    if path.is_symlink() and not exists:
        if ANNEX in str(path.readlink()):
            raise InputError(path, "git-annex content is absent", "run git annex get")
        raise NotFoundError(path, "is a link to a file that does not exist")
    if not exists:
        raise NotFoundError(path, "no such file", _nearest_name(path))
    if path.is_dir():
        raise InputError(path, "is a directory, expected an image file")
    if not path.is_file():
        raise InputError(path, "is not a regular file (a pipe, a socket or a device)")


def _nearest_name(path: Path) -> str:
    if not path.parent.is_dir():
        return f"there is no directory {path.parent}"
    try:
        names = [entry.name for entry in path.parent.iterdir()]
    except OSError:
        return ""
    close = difflib.get_close_matches(path.name, names, n=1)
    return f"did you mean {close[0]}?" if close else ""


def _refuse_stand_in(path: Path, start: bytes) -> None:
    """Refuse what downloads and version control leave in place of an image (C7)."""
    text = start.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith(b"version https://git-lfs"):
        raise InputError(path, "is a git-lfs pointer, not the image", "run git lfs pull")
    if text.startswith(b"/" + ANNEX.encode()) or (text.startswith(b"../") and ANNEX.encode() in text):
        raise InputError(path, "is a git-annex pointer, the content is absent", "run git annex get")
    if text.startswith((b"<!doctype html", b"<html")):
        raise InputError(path, "is a web page, not an image", "the download failed")
    if text.startswith(b"<?xml"):
        raise InputError(path, "is an XML document, not an image", "if it was downloaded, the download failed")


def refuse_text(path: Path, start: bytes) -> None:
    """Raise InputError for a file that begins as text: for formats that are none."""
    if all(32 <= byte < 127 or byte in b"\t\r\n" for byte in start):
        raise InputError(path, "is a text file, not an image")
