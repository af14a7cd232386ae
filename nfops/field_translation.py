"""The field path of `apply`: scan -> working grid -> field operator -> any output grid, in the output's units.

The working grid belongs to the operator, whatever the resolution of the scan, which reaches it through the cubic
spline through its voxels, averaged over cells where those are wider. A volume of a 3-D recipe passes in one piece.
"""

from dataclasses import dataclass

import numpy as np

from nfops.arrays import Array
from nfops.bundle import Bundle
from nfops.codec_spec import CodecSpec
from nfops.coding import encode_image, prepare
from nfops.conditioning import move_latents, with_prediction
from nfops.engines import Engine
from nfops.errors import BundleError
from nfops.field_pairs import WorkingGrid
from nfops.grid import Grid
from nfops.image import Header, Image
from nfops.intensity import IntensityMap, from_channels
from nfops.latents import Latent
from nfops.rendering import Rendering, outside
from nfops.resampling import resample
from nfops.spread import field_spread


@dataclass(frozen=True, eq=False)
class Translation:
    """values: (C', I, J, K) on the working grid, 0..1 or probabilities. view: the scan's own grid, beyond which there
    is nothing. spec: of the target. spread: of an ensemble's members on the working grid, None for other operators.
    """

    values: Image
    view: Grid
    spec: CodecSpec
    spread: float | None = None


def translate_field(
    engine: Engine,
    bundle: Bundle,
    image: Image,
    where: object = "image",
    whole: Image | None = None,
    *,
    encoded: Latent | None = None,
) -> Translation:
    """A scan through a bundle's field operator; `where` and `whole` as for `encode_image`, which has checked the scan.

    Slices in which there is nothing are left empty. encoded: the scan's latents where they are at hand; an operator
    with `condition: latent` sees what ridge makes of them. Raises BundleError where the manifest does not say which
    working grid the operator needs.
    """
    source, target = bundle.specs["source"], bundle.specs["target"]
    aligned = image.reoriented(source.axes)
    prepared = prepare(source, aligned, where, whole)
    known = np.ones_like(prepared.values[:, 0]) if prepared.weights is None else prepared.weights
    unit = np.ones(source.dims) if source.radius_mm is not None else aligned.grid.extent_mm[: source.dims] / 2
    working = _working_grid(bundle)
    grid = _about(aligned.grid, working, unit)
    channels = np.concatenate([prepared.values * known[:, None], known[:, None]], axis=1).astype(np.float32)
    method = "linear" if source.is_label else "cubic"
    on_grid = resample(aligned.with_values(_as_volume(channels, source.dims)), grid, method)
    values = _as_batch(on_grid.values, source.dims)
    if source.is_label or source.intensity.map != "none":  # a spline overshoots
        np.clip(values, 0, 1, out=values)
    np.clip(values[:, -1], 0, 1, out=values[:, -1])
    spacing = np.array(working.spacing)
    if bundle.condition == "latent":
        latents = (encoded or encode_image(engine, bundle.side("source"), image, where, whole)).vectors
        values = with_prediction(engine, bundle.side("target"), working, values, move_latents(bundle, latents))
    made, deviation = engine.operate_field(values, positions_on(values.shape[2:], spacing), spacing)
    shown = ~prepared.is_empty
    made[~shown] = outside(target, made[~shown].shape)
    spread = None if deviation is None or not shown.any() else field_spread(deviation[shown], values[shown, -1])
    return Translation(Image(_as_volume(made, target.dims), grid), aligned.grid, target, spread)


def draw_translation(translation: Translation, grid: Grid, *, soft: bool = False) -> Rendering:
    """A translation on any grid, as `rendering.render` does it. soft: probabilities in place of labels."""
    spec = translation.spec
    values = resample(translation.values, grid, "cubic").values
    view = Image(np.ones((1, *translation.view.shape), np.float32), translation.view)
    inside = resample(view, grid, "nearest").values[0] > 0
    is_label = spec.is_label and not soft
    if spec.is_label:
        values = np.clip(values, 0, 1)
        if spec.head == "softmax":  # cubic interpolation leaves the sum at about 1
            values /= np.maximum(values.sum(axis=0), 1e-6)
        values[:, ~inside] = np.eye(len(values), 1) if spec.head == "softmax" else 0
        shown = from_channels(values, spec.head, spec.labels) if is_label else values
    else:
        values[:, ~inside] = 0
        ends = np.array(spec.range_low), np.array(spec.range_high)
        shown = IntensityMap(*ends, is_clipped=spec.intensity.map != "none").inverse(values)
    header = Header(intent=(1002, "labels") if is_label else (0, ""))
    return Rendering(grid, header, len(shown), lambda: iter([shown]))


def _working_grid(bundle: Bundle) -> WorkingGrid:
    try:
        plain = bundle.operator["working"]
        working = WorkingGrid(tuple(float(step) for step in plain["spacing"]), int(plain["multiple"]))
        is_usable = min(working.spacing) > 0 and working.multiple > 0
    except (KeyError, TypeError, ValueError) as error:
        raise BundleError(bundle.path or "bundle", "its manifest states no working grid of its operator") from error
    if not is_usable or len(working.spacing) != bundle.specs["source"].dims:
        raise BundleError(bundle.path or "bundle", f"no working grid has spacing {working.spacing}")
    return working


def _about(grid: Grid, working: WorkingGrid, unit: Array) -> Grid:
    """The working grid about the centre of an aligned one; unit: (d,) mm that a spacing of 1 stands for."""
    dims = len(unit)
    i, j, k = *working.shape(tuple(grid.extent_mm[:dims] / unit)), *grid.shape[dims:]
    a, b, c = *(float(s) for s in np.array(working.spacing) * unit), *(float(s) for s in grid.spacing_mm[dims:])
    return grid.centred((i, j, k), (a, b, c))


def positions_on(shape: tuple[int, ...], spacing: Array) -> Array:
    """(*shape, d) from the centre, float32."""
    axes = [(np.arange(n) + 0.5 - n / 2) * step for n, step in zip(shape, spacing, strict=True)]
    return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).astype(np.float32)


def _as_volume(batch: Array, dims: int) -> Array:
    """(B, C, *shape) -> (C, I, J, K): slices last, or the one volume or signal."""
    if dims == 2:
        return np.ascontiguousarray(np.moveaxis(batch, 0, -1))
    return np.asarray(batch[0].reshape(*batch.shape[1:], *[1] * (3 - dims)))


def _as_batch(volume: Array, dims: int) -> Array:
    """The way back."""
    if dims == 2:
        return np.ascontiguousarray(np.moveaxis(volume, -1, 0))
    return volume.reshape(1, *volume.shape[: 1 + dims]).copy()
