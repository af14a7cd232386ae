"""Whole or nothing, for a folder: it is filled under a temporary name and appears only when complete."""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias

from nfops.errors import OutputError
from nfops.io.holding import signals_held
from nfops.io.publish import explaining, overtaken, removing, sync, temporary_name

Marker: TypeAlias = str | Callable[[Path], bool]
"""What tells a directory that nfops may replace: a file of this name in it, or a look at the whole of it."""


@contextmanager
def publishing_directory(target: Path, force: bool = False, marker: Marker = "manifest.json") -> Iterator[Path]:
    """Yield a temporary directory beside `target`; at the end of the block it becomes `target`.

    With `force` an existing directory is replaced, but only an empty one or one that `marker` tells to be
    of the same kind: a mistyped name must not delete a folder of something else.
    """
    refuse_directory(target, force, marker)
    temporary = target.parent / temporary_name(target)
    with explaining(target), removing(lambda: shutil.rmtree(temporary, ignore_errors=True)):
        temporary.mkdir()
        yield temporary
        for path in (*temporary.rglob("*"), temporary):
            sync(path)
        with signals_held():
            _swap_directory(temporary, target, force)
        sync(target.parent)


def refuse_directory(target: Path, force: bool, marker: Marker = "manifest.json") -> None:
    """Raise OutputError for a directory that `publishing_directory` could not publish."""
    if not target.parent.is_dir():
        raise OutputError(target.parent, "no such directory", "create it first")
    if not os.path.lexists(target):
        return
    if not force:
        raise OutputError(target, "exists already", "use --force to replace it")
    if target.is_symlink() or not target.is_dir():
        raise OutputError(target, "is not a directory", "remove it first")
    if any(target.iterdir()) and not _is_ours(target, marker):
        without = f" without {marker}" if isinstance(marker, str) else " of something else"
        raise OutputError(target, f"is a directory{without} and is not replaced", "choose another name")


def _is_ours(directory: Path, marker: Marker) -> bool:
    return (directory / marker).is_file() if isinstance(marker, str) else marker(directory)


def _swap_directory(temporary: Path, target: Path, force: bool) -> None:
    if not (force and target.is_dir()):
        try:
            target.mkdir()  # a claim; the rename below replaces the empty directory in one go
        except FileExistsError as error:
            raise overtaken(target) from error
        temporary.rename(target)
        return
    old = target.parent / temporary_name(target)
    target.rename(old)
    try:
        temporary.rename(target)
    except BaseException:
        old.rename(target)
        raise
    shutil.rmtree(old, ignore_errors=True)
