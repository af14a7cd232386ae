"""Flaws: whether the slices of a stack are those of a rectangular grid, and what is wrong where they are not."""

from dataclasses import dataclass

import numpy as np

from nfops.arrays import Array
from nfops.io.dicom.stacks import Stack

UNEVEN = 0.01
UNEVEN_MM = 0.01
GAP = 1.5
TILT_PIXELS = 0.5
REGRID = "--resample-uniform puts them on even slices"


@dataclass(frozen=True)
class Flaw:
    """Why a stack is no rectangular grid. is_tilted: the slices are shifted against each other, a gantry tilt."""

    what: str
    hint: str
    is_tilted: bool = False
    is_uneven: bool = False


def find_flaws(stack: Stack) -> list[Flaw]:
    """Slices that are missing, uneven or shifted against each other (B33, B35, B36); [] for a proper volume."""
    if not stack.is_oriented or stack.shape[2] == 1:
        return []
    return [*_uneven(stack), *_tilted(stack), *_wandering(stack)]


def _uneven(stack: Stack) -> list[Flaw]:
    heights = stack.heights_mm
    steps = np.diff(heights)
    if len(steps) < 2:
        return []
    usual = float(np.median(steps))
    if steps.max() > GAP * usual:
        k = int(np.argmax(steps))
        gap = f"{steps[k]:.4g} mm from {heights[k]:.4g} to {heights[k + 1]:.4g} mm along the normal"
        return [Flaw(f"a slice is missing: {gap}, {usual:.4g} mm elsewhere", REGRID, is_uneven=True)]
    if np.abs(steps - usual).max() > max(UNEVEN * usual, UNEVEN_MM):
        what = f"slices at uneven distances, from {steps.min():.4g} to {steps.max():.4g} mm"
        return [Flaw(what, REGRID, is_uneven=True)]
    return []


def _in_plane_mm(stack: Stack) -> Array:
    """(K, 2) how far each slice is shifted against the first, along columns and rows, mm."""
    first = stack.frames[0][0]
    moved = stack.positions_mm - stack.positions_mm[0]
    return np.stack([moved @ np.array(first.row_direction), moved @ np.array(first.column_direction)], axis=1)


def _tilted(stack: Stack) -> list[Flaw]:
    shift = _in_plane_mm(stack)
    spacing = (stack.frames[0][0].spacing_mm or (1.0, 1.0))[::-1]
    if (np.abs(shift[-1]) / spacing).max() <= TILT_PIXELS:
        return []
    height = stack.heights_mm[-1] - stack.heights_mm[0]
    angle = float(np.degrees(np.arctan2(np.linalg.norm(shift[-1]), height)))
    what = f"a tilted acquisition: its slices are shifted against each other, by {angle:.1f} degrees"
    return [Flaw(what, "--untilt puts them on a rectangular grid", is_tilted=True)]


def _wandering(stack: Stack) -> list[Flaw]:
    """Slices whose in-plane shift does not grow evenly with their height lie on no grid at all."""
    shift, heights = _in_plane_mm(stack), stack.heights_mm
    even = shift[-1] * ((heights - heights[0]) / (heights[-1] - heights[0]))[:, None]
    spacing = (stack.frames[0][0].spacing_mm or (1.0, 1.0))[::-1]
    k, axis = np.unravel_index(int(np.argmax(np.abs(shift - even) / spacing)), shift.shape)
    if abs(shift - even)[k, axis] / spacing[axis] <= TILT_PIXELS:
        return []
    return [Flaw(f"slice {k + 1} is shifted by {np.linalg.norm((shift - even)[k]):.3g} mm against its neighbours", "")]
