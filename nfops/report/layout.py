"""What a table of a report is, whoever prints it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Table:
    """heads, rows: text. main: numbers of the rows that matter most."""

    title: str
    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    caption: str = ""
    main: tuple[int, ...] = ()
