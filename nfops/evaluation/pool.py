"""The samples that functional PCA is fitted to: every scan and its augmented copies, on the nodes of a working grid.

They do not depend on the fold, so each is drawn once.
"""

from dataclasses import dataclass, replace

import numpy as np

from nfops.arrays import Array
from nfops.codec_spec import CodecSpec
from nfops.cohort import Pair
from nfops.cohort_samples import Sampler, cohort_domain, plan_spec
from nfops.progress import OnStep, Step, silent
from nfops.recipe import Recipe

MOST_NODES = 1 << 14
"""A working grid with more nodes is made coarser for the baselines."""
MOST_BYTES = 1 << 29
"""Of the pool, a side: with more scans, fewer augmented copies."""
SPARE_COPIES = 8
"""Augmented copies where the recipe augments, but not in copies that are kept."""


@dataclass(frozen=True, eq=False)
class Drawn:
    """One side of one pair: values (copies + 1, C, *nodes) float32, coverage (copies + 1, *nodes) bool."""

    values: Array
    coverage: Array


class SamplePool:
    """Draws the samples of pairs for one recipe, each once."""

    def __init__(self, recipe: Recipe, pairs: int) -> None:
        self.recipe = _with_copies(recipe, pairs)
        self._drawn: dict[tuple[str, str, tuple[float, ...], tuple[int, ...]], Drawn] = {}

    @property
    def copies(self) -> int:
        """Augmented copies of each scan."""
        return self.recipe.augment.copies

    def specs(self, pairs: list[Pair]) -> dict[str, CodecSpec]:
        """What each side would be, fitted to these pairs; its latent size is still open."""
        found = {}
        for side in self.recipe.sides:
            domain, radius = cohort_domain(self.recipe, pairs, _nodes(self.recipe, side))
            found[side] = plan_spec(self.recipe, side, pairs, domain, radius)
        return found

    def draw(self, spec: CodecSpec, side: str, pairs: list[Pair], on_step: OnStep = silent) -> list[Drawn]:
        """The samples of one side, pair by pair."""
        sampler = Sampler(self.recipe, spec, side, spec.domain)
        drawn = []
        for done, pair in enumerate(pairs):
            key = side, pair.scan_id, spec.half_extent, spec.labels
            if key not in self._drawn:
                values, coverage = sampler.draw(pair, range(self.copies + 1))
                self._drawn[key] = Drawn(values, coverage >= 0.5)
            drawn.append(self._drawn[key])
            on_step(Step(f"sampling {side}", done + 1, len(pairs)))
        return drawn


def _with_copies(recipe: Recipe, pairs: int) -> Recipe:
    """As many copies as the recipe's own (some where it augments without), and as memory allows."""
    augment, changes = recipe.augment, replace(recipe.augment, copies=0)
    wanted = augment.copies or (SPARE_COPIES if changes != type(augment)() else 0)
    nodes = max(int(np.prod(_nodes(recipe, side))) for side in recipe.sides)
    fitting = max(0, MOST_BYTES // (5 * nodes * max(pairs, 1)) - 1)
    return replace(recipe, augment=replace(augment, copies=min(wanted, fitting)))


def _nodes(recipe: Recipe, side: str) -> tuple[int, ...]:
    """The working grid of a side, made coarser where it has very many nodes."""
    nodes = tuple(recipe.side(side).field.get("grid") or recipe.geometry.grid.shape)
    excess = max(1.0, float(np.prod(nodes)) / MOST_NODES) ** (1 / len(nodes))
    return tuple(max(2, int(n / excess)) for n in nodes)
