"""How numbers and names are said in tables, captions and on the terminal."""

import math
from collections.abc import Mapping
from typing import Any

from nfops.metrics import is_better_higher

METRICS = {"psnr": "PSNR", "ssim": "SSIM", "nrmse": "NRMSE", "dice": "Dice", "iou": "IoU"}
KINDS = {
    "result": "Result",
    "target_ceiling": "Ceiling: target encoded and decoded",
    "ridge_best": "Baseline: ridge on functional PCA, best P",
    "ridge": "Baseline: ridge on functional PCA, same P",
    "fpca": "Baseline: functional PCA, same P",
    "mean": "Baseline: mean image",
    "source_ceiling": "Source encoded and decoded",
}
SHORT = {
    "result": "result",
    "target_ceiling": "ceiling",
    "ridge_best": "ridge, best P",
    "ridge": "ridge, same P",
    "fpca": "functional PCA",
    "mean": "mean image",
    "source_ceiling": "source",
}


def metric_name(metric: str, *, with_unit: bool = True) -> str:
    """As in "PSNR (dB)", "Dice", "Dice, label 2"."""
    name, _, label = metric.partition("_")
    said = METRICS.get(name, name) + (" (dB)" if with_unit and name == "psnr" else "")
    return f"{said}, label {label}" if label else said


def direction(metric: str) -> str:
    """An arrow towards the better."""
    return "↑" if is_better_higher(metric) else "↓"


def digits(metric: str) -> int:
    """Decimals worth showing."""
    return 2 if metric == "psnr" else 3


def number(metric: str, value: float | None, *, signed: bool = False) -> str:
    """As in "19.67", "+0.54", or a dash."""
    if value is None or math.isnan(value):
        return "–"
    return f"{value:+.{digits(metric)}f}".replace("-", "−") if signed else f"{value:.{digits(metric)}f}"


def with_interval(metric: str, summary: Mapping[str, Any] | None, *, signed: bool = False) -> str:
    """As in "19.67 [18.90, 20.41]"; with fewer than five patients, "19.52" alone."""
    if not summary:
        return "–"
    said = number(metric, summary["mean"], signed=signed)
    if summary["interval"] is None:
        return said
    low, high = (number(metric, end, signed=signed) for end in summary["interval"])
    return f"{said} [{low}, {high}]"


def each_patient(metric: str, summary: Mapping[str, Any], *, signed: bool = False) -> str:
    """As in "gbm1 18.43, gbm3 17.35": instead of an interval."""
    return ", ".join(f"{name} {number(metric, value, signed=signed)}" for name, value in summary["patients"].items())


def count(amount: int, noun: str) -> str:
    """As in "1 patient", "7 patients"."""
    return f"{amount} {noun}" + ("" if amount == 1 else "s")


def ridge_sizes(summary: Mapping[str, Any], name: str) -> str:
    """As in "P = 128", "P = 256 and 200", "P = 64 to 256 by fold"; "" where there is no such baseline."""
    found = [tuple(fit["sizes"][name].values()) for fit in summary["baselines"]["fits"] if name in fit["sizes"]]
    if not found:
        return ""
    different = sorted(set(found))
    if len(different) > 1:
        firsts = sorted(sizes[0] for sizes in found)
        return f"P = {firsts[0]} to {firsts[-1]} by fold"
    sizes = dict.fromkeys(different[0])
    return "P = " + " and ".join(map(str, sizes))


def seconds(value: float) -> str:
    """As in "3.1 ms" or "1.24 s"."""
    return f"{1000 * value:.3g} ms" if value < 1 else f"{value:.3g} s"


def what_was_evaluated(summary: Mapping[str, Any]) -> str:
    """As in "48 cases of 1 patient, split val" or "263 cases of 7 patients in 7 folds by patient"."""
    said = f"{count(summary['cases'], 'case')} of {count(summary['patients'], 'patient')}"
    if summary["mode"] == "split":
        return f"{said}, split {' and '.join(summary['splits'])}"
    return f"{said}, {len(summary['folds'])} folds over the patients of {' and '.join(summary['splits'])}"
