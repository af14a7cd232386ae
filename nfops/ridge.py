"""Ridge regression between two latent tables; its strength is chosen by leaving out one patient at a time."""

from dataclasses import dataclass

import numpy as np

from nfops.arrays import Array
from nfops.latents import LatentTable

STRENGTHS = (1e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0, 3.0)
"""Candidates for the ridge, in variances of a standardised latent."""

MAX_FOLDS = 12
"""With more patients than this they are left out in this many groups."""


@dataclass(frozen=True, eq=False)
class Ridge:
    """target = weight @ source + bias: weight (P_out, P_in), bias (P_out,), float64.

    strength: the candidate that won, in variances of a standardised latent. left_out_error: its mean squared error on
    the left-out patients.
    """

    weight: Array
    bias: Array
    strength: float
    left_out_error: float


def fit_ridge(source: LatentTable, target: LatentTable, strengths: tuple[float, ...] = STRENGTHS) -> Ridge:
    """Fit to two tables of the same rows; the strength with the least error on left-out patients wins."""
    x, y = source.vectors.astype(np.float64), target.vectors.astype(np.float64)
    mean, deviation = x.mean(axis=0), np.maximum(x.std(axis=0), 1e-12)
    standard, centre = (x - mean) / deviation, y.mean(axis=0)
    folds = patient_folds(source.patients)
    errors = _left_out_errors(standard, y - centre, folds, source.copies == 0, strengths)
    best = int(errors.argmin())
    gram, cross = standard.T @ standard / len(x), standard.T @ (y - centre) / len(x)
    weight = _solve(gram, cross, strengths[best]).T / deviation
    return Ridge(weight, centre - weight @ mean, strengths[best], float(errors[best]))


def patient_folds(patients: tuple[str, ...]) -> Array:
    """(N,) fold of each row: one per patient; MAX_FOLDS groups of many; two halves of a single one."""
    names, number = np.unique(patients, return_inverse=True)
    if len(names) == 1:
        return np.arange(len(patients)) % 2
    return np.asarray(number % MAX_FOLDS)


def _left_out_errors(x: Array, y: Array, folds: Array, originals: Array, strengths: tuple[float, ...]) -> Array:
    """Mean squared error on the left-out patients' own scans (not their augmented copies), per strength.

    Means are those of the others too: a common mean would tell what was left out (rows sum to zero about it).
    """
    errors = np.zeros(len(strengths))
    gram, cross = x.T @ x, x.T @ y
    for fold in np.unique(folds):
        out = folds == fold
        kept = max(int((~out).sum()), 1)
        mean_x, mean_y = x[~out].sum(axis=0) / kept, y[~out].sum(axis=0) / kept
        rest_gram = (gram - x[out].T @ x[out]) / kept - np.outer(mean_x, mean_x)
        rest_cross = (cross - x[out].T @ y[out]) / kept - np.outer(mean_x, mean_y)
        probe = out & originals
        for index, strength in enumerate(strengths):
            predicted = (x[probe] - mean_x) @ _solve(rest_gram, rest_cross, strength) + mean_y
            errors[index] += ((predicted - y[probe]) ** 2).sum()
    return np.asarray(errors / max(int(originals.sum()), 1) / y.shape[1])


def _solve(gram: Array, cross: Array, strength: float) -> Array:
    """(P_in, P_out): the minimiser of |x w - y|^2 / N + strength |w|^2."""
    return np.linalg.solve(gram + (strength + 1e-9) * np.eye(len(gram)), cross)
