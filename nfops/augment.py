"""Augmentation through the continuous image: the same random warp for source and target, sampled on nodes."""

import zlib
from dataclasses import dataclass

import numpy as np

from nfops.arrays import Array


@dataclass(frozen=True)
class AugmentSettings:
    """rotate_deg: largest angle. scale: largest |log| of a scale per axis. shift_mm: largest shift per axis.

    flip: the numbers of the axes that may be mirrored. gamma: largest |log| of the source's exponent.
    """

    rotate_deg: float = 0.0
    scale: float = 0.0
    shift_mm: float = 0.0
    flip: tuple[int, ...] = ()
    gamma: float = 0.0


@dataclass(frozen=True, eq=False)
class Warp:
    """Where to look: position in the scan = matrix @ position + shift_mm, mm from the centre; v ** exponent."""

    matrix: Array
    shift_mm: Array
    exponent: float = 1.0

    @classmethod
    def none(cls, dims: int) -> "Warp":
        """The scan as it is."""
        return cls(np.eye(dims), np.zeros(dims))


def random_warp(settings: AugmentSettings, dims: int, seed: int, scan_id: str, copy: int) -> Warp:
    """The warp of one copy of one scan: a function of the seed, the scan's name and the copy's number only."""
    if copy == 0:
        return Warp.none(dims)
    rng = np.random.default_rng([seed, zlib.crc32(scan_id.encode()), copy])
    matrix = np.eye(dims)
    for a in range(dims):
        for b in range(a + 1, dims):
            angle = np.deg2rad(rng.uniform(-settings.rotate_deg, settings.rotate_deg))
            turn = np.eye(dims)
            turn[[a, a, b, b], [a, b, a, b]] = np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle)
            matrix = matrix @ turn
    matrix = matrix * np.exp(rng.uniform(-settings.scale, settings.scale, dims))
    for axis in settings.flip:
        if rng.random() < 0.5:
            matrix[:, axis] *= -1
    shift = rng.uniform(-settings.shift_mm, settings.shift_mm, dims)
    return Warp(matrix, shift, float(np.exp(rng.uniform(-settings.gamma, settings.gamma))))


@dataclass(frozen=True, eq=False)
class Voxels:
    """values: (C, *shape) float32. spacing_mm: (d,). known: (*shape), 0 where a voxel is no data, or None."""

    values: Array
    spacing_mm: Array
    known: Array | None = None


def sample_nodes(scan: Voxels, nodes: tuple[int, ...], node_mm: Array, warp: Warp) -> tuple[Array, Array]:
    """A warped scan as cell averages on nodes that share its centre.

    nodes: their number per axis, node_mm (d,) apart. Each node's value is the mean over sub-points as dense as the
    scan's own voxels.
    Returns values (C, *nodes) and coverage (*nodes), the part of each cell that is known and inside the scan.
    """
    values, spacing_mm = scan.values, scan.spacing_mm
    from scipy import ndimage

    shape = values.shape[1:]
    per_cell = tuple(max(1, round(float(n / s))) for n, s in zip(node_mm, spacing_mm, strict=True))
    fine = tuple(n * q for n, q in zip(nodes, per_cell, strict=True))
    # output index -> mm from the centre -> warped mm -> index in the scan
    step = node_mm / per_cell
    matrix = (warp.matrix * step[None, :]) / spacing_mm[:, None]
    offset = warp.shift_mm / spacing_mm + (np.array(shape) - 1) / 2 - matrix @ ((np.array(fine) - 1) / 2)
    sampled = np.stack([ndimage.affine_transform(c, matrix, offset, fine, order=1, mode="nearest") for c in values])
    covered = np.ones(shape, np.float32) if scan.known is None else scan.known
    inside = ndimage.affine_transform(covered, matrix, offset, fine, order=0, mode="grid-constant")
    if warp.exponent != 1:
        sampled = np.sign(sampled) * np.abs(sampled) ** warp.exponent
    return _cell_means(sampled, nodes, per_cell), _cell_means(inside[None], nodes, per_cell)[0]


def _cell_means(fine: Array, nodes: tuple[int, ...], per_cell: tuple[int, ...]) -> Array:
    """(C, n_0 q_0, ...) -> (C, n_0, ...)."""
    split = [size for pair in zip(nodes, per_cell, strict=True) for size in pair]
    averaged = fine.reshape(len(fine), *split).mean(axis=tuple(2 + 2 * a for a in range(len(nodes))))
    return np.asarray(averaged, dtype=np.float32)
