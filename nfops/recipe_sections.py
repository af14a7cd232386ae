"""The sections of a recipe: every key with its type, its range, its default and a sentence for nfops-recipe(5)."""

import re
import string
from dataclasses import dataclass
from dataclasses import field as setting
from typing import Any, Literal, TypeAlias

from nfops.annotations import about
from nfops.grid import WORLD_DIRECTIONS
from nfops.intensity import IntensitySettings
from nfops.schema import Section

Direction: TypeAlias = Literal["R", "L", "A", "P", "S", "I"]
Metric: TypeAlias = Literal["psnr", "ssim", "nrmse", "dice", "iou"]

IN_PLANE = {"S": ("L", "P"), "I": ("L", "P"), "A": ("L", "I"), "P": ("L", "I"), "R": ("P", "I"), "L": ("P", "I")}
"""Slice axis -> the directions that rows and columns point to, where a recipe does not say."""


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
class Picture:
    """`data.picture`: what the pixels of a PNG mean in the body."""

    axes: tuple[Direction, Direction] = setting(
        default=("L", "P"), metadata=about("Where a picture points in the body: to its right, then down.")
    )
    pixel_mm: float | tuple[float, float] = setting(
        default=1.0,
        metadata=about(
            "Size of a pixel in millimetres, one number or one for each of axes.", above=0, parse=split_at_x
        ),
    )

    def __post_init__(self) -> None:
        require_different_axes("axes:", self.axes)


@dataclass(frozen=True, kw_only=True)
class Data:
    """`data`: which files, which of them to learn from."""

    root: str = setting(
        default=".", metadata=about("Folder of the data, relative to --data, $NFOPS_DATA or the working directory.")
    )
    table: str = setting(default="split.csv", metadata=about("CSV file in root with one row for each scan."))
    id: str = setting(default="id", metadata=about("Column that names a scan."))
    patient: str | None = setting(
        default=None, metadata=about("Column that names the patient; without it, every row is its own patient.")
    )
    split: str = setting(default="split", metadata=about("Column that says what a row is for."))
    train: tuple[str, ...] = setting(default=("train",), metadata=about("Values of that column to learn from."))
    validation: tuple[str, ...] = setting(
        default=("val",), metadata=about("Values of that column to report on; rows of any other are never read.")
    )
    source: str = setting(metadata=about("File of the source image in root; {column} stands for a value of the table."))
    target: str = setting(metadata=about("File of the target image, in the same way."))
    where: dict[str, str | int | float] = setting(
        default_factory=dict, metadata=about("Use only the rows whose columns have these values.")
    )
    central_slices: int | None = setting(
        default=None, metadata=about("2-D: only so many slices, in the middle of a volume.", low=1)
    )
    picture: Picture | None = setting(default=None, metadata=about("For pictures without a position (PNG, TIFF)."))

    def __post_init__(self) -> None:
        if not self.train:
            raise ValueError("train: no value of the column, so nothing could be learned")
        for key in ("source", "target"):
            _check_template(key, getattr(self, key))


def _check_template(key: str, template: str) -> None:
    try:
        pieces = list(string.Formatter().parse(template))
    except ValueError as error:
        raise ValueError(f"{key}: {error}") from None
    columns = [(name, spec, conversion) for _, name, spec, conversion in pieces if name is not None]
    if not columns:
        raise ValueError(f'{key}: expected a column, as in "t1/{{id}}.nii.gz": all scans would share one file')
    for name, spec, conversion in columns:
        if spec or conversion or not re.fullmatch(r"\w[\w -]*", name):
            raise ValueError(f"{key}: no such feature: only a column's name may stand in braces")


@dataclass(frozen=True, kw_only=True)
class WorkingGrid:
    """`geometry.grid`: the training and default working grid."""

    shape: tuple[int, ...] = setting(
        metadata=about(
            "Points along each axis: [256, 256] or 256x256.",
            low=2,
            high=4096,
            parse=split_at_x,
            expected="a list of 2 to 3 integers from 2 to 4096",
        )
    )


