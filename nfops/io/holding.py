"""Signals that would end the run wait while a few renames are done: they are one step, or none."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

ENDING = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1")


@contextmanager
def signals_held() -> Iterator[None]:
    """Signals that come during the block do what they would have done, but at its end. For blocks of milliseconds.

    Only the main thread hears signals; in another there is nothing to hold.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []

    def note(number: int, _frame: FrameType | None) -> None:
        came.append(number)

    numbers = [getattr(signal, name) for name in ENDING if hasattr(signal, name)]
    before = {number: signal.getsignal(number) for number in numbers}
    heard = {number: known for number, known in before.items() if known not in (None, signal.SIG_IGN)}
    try:
        for number in heard:
            signal.signal(number, note)
        yield
    finally:
        for number, known in heard.items():
            signal.signal(number, known)
        for number in came:
            signal.raise_signal(number)
