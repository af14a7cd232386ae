"""Encoding as a small least-squares problem: damped Gauss-Newton with a prior, in NumPy, for any engine.

z* = argmin_z  sum_x w_x loss(field(x; z), f(x)) / sum_x w_x  +  strength (z - mean)^T diag(1 / variance) (z - mean)
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from nfops.arrays import Array

MAX_TRIES = 8
"""How often a step may be shortened before the solver calls it converged."""


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


@dataclass(frozen=True, eq=False)
class Linearisation:
    """The mean loss about latents: loss (B,), gradient (B, P), curvature (P, P) shared or (B, P, P)."""

    loss: Array
    gradient: Array
    curvature: Array


class Problem(Protocol):
    """B images to be matched by one field. `is_linear`: the loss is quadratic in the latent."""

    is_linear: bool

    def start(self, latent: Array) -> Linearisation:
        """The quadratic problem of a first step from one latent (P,): exact where linear, else the working response."""

    def linearise(self, latents: Array) -> Linearisation:
        """The loss and its Gauss-Newton model about (B, P) latents."""

    def loss(self, latents: Array) -> Array:
        """(B, P) -> (B,) mean losses."""


def gauss_newton(problem: Problem, prior: Prior, count: int, steps: int) -> tuple[Array, Array]:
    """Latents (count, P) float32 of `count` images, and their mean losses (count,).

    A linear field is solved by the first step, exactly. Others go on to `steps` in all; a step that does not lower
    the objective is damped (Levenberg-Marquardt), and an image whose damping has no end has converged.
    """
    mean = np.tile(np.asarray(prior.mean, dtype=np.float64), (count, 1))
    model = problem.start(mean[0])
    latents = mean - _solve(model, prior, mean, np.zeros(count))
    if problem.is_linear:
        return latents.astype(np.float32), _model_loss(model, latents - mean)
    if steps == 1:
        return latents.astype(np.float32), problem.loss(latents)
    # The working response ignores how sure each label is: start from it only where it beats the prior's mean.
    objective, at_mean = problem.loss(latents) + prior.cost(latents), problem.loss(mean)
    latents = np.where((objective <= at_mean)[:, None], latents, mean)
    for _ in range(steps - 1):
        latents = _damped_step(problem, prior, latents)
    return latents.astype(np.float32), problem.loss(latents)


def _damped_step(problem: Problem, prior: Prior, latents: Array) -> Array:
    model = problem.linearise(latents)
    before = model.loss + prior.cost(latents)
    damping = np.zeros(len(latents))
    pending = np.ones(len(latents), dtype=bool)
    result = latents.copy()
    for _ in range(MAX_TRIES):
        trial = np.where(pending[:, None], latents - _solve(model, prior, latents, damping), result)
        better = pending & (problem.loss(trial) + prior.cost(trial) <= before)
        result[better] = trial[better]
        pending &= ~better
        if not pending.any():
            break
        damping = np.where(pending, np.maximum(damping * 10, 1e-2), damping)
    return result


def _solve(model: Linearisation, prior: Prior, latents: Array, damping: Array) -> Array:
    """(B, P): the Newton step of model plus prior, with `damping` (B,) in units of the mean curvature."""
    gradient = model.gradient + 2 * (latents - prior.mean) * prior.precision
    size = latents.shape[1]
    prior_curvature = np.diag(2 * prior.precision)
    if model.curvature.ndim == 2 and not damping.any():
        curvature = model.curvature.astype(np.float64) + prior_curvature
        return np.linalg.solve(curvature, gradient.T).T
    curvature = np.broadcast_to(model.curvature, (len(latents), size, size)) + prior_curvature
    scale = np.trace(curvature, axis1=1, axis2=2) / size
    curvature = curvature + (damping * scale)[:, None, None] * np.eye(size)
    return np.asarray(np.linalg.solve(curvature, gradient[..., None])[..., 0])


def _model_loss(model: Linearisation, step: Array) -> Array:
    """The quadratic model's loss after a step, (B,)."""
    bent = step @ model.curvature if model.curvature.ndim == 2 else np.einsum("bp,bpq->bq", step, model.curvature)
    return np.asarray(model.loss + (model.gradient * step).sum(-1) + (bent * step).sum(-1) / 2)
