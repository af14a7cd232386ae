"""Cubic splines through values at cell centres: the continuous form of an array on [-half_extent, half_extent].

Beyond the outer nodes the spline is mirrored at the domain's edge (half-sample symmetric, scipy's "reflect").
"""

import math
from functools import lru_cache

import numpy as np

from nfops.arrays import Array
from nfops.interpolation import b_spline
from nfops.sampling import Lattice


def evaluate(nodal: Array, half_extent: Array, lattice: Lattice) -> Array:
    """Splines through `nodal` (..., *nodes), averaged over the cells of a lattice -> (..., *lattice.shape)."""
    return apply_axes(axis_matrices(nodal.shape[-len(half_extent) :], half_extent, lattice), nodal)


def axis_matrices(nodes: tuple[int, ...], half_extent: Array, lattice: Lattice) -> tuple[Array, ...]:
    """Per axis the float32 matrix (cells, nodes) that takes nodal values to cell averages of their spline."""
    return tuple(
        _axis_matrix(axis, float(half), n) for axis, half, n in zip(lattice.axes, half_extent, nodes, strict=True)
    )


def apply_axes(matrices: tuple[Array, ...], values: Array) -> Array:
    """Multiply each of the last d axes of `values` (..., n_0, ..., n_d-1) by its matrix (m_a, n_a)."""
    first = values.ndim - len(matrices)
    for a, matrix in enumerate(matrices):
        shape = values.shape
        axis = first + a
        if _is_identity(matrix):
            continue
        if axis == values.ndim - 1:
            values = values.reshape(-1, shape[-1]) @ matrix.T
        else:
            values = np.matmul(matrix, values.reshape(math.prod(shape[:axis]), shape[axis], -1))
        values = values.reshape(*shape[:axis], len(matrix), *shape[axis + 1 :])
    return values


def evaluate_points(nodal: Array, half_extent: Array, coords: Array) -> Array:
    """Splines through `nodal` (C, *nodes) at scattered coordinates (N, d) -> (C, N) float32."""
    from scipy import ndimage

    nodes = nodal.shape[1:]
    index = ((np.clip(coords / half_extent, -1, 1) + 1) * np.array(nodes) / 2 - 0.5).T
    # scipy's own prefilter is approximate on short axes; this one is exact, and the one that lattices use
    coefficients = apply_axes(tuple(to_coefficients(n) for n in nodes), nodal)
    at = [ndimage.map_coordinates(c, index, order=3, mode="reflect", prefilter=False) for c in coefficients]
    return np.asarray(np.stack(at), dtype=np.float32)


def _axis_matrix(coords: Array, half_extent: float, nodes: int) -> Array:
    """(n, q) coordinates -> (n, nodes), read-only: the slices and slabs of one volume ask for the same again."""
    return _cell_weights(np.ascontiguousarray(coords, np.float64).tobytes(), coords.shape[1], half_extent, nodes)


@lru_cache(maxsize=16)
def _cell_weights(coords: bytes, per_cell: int, half_extent: float, nodes: int) -> Array:
    """Basis values at the points, times the inverse of those at the nodes, averaged over each cell."""
    points = np.frombuffer(coords).reshape(-1, per_cell)
    position = (np.clip(points / half_extent, -1, 1) + 1) * nodes / 2 - 0.5
    if points.shape == (nodes, 1) and np.abs(position[:, 0] - np.arange(nodes)).max() < 1e-6:
        matrix = np.eye(nodes, dtype=np.float32)  # the nodes themselves: exact, and skipped when applied
    else:
        weights = _basis(position.reshape(-1), nodes) @ to_coefficients(nodes)
        matrix = weights.reshape(*points.shape, nodes).mean(axis=1).astype(np.float32)
    matrix.setflags(write=False)
    return matrix


def _is_identity(matrix: Array) -> bool:
    rows, columns = matrix.shape
    return (
        rows == columns
        and matrix[0, 0] == 1
        and np.count_nonzero(matrix) == rows
        and bool((matrix.diagonal() == 1).all())
    )


@lru_cache(maxsize=64)
def to_coefficients(nodes: int) -> Array:
    """(nodes, nodes): values at the nodes -> B-spline coefficients."""
    return np.linalg.inv(_basis(np.arange(nodes, dtype=np.float64), nodes))


def _basis(position: Array, nodes: int) -> Array:
    """(n,) positions in node units -> (n, nodes): the cubic B-splines, mirrored into the domain."""
    start = np.floor(position).astype(int) - 1
    matrix = np.zeros((len(position), nodes))
    rows = np.arange(len(position))
    for tap in range(4):
        weight = b_spline(position - (start + tap), "cubic")
        folded = (start + tap) % (2 * nodes)
        column = np.where(folded < nodes, folded, 2 * nodes - 1 - folded)
        np.add.at(matrix, (rows, column), weight)
    return matrix
