"""Which figures a report has, their files and captions."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nfops.evaluation.summary import Evaluation, pick_examples
from nfops.report.charts import draw_curves, draw_operators, draw_patients, draw_resolutions, draw_spectrum
from nfops.report.examples import draw_examples
from nfops.report.words import metric_name


@dataclass(frozen=True)
class Figure:
    """file: in the report's directory. title, caption: plain text."""

    file: str
    title: str
    caption: str


def draw_figures(directory: Path, evaluation: Evaluation, summary: Mapping[str, Any]) -> Iterator[Figure]:
    """Draw one figure after the other."""
    cases, primary = evaluation.cases, summary["primary"]
    draw_examples(directory / "examples.png", cases, pick_examples(cases, primary), primary)
    yield Figure("examples.png", "Best, median and worst case", _examples_caption(summary))
    if len(summary["resolutions"]) > 1:
        draw_resolutions(directory / "resolutions.png", summary)
        yield Figure("resolutions.png", "Result against the resolution of the input", RESOLUTIONS)
        if summary["operators"]:
            draw_operators(directory / "operators.png", summary)
            yield Figure("operators.png", "Operators against the resolution of the input", OPERATORS)
    draw_patients(directory / "patients.png", cases, summary)
    yield Figure("patients.png", "Patients", f"{metric_name(primary)} at full resolution. {PATIENTS}")
    draw_spectrum(directory / "spectrum.png", summary)
    yield Figure("spectrum.png", "Latents", SPECTRUM if summary["spectrum"]["predicted"] else SPECTRUM_ALONE)
    curves = [fold for fold in summary["curves"] if fold]
    if curves:
        draw_curves(directory / "curves.png", curves)
        yield Figure("curves.png", "Training", "Training and validation loss of each part; with folds, a line a fold.")


RESOLUTIONS = (
    "Mean over cases; bands are 95 % intervals by bootstrap over patients. The source is made coarser on its own grid, "
    "by area average or by point sampling, and the prediction is judged at the full grid of its truth."
)
OPERATORS = "Mean over cases at the full grid of the truth; the thick line is the recipe's own operator."
PATIENTS = (
    "Small points are cases, large ones a patient's mean; beside them the same patient's ceiling (the target encoded "
    "and decoded) and best baseline."
)
SPECTRUM_ALONE = "Variance of the training latents along their principal axes."
SPECTRUM = (
    f"Left: {SPECTRUM_ALONE[0].lower()}{SPECTRUM_ALONE[1:-1]}. Right: along the target's axes, the part of the true "
    "latents' variance about the training mean that the prediction explains, component by component (points, cut at "
    "−1) and over octaves (bars): where it falls to 0, more target components do not help."
)


def _examples_caption(summary: Mapping[str, Any]) -> str:
    what = metric_name(summary["primary"], with_unit=False)
    if "labels" in summary["range"]:
        return (
            f"Chosen by {what} at full resolution. Labels lie over the source; last column: blue what was missed, red "
            "what was said too much, grey what was right, violet another label. Of volumes, the slice with most labels."
        )
    return (
        f"Chosen by {what} at full resolution. White is the truth's 99.8th percentile (of a source, its own); errors "
        "are in parts of the range that metrics refer to."
    )
