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
from nfops.continuous_convolution import (
    WHOLE,
    ContinuousConvolution,
    Hats,
    Spacing,
    assume,
    computed_length,
    prolong,
    restrict,
)
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

    def __init__(self, features: int, dims: int) -> None:
        super().__init__()
        groups = max(
            n for n in range(1, MOST_GROUPS + 1) if n == 1 or (features % n == 0 and features >= n * SMALLEST_GROUP)
        )
        self.norms = nn.ModuleList(nn.GroupNorm(groups, features) for _ in range(2))
        self.convolutions = nn.ModuleList(ContinuousConvolution(features, features, dims) for _ in range(2))

    def forward(self, values: Tensor, hats: Hats) -> Tensor:
        """hats: of the grid."""
        changed = values
        for norm, convolution in zip(self.norms, self.convolutions, strict=True):
            changed = convolution(functional.silu(norm(changed)), hats)
        return values + changed


class Stage(nn.ModuleList):
    """Blocks of one level, one after the other."""

    def forward(self, values: Tensor, hats: Hats) -> Tensor:
        """As for `Block`."""
        for block in self:
            values = block(values, hats)
        return values


class Operator(FieldOperator):
    """source field -> target field, on any grid whose cells make up the coarser lattices."""

    graph_takes_spacing = True
    config: Config

    def __init__(self, config: Config, source_channels: int, target_channels: int, window: Window) -> None:
        super().__init__(config, window)
        dims = len(window.extent)
        inputs = source_channels + 2 * config.frequencies * dims
        blocks = list(zip(config.widths, config.blocks, strict=True))
        pairs = list(zip(config.widths, config.widths[1:], strict=False))
        pointwise = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[dims - 1]
        self.lift = ContinuousConvolution(inputs, config.widths[0], dims)
        self.down = nn.ModuleList(Stage(Block(w, dims) for _ in range(n)) for w, n in blocks)
        self.up = nn.ModuleList(Stage(Block(w, dims) for _ in range(max(1, n))) for w, n in blocks[:-1])
        self.widen = nn.ModuleList(pointwise(fine, coarse, 1) for fine, coarse in pairs)
        self.narrow = nn.ModuleList(pointwise(coarse, fine, 1) for fine, coarse in pairs)
        self.last = ContinuousConvolution(config.widths[0], target_channels, dims)
        nn.init.zeros_(self.last.weight)

    @property
    def working_grid(self) -> WorkingGrid:
        """As fine as its narrowest kernel, made up of cells of the coarsest lattice."""
        return WorkingGrid(self.finest, 2 ** (len(self.config.widths) - 1))

    @property
    def values_per_point(self) -> int:
        """About how many numbers are in memory at once for each point of the grid."""
        return self.passes * (8 * self.config.widths[0] + 2 * self.lift.weight.shape[1])

    def encoded(self, coords: Tensor) -> Tensor:
        """(B, *grid, d) -> (B, 2 d frequencies, *grid), fixed by the training's field of view, never by a grid."""
        extent = torch.tensor(self.extent).to(coords)
        phase = torch.pi * (coords / extent).movedim(-1, 1)
        waves = [wave(k * phase) for k in range(1, self.config.frequencies + 1) for wave in (torch.sin, torch.cos)]
        return torch.cat(waves, dim=1) if waves else phase[:, :0]

    def translate(self, values: Tensor, coords: Tensor, spacing: Spacing) -> Tensor:
        """See `FieldOperator.translate`.

        Raises ValueError for a grid that is coarser than the narrowest kernel, or no whole number of coarse cells.
        """
        lattices, kept = self._lattices(values.shape[2:], spacing), []
        values = self.lift(channels_last(torch.cat([values, self.encoded(coords)], dim=1)), lattices[0].hats)
        for level, blocks in enumerate(self.down):
            values = blocks(values, lattices[level].hats)
            if level < len(self.widen):
                kept.append(values)
                coarser = lattices[level + 1]
                values = self.widen[level](restrict(values, coarser.shape, coarser.factors))
        for level in reversed(range(len(self.up))):
            values = kept[level] + prolong(self.narrow[level](values), lattices[level].shape)
            values = self.up[level](values, lattices[level].hats)
        result: Tensor = self.last(functional.silu(values), lattices[0].hats)
        return result

    def _lattices(self, shape: tuple[int, ...], spacing: Spacing) -> list["_Lattice"]:
        """The grid itself, then lattices that are the same whatever the grid."""
        levels, dims = len(self.down), len(shape)
        found = [_Lattice(tuple(shape), (1,) * dims, Hats(self.finest, spacing))]
        if levels == 1:
            return found
        most = 2 ** (levels - 2)  # cells of the first of these lattices along one of the last
        cells = [_cells(n, 2 * w / s, most) for n, w, s in zip(shape, self.finest, spacing, strict=True)]
        counts, factors = zip(*cells, strict=True)
        ones = (1.0,) * dims
        for level in range(1, levels):
            sizes = tuple(count * 2 ** (levels - 1 - level) for count in counts)
            found.append(_Lattice(sizes, factors if level == 1 else (2,) * dims, Hats(ones, ones)))
        return found


@dataclass(frozen=True)
class _Lattice:
    """factors: how many points of the next finer lattice make up one of its cells, along each axis. hats: as wide as
    its own cells, but for the grid's, which are as wide as the finest of the operator.
    """

    shape: tuple[int, ...]
    factors: tuple[int, ...]
    hats: Hats


def _cells(points: int, ratio: float | Tensor, most: int) -> tuple[int, int]:
    """Along an axis, how many cells of the coarsest lattice there are, and how many points make up one of the finest,
    of which the coarsest has `most`. ratio: the latter before it is rounded.

    Whole numbers are counted as such, so that it exports with sizes that are not known.
    """
    if isinstance(ratio, Tensor):
        # of a broken ratio one is too large, the other too small: the graph then fails, as this function does
        count = computed_length(torch.floor(points / (torch.ceil(ratio - WHOLE) * most)))
        factor = computed_length(torch.floor(ratio + WHOLE))
        assume(count * most * factor == points)
        return count, factor
    factor = round(ratio)
    if abs(ratio - factor) > WHOLE or points % (factor * most):
        wanted = f"{most} of the finest, which are {ratio:g} points wide"
        raise ValueError(f"an axis of {points} points is no whole number of cells of {wanted}")
    return points // (factor * most), factor
