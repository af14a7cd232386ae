"""`Grid`: where the voxels of an image are in the body, in world millimetres, RAS+."""

import itertools
import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from nfops.arrays import Array
from nfops.errors import InputError

WORLD_DIRECTIONS = {"R": (0, 1), "L": (0, -1), "A": (1, 1), "P": (1, -1), "S": (2, 1), "I": (2, -1)}
"""Anatomical direction -> (world axis, sign). World coordinates are RAS+: +x right, +y anterior, +z superior."""

SHEAR_TOLERANCE = 1e-3
"""Largest |cosine| between two grid axes that still counts as a right angle (0.06 degrees)."""


@dataclass(frozen=True)
class Reorientation:
    """How to reach other axes from a grid's own: new axis `a` is old axis `order[a]`, reversed where `flips[a]`."""

    order: tuple[int, int, int]
    flips: tuple[bool, bool, bool]

    def apply(self, values: Array) -> Array:
        """(..., I, J, K) in the grid's own axes -> a view in the new axes."""
        lead = values.ndim - 3
        moved = values.transpose(*range(lead), *(lead + a for a in self.order))
        return moved[(..., *(slice(None, None, -1) if flip else slice(None) for flip in self.flips))]

    @property
    def inverse(self) -> "Reorientation":
        """The way back."""
        i, j, k = (self.order.index(a) for a in range(3))
        return Reorientation((i, j, k), (self.flips[i], self.flips[j], self.flips[k]))


