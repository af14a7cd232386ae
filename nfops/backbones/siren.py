"""The latent-modulated SIREN of Functa, COIN++, CORAL, MedFuncta and NOIR: what they differ in are settings.

A layer is sin(omega_k (W_k x + b_k + m_k(z))): the latent shifts phases, through one linear map m_k a layer
(MedFuncta, eq. 1), or through a hidden layer that all maps share. Everything else is shared by the cohort.

    MedFuncta, paper   depth 14, width 256, latent 2048, omega 20 to 400, first_modulated 2
    MedFuncta, code    as above with omega 10 to 75, first_modulated 1, skips, output_offset 0.5
    Functa             depth 14, width 512, first_modulated 2, output_offset 0.5, bias_init and modulation_init functa
    COIN++             depth 9, width 512, omega 50, output_offset 0.5
    CORAL, NOIR        depth 6 or 10, width 256
"""

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, cast

import torch
from torch import Tensor, nn

from nfops.annotations import about
from nfops.arrays import Array
from nfops.sampling import Domain
from nfops.sine_network import SineNetwork


@dataclass(frozen=True)
class Config:
    """A layer is counted where it has a sine: papers that count the linear last one too say one more."""

    latent: int = field(default=64, metadata=about("Size of a latent; 0: one field without any.", low=0))
    width: int = field(default=256, metadata=about("Units of a layer.", low=1))
    depth: int = field(default=6, metadata=about("Sine layers; the linear last one is not counted.", low=1))
    omega: float = field(default=30.0, metadata=about("Frequency factor of the first layer.", above=0))
    omega_last: float | None = field(
        default=None,
        metadata=about("That of the last sine layer; those between lie on a line. Without it: omega.", above=0),
    )
    first_modulated: int = field(
        default=1, metadata=about("First layer that the latent shifts; 1: all, 2: all but the first.", low=1)
    )
    skips: bool = field(default=False, metadata=about("Each layer from the second on adds to the one before."))
    output_offset: float = field(default=0.0, metadata=about("Added to the output."))
    bias_init: Literal["siren", "torch", "zeros"] = field(
        default="siren",
        metadata=about("Biases at first: as the layer's weights, as PyTorch's default, or 0 (Functa)."),
    )
    modulation_init: Literal["torch", "functa", "zeros", "phase"] = field(
        default="torch",
        metadata=about(
            "The latent's maps at first: as PyTorch's default (MedFuncta, COIN++, CORAL), Functa's, 0, or such that a "
            "latent of unit variance moves every phase by about one radian."
        ),
    )
    modulation_bias: bool = field(default=True, metadata=about("Whether the latent's maps have biases of their own."))
    hyper_hidden: int = field(
        default=0, metadata=about("Units of a hidden layer (SiLU) between latent and shifts; 0: linear.", low=0)
    )
    grid: tuple[int, ...] | None = field(
        default=None, metadata=about("Nodes per axis to train on, where not those of geometry.grid.", low=2)
    )

    def __post_init__(self) -> None:
        if self.first_modulated > self.depth:
            raise ValueError(f"first_modulated: {self.first_modulated} of {self.depth} layers")

    @property
    def omegas(self) -> tuple[float, ...]:
        """One frequency factor a sine layer, and the next on their line, which scales the last layer's weights.

        Where they fall, that one is the last again: a line that falls ends below 0.
        """
        last = self.omega if self.omega_last is None else self.omega_last
        rise = (last - self.omega) / max(self.depth - 1, 1)
        return *(self.omega + rise * k for k in range(self.depth)), max(self.omega + rise * self.depth, last)


