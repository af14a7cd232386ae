"""Which source images, and which frames of them, a slice of a derived series was made from."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from nfops.arrays import Array
from nfops.errors import InputError
from nfops.io.dicom.writing.slice_geometry import SliceStack
from nfops.io.dicom.writing.source_series import SourceSeries

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

PURPOSE = ("121322", "DCM", "Source image for image processing operation")
UNFOLDED_TYPES = ("MOSAIC", "VFRAME")
"""Image types of Siemens and UIH whose one picture holds all slices of a volume."""
LEAST_OVERLAP = 1e-3


@dataclass(frozen=True, eq=False)
class SourcePlane:
    """A source image or one frame of it. corners_mm: (8, 3) LPS corners of its slice, None where it is all slices."""

    header: "Dataset"
    frame: int | None
    corners_mm: Array | None
    thickness_mm: float | None = None


def source_planes(series: SourceSeries) -> list[SourcePlane]:
    """The planes of all sources; a mosaic, or a file that does not say where it is, counts for every place."""
    planes: list[SourcePlane] = []
    for header in series.headers:
        frames = header.get("PerFrameFunctionalGroupsSequence") or ()
        shared = (header.get("SharedFunctionalGroupsSequence") or (None,))[0]
        if frames:
            planes += [_plane(header, n, [group, shared]) for n, group in enumerate(frames, 1)]
        elif _holds_a_volume(header):
            planes.append(SourcePlane(header, None, None))
        else:
            planes.append(_plane(header, None, []))
    return planes


def contributing_planes(planes: Sequence[SourcePlane], stack: SliceStack) -> list[list[SourcePlane]]:
    """For each slice of the stack the planes whose thickness it meets; without any, the nearest."""
    everywhere = [plane for plane in planes if plane.corners_mm is None]
    placed = [plane for plane in planes if plane.corners_mm is not None]
    if not placed:
        return [everywhere] * stack.shape[2]
    along = np.array([plane.corners_mm @ stack.normal for plane in placed])
    low, high = along.min(axis=1), along.max(axis=1)
    half = stack.spacing_mm[2] / 2
    chosen = []
    for position in stack.positions_mm @ stack.normal:
        overlap = np.minimum(high, position + half) - np.maximum(low, position - half)
        meets = overlap > LEAST_OVERLAP * half
        if not meets.any():
            away = np.maximum(low - position, position - high)
            meets = away <= away.min() + LEAST_OVERLAP * half
        chosen.append(everywhere + [placed[n] for n in np.flatnonzero(meets)])
    return chosen


def _holds_a_volume(header: "Dataset") -> bool:
    """A mosaic, or a classic multi-frame image (NM, US), which says where its first frame is at most."""
    is_mosaic = bool(set(UNFOLDED_TYPES) & set(header.get("ImageType") or ()))
    return is_mosaic or int(header.get("NumberOfFrames") or 1) > 1


def kept_thickness_mm(series: SourceSeries, planes: Sequence[SourcePlane], stack: SliceStack) -> float:
    """The sources' slice thickness where the slices are still theirs, the distance of the slices elsewhere (B52).

    They are where every slice lies on a source plane, and planes and slices are equally many: then a gap or an
    overlap between slices is still there, which resampling closes.
    """
    thickness = {plane.thickness_mm for plane in planes}
    if any(plane.corners_mm is None for plane in planes):
        spacing, thick = series.agreed("SpacingBetweenSlices"), series.agreed("SliceThickness")
        is_theirs = bool(spacing and thick) and abs(float(spacing) - stack.spacing_mm[2]) < LEAST_OVERLAP * spacing
        return float(thick) if is_theirs else stack.spacing_mm[2]
    if len(thickness) != 1 or None in thickness:
        return stack.spacing_mm[2]
    corners = np.array([plane.corners_mm for plane in planes])
    along = corners @ stack.normal
    is_parallel = float(np.ptp(along, axis=1).max()) <= float(next(iter(thickness)) or 0) * (1 + LEAST_OVERLAP)
    centres = np.unique(np.round(along.mean(axis=1) / stack.spacing_mm[2], 2)) * stack.spacing_mm[2]
    slices = stack.positions_mm @ stack.normal
    is_theirs = len(centres) == len(slices) and np.abs(centres - slices).max() < 0.02 * stack.spacing_mm[2]
    return float(next(iter(thickness)) or 0) if is_parallel and is_theirs else stack.spacing_mm[2]


def source_image_items(planes: Sequence[SourcePlane]) -> list["Dataset"]:
    """Items of Source Image Sequence, one for each file, with its frames where it has several."""
    from pydicom.dataset import Dataset

    frames: dict[str, list[int]] = {}
    items: dict[str, Dataset] = {}
    for plane in planes:
        uid = str(plane.header.SOPInstanceUID)
        if uid not in items:
            item = items[uid] = Dataset()
            item.ReferencedSOPClassUID = plane.header.SOPClassUID
            item.ReferencedSOPInstanceUID = uid
            item.PurposeOfReferenceCodeSequence = [code_item(*PURPOSE)]
        if plane.frame is not None:
            frames.setdefault(uid, []).append(plane.frame)
            items[uid].ReferencedFrameNumber = frames[uid]
    return list(items.values())


def code_item(value: str, scheme: str, meaning: str) -> "Dataset":
    """An item of any code sequence (PS3.3, 8.8)."""
    from pydicom.dataset import Dataset

    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return item


def _plane(header: "Dataset", frame: int | None, groups: list[Any]) -> SourcePlane:
    position = _geometry(header, groups, "PlanePositionSequence", "ImagePositionPatient")
    cosines = _geometry(header, groups, "PlaneOrientationSequence", "ImageOrientationPatient")
    pixel = _geometry(header, groups, "PixelMeasuresSequence", "PixelSpacing")
    thickness = _geometry(header, groups, "PixelMeasuresSequence", "SliceThickness")
    if position is None or cosines is None or pixel is None or "Rows" not in header or "Columns" not in header:
        return SourcePlane(header, frame, None)
    if (position.size, cosines.size, pixel.size) != (3, 6, 2):
        raise InputError("DICOM", "a source has a position, an orientation or a pixel spacing of the wrong length")
    across, down = cosines[:3], cosines[3:]
    normal = np.cross(across, down)
    columns, rows = np.array([-0.5, header.Columns - 0.5]), np.array([-0.5, header.Rows - 0.5])
    half = 0.0 if thickness is None else float(thickness[0]) / 2
    corners = [
        position + across * pixel[1] * column + down * pixel[0] * row + normal * side
        for column in columns
        for row in rows
        for side in (-half, half)
    ]
    return SourcePlane(header, frame, np.array(corners), None if thickness is None else float(thickness[0]))


def _geometry(header: "Dataset", groups: list[Any], sequence: str, keyword: str) -> Array | None:
    for group in groups:
        items = group.get(sequence) if group is not None else None
        if items and items[0].get(keyword) is not None:
            return np.atleast_1d(np.array(items[0].get(keyword), dtype=np.float64))
    value = header.get(keyword)
    return None if value is None or value == "" else np.atleast_1d(np.array(value, dtype=np.float64))
