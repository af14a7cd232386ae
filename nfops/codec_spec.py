"""`CodecSpec`: all about one side of an operator except its weights, as a bundle's manifest holds it."""

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from nfops.arrays import Array
from nfops.grid import WORLD_DIRECTIONS, Grid
from nfops.heads import HEADS, Head
from nfops.intensity import IntensitySettings
from nfops.sampling import Domain

SOLVERS = ("gauss-newton", "sgd")


@dataclass(frozen=True)
class EncodeSettings:
    """How a latent is found: the solver and its steps, the points that a step looks at, the strength of the prior
    beside the mean loss, and the learning rate of `sgd`.
    """

    steps: int = 4
    points: int = 4096
    prior: float = 1e-6
    solver: str = "gauss-newton"
    learning_rate: float = 1e-2

    def __post_init__(self) -> None:
        """Raises ValueError for a solver that there is not."""
        if self.solver not in SOLVERS:
            raise ValueError(f"solver {self.solver!r}, expected one of {', '.join(SOLVERS)}")


@dataclass(frozen=True)
class CodecSpec:
    """One side of an operator.

    axes: the recipe's three anatomical axes; in 2-D the last one counts slices, in 1-D there are none. radius_mm: what
    a coordinate of 1 is worth, None for frame "unit". half_extent: (d,) the half size of the field's domain in
    coordinates. spacing: (d,) its training spacing in coordinates. head, labels: what a value is. range_low/high: (C,)
    the units that a predicted 0 and 1 stand for. latent: P. channels: of the field. form: how engines evaluate it
    ("spline-basis", or "torch" for any other backbone).
    """

    backbone: str
    form: str
    dims: int
    axes: tuple[str, ...]
    radius_mm: float | None
    half_extent: tuple[float, ...]
    spacing: tuple[float, ...]
    head: str
    labels: tuple[int, ...]
    channels: int
    latent: int
    intensity: IntensitySettings
    range_low: tuple[float, ...]
    range_high: tuple[float, ...]
    encode: EncodeSettings
    nan: str = "error"
    constant: str = "error"

    def __post_init__(self) -> None:
        """Raises TypeError or ValueError for what no recipe leads to: a manifest may have been edited."""
        lengths = *self.half_extent, *self.spacing, *(() if self.radius_mm is None else (self.radius_mm,))
        count = 0 if self.dims == 1 else 3
        if not len(self.half_extent) == len(self.spacing) == self.dims <= 3 or len(self.axes) != count:
            raise ValueError(f"{self.dims} dimensions, half_extent {self.half_extent}, spacing {self.spacing}")
        if not all(0 < length < math.inf for length in lengths):
            raise ValueError(f"lengths must be above 0, got {lengths}")
        if not set(self.axes) <= set(WORLD_DIRECTIONS) or self.head not in HEADS:
            raise ValueError(f"axes {self.axes}, head {self.head!r}")
        if self.head == "softmax" and len(self.labels) != self.channels:
            raise ValueError(f"{len(self.labels)} labels for {self.channels} channels")
        if self.channels < 1 or self.latent < 0 or len(self.range_low) != len(self.range_high):
            raise ValueError(f"channels {self.channels}, latent {self.latent}, range {self.range_low}")

    @property
    def is_label(self) -> bool:
        """Whether the field's values are probabilities of labels."""
        return not Head(self.head).is_linear

    @property
    def image_channels(self) -> int:
        """Channels of the image behind the field: a label map has one."""
        return 1 if self.is_label else self.channels

    @property
    def domain(self) -> Domain:
        """Where the field lives, and on how many nodes it was trained."""
        nodes = (round(2 * half / step) for half, step in zip(self.half_extent, self.spacing, strict=True))
        return Domain(self.half_extent, tuple(nodes))

    def spacing_in_mm(self, grid: Grid) -> Array:
        """(d,) the training spacing in mm, for a scan whose aligned grid is given ("unit" frames follow the scan)."""
        half = grid.extent_mm[: self.dims] / 2 if self.radius_mm is None else np.full(self.dims, self.radius_mm)
        return np.asarray(np.array(self.spacing) * half)

    def to_plain(self) -> dict[str, Any]:
        """As JSON-able data."""
        return asdict(self)

    @classmethod
    def from_plain(cls, plain: dict[str, Any]) -> "CodecSpec":
        """From a manifest's data. Raises TypeError or ValueError for anything else."""
        listed = ("axes", "half_extent", "spacing", "labels", "range_low", "range_high")
        rest: dict[str, Any] = {key: tuple(value) if key in listed else value for key, value in plain.items()}
        rest["intensity"] = IntensitySettings(**plain["intensity"])
        rest["encode"] = EncodeSettings(**plain["encode"])
        return cls(**rest)
