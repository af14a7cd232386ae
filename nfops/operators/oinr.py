"""The convolutional O-INR: image to image by integral operators whose kernels are functions of the offset.

(O-INR, eq. 5 and 6: an operator on the field of encoded coordinates. Here the scan is a part of that field.) Every
kernel is a continuous function with a reach in millimetres, so that one operator acts at all spacings. Wide reaches
are affordable on coarse lattices: level l has kernels of width 2^l times the finest, on a lattice as coarse, which is
fixed in millimetres too; means over cells lead down, linear interpolation leads up.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional

from nfops.annotations import about
from nfops.continuous_convolution import WHOLE, ContinuousConvolution, prolong, restrict
from nfops.field_operator import FieldOperator, FieldSettings, channels_last
from nfops.field_pairs import Window, WorkingGrid

MOST_GROUPS, SMALLEST_GROUP = 8, 4
"""Of features that are normalised together, over the whole field of view."""


@dataclass(frozen=True)
class Config(FieldSettings):
    """Levels of widths features with blocks residual blocks on the way down, as many on the way up (one at least)."""

    widths: tuple[int, ...] = field(
        default=(8, 16, 32, 64, 96),
        metadata=about("Features of each level, the finest first; each is twice as coarse as the one before.", low=1),
    )
    blocks: tuple[int, ...] = field(
        default=(0, 1, 1, 2, 2), metadata=about("Residual blocks of each level, on the way down and up.", low=0)
    )
    frequencies: int = field(
        default=2, metadata=about("Waves per axis that encode the position, the longest twice the view's.", low=0)
    )

    def __post_init__(self) -> None:
        if not self.widths or len(self.widths) != len(self.blocks):
            raise ValueError(f"blocks: expected one number for each of {len(self.widths)} widths")


class Block(nn.Module):
    """field + correction: twice normalise, activate, convolve; (B, width, *grid) -> the same."""

    def __init__(self, features: int, width: tuple[float, ...]) -> None:
        super().__init__()
        groups = max(
            n for n in range(1, MOST_GROUPS + 1) if n == 1 or (features % n == 0 and features >= n * SMALLEST_GROUP)
        )
        self.norms = nn.ModuleList(nn.GroupNorm(groups, features) for _ in range(2))
        self.convolutions = nn.ModuleList(ContinuousConvolution(features, features, width) for _ in range(2))

    def forward(self, values: Tensor, spacing: tuple[float, ...]) -> Tensor:
        """spacing: (d,) of the grid."""
        changed = values
        for norm, convolution in zip(self.norms, self.convolutions, strict=True):
            changed = convolution(functional.silu(norm(changed)), spacing)
        return values + changed


class Stage(nn.ModuleList):
    """Blocks of one level, one after the other."""

    def forward(self, values: Tensor, spacing: tuple[float, ...]) -> Tensor:
        """As for `Block`."""
        for block in self:
            values = block(values, spacing)
        return values


class Operator(FieldOperator):
    """source field -> target field, on any grid whose cells make up the coarser lattices."""

    config: Config

    def __init__(self, config: Config, source_channels: int, target_channels: int, window: Window) -> None:
        super().__init__(config, window)
        dims = len(window.extent)
        levels = [tuple(w * 2**level for w in self.finest) for level in range(len(config.widths))]
        inputs = source_channels + 2 * config.frequencies * dims
        blocks = list(zip(config.widths, levels, config.blocks, strict=True))
        pairs = list(zip(config.widths, config.widths[1:], strict=False))
        pointwise = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[dims - 1]
        self.lift = ContinuousConvolution(inputs, config.widths[0], levels[0])
        self.down = nn.ModuleList(Stage(Block(w, at) for _ in range(n)) for w, at, n in blocks)
        self.up = nn.ModuleList(Stage(Block(w, at) for _ in range(max(1, n))) for w, at, n in blocks[:-1])
        self.widen = nn.ModuleList(pointwise(fine, coarse, 1) for fine, coarse in pairs)
        self.narrow = nn.ModuleList(pointwise(coarse, fine, 1) for fine, coarse in pairs)
        self.last = ContinuousConvolution(config.widths[0], target_channels, levels[0])
        nn.init.zeros_(self.last.weight)

    @property
    def working_grid(self) -> WorkingGrid:
        """As fine as its narrowest kernel, made up of cells of the coarsest lattice."""
        return WorkingGrid(self.finest, 2 ** (len(self.config.widths) - 1))

    @property
    def values_per_point(self) -> int:
        """About how many numbers are in memory at once for each point of the grid."""
        return 8 * self.config.widths[0] + 2 * self.lift.weight.shape[1]

    def encoded(self, coords: Tensor) -> Tensor:
        """(B, *grid, d) -> (B, 2 d frequencies, *grid), fixed by the training's field of view, never by a grid."""
        extent = torch.tensor(self.extent).to(coords)
        phase = torch.pi * (coords / extent).movedim(-1, 1)
        waves = [wave(k * phase) for k in range(1, self.config.frequencies + 1) for wave in (torch.sin, torch.cos)]
        return torch.cat(waves, dim=1) if waves else coords.new_empty(len(coords), 0, *coords.shape[1:-1])

    def translate(self, values: Tensor, coords: Tensor, spacing: tuple[float, ...]) -> Tensor:
        """See `FieldOperator.forward`.

        Raises ValueError for a grid that is coarser than the narrowest kernel, or no whole number of coarse cells.
        """
        values = self.lift(channels_last(torch.cat([values, self.encoded(coords)], dim=1)), spacing)
        lattices, kept = self._lattices(values.shape[2:], spacing), []
        for level, blocks in enumerate(self.down):
            values = blocks(values, lattices[level][1])
            if level < len(self.widen):
                kept.append(values)
                values = self.widen[level](restrict(values, lattices[level + 1][0]))
        for level in reversed(range(len(self.up))):
            values = kept[level] + prolong(self.narrow[level](values), lattices[level][0])
            values = self.up[level](values, lattices[level][1])
        result: Tensor = self.last(functional.silu(values), spacing)
        return result

    def _lattices(
        self, shape: tuple[int, ...], spacing: tuple[float, ...]
    ) -> list[tuple[tuple[int, ...], tuple[float, ...]]]:
        """Shape and spacing of each level: the grid itself, then lattices that are the same whatever the grid."""
        found = [(tuple(shape), spacing)]
        for level in range(1, len(self.down)):
            wanted = tuple(w * 2**level for w in self.finest)
            cells = tuple(_cells(n, s, w) for n, s, w in zip(shape, spacing, wanted, strict=True))
            if min(cells) < 1:
                extent = tuple(n * s for n, s in zip(shape, spacing, strict=True))
                raise ValueError(f"a grid that covers {extent} is no whole number of cells of {wanted}")
            found.append((cells, wanted))
        return found


def _cells(points: int, spacing: float, width: float) -> int:
    """How many coarse cells of `width` an axis has; 0 where that is no whole number.

    A grid of some points to the cell is counted in whole numbers alone: so it exports with sizes that are not known.
    """
    ratio = width / spacing
    if abs(ratio - round(ratio)) <= WHOLE:
        return 0 if points % round(ratio) else points // round(ratio)
    cells = points / ratio
    return round(cells) if abs(cells - round(cells)) <= 1e-3 else 0
