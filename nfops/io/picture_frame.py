"""`PictureFrame`: what the rows and columns of a picture mean in the body."""

import math
from dataclasses import dataclass

import numpy as np

from nfops.errors import UsageError
from nfops.grid import WORLD_DIRECTIONS, Grid


@dataclass(frozen=True)
class PictureFrame:
    """How a picture lies in the body.

    axes: the anatomical directions of moving right along a row and down a column, ("L", "P") for an axial slice as
    radiologists look at it. pixel_mm: spacing of neighbouring pixels (along a row, down a column) in mm, None if it
    is not known. pixel_mm_is_override: `pixel_mm` comes from the user and beats what the file says.
    """

    axes: tuple[str, str] = ("L", "P")
    pixel_mm: tuple[float, float] | None = None
    pixel_mm_is_override: bool = False

    def __post_init__(self) -> None:
        worlds = {WORLD_DIRECTIONS[a][0] for a in self.axes if a in WORLD_DIRECTIONS}
        if len(self.axes) != 2 or len(worlds) != 2:
            raise UsageError("picture axes", f"expected two of R/L, A/P, S/I, got {list(self.axes)}")
        if self.pixel_mm is not None and not all(math.isfinite(s) and 1e-3 <= s <= 1e3 for s in self.pixel_mm):
            raise UsageError("picture pixel_mm", f"expected millimetres between 0.001 and 1000, got {self.pixel_mm}")

    @property
    def axes_3d(self) -> tuple[str, str, str]:
        """The two axes, and the one that is left in its positive direction."""
        used = {WORLD_DIRECTIONS[a][0] for a in self.axes}
        return (*self.axes, "RAS"[({0, 1, 2} - used).pop()])

    def grid(self, columns: int, rows: int, pixel_mm: tuple[float, float]) -> Grid:
        """One slice of columns x rows pixels whose centre is the world's origin; 1 mm thick, for want of knowledge."""
        affine = np.eye(4)
        for column, (name, spacing) in enumerate(zip(self.axes_3d, (*pixel_mm, 1.0), strict=True)):
            world, sign = WORLD_DIRECTIONS[name]
            affine[:3, column] = 0
            affine[world, column] = sign * spacing
        affine[:3, 3] = -affine[:3, :3] @ ((np.array([columns, rows, 1]) - 1) / 2)
        return Grid((columns, rows, 1), affine)


def looked_at_from(grid: Grid) -> tuple[str, str, str]:
    """The axes along which a slice is looked at, by convention: left at the right, and front or head at the top."""
    thin = grid.shape.index(1) if 1 in grid.shape else 2
    return {"R": ("P", "I", "R"), "A": ("L", "I", "A"), "S": ("L", "P", "S")}[_axis_name(grid, thin)]


def _axis_name(grid: Grid, axis: int) -> str:
    return "RAS"[grid.reorientation(("R", "A", "S")).order.index(axis)]
