"""Whether one scan means the same to a field at two resolutions (NOIR, section 4.6), made gauge-free.

Disagreement of two encodings: the mean squared difference of the two decoded fields on one dense grid, over the
variance of the decoded field in the cohort. 0: the same function; 2: no more alike than two scans of the cohort.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from nfops.arrays import Array
from nfops.evaluation.degrade import AREA, FULL, POINT, View
from nfops.evaluation.model import Model
from nfops.sampling import Domain, Lattice

MOST_POINTS = 1 << 15
"""Of the dense grid: the field's own nodes, made coarser where there are more."""


@dataclass(frozen=True)
class Disagreement:
    """Of one scan between two views. field: see above. latent: Mahalanobis distance over sqrt(P), prior's variance."""

    scan_id: str
    sampling: str
    finer: float
    coarser: float
    field: float
    latent: float


class Comparer:
    """Compares encodings of one side ("source": what was encoded, the output: what was predicted from it)."""

    def __init__(self, model: Model, side: str, cohort: Array) -> None:
        """Cohort: (N, P) latents of training scans at full resolution, whose decoded fields' variance is the unit."""
        self._model, self._side = model, side
        self._lattice = dense_lattice(model.bundle.specs[side].domain)
        decoded = self._decode(cohort)
        self._variance = float(decoded.var(axis=0).mean())
        self._deviation = np.sqrt(np.maximum(model.bundle.side(side).prior.variance, 1e-12))

    def compare(self, scan_id: str, views: tuple[View, ...], latents: Array) -> list[Disagreement]:
        """All pairs of views of one sampling (the full view belongs to both); latents: (views, P)."""
        decoded = self._decode(latents)
        found = []
        for sampling, one, other in view_pairs(views):
            field = float(((decoded[one] - decoded[other]) ** 2).mean()) / max(self._variance, 1e-12)
            latent = float(np.sqrt((((latents[one] - latents[other]) / self._deviation) ** 2).mean()))
            ends = views[one].resolution, views[other].resolution
            found.append(Disagreement(scan_id, sampling, max(ends), min(ends), field, latent))
        return found

    def _decode(self, latents: Array) -> Array:
        """(N, P) -> (N, values) float32."""
        decoded = self._model.engine.decode(self._side, latents.astype(np.float32), self._lattice)
        return decoded.reshape(len(latents), -1)


def view_pairs(views: tuple[View, ...]) -> Iterator[tuple[str, int, int]]:
    """(sampling, first, second): the numbers of two views that are compared."""
    for sampling in (AREA, POINT):
        numbers = [n for n, view in enumerate(views) if view.sampling in (FULL, sampling)]
        for one, other in itertools.combinations(numbers, 2):
            yield sampling, one, other


def dense_lattice(domain: Domain) -> Lattice:
    """The nodes of a domain, at most 32,768."""
    excess = max(1.0, float(np.prod(domain.nodes)) / MOST_POINTS) ** (1 / domain.dims)
    return Domain(domain.half_extent, tuple(max(2, int(n / excess)) for n in domain.nodes)).lattice()


def summarise_agreement(found: list[Disagreement]) -> dict[str, object]:
    """Median and maximum over scans and pairs of resolutions, and for each pair, by sampling."""
    document: dict[str, object] = {}
    for sampling in (AREA, POINT):
        ours = [one for one in found if one.sampling == sampling]
        if not ours:
            continue
        pairs = sorted({(one.finer, one.coarser) for one in ours}, reverse=True)
        document[sampling] = {
            **_ends(ours),
            "pairs": [
                {
                    "finer": finer,
                    "coarser": coarser,
                    **_ends([o for o in ours if (o.finer, o.coarser) == (finer, coarser)]),
                }
                for finer, coarser in pairs
            ],
        }
    return document


def _ends(found: list[Disagreement]) -> dict[str, float]:
    fields, latents = [one.field for one in found], [one.latent for one in found]
    return {
        "median": float(np.median(fields)),
        "max": float(np.max(fields)),
        "median_mahalanobis": float(np.median(latents)),
        "max_mahalanobis": float(np.max(latents)),
    }
