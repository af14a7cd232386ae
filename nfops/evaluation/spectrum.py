"""How the latents of each side spend their components, and how much of each target component is predicted."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from nfops.arrays import Array

MOST_ROWS = 1024
"""Of a table of latents whose principal axes are found."""


@dataclass(frozen=True, eq=False)
class Spectrum:
    """Of one fold. source, target: variances of the training latents along their principal axes, falling; of N scans
    only the first N / 2, which they determine.

    wrong, total: (P_out,) over the evaluated cases, along the target's principal axes: squared error of the predicted
    latents, and squared distance of the true ones from the training mean.
    """

    source: Array
    target: Array
    wrong: Array
    total: Array


def spectrum_of(source: Array, target: Array | None, predicted: Array, truth: Array) -> Spectrum:
    """Source (N, P), target (N, P_out): latents of training scans; predicted, truth: (cases, P_out)."""
    variances = {"source": _axes(source)[0]}
    if target is None:
        return Spectrum(variances["source"], np.empty(0), np.empty(0), np.empty(0))
    falling, axes = _axes(target)
    wrong = (((predicted - truth) @ axes) ** 2).sum(axis=0)
    total = (((truth - target.mean(axis=0)) @ axes) ** 2).sum(axis=0)
    return Spectrum(variances["source"], falling, wrong, total)


def merge_spectra(spectra: list[Spectrum]) -> dict[str, Any]:
    """Over folds: mean share of variance of each component, and the part of each target component predicted (R2).

    octaves: the same over components 1, 2 to 3, 4 to 7 and so on: from, to, predicted.
    """
    document: dict[str, Any] = {}
    for side in ("source", "target"):
        shares = [getattr(one, side) / max(float(getattr(one, side).sum()), 1e-300) for one in spectra]
        size = min(len(share) for share in shares)
        document[side] = np.mean([share[:size] for share in shares], axis=0).tolist() if size else []
    size = min(len(one.wrong) for one in spectra)
    wrong, total = (np.sum([getattr(one, name)[:size] for one in spectra], axis=0) for name in ("wrong", "total"))
    document["predicted"] = (1 - wrong / np.maximum(total, 1e-300)).tolist() if size else []
    document["octaves"] = [
        {
            "from": low + 1,
            "to": high,
            "predicted": float(1 - wrong[low:high].sum() / max(total[low:high].sum(), 1e-300)),
        }
        for low, high in _octaves(size)
    ]
    return document


def _octaves(size: int) -> list[tuple[int, int]]:
    """Components 1, 2 to 3, 4 to 7... as slices from 0; a short last one belongs to the one before."""
    starts = [2**k - 1 for k in range(size.bit_length())]
    if len(starts) > 1 and size - starts[-1] < starts[-1] // 2:
        starts.pop()
    return list(zip(starts, [*starts[1:], size][: len(starts)], strict=True))  # none at all without a target


def effective_size(shares: list[float]) -> float:
    """How many components of equal share would be as spread: (sum of shares)^2 / sum of their squares."""
    total = np.asarray(shares)
    return float(total.sum() ** 2 / (total**2).sum()) if len(total) else 0.0


def _axes(latents: Array) -> tuple[Array, Array]:
    """Variances (K,), falling, and principal axes (P, K) of (N, P) latents, of at most MOST_ROWS of them."""
    rows = latents[np.linspace(0, len(latents) - 1, min(len(latents), MOST_ROWS)).astype(int)].astype(np.float64)
    _, size, axes = np.linalg.svd(rows - rows.mean(axis=0), full_matrices=False)
    kept = max(1, min(len(size), len(rows) // 2))
    return size[:kept] ** 2 / len(rows), axes[:kept].T
