"""Fit both fields of a recipe to the pairs of a cohort: what `fit-inr` runs, and every fold of `evaluate`."""

import platform
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import Any

import numpy as np
import torch

from nfops.arrays import Array
from nfops.bundle import Bundle
from nfops.codec import build_backbone, state_arrays
from nfops.codec_spec import CodecSpec
from nfops.cohort import Pair
from nfops.cohort_samples import Sampler, cohort_domain, plan_spec
from nfops.errors import RecipeError
from nfops.progress import OnStep, Step, silent
from nfops.recipe import Recipe
from nfops.schema import to_plain

RECORDED = ("numpy", "scipy", "torch", "scikit-learn")
"""Whose versions a bundle keeps."""


@dataclass(frozen=True, eq=False)
class Fitted:
    """bundle: both fields, no operator. explained: per side, the part of the cohort's variance on the nodes that the
    field's latents hold.
    """

    bundle: Bundle
    explained: dict[str, float]


def fit_fields(recipe: Recipe, pairs: list[Pair], data: Mapping[str, Any], on_step: OnStep = silent) -> Fitted:
    """Fit the source's and the target's field to training pairs. data: what the bundle tells of them."""
    specs, arrays, explained = {}, {}, {}
    for side in ("source", "target"):
        specs[side], arrays[side], explained[side] = _fit_side(recipe, side, pairs, on_step)
    versions = {"python": platform.python_version(), **{name: version(name) for name in RECORDED}}
    bundle = Bundle(recipe.name, to_plain(recipe), specs, arrays, data=data, versions=versions)
    return Fitted(bundle, explained)


def _fit_side(
    recipe: Recipe, side: str, pairs: list[Pair], on_step: OnStep
) -> tuple[CodecSpec, dict[str, Array], float]:
    """The spec and the arrays of one side, and the part of the variance that its latents hold."""
    part = recipe.source if side == "source" else recipe.target
    nodes = tuple(part.field.get("grid") or recipe.geometry.grid.shape)
    if len(nodes) != recipe.geometry.dims:
        raise RecipeError(recipe.name, f"{side}.field.grid: expected {recipe.geometry.dims} numbers, got {len(nodes)}")
    domain, radius = cohort_domain(recipe, pairs, nodes)
    spec = plan_spec(recipe, side, pairs, domain, radius)
    torch.manual_seed(recipe.seed)
    backbone = build_backbone(part.field, domain, spec.channels)
    on_step(Step(f"{side}: sampling", 0, 1))
    samples = Sampler(recipe, spec, side, domain).draw_all(pairs)
    on_step(Step(f"{side}: sampling", 1, 1, f"{len(samples.values)} samples"))
    backbone.fit(samples, lambda step: on_step(replace(step, stage=f"{side}: {step.stage}")))
    mean, variance = backbone.prior()
    arrays = state_arrays(backbone, "field.")
    arrays |= {"prior_mean": mean.astype(np.float32), "prior_variance": variance.astype(np.float32)}
    spread = float(np.mean((samples.values - samples.values.mean(axis=0)) ** 2))
    return replace(spec, form=backbone.form, latent=backbone.latent), arrays, float(variance.sum()) / max(spread, 1e-12)
