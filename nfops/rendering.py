"""Rendering: what a `Latent` looks like on any grid, computed as it is written."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from nfops.arrays import Array
from nfops.bundle import Side
from nfops.codec_spec import CodecSpec
from nfops.engines import Engine
from nfops.grid import Grid
from nfops.image import Header, Image
from nfops.intensity import IntensityMap, from_channels
from nfops.latents import Latent
from nfops.resampling import resample
from nfops.sampling import Lattice, lattice_of

SLAB_VALUES = 1 << 22
"""About how many values of the output are in memory at once while it is written."""

SLICE_TOLERANCE = 1e-3
"""In voxels: nearer than this, a slice of the output is a slice of the scan."""

Units = Literal["output-range", "scan", "probability"]
"""Of a rendered field: the recipe's output range (labels as they are), the encoded scan's own units, or, for labels,
the probability of each."""


@dataclass(frozen=True, eq=False)
class Rendering:
    """An output that is computed as it is written. slabs(): blocks (C, I, J, k) along the last axis, in order."""

    grid: Grid
    header: Header
    channels: int
    slabs: Callable[[], Iterator[Array]]

    def in_file_order(self) -> Iterator[Array]:
        """Blocks (1, I, J, k) or (I, J, K) as files take them, channel after channel; several need all in memory."""
        return self.slabs() if self.channels == 1 else iter(self.image().values)

    def image(self) -> Image:
        """All of it in memory."""
        slabs = list(self.slabs())
        return Image(slabs[0] if len(slabs) == 1 else np.concatenate(slabs, axis=3), self.grid, self.header)


def render(
    engine: Engine,
    side: Side,
    latent: Latent,
    grid: Grid,
    units: Units = "output-range",
    *,
    leaves_empty: bool = False,
) -> Rendering:
    """A latent on any grid. Outside the field's domain it is 0 (the low end of the units), or the first label.

    leaves_empty: so it is, too, in slices of which the encoded scan was empty: for predictions.

    Where the slices of a 2-D recipe do not fit the grid, they are drawn in their own planes and resampled.
    """
    spec = side.spec
    is_label = spec.is_label and units != "probability"
    header = Header(intent=(1002, "labels") if is_label else (0, ""))
    channels = 1 if is_label else spec.channels
    painter = _Painter(engine, side, latent, units, leaves_empty)
    if spec.dims == 2 and _slices_on(grid, spec.axes, latent) is None:
        planes = _own_planes(latent, grid, spec.axes)
        drawn = render(engine, side, latent, planes, units, leaves_empty=leaves_empty).image()
        resampled = resample(drawn, grid, "nearest" if is_label else "linear", painter.beyond())
        return Rendering(grid, header, channels, lambda: iter([resampled.values]))

    def slabs() -> Iterator[Array]:
        depth = max(1, SLAB_VALUES // (grid.shape[0] * grid.shape[1] * spec.channels))
        for start in range(0, grid.shape[2], depth):
            yield painter.paint(grid.slab(start, min(start + depth, grid.shape[2])))

    return Rendering(grid, header, channels, slabs)


@dataclass(frozen=True, eq=False)
class _Painter:
    """Draws one latent, slab by slab."""

    engine: Engine
    side: Side
    latent: Latent
    units: Units
    leaves_empty: bool

    def paint(self, grid: Grid) -> Array:
        """(C, I, J, K) in the wanted units."""
        spec = self.side.spec
        how = grid.reorientation(spec.axes)
        aligned = grid.reoriented(how)
        rows = _slices_on(grid, spec.axes, self.latent) if spec.dims == 2 else None
        decoded = self._decode(aligned, rows)
        return how.inverse.apply(self._in_units(decoded, rows))

    def _decode(self, aligned: Grid, rows: list[int] | None) -> Array:
        """Field values (C, ...) on a grid that is on the recipe's axes; rows: which slice each of its slices shows."""
        spec, latent = self.side.spec, self.latent
        if not latent.frame.is_aligned(aligned):
            return self._decode_points(aligned)
        lattice = lattice_of(aligned, latent.frame, spec.spacing)
        vectors = latent.vectors if rows is None else latent.vectors[rows]
        decoded = decode_within(self.engine, self.side, vectors, lattice)
        if rows is not None and self.leaves_empty:
            is_empty = latent.is_empty[rows]
            decoded[is_empty] = outside(spec, decoded[is_empty].shape)
        whole = decoded[0] if rows is None else np.moveaxis(decoded, 0, -1)
        if spec.dims > 1:
            return np.asarray(whole)
        return np.broadcast_to(whole[..., None, None], (len(whole), *aligned.shape)).copy()

    def _decode_points(self, aligned: Grid) -> Array:
        """As `_decode`, where the grid's axes are not the scan's: point by point, not for slices."""
        coords = self.latent.frame.coords(aligned.points_mm())
        inside = (np.abs(coords) <= np.array(self.side.spec.half_extent) * (1 + 1e-6)).all(axis=-1)
        decoded: Array = outside(self.side.spec, (1, self.side.spec.channels, *aligned.shape))[0]
        if inside.any():
            decoded[:, inside] = self.engine.decode_points(self.side.name, self.latent.vectors, coords[inside])
        return decoded

    def beyond(self) -> float:
        """What is drawn where there is no scan: the low end of the units, the first label."""
        spec = self.side.spec
        if spec.is_label:
            return float(spec.labels[0]) if spec.head == "softmax" and self.units != "probability" else 0.0
        return float(self.latent.scales[0].low[0]) if self.units == "scan" else float(spec.range_low[0])

    def _in_units(self, decoded: Array, rows: list[int] | None) -> Array:
        """Decoded values -> labels, probabilities or intensities; slices last."""
        spec, scales = self.side.spec, self.latent.scales
        if spec.is_label:
            return decoded if self.units == "probability" else from_channels(decoded, spec.head, spec.labels)
        if self.units != "scan":
            low, high = np.array(spec.range_low), np.array(spec.range_high)
            return IntensityMap(low, high, is_clipped=spec.intensity.map != "none").inverse(decoded)
        if rows is None:
            return scales[0].inverse(decoded)
        return np.stack([scales[row].inverse(decoded[..., k]) for k, row in enumerate(rows)], axis=-1)


