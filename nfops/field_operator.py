"""What operators on fields that learn by gradient descent share: settings, mirrored scans, `fit`.

`nfops/operators/oinr.py` and the plugins `nfops-unet` and `nfops-fno` are such operators: what they say themselves is
their network.
"""

from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from nfops.annotations import about
from nfops.continuous_convolution import Spacing
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
    graph_takes_spacing = False
    """Whether `translate` takes tensors () as spacing too, as they come in a graph that is made for any spacing."""

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

    @property
    def passes(self) -> int:
        """How many pass together for each image: its mirrors too. Volumes are too large for that, and pass in turn."""
        return 1 + len(self.config.mirror) if len(self.extent) < 3 else 1

    def translate(self, values: Tensor, coords: Tensor, spacing: Any) -> Tensor:
        """The network: as for `forward`, without mirrors. spacing: (d,) floats; see `graph_takes_spacing` too."""
        raise NotImplementedError

    def forward(self, values: Tensor, coords: Tensor, spacing: Tensor | Spacing) -> Tensor:
        """Values (B, C, *grid), coords (B, *grid, d) from the centre, spacing (d,) -> raw output (B, C', *grid).

        Raises ValueError for a grid that the network cannot work on.
        """
        steps = tuple(float(step) for step in spacing) if isinstance(spacing, Tensor) else spacing
        axes = [] if self.training else [2 + axis for axis in self.config.mirror]
        turned = [values, *(values.flip(axis) for axis in axes)]
        if values.ndim < 5:  # together they make a graph of half the nodes
            together = self.translate(torch.cat(turned), torch.cat([coords] * len(turned)), steps)
            made = together.reshape(len(turned), values.shape[0], *together.shape[1:]).unbind()
        else:
            made = tuple(self.translate(each, coords, steps) for each in turned)
        back = [made[0], *(each.flip(axis) for each, axis in zip(made[1:], axes, strict=True))]
        return torch.stack(back).mean(dim=0)

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
