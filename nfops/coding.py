"""Encoding: an `Image` becomes a `Latent` through an engine. `rendering` is the way back."""

from dataclasses import dataclass

import numpy as np

from nfops.arrays import Array
from nfops.bundle import Side
from nfops.codec_spec import CodecSpec
from nfops.engines import Engine
from nfops.errors import InputError
from nfops.frame import Frame
from nfops.grid import Grid
from nfops.image import Image
from nfops.intensity import IntensityMap, intensity_map, to_channels
from nfops.latents import Latent
from nfops.sampling import lattice_of
from nfops.solvers import solve

DARK = 0.05
"""A slice whose values all lie below this, of the recipe's 0 to 1, is empty."""


@dataclass(frozen=True, eq=False)
class Prepared:
    """A scan as a field sees it: values (B, C, *shape), its B intensity maps, cell weights (B, *shape) or None.

    Weights are 0 at voxels that are not numbers, where the recipe says `nan: keep`. is_empty: (B,) as of a `Latent`.
    """

    values: Array
    scales: tuple[IntensityMap, ...]
    weights: Array | None
    is_empty: Array


def encode_image(
    engine: Engine, side: Side, image: Image, where: object = "image", whole: Image | None = None
) -> Latent:
    """The latents of a scan: one of a 3-D recipe, one per slice of a 2-D one.

    The scan is brought to the recipe's anatomical axes by its affine; voxels outside the field's domain are left
    out. whole: the scan that a single slice was cut from, whose intensities set the slice's.
    Raises InputError where the scan does not fit the recipe.
    """
    spec = side.spec
    aligned = image.reoriented(spec.axes)
    check_fits(spec, aligned.grid, aligned.channels, where, is_series=aligned.header.ndim == 4)
    frame = Frame.of_scan(aligned.grid, spec.dims, spec.radius_mm)
    prepared = prepare(spec, aligned, where, whole)
    lattice = lattice_of(aligned.grid, frame, spec.spacing)
    part = lattice.inside(np.array(spec.half_extent))
    if not lattice[part].size:
        what = f"no voxel centre lies in the field's domain (voxels are {aligned.grid.spacing_mm.round(1)} mm wide)"
        raise InputError(where, what, "is the spacing in the file right?")
    weights = None if prepared.weights is None else prepared.weights[:, *part]
    problem = engine.pose(side.name, lattice[part], prepared.values[:, :, *part], weights)
    vectors, residual = solve(problem, side.prior, len(prepared.values), spec.encode)
    return Latent(vectors, frame, aligned.grid, prepared.scales, residual, prepared.is_empty)


def prepare(spec: CodecSpec, aligned: Image, where: object, whole: Image | None = None) -> Prepared:
    """Bring an aligned scan to 0..1 or to label channels; `whole` as for `encode_image`."""
    values = aligned.values
    finite = np.isfinite(values)
    missing = int(values.size - np.count_nonzero(finite))
    if missing and spec.nan == "error":
        raise InputError(
            where,
            f"{missing} voxels are NaN or infinite",
            "clean the scan; training with `source.nan: zero` or `keep` allows it",
        )
    stack = _stacked(spec, values)
    known = _stacked(spec, finite) if missing else None
    if spec.is_label:
        channels = np.stack([to_channels(np.nan_to_num(item), spec.head, spec.labels) for item in stack])
        scales = (IntensityMap(np.zeros(1), np.ones(1), is_clipped=False),) * len(stack)
    else:
        scales = _scales(spec, values if whole is None else whole.values, stack, where)
        channels = np.stack([scale.forward(item) for item, scale in zip(stack, scales, strict=True)])
    is_empty = _empty_slices(spec, channels, known)
    if known is None:
        return Prepared(channels, scales, None, is_empty)
    weights = np.asarray(known.all(axis=1), np.float32) if spec.nan == "keep" else None
    return Prepared(np.where(known, channels, 0).astype(np.float32), scales, weights, is_empty)


def _empty_slices(spec: CodecSpec, channels: Array, known: Array | None) -> Array:
    """(B,): slices of a 2-D recipe in which there is nothing to be seen; none of labels, nor of values as they are."""
    if spec.dims != 2 or spec.is_label or spec.intensity.map == "none":
        return np.zeros(len(channels), bool)
    shown = channels if known is None else np.where(known, channels, 0)
    return np.asarray(shown.reshape(len(shown), -1).max(axis=1) < DARK)


def _stacked(spec: CodecSpec, values: Array) -> Array:
    """(C, I, J, K) of an aligned scan -> (B, C, *shape): its slices, or the whole of it, in the recipe's dimensions."""
    return np.moveaxis(values, -1, 0) if spec.dims == 2 else values.reshape(1, *values.shape[: 1 + spec.dims])


def _scales(spec: CodecSpec, values: Array, stack: Array, where: object) -> tuple[IntensityMap, ...]:
    """One intensity map per slice (B), from the whole scan or from each slice."""
    passes = spec.constant == "pass"
    if spec.intensity.over == "slice" and spec.dims == 2:
        return tuple(_slice_map(spec, item, values, where) for item in stack)
    return (intensity_map(values, spec.intensity, where, pass_constant=passes),) * len(stack)


def _slice_map(spec: CodecSpec, item: Array, values: Array, where: object) -> IntensityMap:
    """A slice's own map; an empty slice of a scan with contrast takes the scan's."""
    try:
        return intensity_map(item, spec.intensity, where)
    except InputError:
        return intensity_map(values, spec.intensity, where, pass_constant=spec.constant == "pass")


def check_fits(spec: CodecSpec, grid: Grid, channels: int, where: object, *, is_series: bool = False) -> None:
    """Raise InputError for what the recipe cannot take.

    grid: on the recipe's axes. is_series: the channels are volumes of a 4-D scan.
    """
    shape = grid.shape
    if channels != spec.image_channels:
        takes = f"{spec.image_channels} channel{'s' if spec.image_channels > 1 else ''}"
        hint = "choose one with --volume, or let the recipe take each with `data.map: t`"
        what = f"expected {takes}, got {channels} in an image of shape {shape}"
        raise InputError(where, what, hint if is_series and spec.image_channels == 1 else "")
    if spec.dims == 1 and max(shape[1:]) > 1:
        raise InputError(where, f"expected a signal, of one axis, got an image of shape {shape}")
    for axis in range(spec.dims):
        if shape[axis] < 2:
            name = spec.axes[axis] if spec.axes else "i"
            raise InputError(where, f"axis {name} has 1 sample, the recipe needs at least 2", "is this another plane?")
    if not grid.is_orthogonal(tuple(range(spec.dims))):
        raise InputError(
            where,
            "sheared grid: its axes do not meet at right angles",
            "bring it to a rectangular grid with `nfops resample --like`",
        )
