"""Cubic and linear interpolation in index space: a ramp stays a ramp up to the outer voxel centres."""

import numpy as np

from nfops.arrays import Array

PADDING = 12
"""Voxels of odd reflection beyond each end: the influence of what lies further falls by 0.27 a voxel, to 1e-7."""


def coefficients(values: Array, method: str, axes: tuple[int, ...] | None = None) -> tuple[Array, tuple[int, ...]]:
    """What the basis functions are multiplied with, and the number of voxels that were added before each axis.

    "linear": the values themselves. "cubic": B-spline coefficients in float64 along `axes` (all by default). The
    values go on by odd reflection, which continues a ramp; a mirror would bend it.
    """
    chosen = range(values.ndim) if axes is None else axes
    if method == "linear":
        return np.asarray(values, np.float64), (0,) * values.ndim
    from scipy import ndimage

    padding = tuple(PADDING if axis in chosen and n > 1 else 0 for axis, n in enumerate(values.shape))
    padded = np.pad(np.asarray(values, np.float64), [(p, p) for p in padding], mode="reflect", reflect_type="odd")
    for axis, added in enumerate(padding):
        if added:
            ndimage.spline_filter1d(padded, order=3, axis=axis, output=padded, mode="mirror")
    return padded, padding


def axis_weights(index: Array, size: int, method: str, tolerance: float) -> tuple[Array, Array]:
    """Interpolation along one axis as a matrix.

    index: (n, q) positions in voxels of an axis of `size` voxels. Returns (n, size) weights, the mean over those of
    the q positions that are inside the field of view, and (n,) whether any is.
    """
    inside: Array = (index >= -0.5 - tolerance) & (index <= size - 0.5 + tolerance)
    nodes, padding = coefficients(np.eye(size), method, axes=(0,))
    place = np.clip(index, 0, size - 1)
    first = np.floor(place).astype(np.intp)
    matrix = np.zeros((len(index), size))
    for tap in (-1, 0, 1, 2) if method == "cubic" else (0, 1):
        node = first + tap + padding[0]
        weight = b_spline(place - first - tap, method) * inside
        for sub in range(index.shape[1]):
            matrix += weight[:, sub, None] * nodes[np.clip(node[:, sub], 0, len(nodes) - 1)]
    counts: Array = inside.sum(axis=1)
    return matrix / np.maximum(counts, 1)[:, None], counts > 0


def cell_overlaps(voxels: int, cells: int) -> Array:
    """(cells, voxels): the part of each equal cell that each voxel fills; rows sum to 1."""
    edges = np.linspace(0, voxels, cells + 1)
    low, high = edges[:-1, None], edges[1:, None]
    start = np.arange(voxels)
    overlap = np.clip(np.minimum(high, start + 1) - np.maximum(low, start), 0, None)
    return np.asarray(overlap * cells / voxels)


def b_spline(distance: Array, method: str) -> Array:
    """The cubic or linear B-spline at a distance in voxels from its centre."""
    far: Array = np.abs(distance)
    if method == "linear":
        return np.asarray(np.maximum(1 - far, 0))
    return np.where(far < 1, 2 / 3 - far**2 + far**3 / 2, np.maximum(2 - far, 0) ** 3 / 6)
