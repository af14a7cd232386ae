"""Floats as the int16 of a classic DICOM image: quantised with the very slope and intercept that the file states."""

from dataclasses import dataclass

import numpy as np

from nfops.arrays import Array
from nfops.errors import ResultError
from nfops.io.dicom.writing.decimal_strings import decimal_string

LOWEST, HIGHEST = -32768, 32767
SPARE_LEVELS = 5
LEVELS = HIGHEST - LOWEST - 2 * SPARE_LEVELS
"""Steps that the range of the values is cut into: a few stored values stay free for the rounding of the strings."""

LARGEST_EXACT = 1e14
"""Whole numbers up to here are exact as decimal strings."""


@dataclass(frozen=True)
class Scale:
    """value = slope * stored + intercept; both are kept as the decimal strings that readers will see."""

    slope: str
    intercept: str

    def stored(self, values: Array) -> Array:
        """(...) finite values in the range the scale was chosen for -> int16, at most half a quantum off."""
        levels = np.rint((values.astype(np.float64) - float(self.intercept)) / float(self.slope))
        if levels.min() < LOWEST or levels.max() > HIGHEST:
            raise ResultError("DICOM", "values outside the range that their scale was chosen for")
        return levels.astype("<i2")

    def values(self, stored: Array) -> Array:
        """What a reader makes of stored integers."""
        return np.asarray(stored * float(self.slope) + float(self.intercept))


def choose_scale(values: Array, is_intercept_zero: bool = False) -> Scale:
    """The scale for finite values: whole numbers keep slope 1, others use the whole of int16.

    is_intercept_zero: PET images have no intercept (PS3.3, C.8.9.4).

    Raises:
        ResultError: NaN or infinite values.
    """
    bad = values.size - int(np.isfinite(values).sum())
    if bad:
        raise ResultError("DICOM", f"{bad} of {values.size} values are NaN or infinite; nothing was written")
    low, high = float(values.min()), float(values.max())
    is_whole = all(bool((block == np.rint(block)).all()) for block in values)
    if is_whole and low >= LOWEST and high <= HIGHEST:
        return Scale("1", "0")
    if is_intercept_zero:
        return Scale(decimal_string(max(abs(low), abs(high)) / (LEVELS // 2)), "0")
    if is_whole and high - low <= LEVELS and max(abs(low), abs(high)) < LARGEST_EXACT:
        return Scale("1", decimal_string(np.rint((low + high) / 2)))
    middle = decimal_string(low / 2 + high / 2)
    rounding = abs(low / 2 + high / 2 - float(middle))
    if low == high:
        return Scale(decimal_string(max(1.0, rounding)), middle)
    return Scale(decimal_string(max(high / LEVELS - low / LEVELS, rounding / (SPARE_LEVELS - 1))), middle)
