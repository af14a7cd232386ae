"""What a field operator learns from: pairs of fields on one working grid, drawn when they are asked for."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True)
class Window:
    """Where a field operator learns: extent (d,) edge to edge, spacing (d,) of the recipe's grid.

    Both in millimetres or, in a frame "unit", in halves of a field of view.
    """

    extent: tuple[float, ...]
    spacing: tuple[float, ...]


@dataclass(frozen=True)
class WorkingGrid:
    """The grid that a field operator works on: spacing (d,), and what the number of points per axis is a multiple of.

    It shares its centre with the scan and covers it; units as for `Window`.
    """

    spacing: tuple[float, ...]
    multiple: int

    def shape(self, extent: Sequence[float]) -> tuple[int, ...]:
        """The fewest points that cover an extent (d,)."""
        cells = (-(-(e / s - 1e-3) // self.multiple) for e, s in zip(extent, self.spacing, strict=True))
        return tuple(self.multiple * max(1, int(n)) for n in cells)


@dataclass(frozen=True, eq=False)
class FieldBatch:
    """source (B, C, *grid), target (B, C', *grid) and weights (B, 1, *grid), the part of a cell that is known.

    The last channel of the source says which part of a cell the scan covers; the others are 0 where it does not.
    They are the scan's and, for an operator whose settings say `condition: latent`, those of the target that the chain
    of latents predicts.
    """

    source: Any
    target: Any
    weights: Any


class FieldPairs(Protocol):
    """Tensors, on the device that the operator learns on. coords: (*grid, d) from the centre. spacing: (d,)."""

    coords: Any
    spacing: Any

    def __len__(self) -> int:
        """Number of training scans."""

    def draw(self, rows: Sequence[int], epoch: int) -> FieldBatch:
        """Some training scans, augmented anew in each epoch; in epoch 0 as they are."""

    def loss(self, raw: Any, batch: FieldBatch) -> Any:
        """Error of raw output (B, C', *grid): mean squared, or cross-entropy + Dice loss. A scalar tensor."""

    def score(self, predict: Callable[[Any], Any]) -> float:
        """PSNR or Dice of `predict`, source (B, C, *grid) -> raw, on the validation scans; NaN without any."""
