"""Turn a cohort into two latent tables, augmented copies of the training scans included."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nfops.bundle import load_bundle
from nfops.cohort import load_pairs, read_cohort
from nfops.engines import open_engine
from nfops.io.publish_folder import publishing_directory, refuse_directory
from nfops.latent_tables import encode_pairs
from nfops.latents import TABLES, latents_dir
from nfops.progress import OnStep, Step, silent
from nfops.recipe import Recipe
from nfops.recipe_changes import refuse_other_recipe
from nfops.schema import to_plain


@dataclass(frozen=True)
class EncodeReport:
    """rows: of each table. residual: per side, the median loss that a field could not explain."""

    latents: Path
    scans: int
    rows: int
    residual: dict[str, float]


def encode(
    recipe: Recipe, data: Path, bundle_dir: Path, *, device: str = "auto", force: bool = False, on_step: OnStep = silent
) -> EncodeReport:
    """Encode source and target of training and validation rows; training rows in augmented copies too."""
    bundle = load_bundle(bundle_dir)
    refuse_other_recipe(bundle, to_plain(recipe))
    directory = latents_dir(bundle_dir)
    refuse_directory(directory, force, TABLES[0])
    engine = open_engine(bundle.without_operator(), device)
    cohort = read_cohort(recipe, data).with_splits((*recipe.data.train, *recipe.data.validation))
    total = len(cohort.rows)
    pairs = list(load_pairs(recipe, cohort, lambda done: on_step(Step("reading scans", done, total))))
    tables = encode_pairs(recipe, bundle, engine, pairs, on_step)
    with publishing_directory(directory, force, TABLES[0]) as temporary:
        for side, table in tables.items():
            table.save(temporary / f"{side}.safetensors")
    residual = {side: float(np.median(table.residual)) for side, table in tables.items()}
    return EncodeReport(directory, total, len(tables["source"]), residual)


def plan_encode(
    recipe: Recipe, data: Path, bundle_dir: Path, *, device: str = "auto", force: bool = False
) -> dict[str, object]:
    """What `encode` would do, once everything that can be checked has been."""
    bundle = load_bundle(bundle_dir)
    refuse_other_recipe(bundle, to_plain(recipe))
    refuse_directory(latents_dir(bundle_dir), force, TABLES[0])
    open_engine(bundle.without_operator(), device)
    cohort = read_cohort(recipe, data).with_splits((*recipe.data.train, *recipe.data.validation))
    training = sum(row.split in recipe.data.train for row in cohort.rows)
    copies = training * recipe.augment.copies
    return {"scans": len(cohort.rows), "augmented copies": copies, "latents": str(latents_dir(bundle_dir))}