class Backbone(nn.Module):
    """field(x; z), C channels of raw output. Descent sets the prior of the latents and may rotate their basis."""

    form = "torch"
    prior_mean: Tensor
    prior_variance: Tensor

    def __init__(self, config: Config, domain: Domain, channels: int) -> None:
        super().__init__()
        self.config, self.latent = config, config.latent
        sizes = [domain.dims, *[config.width] * config.depth, channels]
        self.layers = nn.ModuleList(nn.Linear(*pair) for pair in itertools.pairwise(sizes))
        shifts = (config.depth - config.first_modulated + 1) * config.width
        self.hyper: nn.Linear | None = None
        self.modulation: nn.Linear | None = None
        if config.latent:
            inner = config.hyper_hidden or config.latent
            self.hyper = nn.Linear(config.latent, inner) if config.hyper_hidden else None
            self.modulation = nn.Linear(inner, shifts, bias=config.modulation_bias)
        self.register_buffer("prior_mean", torch.zeros(config.latent))
        self.register_buffer("prior_variance", torch.ones(config.latent))
        self._initialise()

    def prior(self) -> tuple[Array, Array]:
        """Mean (P,) and variance (P,) of the latents of the training cohort."""
        mean, variance = (tensor.cpu().numpy().astype("float64") for tensor in (self.prior_mean, self.prior_variance))
        return mean, variance

    @torch.no_grad()
    def set_prior(self, mean: Tensor, variance: Tensor) -> None:
        """Keep the mean (P,) and the variance (P,) of the training latents. Raises ValueError for any but positive."""
        if not bool((variance > 0).all()):
            raise ValueError(f"variances of latents must be positive, got {float(variance.min()):g}")
        self.prior_mean.copy_(mean)
        self.prior_variance.copy_(variance)

    @torch.no_grad()
    def rotate(self, matrix: Tensor) -> None:
        """Turn the basis of the latents: the field of z' is from now on what that of z = matrix z' was.

        matrix: (P, P), orthogonal (ValueError). Latents at hand become matrix^T z; the prior's mean turns along, its
        variances become those along the new axes. Gradient steps and isotropic priors are the same in any such basis.
        """
        turn = matrix.to(self.prior_mean.device, torch.float64)
        if not torch.allclose(turn @ turn.T, torch.eye(self.latent).to(turn), atol=1e-4):
            raise ValueError("rotate: the matrix is not orthogonal")
        entry = self.modulation if self.hyper is None else self.hyper
        if entry is not None:
            entry.weight.copy_(entry.weight.double() @ turn)
        self.prior_mean.copy_(turn.T @ self.prior_mean.double())
        self.prior_variance.copy_((turn**2).T @ self.prior_variance.double())

    @torch.no_grad()
    def rescale(self, scale: Tensor) -> None:
        """Measure latents in other units: the field of z' is from now on what that of z = scale * z' was.

        scale: (P,), positive. Gradient steps of one rate on z' are steps of scale^2 times that rate on z (meta-SGD).
        """
        entry = self.modulation if self.hyper is None else self.hyper
        if entry is not None:
            entry.weight.mul_(scale)
        self.prior_mean.div_(scale)
        self.prior_variance.div_(scale**2)

    def forward(self, coords: Tensor, latents: Tensor) -> Tensor:
        """Coords (B, N, d), latents (B, P) -> (B, N, C). With gradients off it works in place."""
        return self._network().evaluate(coords, self._shifts(latents))

    def jacobian(self, coords: Tensor, latents: Tensor) -> tuple[Tensor, Tensor]:
        """Coords (B, N, d), latents (B, P) -> the field (B, N, C) and its derivative (B, N, C, P).

        Both have a graph where gradients are on; with them off this is quicker.
        """
        field, outer, inner = self.factored_jacobian(coords, latents)
        batch, points, channels, shifts = outer.shape
        flat = outer.reshape(batch, points * channels, shifts) @ inner
        return field, flat.reshape(batch, points, channels, self.latent)

    def factored_jacobian(self, coords: Tensor, latents: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The field (B, N, C), and factors of its Jacobian: by the shifts (B, N, C, S), of the shifts (B, S, P).

        J v = outer (inner v) and J^T u = inner^T (outer^T u) need no (N, C, P) array.
        """
        network = self._network()
        field, slopes = network.trace(coords, self._shifts(latents))
        return field, network.shift_jacobian(slopes, self.config.first_modulated - 1), self._inner(latents)

    @torch.no_grad()
    def pull_back(
        self, coords: Tensor, latents: Tensor, cotangent: Callable[[Tensor], Tensor]
    ) -> tuple[Tensor, Tensor]:
        """The field (B, N, C) and J^T u (B, P) for u = cotangent(field), by one backward pass for all channels."""
        network = self._network()
        field, slopes = network.trace(coords, self._shifts(latents))
        by_shift = network.shift_gradient(slopes, cotangent(field), self.config.first_modulated - 1)
        return field, (by_shift[:, None] @ self._inner(latents))[:, 0]

    def _network(self) -> SineNetwork:
        *hidden, last = self._linears()
        weights = [layer.weight for layer in hidden]
        offset = last.bias + self.config.output_offset
        return SineNetwork(weights, self.config.omegas[:-1], last.weight, offset, self.config.skips)

    def _linears(self) -> list[nn.Linear]:
        return cast(list[nn.Linear], list(self.layers))

    def _shifts(self, latents: Tensor) -> list[Tensor]:
        """(B, P) -> what is added to each layer's W x, (B, L): its bias and, where it is modulated, its shift."""
        biases = [layer.bias.expand(len(latents), -1) for layer in self._linears()[:-1]]
        if self.modulation is None:
            return biases
        hidden = latents if self.hyper is None else nn.functional.silu(self.hyper(latents))
        first = self.config.first_modulated - 1
        moved = self.modulation(hidden).split(self.config.width, dim=-1)
        return biases[:first] + [bias + shift for bias, shift in zip(biases[first:], moved, strict=True)]

    def _inner(self, latents: Tensor) -> Tensor:
        """Derivative of the shifts by the latent, (B, S, P); a view of one matrix where the maps are linear."""
        if self.modulation is None:
            shifts = (self.config.depth - self.config.first_modulated + 1) * self.config.width
            return latents.new_zeros((len(latents), shifts, 0))
        if self.hyper is None:
            return self.modulation.weight.expand(len(latents), -1, -1)
        before = self.hyper(latents)
        sigmoid = torch.sigmoid(before)
        slope = sigmoid * (1 + before * (1 - sigmoid))
        by_latent: Tensor = self.modulation.weight @ (slope[..., None] * self.hyper.weight)
        return by_latent

    @torch.no_grad()
    def _initialise(self) -> None:
        """SIREN's weights: U(1 / d) first, then U(sqrt(6 / L) / omega), the last layer's with the next omega."""
        for number, (layer, omega) in enumerate(zip(self._linears(), self.config.omegas, strict=True)):
            bound = 1 / layer.in_features if number == 0 else math.sqrt(6 / layer.in_features) / omega
            layer.weight.uniform_(-bound, bound)
            if self.config.bias_init == "siren":
                layer.bias.uniform_(-bound, bound)
            elif self.config.bias_init == "zeros":
                layer.bias.zero_()
        if self.modulation is not None and self.config.modulation_init != "torch":
            self._initialise_modulation(self.modulation)

    def _initialise_modulation(self, modulation: nn.Linear) -> None:
        """Maps whose shifts at z = 0 are 0. The papers' default has biases there: random phases of omega / sqrt(P)."""
        deviation = 1 / math.sqrt(modulation.in_features)
        kind = self.config.modulation_init
        if kind == "zeros":
            modulation.weight.zero_()
        elif kind == "functa":
            nn.init.trunc_normal_(modulation.weight, std=deviation, a=-2 * deviation, b=2 * deviation)
        else:
            first = self.config.first_modulated - 1
            for number, omega in enumerate(self.config.omegas[first:-1]):
                start = number * self.config.width
                modulation.weight[start : start + self.config.width].normal_(std=deviation / omega)
        if modulation.bias is not None:
            modulation.bias.zero_()
