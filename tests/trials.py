"""For tests that a run may not survive: it works in a forked child, which costs milliseconds and not a start-up."""

import contextlib
import gc
import os
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from nfops.cli.errors import guarded, raise_on_sigterm
from nfops.cli.main import SUMMARIES, invoke

BROKEN = 99
"""Exit code of a child in which something went wrong that is none of nfops' own ways to end."""


@dataclass(frozen=True)
class Ended:
    """How a child ended: its exit code (negative: the signal that killed it) and its stderr."""

    code: int
    err: str


def in_child(
    work: Callable[[], int], log: Path, disturb: Callable[[int], None] | None = None, limit_s: float = 20
) -> Ended:
    """Do `work` in a fork of this process; `disturb` is given its id meanwhile. A child that hangs is killed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of threads, which those of BLAS are
        child = os.fork()
    if not child:
        _work_and_exit(work, log)
    if disturb is not None:
        disturb(child)
    deadline = time.monotonic() + limit_s
    ended, status = os.waitpid(child, os.WNOHANG)
    while not ended and time.monotonic() < deadline:
        time.sleep(0.0005)
        ended, status = os.waitpid(child, os.WNOHANG)
    if not ended:
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
    return Ended(os.waitstatus_to_exitcode(status), log.read_text(errors="replace") if log.exists() else "")


def _work_and_exit(work: Callable[[], int], log: Path) -> None:
    code = BROKEN
    try:
        for name in ("SIGHUP", "SIGTERM", "SIGUSR1"):
            signal.signal(getattr(signal, name), signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.dup2(os.open(log, os.O_CREAT | os.O_TRUNC | os.O_WRONLY), 2)
        sys.stdout, sys.stderr = (os.fdopen(number, "w", buffering=1) for number in (1, 2))
        gc.freeze()  # what the parent had is no concern of `gc.collect` below
        code = work()
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(BaseException):
            sys.stderr.flush()
        os._exit(code)


def nfops_run(words: Iterable[object], ready: Path | None = None) -> Callable[[], int]:
    """What the console entry point does with these words; `ready` appears when it begins to."""
    argv = [str(word) for word in words]

    def invoked() -> object:
        if ready is not None:
            ready.touch()
        result = invoke(argv)
        for number in (signal.SIGINT, signal.SIGTERM):  # the run is over
            signal.signal(number, signal.SIG_IGN)
        return result

    def run() -> int:
        raise_on_sigterm()
        code = guarded(invoked, argv, list(SUMMARIES))
        gc.collect()
        return code

    return run


def after(seconds: float, number: int, ready: Path) -> Callable[[int], None]:
    """Send a signal to the child so many seconds after `ready` appeared."""

    def disturb(child: int) -> None:
        deadline = time.monotonic() + 20
        while not ready.exists() and time.monotonic() < deadline:
            time.sleep(0.0002)
        ready.unlink()  # it must be there by now
        time.sleep(seconds)
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, number)

    return disturb


def signalled_at(step: int, number: int, files: Iterable[str], run: Callable[[], int]) -> Callable[[], int]:
    """`run` that is sent a signal before the `step`-th line that it executes in `files`; -1: it returns their count."""
    wanted, count = tuple(files), 0

    def at_line(frame, event, argument):
        nonlocal count
        if event == "line":
            count += 1
            if count == step:
                os.kill(os.getpid(), number)
        return at_line

    def at_call(frame, event, argument):
        return at_line if frame.f_code.co_filename.endswith(wanted) else None

    def traced() -> int:
        sys.settrace(at_call)
        try:
            code = run()
        finally:
            sys.settrace(None)
        if step < 0:
            sys.stderr.write(f"{count}\n")
        return code

    return traced
