"""Functional PCA: a mean and P basis functions, splines through values on a grid; the latent weighs them.

The encoder of PCA-Net with a continuous basis, and the baseline that every non-linear field has to beat.
Linear in the latent, so encoding is one exact step, and the eigenvalues are its prior.
"""

import itertools
import math
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from nfops.annotations import about
from nfops.arrays import Array
from nfops.errors import RecipeError
from nfops.progress import OnStep, Step, silent
from nfops.sampling import Domain, FieldSamples
from nfops.splines import to_coefficients

IMPUTATION_ROUNDS = 10
"""Refillings of what scans do not cover, each followed by a step of PCA."""


@dataclass(frozen=True)
class Config:
    """latent: P, the number of basis functions. grid: nodes per axis, if not the recipe's own grid."""

    latent: int = field(default=64, metadata=about("Number of basis functions, the size of a latent.", low=1))
    grid: tuple[int, ...] | None = field(
        default=None, metadata=about("Nodes per axis, where not those of geometry.grid.", low=2)
    )


class Backbone(nn.Module):
    """field(x; z) = mean(x) + sum_p z_p basis_p(x); basis functions have unit mean square over the domain.

    The basis is kept in 8 bits with a scale per function: it is rounded when fitted, so what is stored is exactly
    what latents and operators are made with.
    """

    form = "spline-basis"
    mean: Tensor
    basis: Tensor
    basis_scale: Tensor
    variance: Tensor

    def __init__(self, config: Config, domain: Domain, channels: int) -> None:
        super().__init__()
        self.config, self.domain, self.latent = config, domain, config.latent
        self.register_buffer("mean", torch.zeros(channels, *domain.nodes))
        self.register_buffer("basis", torch.zeros(config.latent, channels, *domain.nodes, dtype=torch.int8))
        self.register_buffer("basis_scale", torch.ones(config.latent))
        self.register_buffer("variance", torch.ones(config.latent))

    def prior(self) -> tuple[Array, Array]:
        """Mean (P,) and variance (P,) of the latents of the training cohort."""
        return np.zeros(self.latent), self.variance.numpy().astype(np.float64)

    def fit(self, samples: FieldSamples, on_step: OnStep = silent) -> None:
        """Fit mean, basis and eigenvalues to (N, C, *nodes). Raises RecipeError with fewer samples than functions."""
        count, *shape = samples.values.shape
        if count <= self.latent or math.prod(shape) < self.latent:
            raise RecipeError(
                "field.latent",
                f"{count} samples of {math.prod(shape)} values cannot give {self.latent} basis functions",
                "lower `latent` or raise `augment.copies`",
            )
        rows = samples.values.reshape(count, -1).astype(np.float32)
        known = np.broadcast_to(samples.coverage[:, None] >= 0.5, samples.values.shape).reshape(count, -1)
        mean, basis, variance = _principal_components(rows, known, self.latent, samples.seed, on_step)
        scale = np.maximum(np.abs(basis).max(axis=1), 1e-12) / 127
        self.mean.copy_(torch.from_numpy(mean.reshape(shape)))
        self.basis.copy_(torch.from_numpy(np.rint(basis / scale[:, None]).astype(np.int8).reshape(-1, *shape)))
        self.basis_scale.copy_(torch.from_numpy(scale))
        self.variance.copy_(torch.from_numpy(variance))

    def forward(self, coords: Tensor, latents: Tensor) -> Tensor:
        """Coords (B, N, d), latents (B, P) -> (B, N, C)."""
        basis = self.basis.to(latents.dtype) * self.basis_scale.to(latents.dtype).reshape(-1, *[1] * self.mean.ndim)
        nodal = self.mean.to(latents.dtype) + torch.tensordot(latents, basis, dims=1)
        for axis, nodes in enumerate(self.domain.nodes):
            matrix = torch.as_tensor(to_coefficients(nodes), dtype=nodal.dtype, device=nodal.device)
            nodal = torch.movedim(torch.movedim(nodal, 2 + axis, -1) @ matrix.T, -1, 2 + axis)
        return _evaluate(nodal, coords, self.domain)


def _principal_components(rows: Array, known: Array, count: int, seed: int, on_step: OnStep) -> tuple[Array, ...]:
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


def _evaluate(coefficients: Tensor, coords: Tensor, domain: Domain) -> Tensor:
    """Cubic B-splines with coefficients (B, C, *nodes) at (B, N, d) -> (B, N, C), mirrored at the domain's edge."""
    half = torch.as_tensor(domain.half_extent, dtype=coords.dtype, device=coords.device)
    nodes = torch.as_tensor(domain.nodes, device=coords.device)
    position = (torch.clamp(coords / half, -1, 1) + 1) * nodes / 2 - 0.5
    start = torch.floor(position) - 1
    batch = torch.arange(len(coords), device=coords.device)[:, None]
    channels_last = torch.movedim(coefficients, 1, -1)
    total = torch.zeros((*coords.shape[:2], coefficients.shape[1]), dtype=coefficients.dtype, device=coords.device)
    for taps in itertools.product(range(4), repeat=domain.dims):
        index = start + torch.as_tensor(taps, dtype=coords.dtype, device=coords.device)
        distance = torch.abs(position - index)
        inner, outer = 2 / 3 - distance**2 + distance**3 / 2, torch.clamp(2 - distance, min=0) ** 3 / 6
        weight = torch.where(distance < 1, inner, outer).prod(dim=-1, keepdim=True).to(coefficients.dtype)
        folded = index.long() % (2 * nodes)
        column = torch.where(folded < nodes, folded, 2 * nodes - 1 - folded)
        total = total + weight * channels_last[(batch, *column.unbind(-1))]
    return total
