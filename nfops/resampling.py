"""An image on another grid: the two affines composed, nothing else; voxel centres, fields of view edge to edge.

Beyond the outer voxel centres but inside the field of view the edge value goes on; outside is `fill`. Where the
output is coarser than the input, a value is the average over the output cell, taken at sub-points of it.
"""

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from nfops.arrays import Array
from nfops.errors import UsageError
from nfops.grid import Grid
from nfops.image import Image
from nfops.interpolation import axis_weights, coefficients
from nfops.memory import require_memory

MOST_LABELS = 64
METHODS = ("cubic", "linear", "nearest")
CENTRE_TOLERANCE = 1e-3
"""In input voxels: closer than this to voxel centres everywhere, values are copied, not interpolated."""
ALIGNED_TOLERANCE = 1e-4
"""In input voxels: grids whose axes are parallel to within this are resampled one axis after the other."""
EDGE_TOLERANCE = 1e-6
TIE_NUDGE = 1e-6
TIE_DIRECTION = np.array([1.0, 0.7, 0.4])
LARGEST_AXIS_MATRIX = 1 << 26
POINTS_AT_ONCE, PRODUCTS_AT_ONCE = 1 << 20, 1 << 22


@dataclass(frozen=True, eq=False)
class Mapping:
    """Output index -> input index: matrix (4, 4); shape_in, shape_out; nudge (3,) decides ties of "nearest".

    is_averaging: an output voxel is the mean over its cell, not the value at its centre.

    A tie goes to the voxel further along a fixed world direction: the same one however the axes are stored.
    """

    matrix: Array
    shape_in: tuple[int, int, int]
    shape_out: tuple[int, int, int]
    nudge: Array
    is_averaging: bool = True

    @classmethod
    def between(cls, source: Grid, target: Grid) -> "Mapping":
        """From the voxels of `target` to where they are in `source`."""
        matrix = np.linalg.inv(source.affine) @ target.affine
        nudge = np.where(TIE_DIRECTION @ source.directions >= 0, TIE_NUDGE, -TIE_NUDGE)
        return cls(matrix, source.shape, target.shape, nudge)

    @property
    def order(self) -> tuple[int, int, int]:
        """For each output axis the input axis most nearly parallel to it."""
        steps = np.abs(self.matrix[:3, :3]) / np.linalg.norm(self.matrix[:3, :3], axis=1, keepdims=True)
        best = max(itertools.permutations(range(3)), key=lambda p: sum(steps[b, a] for a, b in enumerate(p)))
        return best[0], best[1], best[2]

    def aligned(self) -> "Mapping":
        """The nearest mapping whose axes are parallel to the input's."""
        matrix = np.eye(4)
        matrix[:3, :3] = 0
        for a, b in enumerate(self.order):
            matrix[b, a] = self.matrix[b, a]
        middle = (np.array(self.shape_out) - 1) / 2
        matrix[:3, 3] = self.matrix[:3, 3] + (self.matrix - matrix)[:3, :3] @ middle
        return replace(self, matrix=matrix)

    def copying(self) -> "Mapping":
        """The nearest mapping from voxel centres to voxel centres."""
        return replace(self, matrix=np.rint(self.aligned().matrix))

    def distance(self, other: "Mapping") -> float:
        """How far two mappings are apart at most, in input voxels."""
        ends = np.array([[*end, 1] for end in itertools.product(*((0, n - 1) for n in self.shape_out))])
        return float(np.abs(ends @ (self.matrix - other.matrix).T).max())

    @property
    def sub_points(self) -> tuple[int, int, int]:
        """Points per output cell along each output axis: one per input voxel that it spans."""
        if not self.is_averaging:
            return 1, 1, 1
        i, j, k = (max(1, math.ceil(step - 1e-6)) for step in np.linalg.norm(self.matrix[:3, :3], axis=0))
        return i, j, k


