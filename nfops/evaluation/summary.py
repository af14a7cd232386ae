"""Everything that an evaluation found, as plain data: what `summary.json` holds, and every table and figure shows."""

import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

import numpy as np

from nfops import __version__
from nfops.codec import operator_acts_on
from nfops.errors import ResultError
from nfops.evaluation.agreement import summarise_agreement
from nfops.evaluation.assess import Assessment
from nfops.evaluation.cases import Case
from nfops.evaluation.contest import summarise_operators
from nfops.evaluation.folds import Fold
from nfops.evaluation.intervals import COVERAGE, FEWEST_PATIENTS, RESAMPLES
from nfops.evaluation.paired import better_share, of_result, result_less, summarise_metrics
from nfops.evaluation.spectrum import effective_size, merge_spectra
from nfops.metrics import is_better_higher
from nfops.recipe import Recipe
from nfops.schema import to_plain

FORMAT, FORMAT_VERSION = "nfops-evaluation", 1
RECORDED = ("numpy", "scipy", "scikit-image", "scikit-learn", "torch")
OWN_RANGE = "each scan's own values, mapped to 0 to 1"
BASELINES = ("mean", "ridge", "ridge_best", "fpca")


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What was evaluated and what came of it. folds: empty on a split.

    bundle: facts of the bundle on disk, empty with folds. warnings: for the reader of the report.
    """

    recipe: Recipe
    splits: tuple[str, ...]
    folds: tuple[Fold, ...]
    assessments: tuple[Assessment, ...]
    bundle: Mapping[str, Any] = field(default_factory=dict)
    table_sha256: str = ""
    device: str = "cpu"
    warnings: tuple[str, ...] = ()
    probe: Mapping[str, Any] = field(default_factory=dict)

    @property
    def cases(self) -> list[Case]:
        """Of all folds."""
        return [case for assessment in self.assessments for case in assessment.cases]


def summarise_evaluation(evaluation: Evaluation) -> dict[str, Any]:
    """The whole document."""
    cases, seed = evaluation.cases, evaluation.recipe.seed
    results = {"result": summarise_metrics(cases, seed, of_result), **_beside(cases, seed)}
    if not results["result"]:
        raise ResultError(
            "evaluate.metrics", "none could be measured: SSIM needs 11 samples along each axis", "add psnr"
        )
    primary = next(iter(results["result"]))
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "nfops": __version__,
        "name": evaluation.recipe.name,
        "mode": "folds" if evaluation.folds else "split",
        "splits": list(evaluation.splits),
        "cases": len(cases),
        "patients": len({case.patient for case in cases}),
        "primary": primary,
        "metrics": list(results["result"]),
        "range": _range(evaluation),
        "intervals": {"coverage": COVERAGE, "resamples": RESAMPLES, "fewest_patients": FEWEST_PATIENTS, "seed": seed},
        "results": results,
        "resolutions": _resolutions(cases, seed),
        "differences": _differences(cases, seed, results, primary),
        "limits": {} if _acts_on_fields(evaluation.recipe) else _limits(cases, primary),
        "agreement": _agreement(evaluation),
        "seconds": {name: _median(cases, name) for name in ("encode", "operate", "decode")},
        "spectrum": _spectrum(evaluation),
        "operators": summarise_operators(evaluation.recipe, evaluation.assessments, cases, primary),
        "examples": {what: cases[number].scan_id for what, number in pick_examples(cases, primary).items()},
        "probe": dict(evaluation.probe),
        "baselines": _baselines(evaluation),
        "curves": [dict(one.curves) for one in evaluation.assessments],
        "folds": [_fold(evaluation, number) for number in range(len(evaluation.folds))],
        "warnings": list(evaluation.warnings),
        "bundle": dict(evaluation.bundle),
        "recipe": to_plain(evaluation.recipe),
        "seed": seed,
        "table_sha256": evaluation.table_sha256,
        "device": evaluation.device,
        "versions": {"python": platform.python_version(), **{name: version(name) for name in RECORDED}},
    }


def pick_examples(cases: list[Case], primary: str) -> dict[str, int]:
    """Numbers of the best, the median and the worst case by the primary metric at full resolution."""
    values = np.array([of_result(case)[primary] for case in cases]) * (1 if is_better_higher(primary) else -1)
    order = np.argsort(np.where(np.isnan(values), -np.inf, values), kind="stable")
    return {"best": int(order[-1]), "median": int(order[len(order) // 2]), "worst": int(order[0])}


def _beside(cases: list[Case], seed: int) -> dict[str, Any]:
    kinds = dict.fromkeys(kind for case in cases for kind in case.beside)
    return {kind: summarise_metrics(cases, seed, lambda case, kind=kind: case.beside.get(kind, {})) for kind in kinds}


def _resolutions(cases: list[Case], seed: int) -> list[dict[str, Any]]:
    views = list(dict.fromkeys(view for case in cases for view in case.results))
    return [
        {
            "resolution": view.resolution,
            "sampling": view.sampling,
            "name": view.name,
            "metrics": summarise_metrics(cases, seed, lambda case, view=view: case.results[view]),
        }
        for view in views
    ]


def _differences(cases: list[Case], seed: int, results: dict[str, Any], primary: str) -> dict[str, Any]:
    """Result less baseline, case by case, for each baseline; "best": the one with the best mean primary metric."""
    there = [name for name in BASELINES if primary in results.get(name, {})]
    if not there:
        return {}
    sign = 1 if is_better_higher(primary) else -1
    best = max(there, key=lambda name: sign * results[name][primary]["mean"])

    return {
        "best": best,
        "to": {name: summarise_metrics(cases, seed, lambda case, name=name: result_less(case, name)) for name in there},
        "better_cases": better_share([result_less(case, best)[primary] for case in cases], primary),
    }


def _acts_on_fields(recipe: Recipe) -> bool:
    """Whether its operator can be better than the target's encode-decode."""
    return recipe.operator is not None and operator_acts_on(recipe) == "field"


