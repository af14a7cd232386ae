"""Numbers in a text file, a sample on each line and a channel in each column, and back; every digit is kept."""

import contextlib
import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nfops.arrays import Array
from nfops.errors import InputError
from nfops.memory import require_memory

AXIS_NAME = re.compile(r"(time|t|x)( ?[\[(][^\])]*[\])]|[ _](s|sec|ms|us|min|h|mm|cm|m))?", re.IGNORECASE)
"""What a first column is called that says where the samples lie: time, t, x, also with a unit, t_ms or "time [s]"."""

BYTES_PER_BYTE = 40
"""About how much memory a byte of text takes while it is read."""


@dataclass(frozen=True, eq=False)
class SignalText:
    """values: (C, I), with the axis column if there is one. names: one a column, or none. is_whole: no point in any."""

    names: tuple[str, ...]
    values: Array
    is_whole: bool
    first_line: int


def names_axis(names: Sequence[str], columns: int) -> bool:
    """Whether the first of the names is that of an axis: beside it there must be a channel."""
    return len(names) == columns > 1 and AXIS_NAME.fullmatch(names[0]) is not None


def read_text(path: Path) -> SignalText:
    """Read a signal file. The separator is the first of `;`, tab and comma that the first line holds, else blanks.

    Raises:
        InputError: no text, no numbers, lines of different lengths, cells that are no finite number; with the line.
    """
    require_memory(path, BYTES_PER_BYTE * path.stat().st_size, "a signal as text")
    try:
        lines = path.read_bytes().decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise InputError(path, "is not a text file (UTF-8), its name says that it is") from error
    rows = _rows(path, lines)
    width = len(rows[0])
    for number, cells in enumerate(rows, 1):
        if len(cells) != width or not width:
            what = f"{len(cells)} columns, the first line has {width}" if any(cells) else "a blank line"
            raise InputError(f"{path}:{number}", what, "a signal file has a sample on each line, a channel a column")
    names = _names(path, rows[0])
    first = 1 if names else 0
    if not rows[first:]:
        raise InputError(path, "holds names of columns, but no line with numbers")
    values = _values(path, rows[first:], 1 + first)
    is_whole = bool((values % 1 == 0).all()) and not any("." in line or "e" in line.lower() for line in lines[first:])
    return SignalText(names, np.ascontiguousarray(values.T), is_whole, 1 + first)


def number_of(where: object, cell: str) -> float:
    """A cell as a finite number. Raises InputError, `where` names the place."""
    cell = cell.strip()
    if not _is_number(cell):
        raise InputError(where, f"expected a number, got {cell[:40]!r}" if cell else "an empty cell", _hint(cell))
    value = float(cell)
    if not np.isfinite(value):
        raise InputError(where, f"expected a finite number, got {cell}", "a missing sample must be filled or cut off")
    return value


def format_text(names: Sequence[str], columns: Sequence[Array], separator: str) -> str:
    """Columns (I,) under their names (a line of its own, unless there are none); the shortest text of each number."""
    cells = [column if column.dtype.kind == "U" else column.astype(str) for column in columns]
    lines = [separator.join(row) for row in zip(*cells, strict=True)]
    header = [separator.join(_quoted(name, separator) for name in names)] if names else []
    return "\n".join([*header, *lines, ""])


def narrowed(values: Array) -> Array:
    """float64 as float32 where that reads as the same decimal number: 0.1 stays 0.1, twelve digits stay twelve."""
    with np.errstate(over="ignore"):
        narrow = values.astype(np.float32)
    return narrow if np.array_equal(narrow.astype(str).astype(np.float64), values) else values


def _rows(path: Path, lines: Sequence[str]) -> list[list[str]]:
    """The cells of all lines up to the last that is not blank."""
    last = max((number for number, line in enumerate(lines, 1) if line.strip()), default=0)
    if not last:
        raise InputError(path, "holds no line with a number")
    first = lines[0].removeprefix("#").strip(" ")  # numpy.savetxt puts # before names
    separator = next((mark for mark in ";\t," if mark in first), None)
    rows = (line.split() if separator is None else line.split(separator) for line in lines[1:last])
    return [_cells(first, separator), *rows]


def _cells(line: str, separator: str | None) -> list[str]:
    """Those of the first line, which may be names in quotes."""
    with contextlib.suppress(csv.Error):  # then they are no names
        cells = line.split() if separator is None else next(csv.reader([line], delimiter=separator), [])
        return [cell.strip() for cell in cells]
    return line.split(separator)


def _values(path: Path, rows: Sequence[list[str]], first_line: int) -> Array:
    """(I, columns) numbers. Raises InputError that names the line of the first cell that is none."""
    try:
        values = np.array([list(map(float, cells)) for cells in rows])
        is_sound = bool(np.isfinite(values).all()) and not any("_" in cell for cells in rows for cell in cells)
    except ValueError:
        is_sound = False
    if not is_sound:
        values = np.array([[number_of(f"{path}:{n}", cell) for cell in row] for n, row in enumerate(rows, first_line)])
    return values


def _names(path: Path, cells: list[str]) -> tuple[str, ...]:
    """The first line's cells if they are names, nothing if they are numbers."""
    are_numbers = [_is_number(cell) for cell in cells]
    if all(are_numbers):
        return ()
    if any(are_numbers) or "" in cells:
        raise InputError(f"{path}:1", f"neither names nor numbers: {', '.join(cells)[:60]}", _hint(cells[0]))
    if len(set(cells)) < len(cells):
        raise InputError(f"{path}:1", f"two columns share a name: {', '.join(cells)[:60]}")
    return tuple(cells)


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return "_" not in cell  # Python reads 1_000, nobody else does


def _hint(cell: str) -> str:
    return "write a decimal point, not a comma" if re.fullmatch(r"[+-]?\d+,\d+", cell) else ""


def _quoted(name: str, separator: str) -> str:
    return '"' + name.replace('"', '""') + '"' if separator in name or '"' in name else name
