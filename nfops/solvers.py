"""Encoding as a small least-squares problem with a prior, in NumPy, for any engine: `solve` and its two solvers.

z* = argmin_z  sum_x w_x loss(field(x; z), f(x)) / sum_x w_x  +  strength (z - mean)^T diag(1 / variance) (z - mean)

`gauss-newton` is damped Gauss-Newton; long latents are solved by conjugate gradients. `sgd` is what the papers do
(MedFuncta and NOIR, algorithm 1): plain gradient steps from zero.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import numpy as np

from nfops.arrays import Array
from nfops.codec_spec import EncodeSettings

DENSE_LATENT = 512
"""Longer latents are solved with products instead of a curvature matrix (measured), unless their field is linear."""
MAX_TRIES = 8
"""How often a step may be shortened before the solver calls it converged."""
POINTS_PER_ENTRY = 2
"""The last step of Gauss-Newton looks at so many points for each entry of the latent, at least."""
QUICK_PER_ENTRY, QUICK_POINTS = 1, 512
"""The steps before it look at so many for each entry, and at so many at least: far from the solution, a step on
these is nearly as good as one on all (at P = 64 mostly within 0.5 dB on the whole image, 1.2 dB at worst)."""
CG_STEPS, CG_TOLERANCE = 40, 3e-2
"""Conjugate gradients stop where the residual is this part of the gradient: the model is no better than that."""

Model: TypeAlias = "Array | Products"


@dataclass(frozen=True, eq=False)
class Prior:
    """Gaussian prior on a latent: mean (P,), variance (P,), and how strongly it counts beside the mean loss."""

    mean: Array
    variance: Array
    strength: float

    @property
    def precision(self) -> Array:
        """(P,) half the curvature that the prior adds on each axis."""
        return self.strength / np.maximum(self.variance, 1e-12)

    def cost(self, latents: Array) -> Array:
        """(B, P) -> (B,)."""
        return np.asarray(((latents - self.mean) ** 2 * self.precision).sum(axis=-1))

    def slope(self, latents: Array) -> Array:
        """Derivative of the cost, (B, P) -> (B, P)."""
        return np.asarray(2 * (latents - self.mean) * self.precision)


@dataclass(frozen=True, eq=False)
class Products:
    """A curvature that is not formed. apply: (B, P) -> (B, P). diagonal: (B, P), roughly."""

    apply: Callable[[Array], Array]
    diagonal: Array


@dataclass(frozen=True, eq=False)
class Linearisation:
    """The mean loss about latents: loss (B,), gradient (B, P), curvature (P, P) shared, (B, P, P) or products."""

    loss: Array
    gradient: Array
    curvature: Model


class Problem(Protocol):
    """B images to be matched by one field."""

    @property
    def is_linear(self) -> bool:
        """Whether the loss is quadratic in the latent."""

    def start(self, latent: Array) -> Linearisation:
        """The quadratic problem of a first step from one latent (P,): exact where linear, else the working response."""

    def linearise(self, latents: Array) -> Linearisation:
        """The loss and its Gauss-Newton model about (B, P) latents."""

    def gradient(self, latents: Array) -> tuple[Array, Array]:
        """(B, P) -> mean losses (B,) and their gradients (B, P), at a fraction of what `linearise` costs."""

    def loss(self, latents: Array) -> Array:
        """(B, P) -> (B,) mean losses."""

    def subset(self, count: int, seed: int) -> "Problem":
        """The same on `count` points, evenly drawn by a seed; on all where there are no more, or all are cheap."""

    def item(self, index: int) -> "Problem":
        """The problem of one of the images."""


def solve(problem: Problem, prior: Prior, count: int, settings: EncodeSettings) -> tuple[Array, Array]:
    """Latents (count, P) float32 of `count` images, and their mean losses (count,) where the last step looked."""
    if settings.solver == "sgd":
        return sgd(problem, prior, count, settings)
    looked = problem.subset(max(settings.points, POINTS_PER_ENTRY * len(prior.mean)), seed=0)
    if problem.is_linear or len(prior.mean) <= DENSE_LATENT:
        return gauss_newton(looked, prior, count, settings.steps)
    one_by_one = [gauss_newton(looked.item(index), prior, 1, settings.steps) for index in range(count)]
    latents, losses = (np.concatenate(parts) for parts in zip(*one_by_one, strict=True))
    return latents, losses


def sgd(problem: Problem, prior: Prior, count: int, settings: EncodeSettings) -> tuple[Array, Array]:
    """Plain gradient steps from zero, each on its own draw of points. See `solve`.

    The step is the learning rate times the gradient of the mean over points and channels, as in every released code.
    """
    latents = np.zeros((count, len(prior.mean)))
    for step in range(settings.steps):
        looked = problem.subset(settings.points, seed=step)
        _, gradient = looked.gradient(latents)
        latents = latents - settings.learning_rate * (gradient + prior.slope(latents))
    return latents.astype(np.float32), looked.loss(latents)


def gauss_newton(problem: Problem, prior: Prior, count: int, steps: int) -> tuple[Array, Array]:
    """Latents (count, P) float32 of `count` images, and their mean losses (count,).

    A linear field is solved by the first step, exactly. Others go on to `steps` in all, the last on all points and
    those before it on few; a step that does not lower the objective is damped (Levenberg-Marquardt), and an image
    whose damping has no end has converged.
    """
    mean = np.tile(np.asarray(prior.mean, dtype=np.float64), (count, 1))
    if problem.is_linear:
        model = problem.start(mean[0])
        latents = mean - _newton_step(model, prior, mean, np.zeros(count))
        return latents.astype(np.float32), _model_loss(model, latents - mean)
    if steps == 1:
        latents = _first_step(problem, prior, mean)
        return latents.astype(np.float32), problem.loss(latents)
    quick = problem.subset(max(QUICK_PER_ENTRY * mean.shape[1], QUICK_POINTS), seed=1)
    latents = _first_step(quick, prior, mean)
    # It may overshoot (and the working response ignores how sure each label is): keep it where it helps.
    helps = quick.loss(latents) + prior.cost(latents) <= quick.loss(mean)
    latents = np.where(helps[:, None], latents, mean)
    if quick is not problem:
        latents, _ = _descend(quick, prior, latents, steps - 2)
    latents, losses = _descend(problem, prior, latents, steps - 1 if quick is problem else 1)
    return latents.astype(np.float32), losses


def _first_step(problem: Problem, prior: Prior, mean: Array) -> Array:
    """From the prior's mean, (B, P): one linearisation for all images."""
    return mean - _newton_step(problem.start(mean[0]), prior, mean, np.zeros(len(mean)))


