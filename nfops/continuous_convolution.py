"""Convolution by a kernel that is a function of the offset: one operator at every spacing (O-INR, eq. 5 and 6).

k(x) = sum over b in {-1, 0, 1}^d of W_b phi(x - width b), where phi is the product of linear hats that fall to 0 at
`width`. The integral is a sum over the grid's points, each worth its cell. On a grid `width` apart that is a 3x3
convolution; on one m times as fine it is the same kernel, dilated m times, after a smoothing by the sampled hat.
Outside the grid the field is 0.
"""

import math
from collections.abc import Callable
from functools import cached_property
from typing import TypeAlias, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

TAPS = 3
"""Basis functions along an axis."""
WHOLE = 1e-4
"""How far from a whole number a ratio of widths may be and still count as one."""

Spacing: TypeAlias = tuple[float | Tensor, ...]
"""(d,) of a grid. Tensors () are inputs of a graph, which is then right for any spacing: there are no short cuts."""
MOST_STEPS = 1 << 12
"""Of a grid within a width, and coarse cells along an axis, in such a graph."""

assume: Callable[[bool], None] = torch._check
"""Of lengths that a graph computes."""

_CONVOLUTIONS = (functional.conv1d, functional.conv2d, functional.conv3d)
_AVERAGES = (functional.avg_pool1d, functional.avg_pool2d, functional.avg_pool3d)
_INTERPOLATIONS = ("linear", "bilinear", "trilinear")


class Hats:
    """Linear hats `width` apart, as they lie on a grid of some spacing: what kernels on one lattice have in common."""

    def __init__(self, width: tuple[float, ...], spacing: Spacing) -> None:
        """width, spacing: (d,). Raises ValueError for a spacing beyond the width."""
        ratios = [w / step for w, step in zip(width, spacing, strict=True)]
        known = [ratio for ratio in ratios if not isinstance(ratio, Tensor)]
        if known and min(known) < 1 - WHOLE:
            raise ValueError(f"a grid of spacing {spacing} is too coarse for kernels of width {width}")
        whole = tuple(round(ratio) for ratio in known)
        is_whole = all(abs(ratio - steps) <= WHOLE for ratio, steps in zip(known, whole, strict=True))
        self.steps = whole if len(known) == len(ratios) and is_whole else None
        """(d,) of the grid to a width, where they are known to be whole numbers."""
        self._ratios = ratios

    @cached_property
    def reaches(self) -> tuple[int, ...]:
        """(d,): how many steps the outer hats reach to either side."""
        return tuple(_reach(ratio) for ratio in self._ratios)

    @cached_property
    def samples(self) -> list[Tensor]:
        """Of each axis (3, 2 reach + 1): the three hats at the offsets within their reach, times the step.

        Each row is made to sum to 1, as its integral does.
        """
        found = []
        for ratio, reach in zip(self._ratios, self.reaches, strict=True):
            offsets = torch.arange(-reach, reach + 1, dtype=torch.float64) / ratio
            hats = (1 - (offsets - torch.arange(-1, 2)[:, None]).abs()).clamp_min(0)
            found.append(hats / hats.sum(dim=1, keepdim=True))
        return found


def _reach(ratio: float | Tensor) -> int:
    if isinstance(ratio, Tensor):
        return computed_length(torch.ceil(2 * ratio - WHOLE) - 1)
    return math.ceil(2 * ratio - WHOLE) - 1


def computed_length(number: Tensor, low: int = 1) -> int:
    """A whole number that a graph computes from its inputs, for use in shapes; exporters ask for its bounds."""
    length = cast(int, number.to(torch.int64).item())
    assume(length >= low)
    assume(length <= MOST_STEPS)
    return length


class ContinuousConvolution(nn.Module):
    """(B, inputs, *grid) -> (B, outputs, *grid).

    It learns W_b (outputs, inputs, 3, ..., 3) and a bias, at no particular spacing.
    """

    def __init__(self, inputs: int, outputs: int, dims: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outputs, inputs, *(TAPS,) * dims))
        self.bias = nn.Parameter(torch.zeros(outputs))
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))

    def forward(self, values: Tensor, hats: Hats) -> Tensor:
        """hats: of the grid."""
        convolve, steps = _CONVOLUTIONS[values.ndim - 3], hats.steps
        if steps is None:  # padded beforehand: a graph's convolution knows no padding but a fixed one
            values = functional.pad(values, [reach for reach in reversed(hats.reaches) for _ in range(2)])
            return convolve(values, self.sampled(hats), self.bias)
        if max(steps) == 1:
            return convolve(values, self.weight, self.bias, padding=1)
        # the hats at the border reach beyond it: smooth on a wider grid, then leave it again
        values = functional.pad(values, [2 * m - 1 for m in reversed(steps) for _ in range(2)])
        return convolve(_smoothed(values, steps), self.weight, self.bias, dilation=steps)

    def sampled(self, hats: Hats) -> Tensor:
        """The kernel at the offsets of a grid times the volume of its cells, (outputs, inputs, *odd sizes)."""
        kernel: Tensor = self.weight
        for axis, samples in enumerate(hats.samples):
            kernel = torch.tensordot(kernel, samples.to(kernel), dims=([2 + axis], [0])).movedim(-1, 2 + axis)
        return kernel


def _smoothed(values: Tensor, steps: tuple[int, ...]) -> Tensor:
    """Each axis by its sampled hat, without padding: it loses m - 1 points at both ends."""
    dims = len(steps)
    channels = values.shape[1]
    for axis, m in enumerate(steps):
        hat = (1 - torch.arange(1 - m, m).abs() / m) / m
        shape = [1, 1] + [len(hat) if a == axis else 1 for a in range(dims)]
        kernel = hat.to(values).reshape(shape).expand(channels, 1, *shape[2:])
        values = _CONVOLUTIONS[dims - 1](values, kernel, groups=channels)
    return values


def restrict(values: Tensor, shape: tuple[int, ...], factors: tuple[int, ...]) -> Tensor:
    """(B, C, *grid) -> (B, C, *shape), coarser across the same extent: means over cells of `factors` points."""
    if not any(isinstance(factor, torch.SymInt) for factor in factors):
        return _AVERAGES[len(shape) - 1](values, factors)
    for axis, sizes in enumerate(zip(shape, factors, strict=True), start=2):  # a graph cannot compute how wide it pools
        values = values.reshape(*values.shape[:axis], *sizes, *values.shape[axis + 1 :]).mean(dim=axis + 1)
    return values


def prolong(values: Tensor, shape: tuple[int, ...]) -> Tensor:
    """(B, C, *grid) -> (B, C, *shape), finer across the same extent: linear between the centres of the cells."""
    return functional.interpolate(values, shape, mode=_INTERPOLATIONS[len(shape) - 1], align_corners=False)
