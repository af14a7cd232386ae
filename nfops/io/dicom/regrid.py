"""Slices that lie on no rectangular grid, put on one: tilted gantries, uneven distances, gaps."""

import numpy as np

from nfops.arrays import Array
from nfops.grid import Grid
from nfops.io.dicom.stacks import LPS_TO_RAS, Stack


def rectangular(values: Array, stack: Stack) -> tuple[Array, Grid]:
    """(C, I, J, K) values of a stack on the rectangular grid that holds all of its slices.

    The grid has the slices' own directions and spacing in plane, the direction of their normal, and about their
    median distance, from the first slice to the last. Values are interpolated linearly, in plane and between
    neighbouring slices; outside every slice is the smallest value of the image.
    """
    first = stack.frames[0][0]
    spacing = np.array((first.spacing_mm or (1.0, 1.0))[::-1])
    moved = stack.positions_mm - stack.positions_mm[0]
    shifts = np.stack([moved @ np.array(first.row_direction), moved @ np.array(first.column_direction)], 1) / spacing
    low, high = np.floor(shifts.min(axis=0) + 1e-6), np.ceil(shifts.max(axis=0) - 1e-6)
    heights = stack.heights_mm - stack.heights_mm[0]
    count = round(heights[-1] / float(np.median(np.diff(heights)))) + 1
    step = heights[-1] / (count - 1)  # from the first slice to the last: nothing is cut off, nothing invented
    size = (stack.shape[0] + int(high[0] - low[0]), stack.shape[1] + int(high[1] - low[1]), count)
    out = np.full((len(values), *size), values.min(), values.dtype)
    for k in range(count):
        below, part = _between(heights, min(k * step, heights[-1]))
        plane = _shifted(values[..., below], shifts[below] - low, out[..., k])
        if part > 0:
            above = _shifted(values[..., below + 1], shifts[below + 1] - low, out[..., k])
            plane = (1 - part) * plane + part * above
        out[..., k] = plane
    affine = np.eye(4)
    affine[:3, 0] = np.array(first.row_direction) * spacing[0]
    affine[:3, 1] = np.array(first.column_direction) * spacing[1]
    affine[:3, 2] = first.normal * step
    affine[:3, 3] = stack.positions_mm[0] + affine[:3, :2] @ low
    return out, Grid(size, LPS_TO_RAS @ affine)


def _between(heights: Array, height: float) -> tuple[int, float]:
    """(the slice at or below a height, how far towards the next it is, from 0 to 1)."""
    below = min(int(np.searchsorted(heights, height + 1e-6, side="right")) - 1, len(heights) - 1)
    if below == len(heights) - 1:
        return below, 0.0
    part = (height - heights[below]) / (heights[below + 1] - heights[below])
    return below, part if part > 1e-4 else 0.0


def _shifted(plane: Array, shift: Array, background: Array) -> Array:
    """A slice (C, I, J) moved by (di, dj) >= 0 pixels into a larger plane, linear between pixels."""
    out = background.astype(np.float64)
    whole = np.floor(shift + 1e-6).astype(int)
    part = np.clip(shift - whole, 0, None)
    moved = plane.astype(np.float64)
    start = whole.copy()
    for axis in (0, 1):
        if part[axis] > 1e-4:  # pixel n now lies between the grid's points: mean of n and the pixel before it
            before = np.moveaxis(moved, axis + 1, -1)
            mixed = (1 - part[axis]) * before[..., 1:] + part[axis] * before[..., :-1]
            moved = np.moveaxis(mixed, -1, axis + 1)
            start[axis] += 1
    out[:, start[0] : start[0] + moved.shape[1], start[1] : start[1] + moved.shape[2]] = moved
    return out
