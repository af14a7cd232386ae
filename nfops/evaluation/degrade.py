"""Coarser versions of a scan on its own grid: the same field of view, edge to edge, cut into fewer voxels.

"area": each coarse voxel is the mean of what it covers, as a scanner's larger voxel would be. "point": the value of
the cubic spline through the scan at the coarse voxel's centre, without averaging: details finer than the voxel alias.
"""

from dataclasses import dataclass

import numpy as np

from nfops.arrays import Array
from nfops.codec_spec import CodecSpec
from nfops.cohort import Pair
from nfops.grid import Grid
from nfops.image import Image
from nfops.intensity import from_channels, to_channels
from nfops.interpolation import axis_weights, cell_overlaps
from nfops.splines import apply_axes

AREA, POINT, FULL = "area", "point", "full"
FEWEST_SAMPLES = 2


@dataclass(frozen=True)
class View:
    """One way to see a scan. resolution: fraction of its samples along each axis. sampling: area, point or full."""

    resolution: float
    sampling: str

    @property
    def name(self) -> str:
        """As in "25 % area"; "100 %" for the scan as it is."""
        share = f"{100 * self.resolution:g} %"
        return share if self.sampling == FULL else f"{share} {self.sampling}"


def plan_views(resolutions: tuple[float, ...]) -> tuple[View, ...]:
    """The scan as it is, first, then each lower resolution by area average and by point sampling, coarsest last."""
    lower = sorted({r for r in resolutions if r < 1}, reverse=True)
    return (View(1.0, FULL), *(View(r, sampling) for r in lower for sampling in (AREA, POINT)))


def coarse_grid(grid: Grid, dims: int, resolution: float) -> Grid:
    """The same field of view with round(n * resolution) voxels along the first `dims` axes, 2 at least."""
    shape = [max(FEWEST_SAMPLES, round(n * resolution)) if a < dims else n for a, n in enumerate(grid.shape)]
    kept = [min(new, old) for new, old in zip(shape, grid.shape, strict=True)]
    return grid.with_shape((kept[0], kept[1], kept[2]))


def coarsen(spec: CodecSpec, image: Image, view: View) -> Image:
    """A scan on the recipe's axes, seen as `view` says; labels stay labels (the most frequent, or the nearest)."""
    if view.sampling == FULL:
        return image
    grid = coarse_grid(image.grid, spec.dims, view.resolution)
    matrices = tuple(_weights(old, new, view.sampling) for old, new in zip(image.grid.shape, grid.shape, strict=True))
    if spec.is_label:
        channels = to_channels(np.nan_to_num(image.values), spec.head, spec.labels)
        values = from_channels(apply_axes(matrices, channels.astype(np.float64)), spec.head, spec.labels)
        return image.with_values(values.astype(np.float32), grid)
    known = np.isfinite(image.values)
    if known.all():
        values = apply_axes(matrices, image.values.astype(np.float64))
    else:
        values = _known_means(matrices, image.values, known)
    low, high = np.min(image.values[known], initial=np.inf), np.max(image.values[known], initial=-np.inf)
    return image.with_values(np.clip(values, low, high).astype(np.float32), grid)


class Coarsener:
    """Coarser versions of pairs; the slices of one scan, which come one after the other, share its work."""

    def __init__(self, spec: CodecSpec) -> None:
        self._spec = spec
        self._last: tuple[Image, dict[View, Image]] | None = None

    def see(self, pair: Pair, view: View) -> tuple[Image, Image]:
        """The source as `view` says, and the whole scan that it is a slice of, seen alike."""
        if view.sampling == FULL:
            return pair.source, pair.source_scan
        if pair.source.grid.shape == pair.source_scan.grid.shape:  # a volume, or a picture: a scan of one slice
            coarse = coarsen(self._spec, pair.source, view)
            return coarse, coarse
        if self._last is None or self._last[0] is not pair.source_scan:
            self._last = pair.source_scan, {}
        seen = self._last[1]
        if view not in seen:
            seen[view] = coarsen(self._spec, pair.source_scan, view)
        return coarsen(self._spec, pair.source, view), seen[view]


def _weights(old: int, new: int, sampling: str) -> Array:
    """(new, old): a row's weights of the old samples; edges of both axes coincide."""
    if old == new:
        return np.eye(old)
    if sampling == AREA:
        return cell_overlaps(old, new)
    centres = (np.arange(new)[:, None] + 0.5) * (old / new) - 0.5
    return axis_weights(centres, old, "cubic", 1e-6)[0]


def _known_means(matrices: tuple[Array, ...], values: Array, known: Array) -> Array:
    """As `apply_axes`, of the known values only; NaN where less than half of a voxel is known."""
    share = apply_axes(matrices, known.astype(np.float64))
    mean = apply_axes(matrices, np.where(known, values, 0).astype(np.float64)) / np.where(share > 0, share, 1)
    return np.where(share >= 0.5, mean, np.nan)
