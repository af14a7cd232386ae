"""Fit both fields of a recipe to the pairs of a cohort: what `fit-inr` runs, and every fold of `evaluate`."""

import platform
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from typing import Any

import numpy as np
import torch

from nfops.arrays import Array
from nfops.bundle import Bundle
from nfops.checkpoints import CheckpointFolder
from nfops.codec import build_backbone, state_arrays
from nfops.codec_spec import CodecSpec
from nfops.cohort import Pair
from nfops.cohort_samples import Sampler, cohort_domain, plan_spec
from nfops.course import Row
from nfops.engines.torch_engine import choose_device
from nfops.errors import RecipeError
from nfops.heads import Head
from nfops.meta_learning import Lesson, learn_field
from nfops.progress import OnStep, Step, silent
from nfops.recipe import Recipe
from nfops.registry import load_component
from nfops.sampling import FieldSamples
from nfops.schema import to_plain
from nfops.stopping import Stop

RECORDED = ("numpy", "scipy", "torch", "scikit-learn")
"""Whose versions a bundle keeps."""


@dataclass(frozen=True, eq=False)
class Fitted:
    """bundle: both fields, no operator. explained: per side, the part of the cohort's variance on the nodes (of labels:
    of the mean image's cross-entropy) that the field's latents hold. figures: per side that was trained by descent.
    """

    bundle: Bundle
    explained: dict[str, float]
    figures: dict[str, dict[str, float]] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Training:
    """What descent takes beside training pairs. validation: those that choose the best weights; without any the
    training loss does.

    checkpoint: where resume state is kept and taken from, None: nowhere. device: see `choose_device`.
    """

    validation: list[Pair] = field(default_factory=list)
    checkpoint: CheckpointFolder | None = None
    stop: Stop = field(default_factory=Stop)
    device: str = "auto"


@dataclass(frozen=True, eq=False)
class _Part:
    """One side, fitted."""

    spec: CodecSpec
    arrays: dict[str, Array]
    explained: float
    figures: dict[str, float] = field(default_factory=dict)
    curve: list[Row] = field(default_factory=list)


def fit_fields(
    recipe: Recipe,
    pairs: list[Pair],
    data: Mapping[str, Any],
    on_step: OnStep = silent,
    training: Training | None = None,
) -> Fitted:
    """Fit the field of each of the recipe's sides to training pairs. data: what the bundle tells of them."""
    training = training or Training()
    parts = {side: _fit_side(recipe, side, pairs, training, on_step) for side in recipe.sides}
    versions = {"python": platform.python_version(), **{name: version(name) for name in RECORDED}}
    curves = {side: part.curve for side, part in parts.items() if part.curve}
    bundle = Bundle(
        recipe.name,
        to_plain(recipe),
        {side: part.spec for side, part in parts.items()},
        {side: part.arrays for side, part in parts.items()},
        data={**data, "curves": curves} if curves else data,
        versions=versions,
    )
    explained = {side: part.explained for side, part in parts.items()}
    return Fitted(bundle, explained, {side: part.figures for side, part in parts.items() if part.figures})


def learned_sides(recipe: Recipe) -> list[str]:
    """The sides whose backbones have no fit of their own: descent learns them, and wants validation pairs."""
    fields = {side: recipe.side(side).field for side in recipe.sides}
    return [side for side, part in fields.items() if not hasattr(_backbone_class(part.component), "fit")]


def _backbone_class(name: str) -> type[Any]:
    return load_component("backbone", name).cls


def _fit_side(recipe: Recipe, side: str, pairs: list[Pair], training: Training, on_step: OnStep) -> _Part:
    """Build the backbone of one side and fit it, by its own `fit` or by descent."""
    part = recipe.side(side)
    nodes = tuple(part.field.get("grid") or recipe.geometry.grid.shape)
    if len(nodes) != recipe.geometry.dims:
        raise RecipeError(recipe.name, f"{side}.field.grid: expected {recipe.geometry.dims} numbers, got {len(nodes)}")
    domain, radius = cohort_domain(recipe, pairs, nodes)
    spec = plan_spec(recipe, side, pairs, domain, radius)
    torch.manual_seed(recipe.seed)
    backbone = build_backbone(part.field, domain, spec.channels)
    spec = replace(spec, form=backbone.form, latent=backbone.latent)
    sampler = Sampler(recipe, spec, side, domain)

    def on_own_step(step: Step) -> None:
        on_step(replace(step, stage=f"{side}: {step.stage}"))

    if hasattr(backbone, "fit"):
        return _fit_itself(backbone, sampler, pairs, on_own_step)
    return _fit_by_descent(backbone, sampler, pairs, training, on_own_step)


def _fit_itself(backbone: Any, sampler: Sampler, pairs: list[Pair], on_step: OnStep) -> _Part:
    samples = _sampled(sampler, pairs, on_step, linked=True)
    left = backbone.fit(samples, on_step)
    spread = float(np.mean((samples.values - samples.values.mean(axis=0)) ** 2))
    return _Part(sampler.spec, _arrays(backbone), 1 - left / max(spread, 1e-12))


def _fit_by_descent(backbone: Any, sampler: Sampler, pairs: list[Pair], training: Training, on_step: OnStep) -> _Part:
    """Train on the device; the weights come back from it."""
    recipe, validation = sampler.recipe, None
    samples = _sampled(sampler, pairs, on_step, linked=False)
    if training.validation:
        validation = sampler.draw_all(training.validation, linked=False, augmented=False)
    lesson = Lesson(Head(sampler.spec.head), samples, validation, recipe.fit, recipe.encode)
    state = None if training.checkpoint is None else training.checkpoint.state_of(sampler.side)
    learned = learn_field(backbone.to(choose_device(training.device)), lesson, state, training.stop, on_step)
    return _Part(sampler.spec, _arrays(backbone.cpu()), learned.explained, learned.figures, learned.curve)


def _sampled(sampler: Sampler, pairs: list[Pair], on_step: OnStep, *, linked: bool) -> FieldSamples:
    on_step(Step("sampling", 0, 1))
    samples = sampler.draw_all(pairs, linked=linked)
    on_step(Step("sampling", 1, 1, f"{len(samples.values)} samples"))
    return samples


def _arrays(backbone: Any) -> dict[str, Array]:
    """The field's state and the prior of its latents."""
    mean, variance = backbone.prior()
    prior = {"prior_mean": mean.astype(np.float32), "prior_variance": variance.astype(np.float32)}
    return state_arrays(backbone, "field.") | prior
