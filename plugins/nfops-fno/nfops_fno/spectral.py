"""Convolution by a kernel made of few waves (Li et al. 2021, section 4), by real matrix products.

A field on a grid is projected onto cos(2 pi k x / T) and sin(2 pi k x / T), k = 0 .. K - 1, axis by axis: each is one
product with the waves at its points, wherever they are, weighted by the cell. T is a length in the unit of the
coordinates, so that the waves are the same on every grid; beyond the grid the field is 0, so that a period longer than
it keeps its ends apart, without padding. No FFT and no complex numbers: the graph is plain products.

A convolution turns and scales each wave. In real coefficients, axis by axis, a turn is J: (cos, sin) -> (-sin, cos).
Every convolution is, for each (k_1, .., k_d), a sum over the 2^d ways to turn some axes and not the others, each with a
matrix (inputs, outputs): as many numbers as FNO learns for the complex waves (+-k_1, .., +-k_d), half of which are
conjugates of the others.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

import torch
from torch import Tensor, nn

TURN = ((1.0, -1.0), (1.0, 1.0))
"""Signs of (cos, sin) from (cos, sin): those of 1 on the diagonal, of J beside it."""


@dataclass(frozen=True, eq=False)
class Axis:
    """One axis of a grid: waves (B, n, 2 K) by `waves_at` its points; cells (B, n), the length that each stands for."""

    waves: Tensor
    cells: Tensor


class SpectralConvolution(nn.Module):
    """(B, inputs, *grid) -> (B, outputs, *grid); it learns (K_1 .. K_d, 2^d, inputs, outputs), at no spacing.

    modes: (K_1, .., K_d), the waves along each axis, the constant included. Bit a of a part says whether it is the sine
    along axis a (the last bit: the last axis), of a way to turn, whether that axis is turned.
    """

    others: Tensor
    signs: Tensor

    def __init__(self, inputs: int, outputs: int, modes: Sequence[int]) -> None:
        super().__init__()
        ways = 2 ** len(modes)
        scale = 1 / math.sqrt(ways * inputs)
        self.modes = tuple(modes)
        self.weight = nn.Parameter(scale * torch.randn(math.prod(modes), ways, inputs, outputs))
        others = torch.arange(ways)[:, None] ^ torch.arange(ways)  # (parts, ways) -> the part that is turned to this
        signs = reduce(torch.kron, [torch.tensor(TURN)] * len(modes)).gather(1, others)
        self.register_buffer("others", others, persistent=False)
        self.register_buffer("signs", signs, persistent=False)

    def forward(self, values: Tensor, axes: Sequence[Axis]) -> Tensor:
        """axes: of the grid. Outside their points the field is 0."""
        for axis in reversed(axes):  # the last one, which then stands before the others
            values = _product(values, axis.waves * axis.cells[..., None]).movedim(1 + len(axes), 2)
        values = self._mix(values)
        for axis in axes:
            values = _product(values.movedim(2, 1 + len(axes)), axis.waves.transpose(1, 2))
        return values

    def _mix(self, coefficients: Tensor) -> Tensor:
        """(B, inputs, 2 K_1, .., 2 K_d) -> (B, outputs, 2 K_1, .., 2 K_d): waves do not mix, features do."""
        batch, dims = coefficients.shape[0], len(self.modes)
        parts, waves = range(2, 2 + 2 * dims, 2), range(3, 3 + 2 * dims, 2)  # of (B, inputs, 2, K_1, .., 2, K_d)
        split = coefficients.reshape(batch, -1, *(n for k in self.modes for n in (2, k)))
        split = split.permute(*waves, 0, *parts, 1).reshape(len(self.weight), batch, 2**dims, -1)
        turned = split[:, :, self.others] * self.signs[..., None]  # (waves, B, parts, ways, inputs)
        mixed = turned.flatten(3).flatten(1, 2) @ self.weight.flatten(1, 2)
        mixed = mixed.reshape(*self.modes, batch, *(2,) * dims, -1)
        pairs = [axis for wave in range(dims) for axis in (dims + 1 + wave, wave)]
        return mixed.permute(dims, 2 * dims + 1, *pairs).reshape(batch, -1, *(2 * k for k in self.modes))


def waves_at(places: Tensor, period: float, modes: int) -> Tensor:
    """Positions (B, n) along an axis -> (B, n, 2 modes): cosines, then sines, of norm 1 over a period."""
    phase = (2 * math.pi / period) * places[..., None] * torch.arange(modes).to(places)
    norm = torch.tensor([math.sqrt(1 / period)] + [math.sqrt(2 / period)] * (modes - 1)).to(places)
    return torch.cat([norm * torch.cos(phase), norm * torch.sin(phase)], dim=-1)


def _product(values: Tensor, matrix: Tensor) -> Tensor:
    """(B, .., n) by (B, n, m) -> (B, .., m)."""
    return (values.flatten(1, -2) @ matrix).reshape(*values.shape[:-1], -1)
