"""What a field is fitted to: a cohort's pairs, warped copies included, on the nodes of one domain."""

import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np

from nfops.arrays import Array
from nfops.augment import AugmentSettings, Voxels, changed, random_change, random_warp, sample_nodes
from nfops.codec_spec import CodecSpec, EncodeSettings
from nfops.coding import prepare
from nfops.cohort import Pair
from nfops.errors import RecipeError
from nfops.grid import WORLD_DIRECTIONS
from nfops.heads import Head
from nfops.intensity import IntensitySettings
from nfops.recipe import Recipe
from nfops.recipe_sections import TargetSide
from nfops.sampling import Domain, FieldSamples

MAX_LABELS = 64


def cohort_domain(recipe: Recipe, pairs: list[Pair], nodes: tuple[int, ...]) -> tuple[Domain, float | None]:
    """The box that holds every scan's field of view about its centre, and the radius (mm) of the frame.

    Frame "unit": every field of view is [-1, 1] per axis, and there is no radius.
    """
    dims = recipe.geometry.dims
    if recipe.geometry.frame == "unit":
        return Domain((1.0,) * dims, nodes), None
    extents = [image.grid.extent_mm[:dims] for pair in pairs for image in (pair.source, pair.target)]
    largest = np.max(extents, axis=0)
    radius = float(largest.max() / 2)
    return Domain(tuple(float(e / 2 / radius) for e in largest), nodes), radius


def plan_spec(recipe: Recipe, side: str, pairs: list[Pair], domain: Domain, radius_mm: float | None) -> CodecSpec:
    """The spec of one side, but for the backbone's form and latent size, from the recipe and the cohort."""
    part = recipe.side(side)
    said = part.intensity
    intensity = IntensitySettings(said.map, said.low, said.high, said.over, said.strict)
    labels = _labels(recipe, side, pairs)
    channels = {"sigmoid": 1, "softmax": len(labels)}.get(part.head, pairs[0].image(side).channels)
    spec = CodecSpec(
        backbone=part.field.component,
        form="torch",
        dims=recipe.geometry.dims,
        axes=recipe.geometry.anatomical_axes,
        radius_mm=radius_mm,
        half_extent=domain.half_extent,
        spacing=domain.spacing,
        head=part.head,
        labels=labels,
        channels=channels,
        latent=0,
        intensity=intensity,
        range_low=(0.0,) * channels,
        range_high=(1.0,) * channels,
        encode=EncodeSettings(**vars(recipe.encode)),
        nan=recipe.source.nan,
        constant=recipe.source.constant if side == "source" else "pass",
    )
    return spec if spec.is_label else _with_range(recipe, side, spec, pairs)


def worker_count() -> int:
    """As many threads as the numerical libraries were told to use."""
    told = os.environ.get("OMP_NUM_THREADS", "")
    return int(told) if told.isdecimal() and int(told) > 0 else os.cpu_count() or 1