@dataclass(frozen=True, kw_only=True)
class Geometry:
    """`geometry`: dimensions, directions and the working grid."""

    dims: Literal[2, 3] = setting(metadata=about("2: slice by slice; 3: volumes.", expected="2 or 3 (1-D comes later)"))
    slice_axis: Direction = setting(
        default="S", metadata=about("2-D: the body axis along which a volume is read slice by slice.")
    )
    axes: tuple[Direction, Direction] | tuple[Direction, Direction, Direction] | None = setting(
        default=None,
        metadata=about(
            "Where the axes of the grid point in the body, one direction for each of dims. Without it: "
            "data.picture.axes, else [L, P] for slices along S, [L, I] along A, [P, I] along R; 3-D: [R, A, S].",
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
        if self.axes is not None and len(self.axes) != self.dims:
            raise ValueError(f"axes: {len(self.axes)} directions, dims is {self.dims}")
        require_different_axes("axes: with slice_axis," if self.dims == 2 else "axes:", self.anatomical_axes)

    @property
    def anatomical_axes(self) -> tuple[str, str, str]:
        """Where the three axes of a scan point once it is on the recipe's axes; in 2-D the last counts slices."""
        axes: tuple[str, ...] = self.axes or (IN_PLANE[self.slice_axis] if self.dims == 2 else ("R", "A", "S"))
        return axes[0], axes[1], self.slice_axis if self.dims == 2 else axes[2]


@dataclass(frozen=True, kw_only=True)
class Intensity(IntensitySettings):
    """`source.intensity`, `target.intensity`: which two values become 0 and 1."""

    map: Literal["percentile", "range", "none"] = setting(
        default="percentile",
        metadata=about("What low and high are: percentiles of a scan, values in its own units, or not used."),
    )
    low: float = setting(default=0.1, metadata=about("What becomes 0."))
    high: float = setting(default=99.9, metadata=about("What becomes 1."))
    over: Literal["scan", "slice"] = setting(
        default="scan", metadata=about("Percentiles of the whole scan, or of each slice of a 2-D recipe.")
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.map == "range" and (self.low, self.high) == (0.1, 99.9):  # the defaults, which are percentiles
            raise ValueError("map: range needs low and high, in the scan's own units")


@dataclass(frozen=True, kw_only=True)
class Side:
    """What `source` and `target` have in common."""

    intensity: Intensity = setting(default_factory=Intensity, metadata=about("From a scan's units to 0..1."))
    head: Literal["identity", "sigmoid", "softmax"] = setting(
        default="identity",
        metadata=about("identity: intensities; sigmoid: labels one by one; softmax: one of several."),
    )
    labels: tuple[int, ...] | None = setting(
        default=None,
        metadata=about(
            "Values of the label image. softmax: a channel each; sigmoid: those inside (by default all above 0)."
        ),
    )
    field: Section = setting(
        metadata=about(
            "The neural field: its backbone and what that one takes, see nfops plugins.", selector="backbone"
        )
    )

    def __post_init__(self) -> None:
        if self.labels is None:
            return
        if self.head == "identity":
            raise ValueError("labels: only with head: sigmoid or softmax")
        if not self.labels or len(set(self.labels)) < len(self.labels):
            raise ValueError("labels: expected different integers, at least one")


@dataclass(frozen=True, kw_only=True)
class SourceSide(Side):
    """`source`: what the operator starts from."""

    nan: Literal["error", "zero", "keep"] = setting(
        default="error", metadata=about("Voxels that are no number: refuse the scan, read 0, or leave them out.")
    )
    constant: Literal["error", "pass"] = setting(
        default="error", metadata=about("A scan without contrast: refuse it, or let it through.")
    )


@dataclass(frozen=True, kw_only=True)
class TargetSide(Side):
    """`target`: what the operator makes."""

    output_range: Literal["training-median", "unit"] | tuple[float, float] = setting(
        default="training-median",
        metadata=about("Units of a predicted image: the median range of the training scans, 0..1, or [low, high]."),
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.output_range, str) and not self.output_range[0] < self.output_range[1]:
            raise ValueError(f"output_range: low {self.output_range[0]:g} must be below high {self.output_range[1]:g}")


@dataclass(frozen=True, kw_only=True)
class Encode:
    """`encode`: how a scan becomes a latent."""

    solver: Literal["gauss-newton"] = setting(default="gauss-newton", metadata=about("How the latent is found."))
    steps: int = setting(default=4, metadata=about("Steps of the solver.", low=1))
    points: int = setting(default=4096, metadata=about("Points of the scan that a step looks at.", low=1))
    prior: float = setting(default=1e-3, metadata=about("Weight of the distribution of training latents.", low=0))


@dataclass(frozen=True, kw_only=True)
class Affine:
    """`augment.affine`: the largest random turn, scale and shift."""

    rotate_deg: float = setting(default=0.0, metadata=about("Largest angle, in degrees.", low=0, high=180))
    scale: float = setting(default=0.0, metadata=about("Largest |logarithm| of the scale of an axis.", low=0, high=1))
    shift_mm: float = setting(default=0.0, metadata=about("Largest shift along an axis, in millimetres.", low=0))


@dataclass(frozen=True, kw_only=True)
class Augment:
    """`augment`: more training scans out of those there are."""

    affine: Affine = setting(default_factory=Affine, metadata=about("Random affine maps."))
    flip: tuple[Direction, ...] = setting(default=(), metadata=about("Body axes along which a scan may be mirrored."))
    gamma: float = setting(default=0.0, metadata=about("Largest |logarithm| of the source's exponent.", low=0))
    copies: int = setting(default=0, metadata=about("Augmented copies of every training scan.", low=0))

    def __post_init__(self) -> None:
        require_different_axes("flip:", self.flip)


@dataclass(frozen=True, kw_only=True)
class Evaluate:
    """`evaluate`: what is measured."""

    metrics: tuple[Metric, ...] = setting(
        default=("psnr", "ssim"), metadata=about("What nfops evaluate, which comes later, measures on each scan.")
    )
    resolutions: tuple[float, ...] = setting(
        default=(1.0,),
        metadata=about("Fractions of the full resolution that nfops evaluate encodes at.", above=0, high=1),
    )
