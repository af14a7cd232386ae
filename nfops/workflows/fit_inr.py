"""Fit the source's and the target's field to a cohort."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nfops.bundle import save_bundle
from nfops.checkpoints import CheckpointFolder, checkpoint_dir
from nfops.cohort import Cohort, Pair, load_pairs, read_cohort
from nfops.engines.torch_engine import choose_device
from nfops.errors import DeviceError, OutputError, RecipeError
from nfops.fitting import Training, fit_fields, learned_sides
from nfops.io.publish_folder import refuse_directory
from nfops.progress import OnStep, Step, silent
from nfops.recipe import Recipe, check_components
from nfops.recipe_changes import recipe_difference
from nfops.schema import to_plain
from nfops.stopping import Stop


@dataclass(frozen=True)
class FitReport:
    """explained: per side, the part of the cohort's variance that the field's latents hold, on the nodes.

    training: figures of the sides that were trained by descent: iterations, seconds, best loss, rollbacks.
    """

    bundle: Path
    scans: int
    patients: int
    explained: dict[str, float]
    training: dict[str, dict[str, float]] = field(default_factory=dict)


def fit_inr(
    recipe: Recipe,
    data: Path,
    bundle_dir: Path,
    *,
    force: bool = False,
    resume: bool = False,
    device: str = "auto",
    stop: Stop | None = None,
    on_step: OnStep = silent,
) -> FitReport:
    """Fit the fields on the rows of the recipe's training splits and write a bundle without an operator.

    resume: go on where a stopped training left off, if one did. stop: asks a training to end; it raises StoppedError
    and leaves resume state in `checkpoint_dir`, which is removed once the bundle is there.
    """
    cohorts, folder = _checked(recipe, data, bundle_dir, force=force, resume=resume, device=device)
    if folder is not None and force and not resume:
        folder.discard()
    bundle_dir.parent.mkdir(parents=True, exist_ok=True)
    pairs = _load(recipe, cohorts["training"], "reading scans", on_step)
    watched = _load(recipe, cohorts["validation"], "reading validation scans", on_step)
    training = Training(watched, folder, stop or Stop(), device)
    fitted = fit_fields(recipe, pairs, _facts(recipe, cohorts["training"]), on_step, training)
    save_bundle(fitted.bundle, bundle_dir, force=force)
    if folder is not None:
        folder.discard()
    scans, patients = _counts(cohorts["training"])
    return FitReport(bundle_dir, scans, patients, fitted.explained, fitted.figures)


def plan_fit(
    recipe: Recipe, data: Path, bundle_dir: Path, *, force: bool = False, resume: bool = False, device: str = "auto"
) -> dict[str, object]:
    """What `fit_inr` would do, once everything that can be checked has been."""
    cohorts, folder = _checked(recipe, data, bundle_dir, force=force, resume=resume, device=device)
    scans, patients = _counts(cohorts["training"])
    samples = scans * (recipe.augment.copies + 1)
    plan = {"scans": scans, "patients": patients, "samples a side": samples, "bundle": str(bundle_dir)}
    if folder is not None:
        plan |= {"validation scans": len(cohorts["validation"].rows), "iterations": recipe.fit.iterations}
    return plan


def _checked(
    recipe: Recipe, data: Path, bundle_dir: Path, *, force: bool, resume: bool, device: str
) -> tuple[dict[str, Cohort], CheckpointFolder | None]:
    """All that can be refused before anything is computed; the rows to read, and where resume state goes, if any."""
    check_components(recipe)
    learned = learned_sides(recipe)
    if device.startswith("cuda") and not learned:
        raise DeviceError("--device", "the fields of this recipe are fitted on the CPU", "use --device cpu or auto")
    choose_device(device)
    _refuse_bundle(bundle_dir, force=force)
    cohort = read_cohort(recipe, data)
    training = _training_cohort(recipe, cohort)
    others = tuple(set(recipe.data.validation) - set(recipe.data.train)) if learned else ()
    cohorts = {"training": training, "validation": cohort.with_splits(others)}
    if not learned:
        return cohorts, None
    identity = {"recipe": to_plain(recipe), "data": {name: some.files_digest() for name, some in cohorts.items()}}
    folder = CheckpointFolder(checkpoint_dir(bundle_dir), identity)
    if resume:
        folder.refuse_other(_difference)
    elif not force:
        folder.refuse_unfinished()
    return cohorts, folder


def _difference(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """What two trainings do not share, in words; empty if nothing."""
    if difference := recipe_difference(before["recipe"], now["recipe"]):
        return f"it was begun with {difference}"
    return "" if before["data"] == now["data"] else "its images have changed since"


def _load(recipe: Recipe, cohort: Cohort, stage: str, on_step: OnStep) -> list[Pair]:
    total = len(cohort.rows)
    return list(load_pairs(recipe, cohort, lambda done: on_step(Step(stage, done, total))))


def _counts(cohort: Cohort) -> tuple[int, int]:
    """Scans and patients."""
    return len(cohort.rows), len({row.patient for row in cohort.rows})


def _facts(recipe: Recipe, cohort: Cohort) -> dict[str, object]:
    """What the bundle tells of its data."""
    scans, patients = _counts(cohort)
    digests = {"table_sha256": cohort.table_digest, "files_sha256": cohort.files_digest()}
    return {"scans": scans, "patients": patients, "splits": list(recipe.data.train), **digests}


def _refuse_bundle(bundle_dir: Path, *, force: bool) -> None:
    """Refuse a bundle that is there already; the folders above it may be missing, a fit makes them."""
    there = next(path for path in (bundle_dir.parent, *bundle_dir.absolute().parents) if path.exists())
    if not there.is_dir():
        raise OutputError(there, "is a file, expected a directory")
    if bundle_dir.parent.is_dir():
        refuse_directory(bundle_dir, force)


def _training_cohort(recipe: Recipe, cohort: Cohort) -> Cohort:
    training = cohort.with_splits(recipe.data.train)
    if not training.rows:
        raise RecipeError(recipe.name, f"data.train: no row has split {' or '.join(recipe.data.train)}")
    return training
