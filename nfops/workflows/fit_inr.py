"""Fit the source's and the target's field to a cohort."""

import platform
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch

from nfops.arrays import Array
from nfops.bundle import Bundle, save_bundle
from nfops.codec import build_backbone, state_arrays
from nfops.codec_spec import CodecSpec
from nfops.cohort import Cohort, Pair, load_pairs, read_cohort
from nfops.cohort_samples import Sampler, cohort_domain, plan_spec
from nfops.errors import OutputError, RecipeError
from nfops.io.publish import refuse_directory
from nfops.progress import OnStep, Step, silent
from nfops.recipe import Recipe, check_components
from nfops.schema import to_plain

RECORDED = ("numpy", "scipy", "torch", "scikit-learn")
"""Whose versions a bundle keeps."""


@dataclass(frozen=True)
class FitReport:
    """explained: per side, the part of the cohort's variance that the field's latents hold, on the nodes."""

    bundle: Path
    scans: int
    patients: int
    explained: dict[str, float]


def fit_inr(
    recipe: Recipe, data: Path, bundle_dir: Path, *, force: bool = False, on_step: OnStep = silent
) -> FitReport:
    """Fit both fields on the rows of the recipe's training splits and write a bundle without an operator."""
    check_components(recipe)
    _refuse_bundle(bundle_dir, force=force)
    cohort = _training_cohort(recipe, data)
    bundle_dir.parent.mkdir(parents=True, exist_ok=True)
    total = len(cohort.rows)
    pairs = list(load_pairs(recipe, cohort, lambda done: on_step(Step("reading scans", done, total))))
    specs, arrays, explained = {}, {}, {}
    for side in ("source", "target"):
        specs[side], arrays[side], explained[side] = _fit_side(recipe, side, pairs, on_step)
    patients = len({row.patient for row in cohort.rows})
    bundle = Bundle(
        name=recipe.name,
        recipe=to_plain(recipe),
        specs=specs,
        arrays=arrays,
        data={
            "scans": total,
            "patients": patients,
            "splits": list(recipe.data.train),
            "table_sha256": cohort.table_digest,
            "files_sha256": cohort.files_digest(),
        },
        versions={"python": platform.python_version(), **{name: version(name) for name in RECORDED}},
    )
    save_bundle(bundle, bundle_dir, force=force)
    return FitReport(bundle_dir, total, patients, explained)


def plan_fit(recipe: Recipe, data: Path, bundle_dir: Path, *, force: bool = False) -> dict[str, object]:
    """What `fit_inr` would do, once everything that can be checked has been."""
    check_components(recipe)
    _refuse_bundle(bundle_dir, force=force)
    cohort = _training_cohort(recipe, data)
    patients = len({row.patient for row in cohort.rows})
    samples = len(cohort.rows) * (recipe.augment.copies + 1)
    return {"scans": len(cohort.rows), "patients": patients, "samples a side": samples, "bundle": str(bundle_dir)}


def _refuse_bundle(bundle_dir: Path, *, force: bool) -> None:
    """Refuse a bundle that is there already; the folders above it may be missing, a fit makes them."""
    there = next(path for path in (bundle_dir.parent, *bundle_dir.absolute().parents) if path.exists())
    if not there.is_dir():
        raise OutputError(there, "is a file, expected a directory")
    if bundle_dir.parent.is_dir():
        refuse_directory(bundle_dir, force)


def _training_cohort(recipe: Recipe, data: Path) -> Cohort:
    cohort = read_cohort(recipe, data).with_splits(recipe.data.train)
    if not cohort.rows:
        raise RecipeError(recipe.name, f"data.train: no row has split {' or '.join(recipe.data.train)}")
    return cohort


def _fit_side(
    recipe: Recipe, side: str, pairs: list[Pair], on_step: OnStep
) -> tuple[CodecSpec, dict[str, Array], float]:
    """The spec and the arrays of one side, and the part of the variance that its latents hold."""
    part = recipe.source if side == "source" else recipe.target
    nodes = tuple(part.field.get("grid") or recipe.geometry.grid.shape)
    if len(nodes) != recipe.geometry.dims:
        raise RecipeError(recipe.name, f"{side}.field.grid: expected {recipe.geometry.dims} numbers, got {len(nodes)}")
    domain, radius = cohort_domain(recipe, pairs, nodes)
    spec = plan_spec(recipe, side, pairs, domain, radius)
    torch.manual_seed(recipe.seed)
    backbone = build_backbone(part.field, domain, spec.channels)
    on_step(Step(f"{side}: sampling", 0, 1))
    samples = Sampler(recipe, spec, side, domain).draw_all(pairs)
    on_step(Step(f"{side}: sampling", 1, 1, f"{len(samples.values)} samples"))
    backbone.fit(samples, lambda step: on_step(replace(step, stage=f"{side}: {step.stage}")))
    mean, variance = backbone.prior()
    arrays = state_arrays(backbone, "field.")
    arrays |= {"prior_mean": mean.astype(np.float32), "prior_variance": variance.astype(np.float32)}
    spread = float(np.mean((samples.values - samples.values.mean(axis=0)) ** 2))
    return replace(spec, form=backbone.form, latent=backbone.latent), arrays, float(variance.sum()) / max(spread, 1e-12)
