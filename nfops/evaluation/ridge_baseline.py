"""Ridge regression on functional PCA: the linear chain of the house as a baseline, at any latent size.

Functional PCA is nested: one fit at the largest size has the smaller ones as its first components.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from nfops.arrays import Array
from nfops.bundle import Bundle
from nfops.codec import state_arrays
from nfops.codec_spec import CodecSpec, EncodeSettings
from nfops.cohort import Pair
from nfops.evaluation.model import Model, open_model
from nfops.evaluation.pool import Drawn, SamplePool
from nfops.heads import Head
from nfops.image import Image
from nfops.latents import LatentTable
from nfops.progress import OnStep, Step, silent
from nfops.registry import load_component
from nfops.sampling import FieldSamples
from nfops.solvers import gauss_newton

SIZES = (8, 16, 32, 64, 128, 256, 512)
"""Candidates for the best latent size, the same on both sides."""
LARGEST = 1024
"""A recipe with larger latents is compared with ridge at this size."""
CHOICE_SAMPLES = 4000
"""The best size is chosen with so many samples, that is with fewer copies of many scans."""
ENCODING = EncodeSettings(steps=1, prior=1e-6)
"""As the shipped linear recipes encode: one step, exact for intensities."""


@dataclass(frozen=True, eq=False)
class RidgeBaseline:
    """A linear bundle like any other. sizes: side -> P."""

    name: str
    model: Model
    sizes: Mapping[str, int]

    def predict(self, pair: Pair) -> Image:
        """See `Baseline`."""
        return self.model.predict(pair)


class LinearFit:
    """Functional PCA of each side of some pairs, at the largest size that will be asked for. specs: of the sides."""

    def __init__(
        self, pool: SamplePool, pairs: list[Pair], largest: int, *, is_rough: bool = False, on_step: OnStep = silent
    ) -> None:
        """is_rough: to choose a size by: at most CHOICE_SAMPLES, and what a warp moved into view counts as known."""
        copies = min(pool.copies, max(0, CHOICE_SAMPLES // len(pairs) - 1)) if is_rough else pool.copies
        self._pairs, self._repeat = pairs, 1 + copies
        self.specs = pool.specs(pairs)
        self._drawn: dict[str, list[Drawn]] = {}
        self._bases: dict[str, dict[str, Array]] = {}
        for side, spec in self.specs.items():
            parts = [(d.values[: 1 + copies], d.coverage[: 1 + copies]) for d in pool.draw(spec, side, pairs, on_step)]
            self._drawn[side] = [Drawn(values, known | is_rough) for values, known in parts]
            samples = _field_samples(spec, self._drawn[side], pool.recipe.seed)
            self._bases[side] = _fit_basis(spec, samples, min(largest, feasible(spec, len(samples.values))), on_step)

    def sizes(self, wanted: Mapping[str, int]) -> dict[str, int]:
        """The sizes wanted, or the largest that the samples allow."""
        return {side: min(wanted[side], len(self._bases[side]["field.variance"])) for side in self.specs}

    def model(self, wanted: Mapping[str, int]) -> Model:
        """The linear chain at these sizes (side -> P)."""
        specs, arrays = {}, {}
        for side, size in self.sizes(wanted).items():
            specs[side] = replace(self.specs[side], backbone="fpca", form="spline-basis", latent=size, encode=ENCODING)
            arrays[side] = _first_components(self._bases[side], size)
        bundle = Bundle("baseline", {}, specs, arrays)
        if "target" not in specs:
            return open_model(bundle, "cpu")
        fields = open_model(bundle, "cpu")
        tables = [self._table(fields, side) for side in ("source", "target")]
        operator = {"operator": _fit_ridge(tables[0], tables[1])}
        return open_model(replace(bundle, arrays={**arrays, **operator}, operator={"form": "affine"}), "cpu")

    def _table(self, model: Model, name: str) -> LatentTable:
        """Latents of every sample of one side, in the pairs' order."""
        side, lattice, vectors = model.bundle.side(name), self.specs[name].domain.lattice(), []
        for one in self._drawn[name]:
            weights = None if one.coverage.all() else one.coverage.astype(np.float32)
            problem = model.engine.pose(name, lattice, one.values, weights)
            vectors.append(gauss_newton(problem, side.prior, self._repeat, side.spec.encode.steps)[0])
        owners = [pair for pair in self._pairs for _ in range(self._repeat)]
        ids, patients = tuple(pair.scan_id for pair in owners), tuple(pair.patient for pair in owners)
        copies = np.tile(np.arange(self._repeat), len(self._pairs))
        empty = np.zeros(len(owners), np.float32)
        return LatentTable(np.concatenate(vectors), ids, patients, ("",) * len(owners), copies, empty, "")


def feasible(spec: CodecSpec, samples: int) -> int:
    """The largest P that so many samples can give."""
    return max(1, min(samples - 1, spec.channels * int(np.prod(spec.domain.nodes))))


def choose_size(
    pool: SamplePool, training: list[Pair], inner: list[Pair], on_step: OnStep = silent
) -> tuple[int, dict[int, float]]:
    """The best P of SIZES and the score of each that was tried: fitted without the inner patients, tried on them."""
    scores: dict[int, float] = {}
    fit = LinearFit(pool, training, max(SIZES), is_rough=True, on_step=on_step)
    for size in SIZES:
        wanted = {"source": size, "target": size}
        if fit.sizes(wanted) != wanted and scores:
            break
        scores[min(fit.sizes(wanted).values())] = _score(fit.model(wanted), inner)
        on_step(Step("best size", len(scores), len(SIZES)))
    return max(scores, key=lambda size: scores[size]), scores


def _score(model: Model, pairs: list[Pair]) -> float:
    """Mean PSNR or Dice over pairs."""
    metric = "dice" if model.spec.is_label else "psnr"
    found = [model.judge(model.output, pair, model.predict(pair), (metric,))[metric] for pair in pairs]
    return float(np.mean(np.minimum(found, 100.0)))


def _field_samples(spec: CodecSpec, drawn: list[Drawn], seed: int) -> FieldSamples:
    head = Head(spec.head)
    values = np.concatenate([one.values for one in drawn])
    linked = np.moveaxis(head.link(np.moveaxis(values, 1, -1)), -1, 1).astype(np.float32)
    coverage = np.concatenate([one.coverage for one in drawn]).astype(np.float32)
    return FieldSamples(linked, coverage, spec.domain, seed)


def _fit_basis(spec: CodecSpec, samples: FieldSamples, size: int, on_step: OnStep) -> dict[str, Array]:
    part = load_component("backbone", "fpca")
    backbone: Any = part.cls(part.config(latent=size), spec.domain, spec.channels)
    backbone.fit(samples, on_step)
    return state_arrays(backbone, "field.")


def _first_components(arrays: Mapping[str, Array], size: int) -> dict[str, Array]:
    kept = {name: array if name == "field.mean" else array[:size] for name, array in arrays.items()}
    return {**kept, "prior_mean": np.zeros(size, np.float32), "prior_variance": kept["field.variance"]}


def _fit_ridge(source: LatentTable, target: LatentTable) -> dict[str, Array]:
    part = load_component("operator", "linear")
    operator: Any = part.cls(part.config(), source.vectors.shape[1], target.vectors.shape[1])
    operator.fit(source, target, None)
    return state_arrays(operator)
