"""A network of sine layers whose biases are given from outside, and its derivatives by those biases, in torch.

    x_1 = sin(omega_1 (W_1 coords + s_1)),  x_k = [x_{k-1} +] sin(omega_k (W_k x_{k-1} + s_k)),  out = W x_K + b

A latent enters a modulated field through the shifts s_k only, and points do not interact, so one backward pass per
output channel gives G_k = d out / d s_k at every point, and sum_k G_k d s_k / d z is the Jacobian by the latent.
What is here needs no autograd graph for that: with gradients off, layers work in place.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class SineNetwork:
    """weights: W_1 (L, d), then (L, L) each. omegas: one a layer. out_weight: (C, L). out_bias: (C,).

    Shifts are (B, L) tensors, one a layer; coordinates are (B, N, d), cheaper where all items share them (`expand`).
    """

    weights: Sequence[Tensor]
    omegas: Sequence[float]
    out_weight: Tensor
    out_bias: Tensor
    skips: bool

    def evaluate(self, coords: Tensor, shifts: Sequence[Tensor]) -> Tensor:
        """(B, N, d) -> (B, N, C)."""
        if torch.is_grad_enabled():
            x = torch.sin(self._first_phase(coords, shifts[0]))
            for weight, omega, shift in self._hidden(shifts):
                lifted = torch.nn.functional.linear(x, weight)
                sine = torch.sin(torch.add(omega * shift[:, None], lifted, alpha=omega))
                x = x + sine if self.skips else sine
        else:
            x = self._first_phase(coords, shifts[0]).sin_()
            for weight, omega, shift in self._hidden(shifts):
                sine = _phase(x, weight, omega, shift).sin_()
                x = sine.add_(x) if self.skips else sine
        return torch.nn.functional.linear(x, self.out_weight, self.out_bias)

    def trace(self, coords: Tensor, shifts: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """`evaluate`, and each layer's omega cos(phase) (B, N, L): all that the backward passes need."""
        if torch.is_grad_enabled():
            return self._trace_with_graph(coords, shifts)
        phase = self._first_phase(coords, shifts[0])
        slopes = [torch.cos(phase).mul_(self.omegas[0])]
        x = phase.sin_()
        for weight, omega, shift in self._hidden(shifts):
            phase = _phase(x, weight, omega, shift)
            slopes.append(torch.cos(phase).mul_(omega))
            sine = phase.sin_()
            x = sine.add_(x) if self.skips else sine
        return torch.nn.functional.linear(x, self.out_weight, self.out_bias), slopes

    def shift_jacobian(self, slopes: list[Tensor], first: int) -> Tensor:
        """Slopes of `trace` -> G (B, N, C, S): the derivative of every output by the shifts from layer `first` on.

        first: counts from 0. S = (K - first) L, layers in order.
        """
        batch, points, width = slopes[0].shape
        channels, layers = len(self.out_weight), len(slopes)
        if torch.is_grad_enabled() or torch.compiler.is_compiling():  # a graph has no memory to write into
            return self._shift_jacobian_with_graph(slopes, first)
        whole = slopes[0].new_empty((batch, points, channels, layers - first, width))
        incoming = self.out_weight.expand(batch, points, channels, width)
        for k in range(layers - 1, first - 1, -1):
            torch.mul(incoming, slopes[k][:, :, None], out=whole[..., k - first, :])
            if k > first:
                passed = whole[..., k - first, :] @ self.weights[k]
                incoming = passed.add_(incoming) if self.skips else passed
        return whole.flatten(-2)

    def shift_gradient(self, slopes: list[Tensor], seed: Tensor, first: int) -> Tensor:
        """Seed (B, N, C) -> (B, S): the sum over points and channels of seed times G, by one backward pass."""
        incoming = seed @ self.out_weight
        found: list[Tensor] = []
        for k in range(len(slopes) - 1, first - 1, -1):
            outgoing = incoming * slopes[k]
            found.append(outgoing.sum(dim=1))
            if k > first:
                passed = outgoing @ self.weights[k]
                incoming = passed.add_(incoming) if self.skips else passed
        return torch.cat(found[::-1], dim=-1)

    def _trace_with_graph(self, coords: Tensor, shifts: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        phase = self._first_phase(coords, shifts[0])
        slopes, x = [self.omegas[0] * torch.cos(phase)], torch.sin(phase)
        for weight, omega, shift in self._hidden(shifts):
            phase = torch.add(omega * shift[:, None], torch.nn.functional.linear(x, weight), alpha=omega)
            slopes.append(omega * torch.cos(phase))
            x = x + torch.sin(phase) if self.skips else torch.sin(phase)
        return torch.nn.functional.linear(x, self.out_weight, self.out_bias), slopes

    def _shift_jacobian_with_graph(self, slopes: list[Tensor], first: int) -> Tensor:
        batch, points, width = slopes[0].shape
        incoming = self.out_weight.expand(batch, points, len(self.out_weight), width)
        found: list[Tensor] = []
        for k in range(len(slopes) - 1, first - 1, -1):
            found.append(incoming * slopes[k][:, :, None])
            if k > first:
                passed = found[-1] @ self.weights[k]
                incoming = passed + incoming if self.skips else passed
        return torch.cat(found[::-1], dim=-1)

    def _first_phase(self, coords: Tensor, shift: Tensor) -> Tensor:
        """omega_1 (W_1 coords + s_1), (B, N, L); coordinates that all items share are multiplied once."""
        omega, shared = self.omegas[0], len(coords) > 1 and coords.stride(0) == 0
        lifted = torch.nn.functional.linear(coords[:1] if shared else coords, self.weights[0])
        return torch.add(omega * shift[:, None], lifted, alpha=omega)

    def _hidden(self, shifts: Sequence[Tensor]) -> list[tuple[Tensor, float, Tensor]]:
        return list(zip(self.weights, self.omegas, shifts, strict=True))[1:]


def _phase(x: Tensor, weight: Tensor, omega: float, shift: Tensor) -> Tensor:
    """The phase omega (x W^T + s) as one product with its sum: x (B, N, L), W (L, L), s (B, L)."""
    scaled = omega * shift[:, None]
    if len(x) == 1:
        return torch.addmm(scaled[0], x[0], weight.T, alpha=omega)[None]
    return torch.baddbmm(scaled, x, weight.T.expand(len(x), -1, -1), alpha=omega)
