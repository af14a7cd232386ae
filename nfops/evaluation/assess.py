"""One model against the truth of its evaluated cases: a split's bundle, or what was refitted in one fold."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from nfops.arrays import Array
from nfops.codec_spec import CodecSpec
from nfops.cohort import Pair
from nfops.evaluation.agreement import Comparer, Disagreement
from nfops.evaluation.baselines import Fitted
from nfops.evaluation.cases import Case, Encoded, Examiner
from nfops.evaluation.degrade import Coarsener, View
from nfops.evaluation.model import Model
from nfops.evaluation.operators import Rival
from nfops.evaluation.spectrum import Spectrum, spectrum_of
from nfops.progress import OnStep, Step, silent

REFERENCE_SCANS = 128
"""Of the training scans, evenly chosen: their decoded fields are the cohort that distances are measured in."""
MOST_ENCODED = 1024
"""Of the training scans of a linear bundle, whose encoding is cheap; REFERENCE_SCANS of others."""


@dataclass(frozen=True, eq=False)
class Assessment:
    """output: the spec of the images made. latent: side -> P.

    disagreements: "source" (what was encoded) and "prediction" (what the operator made of it).
    operators: name -> facts of its fit, the model's own first; empty where only that was evaluated.
    curves: of the model's training, {part: [[iteration, training, validation], ...]}.
    """

    output: CodecSpec
    cases: list[Case]
    disagreements: dict[str, list[Disagreement]]
    spectrum: Spectrum
    baselines: Fitted
    curves: Mapping[str, Any] = field(default_factory=dict)
    latent: Mapping[str, int] = field(default_factory=dict)
    operators: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class Measured:
    """What is measured of every case. fold: 0 without folds. rivals: other operators on the model's fields."""

    views: tuple[View, ...]
    metrics: tuple[str, ...]
    fold: int = 0
    rivals: tuple[Rival, ...] = ()


def assess(
    model: Model,
    fitted: Fitted,
    pairs: list[Pair],
    reference: Mapping[str, Array],
    what: Measured,
    *,
    on_step: OnStep = silent,
) -> Assessment:
    """Measure every pair. reference: side -> (N, P) latents of training scans; the cases' own where there are none."""
    coarsener = Coarsener(model.bundle.specs["source"])
    examiner = Examiner(model, fitted.baselines, what.rivals, what.views, what.metrics, what.fold, coarsener)
    examined = examiner.examine(pairs, on_step)
    cases, encoded = [case for case, _ in examined], [latents for _, latents in examined]
    cohort = dict(reference) or _own_latents(model, encoded)
    predicted = np.stack([one.predicted[0] for one in encoded])
    truth = np.stack([one.truth for one in encoded])
    return Assessment(
        model.spec,
        cases,
        _disagreements(model, cohort, what.views, cases, encoded),
        spectrum_of(cohort["source"], cohort.get("target"), predicted, truth),
        fitted,
        curves=model.bundle.data.get("curves", {}),
        latent={side: spec.latent for side, spec in model.bundle.specs.items()},
    )


def reference_latents(model: Model, training: list[Pair], on_step: OnStep = silent) -> dict[str, Array]:
    """Latents of some training scans, side by side; none without training scans."""
    if not training:
        return {}
    chosen = _evenly(len(training), MOST_ENCODED if model.bundle.is_linear else REFERENCE_SCANS)
    rows: dict[str, list[Array]] = {side: [] for side in model.bundle.specs}
    for done, number in enumerate(chosen):
        for side, found in rows.items():
            found.append(model.encode(side, training[number]).vectors)
        on_step(Step("encoding training scans", done + 1, len(chosen)))
    return {side: np.concatenate(found) for side, found in rows.items()}


def _evenly(count: int, most: int) -> Array:
    """At most so many numbers from 0 to count - 1, evenly apart."""
    return np.unique(np.linspace(0, count - 1, min(most, count)).astype(int))


def _own_latents(model: Model, encoded: list[Encoded]) -> dict[str, Array]:
    own = {"source": np.stack([one.source[0] for one in encoded])}
    return own | ({"target": np.stack([one.truth for one in encoded])} if model.output == "target" else {})


def _disagreements(
    model: Model, cohort: Mapping[str, Array], views: tuple[View, ...], cases: list[Case], encoded: list[Encoded]
) -> dict[str, list[Disagreement]]:
    if len(views) < 2:
        return {}
    found = {}
    sides = {"source": "source"} | ({"prediction": "target"} if model.output == "target" else {})
    for name, side in sides.items():
        comparer = Comparer(model, side, cohort[side][_evenly(len(cohort[side]), REFERENCE_SCANS)])
        latents = [one.source if name == "source" else one.predicted for one in encoded]
        rows = [comparer.compare(case.scan_id, views, each) for case, each in zip(cases, latents, strict=True)]
        found[name] = [one for row in rows for one in row]
    return found
