"""`geometry` of a recipe: dimensions, directions in the body and the working grid."""

import re
from dataclasses import dataclass
from dataclasses import field as setting
from typing import Any, Literal, TypeAlias

from nfops.annotations import about
from nfops.grid import WORLD_DIRECTIONS

Direction: TypeAlias = Literal["R", "L", "A", "P", "S", "I"]

IN_PLANE = {"S": ("L", "P"), "I": ("L", "P"), "A": ("L", "I"), "P": ("L", "I"), "R": ("P", "I"), "L": ("P", "I")}
"""Slice axis -> the directions that rows and columns point to, where a recipe does not say."""

LONGEST_AXIS = 16384
"""Points along an axis; no image has as many, a recording of a minute has."""


def body_axes(directions: tuple[str, ...]) -> list[int]:
    """Which body axis (0 left-right, 1 front-back, 2 up-down) each direction lies along."""
    return [WORLD_DIRECTIONS[letter][0] for letter in directions]


def require_different_axes(what: str, directions: tuple[str, ...]) -> None:
    """Raise ValueError if two directions lie along one body axis, as L and R do."""
    if len(set(body_axes(directions))) < len(directions):
        raise ValueError(f"{what} expected {len(directions)} different body axes, got {', '.join(directions)}")


def split_at_x(text: str) -> Any:
    """`256x256` -> [256, 256], `1.2x0.8` -> [1.2, 0.8]; other text as it is."""
    if not re.fullmatch(r"\d+(\.\d+)?(x\d+(\.\d+)?)+", text):
        return text
    return [float(part) if "." in part else int(part) for part in text.split("x")]


@dataclass(frozen=True, kw_only=True)
class WorkingGrid:
    """`geometry.grid`: the training and default working grid."""

    shape: tuple[int, ...] = setting(
        metadata=about(
            "Points along each axis: [256, 256] or 256x256; [187] for signals.",
            low=2,
            high=LONGEST_AXIS,
            parse=split_at_x,
            expected=f"a list of 1 to 3 integers from 2 to {LONGEST_AXIS}",
        )
    )


@dataclass(frozen=True, kw_only=True)
class Geometry:
    """`geometry`: dimensions, directions and the working grid."""

    dims: Literal[1, 2, 3] = setting(
        metadata=about(
            "1: signals, whose own unit (a sample, a second) stands wherever a text says millimetres; 2: slice by "
            "slice; 3: volumes.",
            expected="1, 2 or 3",
        )
    )
    slice_axis: Direction = setting(
        default="S", metadata=about("2-D: the body axis along which a volume is read slice by slice.")
    )
    axes: tuple[Direction, Direction] | tuple[Direction, Direction, Direction] | None = setting(
        default=None,
        metadata=about(
            "Where the axes of the grid point in the body, one direction for each of dims. Without it: "
            "data.picture.axes, else [L, P] for slices along S, [L, I] along A, [P, I] along R; 3-D: [R, A, S]. A "
            "signal has none: it runs along its own axis.",
            expected="a list of 2 to 3 directions out of R, L, A, P, S, I",
        ),
    )
    frame: Literal["physical", "unit"] = setting(
        default="physical",
        metadata=about("physical: coordinates are millimetres; unit: the field of view is -1 to 1, whatever its size."),
    )
    grid: WorkingGrid = setting(metadata=about("The training and default working grid."))

    def __post_init__(self) -> None:
        if len(self.grid.shape) != self.dims:
            raise ValueError(f"grid.shape: {len(self.grid.shape)} sizes, dims is {self.dims}")
        if self.axes is not None and self.dims == 1:
            raise ValueError("axes: a signal runs along its own axis, not along one of the body's")
        if self.axes is not None and len(self.axes) != self.dims:
            raise ValueError(f"axes: {len(self.axes)} directions, dims is {self.dims}")
        require_different_axes("axes: with slice_axis," if self.dims == 2 else "axes:", self.anatomical_axes)

    @property
    def anatomical_axes(self) -> tuple[str, ...]:
        """Where the three axes of a scan point once it is on the recipe's axes; in 2-D the last counts slices.

        Empty for signals, whose axis is no direction of the body.
        """
        if self.dims == 1:
            return ()
        axes: tuple[str, ...] = self.axes or (IN_PLANE[self.slice_axis] if self.dims == 2 else ("R", "A", "S"))
        return axes[0], axes[1], self.slice_axis if self.dims == 2 else axes[2]
