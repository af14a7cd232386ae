"""Charts of an evaluation's summary: resolution, latent spectrum, patients, training curves."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from nfops.evaluation.cases import Case
from nfops.evaluation.degrade import AREA, FULL, POINT
from nfops.report.style import COLOURS, figure
from nfops.report.words import SHORT, metric_name

MOST_NAMED = 25
"""More patients than this are points in order, without names."""


def draw_resolutions(path: Path, summary: Mapping[str, Any]) -> None:
    """Each metric of all labels together against the input's resolution, with its 95 % interval."""
    metrics = [name for name in summary["metrics"] if not _is_one_label(name)]
    ticks = sorted({row["resolution"] for row in summary["resolutions"]})
    with figure(path, max(3.3 * len(metrics), 4.2), 2.9) as made:
        axes = made.subplots(1, len(metrics), squeeze=False)[0]
        for axis, metric in zip(axes, metrics, strict=True):
            for sampling, style in ((AREA, "-"), (POINT, "--")):
                _draw_line(axis, summary, metric, sampling, style)
            for kind in ("target_ceiling", summary["differences"].get("best", "mean")):
                found = summary["results"].get(kind, {}).get(metric)
                if found:
                    label = f"{SHORT[kind]}, at 100 %"
                    axis.axhline(found["mean"], color=COLOURS[kind], linewidth=1.2, linestyle=":", label=label)
            axis.set_xscale("log")
            axis.set_xticks(ticks, [f"{100 * tick:g} %" for tick in ticks])
            axis.minorticks_off()
            axis.set_xlabel("resolution of the input")
            axis.set_ylabel(metric_name(metric))
            axis.margins(y=0.12)
        made.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=4)


def _draw_line(axis: Any, summary: Mapping[str, Any], metric: str, sampling: str, style: str) -> None:
    rows = [row for row in summary["resolutions"] if row["sampling"] in (FULL, sampling) and metric in row["metrics"]]
    rows.sort(key=lambda row: row["resolution"])
    places = [row["resolution"] for row in rows]
    found = [row["metrics"][metric] for row in rows]
    colour = COLOURS["result"] if sampling == AREA else COLOURS["source"]
    label = {AREA: "area average", POINT: "point sampling"}[sampling]
    axis.plot(places, [one["mean"] for one in found], style, marker="o", markersize=3.5, color=colour, label=label)
    if all(one["interval"] for one in found):
        low, high = np.array([one["interval"] for one in found]).T
        axis.fill_between(places, low, high, color=colour, alpha=0.12, linewidth=0)


def draw_operators(path: Path, summary: Mapping[str, Any]) -> None:
    """The primary metric of each operator against the input's resolution."""
    primary, rows = summary["primary"], summary["operators"]
    ticks = sorted(view["resolution"] for view in rows[0]["resolutions"])
    with figure(path, 5.2, 3.2) as made:
        axis = made.subplots()
        for number, row in enumerate(rows):
            found = sorted((view["resolution"], view["metrics"][primary]["mean"]) for view in row["resolutions"])
            style = {"color": COLOURS["result"] if number == 0 else f"C{number}", "linewidth": 1.2 if number else 2}
            axis.plot(*zip(*found, strict=True), marker="o", markersize=3.5, label=row["operator"], **style)
        axis.set_xscale("log")
        axis.set_xticks(ticks, [f"{100 * tick:g} %" for tick in ticks])
        axis.minorticks_off()
        axis.set_xlabel("resolution of the input (area average)")
        axis.set_ylabel(metric_name(primary))
        made.legend(*axis.get_legend_handles_labels(), loc="outside right upper")


def draw_spectrum(path: Path, summary: Mapping[str, Any]) -> None:
    """Variance along the latents' principal axes, and how much of each target component is predicted."""
    spectrum = summary["spectrum"]
    has_target = bool(spectrum["predicted"])
    with figure(path, 6.8 if has_target else 3.6, 2.7) as made:
        axes = made.subplots(1, 2 if has_target else 1, squeeze=False)[0]
        for side in ("source", "target"):
            shares = np.array(spectrum[side])
            if len(shares):
                places = np.arange(1, len(shares) + 1)
                colour = COLOURS["source"] if side == "source" else COLOURS["result"]
                label = f"{side} (P = {spectrum['latent'][side]})"
                axes[0].plot(places, np.maximum(shares, 1e-6), color=colour, label=label)
        axes[0].set_yscale("log")
        _number_components(axes[0], max(len(spectrum[side]) for side in ("source", "target")))
        axes[0].set_xlabel("principal component of the latents")
        axes[0].set_ylabel("share of their variance")
        axes[0].legend()
        if has_target:
            _draw_predicted(axes[1], spectrum)


