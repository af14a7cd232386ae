"""Learn the map from source latents to target latents, and say what it reaches on the validation scans."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from nfops.bundle import Bundle, load_bundle, refuse_other_recipe, save_bundle
from nfops.cohort import Cohort, Pair, load_pairs, read_cohort
from nfops.engines import open_engine
from nfops.errors import BundleError, InputError, OutputError
from nfops.latents import LatentTable, latents_dir
from nfops.operator_fitting import fit_operator
from nfops.progress import OnStep, Step, silent
from nfops.recipe import Recipe
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
    """Fit the operator on the training rows of the tables that `encode` wrote, and add it to the bundle.

    Raises BundleError if the tables are missing or come from other fields than the bundle's.
    """
    bundle, training = _training_tables(recipe, bundle_dir, force=force)
    open_engine(bundle, device)  # a device that is not there is found out now
    cohort = read_cohort(recipe, data)
    trained = fit_operator(recipe, bundle, training, on_step)
    originals = training["target"].where(training["target"].copies == 0)
    save_bundle(trained, bundle_dir, force=True)
    reloaded = load_bundle(bundle_dir)
    engine, mean = open_engine(reloaded, device), originals.vectors.mean(axis=0)
    scores = _validate(recipe, cohort, lambda pair: score_pair(engine, reloaded, pair, mean), on_step)
    return TrainReport(bundle_dir, dict(trained.operator), len(scores), summarise(scores) if scores else {})


def plan_train(recipe: Recipe, bundle_dir: Path, *, device: str = "auto", force: bool = False) -> dict[str, object]:
    """What `train_operator` would do, once everything that can be checked has been."""
    bundle, training = _training_tables(recipe, bundle_dir, force=force)
    open_engine(bundle, device)
    recipe.operator.configure(load_component("operator", recipe.operator.component).config)
    return {
        "operator": recipe.operator.component,
        "pairs of latents": len(training["source"]),
        "bundle": str(bundle_dir),
    }


def _training_tables(recipe: Recipe, bundle_dir: Path, *, force: bool) -> tuple[Bundle, dict[str, LatentTable]]:
    """The bundle, and the rows of its latent tables that the recipe trains on."""
    bundle, directory = load_bundle(bundle_dir), latents_dir(bundle_dir)
    refuse_other_recipe(bundle, to_plain(recipe))
    if bundle.has_operator and not force:
        raise OutputError(bundle_dir, "this bundle has an operator already", "use --force to replace it")
    tables = {side: _load_table(bundle, directory, side) for side in ("source", "target")}
    training = {side: table.where(np.isin(table.splits, recipe.data.train)) for side, table in tables.items()}
    if not len(training["source"]):
        raise InputError(directory, f"no rows of split {' or '.join(recipe.data.train)}")
    return bundle, training


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
