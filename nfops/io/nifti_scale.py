"""Floats as int16 with a slope and an intercept, where the user asks for int16 (B8)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nfops.arrays import Array
from nfops.errors import ResultError

LOWEST, HIGHEST = -32768, 32767
SPARE_LEVELS = 4


@dataclass(frozen=True)
class Scale:
    """value = stored * slope + intercept; both are numbers that float32, as the header has them, can hold."""

    slope: float = 1.0
    intercept: float = 0.0

    def stored(self, values: Array) -> Array:
        """Finite values as whole numbers, at most half a slope off."""
        return np.rint((values.astype(np.float64) - self.intercept) / self.slope)

    def error(self, slabs: Sequence[Array]) -> float:
        """The furthest that a stored value is from its own."""
        return max(float(np.abs(self.stored(s) * self.slope + self.intercept - s).max()) for s in slabs)


def choose_scale(slabs: Sequence[Array], where: object) -> Scale:
    """The whole of int16 for the range of the values; whole numbers that fit stay what they are.

    Raises:
        ResultError: NaN or infinite values.
    """
    count = sum(slab.size for slab in slabs)
    bad = count - sum(int(np.isfinite(slab).sum()) for slab in slabs)
    if bad:
        raise ResultError(where, f"{bad} of {count} values are NaN or infinite; nothing was written")
    low, high = min(float(slab.min()) for slab in slabs), max(float(slab.max()) for slab in slabs)
    if low >= LOWEST and high <= HIGHEST and all(bool((slab == np.rint(slab)).all()) for slab in slabs):
        return Scale()
    middle = float(np.float32(low / 2 + high / 2))
    furthest = max(high - middle, middle - low)
    slope = float(np.nextafter(np.float32(furthest / (HIGHEST - SPARE_LEVELS)), np.float32(np.inf)))
    return Scale(slope, middle)
