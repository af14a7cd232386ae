"""Train a field operator's network by gradient descent: AdamW, half a cosine, averaged weights, the best kept."""

import copy
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from nfops.annotations import about
from nfops.field_pairs import FieldPairs
from nfops.progress import OnStep, Step, silent

WARM_UP = 50
"""Iterations in which the learning rate rises, a twentieth of all at most."""
LONGEST_GRADIENT = 1.0
"""Longer ones are shortened."""


@dataclass(frozen=True)
class DescentSettings:
    """How long, in which steps; the keys of a recipe."""

    iterations: int = field(default=20000, metadata=about("Batches to learn from.", low=1))
    minutes: float | None = field(
        default=None, metadata=about("Learn for so long at most; the learning rate's schedule knows.", above=0)
    )
    batch: int = field(default=4, metadata=about("Scans (or slices) of a batch.", low=1))
    learning_rate: float = field(default=3e-3, metadata=about("Largest step size of AdamW (cosine schedule).", above=0))
    weight_decay: float = field(default=1e-2, metadata=about("Weight decay of AdamW.", low=0))
    memory: float = field(
        default=0.995, metadata=about("Of the running average of the weights, which is what is kept.", low=0, high=1)
    )
    looks: int = field(default=20, metadata=about("Looks at the validation scans; the best weights win.", low=1))


def descend(
    network: nn.Module, pairs: FieldPairs, settings: DescentSettings, on_step: OnStep = silent
) -> dict[str, float]:
    """Train a network, source (B, C, *grid) -> raw (B, C', *grid); its weights become the best averaged ones.

    Without validation scans they are the last ones. Returns figures: the iterations done, the best score and where.
    """
    optimizer = torch.optim.AdamW(network.parameters(), settings.learning_rate, weight_decay=settings.weight_decay)
    average = copy.deepcopy(network).eval()
    keeper = _Keeper(average, pairs)
    clock = _Clock(settings)
    rows = _rows(len(pairs), settings.batch)
    iteration, look = 0, 1
    while clock.done(iteration) < 1:
        for group in optimizer.param_groups:
            group["lr"] = settings.learning_rate * _rate(iteration, settings.iterations, clock.done(iteration))
        loss = _step(network.train(), pairs, optimizer, *next(rows))
        iteration += 1
        _blend(average, network, min(settings.memory, iteration / (10 + iteration)))
        done = clock.done(iteration)
        note = f"{iteration} batches, loss {loss:.3g}{keeper.note}"
        on_step(Step("operator", min(round(1000 * done), 1000), 1000, note))
        if done * settings.looks >= look:
            keeper.look(iteration)
            look = math.floor(done * settings.looks) + 1
    network.load_state_dict(keeper.best)
    network.eval()
    return {"iterations": float(iteration), "score": keeper.score, "best_iteration": float(keeper.iteration)}


@dataclass(frozen=True)
class _Clock:
    """How much of the training is done, from 0 to 1, by iterations or by minutes, whichever is further."""

    settings: DescentSettings
    started: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "started", time.monotonic())

    def done(self, iteration: int) -> float:
        by_count = iteration / self.settings.iterations
        if self.settings.minutes is None:
            return min(1.0, by_count)
        return min(1.0, max(by_count, (time.monotonic() - self.started) / (60 * self.settings.minutes)))


class _Keeper:
    """Remembers the averaged weights that were best on the validation scans."""

    def __init__(self, average: nn.Module, pairs: FieldPairs) -> None:
        self._average, self._pairs = average, pairs
        self.score, self.iteration, self.note = math.nan, 0, ""
        self.best = average.state_dict()

    def look(self, iteration: int) -> None:
        """Keep the weights of now if no others were better."""
        with torch.no_grad():
            score = self._pairs.score(self._average)
        if math.isnan(score) or math.isnan(self.score) or score > self.score:
            self.score, self.iteration = score, iteration
            self.best = {name: tensor.clone() for name, tensor in self._average.state_dict().items()}
        if not math.isnan(score):
            self.note = f", validation {score:.4g}, best {self.score:.4g}"


def _step(
    network: nn.Module, pairs: FieldPairs, optimizer: torch.optim.Optimizer, rows: list[int], epoch: int
) -> float:
    batch = pairs.draw(rows, epoch)
    loss: Tensor = pairs.loss(network(batch.source), batch)
    optimizer.zero_grad()
    torch.autograd.backward(loss)
    nn.utils.clip_grad_norm_(network.parameters(), LONGEST_GRADIENT)
    optimizer.step()
    return float(loss.detach())


def _rows(count: int, batch: int) -> Iterator[tuple[list[int], int]]:
    """Batches of shuffled rows without end, and the epoch they are of, from 1."""
    epoch, left = 0, torch.empty(0, dtype=torch.int64)
    while True:
        if len(left) < min(batch, count):
            epoch, left = epoch + 1, torch.randperm(count)
        yield left[:batch].tolist(), epoch
        left = left[batch:]


def _rate(iteration: int, iterations: int, done: float) -> float:
    """Part of the learning rate: a linear rise, then half a cosine down to 0."""
    return min(1.0, (iteration + 1) / max(1, min(WARM_UP, iterations // 20))) * 0.5 * (1 + math.cos(math.pi * done))


@torch.no_grad()
def _blend(average: nn.Module, network: nn.Module, memory: float) -> None:
    """Average <- memory x average + (1 - memory) x network, all of its state."""
    new = network.state_dict()
    for name, tensor in average.state_dict().items():
        tensor.lerp_(new[name].to(tensor), 1 - memory)
