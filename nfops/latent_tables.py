"""Tables of latents: a cohort's scans through a bundle's fields, augmented copies of the training scans included."""

import numpy as np

from nfops.arrays import Array
from nfops.bundle import Bundle, Side
from nfops.coding import encode_image
from nfops.cohort import Pair
from nfops.cohort_samples import Sampler
from nfops.engines import Engine
from nfops.latents import LatentTable
from nfops.progress import OnStep, Step, silent
from nfops.recipe import Recipe
from nfops.solvers import solve


def encode_pairs(
    recipe: Recipe, bundle: Bundle, engine: Engine, pairs: list[Pair], on_step: OnStep = silent
) -> dict[str, LatentTable]:
    """One table a side: every pair as it is, then the augmented copies of those in the training splits."""
    samplers = [Sampler(recipe, spec, side, spec.domain) for side, spec in bundle.specs.items()]
    return {sampler.side: _table(bundle, engine, sampler, pairs, on_step) for sampler in samplers}


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
    return solve(problem, side.prior, len(values), side.spec.encode)
