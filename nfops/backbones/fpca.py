"""Functional PCA: a mean and P basis functions, splines through values on a grid; the latent weighs them.

The encoder of PCA-Net with a continuous basis, and the baseline that every non-linear field has to beat.
Linear in the latent, so encoding is one exact step, and the eigenvalues are its prior.
"""

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
        basis = self.basis.to(latents.dtype) * self.basis_scale.to(latents.dtype).reshape(-1, *[1] * self.mean.ndim)
        nodal = self.mean.to(latents.dtype) + torch.tensordot(latents, basis, dims=1)
        return torch_splines.evaluate(torch_splines.coefficients(nodal, self.domain), coords, self.domain)
