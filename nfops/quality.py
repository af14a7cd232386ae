"""Whether a scan looks like those that a bundle was trained on: what the source field leaves of it, how far the
members of an ensemble lie apart, its size and its units.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nfops.bundle import Bundle
from nfops.codec_spec import CodecSpec
from nfops.image import Image
from nfops.latents import Latent

SMALLEST_VIEW, LARGEST_VIEW = 2.0, 3.0
"""A field of view this many times shorter along an axis, or larger in all, than the training's is unlike it."""
FLAT = 0.03
"""A slice whose values deviate less than this, of 0 to 1, shows next to nothing."""
ACROSS = 3.0
"""Voxels this many times wider within a 2-D recipe's plane than across it were acquired in another plane."""
UNLIKE = 1.75
"""A scan whose residual is this many times the 99th percentile of the training scans is unlike them: validation scans
of the shipped recipes reach 1.5, other parts of the body 2 to 6.
"""
UNLIKE_SPREAD = {"validation": 1.75, "training": 2.5}
"""The same for the spread, by whose 99th percentile it is: brain slices of patients left out reach 1.6 and 2.8 times
these, their whole scans 1.1 and 1.2; chest X-rays 1.6 to 7, spinal cords 1.5 to 5.
"""

SMALLEST_SHARE = 0.05
"""A scan that covers less than this of the range of values that the recipe declares is in other units."""


@dataclass(frozen=True)
class Quality:
    """What is known of one scan. source_residual: mean loss that the source field leaves. spread: of the members'
    predictions (0..1 or probabilities), None for an operator without members. limits: None where the bundle has none.

    reasons: in words, why it is unlike the training's; empty where nothing was found. slices: of a 2-D recipe, or 1;
    empty_slices: how many of them show nothing, and are left out of all this and of the prediction.
    """

    source_residual: float
    source_residual_limit: float | None
    spread: float | None
    spread_limit: float | None
    reasons: tuple[str, ...]
    slices: int
    empty_slices: int

    def to_plain(self) -> dict[str, Any]:
        """As JSON-able data."""
        return {
            "source_residual": self.source_residual,
            "source_residual_limit": self.source_residual_limit,
            "spread": self.spread,
            "spread_limit": self.spread_limit,
            "unlike_training": bool(self.reasons),
            "reasons": list(self.reasons),
            "empty_slices": self.empty_slices,
        }

    @property
    def left_out(self) -> tuple[str, ...]:
        """What to say of empty slices, if there are any."""
        is_some = self.empty_slices > 0
        return (f"{self.empty_slices} of {self.slices} slices show nothing and are left empty",) * is_some

    @property
    def excess(self) -> float:
        """How many times its limit the residual is, or the spread; 0 where neither has one."""
        found = ((self.source_residual, self.source_residual_limit), (self.spread, self.spread_limit))
        return max((value / limit for value, limit in found if value is not None and limit), default=0.0)


def judge_scan(bundle: Bundle, image: Image, encoded: Latent, spread: float | None) -> Quality:
    """Compare a scan with those that a bundle was trained on."""
    is_empty = encoded.is_empty
    residual = float(encoded.residual[is_empty if is_empty.all() else ~is_empty].mean())
    usual, usual_spread = (bundle.operator.get(key, {}) for key in ("source_residual", "spread"))
    limit = _times(UNLIKE, usual.get("p99"))
    spread_limit = _times(UNLIKE_SPREAD.get(usual_spread.get("of", "")), usual_spread.get("p99"))
    reasons = []
    if limit is not None and residual > limit:
        known = f"of the training scans at most about {usual['p99']:.2g}"
        reasons.append(f"the source field leaves {residual:.2g} of it unexplained, {known}")
    if spread_limit is not None and spread is not None and spread > spread_limit:
        known = f"on {usual_spread['of']} scans at most about {usual_spread['p99']:.2g}"
        reasons.append(f"the members of the ensemble lie {spread:.2g} apart on it, {known}")
    spec = bundle.specs["source"]
    found = [f"the scan looks unlike those the recipe was trained on: {reason}" for reason in reasons]
    outer = [other_units(spec, image) or _other_size(spec, encoded), _other_plane(spec, encoded)]
    outer.append(_flat_slices(spec, image, encoded))
    every = (*(reason for reason in outer if reason), *found)
    return Quality(residual, limit, spread, spread_limit, every, len(is_empty), int(is_empty.sum()))


def _times(factor: float | None, p99: float | None) -> float | None:
    return None if factor is None or p99 is None else factor * p99


def worst(each: Sequence[Quality]) -> tuple[int, Quality]:
    """Of the volumes of a 4-D scan, that which is least like the training's, and its number from 0."""
    number = max(range(len(each)), key=lambda n: (bool(each[n].reasons), each[n].excess))
    return number, each[number]


def _flat_slices(spec: CodecSpec, image: Image, encoded: Latent) -> str:
    """What to say of slices of a volume that are not empty, and yet flat: there was none in the training."""
    if spec.dims != 2 or spec.is_label or spec.intensity.map != "percentile":
        return ""
    slices, flat = np.moveaxis(image.reoriented(spec.axes).values, -1, 0), 0
    for item, scale, is_empty in zip(slices, encoded.scales, encoded.is_empty, strict=True):
        shown = scale.forward(item[:, np.isfinite(item).all(axis=0)])
        flat += not is_empty and (not shown.size or float(shown.std(axis=1).max()) < FLAT)
    if not flat or len(slices) == 1:
        return ""
    return f"{flat} of {len(slices)} slices show next to nothing: what is predicted there is made up"


def other_units(spec: CodecSpec, image: Image) -> str:
    """What to say of a scan that hardly varies within the range of values that the recipe declares (C18)."""
    low, high = spec.intensity.low, spec.intensity.high
    values = image.values[np.isfinite(image.values)]
    if spec.intensity.map != "range" or not values.size:
        return ""
    least, most = float(values.min()), float(values.max())
    if min(most, high) - max(least, low) >= SMALLEST_SHARE * (high - low):
        return ""
    what = f"its values are from {least:g} to {most:g}, the recipe declares {low:g} to {high:g}"
    return f"{what}: are they in the right units?"


def _other_plane(spec: CodecSpec, encoded: Latent) -> str:
    """What to say of thick slices that a 2-D recipe cuts across, as a sagittal series into axial strips."""
    steps = encoded.grid.spacing_mm
    if spec.dims != 2 or len(encoded.vectors) == 1 or steps[:2].max() < ACROSS * steps[2]:
        return ""
    what = f"{steps[:2].max():.2g} mm within the recipe's plane, {steps[2]:.2g} mm across it"
    return f"its voxels are {what}: was it acquired in another plane, of which the recipe sees narrow strips?"


def _other_size(spec: CodecSpec, encoded: Latent) -> str:
    """What to say of a scan whose field of view is much smaller or larger than the training's, "" of others."""
    if spec.radius_mm is None:
        return ""
    trained = 2 * np.array(spec.half_extent) * spec.radius_mm
    ratio = encoded.grid.extent_mm[: spec.dims] / trained
    if ratio.min() >= 1 / SMALLEST_VIEW and np.minimum(1, 1 / ratio).prod() >= 1 / LARGEST_VIEW:
        return ""
    seen, known = ("x".join(f"{e:.0f}" for e in ends) for ends in (ratio * trained, trained))
    return f"its field of view is {seen} mm, the recipe was trained on {known} mm: is the spacing right?"
