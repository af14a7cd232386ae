"""What a run shows: progress and remarks on stderr, its result on stdout."""

import contextlib
import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import click

from nfops.cli.errors import escape
from nfops.cli.options import Session
from nfops.progress import OnStep, Step, silent

LONGEST_SILENCE_S = 60.0
"""A log that stays silent for longer looks like a hung job."""


def say(session: Session, text: str, verbosity: int = 0) -> None:
    """One remark on stderr, for runs of at least this verbosity (1 is `-v`); `-q` silences it."""
    if session.verbosity >= verbosity:
        click.echo(escape(text), err=True)


def show_result(session: Session, document: Any, text_lines: Iterable[str]) -> None:
    """The result on stdout: with `--json` the document, otherwise the lines."""
    if sys.stdout is None:
        raise BrokenPipeError
    if session.json:
        click.echo(json.dumps(_plain(document), allow_nan=False))
    else:
        click.echo("".join(f"{escape(line)}\n" for line in text_lines), nl=False)


def _plain(value: Any) -> Any:
    """`value` as JSON knows it: NumPy's numbers and arrays become Python's, paths text, NaN and infinities null."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, bool | int | str) else str(value)


class PlainProgress:
    """A line at every tenth of a stage, and at the first step after a minute of silence."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._stage = ""
        self._tenth = -1
        self._spoke_at = clock()

    def __call__(self, step: Step) -> None:
        """Print the step if it is worth a line."""
        tenth = 10 * step.done // step.total if step.total > 0 else 0
        if step.stage != self._stage or tenth < self._tenth:
            self._stage, self._tenth = step.stage, -1
        now = self._clock()
        if tenth > self._tenth or now - self._spoke_at >= LONGEST_SILENCE_S:
            self._tenth, self._spoke_at = tenth, now
            click.echo(escape(_line(step)), err=True)


def _line(step: Step) -> str:
    share = f"{100 * step.done // step.total:3d} % ({step.done}/{step.total})" if step.total > 0 else f"{step.done}"
    return f"{step.stage}: {share} {step.note}".rstrip()


@contextlib.contextmanager
def shown_progress(session: Session) -> Iterator[OnStep]:
    """The callback that shows this session's progress; a bar, if any, ends with the block."""
    if session.progress == "none" or session.verbosity < 0:
        yield silent
    elif session.progress == "plain" or not _is_lively_terminal():
        yield PlainProgress()
    else:
        with _bars() as on_step:
            yield on_step


def _is_lively_terminal() -> bool:
    """Whether stderr is a terminal that can redraw a line."""
    return sys.stderr is not None and sys.stderr.isatty() and os.environ.get("TERM") not in {"dumb", "unknown"}


@contextlib.contextmanager
def _bars() -> Iterator[OnStep]:
    """One bar a stage. rich is imported here: it is dear, and most runs print to a file."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    text = TextColumn("{task.description}", markup=False)
    note = TextColumn("{task.fields[note]}", markup=False)
    columns = (text, BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), note)
    with Progress(*columns, console=Console(stderr=True)) as bars:
        tasks: dict[str, Any] = {}

        def on_step(step: Step) -> None:
            if step.stage not in tasks:
                tasks[step.stage] = bars.add_task(escape(step.stage), total=step.total or None, note="")
            bars.update(tasks[step.stage], completed=step.done, total=step.total or None, note=escape(step.note))

        yield on_step
