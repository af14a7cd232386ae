"""What is said of many numbers: mean, spread, and how far the mean might be off, by bootstrap over patients.

Scans of one patient resemble each other, so patients are drawn, never scans. With fewer than five patients a
bootstrap says nothing: then each patient's own mean stands in its place.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from nfops.arrays import Array
from nfops.metrics import HIGHEST_PSNR

FEWEST_PATIENTS = 5
RESAMPLES = 5000
COVERAGE = 0.95


@dataclass(frozen=True)
class Summary:
    """Of one number a case. interval: of the mean, 95 %, or None with fewer than five patients. patients: their means.

    missing: cases without the number (SSIM of an image smaller than its window).
    """

    mean: float
    median: float
    deviation: float
    lowest: float
    highest: float
    cases: int
    interval: tuple[float, float] | None
    patients: dict[str, float] = field(default_factory=dict)
    missing: int = 0


def summarise(values: Sequence[float], patients: Sequence[str], seed: int) -> Summary | None:
    """All about (n,) values of n cases; None where none is a number. An infinite PSNR counts as 100 dB."""
    given = np.asarray(values, np.float64)
    known = ~np.isnan(given)
    if not known.any():
        return None
    kept = np.where(np.isinf(given[known]), HIGHEST_PSNR, given[known])
    owners = [patient for patient, is_known in zip(patients, known, strict=True) if is_known]
    names, number = np.unique(owners, return_inverse=True)
    sums, counts = np.bincount(number, kept), np.bincount(number)
    return Summary(
        mean=float(kept.mean()),
        median=float(np.median(kept)),
        deviation=float(kept.std()),
        lowest=float(kept.min()),
        highest=float(kept.max()),
        cases=len(kept),
        interval=bootstrap(sums, counts, seed),
        patients={str(name): float(total / count) for name, total, count in zip(names, sums, counts, strict=True)},
        missing=int((~known).sum()),
    )


def bootstrap(sums: Array, counts: Array, seed: int) -> tuple[float, float] | None:
    """The 95 % percentile interval of a mean over cases, patients drawn with replacement.

    sums, counts: (patients,) of each patient's values. None with fewer than five patients.
    """
    if len(sums) < FEWEST_PATIENTS:
        return None
    drawn = np.random.default_rng(seed).integers(len(sums), size=(RESAMPLES, len(sums)))
    means = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    low, high = np.percentile(means, [50 * (1 - COVERAGE), 50 * (1 + COVERAGE)])
    return float(low), float(high)
