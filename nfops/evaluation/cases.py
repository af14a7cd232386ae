"""One case: all that is measured of one scan (or slice) whose truth is known."""

import time
from dataclasses import dataclass, field, replace
from typing import cast

import numpy as np

from nfops.arrays import Array
from nfops.cohort import Pair
from nfops.evaluation.baselines import Baseline
from nfops.evaluation.degrade import FULL, POINT, Coarsener, View
from nfops.evaluation.model import Model
from nfops.evaluation.operators import Rival
from nfops.evaluation.panels import Panels, panels_of
from nfops.latents import Latent
from nfops.progress import OnStep, Step, silent
from nfops.scoring import chosen_metrics


@dataclass(frozen=True)
class Seconds:
    """Of one scan at full resolution."""

    encode: float
    operate: float
    decode: float


@dataclass(frozen=True, eq=False)
class Case:
    """scan_id, patient, split: as in the table. fold: 0 without folds.

    results: view -> metrics of the prediction at the full target grid. beside: "source_ceiling", "target_ceiling",
    each rival and each baseline -> metrics at full resolution. rivals: operator -> view -> metrics, of all views but
    those sampled at points. shapes: view -> the source's samples.
    """

    scan_id: str
    patient: str
    split: str
    fold: int
    results: dict[View, dict[str, float]]
    shapes: dict[View, tuple[int, ...]]
    beside: dict[str, dict[str, float]]
    seconds: Seconds
    panels: Panels
    rivals: dict[str, dict[View, dict[str, float]]] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Encoded:
    """Latents of one case: source (views, P), predicted (views, P_out), truth (P_out,)."""

    source: Array
    predicted: Array
    truth: Array


@dataclass(frozen=True, eq=False)
class Examiner:
    """Measures cases with one model. metrics: wanted by the recipe; of the source, those that suit it.

    rivals: operators that are measured beside the model's own.
    """

    model: Model
    baselines: tuple[Baseline, ...]
    rivals: tuple[Rival, ...]
    views: tuple[View, ...]
    metrics: tuple[str, ...]
    fold: int
    coarsener: Coarsener

    def examine(self, pairs: list[Pair], on_step: OnStep = silent) -> list[tuple[Case, Encoded]]:
        """All about every pair. One view after the other: engines keep what they know of one geometry."""
        looks: list[list[_Look]] = [[] for _ in pairs]
        wanted = chosen_metrics(self.model.spec, self.metrics)
        for number, view in enumerate(self.views):
            for done, pair in enumerate(pairs):
                looks[done].append(self._look(pair, view, wanted))
                on_step(Step("cases", number * len(pairs) + done + 1, (len(self.views) + 1) * len(pairs)))
        found = []
        for done, (pair, seen) in enumerate(zip(pairs, looks, strict=True)):
            found.append(self._gather(pair, seen, wanted))
            on_step(Step("cases", len(self.views) * len(pairs) + done + 1, (len(self.views) + 1) * len(pairs)))
        return found

    def _look(self, pair: Pair, view: View, wanted: tuple[str, ...]) -> "_Look":
        model = self.model
        seen = self.coarsener.see(pair, view)
        clock = [time.perf_counter()]
        latent = model.encode("source", pair, seen)
        clock.append(time.perf_counter())
        if model.bundle.acts_on_fields:  # its prediction has no latent but the one that it is encoded to
            drawn = model.translate(pair, seen, latent)
            clock += [time.perf_counter()] * 2
            predicted = model.encode("target", pair, (drawn, drawn)).vectors
        else:
            predicted = model.operate(latent.vectors)
            clock.append(time.perf_counter())
            drawn = model.draw(model.output, replace(latent, vectors=predicted), pair)
            clock.append(time.perf_counter())
        metrics = model.judge(model.output, pair, drawn, wanted)
        panels = panels_of(model, pair, drawn) if view.sampling == FULL else None
        rivals = {}
        if view.sampling != POINT:  # to spare time: of the two samplings it is the one that scanners do not have
            for rival in self.rivals:
                rivals[rival.operator] = model.judge(model.output, pair, rival.predict(pair, seen), wanted)
        return _Look(view, latent, predicted, metrics, Seconds(*np.diff(clock).tolist()), panels, rivals)

    def _gather(self, pair: Pair, looks: "list[_Look]", wanted: tuple[str, ...]) -> tuple[Case, Encoded]:
        """All looks at one pair, the full one first, with what stands beside them."""
        full, dims = looks[0], self.model.spec.dims
        beside, truth = self._beside(pair, full.latent, wanted)
        case = Case(
            pair.scan_id,
            pair.patient,
            pair.split,
            self.fold,
            results={look.view: look.metrics for look in looks},
            shapes={look.view: look.latent.grid.shape[:dims] for look in looks},
            beside=beside,
            seconds=full.seconds,
            panels=cast(Panels, full.panels),
        )
        for rival in self.rivals:
            case.rivals[rival.operator] = {look.view: look.rivals[rival.operator] for look in looks if look.rivals}
            beside[rival.name] = full.rivals[rival.operator]
        sources = np.concatenate([look.latent.vectors for look in looks])
        return case, Encoded(sources, np.concatenate([look.predicted for look in looks]), truth)

    def _beside(self, pair: Pair, source: Latent, wanted: tuple[str, ...]) -> tuple[dict[str, dict[str, float]], Array]:
        """Ceilings and baselines at full resolution, and the latent of the truth (P_out,)."""
        model, found, truth = self.model, {}, source
        if model.output == "target":  # a reconstruction is its own ceiling
            truth = model.encode("target", pair)
            for side, latent in (("source", source), ("target", truth)):
                metrics = chosen_metrics(model.bundle.specs[side], self.metrics)
                found[f"{side}_ceiling"] = model.judge(side, pair, model.draw(side, latent, pair), metrics)
        for baseline in self.baselines:
            found[baseline.name] = model.judge(model.output, pair, baseline.predict(pair), wanted)
        return found, truth.vectors[0]


@dataclass(frozen=True, eq=False)
class _Look:
    """One view of a pair: encoded, moved (1, P_out), drawn at the truth's grid, judged; panels of the full view.

    rivals: operator -> metrics.
    """

    view: View
    latent: Latent
    predicted: Array
    metrics: dict[str, float]
    seconds: Seconds
    panels: Panels | None
    rivals: dict[str, dict[str, float]]
