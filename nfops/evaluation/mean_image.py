"""The simplest prediction: the mean of the training images, the same for every scan."""

from dataclasses import dataclass

import numpy as np

from nfops import splines
from nfops.arrays import Array
from nfops.codec_spec import CodecSpec
from nfops.coding import prepare
from nfops.cohort import Pair
from nfops.evaluation.pool import Drawn
from nfops.frame import Frame
from nfops.image import Image
from nfops.intensity import IntensityMap, from_channels
from nfops.sampling import lattice_of


@dataclass(frozen=True, eq=False)
class MeanImage:
    """The mean of the training images on nodes: intensities on 0..1, or probabilities. values: (C, *nodes)."""

    values: Array
    spec: CodecSpec
    side: str
    name: str = "mean"

    def predict(self, pair: Pair) -> Image:
        """The same for every scan: about its centre, in the output's units or those of the scan itself."""
        spec, truth = self.spec, pair.image(self.side)
        frame = Frame.of_scan(truth.grid, spec.dims, spec.radius_mm)
        lattice = lattice_of(truth.grid, frame, spec.spacing)
        drawn = splines.evaluate(self.values, np.array(spec.half_extent), lattice)
        drawn = drawn.reshape(len(drawn), *truth.grid.shape)
        if spec.is_label:
            return truth.with_values(from_channels(drawn, spec.head, spec.labels))
        scale = self._scale(pair)
        return truth.with_values(scale.inverse(np.asarray(drawn, np.float32)))

    def _scale(self, pair: Pair) -> IntensityMap:
        if self.side == "source":
            return prepare(self.spec, pair.source, pair.scan_id, pair.source_scan).scales[0]
        low, high = np.array(self.spec.range_low), np.array(self.spec.range_high)
        return IntensityMap(low, high, is_clipped=self.spec.intensity.map != "none")


def mean_image(spec: CodecSpec, side: str, drawn: list[Drawn]) -> MeanImage:
    """From the scans as they are, without their copies; nodes that none covers take the mean of the others."""
    total = np.zeros((spec.channels, *spec.domain.nodes))
    count = np.zeros(spec.domain.nodes)
    for one in drawn:
        total += one.values[0].astype(np.float64) * one.coverage[0]
        count += one.coverage[0]
    mean = total / np.maximum(count, 1)
    mean[:, count == 0] = mean[:, count > 0].mean(axis=1, keepdims=True)
    return MeanImage(mean.astype(np.float32), spec, side)
