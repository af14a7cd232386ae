"""Functional PCA seen through a warp that the same latent drives: an active appearance model, as a continuous field.

field(x; z) = mean(y) + sum_p z_p basis_p(y),   y = x + sum_p z_p warp_p(x)

It starts as functional PCA (the warp is zero). Then basis, warp and latents are learned together: position, size and
shape go to the warp, so that a latent of the same size says more. Each scan's latent is kept from one visit to the next
and improved by one Gauss-Newton step; at a solved inner problem the latents' own dependence on the weights does not
matter (envelope theorem), so the weights' gradient is the plain one.
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
from nfops.progress import OnStep, Step, silent
from nfops.sampling import Domain, FieldSamples

SETTLED, SETTLING_STEPS = 512, 4
"""The prior is that of so many training scans (or twice P), each matched by so many Gauss-Newton steps."""

WARP_UNIT = 10.0
"""Nodes that a warp parameter of 1 is worth: with it one learning rate suits the warp and the basis."""


@dataclass(frozen=True)
class Config:
    """latent: P. grid: nodes per axis, if not the recipe's own grid. warp: nodes per axis of the warp."""

    latent: int = field(default=64, metadata=about("Number of basis functions, the size of a latent.", low=1))
    grid: tuple[int, ...] | None = field(
        default=None, metadata=about("Nodes per axis, where not those of geometry.grid.", low=2)
    )
    warp: int = field(default=8, metadata=about("Nodes of the warp along each axis.", low=2))
    iterations: int = field(default=600, metadata=about("Batches to learn from.", low=1))
    batch: int = field(default=16, metadata=about("Scans of a batch.", low=1))
    learning_rate: float = field(default=3e-4, metadata=about("Of Adam, falling along half a cosine.", above=0))
    prior: float = field(
        default=1e-6, metadata=about("Weight of the latents' squares in training, beside the mean loss.", above=0)
    )


