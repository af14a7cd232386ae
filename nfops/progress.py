"""How long work reports where it is: one plain callback, given a frozen `Step`."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Step:
    """One step done: `done` of `total` units of `stage`; `note` is a figure worth showing (a loss, a file name)."""

    stage: str
    done: int
    total: int
    note: str = ""


OnStep = Callable[[Step], None]


def silent(step: Step) -> None:
    """Report nothing."""
