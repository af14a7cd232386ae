"""A cohort: the rows of a recipe's table, and its images as pairs on the recipe's anatomical axes."""

import csv
import hashlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nfops.errors import InputError, NotFoundError, NothingMatchedError
from nfops.grid import Grid
from nfops.image import Image
from nfops.io import Reading, load_image
from nfops.io.digest import sha256_of
from nfops.io.picture_frame import PictureFrame
from nfops.recipe import Recipe
from nfops.recipe_data import Columns
from nfops.row_signals import RowSignal, find_columns, read_signal

MAX_LISTED = 5


@dataclass(frozen=True)
class Row:
    """One row of the table: two images of one patient, files or signals of the table itself.

    Where the recipe has no target, it is the source again.
    """

    scan_id: str
    patient: str
    split: str
    source: Path | RowSignal
    target: Path | RowSignal

    def files(self) -> list[Path]:
        """Those of the images that are files, each once."""
        return [place for place in dict.fromkeys((self.source, self.target)) if isinstance(place, Path)]


@dataclass(frozen=True, eq=False)
class Pair:
    """A source and its target, on the recipe's axes. scan_id: the row's id, with "#k" for slice k of a volume.

    Where the recipe has no target, it is the source again: `Recipe.sides` says which sides there are.
    """

    scan_id: str
    patient: str
    split: str
    source: Image
    target: Image
    source_scan: Image
    target_scan: Image

    def image(self, side: str) -> Image:
        """The "source" or the "target"."""
        return self.source if side == "source" else self.target

    def scan(self, side: str) -> Image:
        """The whole scan that `image` is, or is a slice of: intensities are mapped scan by scan."""
        return self.source_scan if side == "source" else self.target_scan


@dataclass(frozen=True)
class Cohort:
    """rows: those that the recipe's `where` keeps, in the table's order. table_digest: sha256 of the table."""

    rows: tuple[Row, ...]
    table_digest: str

    def with_splits(self, splits: tuple[str, ...]) -> "Cohort":
        """Only the rows of these splits."""
        return Cohort(tuple(row for row in self.rows if row.split in splits), self.table_digest)

    def files_digest(self) -> str:
        """One sha256 over the contents of all image files, in order."""
        digest = hashlib.sha256()
        for row in self.rows:
            for path in row.files():
                digest.update(bytes.fromhex(sha256_of(path)))
        return digest.hexdigest()


def read_cohort(recipe: Recipe, data: Path) -> Cohort:
    """The table of a recipe under the data folder. Raises for a missing table, column, image or an empty result."""
    root = data / recipe.data.root
    path = root / recipe.data.table
    if not path.is_file():
        raise NotFoundError(path, "no such table", "say where the data is with --data DIR or NFOPS_DATA")
    content = path.read_bytes()
    try:
        reader = csv.DictReader(content.decode("utf-8-sig").splitlines())
        table = list(reader)
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(path, f"not a CSV table: {error}") from error
    places = _Places.of(recipe, root, path, tuple(reader.fieldnames or ()))
    numbered = enumerate(table, start=2)
    rows = [_row(recipe, places, line, cells) for line, cells in numbered if _kept(recipe, path, cells)]
    if not rows:
        raise NothingMatchedError(path, f"none of {len(table)} rows match `data.where`")
    _check_unique(path, rows)
    files = [file for row in rows for file in row.files()]
    missing = [file for file in files if not (file.is_file() or file.is_dir())]
    if missing:
        listed = ", ".join(str(p) for p in missing[:MAX_LISTED])
        raise InputError(path, f"{len(missing)} of {len(files)} images are missing: {listed}")
    return Cohort(tuple(rows), hashlib.sha256(content).hexdigest())


def load_pairs(recipe: Recipe, cohort: Cohort, on_row: Callable[[int], None]) -> Iterator[Pair]:
    """Every pair of the cohort, row by row; volumes of a 2-D recipe give one pair a slice."""
    readings = reading_of(recipe, "source"), reading_of(recipe, "target")
    channels: tuple[int, int] | None = None
    for number, row in enumerate(cohort.rows):
        axes = recipe.geometry.anatomical_axes
        source = load_place(row.source, readings[0]).reoriented(axes)
        target = source if recipe.target is None else load_place(row.target, readings[1]).reoriented(axes)
        _check_same_place(row, source.grid, target.grid)
        channels = channels or (source.channels, target.channels)
        _check_channels(row, (source.channels, target.channels), channels)
        if recipe.geometry.dims != 2:
            yield Pair(row.scan_id, row.patient, row.split, source, target, source, target)
        else:
            yield from _slices(recipe, row, source, target)
        on_row(number + 1)


def load_place(place: Path | RowSignal, reading: Reading) -> Image:
    """The image of a row: read from its file, or from the table that was read already."""
    return place.image() if isinstance(place, RowSignal) else load_image(place, reading)


