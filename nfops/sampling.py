"""`Lattice`: where a field is evaluated, as a product of axes, and the cells that each value averages."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from nfops.arrays import Array
from nfops.frame import Frame
from nfops.grid import Grid


@dataclass(frozen=True, eq=False)
class Lattice:
    """The product of d axes; axis a is (n_a, q_a): n_a cells of q_a sub-points each, in field coordinates.

    A cell's value is the mean over its q_0 x q_1 x ... sub-points: a voxel much wider than the spacing that the
    field was trained at is an average, not a point.
    """

    axes: tuple[Array, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """Cells along each axis."""
        return tuple(len(axis) for axis in self.axes)

    @property
    def size(self) -> int:
        """Number of cells."""
        return math.prod(self.shape)

    @property
    def cell_points(self) -> tuple[int, ...]:
        """Sub-points along each axis of a cell."""
        return tuple(axis.shape[1] for axis in self.axes)

    def __getitem__(self, index: tuple[slice, ...]) -> "Lattice":
        return Lattice(tuple(axis[part] for axis, part in zip(self.axes, index, strict=True)))

    def points(self) -> Array:
        """(N, Q, d) coordinates, cells in C order, Q sub-points each."""
        dims = len(self.axes)
        spread = [
            axis.reshape((1,) * a + (len(axis),) + (1,) * (dims - 1) + (axis.shape[1],) + (1,) * (dims - 1 - a))
            for a, axis in enumerate(self.axes)
        ]
        full = np.stack(np.broadcast_arrays(*spread), axis=-1)
        return full.reshape(self.size, math.prod(self.cell_points), dims)

    def points_of(self, cells: Array) -> Array:
        """(n, Q, d), as `points`, of some cells (n,) only: a large lattice has more than fit in memory."""
        dims = len(self.axes)
        index = np.unravel_index(cells, self.shape)
        spread = [
            axis[i].reshape((len(cells),) + (1,) * a + (axis.shape[1],) + (1,) * (dims - 1 - a))
            for a, (axis, i) in enumerate(zip(self.axes, index, strict=True))
        ]
        full = np.stack(np.broadcast_arrays(*spread), axis=-1)
        return full.reshape(len(cells), math.prod(self.cell_points), dims)

    def inside(self, half_extent: Array) -> tuple[slice, ...]:
        """The cells whose centres lie within [-half_extent, half_extent], as one slice per axis."""
        parts = []
        for axis, half in zip(self.axes, half_extent, strict=True):
            (hit,) = np.nonzero(np.abs(axis.mean(axis=1)) <= half * (1 + 1e-6))
            parts.append(slice(int(hit[0]), int(hit[-1]) + 1) if len(hit) else slice(0, 0))
        return tuple(parts)

    def blocks(self, points: int) -> Iterator[tuple[slice, ...]]:
        """Slices along the first axis that hold about `points` cells each."""
        per_row = max(1, self.size // max(1, self.shape[0]))
        rows = max(1, points // per_row)
        rest = tuple(slice(0, n) for n in self.shape[1:])
        for start in range(0, self.shape[0], rows):
            yield (slice(start, min(start + rows, self.shape[0])), *rest)


@dataclass(frozen=True, eq=False)
class Domain:
    """Where a field lives: [-half_extent, half_extent] in coordinates, cut into `nodes` equal cells.

    half_extent: (d,). nodes: d numbers, the training grid.
    """

    half_extent: tuple[float, ...]
    nodes: tuple[int, ...]

    @property
    def dims(self) -> int:
        """Dimension d of the coordinates."""
        return len(self.nodes)

    @property
    def spacing(self) -> tuple[float, ...]:
        """(d,) distance between nodes, in coordinates."""
        return tuple(2 * half / n for half, n in zip(self.half_extent, self.nodes, strict=True))

    def lattice(self) -> Lattice:
        """The nodes themselves."""
        return Lattice(tuple(((np.arange(n) + 0.5) * s - h)[:, None] for h, n, s in self._axes()))

    def _axes(self) -> Iterator[tuple[float, int, float]]:
        return zip(self.half_extent, self.nodes, self.spacing, strict=True)


@dataclass(frozen=True, eq=False)
class FieldSamples:
    """A cohort sampled on the nodes of a domain, what a backbone is fitted to.

    values: (N, C, *nodes) float32; through the head's link for a backbone that fits itself. coverage: (N, *nodes), the
    part of each cell that the scan covers. seed: for whatever the fit draws.
    """

    values: Array
    coverage: Array
    domain: Domain
    seed: int


def lattice_of(grid: Grid, frame: Frame, spacing: Sequence[float]) -> Lattice:
    """The lattice of an aligned grid's voxels in a frame.

    spacing: (d,) the field's training spacing in coordinates; a voxel about q times as wide gets q sub-points.
    """
    width = grid.spacing_mm[: len(spacing)] / frame.half_extent_mm
    return Lattice(
        tuple(_cells(axis, w, s) for axis, w, s in zip(frame.axis_coords(grid), width, spacing, strict=True))
    )


def centred_lattice(shape: Sequence[int], width: Sequence[float], spacing: Sequence[float]) -> Lattice:
    """Cells about the centre of a field: how many and how wide (d,), in coordinates; sub-points as in `lattice_of`."""
    axes = zip(shape, width, spacing, strict=True)
    return Lattice(tuple(_cells((np.arange(n) + 0.5 - n / 2) * w, float(w), s) for n, w, s in axes))


def _cells(centres: Array, width: float, spacing: float) -> Array:
    """(n,) centres of cells -> (n, q) sub-points, q the number of training spacings that a cell covers."""
    q = max(1, round(width / spacing))
    return centres[:, None] + ((np.arange(q) + 0.5) / q - 0.5) * width


def even_draw(size: int, count: int, seed: int) -> Array:
    """(count,) of `size` numbers in order, one at random from each of `count` equal stretches."""
    edges = np.arange(count + 1) * size // count
    return np.asarray(edges[:-1] + np.random.default_rng(seed).random(count) * np.diff(edges), dtype=np.int64)