class Backbone(nn.Module):
    """mean and basis are B-spline coefficients; latents have unit variance when training starts."""

    form = "warped-basis"
    prior_mean: Tensor
    prior_variance: Tensor

    def __init__(self, config: Config, domain: Domain, channels: int) -> None:
        super().__init__()
        self.config, self.domain, self.latent = config, domain, config.latent
        self._warp_domain = Domain(domain.half_extent, (config.warp,) * domain.dims)
        self.mean = nn.Parameter(torch.zeros(channels, *domain.nodes))
        self.basis = nn.Parameter(torch.zeros(config.latent, channels, *domain.nodes))
        self.warp = nn.Parameter(torch.zeros(config.latent, domain.dims, *self._warp_domain.nodes))
        self.register_buffer("prior_mean", torch.zeros(config.latent))
        self.register_buffer("prior_variance", torch.ones(config.latent))

    def fit(self, samples: FieldSamples, on_step: OnStep = silent) -> float:
        """Fit to (N, C, *nodes) linked values; the mean square that is left of them. RecipeError with too few."""
        self._start(samples, on_step)
        scans = _Scans(samples)
        latents = torch.zeros(len(scans.values), self.latent)
        optimizer = torch.optim.Adam(self.parameters(), self.config.learning_rate)
        generator = torch.Generator().manual_seed(samples.seed)
        total, size = self.config.iterations, min(self.config.batch, len(latents))
        for iteration in range(total):
            fallen = (1 + math.cos(math.pi * iteration / total)) / 2
            optimizer.param_groups[0]["lr"] = self.config.learning_rate * fallen
            rows = torch.randperm(len(latents), generator=generator)[:size]
            latents[rows] = self._step(scans, rows, latents[rows])[0]
            loss = scans.mean_square(self(scans.coords.expand(size, -1, -1), latents[rows]), rows)
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
            on_step(Step("basis and warp", iteration + 1, total, f"{float(loss.detach()):.3g} left"))
        return self._settle(scans)

    def _start(self, samples: FieldSamples, on_step: OnStep) -> None:
        """Become functional PCA."""
        mean, basis, variance = principal_components(samples, self.latent, on_step)
        scaled = basis * np.sqrt(variance).reshape(-1, *[1] * mean.ndim)
        with torch.no_grad():
            self.mean.copy_(torch_splines.coefficients(torch.from_numpy(mean), self.domain))
            self.basis.copy_(torch_splines.coefficients(torch.from_numpy(scaled), self.domain))
            self.warp.zero_()

    @torch.no_grad()
    def _step(self, scans: "_Scans", rows: Tensor, latents: Tensor) -> tuple[Tensor, Tensor]:
        """One Gauss-Newton step for some scans: latents (B, P), and the mean squares before it (B,)."""
        values, jacobian = self.jacobian(scans.coords.expand(len(rows), -1, -1), latents)
        weight = scans.weights[rows][..., None]
        error = (scans.values[rows] - values) * weight
        weighted = (jacobian * weight[..., None]).flatten(1, 2)
        curvature = weighted.transpose(1, 2) @ jacobian.flatten(1, 2) + self.config.prior * torch.eye(self.latent)
        slope = (error.flatten(1)[:, None] @ jacobian.flatten(1, 2))[:, 0] - self.config.prior * latents
        squares = (error * (scans.values[rows] - values)).sum(dim=(1, 2))
        return latents + torch.linalg.solve(curvature, slope), squares

    def _settle(self, scans: "_Scans") -> float:
        """Turn the latents to their principal axes and set their prior, from SETTLED scans; what is left of those."""
        chosen = torch.linspace(0, len(scans.values) - 1, min(len(scans.values), max(SETTLED, 2 * self.latent))).long()
        found, left = [], []
        for rows in torch.split(chosen, self.config.batch):
            latents = torch.zeros(len(rows), self.latent)
            for _ in range(SETTLING_STEPS):
                latents, _ = self._step(scans, rows, latents)
            found.append(latents)
            left.append(self._step(scans, rows, latents)[1])
        latents = torch.cat(found).double()
        centred = latents - latents.mean(dim=0)
        variance, turn = torch.linalg.eigh(centred.T @ centred / len(latents))
        turn, variance = turn.flip(1), variance.flip(0)
        self.rotate(turn)
        self.set_prior((latents @ turn).mean(dim=0), variance.clamp_min(1e-3 * float(variance.mean())))
        return float(torch.cat(left).mean())

    def prior(self) -> tuple[Array, Array]:
        """Mean (P,) and variance (P,) of the latents of the training cohort."""
        mean, variance = (part.cpu().numpy().astype(np.float64) for part in (self.prior_mean, self.prior_variance))
        return mean, variance

    def set_prior(self, mean: Tensor, variance: Tensor) -> None:
        """Mean (P,) and variance (P,) of training latents."""
        self.prior_mean.copy_(mean)
        self.prior_variance.copy_(variance)

    @torch.no_grad()
    def rotate(self, turn: Tensor) -> None:
        """Measure latents along other axes: z = turn @ z', turn (P, P) orthogonal."""
        turn = turn.to(self.basis.dtype)
        self.basis.copy_(torch.tensordot(turn.T, self.basis, dims=1))
        self.warp.copy_(torch.tensordot(turn.T, self.warp, dims=1))

    def forward(self, coords: Tensor, latents: Tensor) -> Tensor:
        """Coords (B, N, d), latents (B, P) -> (B, N, C)."""
        table = self._appearance(latents)
        return torch_splines.Taps(self._moved(coords, latents), self.domain).sum_each(table)

    @torch.no_grad()
    def jacobian(self, coords: Tensor, latents: Tensor) -> tuple[Tensor, Tensor]:
        """Coords (B, N, d), latents (B, P) -> values (B, N, C) and their derivative (B, N, C, P)."""
        table = self._appearance(latents)
        taps = torch_splines.Taps(self._moved(coords, latents), self.domain)
        channels, size = len(self.mean), self.latent
        flat = self.basis.flatten(2).permute(2, 1, 0).flatten(1)  # (nodes, C P)
        jacobian = taps.sum(flat).reshape(*coords.shape[:2], channels, size)
        if not torch.compiler.is_compiling() and not self.warp.any():
            return taps.sum_each(table), jacobian
        along = [taps.sum_each(table, axis) for axis in range(self.domain.dims)]
        pushes = self._pushes(coords)
        for axis, slope in enumerate(along):
            jacobian = torch.addcmul(jacobian, slope[..., None], pushes[..., None, axis, :])
        return taps.sum_each(table), jacobian

    def _appearance(self, latents: Tensor) -> Tensor:
        """(B, P) -> coefficients (B, nodes, C)."""
        flat = self.mean.flatten() + latents @ self.basis.flatten(1)
        return torch.movedim(flat.reshape(len(latents), len(self.mean), -1), 1, 2)

    def _moved(self, coords: Tensor, latents: Tensor) -> Tensor:
        """Where the appearance is looked up, (B, N, d)."""
        shifts = torch.tensordot(latents, self.warp, dims=1).flatten(2).movedim(1, 2)
        found = torch_splines.Taps(coords, self._warp_domain).sum_each(shifts.contiguous())
        return coords + found * self._unit(coords)

    def _pushes(self, coords: Tensor) -> Tensor:
        """(B, N, d, P): how each latent moves the place that is looked up."""
        if len(coords) > 1 and coords.stride(0) == 0:  # the same points for all
            return self._pushes(coords[:1]).expand(len(coords), -1, -1, -1)
        table = self.warp.flatten(2).permute(2, 1, 0).flatten(1)
        found = torch_splines.Taps(coords, self._warp_domain).sum(table)
        return found.reshape(*coords.shape, self.latent) * self._unit(coords)[:, None]

    def _unit(self, coords: Tensor) -> Tensor:
        """(d,) WARP_UNIT nodes in coordinates."""
        return WARP_UNIT * torch.as_tensor(self.domain.spacing, dtype=coords.dtype, device=coords.device)


class _Scans:
    """A cohort on its nodes: values (N, G, C), weights (N, G) that sum to 1 / C, coords (1, G, d)."""

    def __init__(self, samples: FieldSamples) -> None:
        self.values = torch.from_numpy(samples.values).flatten(2).movedim(1, 2)
        known = torch.from_numpy((samples.coverage >= 0.5).astype(np.float32)).flatten(1)
        self.weights = known / known.sum(dim=1, keepdim=True).clamp_min(1) / self.values.shape[-1]
        self.coords = torch.from_numpy(samples.domain.lattice().points()[:, 0].astype(np.float32))[None]

    def mean_square(self, field: Tensor, rows: Tensor) -> Tensor:
        """Of the difference of fields (B, G, C) from some scans, a scalar."""
        return (((field - self.values[rows]) ** 2).sum(dim=-1) * self.weights[rows]).sum(dim=1).mean()
