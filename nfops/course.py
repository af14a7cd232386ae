"""How far a training has come, and whether it has collapsed: its state apart from the arrays, as JSON-able numbers."""

import math
from dataclasses import dataclass, field
from typing import TypeAlias

Row: TypeAlias = list[float | None]
"""Of a curve: iteration, running loss, validation loss; None where there is none, as before the first iteration."""

MEMORY = 0.95
"""Of the running mean of the training loss: how much of it is the past."""
SETTLED = 40
"""Iterations after which that mean says something."""
COLLAPSE = 3.0
"""A running mean this many times the lowest one is a collapse; so is one above the mean image's loss."""


@dataclass
class Course:
    """running: the mean of the training loss of late; lowest: its lowest value. baseline: the mean image's loss.

    backoff: what rollbacks have left of the learning rate. stale: looks since the best one.
    """

    baseline: float = math.inf
    iteration: int = 0
    seconds: float = 0.0
    running: float = math.nan
    lowest: float = math.inf
    backoff: float = 1.0
    rollbacks: int = 0
    since_rollback: int = 0
    best: float = math.inf
    best_iteration: int = 0
    stale: int = 0
    is_done: bool = False
    curve: list[Row] = field(default_factory=list)

    def advance(self, loss: float) -> None:
        """One iteration with this loss is done; NaN or infinite: it was not taken."""
        if not math.isfinite(loss):
            self.running = math.inf
        else:
            self.running = loss if self.since_rollback == 0 else MEMORY * self.running + (1 - MEMORY) * loss
        self.iteration += 1
        self.since_rollback += 1

    @property
    def is_settled(self) -> bool:
        """Whether the running mean says something."""
        return self.since_rollback >= SETTLED

    def has_collapsed(self) -> bool:
        """Whether the loss is no number, far above where it began or its lowest, or above the mean image's after
        having been below.
        """
        began = max(self.baseline, (self.curve[0][2] or 0.0) if self.curve else 0.0)
        if not math.isfinite(self.running) or (self.since_rollback >= SETTLED / 4 and self.running > COLLAPSE * began):
            return True
        if not self.is_settled:
            return False
        was_below = self.lowest < 0.9 * self.baseline
        return self.running > COLLAPSE * self.lowest or (was_below and self.running > self.baseline)

    def settle(self) -> None:
        """Remember the lowest running mean."""
        if self.is_settled:
            self.lowest = min(self.lowest, self.running)

    def roll_back(self) -> None:
        """From here with half the learning rate."""
        self.rollbacks += 1
        self.backoff /= 2
        self.since_rollback = 0

    def judge(self, loss: float) -> bool:
        """Add a row to the curve; whether this validation loss is the best so far."""
        self.curve.append([self.iteration, _finite(self.running), _finite(loss)])
        if math.isfinite(loss) and loss < self.best:
            self.best, self.best_iteration, self.stale = loss, self.iteration, 0
            return True
        self.stale += 1
        return False

    @property
    def judged(self) -> float:
        """The last validation loss; NaN where it was no number."""
        last = self.curve[-1][2]
        return math.nan if last is None else last


def _finite(loss: float) -> float | None:
    return loss if math.isfinite(loss) else None