def _draw_predicted(axis: Any, spectrum: Mapping[str, Any]) -> None:
    """R2 of each target component, and over octaves."""
    predicted = np.array(spectrum["predicted"])
    axis.plot(np.arange(1, len(predicted) + 1), np.maximum(predicted, -1), ".", color="#9cc3e4", markersize=3)
    for octave in spectrum["octaves"]:
        ends = 0.94 * octave["from"], 1.06 * octave["to"]
        axis.plot(ends, [max(octave["predicted"], -1)] * 2, color=COLOURS["result"], linewidth=2)
    axis.axhline(0, color="#777777", linewidth=0.8)
    _number_components(axis, len(predicted))
    axis.set_ylim(min(-0.2, float(predicted.min(initial=0))) if predicted.min(initial=0) > -1 else -1.05, 1.05)
    axis.set_xlabel("principal component of the target's latents")
    axis.set_ylabel("part predicted (R²)")


def _number_components(axis: Any, count: int) -> None:
    """A logarithmic axis from component 1 on, with plain numbers."""
    step = 2 if count <= 512 else 4
    ticks = [step**k for k in range(count.bit_length()) if step**k <= count]
    axis.set_xscale("log")
    axis.set_xticks(ticks, [str(tick) for tick in ticks])
    axis.minorticks_off()


def draw_patients(path: Path, cases: list[Case], summary: Mapping[str, Any]) -> None:
    """Every case and every patient's mean, by the primary metric, beside ceiling and best baseline."""
    primary, best = summary["primary"], summary["differences"].get("best")
    result = summary["results"]["result"][primary]["patients"]
    names = sorted(result, key=lambda name: result[name])
    is_named = len(names) <= MOST_NAMED
    with figure(path, 6.8, 0.24 * len(names) + 1.0 if is_named else 2.9) as made:
        axis = made.subplots()
        rows = {name: row for row, name in enumerate(names)}
        place, value = np.array([(rows[case.patient], _full(case)[primary]) for case in cases]).T
        drawn = [
            ("result", place + np.random.default_rng(0).uniform(-0.18, 0.18, len(place)), value, ".", 2.5, 0.35, "case")
        ]
        for kind, marker, size in (("target_ceiling", "|", 8), (best, "D", 3.2), ("result", "o", 5)):
            found = summary["results"].get(kind, {}).get(primary)
            if found:
                means = [found["patients"].get(name, np.nan) for name in names]
                drawn.append((kind, np.arange(len(names)), means, marker, size, 1.0, SHORT[kind]))
        for kind, where, values, marker, size, alpha, label in drawn:
            if label == "case" and len(place) == len(names):
                continue
            ends = (values, where) if is_named else (where, values)
            axis.plot(*ends, marker, color=COLOURS[kind], markersize=size, alpha=alpha, label=label, zorder=2 + alpha)
        _label_patients(axis, names, metric_name(primary), is_named=is_named)
        made.legend(*axis.get_legend_handles_labels(), loc="outside upper center", ncols=4)


def _label_patients(axis: Any, names: list[str], metric: str, *, is_named: bool) -> None:
    if is_named:
        axis.set_yticks(range(len(names)), names, fontsize=7.5)
        axis.set_ylim(-0.7, len(names) - 0.3)
        axis.set_xlabel(metric)
        return
    axis.set_xlabel(f"{len(names)} patients, in order of the result")
    axis.set_ylabel(metric)
    axis.set_xticks([])


def draw_curves(path: Path, curves: list[Mapping[str, Any]]) -> None:
    """Training and validation loss against the iteration: a panel a part, a line a fold."""
    parts = list(dict.fromkeys(part for fold in curves for part in fold))
    with figure(path, 3.4 * len(parts), 2.7) as made:
        for axis, part in zip(made.subplots(1, len(parts), squeeze=False)[0], parts, strict=True):
            for number, fold in enumerate(curve[part] for curve in curves if part in curve):
                rows = np.array([[np.nan if v is None else v for v in row] for row in fold], np.float64)
                for column, name, colour in ((1, "training", "#8c8c8c"), (2, "validation", COLOURS["result"])):
                    if rows.shape[1] > column and np.isfinite(rows[:, column]).any():
                        label = name if number == 0 else None
                        axis.plot(rows[:, 0], rows[:, column], color=colour, linewidth=1, label=label)
            if all(line.get_ydata().min() > 0 for line in axis.lines):
                axis.set_yscale("log")
            axis.set_title(part)
            axis.set_xlabel("iteration")
            axis.set_ylabel("loss")
            axis.legend()


def _is_one_label(metric: str) -> bool:
    return "_" in metric


def _full(case: Case) -> Mapping[str, float]:
    return next(found for view, found in case.results.items() if view.sampling == FULL)
