"""Operator `unet`: the plain U-Net (Ronneberger et al. 2015) on the working grid, as a baseline for other operators.

3x3 convolutions, maxima over 2x2 down, transposed convolutions up, skip connections by concatenation; in 1-D and 3-D
the same with 3 and 3x3x3. Its convolutions count cells, not millimetres, and it is told no position: it is bound to the
spacing that it learned on, to which nfops brings every scan, and it fits by what `FieldOperator` and the harness give
to every operator on fields (augmentation, descent, averaged weights, mirrored scans).
"""

import math
from dataclasses import dataclass, field
from itertools import pairwise

import torch
from torch import Tensor, nn

from nfops.annotations import about
from nfops.field_operator import FieldOperator, FieldSettings, channels_last
from nfops.field_pairs import Window, WorkingGrid

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
POOLS = (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d)
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
MOST_GROUPS = 8
"""Of features that are normalised together: statistics of one scan, not of a batch of four."""


@dataclass(frozen=True)
class Config(FieldSettings):
    """Beside the settings of every operator on fields."""

    widths: tuple[int, ...] = field(
        default=(16, 32, 64, 128),
        metadata=about("Features of each level, the finest first; each is twice as coarse as the one before.", low=1),
    )

    def __post_init__(self) -> None:
        if not self.widths:
            raise ValueError("widths: expected at least one level")


class Level(nn.Sequential):
    """Twice convolve, normalise, rectify: (B, inputs, *grid) -> (B, outputs, *grid)."""

    def __init__(self, inputs: int, outputs: int, dims: int) -> None:
        groups = math.gcd(MOST_GROUPS, outputs)
        parts: list[nn.Module] = []
        for width in (inputs, outputs):
            parts += [
                CONVOLUTIONS[dims - 1](width, outputs, 3, padding=1),
                nn.GroupNorm(groups, outputs),
                nn.ReLU(inplace=True),
            ]
        super().__init__(*parts)


class Operator(FieldOperator):
    """source field -> target field, on grids of one spacing whose points are a multiple of 2^(levels - 1) per axis."""

    is_resolution_free = False
    config: Config

    def __init__(self, config: Config, source_channels: int, target_channels: int, window: Window) -> None:
        super().__init__(config, window)
        dims, widths = len(window.extent), config.widths
        steps = list(pairwise(widths))
        self.down = nn.ModuleList(Level(i, o, dims) for i, o in [(source_channels, widths[0]), *steps])
        self.pool = POOLS[dims - 1](2)
        self.widen = nn.ModuleList(TRANSPOSED[dims - 1](coarse, fine, 2, stride=2) for fine, coarse in steps)
        self.up = nn.ModuleList(Level(2 * fine, fine, dims) for fine, _ in steps)
        self.last = CONVOLUTIONS[dims - 1](widths[0], target_channels, 1)

    @property
    def working_grid(self) -> WorkingGrid:
        """The only spacing that it knows; points that can be halved as often as it has levels below the first."""
        return WorkingGrid(self.finest, 2 ** (len(self.config.widths) - 1))

    @property
    def values_per_point(self) -> int:
        """About how many numbers are in memory at once for each point of the grid."""
        return self.passes * 8 * self.config.widths[0]

    def translate(self, values: Tensor, coords: Tensor, spacing: tuple[float, ...]) -> Tensor:
        """See `FieldOperator.forward`; the coordinates play no part. Raises ValueError for a grid not its own."""
        del coords
        self._check(tuple(values.shape[2:]), spacing)
        values = channels_last(values)
        kept: list[Tensor] = []
        for level in self.down:
            values = level(self.pool(values) if kept else values)
            kept.append(values)
        for skip, widen, level in reversed(list(zip(kept, self.widen, self.up, strict=False))):
            values = level(torch.cat([skip, widen(values)], dim=1))
        result: Tensor = self.last(values)
        return result

    def _check(self, shape: tuple[int, ...], spacing: tuple[float, ...]) -> None:
        if not all(math.isclose(s, own, rel_tol=1e-3) for s, own in zip(spacing, self.finest, strict=True)):
            raise ValueError(f"a U-Net of spacing {self.finest} was given a grid of spacing {spacing}")
        multiple = self.working_grid.multiple
        if any(n % multiple for n in shape):
            raise ValueError(f"a grid of {shape} points cannot be halved to {multiple} times coarser")
