"""`Frame`: one slice of one DICOM file, with everything that says where it belongs."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from nfops.arrays import Array
from nfops.errors import InputError
from nfops.io.dicom.elements import GE_COMPLEX, PIXEL_KEYWORDS, has, number, numbers, text, whole, words

if TYPE_CHECKING:
    from pydicom import Dataset

SPACING_KEYWORDS = ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing")
SEGMENTATION = "1.2.840.10008.5.1.4.1.1.66.4"
UNKNOWN = "an unknown kind of document"
IMAGE_ENDINGS = ("Image Storage", "Dose Storage")
NO_NUMBER = -1.0
CLUES = ("TemporalPositionIdentifier", "AcquisitionNumber", "TriggerTime", "AcquisitionTime", "ContentTime")


@dataclass(frozen=True)
class Frame:
    """One slice.

    path, index: the file, and the frame's place in it, from 0. tile: row and column of its first pixel in the stored
    frame, for slices of a mosaic. rows, columns: its own size. position_mm: centre of its first pixel, world LPS, None
    where the file does not say. row_direction, column_direction: unit vectors along which the column and the row
    number grow. spacing_mm: between rows, between columns. thickness_mm: 0 if not known.
    kind: what must be equal within one volume. order: the instance number and, of several frames, the frame's.
    echo_ms: its echo time. clues: other numbers that may tell the volumes of a 4-D image apart; some differ from slice
    to slice and tell nothing. What the file does not say is NO_NUMBER.
    slope, intercept: value = stored * slope + intercept.
    """

    path: Path
    index: int
    rows: int
    columns: int
    position_mm: tuple[float, ...] | None
    row_direction: tuple[float, ...]
    column_direction: tuple[float, ...]
    spacing_mm: tuple[float, float] | None
    thickness_mm: float
    slope: float
    intercept: float
    kind: tuple[str, ...]
    order: tuple[float, ...]
    echo_ms: float
    clues: tuple[float, ...]
    instance: str
    tile: tuple[int, int] | None = None

    @property
    def normal(self) -> Array:
        """Unit vector from which slices are counted, LPS."""
        return np.cross(self.row_direction, self.column_direction)

    def tiled(self, number: int, across: int, position_mm: Array) -> "Frame":
        """Tile `number` of a mosaic with `across` tiles in a row; self has the size of a tile."""
        tile = (number // across * self.rows, number % across * self.columns)
        return replace(self, position_mm=tuple(position_mm.tolist()), tile=tile)


def refuse_unreadable(path: Path, dataset: "Dataset") -> None:
    """Raise InputError for a file that holds no scan: a report, marks on another image, a header without pixels."""
    missing = what_is_missing(dataset)
    if missing:
        kind = kind_of_document(dataset)
        hint = "it lists a folder's images: name the folder" if kind.startswith("Media Storage Directory") else ""
        raise InputError(path, f"holds no image: {missing} ({kind})", hint)


def what_is_missing(dataset: "Dataset") -> str:
    """Why a file holds no scan, "" if it holds one."""
    if text(dataset, "SOPClassUID") == SEGMENTATION:
        return "it is a segmentation of another"
    if min(whole(dataset, "Rows"), whole(dataset, "Columns")) < 1:
        return "it has no rows and columns"
    return "" if any(has(dataset, word) for word in PIXEL_KEYWORDS) else "its pixels are missing"


def refuse_cut(path: Path, dataset: "Dataset") -> None:
    """Raise InputError for a file without image that should hold one: passed over, its slice would be missing."""
    kind = kind_of_document(dataset)
    if kind == UNKNOWN or kind.endswith(IMAGE_ENDINGS):
        raise InputError(path, f"is cut: {what_is_missing(dataset)} ({kind})", "copy it again, or remove it")


def kind_of_document(dataset: "Dataset") -> str:
    """What a DICOM file is, in words: the name of its SOP class."""
    from pydicom.uid import UID

    uid = text(dataset, "SOPClassUID") or text(dataset.file_meta, "MediaStorageSOPClassUID")
    return UID(uid, validation_mode=0).name if uid else UNKNOWN


def plain_frame(path: Path, dataset: "Dataset") -> Frame:
    """The frame of a single-frame file; of a file with several, what they share."""
    orientation = numbers(dataset, "ImageOrientationPatient", 6)
    slope, intercept = rescale(path, dataset)
    row, column = directions(path, orientation)
    return Frame(
        path=path,
        index=0,
        rows=whole(dataset, "Rows"),
        columns=whole(dataset, "Columns"),
        position_mm=None if orientation is None else numbers(dataset, "ImagePositionPatient", 3),
        row_direction=row,
        column_direction=column,
        spacing_mm=spacing(path, dataset),
        thickness_mm=abs(number(dataset, "SpacingBetweenSlices") or number(dataset, "SliceThickness") or 0.0),
        slope=slope,
        intercept=intercept,
        kind=(*type_words(words(dataset, "ImageType")), *_complex_part(dataset), *_photometric(dataset)),
        order=known(dataset, "InstanceNumber"),
        echo_ms=known(dataset, "EchoTime")[0],
        clues=known(dataset, *CLUES),
        instance=text(dataset, "SOPInstanceUID"),
    )


def directions(path: Path, orientation: tuple[float, ...] | None) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The two unit vectors of ImageOrientationPatient (LPS); those of an axial slice where there is none."""
    if orientation is None:
        return (1.0, 0.0, 0.0), (0.0, 1.0, 0.0)
    row, column = np.array(orientation[:3]), np.array(orientation[3:6])
    lengths = np.linalg.norm(row), np.linalg.norm(column)
    if min(lengths) < 0.9 or max(lengths) > 1.1 or abs(row @ column) > 0.01:
        found = "\\".join(f"{v:g}" for v in orientation[:6])
        raise InputError(path, f"ImageOrientationPatient {found} are not two perpendicular unit vectors")
    row, column = row / lengths[0], column / lengths[1]
    return tuple(row.tolist()), tuple(column.tolist())


