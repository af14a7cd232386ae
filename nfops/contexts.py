"""What training shows a field of a cohort: scans as tensors on the nodes of a domain, whole or at drawn points."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from torch import Tensor

from nfops.sampling import FieldSamples


@dataclass(frozen=True, eq=False)
class Context:
    """B scans at N points each, their own or the same. coords: (B, N, d). values: (B, N, C), not linked.

    weights: (B, N), of which each row sums to 1, so that a loss is a mean over a scan's known points.
    """

    coords: Tensor
    values: Tensor
    weights: Tensor

    def parts(self, points: int) -> Iterator["Context"]:
        """The same scans, at most so many points of each at a time; the parts' losses add up to the whole's."""
        for start in range(0, self.values.shape[1], points):
            part = slice(start, start + points)
            yield Context(self.coords[:, part], self.values[:, part], self.weights[:, part])


@dataclass(frozen=True, eq=False)
class Scans:
    """N scans on the M nodes of one domain. coords: (M, d). values: (N, M, C). known: (N, M), 1 or 0; None: all."""

    coords: Tensor
    values: Tensor
    known: Tensor | None

    @classmethod
    def of(cls, samples: FieldSamples) -> Self:
        """Samples as tensors in main memory: a batch goes to the device that computes."""
        values = torch.from_numpy(samples.values).flatten(2).transpose(1, 2).contiguous()
        known = torch.from_numpy(samples.coverage >= 0.5).flatten(1)
        coords = torch.from_numpy(samples.domain.lattice().points()[:, 0]).float()
        return cls(coords, values, None if bool(known.all()) else known.float())

    def __len__(self) -> int:
        return len(self.values)

    @property
    def nodes(self) -> int:
        """M."""
        return self.values.shape[1]

    def some(self, rows: Tensor | slice) -> Self:
        """Some of the scans."""
        return type(self)(self.coords, self.values[rows], None if self.known is None else self.known[rows])

    def to(self, device: torch.device) -> Self:
        """On a device."""
        known = None if self.known is None else self.known.to(device)
        return type(self)(self.coords.to(device), self.values.to(device), known)

    def at(self, points: Tensor | None) -> Context:
        """The scans at (N, n) points, each at its own, at (n,), the same for all, or at all of them."""
        count = self.shown(points)
        weights = self.values.new_full((1, 1), 1 / count).expand(len(self), count)
        if points is not None and points.ndim == 2:
            index = points[..., None].expand(-1, -1, self.values.shape[2])
            known = None if self.known is None else self.known.gather(1, points)
            values = self.values.gather(1, index)
            return Context(self.coords[points], values, weights if known is None else _shares(known))
        part = slice(None) if points is None else points
        coords = self.coords[part].expand(len(self), -1, -1)
        return Context(coords, self.values[:, part], weights if self.known is None else _shares(self.known[:, part]))

    def shown(self, points: Tensor | None) -> int:
        """Points of each scan that `at` shows."""
        return self.nodes if points is None else points.shape[-1]


@dataclass(frozen=True, eq=False)
class Batch:
    """What one iteration looks at: scans on a device, the points of each inner step, and those of the outer loss.

    Points are (B, n), each scan its own, (n,), the same for all, or None, all nodes.
    """

    scans: Scans
    inner: Sequence[Tensor | None]
    outer: Tensor | None

    def parts(self, size: int) -> Iterator["Batch"]:
        """At most `size` scans at a time."""
        for start in range(0, len(self.scans), max(1, size)):
            items = slice(start, start + max(1, size))
            inner = [_of_items(points, items) for points in self.inner]
            yield Batch(self.scans.some(items), inner, _of_items(self.outer, items))


def seeded(*entropy: int) -> torch.Generator:
    """Randomness as a function of numbers: what a resumed training draws is what it would have drawn."""
    state = np.random.SeedSequence(entropy).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state[0] >> np.uint64(1)))


def draw_points(scans: int, nodes: int, count: int, generator: torch.Generator) -> Tensor | None:
    """(scans, count) of `nodes` nodes, independent draws; None for all of them.

    Each draw takes one node at random out of each of `count` equal stretches: every node is as likely as any other,
    and the mean over a draw varies less than over free ones.
    """
    if count >= nodes:
        return None
    places = torch.rand(scans, count, generator=generator, dtype=torch.float64, device=generator.device)
    stretch = torch.arange(count, dtype=torch.float64, device=generator.device)
    return ((places + stretch) * (nodes / count)).long().clamp_(max=nodes - 1)


def _shares(known: Tensor) -> Tensor:
    return known / known.sum(dim=1, keepdim=True).clamp_min(1e-12)


def _of_items(points: Tensor | None, items: slice) -> Tensor | None:
    return points if points is None or points.ndim == 1 else points[items]