def resample(image: Image, grid: Grid, method: str = "cubic", fill: float = 0.0, *, is_averaging: bool = True) -> Image:
    """An image's values on another grid of the same world.

    method: "cubic" (cubic B-spline through the values), "linear", or "nearest", which copies values and makes no new
    one (labels). Grids whose voxels coincide (the same, flipped, cropped, axes swapped) copy values exactly. NaN
    spreads along whole lines, except with "nearest". is_averaging: False samples coarse voxels at their centres.

    Raises:
        UsageError: an unknown method. MemoryLimitError: a result larger than the memory.
    """
    if method not in METHODS:
        raise UsageError("method", f"expected one of {', '.join(METHODS)}, got {method!r}")
    require_memory("resample", math.prod(grid.shape) * image.channels * image.values.itemsize, "the result")
    mapping = replace(Mapping.between(image.grid, grid), is_averaging=is_averaging)
    copying, aligned = mapping.copying(), mapping.aligned()
    is_copy, is_aligned = (
        mapping.distance(m) < t for m, t in ((copying, CENTRE_TOLERANCE), (aligned, ALIGNED_TOLERANCE))
    )
    is_copy = is_copy and max(mapping.sub_points) == 1  # every third voxel is no copy of the two between
    result = np.empty((image.channels, *grid.shape), image.values.dtype)
    for channel, out in zip(image.values, result, strict=True):
        if is_copy or method == "nearest":
            _pick(channel, copying if is_copy else mapping, fill, out)
        elif is_aligned and _matrices_fit(aligned):
            _interpolate_axes(channel, aligned, method, fill, out)
        else:
            _interpolate_points(channel, mapping, method, fill, out)
    slices = image.header.slice_axis
    moved = mapping.order.index(slices) if slices is not None else None
    return Image(result, grid, replace(image.header, slice_axis=moved))