@dataclass(frozen=True, eq=False)
class Sampler:
    """Draws one side of a cohort on the nodes of its domain: the scans as they are (copy 0), and warped copies.

    is_cubic: between voxels by cubic splines, which keep detail that linear interpolation blurs.
    """

    recipe: Recipe
    spec: CodecSpec
    side: str
    domain: Domain
    is_cubic: bool = False

    def draw(self, pair: Pair, copies: Iterable[int]) -> tuple[Array, Array]:
        """Some copies of one pair's side: values (B, C, *nodes), coverage (B, *nodes).

        Source and target are warped alike; only the source's intensities change.
        """
        image, spec = pair.image(self.side), self.spec
        prepared = prepare(spec, image, pair.scan_id, pair.scan(self.side))
        known = None if prepared.weights is None else prepared.weights[0]
        scan = Voxels(prepared.values[0], image.grid.spacing_mm[: spec.dims], known)
        node_mm = spec.spacing_in_mm(image.grid)
        settings = augment_settings(self.recipe)
        drawn = []
        for copy in copies:
            key = self.recipe.seed, pair.scan_id, copy
            seen = changed(scan, random_change(settings, *key)) if self.side == "source" else scan
            warp = random_warp(settings, spec.dims, *key)
            drawn.append(sample_nodes(seen, self.domain.nodes, node_mm, warp, is_cubic=self.is_cubic))
        return np.stack([one for one, _ in drawn]), np.stack([covered for _, covered in drawn])

    def draw_all(self, pairs: list[Pair], *, linked: bool = True, augmented: bool = True) -> FieldSamples:
        """Every pair and, if `augmented`, its copies; `linked`: through the head's link, ready for a backbone's fit."""
        copies = range(self.recipe.augment.copies + 1 if augmented else 1)
        count = len(pairs) * len(copies)
        values = np.empty((count, self.spec.channels, *self.domain.nodes), np.float32)
        coverage = np.empty((count, *self.domain.nodes), np.float32)
        head = Head(self.spec.head)

        def fill(index: int) -> None:
            rows = slice(index * len(copies), (index + 1) * len(copies))
            drawn, coverage[rows] = self.draw(pairs[index], copies)
            values[rows] = np.moveaxis(head.link(np.moveaxis(drawn, 1, -1)), -1, 1) if linked else drawn

        with ThreadPoolExecutor(worker_count()) as pool:  # scipy.ndimage works without the interpreter's lock
            for _ in pool.map(fill, range(len(pairs))):
                pass
        return FieldSamples(values, coverage, self.domain, self.recipe.seed)


def augment_settings(recipe: Recipe) -> AugmentSettings:
    """The recipe's augmentation, anatomical letters turned into axis numbers."""
    worlds = [WORLD_DIRECTIONS[name][0] for name in recipe.geometry.anatomical_axes[: recipe.geometry.dims]]
    letters = [WORLD_DIRECTIONS[name][0] for name in recipe.augment.flip]
    if not set(letters) <= set(worlds):
        raise RecipeError(recipe.name, f"augment.flip: {list(recipe.augment.flip)} is not in the plane of the recipe")
    augment, affine = recipe.augment, recipe.augment.affine
    return AugmentSettings(
        rotate_deg=affine.rotate_deg,
        scale=affine.scale,
        shift_mm=affine.shift_mm,
        bend_mm=augment.elastic_mm,
        flip=tuple(worlds.index(world) for world in letters),
        gamma=augment.gamma,
        noise=augment.noise,
        coarse=augment.coarse,
    )


def _with_range(recipe: Recipe, side: str, spec: CodecSpec, pairs: list[Pair]) -> CodecSpec:
    """The units of a predicted 0 and 1: stated by the recipe, or the median over the training scans."""
    part = recipe.side(side)
    stated = part.output_range if isinstance(part, TargetSide) else "training-median"
    if stated == "unit":
        return spec
    if not isinstance(stated, str):
        low, high = stated
        return replace(spec, range_low=(low,) * spec.channels, range_high=(high,) * spec.channels)
    prepared = (prepare(spec, pair.image(side), pair.scan_id, pair.scan(side)) for pair in pairs)
    scales = [item.scales[0] for item in prepared]
    low, high = (np.median([getattr(scale, end) for scale in scales], axis=0) for end in ("low", "high"))
    return replace(spec, range_low=tuple(map(float, low)), range_high=tuple(map(float, high)))


def _labels(recipe: Recipe, side: str, pairs: list[Pair]) -> tuple[int, ...]:
    """The recipe's labels; for softmax without any, the values found in the training scans."""
    part = recipe.side(side)
    if part.head != "softmax":
        return tuple(part.labels or ())
    values = {float(v) for pair in pairs for v in np.unique(pair.image(side).values)}
    found = sorted(value for value in values if np.isfinite(value))
    if len(found) > MAX_LABELS or any(v != int(v) for v in found):
        what = f"{side}.labels: {len(found)} different values in the training scans are no label map"
        raise RecipeError(recipe.name, what, f"softmax takes at most {MAX_LABELS} whole numbers")
    if part.labels and (unnamed := sorted({int(v) for v in found} - set(part.labels))):
        what = f"{side}.labels: the training scans also hold {', '.join(map(str, unnamed))}"
        raise RecipeError(recipe.name, what, "name every label, the background first")
    return tuple(part.labels or (int(v) for v in found))
