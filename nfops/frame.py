"""`Frame`: how world millimetres map to the coordinates that a field sees."""

from dataclasses import dataclass

import numpy as np

from nfops.arrays import Array
from nfops.grid import Grid


@dataclass(frozen=True, eq=False)
class Frame:
    """coords = (points_mm - origin_mm) @ directions / half_extent_mm.

    origin_mm: (3,) the centre of the scan. directions: (3, d) the scan's own axes in the world, once they point along
    the recipe's anatomical axes: unit vectors, and in 2-D, where a stack of slices leans (gantry tilt), leaning with
    it, so that every slice has the same coordinates about its own centre. half_extent_mm: (d,) what a coordinate of 1
    is worth: one radius for all axes ("physical": a millimetre is a millimetre in every scan) or half the scan's field
    of view per axis ("unit": where spacings cannot be trusted, or to reproduce a paper).
    """

    origin_mm: Array
    directions: Array
    half_extent_mm: Array

    @classmethod
    def of_scan(cls, grid: Grid, dims: int, radius_mm: float | None) -> "Frame":
        """The frame of a scan whose grid is on the recipe's anatomical axes; `radius_mm` None means "unit"."""
        half = grid.extent_mm[:dims] / 2 if radius_mm is None else np.full(dims, radius_mm)
        return cls(grid.centre_mm, _across(grid, dims), half)

    def coords(self, points_mm: Array) -> Array:
        """(..., 3) world mm -> (..., d) coordinates."""
        return (points_mm - self.origin_mm) @ self.directions / self.half_extent_mm

    def is_aligned(self, grid: Grid) -> bool:
        """Whether the grid's first d axes run along the frame's directions (the same order, the same sense)."""
        dims = self.directions.shape[1]
        return bool(np.abs(_across(grid, dims) - self.directions).max() < 1e-5)

    def axis_coords(self, grid: Grid) -> tuple[Array, ...]:
        """Coordinates of the voxel centres along each of the d axes of an aligned grid: d arrays (n_a,)."""
        dims = self.directions.shape[1]
        first = self.coords(grid.affine[:3, 3])
        step = grid.spacing_mm[:dims] / self.half_extent_mm
        return tuple(first[a] + step[a] * np.arange(grid.shape[a]) for a in range(dims))


def _across(grid: Grid, dims: int) -> Array:
    """(3, d): each of the first d axes, freed of what the other axes share with it (nothing, at right angles)."""
    return np.asarray(np.linalg.inv(grid.directions).T[:, :dims])