@dataclass(frozen=True, eq=False)
class Grid:
    """A regular grid of voxels.

    shape: (I, J, K), each at least 1. affine: (4, 4) float64, maps the index (i, j, k) of a voxel to the world
    position of its *centre*, in millimetres, RAS+.
    """

    shape: tuple[int, int, int]
    affine: Array

    def __post_init__(self) -> None:
        affine = np.array(self.affine, dtype=np.float64)
        if len(self.shape) != 3 or min(self.shape) < 1:
            raise InputError("grid", f"expected three sizes of at least 1, got {self.shape}")
        if affine.shape != (4, 4) or not np.isfinite(affine).all():
            raise InputError("grid", "the affine is not a finite 4x4 matrix")
        sizes = np.linalg.norm(affine[:3, :3], axis=0)
        if sizes.min() == 0 or abs(np.linalg.det(affine[:3, :3] / sizes)) < 1e-4:
            raise InputError("grid", "the affine is singular: two axes fall together")
        affine.setflags(write=False)
        object.__setattr__(self, "shape", tuple(int(n) for n in self.shape))
        object.__setattr__(self, "affine", affine)

    @cached_property
    def spacing_mm(self) -> Array:
        """(3,) distance between neighbouring voxel centres along i, j, k."""
        return np.asarray(np.linalg.norm(self.affine[:3, :3], axis=0))

    @property
    def extent_mm(self) -> Array:
        """(3,) field of view, edge to edge, along i, j, k."""
        return self.spacing_mm * self.shape

    @cached_property
    def directions(self) -> Array:
        """(3, 3) unit vectors of i, j, k in the world, as columns."""
        return self.affine[:3, :3] / self.spacing_mm

    @property
    def centre_mm(self) -> Array:
        """(3,) world position of the middle of the field of view."""
        return np.asarray(self.affine[:3, :3] @ ((np.array(self.shape) - 1) / 2) + self.affine[:3, 3])

    @property
    def corners_mm(self) -> Array:
        """(8, 3) world positions of the outer corners of the field of view (voxel edges)."""
        ends = itertools.product(*((-0.5, n - 0.5) for n in self.shape))
        return np.array(list(ends)) @ self.affine[:3, :3].T + self.affine[:3, 3]

    @property
    def signal_axis(self) -> int | None:
        """The axis that a signal runs along: no other has more than one voxel. None for images."""
        return int(np.argmax(self.shape)) if sorted(self.shape)[1] == 1 else None

    def points_mm(self) -> Array:
        """(I, J, K, 3) world positions of the voxel centres."""
        index = np.stack(np.meshgrid(*(np.arange(n) for n in self.shape), indexing="ij"), axis=-1)
        return index @ self.affine[:3, :3].T + self.affine[:3, 3]

    def is_orthogonal(self, axes: tuple[int, ...] = (0, 1, 2)) -> bool:
        """Whether the named axes meet at right angles."""
        columns = self.directions[:, list(axes)]
        return bool(np.abs(columns.T @ columns - np.eye(len(axes))).max() < SHEAR_TOLERANCE)

    def with_shape(self, shape: tuple[int, int, int]) -> "Grid":
        """The same field of view, edge to edge, cut into `shape` voxels."""
        step = np.array(self.shape) / np.array(shape)
        affine = self.affine.copy()
        affine[:3, :3] = self.affine[:3, :3] * step
        affine[:3, 3] = self.affine[:3, 3] + self.affine[:3, :3] @ ((step - 1) / 2)
        return Grid(shape, affine)

    def with_spacing(self, spacing_mm: tuple[float, float, float]) -> "Grid":
        """Exactly this spacing about the same centre; the field of view changes by less than one voxel."""
        i, j, k = (max(1, math.floor(r + 0.5)) for r in self.extent_mm / np.array(spacing_mm))
        return self.centred((i, j, k), spacing_mm)

    def centred(self, shape: tuple[int, int, int], spacing_mm: tuple[float, float, float]) -> "Grid":
        """These voxels about the same centre, along the same axes."""
        affine = self.affine.copy()
        affine[:3, :3] = self.directions * np.array(spacing_mm)
        affine[:3, 3] = self.centre_mm - affine[:3, :3] @ ((np.array(shape) - 1) / 2)
        return Grid(shape, affine)

    def slab(self, start: int, stop: int) -> "Grid":
        """The part with start <= k < stop."""
        affine = self.affine.copy()
        affine[:3, 3] += self.affine[:3, 2] * start
        return Grid((self.shape[0], self.shape[1], stop - start), affine)

    def reorientation(self, axes: tuple[str, ...]) -> Reorientation:
        """How to bring this grid's axes to those that point most nearly to `axes`, for instance ("L", "P", "S").

        Without any, as for signals: the axis with most voxels comes first, and none is reversed.
        """
        if not axes:
            first = int(np.argmax(self.shape))
            second, third = (a for a in range(3) if a != first)
            return Reorientation((first, second, third), (False, False, False))
        towards = np.zeros((3, 3))
        for row, name in enumerate(axes):
            world, sign = WORLD_DIRECTIONS[name]
            towards[row] = sign * self.directions[world]
        order = max(itertools.permutations(range(3), 3), key=lambda p: sum(abs(towards[r, a]) for r, a in enumerate(p)))
        i, j, k = (bool(towards[row, axis] < 0) for row, axis in enumerate(order))
        return Reorientation(order, (i, j, k))

    def reoriented(self, how: Reorientation) -> "Grid":
        """The same voxels with their axes renamed and reversed; no voxel moves."""
        i, j, k = how.order
        shape = self.shape[i], self.shape[j], self.shape[k]
        matrix, origin = np.eye(4), np.zeros(3)
        matrix[:3, :3] = self.affine[:3, list(how.order)]
        for axis, flip in enumerate(how.flips):
            if flip:
                origin += matrix[:3, axis] * (shape[axis] - 1)
                matrix[:3, axis] *= -1
        matrix[:3, 3] = self.affine[:3, 3] + origin
        return Grid(shape, matrix)

    @property
    def orientation(self) -> str:
        """Three letters, the anatomical directions that i, j, k most nearly point to: "RAS", "PSR"..."""
        how = self.reorientation(("R", "A", "S"))
        letters = [""] * 3
        for world, (axis, flip) in enumerate(zip(how.order, how.flips, strict=True)):
            letters[axis] = "RAS"[world] if not flip else "LPI"[world]
        return "".join(letters)

    def overlaps(self, other: "Grid") -> bool:
        """Whether the world-aligned boxes around the two fields of view meet."""
        mine, theirs = self.corners_mm, other.corners_mm
        return bool((mine.min(axis=0) < theirs.max(axis=0)).all() and (theirs.min(axis=0) < mine.max(axis=0)).all())

    def same_as(self, other: "Grid", tolerance_voxels: float = 1e-3) -> bool:
        """Whether both grids have the same shape and every corner at the same place."""
        if self.shape != other.shape:
            return False
        furthest = np.abs(self.corners_mm - other.corners_mm).max()
        return bool(furthest <= tolerance_voxels * self.spacing_mm.min())
