"""How values are stored: `SaveOptions`, and the one place where floats become integers."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from nfops.arrays import Array
from nfops.errors import ResultError, UsageError
from nfops.grid import Grid
from nfops.image import Header, Image
from nfops.io.publish import Together

StoredType: TypeAlias = "np.dtype[Any]"

SLAB_VALUES = 1 << 22
DTYPES = ("uint8", "int16", "uint16", "int32", "float32", "float64")


@dataclass(frozen=True)
class SaveOptions:
    """dtype: "auto" (float32; a picture: 8 bit), "same" as the input's file, or one of DTYPES.

    force: replace an existing output. mask_255: a picture of a single label is written as 0 and 255. together: the
    files that the output appears with.
    """

    dtype: str = "auto"
    force: bool = False
    mask_255: bool = False
    together: Together | None = None

    def __post_init__(self) -> None:
        if self.dtype not in ("auto", "same", *DTYPES):
            raise UsageError("dtype", f"expected auto, same or one of {', '.join(DTYPES)}, got {self.dtype!r}")


def stored_dtype(options: SaveOptions, header: Header) -> StoredType:
    """The dtype to store: what the options name, the file's own for "same", float32 for "auto"."""
    name = {"auto": "float32", "same": header.file_dtype}.get(options.dtype, options.dtype)
    return np.dtype(name)


def slabs_of(image: Image) -> Iterator[Array]:
    """An image in memory as slabs (I, J, n) along k, channel after channel."""
    step = max(1, SLAB_VALUES // (image.grid.shape[0] * image.grid.shape[1]))
    starts = range(0, image.grid.shape[2], step)
    return (channel[..., k : k + step] for channel in image.values for k in starts)


def refuse_shear(path: Path, grid: Grid) -> None:
    """Raise UsageError for a grid that a format cannot hold whose axes are at right angles."""
    if not grid.is_orthogonal():
        raise UsageError(path, "the grid is sheared, this format knows right angles only", "write .nii.gz instead")


def to_stored(values: Array, dtype: StoredType, where: object) -> Array:
    """The same values as `dtype`: rounded to integers where it is one.

    Raises:
        ResultError: NaN or infinite values, or values that `dtype` cannot hold.
    """
    bad = values.size - int(np.isfinite(values).sum())
    if bad:
        raise ResultError(where, f"{bad} of {values.size} values are NaN or infinite; nothing was written")
    if dtype.kind == "f":
        limit = float(np.finfo(dtype).max)
        _check_range(values, -limit, limit, dtype, where)
        return values.astype(dtype, copy=False)
    rounded = np.rint(values)
    _check_range(rounded, float(np.iinfo(dtype).min), float(np.iinfo(dtype).max), dtype, where)
    return rounded.astype(dtype)


def _check_range(values: Array, lowest: float, highest: float, dtype: StoredType, where: object) -> None:
    low, high = float(values.min()), float(values.max())
    if low < lowest or high > highest:
        what = f"values from {low:g} to {high:g} do not fit {dtype} ({lowest:g} to {highest:g})"
        raise ResultError(where, what, "choose --dtype float32")
