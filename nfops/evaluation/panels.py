"""What a report shows of a case: one slice of source, prediction and truth, as radiologists look at it, or a signal."""

from dataclasses import dataclass

import numpy as np

from nfops.arrays import Array
from nfops.codec_spec import CodecSpec
from nfops.cohort import Pair
from nfops.evaluation.model import Model
from nfops.image import Image
from nfops.intensity import IntensityMap


@dataclass(frozen=True, eq=False)
class Panels:
    """source, prediction, truth: (rows, columns) or (rows, columns, 3) float32, or (samples,) of a signal.

    Intensities are on 0..1, labels as they are. extent_mm: (width, height) of the field of view, 1 x 1 of a signal.
    """

    source: Array
    prediction: Array
    truth: Array
    extent_mm: tuple[float, float]
    is_label: bool
    labels: tuple[int, ...]


def panels_of(model: Model, pair: Pair, drawn: Image) -> Panels:
    """Of a prediction: the slice with most of the truth's labels, or the middle one."""
    source, output, side = model.bundle.specs["source"], model.spec, model.output
    truth, scale = pair.image(side), model.scale("source", pair)
    where = _slice_position(output, truth)
    seen = pair.source.values if scale is None else scale.forward(pair.source.values)
    if source.is_label:
        seen = seen / max(float(np.max(seen)), 1.0)
    shown = [pair.source.with_values(np.asarray(seen, np.float32))]
    for image in (drawn, truth):
        values = image.values
        if not output.is_label:
            ends = np.array(output.range_low), np.array(output.range_high)
            values = (scale if side == "source" and scale is not None else IntensityMap(*ends)).forward(values)
        shown.append(image.with_values(np.asarray(values, np.float32)))
    cuts = [_cut(output.dims, image, where) for image in shown]
    return Panels(cuts[0], cuts[1], cuts[2], _extent(output.dims, truth), output.is_label, output.labels)


def _upright(dims: int, image: Image) -> Image:
    """A volume with the patient's left at the right and anterior at the top; a slice as its recipe has it."""
    return image.reoriented(("L", "P", "S")) if dims == 3 else image


def _slice_position(spec: CodecSpec, truth: Image) -> float:
    """Where the slice to show lies, from 0 to 1 of the depth."""
    if spec.dims < 3:
        return 0.5
    upright = _upright(spec.dims, truth)
    depth = upright.grid.shape[2]
    if not spec.is_label:
        return 0.5
    filled = np.count_nonzero(upright.values[0], axis=(0, 1))
    return (int(filled.argmax()) + 0.5) / depth if filled.any() else 0.5


def _cut(dims: int, image: Image, where: float) -> Array:
    """(rows, columns[, 3]), or (samples,) of a signal's first channel."""
    values = _upright(dims, image).values
    if dims == 1:
        return np.asarray(values[0, :, 0, 0])
    cut = values[..., min(int(where * values.shape[3]), values.shape[3] - 1)]
    if len(cut) == 3:
        return np.asarray(cut.transpose(2, 1, 0))
    return np.asarray(cut[0].T)


def _extent(dims: int, truth: Image) -> tuple[float, float]:
    if dims == 1:
        return 1.0, 1.0
    extent = _upright(dims, truth).grid.extent_mm
    return float(extent[0]), float(extent[1])
