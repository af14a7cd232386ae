"""A grid as a stack of DICOM slices: LPS positions, cosines and spacings, slice after slice along the normal."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from nfops.arrays import Array
from nfops.errors import UsageError
from nfops.grid import Grid
from nfops.io.dicom.writing.decimal_strings import decimal_string, decimal_strings

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

PLACE = (
    *("ImagePositionPatient", "ImageOrientationPatient", "SliceLocation", "SliceThickness", "SpacingBetweenSlices"),
    *("FrameOfReferenceUID", "PositionReferenceIndicator"),
)
RAS_TO_LPS = np.array([-1.0, -1.0, 1.0])


@dataclass(frozen=True, eq=False)
class SliceStack:
    """Slices whose rows run along j and columns along i of a grid, in the order of the normal (row x column).

    positions_mm: (K, 3) LPS centres of the first pixels. cosines: (2, 3) LPS unit vectors of i and j.
    spacing_mm: between columns, rows and slices. is_reversed: the first slice is the grid's last k.
    """

    shape: tuple[int, int, int]
    positions_mm: Array
    cosines: Array
    spacing_mm: tuple[float, float, float]
    is_reversed: bool

    @property
    def normal(self) -> Array:
        """(3,) LPS unit vector from slice to slice."""
        return np.cross(self.cosines[0], self.cosines[1])

    @property
    def affine(self) -> Array:
        """(4, 4) LPS affine of (column, row, slice) indices."""
        affine = np.eye(4)
        affine[:3, :2] = self.cosines.T * self.spacing_mm[:2]
        affine[:3, 2] = self.normal * self.spacing_mm[2]
        affine[:3, 3] = self.positions_mm[0]
        return affine

    def slices(self, values: Array) -> Array:
        """(I, J, K) values of the grid -> (K, rows, columns) view in the order of the stack."""
        ordered = values.transpose(2, 1, 0)
        return ordered[::-1] if self.is_reversed else ordered


def slice_stack(grid: Grid, where: object = "DICOM") -> SliceStack:
    """The slices of a grid.

    Raises:
        UsageError: axes that do not meet at right angles; DICOM slices are rectangles, stacked along their normal.
    """
    if not grid.is_orthogonal():
        raise UsageError(where, "DICOM slices cannot hold a sheared grid", "resample it with --spacing first")
    cosines = _orthonormal(grid.directions[:, :2] * RAS_TO_LPS[:, None]).T
    is_reversed = float(np.cross(*cosines) @ (grid.directions[:, 2] * RAS_TO_LPS)) < 0
    order = np.arange(grid.shape[2])[:: -1 if is_reversed else 1]
    middle = (np.array(grid.shape[:2]) - 1) / 2
    index = np.column_stack([np.tile(middle, (len(order), 1)), order])
    centres = (index @ grid.affine[:3, :3].T + grid.affine[:3, 3]) * RAS_TO_LPS
    across, down, apart = (float(s) for s in grid.spacing_mm)
    to_first = (middle * (across, down)) @ cosines
    return SliceStack(grid.shape, centres - to_first, cosines, (across, down, apart), is_reversed)


def set_geometry(dataset: "Dataset", stack: SliceStack, index: int, thickness_mm: float) -> None:
    """Fill the Image Plane module and the size of one slice (PS3.3, C.7.6.2)."""
    columns, rows, _ = stack.shape
    dataset.Rows, dataset.Columns = rows, columns
    dataset.PixelSpacing = decimal_strings((stack.spacing_mm[1], stack.spacing_mm[0]))
    dataset.ImageOrientationPatient = decimal_strings(stack.cosines.ravel())
    dataset.ImagePositionPatient = decimal_strings(stack.positions_mm[index])
    dataset.SliceThickness = decimal_string(thickness_mm)
    dataset.SpacingBetweenSlices = decimal_string(stack.spacing_mm[2])
    dataset.SliceLocation = decimal_string(float(stack.positions_mm[index] @ stack.normal))


def remove_place(dataset: "Dataset") -> None:
    """Leave only the size of the pixels: a position that was guessed must not look like one that was measured."""
    for keyword in PLACE:
        if keyword in dataset:
            delattr(dataset, keyword)


def _orthonormal(columns: Array) -> Array:
    """The nearest orthonormal columns: what a grid may be off a right angle, readers of DICOM do not forgive."""
    left, _, right = np.linalg.svd(columns, full_matrices=False)
    return np.asarray(left @ right)
