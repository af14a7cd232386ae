"""A field without a fit of its own, learned from a cohort: `descent`, then the basis and the prior of its latents."""

import math
from dataclasses import dataclass
from typing import Any

import torch

from nfops import torch_heads
from nfops.checkpoints import Checkpoint
from nfops.contexts import Scans
from nfops.course import Course, Row
from nfops.descent import Descent, Task
from nfops.errors import RecipeError
from nfops.field_loss import FieldLoss
from nfops.heads import Head
from nfops.progress import OnStep, Step, silent
from nfops.recipe_sections import Encode, Fit
from nfops.sampling import FieldSamples
from nfops.stopping import Stop

PRIOR_SCANS, PRIOR_POINTS = 512, 2048
"""The prior is that of so many training scans (twice the latent's size, where that is more), so many points of each."""
LEAST_VARIANCE = 1e-3
"""Of the mean variance: no direction of the latents is narrower than this, whatever the training scans say."""
CURVE_ROWS = 500


@dataclass(frozen=True, eq=False)
class Lesson:
    """What a field is learned from. training, validation: values not linked. validation: None without any."""

    head: Head
    training: FieldSamples
    validation: FieldSamples | None
    fit: Fit
    encode: Encode


@dataclass(frozen=True)
class Learned:
    """explained: the part of the mean image's loss that the field takes away from the training scans.

    figures: of the training, for the report. curve: rows of iteration, training and validation loss.
    """

    explained: float
    figures: dict[str, float]
    curve: list[Row]


def learn_field(
    backbone: Any,
    lesson: Lesson,
    checkpoint: Checkpoint | None = None,
    stop: Stop | None = None,
    on_step: OnStep = silent,
) -> Learned:
    """Train a backbone in place, turn its latents to their principal axes, and set their prior."""
    if not backbone.latent:
        raise RecipeError("field.latent", "0 is one field for all scans", "a latent of at least 1 tells them apart")
    training = Scans.of(lesson.training)
    validation = None if lesson.validation is None else Scans.of(lesson.validation)
    loss = FieldLoss(backbone, lesson.head)
    baseline = mean_image_loss(lesson.head, training)
    descent = Descent(Task(loss, training, validation, lesson.training.seed, baseline), lesson.fit, lesson.encode)
    course = descent.run(checkpoint, stop, on_step)
    on_step(Step("prior", 0, 1))
    left = _settle_latents(backbone, descent, training)
    on_step(Step("prior", 1, 1))
    return Learned(1 - left / max(baseline, 1e-12), _figures(course, lesson), _thinned(course.curve))


@torch.no_grad()
def mean_image_loss(head: Head, scans: Scans) -> float:
    """The mean loss of predicting, at every node, the mean over the scans that are known there."""
    known = torch.ones(scans.values.shape[:2]) if scans.known is None else scans.known
    total = known.sum(dim=0).clamp_min(1e-12)[:, None]
    mean = (scans.values * known[..., None]).sum(dim=0) / total
    if not head.is_linear:
        mean = torch.from_numpy(Head(head.name).link(mean.numpy()))
    losses = torch.stack([torch_heads.loss(head, mean, values) for values in scans.values])
    return float((losses * known).sum() / known.sum().clamp_min(1e-12))


def _settle_latents(backbone: Any, descent: Descent, training: Scans) -> float:
    """Fold learned rates, turn the basis, set the prior; the mean loss that is left."""
    descent.fold_rates()
    wanted = min(len(training), max(PRIOR_SCANS, 2 * backbone.latent))
    chosen = torch.linspace(0, len(training) - 1, wanted).round().long()
    latents, losses = descent.solve(training.some(chosen), PRIOR_POINTS)
    centred = (latents - latents.mean(dim=0)).double()
    covariance = centred.T @ centred / len(latents)
    if hasattr(backbone, "rotate"):
        turn = torch.linalg.eigh(covariance)[1].flip(1)
        latents = (latents.double() @ turn).float()
        covariance = turn.T @ covariance @ turn
        backbone.rotate(turn)
    variance = covariance.diagonal().clamp_min(LEAST_VARIANCE * float(covariance.trace()) / max(1, backbone.latent))
    backbone.set_prior(latents.mean(dim=0), variance.clamp_min(1e-12).float())
    return float(losses.mean())


def _figures(course: Course, lesson: Lesson) -> dict[str, float]:
    judge = "training" if lesson.validation is None else "validation"
    figures = {"iterations": course.iteration, "seconds": round(course.seconds, 1), f"{judge}_loss": course.best}
    if lesson.head.is_linear:
        figures[f"{judge}_psnr"] = -10 * math.log10(max(course.best, 1e-12))
    return figures | {"best_iteration": course.best_iteration, "rollbacks": course.rollbacks}


def _thinned(curve: list[Row]) -> list[Row]:
    """At most about CURVE_ROWS rows, the last one among them."""
    step = -(-len(curve) // CURVE_ROWS)
    rows = curve[::step] if curve[::step][-1] is curve[-1] else [*curve[::step], curve[-1]]
    return [list(row) for row in rows]
