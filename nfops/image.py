"""`Image`: values on a grid, and what its file said beside them."""

from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from nfops.arrays import Array
from nfops.errors import InputError
from nfops.grid import Grid


@dataclass(frozen=True)
class Header:
    """What a file says beside values and positions, kept so that an output resembles its input.

    file_dtype: the numpy name of the stored type ("int16"). is_scaled: values are stored ones times a slope.
    ndim: dimensions in the file (1 to 4). xform_code: NIfTI code of the affine in use (0 = none given,
    1 scanner, 2 aligned, 3 Talairach, 4 MNI). unit_mm: millimetres per unit of the file's affine.
    time_step: size of a step along the fourth axis and its NIfTI unit code. slice_axis: the file's own word
    for which axis counts slices. intent: (code, name). columns: the names in a signal file, that of its axis first.
    comments: free text of a NIfTI file.
    is_oriented: the position is the file's, not a guess. files: those that the image was read from, where it is not
    the one file that was named. modality: DICOM's word for the kind of scanner, "" where the file does not say.
    """

    format: str = "nifti"
    file_dtype: str = "float32"
    is_scaled: bool = False
    ndim: int = 3
    xform_code: int = 1
    is_oriented: bool = True
    unit_mm: float = 1.0
    time_step: tuple[float, int] = (0.0, 0)
    slice_axis: int | None = None
    intent: tuple[int, str] = (0, "")
    columns: tuple[str, ...] = ()
    comments: tuple[bytes, ...] = ()
    is_colour: bool = False
    files: tuple[Path, ...] = ()
    modality: str = ""
    warnings: tuple[str, ...] = field(default=())


@dataclass(frozen=True, eq=False)
class Image:
    """values: (C, I, J, K) float32 (float64 only where the file's own values need it); grid; header."""

    values: Array
    grid: Grid
    header: Header = Header()

    def __post_init__(self) -> None:
        if self.values.ndim != 4 or self.values.shape[1:] != self.grid.shape:
            raise InputError("image", f"values {self.values.shape} do not fit the grid {self.grid.shape}")
        if self.values.dtype not in (np.float32, np.float64):
            raise InputError("image", f"expected float32 values, got {self.values.dtype}")

    @property
    def channels(self) -> int:
        """Number of values at each voxel."""
        return int(self.values.shape[0])

    @property
    def missing(self) -> int:
        """How many values are NaN or infinite."""
        return self.values.size - int(np.count_nonzero(np.isfinite(self.values)))

    def with_values(self, values: Array, grid: Grid | None = None) -> "Image":
        """Other values, perhaps on another grid, under the same header."""
        return replace(self, values=values, grid=grid or self.grid)

    def reoriented(self, axes: tuple[str, ...]) -> "Image":
        """The same voxels with their axes as `Grid.reorientation` has it; no value and no position changes."""
        how = self.grid.reorientation(axes)
        axis = self.header.slice_axis
        header = replace(self.header, slice_axis=None if axis is None else how.order.index(axis))
        return Image(how.apply(self.values), self.grid.reoriented(how), header)
