"""Convolution by a kernel that is a function of the offset: one operator at every spacing (O-INR, eq. 5 and 6).

k(x) = sum over b in {-1, 0, 1}^d of W_b phi(x - width b), where phi is the product of linear hats that fall to 0 at
`width`. The integral is a sum over the grid's points, each worth its cell. On a grid `width` apart that is a 3x3
convolution; on one m times as fine it is the same kernel, dilated m times, after a smoothing by the sampled hat.
Outside the grid the field is 0.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

TAPS = 3
"""Basis functions along an axis."""
WHOLE = 1e-4
"""How far from a whole number a ratio of widths may be and still count as one."""

_CONVOLUTIONS = (functional.conv1d, functional.conv2d, functional.conv3d)
_AVERAGES = (functional.avg_pool1d, functional.avg_pool2d, functional.avg_pool3d)
_INTERPOLATIONS = ("linear", "bilinear", "trilinear")


class ContinuousConvolution(nn.Module):
    """(B, inputs, *grid) -> (B, outputs, *grid). width: (d,) of a hat, in the unit that spacings are given in.

    It learns W_b (outputs, inputs, 3, ..., 3) and a bias, at no particular spacing.
    """

    def __init__(self, inputs: int, outputs: int, width: tuple[float, ...]) -> None:
        super().__init__()
        self.width = width
        self.weight = nn.Parameter(torch.empty(outputs, inputs, *(TAPS,) * len(width)))
        self.bias = nn.Parameter(torch.zeros(outputs))
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))

    def forward(self, values: Tensor, spacing: tuple[float, ...]) -> Tensor:
        """spacing: (d,) of the grid, at most `width`. Raises ValueError for a coarser one."""
        ratios = tuple(w / s for w, s in zip(self.width, spacing, strict=True))
        if min(ratios) < 1 - WHOLE:
            raise ValueError(f"a grid of spacing {spacing} is too coarse for kernels of width {self.width}")
        dims = len(ratios)
        convolve = _CONVOLUTIONS[dims - 1]
        steps = tuple(round(ratio) for ratio in ratios)
        if max(abs(ratio - step) for ratio, step in zip(ratios, steps, strict=True)) > WHOLE:
            kernel = self.sampled(spacing)
            return convolve(values, kernel, self.bias, padding=tuple(n // 2 for n in kernel.shape[2:]))
        if max(steps) == 1:
            return convolve(values, self.weight, self.bias, padding=1)
        # the hats at the border reach beyond it: smooth on a wider grid, then leave it again
        values = functional.pad(values, [2 * m - 1 for m in reversed(steps) for _ in range(2)])
        return convolve(_smoothed(values, steps), self.weight, self.bias, dilation=steps)

    def sampled(self, spacing: tuple[float, ...]) -> Tensor:
        """The kernel at the offsets of a grid times the volume of its cells, (outputs, inputs, *odd sizes)."""
        kernel = self.weight
        for axis, (width, step) in enumerate(zip(self.width, spacing, strict=True)):
            basis = sampled_hats(width / step).to(kernel)
            kernel = torch.tensordot(kernel, basis, dims=([2 + axis], [0])).movedim(-1, 2 + axis)
        return kernel


def sampled_hats(ratio: float) -> Tensor:
    """(3, n): the three hats along an axis at the n offsets within their reach, times the step.

    ratio: the width in steps. Each row is made to sum to 1, as its integral does.
    """
    reach = math.ceil(2 * ratio - WHOLE) - 1
    offsets = torch.arange(-reach, reach + 1, dtype=torch.float64) / ratio
    hats = (1 - (offsets - torch.arange(-1, 2)[:, None]).abs()).clamp_min(0)
    return hats / hats.sum(dim=1, keepdim=True)


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


def restrict(values: Tensor, shape: tuple[int, ...]) -> Tensor:
    """(B, C, *grid) -> (B, C, *shape), coarser across the same extent: means over the coarse cells.

    Raises ValueError where a coarse cell is not a whole number of fine ones.
    """
    sizes = values.shape[2:]
    if any(n % m for n, m in zip(sizes, shape, strict=True)):
        raise ValueError(f"a grid of {tuple(sizes)} points has no {shape} coarse cells")
    return _AVERAGES[len(shape) - 1](values, tuple(n // m for n, m in zip(sizes, shape, strict=True)))


def prolong(values: Tensor, shape: tuple[int, ...]) -> Tensor:
    """(B, C, *grid) -> (B, C, *shape), finer across the same extent: linear between the centres of the cells."""
    return functional.interpolate(values, shape, mode=_INTERPOLATIONS[len(shape) - 1], align_corners=False)
