"""Fit the source's and the target's field to a cohort."""

from dataclasses import dataclass
from pathlib import Path

from nfops.bundle import save_bundle
from nfops.cohort import Cohort, load_pairs, read_cohort
from nfops.errors import OutputError, RecipeError
from nfops.fitting import fit_fields
from nfops.io.publish import refuse_directory
from nfops.progress import OnStep, Step, silent
from nfops.recipe import Recipe, check_components


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
    patients = len({row.patient for row in cohort.rows})
    facts = {
        "scans": total,
        "patients": patients,
        "splits": list(recipe.data.train),
        "table_sha256": cohort.table_digest,
        "files_sha256": cohort.files_digest(),
    }
    fitted = fit_fields(recipe, pairs, facts, on_step)
    save_bundle(fitted.bundle, bundle_dir, force=force)
    return FitReport(bundle_dir, total, patients, fitted.explained)


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
