"""Mosaics: the slices of a volume side by side in one picture, as Siemens and United Imaging store them (B46)."""

import math
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nfops.arrays import Array
from nfops.errors import InputError
from nfops.io.dicom.elements import SIEMENS_COUNT, number, numbers, words
from nfops.io.dicom.frames import Frame, plain_frame
from nfops.io.dicom.headers import refusing

if TYPE_CHECKING:
    from pydicom import Dataset

UIH_GROUP = 0x00650010
UIH_CREATOR = "Image Private Header"


def is_siemens_mosaic(dataset: "Dataset") -> bool:
    """Whether the image type says that the picture is a mosaic."""
    return "MOSAIC" in (word.upper() for word in words(dataset, "ImageType"))


def uih_slices(dataset: "Dataset") -> "list[Dataset]":
    """The description of each slice of a United Imaging grid, [] for any other picture."""
    if UIH_GROUP not in dataset:
        return []
    try:
        block = dataset.private_block(0x0065, UIH_CREATOR)
    except KeyError:
        return []
    return list(block[0x51].value) if 0x51 in block else []


def siemens_frames(path: Path, dataset: "Dataset") -> list[Frame]:
    """The slices of a Siemens mosaic.

    The position of a mosaic is that of the corner that one slice as large as the mosaic would have; its slices have
    the same centre (nibabel's notes on Siemens mosaics). The normal is that of the private CSA header.
    """
    csa = _csa(path, dataset)
    count = _count(path, dataset, csa)
    whole = plain_frame(path, dataset)
    if whole.position_mm is None or whole.spacing_mm is None:
        raise InputError(path, "a mosaic without position, orientation or pixel spacing")
    across = math.ceil(math.sqrt(count))
    frame = _tile(path, whole, across, across)
    half = np.array([whole.columns - frame.columns, whole.rows - frame.rows]) / 2
    start = np.array(whole.position_mm)
    start += half[0] * whole.spacing_mm[1] * np.array(whole.row_direction)
    start += half[1] * whole.spacing_mm[0] * np.array(whole.column_direction)
    step = _normal(csa, frame) * _step(path, dataset)
    return [frame.tiled(k, across, start + k * step) for k in range(count)]


def uih_frames(path: Path, dataset: "Dataset", slices: "list[Dataset]") -> list[Frame]:
    """The slices of a United Imaging grid; each item of its sequence has the position of a slice."""
    whole = plain_frame(path, dataset)
    across = math.ceil(math.sqrt(len(slices)))
    frame = _tile(path, whole, across, math.ceil(len(slices) / across))
    frames = []
    for k, item in enumerate(slices):
        position = numbers(item, "ImagePositionPatient", 3)
        if position is None:
            raise InputError(path, f"slice {k + 1} of the grid has no position")
        frames.append(frame.tiled(k, across, np.array(position)))
    return frames


def _tile(path: Path, whole: Frame, wide: int, deep: int) -> Frame:
    """The frame that one of wide x deep tiles is: its rows and columns."""
    rows, columns = whole.rows // deep, whole.columns // wide
    if rows * deep != whole.rows or columns * wide != whole.columns:
        raise InputError(path, f"a mosaic of {wide}x{deep} slices does not divide {whole.columns}x{whole.rows} pixels")
    return replace(whole, rows=rows, columns=columns)


def _csa(path: Path, dataset: "Dataset") -> "dict[str, Any] | None":
    with refusing(path, "damaged Siemens CSA header"):  # which also silences nibabel's own warning
        from nibabel.nicom import csareader

        found: dict[str, Any] | None = csareader.get_csa_header(dataset, "image")
    return found


def _count(path: Path, dataset: "Dataset", csa: "dict[str, Any] | None") -> int:
    from nibabel.nicom import csareader

    found = None if csa is None else csareader.get_n_mosaic(csa)
    if not found:
        element = dataset.get(SIEMENS_COUNT)
        found = None if element is None else element.value
    try:
        count = int(found or 0)
    except (TypeError, ValueError):
        count = 0
    if count < 1:
        raise InputError(path, "is a Siemens mosaic, but does not say of how many slices (no CSA header)")
    return count


def _normal(csa: "dict[str, Any] | None", frame: Frame) -> Array:
    """The direction in which slices are counted: the CSA header's, which may be the opposite of the cross product."""
    from nibabel.nicom import csareader

    given = None if csa is None else csareader.get_slice_normal(csa)
    if given is None or np.linalg.norm(given) == 0:
        return frame.normal
    return frame.normal * (1.0 if float(np.dot(given, frame.normal)) >= 0 else -1.0)


def _step(path: Path, dataset: "Dataset") -> float:
    step = number(dataset, "SpacingBetweenSlices") or number(dataset, "SliceThickness")
    if not step:
        raise InputError(path, "is a mosaic without the distance of its slices")
    return abs(step)
