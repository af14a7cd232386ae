"""Learn the map from source to target, latents or fields, and say what it reaches on the validation scans."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from nfops.arrays import Array
from nfops.bundle import Bundle, load_bundle, save_bundle
from nfops.codec import build_field_operator, operator_acts_on, operator_condition
from nfops.cohort import Cohort, Pair, load_pairs, read_cohort
from nfops.engines import open_engine
from nfops.errors import BundleError, InputError, OutputError
from nfops.field_operator_fitting import fit_field_operator
from nfops.latents import LatentTable, latents_dir
from nfops.operator_fitting import fit_operator
from nfops.progress import OnStep, Step, silent
from nfops.recipe import Recipe
from nfops.recipe_changes import refuse_other_recipe
from nfops.registry import load_component
from nfops.schema import to_plain
from nfops.scoring import Score, score_pair, summarise


@dataclass(frozen=True)
class TrainReport:
    """operator: figures of its fit. validation: means over the validation scans, empty without any."""

    bundle: Path
    operator: dict[str, Any]
    validation_scans: int = 0
    validation: dict[str, dict[str, float]] = field(default_factory=dict)


def train_operator(
    recipe: Recipe,
    data: Path,
    bundle_dir: Path,
    *,
    device: str = "auto",
    force: bool = False,
    on_step: OnStep = silent,
) -> TrainReport:
    """Fit the operator and add it to the bundle.

    One on latents learns from the tables that `encode` wrote; BundleError if they are missing or come from other
    fields than the bundle's. One on fields learns from the scans themselves, and needs no tables.
    """
    bundle = _bundle(recipe, bundle_dir, force=force)
    open_engine(bundle.without_operator(), device)  # a device that is not there is found out now
    cohort = read_cohort(recipe, data)
    if operator_acts_on(recipe) == "field":
        trained = fit_field_operator(recipe, bundle, _load(recipe, cohort, on_step), device, on_step)
        mean = bundle.side("target").prior.mean
    else:
        tables = _tables(recipe, bundle, bundle_dir)
        trained = fit_operator(recipe, bundle, tables, lambda: _load(recipe, cohort, on_step), on_step)
        originals = tables["target"].where(_training_rows(recipe, tables) & (tables["target"].copies == 0))
        mean = originals.vectors.mean(axis=0)
    save_bundle(trained, bundle_dir, force=True)
    reloaded = load_bundle(bundle_dir)
    engine = open_engine(reloaded, device)
    scores = _validate(recipe, cohort, lambda pair: score_pair(engine, reloaded, pair, mean), on_step)
    return TrainReport(bundle_dir, dict(trained.operator), len(scores), summarise(scores) if scores else {})


def plan_train(recipe: Recipe, bundle_dir: Path, *, device: str = "auto", force: bool = False) -> dict[str, object]:
    """What `train_operator` would do, once everything that can be checked has been."""
    bundle = _bundle(recipe, bundle_dir, force=force)
    open_engine(bundle.without_operator(), device)
    section = recipe.require_operator()
    section.configure(load_component("operator", section.component).config)
    if operator_acts_on(recipe) == "field":
        build_field_operator(section, bundle, operator_condition(section))
        return {"operator": section.component, "acts on": "fields", "bundle": str(bundle_dir)}
    tables = _tables(recipe, bundle, bundle_dir)
    pairs = int(_training_rows(recipe, tables).sum())
    return {"operator": section.component, "pairs of latents": pairs, "bundle": str(bundle_dir)}


def _load(recipe: Recipe, cohort: Cohort, on_step: OnStep) -> list[Pair]:
    """The pairs behind the latent tables."""
    cohort = cohort.with_splits((*recipe.data.train, *recipe.data.validation))
    total = len(cohort.rows)
    return list(load_pairs(recipe, cohort, lambda done: on_step(Step("reading scans", done, total))))


def _training_rows(recipe: Recipe, tables: dict[str, LatentTable]) -> Array:
    """(N,) which rows of the tables the recipe trains on."""
    return np.isin(tables["source"].splits, recipe.data.train)


def _bundle(recipe: Recipe, bundle_dir: Path, *, force: bool) -> Bundle:
    """The bundle of the recipe's fields, which may get an operator."""
    recipe.require_operator()
    bundle = load_bundle(bundle_dir)
    refuse_other_recipe(bundle, to_plain(recipe))
    if bundle.has_operator and not force:
        raise OutputError(bundle_dir, "this bundle has an operator already", "use --force to replace it")
    return bundle


def _tables(recipe: Recipe, bundle: Bundle, bundle_dir: Path) -> dict[str, LatentTable]:
    """The bundle's latent tables, some of whose rows the recipe trains on."""
    directory = latents_dir(bundle_dir)
    tables = {side: _load_table(bundle, directory, side) for side in ("source", "target")}
    if not _training_rows(recipe, tables).any():
        raise InputError(directory, f"no rows of split {' or '.join(recipe.data.train)}")
    return tables


def _validate(recipe: Recipe, cohort: Cohort, score: Callable[[Pair], Score], on_step: OnStep) -> list[Score]:
    """Scores of the validation scans."""
    others = tuple(set(recipe.data.validation) - set(recipe.data.train))
    cohort = cohort.with_splits(others)
    total = len(cohort.rows)
    return [score(pair) for pair in load_pairs(recipe, cohort, lambda done: on_step(Step("validation", done, total)))]


def _load_table(bundle: Bundle, directory: Path, side: str) -> LatentTable:
    path = directory / f"{side}.safetensors"
    table = LatentTable.load(path)
    if table.codec != bundle.codec_digest(side):
        raise BundleError(
            path, "these latents were made by other fields than the bundle's", "run `nfops encode --force`"
        )
    return table
