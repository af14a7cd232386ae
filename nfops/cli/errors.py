"""Every way to end: which exit code, and which line on stderr. The codes are public and in every man page."""

import contextlib
import errno
import json
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import FrameType

import click

from nfops import errors
from nfops.stopping import Stop


class Terminated(BaseException):
    """SIGTERM, SIGHUP or SIGUSR1 as an exception, so that temporary files are removed on the way out."""


EXIT_CODES: dict[int, tuple[str, str]] = {
    0: ("done", "Done."),
    1: ("bug", "A bug in nfops; --debug shows where."),
    2: ("usage", "Options or arguments that make no sense, or a path that does not exist."),
    3: ("input", "An image or a table that cannot be used."),
    4: ("recipe", "A recipe, bundle, model or resume state that cannot be used."),
    5: ("output", "An output that exists already or cannot be written; the disk is full."),
    6: ("device", "A device that is not there, or not enough memory."),
    7: ("result", "A result failed its check and was not published."),
    8: ("batch", "The batch is done; some of its scans failed."),
    9: ("nothing-matched", "No input matched."),
    75: (
        "stopped",
        "Stopped by SIGTERM, SIGUSR1 or SIGHUP in a batch, whose scans that were done are complete, or in a training, "
        "which --resume takes up again.",
    ),
    130: ("interrupted", "Interrupted (Ctrl-C)."),
    141: ("stdout-closed", "The reader of standard output went away."),
    143: ("terminated", "Terminated (SIGTERM, SIGUSR1 or SIGHUP) during a single scan, or where nothing can resume."),
}
"""Exit code -> (kind in the JSON of an error that has no kind of its own, what the man pages say)."""

CODE_OF: dict[type[BaseException], int] = {
    errors.UsageError: 2,
    errors.InputError: 3,
    errors.RecipeError: 4,
    errors.ComponentError: 4,
    errors.BundleError: 4,
    errors.OutputError: 5,
    errors.DeviceError: 6,
    errors.MemoryLimitError: 6,
    MemoryError: 6,
    errors.ResultError: 7,
    errors.NothingMatchedError: 9,
    errors.StoppedError: 75,
    click.ClickException: 2,
    click.Abort: 130,
    KeyboardInterrupt: 130,
    BrokenPipeError: 141,
    Terminated: 143,
}
"""Error -> exit code; a subclass ends like the nearest class above it."""

DISK_ERRORS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS})
"""Operating-system errors that mean "cannot write" wherever they come from, /dev/full as stdout included."""


@dataclass(frozen=True)
class Complaint:
    """What the user is told: an exit code, and where, what and what to do. `lines` replaces the one line."""

    code: int
    kind: str
    where: str
    message: str
    hint: str = ""
    lines: tuple[str, ...] = ()

    def text(self, command: str) -> str:
        """`nfops apply: error: WHERE: what (hint)`, or one such line for each of several mistakes."""
        line = f"{self.where}: {self.message}" if self.where else self.message
        lines = self.lines or (f"{line} ({self.hint})" if self.hint else line,)
        return "\n".join(f"{command}: error: {escape(line)}" for line in lines)

    def document(self) -> dict[str, dict[str, object]]:
        """The JSON document that `--json` prints."""
        error: dict[str, object] = {"code": self.code, "kind": self.kind, "where": self.where}
        error |= {"message": self.message, "hint": self.hint}
        return {"error": error | ({"problems": list(self.lines)} if self.lines else {})}


def escape(text: str) -> str:
    r"""`text` on one safe line: control characters become `\n`, `\x1b`; bytes that are not UTF-8 become `\xff`."""
    return "".join(char if char.isprintable() else _escaped(char) for char in text)


def _escaped(char: str) -> str:
    code = ord(char)
    if 0xDC80 <= code <= 0xDCFF:  # how Python carries a byte of a file name that is not UTF-8
        return f"\\x{code - 0xDC00:02x}"
    return char.encode("unicode_escape").decode("ascii")


def exit_code(error: BaseException) -> int:
    """The exit code of `error`; 1, a bug, for whatever nobody foresaw."""
    if isinstance(error, OSError) and error.errno in DISK_ERRORS:
        return 5
    return next((CODE_OF[cls] for cls in type(error).__mro__ if cls in CODE_OF), 1)


def complaint(error: BaseException) -> Complaint:
    """What to tell the user about `error`."""
    code = exit_code(error)
    kind, meaning = EXIT_CODES[code]
    if isinstance(error, errors.NfopsError):
        problems = error.problems if isinstance(error, errors.RecipeError) else ()
        return Complaint(code, error.kind if code != 1 else kind, error.where, error.what, error.hint, problems)
    if isinstance(error, click.ClickException):
        return _usage_complaint(error)
    if code == 1:
        what = f"{type(error).__name__}: {error}"
        return Complaint(code, kind, "", what, "this is a bug in nfops; --debug shows where")
    if isinstance(error, MemoryError):
        return Complaint(code, "memory", "", f"not enough memory{f': {error}' if str(error) else ''}")
    if isinstance(error, OSError):
        where = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else "standard output"
        return Complaint(code, kind, where, f"cannot write: {error.strerror}")
    return Complaint(code, kind, "", meaning.partition(" ")[0].rstrip(".").lower())


