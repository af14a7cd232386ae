"""Augmentation through the continuous image: the same random warp for source and target, sampled on nodes."""

import zlib
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from nfops import splines
from nfops.arrays import Array
from nfops.interpolation import cell_overlaps
from nfops.sampling import Domain

BEND_NODES = 5
"""Random displacements along each axis, across the field of view; a cubic spline joins them."""


@dataclass(frozen=True)
class AugmentSettings:
    """rotate_deg: largest angle. scale: largest |log| of a scale per axis. shift_mm: largest shift per axis.

    bend_mm: largest displacement of an elastic warp. flip: the numbers of the axes that may be mirrored. Of the source
    only: gamma, largest |log| of its exponent; noise, largest deviation of white noise (per voxel, in units of 0..1);
    coarse, the smallest fraction of its resolution.
    """

    rotate_deg: float = 0.0
    scale: float = 0.0
    shift_mm: float = 0.0
    bend_mm: float = 0.0
    flip: tuple[int, ...] = ()
    gamma: float = 0.0
    noise: float = 0.0
    coarse: float = 1.0


@dataclass(frozen=True, eq=False)
class Warp:
    """Where to look: position in the scan = matrix @ p + shift_mm + bend(p), mm from the centre.

    bend_mm: (d, *nodes) displacements on nodes across the field of view, or None.
    """

    matrix: Array
    shift_mm: Array
    bend_mm: Array | None = None

    @classmethod
    def none(cls, dims: int) -> "Warp":
        """The scan as it is."""
        return cls(np.eye(dims), np.zeros(dims))


@dataclass(frozen=True, eq=False)
class Change:
    """What happens to a source's values: v ** exponent, noise of a deviation, voxels 1 / detail times as wide."""

    exponent: float = 1.0
    noise: float = 0.0
    detail: float = 1.0
    seed: tuple[int, ...] = (0,)


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
    if not settings.bend_mm:
        return Warp(matrix, shift)
    return Warp(matrix, shift, rng.uniform(-settings.bend_mm, settings.bend_mm, (dims, *(BEND_NODES,) * dims)))


def random_change(settings: AugmentSettings, seed: int, scan_id: str, copy: int) -> Change:
    """The change of one copy's values, drawn apart from its warp: a target has the warp, and not the change."""
    if copy == 0:
        return Change()
    key = (seed, zlib.crc32(scan_id.encode()), copy, 1)
    rng = np.random.default_rng(key)
    exponent = float(np.exp(rng.uniform(-settings.gamma, settings.gamma)))
    noise = float(rng.uniform(0, settings.noise))
    detail = float(np.exp(rng.uniform(np.log(settings.coarse), 0)))
    return Change(exponent, noise, detail, key)


@dataclass(frozen=True, eq=False)
class Voxels:
    """values: (C, *shape) float32. spacing_mm: (d,). known: (*shape), 0 where a voxel is no data, or None."""

    values: Array
    spacing_mm: Array
    known: Array | None = None


def changed(scan: Voxels, change: Change) -> Voxels:
    """The scan with its values changed; where detail is lost, on a coarser grid across the same field of view."""
    values, rng = scan.values, np.random.default_rng((*change.seed, 2))
    if change.detail < 1:
        shape = tuple(max(2, round(n * change.detail)) for n in values.shape[1:])
        # half of what is coarse was averaged, the other half sampled
        scan = _averaged(scan, shape) if rng.random() < 0.5 else _point_sampled(scan, shape)
        values = scan.values
    if change.exponent != 1:
        values = np.sign(values) * np.abs(values) ** change.exponent
    if change.noise:
        values = values + rng.normal(0, change.noise, values.shape)
    return replace(scan, values=np.asarray(values, np.float32))


def _averaged(scan: Voxels, shape: tuple[int, ...]) -> Voxels:
    """Means over `shape` equal cells across the field of view, unknown voxels left out."""
    sizes = scan.values.shape[1:]
    matrices = tuple(cell_overlaps(n, m).astype(np.float32) for n, m in zip(sizes, shape, strict=True))
    spacing = scan.spacing_mm * np.array(sizes) / np.array(shape)
    if scan.known is None:
        return Voxels(splines.apply_axes(matrices, scan.values), spacing)
    known = splines.apply_axes(matrices, scan.known)
    return Voxels(splines.apply_axes(matrices, scan.values * scan.known) / np.maximum(known, 1e-6), spacing, known)


def _point_sampled(scan: Voxels, shape: tuple[int, ...]) -> Voxels:
    """The voxels nearest to the centres of `shape` equal cells."""
    sizes = scan.values.shape[1:]
    index = np.ix_(*(((np.arange(m) + 0.5) * n / m).astype(int) for n, m in zip(sizes, shape, strict=True)))
    known = None if scan.known is None else scan.known[index]
    spacing = scan.spacing_mm * np.array(sizes) / np.array(shape)
    return Voxels(scan.values[(slice(None), *index)], spacing, known)


def sample_nodes(
    scan: Voxels, nodes: tuple[int, ...], node_mm: Array, warp: Warp, *, is_cubic: bool = False
) -> tuple[Array, Array]:
    """A warped scan as cell averages on nodes that share its centre.

    nodes: their number per axis, node_mm (d,) apart. Each node's value is the mean over sub-points as dense as the
    scan's own voxels, interpolated linearly between those or, if `is_cubic`, by a cubic spline.
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
    covered = np.ones(shape, np.float32) if scan.known is None else scan.known
    if warp.bend_mm is None:
        look = partial(ndimage.affine_transform, matrix=matrix, offset=offset, output_shape=fine)
    else:
        bend = splines.evaluate(warp.bend_mm, np.ones(len(fine)), Domain((1.0,) * len(fine), fine).lattice())
        index = np.indices(fine, np.float32).reshape(len(fine), -1)
        place = (matrix @ index + offset[:, None]).reshape(bend.shape) + bend / _along(spacing_mm)
        look = partial(ndimage.map_coordinates, coordinates=place)
    sampled = np.stack([look(channel, order=3 if is_cubic else 1, mode="nearest") for channel in values])
    inside = look(covered, order=0, mode="grid-constant")
    return _cell_means(sampled, nodes, per_cell), _cell_means(inside[None], nodes, per_cell)[0]


def _along(per_axis: Array) -> Array:
    """(d,) -> (d, 1, ..., 1)."""
    return per_axis.reshape(-1, *[1] * len(per_axis))


def _cell_means(fine: Array, nodes: tuple[int, ...], per_cell: tuple[int, ...]) -> Array:
    """(C, n_0 q_0, ...) -> (C, n_0, ...)."""
    split = [size for pair in zip(nodes, per_cell, strict=True) for size in pair]
    averaged = fine.reshape(len(fine), *split).mean(axis=tuple(2 + 2 * a for a in range(len(nodes))))
    return np.asarray(averaged, dtype=np.float32)