def decode_within(engine: Engine, side: Side, vectors: Array, lattice: Lattice) -> Array:
    """Latents (B, P) on a lattice that may reach beyond the field's domain -> (B, C, *lattice.shape)."""
    part = lattice.inside(np.array(side.spec.half_extent))
    if lattice[part].shape == lattice.shape:
        return engine.decode(side.name, vectors, lattice)
    decoded = outside(side.spec, (len(vectors), side.spec.channels, *lattice.shape))
    if lattice[part].size:
        decoded[:, :, *part] = engine.decode(side.name, vectors, lattice[part])
    return decoded


def outside(spec: CodecSpec, shape: tuple[int, ...]) -> Array:
    """(B, C, ...): what a field is outside its domain, 0 or surely the first label."""
    values = np.zeros(shape, np.float32)
    if spec.head == "softmax":
        values[:, 0] = 1
    return values


def _slices_on(grid: Grid, axes: tuple[str, ...], latent: Latent) -> list[int] | None:
    """Which of a 2-D recipe's latents each slice of a grid shows, or None where its slices are not the scan's."""
    aligned = grid.reoriented(grid.reorientation(axes))
    if not latent.frame.is_aligned(aligned):
        return None
    to_scan = np.linalg.inv(latent.grid.affine) @ aligned.affine  # voxels of the grid -> voxels of the scan
    number = to_scan[2, 3] + to_scan[2, 2] * np.arange(aligned.shape[2])
    rows = np.rint(number).astype(int)
    leans = np.abs(to_scan[:2, 2]).max() * aligned.shape[2] > SLICE_TOLERANCE
    fits = np.abs(number - rows).max() < SLICE_TOLERANCE and rows.min() >= 0 and rows.max() < latent.grid.shape[2]
    return [int(row) for row in rows] if fits and not leans else None


def _own_planes(latent: Latent, grid: Grid, axes: tuple[str, ...]) -> Grid:
    """The scan's own slices, cut in plane as the grid is; where the grid is turned, as finely as its finest axis."""
    scan, aligned = latent.grid, grid.reoriented(grid.reorientation(axes))
    if not latent.frame.is_aligned(aligned):
        finest = float(min(grid.spacing_mm.min(), scan.spacing_mm[:2].min()))
        return scan.with_spacing((finest, finest, float(scan.spacing_mm[2])))
    affine = scan.affine.copy()
    affine[:3, :2] = aligned.affine[:3, :2]
    shift = np.linalg.solve(scan.directions, aligned.affine[:3, 3] - scan.affine[:3, 3])
    affine[:3, 3] += scan.directions[:, :2] @ shift[:2]
    return Grid((aligned.shape[0], aligned.shape[1], scan.shape[2]), affine)