def reading_of(recipe: Recipe, side: str) -> Reading:
    """What the recipe says about files of a side, "source" or "target", that leave something open."""
    dicom = recipe.data.dicom
    modality = dicom.modality if side == "source" else ()
    return Reading(_picture_frame(recipe), modality=modality, monochrome1=dicom.monochrome1, padding=dicom.padding)


def _picture_frame(recipe: Recipe) -> PictureFrame | None:
    picture = recipe.data.picture
    if picture is None:
        return None
    both = picture.pixel_mm if isinstance(picture.pixel_mm, tuple) else (picture.pixel_mm, picture.pixel_mm)
    return PictureFrame(picture.axes, both)


def _slices(recipe: Recipe, row: Row, source: Image, target: Image) -> Iterator[Pair]:
    depth = source.grid.shape[2]
    if target.grid.shape[2] != depth:
        raise InputError(_name(row.target), f"{target.grid.shape[2]} slices, but its source has {depth}")
    wanted = recipe.data.central_slices or depth
    first = max(0, (depth - wanted) // 2)
    for k in range(first, min(depth, first + wanted)):
        name = row.scan_id if depth == 1 else f"{row.scan_id}#{k}"
        cut = _one_slice(source, k), _one_slice(target, k)
        yield Pair(name, row.patient, row.split, *cut, source, target)


def _one_slice(image: Image, k: int) -> Image:
    return image.with_values(image.values[..., k : k + 1], image.grid.slab(k, k + 1))


def _check_channels(row: Row, got: tuple[int, int], first: tuple[int, int]) -> None:
    for place, here, there in zip((row.source, row.target), got, first, strict=True):
        if here != there:
            raise InputError(
                _name(place), f"has {here} channels, the first one of the cohort has {there}", "are some in colour?"
            )


def _check_same_place(row: Row, source: Grid, target: Grid) -> None:
    """Source and target may differ in spacing, not in the part of the body that they show."""
    furthest = np.abs(source.corners_mm - target.corners_mm).max()
    if furthest > max(source.spacing_mm.max(), target.spacing_mm.max()):
        raise InputError(
            _name(row.target),
            f"lies elsewhere than its source {_name(row.source, short=True)}: corners are up to {furthest:.1f} mm "
            f"apart (shapes {source.shape} and {target.shape})",
        )


def _kept(recipe: Recipe, path: Path, cells: dict[str, str]) -> bool:
    for column in recipe.data.where:
        if column not in cells:
            raise InputError(path, f"no column {column!r} (`data.where`)", f"it has {', '.join(filter(None, cells))}")
    return all(cells[column] == str(value) for column, value in recipe.data.where.items())


@dataclass(frozen=True)
class _Places:
    """Where the images of a table's rows are. columns: of each side whose signals stand in the table, by channel."""

    root: Path
    table: Path
    columns: dict[str, list[list[str]]]

    @classmethod
    def of(cls, recipe: Recipe, root: Path, table: Path, names: tuple[str, ...]) -> "_Places":
        """Raises InputError where the table lacks columns; those with another part to play hold no samples."""
        data = recipe.data
        names = tuple(name for name in names if name not in {data.id, data.patient, data.split, *data.where})
        places = {side: recipe.data.place(side) for side in recipe.sides}
        wanted = {side: place.patterns for side, place in places.items() if isinstance(place, Columns)}
        return cls(root, table, {side: find_columns(table, names, patterns) for side, patterns in wanted.items()})


def _row(recipe: Recipe, places: _Places, line: int, cells: dict[str, str]) -> Row:
    where = f"{places.table}:{line}"

    def cell(column: str) -> str:
        if cells.get(column) is None:
            raise InputError(where, f"no column {column!r}", f"it has {', '.join(filter(None, cells))}")
        return cells[column]

    def place(side: str) -> Path | RowSignal:
        wanted = recipe.data.place(side)
        if isinstance(wanted, Columns):
            return read_signal(where, cells, places.columns[side], wanted.step)
        return places.root / re.sub(r"\{(\w+)\}", lambda match: cell(match[1]), wanted)

    scan_id = cell(recipe.data.id)
    patient = scan_id if recipe.data.patient is None else cell(recipe.data.patient)
    found = [place(side) for side in recipe.sides]
    return Row(scan_id, patient, cell(recipe.data.split), found[0], found[-1])


def _name(place: Path | RowSignal, *, short: bool = False) -> str:
    """How errors call an image."""
    return place.name if short or isinstance(place, RowSignal) else str(place)


def _check_unique(path: Path, rows: list[Row]) -> None:
    seen: dict[str, str] = {}
    split_of: dict[str, str] = {}
    for row in rows:
        if row.scan_id in seen:
            raise InputError(path, f"id {row.scan_id!r} stands in two rows")
        seen[row.scan_id] = row.split
        if split_of.setdefault(row.patient, row.split) != row.split:
            raise InputError(path, f"patient {row.patient!r} is in two splits, {split_of[row.patient]} and {row.split}")
