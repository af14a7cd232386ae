"""The `data` section of a recipe: which files or columns are learned from, and which rows of a table name them."""

import re
import string
from dataclasses import dataclass
from dataclasses import field as setting
from typing import Literal

from nfops.annotations import about
from nfops.recipe_geometry import Direction, require_different_axes, split_at_x


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
class Dicom:
    """`data.dicom`: what DICOM files leave open."""

    modality: tuple[str, ...] = setting(
        default=(), metadata=about("Modalities of the source, such as [MR]: a scan of any other is refused.")
    )
    monochrome1: Literal["auto", "invert", "keep", "error"] = setting(
        default="auto",
        metadata=about(
            "Where small values are bright: invert, keep the values, or refuse; auto inverts radiographs and refuses "
            "CT, MR and PET."
        ),
    )
    padding: Literal["keep", "min", "nan"] = setting(
        default="keep",
        metadata=about("Pixels that the scanner marks as padding: keep, set to the smallest other value, or to NaN."),
    )


@dataclass(frozen=True, kw_only=True)
class Columns:
    """`data.source` or `data.target` where the signals are rows of the table itself, a sample in each column."""

    columns: str | tuple[str, ...] = setting(
        metadata=about(
            'Columns of the table that hold the samples: all that match "s*" (but those that data names), in natural '
            'order, or "s000..s139", from one to another; a list of such texts for as many channels.'
        )
    )
    step: float = setting(default=1.0, metadata=about("Distance between samples, in the signal's own unit.", above=0))

    def __post_init__(self) -> None:
        if not self.columns or "" in self.patterns:
            raise ValueError("columns: expected names of columns")

    @property
    def patterns(self) -> tuple[str, ...]:
        """One for each channel."""
        return (self.columns,) if isinstance(self.columns, str) else self.columns


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
    source: str | Columns = setting(
        metadata=about(
            "File of the source image in root; {column} stands for a value of the table. Or, where signals are rows of "
            "the table, a section that says which columns."
        )
    )
    target: str | Columns | None = setting(default=None, metadata=about("The target image, in the same way."))
    where: dict[str, str | int | float] = setting(
        default_factory=dict, metadata=about("Use only the rows whose columns have these values.")
    )
    central_slices: int | None = setting(
        default=None, metadata=about("2-D: only so many slices, in the middle of a volume.", low=1)
    )
    picture: Picture | None = setting(
        default=None, metadata=about("For pictures without a position (PNG, TIFF, radiographs).")
    )
    map: Literal["none", "t"] = setting(
        default="none",
        metadata=about("4-D scans in apply: t translates one volume after the other, none refuses them."),
    )
    dicom: Dicom = setting(default_factory=Dicom, metadata=about("What DICOM files leave open."))

    def __post_init__(self) -> None:
        if not self.train:
            raise ValueError("train: no value of the column, so nothing could be learned")
        for key in ("source", "target"):
            place = getattr(self, key)
            if isinstance(place, str):
                _check_template(key, place)

    def place(self, side: str) -> str | Columns:
        """Where the images of a side are; those of a recipe without a target are its source."""
        return self.target if side == "target" and self.target is not None else self.source


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