def spacing(path: Path, dataset: "Dataset") -> tuple[float, float] | None:
    """(between rows, between columns) in mm; None where no element says it."""
    for keyword in SPACING_KEYWORDS:
        found = numbers(dataset, keyword, 2)
        if found is not None:
            if not all(1e-3 <= s <= 1e3 for s in found[:2]):
                raise InputError(path, f"{keyword} of {found[0]:g}\\{found[1]:g} mm, expected 0.001 to 1000 mm")
            return found[0], found[1]
    return None


def rescale(path: Path, dataset: "Dataset") -> tuple[float, float]:
    """(slope, intercept) of the modality's rescaling; (1, 0) where there is none. RT dose has a slope of its own."""
    dose = number(dataset, "DoseGridScaling")
    if dose:
        return dose, 0.0
    slope, intercept = number(dataset, "RescaleSlope"), number(dataset, "RescaleIntercept")
    if slope == 0:
        raise InputError(path, "RescaleSlope is 0: every value would be the same")
    return slope or 1.0, intercept or 0.0


def type_words(image_type: tuple[str, ...]) -> tuple[str, ...]:
    """Of an image type what tells kinds of image apart: original or derived, and words three and four.

    Magnitude and phase, water and fat, a localizer among the slices... Later words name echoes and filters.
    """
    return tuple(word.upper() for i, word in enumerate(image_type[:4]) if i != 1)


def _complex_part(dataset: "Dataset") -> tuple[str, ...]:
    """Magnitude, phase, real, imaginary: the standard's word for it, and GE's number."""
    ge = str(dataset[GE_COMPLEX].value) if GE_COMPLEX in dataset else ""
    return text(dataset, "ComplexImageComponent"), ge


def _photometric(dataset: "Dataset") -> tuple[str, ...]:
    return text(dataset, "PhotometricInterpretation"), str(whole(dataset, "SamplesPerPixel", 1))


def known(dataset: "Dataset", *keywords: str) -> tuple[float, ...]:
    """These numbers, NO_NUMBER for each that is missing."""
    found = (number(dataset, keyword) for keyword in keywords)
    return tuple(NO_NUMBER if value is None else value for value in found)
