"""What operators on fields that learn by gradient descent share: settings, mirrored scans, `fit`.

`nfops/operators/oinr.py` and the plugins `nfops-unet` and `nfops-fno` are such operators: what they say themselves is
their network.
"""

from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn

from nfops.annotations import about
from nfops.errors import RecipeError
from nfops.field_descent import DescentSettings, descend
from nfops.field_pairs import FieldPairs, Window
from nfops.progress import OnStep, silent


@dataclass(frozen=True)
class FieldSettings(DescentSettings):
    """Of an operator's Config, which adds those of its network."""

    spacing_mm: float | None = field(
        default=None,
        metadata=about("Of the working grid, in millimetres; without it, that of geometry.grid.", above=0),
    )
    mirror: tuple[int, ...] = field(
        default=(),
        metadata=about(
            "Axes (0 is the first) along which the prediction from the mirrored scan is averaged in.", low=0
        ),
    )
    condition: Literal["none", "latent"] = field(
        default="none",
        metadata=about("What it sees beside the scan; latent: what ridge between the latents of both fields predicts."),
    )


class FieldOperator(nn.Module):
    """Base of an `Operator` on fields; a subclass defines `translate` and `working_grid`, of spacing `finest`.

    finest: (d,), units as for `Window`.
    """

    acts_on = "field"
    form = "field"
    needs_validation = True

    def __init__(self, config: FieldSettings, window: Window) -> None:
        super().__init__()
        self.config = config
        self.figures: dict[str, float] = {}
        if beyond := [axis for axis in config.mirror if axis >= len(window.extent)]:
            what = (
                f"operator.mirror: expected axes below {len(window.extent)}, the recipe's dimensions, got {beyond[0]}"
            )
            raise RecipeError("recipe", what)
        self.extent = window.extent
        self.finest = window.spacing if config.spacing_mm is None else (config.spacing_mm,) * len(window.spacing)

    def translate(self, values: Tensor, coords: Tensor, spacing: tuple[float, ...]) -> Tensor:
        """The network: as for `forward`, without mirrors."""
        raise NotImplementedError

    def forward(self, values: Tensor, coords: Tensor, spacing: Tensor) -> Tensor:
        """Values (B, C, *grid), coords (B, *grid, d) from the centre, spacing (d,) -> raw output (B, C', *grid).

        Raises ValueError for a grid that the network cannot work on.
        """
        steps = tuple(float(step) for step in spacing)
        result = self.translate(values, coords, steps)
        if self.training or not self.config.mirror:
            return result
        axes = [2 + axis for axis in self.config.mirror]
        mirrored = [self.translate(values.flip(axis), coords, steps).flip(axis) for axis in axes]
        return torch.stack([result, *mirrored]).mean(dim=0)

    def fit(self, pairs: FieldPairs, on_step: OnStep = silent) -> None:
        """Learn from pairs on one working grid; the averaged weights that are best on the validation scans win."""
        self.figures = descend(_AtPlace(self, pairs), pairs, self.config, on_step)


def channels_last(values: Tensor) -> Tensor:
    """(B, C, *grid), laid out so that convolutions of images and volumes are a third quicker on a CPU."""
    layout = {4: torch.channels_last, 5: torch.channels_last_3d}.get(values.ndim, torch.contiguous_format)
    return values.contiguous(memory_format=layout)


class _AtPlace(nn.Module):
    """An operator at the coordinates of its training grid."""

    def __init__(self, operator: FieldOperator, pairs: FieldPairs) -> None:
        super().__init__()
        self.operator = operator
        self.coords, self.spacing = pairs.coords, pairs.spacing

    def forward(self, values: Tensor) -> Tensor:
        """(B, C, *grid) -> raw (B, C', *grid)."""
        raw: Tensor = self.operator(values, self.coords.expand(len(values), *self.coords.shape), self.spacing)
        return raw
