"""Intensity maps: a scan's own units <-> the 0..1 that a field is trained on, and label values <-> channels."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from nfops.arrays import Array
from nfops.errors import InputError

SAMPLE_SIZE, SAMPLE_MARGIN = 1 << 12, 1 << 6
"""Of large scans: how many values are sampled to find a percentile's neighbourhood, and half its width in samples."""


@dataclass(frozen=True)
class IntensitySettings:
    """Which two values become 0 and 1.

    map: "percentile" (low and high in percent of the scan's own values), "range" (low and high in its units),
    "none" (values as they are). over: the percentiles of the whole "scan", or of each "slice" of a 2-D recipe.
    strict: a scan in other units than a "range" declares is refused, not only warned about.
    """

    map: Literal["percentile", "range", "none"] = "percentile"
    low: float = 0.1
    high: float = 99.9
    over: Literal["scan", "slice"] = "scan"
    strict: bool = False

    def __post_init__(self) -> None:
        if self.low >= self.high:
            raise ValueError(f"low {self.low} must be below high {self.high}")
        if self.map == "percentile" and not 0 <= self.low < self.high <= 100:
            raise ValueError(f"percentiles are from 0 to 100, got {self.low} and {self.high}")


@dataclass(frozen=True, eq=False)
class IntensityMap:
    """low, high: (C,) the values, in the scan's units, that become 0 and 1."""

    low: Array
    high: Array
    is_clipped: bool = True

    def forward(self, values: Array) -> Array:
        """(C, ...) in the scan's units -> float32 on 0..1; values beyond both ends are clipped."""
        low, span = self._ends(values.ndim)
        scaled = np.subtract(values, low, dtype=np.float32)
        scaled /= span
        return np.asarray(np.clip(scaled, 0, 1, out=scaled) if self.is_clipped else scaled)

    def inverse(self, values: Array) -> Array:
        """(C, ...) on 0..1 -> float32 in units."""
        low, span = self._ends(values.ndim)
        scaled = np.array(values, np.float32, order="K")
        if self.is_clipped:
            np.clip(scaled, 0, 1, out=scaled)
        scaled *= span
        scaled += low
        return scaled

    def _ends(self, ndim: int) -> tuple[Array, Array]:
        """The low end and the span, float32 (C, 1, ...)."""
        shape = (-1,) + (1,) * (ndim - 1)
        span = (self.high - self.low).astype(np.float32)
        return self.low.astype(np.float32).reshape(shape), span.reshape(shape)


def intensity_map(
    values: Array, settings: IntensitySettings, where: object = "image", *, pass_constant: bool = False
) -> IntensityMap:
    """The map of one scan (or slice), values (C, ...).

    Raises InputError for a channel without contrast, which `pass_constant` lets through as zeros.
    """
    channels = len(values)
    if settings.map == "none":
        return IntensityMap(np.zeros(channels), np.ones(channels), is_clipped=False)
    if settings.map == "range":
        return IntensityMap(np.full(channels, settings.low), np.full(channels, settings.high))
    flat = values.reshape(channels, -1)
    ends = np.stack([_percentiles(row, settings) for row in flat])
    flat_ones = ends[:, 0] >= ends[:, 1]
    if flat_ones.any() and pass_constant:
        ends[flat_ones, 1] = ends[flat_ones, 0] + 1
    elif flat_ones.any():
        level = ends[flat_ones][0, 0]
        raise InputError(
            where,
            f"no contrast: percentiles {settings.low:g} and {settings.high:g} are both {level:g}",
            "is the image empty? training with `source.constant: pass` lets it through",
        )
    return IntensityMap(ends[:, 0], ends[:, 1])


def _percentiles(row: Array, settings: IntensitySettings) -> Array:
    """The two percentiles of the finite ones of (N,) values."""
    finite = np.isfinite(row)
    kept = row if finite.all() else row[finite]
    return np.array([_percentile(kept, p) for p in (settings.low, settings.high)]) if len(kept) else np.zeros(2)


def _percentile(values: Array, percent: float) -> float:
    """As np.percentile, exactly; of many values only those near it, by a sample's word, are put in order."""
    rank = percent / 100 * (len(values) - 1)
    step = len(values) // SAMPLE_SIZE
    if step > 1:
        sample = np.sort(values[::step])
        middle = round(rank / step)
        low, high = (sample[min(max(middle + way * SAMPLE_MARGIN, 0), len(sample) - 1)] for way in (-1, 1))
        below = int(np.count_nonzero(values < low))
        near = values[(values >= low) & (values <= high)]
        if below <= rank and rank + 1 < below + len(near):
            values, rank = near, rank - below
    first = int(rank)
    ends = [first, min(first + 1, len(values) - 1)]
    lower, upper = np.partition(values, ends)[ends].astype(np.float64)
    return float(lower + (upper - lower) * (rank - first))


def to_channels(values: Array, head: str, labels: Sequence[int]) -> Array:
    """A label map (1, ...) -> float32 channels.

    sigmoid: (1, ...), 1 where the value is one of `labels`, or, without labels, where it is above 0.
    softmax: (K, ...) one-hot in the order of `labels`; a value that is none of them counts as the first.
    """
    label_map = values[0]
    if head == "sigmoid":
        hit = np.isin(label_map, labels) if labels else label_map > 0
        return np.asarray(hit, dtype=np.float32)[None]
    hot = np.stack([label_map == label for label in labels]).astype(np.float32)
    hot[0] += 1 - hot.sum(axis=0)
    return hot


def from_channels(probabilities: Array, head: str, labels: Sequence[int]) -> Array:
    """Probabilities (C, ...) -> a label map (1, ...): 0 and 1 for sigmoid (0 and the label, where one is named)."""
    if head == "sigmoid":
        return np.asarray((probabilities > 0.5) * (labels[0] if len(labels) == 1 else 1), dtype=np.float32)
    return np.asarray(np.array(labels)[probabilities.argmax(axis=0)], dtype=np.float32)[None]
