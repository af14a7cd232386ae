"""Functional PCA: a mean and P basis functions, splines through values on a grid; the latent weighs them.

The encoder of PCA-Net with a continuous basis, and the baseline that every non-linear field has to beat.
Linear in the latent, so encoding is one exact step, and the eigenvalues are its prior.
"""

import math
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from nfops import torch_splines
from nfops.annotations import about
from nfops.arrays import Array
from nfops.principal_components import principal_components
from nfops.progress import OnStep, silent
from nfops.sampling import Domain, FieldSamples


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

    def fit(self, samples: FieldSamples, on_step: OnStep = silent) -> float:
        """Fit mean, basis and eigenvalues to (N, C, *nodes); the mean square that they leave of the samples.

        Raises RecipeError with fewer samples than functions.
        """
        mean, basis, variance = principal_components(samples, self.latent, on_step)
        basis = basis.reshape(self.latent, -1)
        scale = np.maximum(np.abs(basis).max(axis=1), 1e-12) / 127
        self.mean.copy_(torch.from_numpy(mean))
        self.basis.copy_(torch.from_numpy(np.rint(basis / scale[:, None]).astype(np.int8).reshape(self.basis.shape)))
        self.basis_scale.copy_(torch.from_numpy(scale))
        self.variance.copy_(torch.from_numpy(variance))
        spread = float(np.mean((samples.values - samples.values.mean(axis=0)) ** 2))
        return max(0.0, spread - float(variance.sum()))

    def forward(self, coords: Tensor, latents: Tensor) -> Tensor:
        """Coords (B, N, d), latents (B, P) -> (B, N, C)."""
        if self._few(coords):
            found = self._at_points(coords[:1], latents.dtype)[0]
            return found[:, 0] + torch.einsum("npc,bp->bnc", found[:, 1:], latents)
        functions = self._functions(latents.dtype)
        nodal = functions[0] + torch.tensordot(latents, functions[1:], dims=1)
        return torch_splines.evaluate(torch_splines.coefficients(nodal, self.domain), coords, self.domain)

    def jacobian(self, coords: Tensor, latents: Tensor) -> tuple[Tensor, Tensor]:
        """Coords (B, N, d), latents (B, P) -> the field (B, N, C) and its derivative (B, N, C, P): the basis there."""
        shared = len(coords) > 1 and coords.stride(0) == 0
        found = self._at_points(coords[:1] if shared else coords, latents.dtype)
        field = found[:, :, 0] + torch.einsum("bnpc,bp->bnc", found[:, :, 1:].expand(len(latents), -1, -1, -1), latents)
        return field, found[:, :, 1:].transpose(2, 3).expand(len(latents), -1, -1, -1)

    def _functions(self, dtype: torch.dtype) -> Tensor:
        """The mean and the basis at the nodes, (1 + P, C, *nodes)."""
        basis = self.basis.to(dtype) * self.basis_scale.to(dtype).reshape(-1, *[1] * self.mean.ndim)
        return torch.cat((self.mean.to(dtype)[None], basis))

    def _few(self, coords: Tensor) -> bool:
        """Whether the same few points are asked of many latents, as in training: then the basis is evaluated there."""
        batch, points, dims = coords.shape
        shared = batch > 1 and coords.stride(0) == 0
        return shared and points * 4**dims < batch * math.prod(self.domain.nodes)

    def _at_points(self, coords: Tensor, dtype: torch.dtype) -> Tensor:
        """Mean and basis at coords (B, N, d): (B, N, 1 + P, C)."""
        functions = self._functions(dtype)
        table = torch_splines.coefficients(functions, self.domain).flatten(2).permute(2, 0, 1).flatten(1)
        found = torch_splines.Taps(coords, self.domain).sum(table)
        return found.reshape(*coords.shape[:2], *functions.shape[:2])
