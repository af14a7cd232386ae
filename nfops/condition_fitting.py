"""`condition: latent` in training: the chain of latents, fitted and cross-fitted, and applied to every draw.

A training scan is another one in every draw, so its latent is that of the draw; and the ridge that moves it has not
seen its patient. (Both fields have, so that the chain still looks a little better than it is on new patients.)
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from nfops import splines
from nfops.arrays import Array
from nfops.bundle import Bundle, Side
from nfops.codec_spec import CodecSpec
from nfops.cohort import Pair
from nfops.conditioning import with_prediction
from nfops.cross_fitting import CrossFit, cross_fit
from nfops.engines import Engine
from nfops.field_pairs import WorkingGrid
from nfops.latent_tables import encode_pairs
from nfops.progress import OnStep, silent
from nfops.recipe import Recipe
from nfops.sampling import Lattice, centred_lattice
from nfops.solvers import solve

MOST_ROWS = 4096
"""The ridges are fitted to so many latents: of many scans, fewer augmented copies than the recipe asks for."""


@dataclass(frozen=True, eq=False)
class DrawnCondition:
    """What the chain predicts for draws on the working grid. ridges: see `CrossFit`; ids are those of the scans."""

    engine: Engine
    bundle: Bundle
    working: WorkingGrid
    ridges: CrossFit

    def extend(self, values: Array, ids: Sequence[str]) -> Array:
        """Source channels (B, C + 1, *grid) of draws of the scans `ids` -> (B, C + C' + 1, *grid)."""
        moved = self.ridges.move(encode_draws(self.engine, self.bundle.side("source"), self.working, values), ids)
        return with_prediction(self.engine, self.bundle.side("target"), self.working, values, moved)


def fit_condition(
    recipe: Recipe,
    bundle: Bundle,
    engine: Engine,
    working: WorkingGrid,
    training: list[Pair],
    *,
    on_step: OnStep = silent,
) -> DrawnCondition:
    """Encode the training pairs and their augmented copies as `nfops encode` does, and fit the ridges between them."""
    copies = max(0, min(recipe.augment.copies, MOST_ROWS // len(training) - 1))
    recipe = replace(recipe, augment=replace(recipe.augment, copies=copies))
    tables = encode_pairs(recipe, bundle, engine, training, on_step)
    return DrawnCondition(engine, bundle, working, cross_fit(tables["source"], tables["target"]))


def encode_draws(engine: Engine, side: Side, working: WorkingGrid, values: Array) -> Array:
    """Source channels (B, C + 1, *grid) on the working grid -> latents (B, P).

    Averaged to the nodes of the field first, where those are further apart, as its copies were: there its basis is at
    hand, and there are fewer cells.
    """
    lattice, overlaps = _encoding_cells(side.spec, working, values.shape[2:])
    parts = splines.apply_axes(overlaps, values)
    coverage = parts[:, -1]
    means = parts[:, :-1] / np.maximum(coverage, 1e-6)[:, None]
    weights = None if coverage.min() >= 0.5 else (coverage >= 0.5).astype(np.float32)
    return solve(engine.pose(side.name, lattice, means, weights), side.prior, len(values), side.spec.encode)[0]


def _encoding_cells(spec: CodecSpec, working: WorkingGrid, shape: tuple[int, ...]) -> tuple[Lattice, tuple[Array, ...]]:
    """Per axis the nodes of a field or, where that is coarser, the working grid in its domain; and what takes the
    working grid there, a matrix (cells, n).
    """
    counts, widths, overlaps = [], [], []
    for n, step, half, node in zip(shape, working.spacing, spec.half_extent, spec.spacing, strict=True):
        own = step / (spec.radius_mm or 1.0)
        centres = (np.arange(n) + 0.5 - n / 2) * own
        within = int(np.count_nonzero(np.abs(centres) <= half * (1 + 1e-6)))
        count, width = (round(2 * half / node), node) if node >= own else (within, own)
        counts.append(count)
        widths.append(width)
        overlaps.append(_overlaps(count, width, n, own))
    return centred_lattice(counts, widths, spec.spacing), tuple(overlaps)


def _overlaps(cells: int, width: float, count: int, own: float) -> Array:
    """(cells, count) float32: the part of each of the cells that each of the others fills; both share their centre."""
    low, start = (np.arange(cells) - cells / 2)[:, None] * width, (np.arange(count) - count / 2) * own
    shared = np.minimum(low + width, start + own) - np.maximum(low, start)
    return np.asarray(np.clip(shared, 0, None) / width, np.float32)
