"""Metrics of many cases, and their differences case by case."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from nfops.evaluation.cases import Case
from nfops.evaluation.degrade import FULL
from nfops.evaluation.intervals import summarise
from nfops.metrics import HIGHEST_PSNR, is_better_higher


def summarise_metrics(cases: list[Case], seed: int, read: Any) -> dict[str, Any]:
    """Metric -> its summary; `read` gives a case's metrics, one that it lacks (a label, a small image) is missing."""
    patients = [case.patient for case in cases]
    names = list(dict.fromkeys(name for case in cases for name in read(case)))
    found = {name: summarise([read(case).get(name, np.nan) for case in cases], patients, seed) for name in names}
    return {name: asdict(summary) for name, summary in found.items() if summary is not None}


def of_result(case: Case) -> Mapping[str, float]:
    """Of the recipe's own prediction at full resolution."""
    return next(metrics for view, metrics in case.results.items() if view.sampling == FULL)


def result_less(case: Case, kind: str) -> dict[str, float]:
    """Metrics of the result less those of something beside it."""
    mine, theirs = of_result(case), case.beside[kind]
    finite = {name: (min(mine[name], HIGHEST_PSNR), min(theirs[name], HIGHEST_PSNR)) for name in mine}
    return {name: one - other for name, (one, other) in finite.items()}


def better_share(differences: Sequence[float], metric: str) -> float:
    """The part of some differences of a metric that are to the better."""
    sign = 1 if is_better_higher(metric) else -1
    return float(np.mean(sign * np.asarray(differences) > 0))
