"""What a bundle reaches on scans whose truth is known, beside its ceilings and the simplest baseline."""

from dataclasses import dataclass, replace

import numpy as np

from nfops.arrays import Array
from nfops.bundle import Bundle
from nfops.codec_spec import CodecSpec
from nfops.coding import encode_image
from nfops.cohort import Pair
from nfops.engines import Engine
from nfops.field_translation import draw_translation, translate_field
from nfops.image import Image
from nfops.intensity import IntensityMap
from nfops.metrics import dice, iou, nrmse, psnr, ssim
from nfops.rendering import render

OF_INTENSITIES, OF_LABELS = ("psnr", "ssim", "nrmse"), ("dice", "iou")
SIMPLEST = ("psnr", "dice")
"""The metric of each kind of image that training reports."""


@dataclass(frozen=True)
class Score:
    """Metrics of one pair, by name ("psnr"; "dice" of all labels together, "dice_2" of label 2...).

    result: the operator's prediction. ceiling: the target's own encode-decode, what no operator can beat.
    mean: the mean target latent, decoded. source_ceiling: the source's encode-decode.
    """

    scan_id: str
    patient: str
    result: dict[str, float]
    ceiling: dict[str, float]
    mean: dict[str, float]
    source_ceiling: dict[str, float]


def score_pair(engine: Engine, bundle: Bundle, pair: Pair, mean_latent: Array) -> Score:
    """Score one pair at the target's own resolution. mean_latent: (P_out,) of the training scans."""
    source, target = bundle.side("source"), bundle.side("target")
    encoded = encode_image(engine, source, pair.source, pair.scan_id, pair.source_scan)
    truth = encode_image(engine, target, pair.target, pair.scan_id, pair.target_scan)

    def target_metrics(vectors: Array, *, is_predicted: bool = False) -> dict[str, float]:
        latent, grid = replace(encoded, vectors=vectors), pair.target.grid
        drawn = render(engine, target, latent, grid, leaves_empty=is_predicted).image()
        return compare(target.spec, drawn, pair.target)

    if bundle.acts_on_fields:
        translated = translate_field(engine, bundle, pair.source, pair.scan_id, pair.source_scan, encoded=encoded)
        result = compare(target.spec, draw_translation(translated, pair.target.grid).image(), pair.target)
    else:
        result = target_metrics(engine.operate(encoded.vectors), is_predicted=True)
    redrawn = render(engine, source, encoded, pair.source.grid, "scan").image()
    return Score(
        pair.scan_id,
        pair.patient,
        result=result,
        ceiling=target_metrics(truth.vectors),
        mean=target_metrics(np.broadcast_to(mean_latent, encoded.vectors.shape[:1] + mean_latent.shape)),
        source_ceiling=compare(source.spec, redrawn, pair.source),
    )


def compare(
    spec: CodecSpec,
    drawn: Image,
    truth: Image,
    *,
    metrics: tuple[str, ...] = SIMPLEST,
    scale: IntensityMap | None = None,
) -> dict[str, float]:
    """Those of `metrics` that suit a side's images, of a drawn one against the truth.

    Intensities: both clipped to the spec's range; with a `scale`, both mapped by it to 0..1 first. Labels: all of
    them together ("dice"), and each by itself ("dice_2") where there are several.
    """
    if spec.is_label:
        return _compare_labels(spec, drawn.values[0], truth.values[0], metrics)
    if scale is not None:
        return _compare_intensities(spec, scale.forward(drawn.values), scale.forward(truth.values), 1.0, metrics)
    low, high = min(spec.range_low), max(spec.range_high)
    values = [drawn.values, truth.values]
    if spec.intensity.map != "none":
        values = [np.clip(part, low, high) for part in values]
    return _compare_intensities(spec, values[0], values[1], high - low, metrics)


def chosen_metrics(spec: CodecSpec, wanted: tuple[str, ...]) -> tuple[str, ...]:
    """Those wanted that suit a side's images, in their order; all that suit where none of them does."""
    suiting = OF_LABELS if spec.is_label else OF_INTENSITIES
    return tuple(name for name in wanted if name in suiting) or suiting


def _compare_intensities(
    spec: CodecSpec, drawn: Array, truth: Array, data_range: float, metrics: tuple[str, ...]
) -> dict[str, float]:
    """(C, I, J, K) both; SSIM in the recipe's dimensions, of a slice in two. What the truth does not know is right."""
    known = np.isfinite(truth)
    if not known.all():
        drawn, truth = (np.where(known, values, 0) for values in (drawn, truth))
    flat = [values.reshape(len(values), *values.shape[1 : 1 + spec.dims]) for values in (drawn, truth)]
    found = {}
    for name in metrics:
        if name == "psnr":
            found[name] = psnr(drawn, truth, data_range)
        elif name == "ssim":
            found[name] = ssim(flat[0], flat[1], data_range)
        elif name == "nrmse":
            found[name] = nrmse(drawn, truth)
    return found


def _compare_labels(spec: CodecSpec, drawn: Array, truth: Array, metrics: tuple[str, ...]) -> dict[str, float]:
    """Label maps (I, J, K) both."""
    masks: dict[str, tuple[Array, Array]] = {}
    if spec.head == "sigmoid":
        masks[""] = drawn > 0, np.isin(truth, spec.labels) if spec.labels else truth > 0
    else:
        others = [label for label in spec.labels if label != 0]
        masks[""] = np.isin(drawn, others), np.isin(truth, others)
        if len(others) > 1:
            masks |= {f"_{label}": (drawn == label, truth == label) for label in others}
    measures = {"dice": dice, "iou": iou}
    return {
        f"{name}{label}": measures[name](*pair) for name in metrics if name in measures for label, pair in masks.items()
    }


def summarise(scores: list[Score]) -> dict[str, dict[str, float]]:
    """Means over the pairs, by kind ("result", "ceiling", ...) and metric."""
    kinds = ("result", "ceiling", "mean", "source_ceiling")
    return {
        kind: {name: float(np.mean([getattr(s, kind)[name] for s in scores])) for name in getattr(scores[0], kind)}
        for kind in kinds
    }
