"""Whole or nothing: an output is written under a temporary name beside its target and appears only when complete."""

import errno
import os
import re
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from nfops.errors import OutputError
from nfops.io.holding import signals_held

REASONS = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "the file is larger than the file system or the shell allows",
    errno.EACCES: "permission denied",
    errno.EPERM: "permission denied",
    errno.EROFS: "the file system is read-only",
    errno.ENOENT: "no file can be made there",
    errno.EIO: "the disk or the network file system failed while writing",
    errno.ENAMETOOLONG: "the name is too long",
}
NO_HARD_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK, errno.EXDEV)
LONGEST_NAME = 230


def refuse_existing(outputs: Iterable[Path], inputs: Iterable[Path] = (), force: bool = False) -> None:
    """Raise OutputError, before anything is computed, for an output that could not be published later.

    That is an output that is one of the inputs (even with `force`), that exists (without `force`), or whose
    directory is missing or cannot be written to; the last is found out by writing there.
    """
    outputs, inputs = list(outputs), list(inputs)
    real_inputs = {os.path.realpath(path) for path in inputs}
    file_inputs = {identity for path in inputs if (identity := _identity(path))}
    for output in outputs:
        if os.path.realpath(output) in real_inputs or _identity(output) in file_inputs:
            raise OutputError(output, "is also an input; nfops never writes over its input", "choose another name")
        _refuse_target(output, force)
    for directory in dict.fromkeys(output.parent for output in outputs):
        with explaining(directory), _claimed(directory / "probe"):
            pass


class Together:
    """Complete files under temporary names, which wait for the last of them: see `publishing_together`."""

    def __init__(self) -> None:
        self.waiting: dict[Path, Path] = {}
        """Target -> its complete temporary file."""

    def take(self, temporary: Path, target: Path) -> None:
        """Keep a complete file until all are published, or none."""
        self.waiting[target] = target.parent / temporary_name(target)
        temporary.replace(self.waiting[target])

    def remove(self) -> None:
        """Remove what still waits."""
        for temporary in self.waiting.values():
            temporary.unlink(missing_ok=True)


@contextmanager
def publishing_together(force: bool = False) -> Iterator[Together]:
    """What is published in the block with `together` appears at its end: all of it or, whatever goes wrong, none.

    The last that was made gets its name first: an output is never there without the sidecar that tells of it.
    """
    together = Together()
    with removing(together.remove):
        yield together
        _publish_all(together.waiting, force)
        for folder in {target.parent for target in together.waiting}:
            sync(folder)


@contextmanager
def publishing(
    target: Path,
    force: bool = False,
    verify: Callable[[Path], None] | None = None,
    together: Together | None = None,
) -> Iterator[Path]:
    """Yield a temporary path beside `target`, same suffix; at the end of the block it becomes `target`.

    verify: looks at the complete temporary file and raises if it is not what it should be. together: the files that
    it waits for. Whatever goes wrong, the temporary file is removed and `target` stays as it was.

    Raises:
        OutputError: the target exists (without `force`), or the disk refused.
    """
    _refuse_target(target, force)
    with explaining(target), _claimed(target) as temporary:
        yield temporary
        sync(temporary)
        if verify:
            verify(temporary)
        if together is not None:
            together.take(temporary, target)
            return
        _publish_all({target: temporary}, force)
        sync(target.parent)


def _refuse_target(target: Path, force: bool) -> None:
    directory = target.parent
    if not directory.exists():
        raise OutputError(directory, "no such directory", "create it first")
    if not directory.is_dir():
        raise OutputError(directory, "is a file, expected a directory")
    exists = True
    with explaining(target):
        try:
            target.lstat()
        except FileNotFoundError:
            exists = False
    if target.is_dir():
        raise OutputError(target, "is a directory, expected the name of a file")
    if exists and not force:
        raise OutputError(target, "exists already", "use --force to replace it")


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def temporary_name(target: Path) -> str:
    """The suffix stays, formats are chosen by it; the dot hides the file from `*.nii.gz`."""
    name = target.name
    while len(os.fsencode(name)) > LONGEST_NAME:
        name = name[1:]
    return f".nfops-{secrets.token_hex(4)}.{name}"


def untemporary(path: Path) -> Path:
    """The target that a temporary path stands for, as errors name it; any other path as it is."""
    found = re.fullmatch(r"\.nfops-[0-9a-f]{8}\.(.+)", path.name)
    return path.with_name(found[1]) if found else path


@contextmanager
def _claimed(target: Path) -> Iterator[Path]:
    """A temporary file that is ours alone, with the permissions of any new file; gone at the end of the block."""
    temporary = target.parent / temporary_name(target)
    with removing(lambda: temporary.unlink(missing_ok=True)):  # a signal may come right after the making
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        yield temporary


@contextmanager
def removing(remove: Callable[[], object]) -> Iterator[None]:
    """Remove at the end, and once more: a signal may have come just before the first time."""
    try:
        try:
            yield
        finally:
            remove()
    finally:
        remove()


def sync(path: Path) -> None:
    """Bring a file or the names in a directory to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # a file system that cannot sync directories
            raise
    finally:
        os.close(descriptor)


def _publish_all(complete: Mapping[Path, Path], force: bool) -> None:
    """Give complete files (target -> temporary) their names, the last one first; if one fails, none has got it."""
    done: list[Path] = []
    kept: dict[Path, Path] = {}
    with signals_held():
        try:
            for target, temporary in reversed(list(complete.items())):
                with explaining(target):
                    if force and len(complete) > 1 and os.path.lexists(target):
                        kept[target] = _under_second_name(target)
                    _publish(temporary, target, force)
                done.append(target)
        except BaseException:
            for target in {*done, *kept}:
                kept[target].replace(target) if target in kept else target.unlink()
            raise
        finally:
            for old in kept.values():
                old.unlink(missing_ok=True)


def _under_second_name(target: Path) -> Path:
    """Where an old file is kept until the new one stands."""
    old = target.parent / temporary_name(target)
    try:
        os.link(target, old)
    except OSError as error:
        if error.errno not in NO_HARD_LINKS:
            raise
        target.rename(old)
    return old


def _publish(temporary: Path, target: Path, force: bool) -> None:
    """Give the complete file its name; without `force` exactly one of several writers wins."""
    if force:
        temporary.replace(target)
        return
    try:
        os.link(temporary, target)
    except FileExistsError as error:
        raise overtaken(target) from error
    except OSError as error:
        if error.errno not in NO_HARD_LINKS:
            raise
        _rename_onto_claim(temporary, target)


def overtaken(target: Path) -> OutputError:
    """The error for a place that was free when the work began."""
    return OutputError(target, "was written by another process meanwhile", "use --force to replace it")


def _rename_onto_claim(temporary: Path, target: Path) -> None:
    try:
        os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    except FileExistsError as error:
        raise overtaken(target) from error
    try:
        temporary.replace(target)
    except BaseException:
        target.unlink(missing_ok=True)
        raise


@contextmanager
def explaining(target: Path) -> Iterator[None]:
    """What the operating system refused, in one line."""
    try:
        yield
    except OSError as error:
        if error.errno not in REASONS:
            raise
        raise OutputError(target, f"cannot be written: {REASONS[error.errno]}") from error
