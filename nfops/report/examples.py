"""Best, median and worst case: source, prediction, truth and error."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from nfops.arrays import Array
from nfops.evaluation.cases import Case
from nfops.evaluation.degrade import FULL
from nfops.evaluation.panels import Panels
from nfops.report.style import figure
from nfops.report.words import metric_name, number

COLUMNS, ERROR = ("source", "prediction", "truth"), "prediction − truth"
PANEL_INCHES = 1.75
ERROR_LIMIT = 0.5
WHITE = 99.8
LABEL_COLOURS = ("#00000000", "#f2c14e", "#3aa6b9", "#d1495b", "#8f6bb3", "#66a182", "#edae49", "#2e4057")


def draw_examples(path: Path, cases: list[Case], chosen: Mapping[str, int], primary: str) -> None:
    """One row a case. chosen: what it is ("best") -> its number."""
    first = cases[chosen["best"]].panels
    if first.truth.ndim == 1:
        _draw_signals(path, cases, chosen, primary)
        return
    ratio = min(max(first.extent_mm[1] / first.extent_mm[0], 0.5), 1.6)
    width = 4 * PANEL_INCHES + 0.75
    with figure(path, width, len(chosen) * (PANEL_INCHES * ratio + 0.06) + 0.3) as made:
        axes = made.subplots(len(chosen), 4, squeeze=False)
        for row, (what, number_of) in zip(axes, chosen.items(), strict=True):
            shown = _draw_row(row, cases[number_of].panels)
            row[0].set_ylabel(_says(what, cases[number_of], primary), fontsize=7.5)
        for axis, title in zip(axes[0], (*COLUMNS, "right and wrong" if first.is_label else ERROR), strict=True):
            axis.set_title(title)
        if shown is not None:
            bar = made.colorbar(shown, ax=axes[:, -1], shrink=0.5, pad=0.03, aspect=28)
            bar.ax.tick_params(labelsize=7)
            bar.outline.set_linewidth(0.4)


def _says(what: str, case: Case, primary: str) -> str:
    result = next(found for view, found in case.results.items() if view.sampling == FULL)
    name = metric_name(primary, with_unit=False)
    return f"{what}: {case.scan_id}\n{name} {number(primary, result[primary])}"


def _draw_row(row: Any, panels: Panels) -> Any:
    """Draw four panels; the image of the error, for its colour bar, or None for labels."""
    for axis in row:
        axis.set_xticks([])
        axis.set_yticks([])
        axis.grid(visible=False)
        for spine in axis.spines.values():
            spine.set_visible(False)
    shape = {"extent": (0, panels.extent_mm[0], panels.extent_mm[1], 0), "interpolation": "nearest"}
    row[0].imshow(_lit(panels.source, panels.source), cmap="gray", vmin=0, vmax=1, **shape)
    if panels.is_label:
        return _draw_labels(row, panels, shape)
    for axis, values in zip(row[1:3], (panels.prediction, panels.truth), strict=True):
        axis.imshow(_lit(values, panels.truth), cmap="gray", vmin=0, vmax=1, **shape)
    error = panels.prediction - panels.truth
    error = error.mean(axis=-1) if error.ndim == 3 else error
    return row[3].imshow(error, cmap="RdBu_r", vmin=-ERROR_LIMIT, vmax=ERROR_LIMIT, **shape)


def _lit(values: Array, reference: Array) -> Array:
    """White is the 99.8th percentile of a reference."""
    return np.asarray(np.clip(values / max(float(np.percentile(reference, WHITE)), 1e-6), 0, 1))


def _draw_labels(row: Any, panels: Panels, shape: dict[str, Any]) -> None:
    """Labels over the source; in the last panel what was missed, and what was said too much."""
    for axis, values in zip(row[1:3], (panels.prediction, panels.truth), strict=True):
        axis.imshow(_lit(panels.source, panels.source), cmap="gray", vmin=0, vmax=1, **shape)
        axis.imshow(_painted(values, panels), **shape)
    said, wanted = (_inside(values, panels) for values in (panels.prediction, panels.truth))
    wrong = np.ones((*said.shape, 3))
    wrong[said & wanted] = 0.86, 0.86, 0.86
    if panels.labels:
        wrong[said & wanted & (panels.prediction != panels.truth)] = 0.56, 0.42, 0.70
    wrong[wanted & ~said] = 0.04, 0.37, 0.65
    wrong[said & ~wanted] = 0.82, 0.29, 0.36
    row[3].imshow(wrong, **shape)
    for spine in row[3].spines.values():
        spine.set_visible(True)
        spine.set_color("#cccccc")


def _inside(values: Array, panels: Panels) -> Array:
    """Where any label is that is not the background."""
    others = [label for label in panels.labels if label != 0]
    return np.isin(values, others) if len(panels.labels) > 1 else values > 0


def _painted(values: Array, panels: Panels) -> Array:
    """(rows, columns, 4): a colour a label, half transparent."""
    from matplotlib.colors import to_rgba

    painted = np.zeros((*values.shape, 4))
    labels = [label for label in panels.labels if label != 0] or sorted(set(np.unique(values)) - {0.0})
    for order, label in enumerate(labels):
        colour = to_rgba(LABEL_COLOURS[1 + order % (len(LABEL_COLOURS) - 1)])
        painted[values == label] = (*colour[:3], 0.5)
    return painted


def _draw_signals(path: Path, cases: list[Case], chosen: Mapping[str, int], primary: str) -> None:
    """Signals: prediction over truth, the error below zero line."""
    with figure(path, 7.2, 1.5 * len(chosen) + 0.3) as made:
        axes = made.subplots(len(chosen), 1, squeeze=False, sharex=True)[:, 0]
        for axis, (what, number_of) in zip(axes, chosen.items(), strict=True):
            panels = cases[number_of].panels
            axis.plot(panels.truth, color="#2a9d6f", label="truth", linewidth=2)
            axis.plot(panels.prediction, color="#0b5fa5", label="prediction", linewidth=1)
            axis.plot(panels.prediction - panels.truth, color="#d1495b", label=ERROR, linewidth=0.8)
            axis.set_ylabel(_says(what, cases[number_of], primary), fontsize=7.5)
        made.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=3)
        axes[-1].set_xlabel("sample")
