"""Principal components of a cohort sampled on nodes, parts of which some scans do not cover."""

import math

import numpy as np

from nfops.arrays import Array
from nfops.errors import RecipeError
from nfops.progress import OnStep, Step
from nfops.sampling import FieldSamples

IMPUTATION_ROUNDS = 10
"""Refillings of what scans do not cover, each followed by a step of PCA."""


def principal_components(samples: FieldSamples, count: int, on_step: OnStep) -> tuple[Array, Array, Array]:
    """Mean (C, *nodes), `count` basis functions (P, C, *nodes) of unit mean square, eigenvalues (P,), from samples.

    Raises RecipeError with fewer samples than functions.
    """
    scans, *shape = samples.values.shape
    if scans <= count or math.prod(shape) < count:
        raise RecipeError(
            "field.latent",
            f"{scans} samples of {math.prod(shape)} values cannot give {count} basis functions",
            "lower `latent` or raise `augment.copies`",
        )
    rows = samples.values.reshape(scans, -1).astype(np.float32)
    known = np.broadcast_to(samples.coverage[:, None] >= 0.5, samples.values.shape).reshape(scans, -1)
    mean, basis, variance = _decompose(rows, known, count, samples.seed, on_step)
    return mean.reshape(shape), basis.reshape(count, *shape), variance


def _decompose(rows: Array, known: Array, count: int, seed: int, on_step: OnStep) -> tuple[Array, ...]:
    """Mean (G,), basis (P, G) of unit mean square, eigenvalues (P,), from rows (N, G), of which `known` are data."""
    from sklearn.utils.extmath import randomized_svd

    weight = known.sum(axis=0)
    mean = np.where(weight > 0, (rows * known).sum(axis=0) / np.maximum(weight, 1), 0).astype(np.float32)
    mean[weight == 0] = mean[weight > 0].mean()
    centred = np.where(known, rows - mean, np.float32(0))
    rounds = 0 if known.all() else IMPUTATION_ROUNDS
    left, size, right = randomized_svd(centred, count, n_oversamples=16, n_iter=4, random_state=seed)
    on_step(Step("basis", 1, rounds + 1))
    for done in range(rounds):
        # Fill what a scan does not cover with what its components say there, less the part that is noise; then one
        # subspace iteration from the components at hand.
        noise = max(float((centred**2).sum() - (size**2).sum()), 0.0) / max(len(rows) - count, 1) / rows.shape[1]
        keep = size**2 / (size**2 + noise * len(rows))
        np.copyto(centred, (left * (size * keep)) @ right, where=~known)
        span, _ = np.linalg.qr(centred @ right.T)
        left, size, right = np.linalg.svd(span.T @ centred, full_matrices=False)
        left = span @ left
        on_step(Step("basis", done + 2, rounds + 1))
    points = rows.shape[1]
    order = np.sign(right[np.arange(count), np.abs(right).argmax(axis=1)])
    basis = right * (order * math.sqrt(points))[:, None]
    return mean, basis, (size**2 / len(rows) / points).astype(np.float32)
