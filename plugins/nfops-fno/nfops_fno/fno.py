"""Operator `fno`: the Fourier neural operator (Li et al. 2021) in physical space.

Features at every point are lifted from the scan and the position; each layer adds a convolution by low waves to a
linear map of the point's own features; a small network at every point reads the result off. Waves and positions belong
to the field of view of the training, in millimetres, and sums over points are integrals: one operator at all spacings.
"""

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional

from nfops.annotations import about
from nfops.continuous_convolution import Spacing, computed_length
from nfops.field_operator import FieldOperator, FieldSettings
from nfops.field_pairs import Window, WorkingGrid
from nfops_fno.spectral import Axis, SpectralConvolution, waves_at

POINTWISE = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
MODES = (32, 12, 6)
"""By dimensions: about a million weights in 2-D."""
WHOLE = 1e-3
"""How much a spacing may differ, relatively, and still count as the same."""


@dataclass(frozen=True)
class Config(FieldSettings):
    """Beside the settings of every operator on fields."""

    width: int = field(default=24, metadata=about("Features at a point.", low=1))
    layers: int = field(default=4, metadata=about("Spectral convolutions, one after the other.", low=1))
    modes: int | None = field(
        default=None,
        metadata=about(
            "Waves along each axis, the constant included, of those that the working grid can show; null: 32 in 1-D, "
            "12 in 2-D, 6 in 3-D.",
            low=1,
        ),
    )
    margin: float = field(
        default=0.25,
        metadata=about("Empty part of a wave's period beside the field of view, relative to that.", low=0),
    )


class Layer(nn.Module):
    """(B, width, *grid) -> the same: low waves mixed, plus a linear map of each point."""

    def __init__(self, width: int, modes: tuple[int, ...]) -> None:
        super().__init__()
        self.spectral = SpectralConvolution(width, width, modes)
        self.pointwise = POINTWISE[len(modes) - 1](width, width, 1)

    def forward(self, values: Tensor, axes: list[Axis]) -> Tensor:
        """As for `SpectralConvolution`."""
        result: Tensor = self.pointwise(values) + self.spectral(values, axes)
        return result


class Operator(FieldOperator):
    """source field -> target field, on any grid that is fine enough for its waves."""

    is_resolution_free = True
    graph_takes_spacing = True
    config: Config

    def __init__(self, config: Config, source_channels: int, target_channels: int, window: Window) -> None:
        super().__init__(config, window)
        dims, width = len(window.extent), config.width
        self.periods = tuple((1 + config.margin) * extent for extent in window.extent)
        most = config.modes or MODES[dims - 1]
        shown = [math.ceil(period / (2 * step) - WHOLE) for period, step in zip(self.periods, self.finest, strict=True)]
        self.modes = tuple(max(1, min(most, n)) for n in shown)
        pointwise = POINTWISE[dims - 1]
        self.lift = pointwise(source_channels + dims, width, 1)
        self.layers = nn.ModuleList(Layer(width, self.modes) for _ in range(config.layers))
        self.project = pointwise(width, 2 * width, 1)
        self.last = pointwise(2 * width, target_channels, 1)

    @property
    def working_grid(self) -> WorkingGrid:
        """Any number of points."""
        return WorkingGrid(self.finest, 1)

    @property
    def values_per_point(self) -> int:
        """About how many numbers are in memory at once for each point of the grid."""
        return self.passes * 6 * self.config.width

    def translate(self, values: Tensor, coords: Tensor, spacing: Spacing) -> Tensor:
        """See `FieldOperator.forward`. Raises ValueError for a grid that is too coarse for the waves.

        Integrals are over the field of view of the training, whatever the grid covers: points beyond it do not count,
        and where the grid ends before it nothing is known, as where a scan of the training did.
        """
        self._check(spacing)
        shape, each = values.shape[2:], range(len(spacing))
        room = [_beyond((e / s - n) / 2 - WHOLE) for e, s, n in zip(self.extent, spacing, shape, strict=True)]
        values = functional.pad(values, [cells for cells in reversed(room) for _ in range(2)])
        places = [_widened(_along(coords, axis), spacing[axis], room[axis]) for axis in each]
        axes = [self._axis(axis, places[axis], spacing[axis]) for axis in each]
        values = self.lift(torch.cat([values, self._position(places)], dim=1))
        for number, layer in enumerate(self.layers):
            values = layer(functional.gelu(values) if number else values, axes)
        for axis in each:
            values = values.narrow(2 + axis, room[axis], shape[axis])
        result: Tensor = self.last(functional.gelu(self.project(values)))
        return result

    def _check(self, spacing: Spacing) -> None:
        shortest = [period / max(1, k - 1) for period, k in zip(self.periods, self.modes, strict=True)]
        known = [pair for pair in zip(spacing, shortest, strict=True) if not isinstance(pair[0], Tensor)]
        if any(2 * step > wave * (1 + WHOLE) for step, wave in known):
            raise ValueError(f"a grid of spacing {spacing} is too coarse for waves of length {tuple(shortest)}")

    def _axis(self, axis: int, places: Tensor, step: float | Tensor) -> Axis:
        """places: (B, n). A cell counts as far as it is in the field of view."""
        inside = ((self.extent[axis] / 2 - places.abs()) / step + 0.5).clamp(0, 1)
        return Axis(waves_at(places, self.periods[axis], self.modes[axis]), step * inside)

    def _position(self, places: list[Tensor]) -> Tensor:
        """(B, n) along each axis -> (B, d, *grid): -1 to 1 across the field of view."""
        shape = tuple(place.shape[1] for place in places)
        channels = []
        for axis, (place, extent) in enumerate(zip(places, self.extent, strict=True)):
            scaled = 2 / extent * place
            channels.append(scaled.reshape(-1, *(n if a == axis else 1 for a, n in enumerate(shape))))
        return torch.stack([channel.expand(-1, *shape) for channel in channels], dim=1)


def _along(coords: Tensor, axis: int) -> Tensor:
    """(B, *grid, d) -> positions (B, n) along one axis of the grid."""
    first = [slice(None) if a == axis else 0 for a in range(coords.ndim - 2)]
    return coords[(slice(None), *first, axis)]


def _beyond(cells: float | Tensor) -> int:
    """Rounded up, none if there are less."""
    if isinstance(cells, Tensor):
        return computed_length(torch.ceil(cells).clamp_min(0), low=0)
    return max(0, math.ceil(cells))


def _widened(places: Tensor, step: float | Tensor, cells: int) -> Tensor:
    """(B, n) -> (B, cells + n + cells), equally spaced."""
    return places[:, :1] + step * torch.arange(-cells, places.shape[1] + cells).to(places)