def _limits(cases: list[Case], primary: str) -> dict[str, float]:
    """The part of the error that the target's own encode-decode has already: of squared error, or of 1 - Dice."""
    shares = []
    for case in cases:
        ceiling = case.beside.get("target_ceiling", {}).get(primary)
        if ceiling is None:
            return {}
        result = of_result(case)[primary]
        shares.append((_error(primary, result), _error(primary, ceiling)))
    ours, theirs = np.array(shares).T
    return {"target_decoder_share": float(theirs.sum() / max(float(ours.sum()), 1e-300))}


def _error(metric: str, value: float) -> float:
    if metric == "psnr":
        return float(10 ** (-min(value, 100.0) / 10))
    return value if not is_better_higher(metric) else 1 - value


def _agreement(evaluation: Evaluation) -> dict[str, Any]:
    names = dict.fromkeys(name for one in evaluation.assessments for name in one.disagreements)
    return {
        name: summarise_agreement([d for one in evaluation.assessments for d in one.disagreements[name]])
        for name in names
    }


def _median(cases: list[Case], name: str) -> float:
    return float(np.median([getattr(case.seconds, name) for case in cases]))


def _spectrum(evaluation: Evaluation) -> dict[str, Any]:
    merged = merge_spectra([one.spectrum for one in evaluation.assessments])
    sizes = {side: effective_size(merged[side]) for side in ("source", "target") if merged[side]}
    return {**merged, "effective_size": sizes, "latent": dict(evaluation.assessments[0].latent)}


def _range(evaluation: Evaluation) -> dict[str, Any]:
    """What PSNR and SSIM are relative to; each fold has its own where the recipe takes it from the training scans."""
    specs = [one.output for one in evaluation.assessments]
    own = OWN_RANGE if evaluation.recipe.source.intensity.map != "none" else "values as they are, data range 1"
    if specs[0].is_label:
        return {"labels": list(specs[0].labels), "source": own}
    if evaluation.recipe.target is None:
        return {"source": own}
    ends = np.array([[min(spec.range_low), max(spec.range_high)] for spec in specs])
    by_fold = ends.tolist() if np.ptp(ends, axis=0).max() > 0 else []
    clipped = specs[0].intensity.map != "none"
    return {"target": np.median(ends, axis=0).tolist(), "by_fold": by_fold, "clipped": clipped, "source": own}


def _baselines(evaluation: Evaluation) -> dict[str, Any]:
    """Of each fold: sizes of the ridge baselines, and what the choice of the best saw."""
    return {
        "recipe_is_linear": evaluation.assessments[0].baselines.is_linear,
        "fits": [
            {
                "sizes": {name: dict(sizes) for name, sizes in one.baselines.sizes.items()},
                "tried": {str(size): score for size, score in one.baselines.tried.items()},
            }
            for one in evaluation.assessments
        ],
    }


def _fold(evaluation: Evaluation, number: int) -> dict[str, Any]:
    fold, cases = evaluation.folds[number], evaluation.assessments[number].cases
    return {
        "fold": fold.number,
        "patients": list(fold.left_out),
        "inner_patients": list(fold.inner),
        "cases": len(cases),
    }
