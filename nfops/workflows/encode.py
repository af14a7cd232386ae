"""Turn a cohort into two latent tables, augmented copies of the training scans included."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nfops.arrays import Array
from nfops.bundle import Bundle, Side, load_bundle, refuse_other_recipe
from nfops.coding import encode_image
from nfops.cohort import Pair, load_pairs, read_cohort
from nfops.cohort_samples import Sampler
from nfops.engines import Engine, open_engine
from nfops.io.publish import publishing_directory, refuse_directory
from nfops.latents import TABLES, LatentTable, latents_dir
from nfops.progress import OnStep, Step, silent
from nfops.recipe import Recipe
from nfops.schema import to_plain
from nfops.solvers import gauss_newton


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
    engine = open_engine(bundle, device)
    cohort = read_cohort(recipe, data).with_splits((*recipe.data.train, *recipe.data.validation))
    total = len(cohort.rows)
    pairs = list(load_pairs(recipe, cohort, lambda done: on_step(Step("reading scans", done, total))))
    samplers = [Sampler(recipe, spec, side, spec.domain) for side, spec in bundle.specs.items()]
    tables = {sampler.side: _table(bundle, engine, sampler, pairs, on_step) for sampler in samplers}
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
    open_engine(bundle, device)
    cohort = read_cohort(recipe, data).with_splits((*recipe.data.train, *recipe.data.validation))
    training = sum(row.split in recipe.data.train for row in cohort.rows)
    copies = training * recipe.augment.copies
    return {"scans": len(cohort.rows), "augmented copies": copies, "latents": str(latents_dir(bundle_dir))}


def _table(bundle: Bundle, engine: Engine, sampler: Sampler, pairs: list[Pair], on_step: OnStep) -> LatentTable:
    """The latents of one side: every scan as it is, then the copies of the training scans."""
    side = bundle.side(sampler.side)
    vectors, residual, owners = [], [], list(range(len(pairs)))
    for number, pair in enumerate(pairs):
        latent = encode_image(engine, side, pair.image(side.name), pair.scan_id, pair.scan(side.name))
        vectors.append(latent.vectors)
        residual.append(latent.residual)
        on_step(Step(f"{side.name}: encoding", number + 1, len(pairs)))
    numbers = range(1, sampler.recipe.augment.copies + 1)
    training = [i for i, pair in enumerate(pairs) if pair.split in sampler.recipe.data.train] if numbers else []
    for done, owner in enumerate(training):
        found, loss = _encode_copies(engine, side, sampler, pairs[owner], numbers)
        vectors.append(found)
        residual.append(loss)
        owners += [owner] * len(numbers)
        on_step(Step(f"{side.name}: encoding copies", done + 1, len(training)))
    copies = np.array([0] * len(pairs) + list(numbers) * len(training))
    ids, patients, splits = zip(*((pairs[o].scan_id, pairs[o].patient, pairs[o].split) for o in owners), strict=True)
    stacked = np.concatenate(vectors), ids, patients, splits, copies, np.concatenate(residual)
    return LatentTable(*stacked, bundle.codec_digest(side.name))


def _encode_copies(engine: Engine, side: Side, sampler: Sampler, pair: Pair, numbers: range) -> tuple[Array, Array]:
    """Latents (B, P) and losses (B,) of the warped copies of one scan; what a warp moved out of view is unknown."""
    values, coverage = sampler.draw(pair, numbers)
    weights = None if coverage.min() >= 0.5 else (coverage >= 0.5).astype(np.float32)
    problem = engine.pose(side.name, sampler.domain.lattice(), values, weights)
    return gauss_newton(problem, side.prior, len(values), side.spec.encode.steps)
