"""The files of an evaluation: summary.json, cases.csv, PNG figures and one report.html that holds them all."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nfops.evaluation.summary import Evaluation
from nfops.evaluation.tables import cases_csv
from nfops.progress import OnStep, Step, silent

SUMMARY = "summary.json"
CASES, PAGE = "cases.csv", "report.html"


def write_report(directory: Path, evaluation: Evaluation, summary: Mapping[str, Any], on_step: OnStep = silent) -> None:
    """Write all files of an evaluation into a directory that is there."""
    from nfops.report.figures import draw_figures
    from nfops.report.html import page

    (directory / SUMMARY).write_text(json.dumps(without_nan(summary), indent=1, allow_nan=False) + "\n", "utf-8")
    (directory / CASES).write_text(cases_csv(evaluation.cases), "utf-8")
    figures = []
    for figure in draw_figures(directory, evaluation, summary):
        figures.append(figure)
        on_step(Step("figures", len(figures), 0, figure.file))
    (directory / PAGE).write_text(page(directory, summary, figures), "utf-8")


def without_nan(value: Any) -> Any:
    """As JSON knows it: tuples become lists, NaN and infinities null."""
    if isinstance(value, Mapping):
        return {str(key): without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value
