"""Say what a recipe reaches on scans whose truth is known: its bundle on a split, or refitted in folds."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nfops.arrays import Array
from nfops.bundle import Bundle, load_bundle
from nfops.cohort import Cohort, Pair, load_pairs, read_cohort
from nfops.engines.torch_engine import choose_device
from nfops.errors import BundleError, UsageError
from nfops.evaluation.assess import Assessment, Measured, assess, reference_latents
from nfops.evaluation.baselines import fit_baselines
from nfops.evaluation.degrade import plan_views
from nfops.evaluation.folds import inner_patients, plan_folds
from nfops.evaluation.model import Model, open_model
from nfops.evaluation.operators import Rival, choose_operators
from nfops.evaluation.pool import SamplePool
from nfops.evaluation.probes import Labels, Probed, probe_fold, read_labels, summarise_probes
from nfops.evaluation.refit import refit
from nfops.evaluation.splits import all_splits, choose_splits, rows_of
from nfops.evaluation.staged import Staged
from nfops.evaluation.summary import Evaluation, summarise_evaluation
from nfops.io.publish_folder import publishing_directory, refuse_directory
from nfops.progress import OnStep, Step, silent
from nfops.recipe import Recipe, check_components
from nfops.recipe_changes import refuse_other_recipe
from nfops.report import SUMMARY, write_report
from nfops.schema import to_plain


@dataclass(frozen=True)
class Request:
    """splits: asked for by name, else the recipe's validation. folds: "patient", a number, or "" for the bundle.

    with_ridge: fit ridge on functional PCA beside it. probe: a table of labels, its classes in `probe_column`.
    operators: others to fit in each fold beside the recipe's own: names with commas between them, or "all".
    """

    splits: tuple[str, ...] = ()
    folds: str = ""
    with_ridge: bool = True
    probe: Path | None = None
    probe_column: str = "label"
    operators: str = ""

    def __post_init__(self) -> None:
        if self.folds and self.splits:
            raise UsageError("--folds", "uses the training and validation rows; expected no --split beside it")
        if self.operators and not self.folds:
            raise UsageError("--operators", "fits every operator anew", "say in which folds: --folds 5")


@dataclass(frozen=True, eq=False)
class _Job:
    """What every part of an evaluation needs."""

    recipe: Recipe
    data: Path
    request: Request
    device: str
    on_step: OnStep
    labels: Labels | None
    rivals: tuple[str, ...] = ()

    def load(self, cohort: Cohort) -> list[Pair]:
        """The pairs of a cohort."""

        def on_row(done: int) -> None:
            self.on_step(Step("reading scans", done, len(cohort.rows)))

        return list(load_pairs(self.recipe, cohort, on_row))

    def assess(
        self, model: Model, group: "_Group", reference: dict[str, Array], fold: int, rivals: tuple[Rival, ...] = ()
    ) -> Assessment:
        """Fit the baselines to a group's other patients, and measure everything on those left out."""
        on_step = self.on_step if fold else Staged(self.on_step, "baselines")
        fitted = fit_baselines(
            group.pool,
            model.bundle,
            group.training,
            group.inner,
            with_ridge=self.request.with_ridge,
            on_step=on_step,
        )
        what = Measured(plan_views(self.recipe.evaluate.resolutions), self.recipe.evaluate.metrics, fold, rivals)
        return assess(model, fitted, group.evaluated, reference, what, on_step=self.on_step)

    def probe(self, model: Model, group: "_Group") -> list[Probed]:
        """What classifiers read off the latents; nothing without labels."""
        if not self.labels:
            return []
        training = group.training + group.inner
        labels = replace(self.labels, split_of={}) if self.request.folds else self.labels
        return [probe_fold(labels, model, group.pool, training, group.evaluated, on_step=self.on_step)]

    def summarise_probes(self, probed: list[Probed]) -> dict[str, Any]:
        """Of all folds together."""
        return summarise_probes(self.labels, self.request.probe_column, probed, self.recipe.seed) if self.labels else {}


@dataclass(frozen=True, eq=False)
class _Group:
    """The evaluated pairs, and those of other patients: for training, and (inner) for early stops and choices."""

    pool: SamplePool
    evaluated: list[Pair]
    training: list[Pair]
    inner: list[Pair]

    @classmethod
    def of(cls, pool: SamplePool, evaluated: list[Pair], others: list[Pair], inner: tuple[str, ...]) -> "_Group":
        """inner: names of patients."""
        training = [pair for pair in others if pair.patient not in inner]
        return cls(pool, evaluated, training, [pair for pair in others if pair.patient in inner])


def evaluate(
    recipe: Recipe,
    data: Path,
    bundle_dir: Path,
    out_dir: Path,
    request: Request,
    *,
    device: str = "auto",
    force: bool = False,
    on_step: OnStep = silent,
) -> dict[str, Any]:
    """Evaluate, write `out_dir` (summary.json, cases.csv, figures, report.html) and return the summary.

    The bundle on disk is read on a split, and not looked at with folds. Nothing is written unless all of it is.
    Raises UsageError for a split that was trained on, unless it was asked for by name.
    """
    refuse_directory(out_dir, force, SUMMARY)
    check_components(recipe)
    choose_device(device)
    labels = read_labels(request.probe, request.probe_column, recipe) if request.probe else None
    rivals, left_out = choose_operators(recipe, request.operators)
    job = _Job(recipe, data, request, device, on_step, labels, rivals)
    evaluation = _on_folds(job) if request.folds else _on_split(job, bundle_dir)
    evaluation = replace(evaluation, warnings=evaluation.warnings + left_out)
    summary = summarise_evaluation(evaluation)
    with publishing_directory(out_dir, force, SUMMARY) as temporary:
        write_report(temporary, evaluation, summary, on_step)
    return summary


