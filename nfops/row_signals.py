"""Signals that are rows of a recipe's table: which of its columns hold them, and what one row says."""

import fnmatch
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nfops.arrays import Array
from nfops.errors import InputError
from nfops.image import Header, Image
from nfops.io.signal import signal_image
from nfops.io.signal_text import narrowed, number_of


@dataclass(frozen=True, eq=False)
class RowSignal:
    """What stands in a table in place of a file. values: (C, I). name: the table and the line, for errors."""

    name: str
    values: Array
    step: float

    def image(self) -> Image:
        """The signal as a reader of files would give it, the first sample at 0."""
        return signal_image(self.values, 0.0, self.step, Header(format="signal", ndim=1, is_oriented=False))


def find_columns(table: Path, names: Sequence[str], patterns: Sequence[str]) -> list[list[str]]:
    """The columns of each channel: those that match a glob, in natural order, or `first..last` in the table's order.

    Raises InputError where a pattern names fewer than two columns, or channels differ in length.
    """
    found = [_matching(table, names, pattern) for pattern in patterns]
    if len({len(columns) for columns in found}) > 1:
        sizes = ", ".join(f"{pattern}: {len(c)}" for pattern, c in zip(patterns, found, strict=True))
        raise InputError(table, f"channels differ in their number of samples: {sizes}")
    return found


def read_signal(
    where: str, cells: Mapping[str, str | None], columns: Sequence[Sequence[str]], step: float
) -> RowSignal:
    """The signal of one row. Raises InputError, `where` and the column named, for what is no finite number."""
    rows = [[number_of(f"{where}: column {name}", cells.get(name) or "") for name in channel] for channel in columns]
    return RowSignal(where, narrowed(np.array(rows)), step)


def _matching(table: Path, names: Sequence[str], pattern: str) -> list[str]:
    first, dots, last = pattern.partition("..")
    if dots:
        missing = [name for name in (first, last) if name not in names]
        if missing:
            raise InputError(table, f"no column {missing[0]!r} (`columns: {pattern}`)", f"it has {_listed(names)}")
        chosen = list(names[names.index(first) : names.index(last) + 1])
    else:
        chosen = sorted((name for name in names if fnmatch.fnmatchcase(name, pattern)), key=_natural)
    if len(chosen) < 2:
        what = f"`columns: {pattern}` names {len(chosen)} columns, a signal needs at least 2"
        raise InputError(table, what, f"it has {_listed(names)}")
    if len(set(chosen)) < len(chosen):
        raise InputError(table, f"`columns: {pattern}` names columns that the table has twice")
    return chosen


def _natural(name: str) -> list[tuple[int, int | str]]:
    """s2 before s10."""
    return [(0, int(part)) if part.isdecimal() else (1, part) for part in re.split(r"(\d+)", name)]


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) if len(names) <= 8 else f"{', '.join(names[:4])} ... {names[-1]}"