def _descend(problem: Problem, prior: Prior, latents: Array, steps: int) -> tuple[Array, Array]:
    """Latents (B, P) after damped steps, and their losses (empty after none)."""
    if steps == 0:
        return latents, np.empty(0)
    model = problem.linearise(latents)
    for left in range(steps - 1, -1, -1):
        latents, model = _damped_step(problem, prior, latents, model, is_last=left == 0)
    return latents, model.loss


def _damped_step(
    problem: Problem, prior: Prior, latents: Array, model: Linearisation, *, is_last: bool
) -> tuple[Array, Linearisation]:
    """Latents after one step from a model about them, and the model there (after the last step, its loss only).

    An undamped step is mostly good, so the model of the next is made at once, and its loss says whether it is.
    """

    def look(at: Array) -> Linearisation:
        return Linearisation(problem.loss(at), model.gradient, model.curvature) if is_last else problem.linearise(at)

    before = model.loss + prior.cost(latents)
    trial = latents - _newton_step(model, prior, latents, np.zeros(len(latents)))
    ahead = look(trial)
    pending = ~(ahead.loss + prior.cost(trial) <= before)
    if not pending.any():
        return trial, ahead
    result = np.where(pending[:, None], latents, trial)
    damping = np.where(pending, 1e-2, 0.0)
    for _ in range(MAX_TRIES - 1):
        trial = np.where(pending[:, None], latents - _newton_step(model, prior, latents, damping), result)
        better = pending & (problem.loss(trial) + prior.cost(trial) <= before)
        result[better] = trial[better]
        pending &= ~better
        if not pending.any():
            break
        damping = np.where(pending, damping * 10, damping)
    return result, look(result)


def _newton_step(model: Linearisation, prior: Prior, latents: Array, damping: Array) -> Array:
    """(B, P): the Newton step of model plus prior, with `damping` (B,) in units of the mean curvature."""
    gradient = model.gradient + prior.slope(latents)
    if isinstance(model.curvature, Products):
        return _conjugate_gradients(model.curvature, 2 * prior.precision, gradient, damping)
    size = latents.shape[1]
    prior_curvature = np.diag(2 * prior.precision)
    if model.curvature.ndim == 2 and not damping.any():
        curvature = model.curvature.astype(np.float64) + prior_curvature
        return np.linalg.solve(curvature, gradient.T).T
    curvature = np.broadcast_to(model.curvature, (len(latents), size, size)) + prior_curvature
    scale = np.trace(curvature, axis1=1, axis2=2) / max(size, 1)
    curvature = curvature + (damping * scale)[:, None, None] * np.eye(size)
    return np.asarray(np.linalg.solve(curvature, gradient[..., None])[..., 0])


def _conjugate_gradients(curvature: Products, precision: Array, gradient: Array, damping: Array) -> Array:
    """(B, P): the solution of (curvature + diag(precision) + damping) step = gradient, preconditioned, truncated."""
    diagonal = curvature.diagonal + precision
    extra = precision + (damping * diagonal.mean(axis=1))[:, None]
    inverse = 1 / np.maximum(curvature.diagonal + extra, 1e-30)
    step, residual = np.zeros_like(gradient), gradient.copy()
    direction = inverse * residual
    energy = (residual * direction).sum(axis=1)
    enough = CG_TOLERANCE**2 * energy
    for _ in range(CG_STEPS):
        if (energy <= enough).all():
            break
        bent = curvature.apply(direction) + extra * direction
        length = energy / np.maximum((direction * bent).sum(axis=1), 1e-300)
        step += length[:, None] * direction
        residual -= length[:, None] * bent
        scaled = inverse * residual
        before, energy = energy, (residual * scaled).sum(axis=1)
        direction = scaled + (energy / np.maximum(before, 1e-300))[:, None] * direction
    return step


def _model_loss(model: Linearisation, step: Array) -> Array:
    """The quadratic model's loss after a step, (B,)."""
    if isinstance(model.curvature, Products):
        bent = model.curvature.apply(step)
    else:
        bent = step @ model.curvature if model.curvature.ndim == 2 else np.einsum("bp,bpq->bq", step, model.curvature)
    return np.asarray(model.loss + (model.gradient * step).sum(-1) + (bent * step).sum(-1) / 2)
