"""Encode -> operator -> decode on one scan, or a field operator on the scan itself, at any output grid."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from nfops.arrays import Array
from nfops.bundle import Bundle, load_bundle
from nfops.codec_spec import CodecSpec
from nfops.coding import check_fits, encode_image
from nfops.engines import Engine, open_engine_to_apply
from nfops.errors import BundleError, InputError, UsageError
from nfops.field_translation import draw_translation, translate_field
from nfops.grid import Grid
from nfops.image import Image
from nfops.latents import Latent
from nfops.quality import Quality, judge_scan, other_units, worst
from nfops.rendering import Rendering, Units, render
from nfops.resampling import choose_grid
from nfops.spread import latent_spreads, of_whole


@dataclass(frozen=True)
class GridRequest:
    """The output grid asked for, at most one of: shape (1 to 3 numbers, 0 keeps an axis), spacing, an image's grid.

    spacing_mm of one number is isotropic: in the plane of a 2-D recipe, along all axes of a 3-D one.
    """

    shape: tuple[int, ...] | None = None
    spacing_mm: tuple[float, ...] | None = None
    like: Image | None = None


@dataclass(frozen=True, eq=False)
class Translator:
    """A bundle with the engine that runs it: load once, apply to many scans."""

    bundle: Bundle
    engine: Engine


def open_translator(bundle_dir: Path, device: str = "auto", engine: str = "auto") -> Translator:
    """Load a trained bundle. Raises BundleError where there is none, saying how to train it, or without a target.

    device, engine: as for `open_engine_to_apply`.
    """
    bundle = load_bundle(bundle_dir)
    bundle.side("target")
    if not bundle.has_operator:
        raise BundleError(
            bundle_dir,
            "this bundle has no operator yet",
            "run `nfops train-operator` (from latents: `nfops encode` first)",
        )
    return Translator(bundle, open_engine_to_apply(bundle, device, engine))


def apply(
    translator: Translator, image: Image, request: GridRequest, *, soft: bool = False, where: object = "image"
) -> tuple[Rendering, Latent, Quality]:
    """The prediction for one scan, the scan's latents, and how like those of the training it is.

    soft: probabilities in place of labels.
    """
    source, target = translator.bundle.side("source"), translator.bundle.side("target")
    if source.spec.intensity.strict and (what := other_units(source.spec, image)):
        raise InputError(where, what, "the recipe's `source.intensity.strict` refuses such scans")
    grid = output_grid(image, source.spec, request)
    encoded = encode_image(translator.engine, source, image, where)
    if translator.bundle.acts_on_fields:
        translated = translate_field(translator.engine, translator.bundle, image, where, encoded=encoded)
        drawn, spread = draw_translation(translated, grid, soft=soft), translated.spread
    else:
        spreads = latent_spreads(translator.engine, target.spec, encoded.vectors)
        shown = ~encoded.is_empty
        spread = None if spreads is None or not shown.any() else of_whole(spreads[shown])
        predicted = replace(encoded, vectors=translator.engine.operate(encoded.vectors))
        units: Units = "probability" if soft else "output-range"
        drawn = render(translator.engine, target, predicted, grid, units, leaves_empty=True)
    quality = judge_scan(translator.bundle, image, encoded, spread)
    kept = replace(
        image.header,
        is_scaled=False,
        is_colour=False,
        time_step=(0.0, 0),
        intent=drawn.header.intent,
        warnings=(*image.header.warnings, *quality.reasons, *quality.left_out),
    )
    return replace(drawn, header=kept), encoded, quality


def check_described(
    translator: Translator, described: Mapping[str, Any], *, takes_one: bool, where: object = "image"
) -> None:
    """Raise InputError for a scan that `apply` would refuse, by what `describe_image` says of it.

    takes_one: the volumes of a 4-D scan are taken one by one.
    """
    spec = translator.bundle.specs["source"]
    grid = Grid(tuple(described["shape"]), np.array(described["affine"]))
    channels = spec.image_channels if takes_one else described["channels"]
    is_series = described["kind"] in ("dicom", "nifti")
    check_fits(spec, grid.reoriented(grid.reorientation(spec.axes)), channels, where, is_series=is_series)


def apply_to_each(
    translator: Translator, image: Image, request: GridRequest, *, soft: bool = False, where: object = "image"
) -> tuple[Rendering, Latent, Quality]:
    """As `apply`, for each volume of a 4-D scan by itself: the predictions as a 4-D image, the latents one by one, the
    quality of the worst.
    """
    volumes = [Image(values[None], image.grid, image.header) for values in image.values]
    drawn, encoded, qualities = zip(
        *(
            apply(translator, volume, request, soft=soft, where=f"{where}, volume {t + 1}")
            for t, volume in enumerate(volumes)
        ),
        strict=True,
    )
    first: Rendering = drawn[0]
    if first.channels != 1:
        raise UsageError("--soft", f"gives {first.channels} channels, for which a 4-D scan has no axis left")
    number, quality = worst(qualities)
    told = [f"volume {number + 1}: {reason}" for reason in quality.reasons]
    left_out = sum(each.empty_slices for each in qualities)
    quality = replace(quality, slices=sum(each.slices for each in qualities), empty_slices=left_out)
    warnings = (*image.header.warnings, *told, *quality.left_out)
    header = replace(first.header, ndim=4, time_step=image.header.time_step, warnings=warnings)
    latents = replace(
        encoded[0],
        vectors=np.concatenate([each.vectors for each in encoded]),
        scales=tuple(scale for each in encoded for scale in each.scales),
        residual=np.concatenate([each.residual for each in encoded]),
        is_empty=np.concatenate([each.is_empty for each in encoded]),
    )

    def slabs() -> Iterator[Array]:
        yield np.concatenate([each.image().values for each in drawn])

    return Rendering(first.grid, header, len(drawn), slabs), latents, quality


def output_grid(image: Image, spec: CodecSpec, request: GridRequest) -> Grid:
    """The grid that a request means for this scan, in the scan's own axes."""
    slice_axis = image.grid.reorientation(spec.axes).order[2] if spec.dims == 2 else image.header.slice_axis
    spacing = request.spacing_mm
    if spacing is not None and len(spacing) == 1:
        spacing = spacing * spec.dims
    return choose_grid(image.grid, request.shape, spacing, request.like.grid if request.like else None, slice_axis)
