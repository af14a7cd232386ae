"""What a bundle reaches on scans whose truth is known, beside its ceilings and the simplest baseline."""

from dataclasses import dataclass, replace

import numpy as np

from nfops.arrays import Array
from nfops.bundle import Bundle
from nfops.codec_spec import CodecSpec
from nfops.coding import encode_image
from nfops.cohort import Pair
from nfops.engines import Engine
from nfops.image import Image
from nfops.metrics import dice, psnr
from nfops.rendering import render


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

    def target_metrics(vectors: Array) -> dict[str, float]:
        drawn = render(engine, target, replace(encoded, vectors=vectors), pair.target.grid).image()
        return compare(target.spec, drawn, pair.target)

    redrawn = render(engine, source, encoded, pair.source.grid, "scan").image()
    return Score(
        pair.scan_id,
        pair.patient,
        result=target_metrics(engine.operate(encoded.vectors)),
        ceiling=target_metrics(truth.vectors),
        mean=target_metrics(np.broadcast_to(mean_latent, encoded.vectors.shape[:1] + mean_latent.shape)),
        source_ceiling=compare(source.spec, redrawn, pair.source),
    )


def compare(spec: CodecSpec, drawn: Image, truth: Image) -> dict[str, float]:
    """Metrics of a drawn image: PSNR with both clipped to the spec's range, or Dice, whole and per label."""
    if not spec.is_label:
        low, high = min(spec.range_low), max(spec.range_high)
        pair = (drawn.values, truth.values)
        if spec.intensity.map != "none":
            pair = (np.clip(drawn.values, low, high), np.clip(truth.values, low, high))
        return {"psnr": psnr(*pair, high - low)}
    if spec.head == "sigmoid":
        wanted = np.isin(truth.values, spec.labels) if spec.labels else truth.values > 0
        return {"dice": dice(drawn.values > 0, wanted)}
    others = [label for label in spec.labels if label != 0]
    metrics = {"dice": dice(np.isin(drawn.values, others), np.isin(truth.values, others))}
    if len(others) > 1:
        metrics |= {f"dice_{label}": dice(drawn.values == label, truth.values == label) for label in others}
    return metrics


def summarise(scores: list[Score]) -> dict[str, dict[str, float]]:
    """Means over the pairs, by kind ("result", "ceiling", ...) and metric."""
    kinds = ("result", "ceiling", "mean", "source_ceiling")
    return {
        kind: {name: float(np.mean([getattr(s, kind)[name] for s in scores])) for name in getattr(scores[0], kind)}
        for kind in kinds
    }