def plan_evaluation(
    recipe: Recipe, data: Path, bundle_dir: Path, out_dir: Path, request: Request, *, force: bool = False
) -> dict[str, object]:
    """What `evaluate` would do, once everything that can be checked quickly has been."""
    refuse_directory(out_dir, force, SUMMARY)
    check_components(recipe)
    cohort = read_cohort(recipe, data)
    views = [view.name for view in plan_views(recipe.evaluate.resolutions)]
    plan: dict[str, object] = {"resolutions": views, "out": str(out_dir)}
    if request.operators:
        others, left_out = choose_operators(recipe, request.operators)
        plan["operators"] = [recipe.require_operator().component, *others]
        plan |= {"warnings": list(left_out)} if left_out else {}
    if request.folds:
        rows = cohort.with_splits(all_splits(recipe)).rows
        folds = plan_folds([row.patient for row in rows], request.folds, recipe.seed)
        return {"scans": len(rows), "patients": len({row.patient for row in rows}), "folds": len(folds), **plan}
    splits, _ = choose_splits(recipe, _trained_bundle(recipe, bundle_dir), request.splits)
    rows = rows_of(recipe, cohort, splits).rows
    patients = len({row.patient for row in rows})
    return {"scans": len(rows), "patients": patients, "splits": list(splits), "bundle": str(bundle_dir), **plan}


def _on_split(job: _Job, bundle_dir: Path) -> Evaluation:
    """The bundle on disk; baselines fitted to the training rows."""
    recipe, bundle = job.recipe, _trained_bundle(job.recipe, bundle_dir)
    splits, warnings = choose_splits(recipe, bundle, job.request.splits)
    cohort = read_cohort(recipe, job.data)
    if bundle.data.get("table_sha256", cohort.table_digest) != cohort.table_digest:
        warnings += ("The table has changed since the bundle was fitted: rows may have been trained on.",)
    model = open_model(bundle, job.device)
    evaluated = job.load(rows_of(recipe, cohort, splits))
    others = job.load(cohort.with_splits(recipe.data.train))
    if not others:
        warnings += ("There are no training rows: baselines are left out, and the evaluated scans are the cohort.",)
    inner = inner_patients([pair.patient for pair in others], recipe.seed)
    group = _Group.of(SamplePool(recipe, len(others)), evaluated, others, inner)
    assessment = job.assess(model, group, reference_latents(model, others, job.on_step), 0)
    facts = {"name": bundle.name, "sha256": bundle.digest, "versions": dict(bundle.versions), **bundle.data}
    facts.pop("curves", None)
    return Evaluation(
        recipe,
        splits,
        folds=(),
        assessments=(assessment,),
        bundle=facts,
        table_sha256=cohort.table_digest,
        device=model.engine.device,
        warnings=warnings,
        probe=job.summarise_probes(job.probe(model, group)),
    )


def _on_folds(job: _Job) -> Evaluation:
    """Everything refitted without the patients of each fold; no bundle on disk plays a part."""
    recipe, splits = job.recipe, all_splits(job.recipe)
    cohort = read_cohort(recipe, job.data)
    pairs = job.load(rows_of(recipe, cohort, splits))
    folds = plan_folds([pair.patient for pair in pairs], job.request.folds, recipe.seed)
    pool = SamplePool(recipe, len(pairs))
    assessments, probed = [], []
    for fold in folds:
        staged = replace(job, on_step=Staged(job.on_step, f"fold {fold.number} of {len(folds)}"))
        others = [pair for pair in pairs if pair.patient not in fold.left_out]
        group = _Group.of(pool, [pair for pair in pairs if pair.patient in fold.left_out], others, fold.inner)
        model, assessment = _refit_and_assess(staged, group, fold.number)
        assessments.append(assessment)
        probed += staged.probe(model, group)
        job.on_step(Step("folds", fold.number, len(folds)))
    return Evaluation(
        recipe,
        splits,
        folds=tuple(folds),
        assessments=tuple(assessments),
        table_sha256=cohort.table_digest,
        device=model.engine.device,
        probe=job.summarise_probes(probed),
    )


def _refit_and_assess(job: _Job, group: _Group, fold: int) -> tuple[Model, Assessment]:
    """A new model of a group's other patients, and what it and its rivals reach on those left out."""
    refitted = refit(job.recipe, group.training, group.inner, rivals=job.rivals, device=job.device, on_step=job.on_step)
    reference = {side: table.where(table.copies == 0).vectors for side, table in refitted.tables.items()}
    model = open_model(refitted.bundle, job.device)
    rivals = tuple(Rival(one.operator, open_model(one.bundle, job.device)) for one in refitted.operators[1:])
    facts = {one.operator: one.facts() for one in refitted.operators}
    return model, replace(job.assess(model, group, reference, fold, rivals), operators=facts)


def _trained_bundle(recipe: Recipe, bundle_dir: Path) -> Bundle:
    bundle = load_bundle(bundle_dir)
    refuse_other_recipe(bundle, to_plain(recipe))
    if "target" in bundle.specs and not bundle.has_operator:
        raise BundleError(
            bundle_dir,
            "this bundle has no operator yet",
            "run `nfops train-operator` (from latents: `nfops encode` first)",
        )
    return bundle