def _usage_complaint(error: click.ClickException) -> Complaint:
    """Errors of click in our line format; click knows the did-you-mean."""
    where, what, hint = "", error.format_message(), ""
    if isinstance(error, click.BadParameter) and not isinstance(error, click.MissingParameter):
        where, what = _parameter_name(error), error.message
    if isinstance(error, click.UsageError) and error.ctx is not None:
        hint = f"'{error.ctx.command_path} --help' tells more"
    return Complaint(2, "usage", where, " ".join(what.split()).removesuffix("."), hint)


def _parameter_name(error: click.BadParameter) -> str:
    """`--shape`, or the name of the argument, without click's quotes."""
    if error.param is not None:
        return str(error.param.get_error_hint(error.ctx)).replace("'", "")
    return str(error.param_hint or "")


def command_name(error: BaseException, argv: Sequence[str], commands: Sequence[str]) -> str:
    """`nfops apply`: the command to put before the message."""
    if isinstance(error, click.UsageError) and error.ctx is not None:
        return error.ctx.command_path
    return next((f"nfops {word}" for word in argv if word in commands), "nfops")


def asks_for(flag: str, argv: Sequence[str]) -> bool:
    """Whether argv has `flag`. Asked of argv itself: an error may come before the options are understood."""
    words = list(argv)
    return flag in (words[: words.index("--")] if "--" in words else words)


def guarded(call: Callable[[], object], argv: Sequence[str], commands: Sequence[str] = ()) -> int:
    """Do `call` and return the exit code; an error becomes one line on stderr, and with `--json` a document.

    A call that returns an int, as a batch does, chooses its own exit code.
    """
    try:
        result = call()
        if sys.stdout is not None:
            sys.stdout.flush()
    except click.exceptions.Exit as done:
        return _flushed(done.exit_code)
    except click.exceptions.NoArgsIsHelpError as unasked:
        unasked.show()
        return unasked.exit_code
    except BaseException as error:  # the one place that catches everything, to give it a code
        return report(_signal_in(error), argv, commands)
    return result if isinstance(result, int) else 0


def _signal_in(error: BaseException) -> BaseException:
    """The signal that came while a class was made, at an import: Python 3.11 wraps it in a RuntimeError."""
    cause = error.__cause__
    return cause if isinstance(error, RuntimeError) and isinstance(cause, Terminated | KeyboardInterrupt) else error


def report(error: BaseException, argv: Sequence[str], commands: Sequence[str] = ()) -> int:
    """Tell the user about `error` and return its exit code."""
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else 1
    found = complaint(error)
    if found.code == 141:
        _forget_stdout()
        return found.code
    if asks_for("--debug", argv):
        traceback.print_exception(error)
    click.echo(found.text(command_name(error, argv, commands)), err=True)
    if asks_for("--json", argv):
        _print_document(found)
    return _flushed(found.code)


def _print_document(found: Complaint) -> None:
    try:
        click.echo(json.dumps(found.document()))
    except OSError:  # stdout itself may be what is broken; stderr has the line already
        _forget_stdout()


def _flushed(code: int) -> int:
    """`code`, unless stdout cannot take what was printed last."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError as error:
        _forget_stdout()
        return code or exit_code(error)
    return code


def _forget_stdout() -> None:
    """Point stdout at nothing: else Python fails once more when it flushes at exit."""
    if sys.stdout is not None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def raise_on_sigterm() -> None:
    """Let SIGTERM, and what Slurm and a closed terminal send, unwind the stack; a second one ends the process."""
    for name in ("SIGTERM", "SIGUSR1", "SIGHUP"):
        number = getattr(signal, name, None)  # Windows knows the first one only
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:  # nohup ignores SIGHUP
            signal.signal(number, _terminate)


@contextlib.contextmanager
def noting_signals(stop: Stop) -> Iterator[None]:
    """While `stop` is heard, signals that would end the run are noted there; a second one does end it.

    So a training stops between two iterations, whose state is whole. Signals arrive in the main thread only.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1", "SIGHUP") if hasattr(signal, name)]
    before = {number: signal.getsignal(number) for number in numbers}

    def note(signum: int, frame: FrameType | None) -> None:
        known = before[signal.Signals(signum)]
        if stop.is_heard and not stop.signal:
            stop.signal = signum
        elif callable(known):
            known(signum, frame)
        else:  # the system's own way to end
            signal.signal(signum, signal.SIG_DFL)
            signal.raise_signal(signum)

    try:
        for number, known in before.items():
            if known is not signal.SIG_IGN:
                signal.signal(number, note)
        yield
    finally:
        for number, known in before.items():
            signal.signal(number, known)


def _terminate(signum: int, _frame: FrameType | None) -> None:
    signal.signal(signum, signal.SIG_DFL)
    raise Terminated