def _slabs(out: Array, values_at_once: int = POINTS_AT_ONCE) -> Iterator[slice]:
    """Cut the last axis into pieces of a bounded number of values."""
    step = max(1, values_at_once // (out.shape[0] * out.shape[1]))
    return (slice(k, min(k + step, out.shape[2])) for k in range(0, out.shape[2], step))


def _positions(mapping: Mapping, slab: slice, offset: tuple[float, ...] = (0.0, 0.0, 0.0)) -> tuple[Array, Array]:
    """(3, I, J, n) input indices of a slab of output voxels, moved by `offset`; which are in the field of view."""
    ends = ((0, mapping.shape_out[0]), (0, mapping.shape_out[1]), (slab.start, slab.stop))
    i, j, k = (np.arange(*end) + move for end, move in zip(ends, offset, strict=True))
    inside = np.ones((len(i), len(j), len(k)), bool)
    index = np.empty((3, *inside.shape))
    for b, row in enumerate(mapping.matrix[:3]):
        index[b] = (row[0] * i)[:, None, None] + (row[1] * j)[:, None] + (row[2] * k + row[3])
        inside &= np.abs(index[b] - (mapping.shape_in[b] - 1) / 2) <= mapping.shape_in[b] / 2 + EDGE_TOLERANCE
    return index, inside


def _pick(channel: Array, mapping: Mapping, fill: float, out: Array) -> None:
    """Copy the nearest input voxel."""
    for slab in _slabs(out):
        index, inside = _positions(mapping, slab)
        nearest = [
            np.clip(np.floor(x + 0.5 + nudge).astype(np.intp), 0, n - 1)
            for x, nudge, n in zip(index, mapping.nudge, channel.shape, strict=True)
        ]
        out[..., slab] = np.where(inside, channel[tuple(nearest)], fill)


def _matrices_fit(mapping: Mapping) -> bool:
    pairs = zip(mapping.shape_out, mapping.order, strict=True)
    return max(n * mapping.shape_in[b] for n, b in pairs) <= LARGEST_AXIS_MATRIX


def _interpolate_axes(channel: Array, mapping: Mapping, method: str, fill: float, out: Array) -> None:
    """Multiply each axis by its matrix of weights: for parallel axes the same as points, and far faster."""
    weights, inside = [], []
    for a, b in enumerate(mapping.order):
        index = _cell_positions(mapping.matrix[b, a], mapping.matrix[b, 3], mapping.shape_out[a], mapping.sub_points[a])
        matrix, seen = axis_weights(index, mapping.shape_in[b], method, EDGE_TOLERANCE)
        weights.append(matrix)
        inside.append(seen)
    values = np.ascontiguousarray(channel.transpose(mapping.order), dtype=np.float64)
    seen_ij = inside[0][:, None, None] & inside[1][:, None]
    for slab in _slabs(out, PRODUCTS_AT_ONCE):
        part = np.tensordot(weights[0], np.matmul(weights[1], values @ weights[2][slab].T), 1)
        out[..., slab] = np.where(seen_ij & inside[2][slab], part, fill)


def _cell_positions(scale: float, shift: float, count: int, sub_points: int) -> Array:
    """(count, sub_points) input indices of the points that stand for each output cell of one axis."""
    return scale * (np.arange(count)[:, None] + _offsets(sub_points)) + shift


def _offsets(sub_points: int) -> Array:
    return (np.arange(sub_points) + 0.5) / sub_points - 0.5


def _interpolate_points(channel: Array, mapping: Mapping, method: str, fill: float, out: Array) -> None:
    """Evaluate every sub-point by itself: for axes at any angle."""
    from scipy import ndimage

    nodes, padding = coefficients(channel, method)
    last = np.array(channel.shape)[:, None, None, None] - 1
    start = np.array(padding)[:, None, None, None]
    for slab in _slabs(out):
        total, count = np.zeros(out[..., slab].shape), np.zeros(out[..., slab].shape)
        for offset in itertools.product(*(_offsets(q) for q in mapping.sub_points)):
            index, inside = _positions(mapping, slab, offset)
            index = np.clip(index, 0, last) + start
            order = 3 if method == "cubic" else 1
            total += inside * ndimage.map_coordinates(nodes, index, order=order, mode="nearest", prefilter=False)
            count += inside
        out[..., slab] = np.where(count > 0, total / np.maximum(count, 1), fill)


def find_slice_axis(grid: Grid, slice_axis: int | None = None) -> int:
    """Which axis counts slices: the given one, else the one whose spacing stands out, else one of size 1, else k."""
    if slice_axis is not None:
        return slice_axis
    spacing = grid.spacing_mm
    coarse = [a for a in range(3) if spacing[a] > 1.5 * max(spacing[b] for b in range(3) if b != a)]
    single = [a for a in range(3) if grid.shape[a] == 1]
    return (coarse or single or [2])[0]


def value_beyond(image: Image) -> float:
    """What lies beyond a scan: air in CT, nothing elsewhere (B22)."""
    return float(np.nanmin(image.values)) if image.header.modality == "CT" else 0.0


def looks_like_labels(image: Image) -> bool:
    """Whether an image holds so few whole numbers that it is most likely a label map, which only "nearest" keeps."""
    if image.header.is_scaled or not image.header.file_dtype.startswith(("int", "uint")):
        return False
    return len(np.unique(image.values)) <= MOST_LABELS


def choose_grid(
    grid: Grid,
    shape: tuple[int, ...] | None = None,
    spacing_mm: tuple[float, ...] | None = None,
    like: Grid | None = None,
    slice_axis: int | None = None,
) -> Grid:
    """The output grid that a user asks for by at most one of `shape`, `spacing_mm`, `like`; `grid` itself by none.

    shape, spacing_mm: three numbers in file order, two for the in-plane axes (all but the slice axis), or one for a
    signal, whose other axes have one sample; 0 keeps an axis. slice_axis: the user's or else the header's word, if
    there is one (see `find_slice_axis`).

    Raises:
        UsageError: several asked for, sizes that make no sense, a `like` elsewhere in space.
    """
    if sum(wish is not None for wish in (shape, spacing_mm, like)) > 1:
        raise UsageError("output grid", "expected at most one of --shape, --spacing and --like")
    if like is not None:
        if not grid.overlaps(like):
            raise UsageError("--like", "shows another part of space than the scan: nothing would be left of it")
        return like
    chosen = grid
    if shape is not None:
        sizes = _all_axes("--shape", shape, grid, slice_axis)
        i, j, k = (int(n) or old for n, old in zip(sizes, grid.shape, strict=True))
        chosen = grid.with_shape((i, j, k))
    elif spacing_mm is not None:
        sizes = _all_axes("--spacing", spacing_mm, grid, slice_axis)
        kept = [float(s) or float(old) for s, old in zip(sizes, grid.spacing_mm, strict=True)]
        chosen = grid.with_spacing((kept[0], kept[1], kept[2]))
    require_memory("output grid", math.prod(chosen.shape) * 4, f"an image of {'x'.join(map(str, chosen.shape))}")
    return chosen


def _all_axes(option: str, sizes: tuple[float, ...], grid: Grid, slice_axis: int | None) -> list[float]:
    """One, two or three numbers -> three, 0 where the axis stays as it is."""
    known = (2, 3) if grid.signal_axis is None else (1, 2, 3)
    if len(sizes) not in known or not all(math.isfinite(s) and s >= 0 for s in sizes) or not any(sizes):
        text = "x".join(f"{s:g}" for s in sizes)
        raise UsageError(option, f"expected two or three positive numbers (0 keeps an axis), got {text}")
    full = list(sizes)
    if len(full) == 1:
        return [full[0] if axis == grid.signal_axis else 0 for axis in range(3)]
    if len(full) == 2:
        full.insert(find_slice_axis(grid, slice_axis), 0)
    return full
