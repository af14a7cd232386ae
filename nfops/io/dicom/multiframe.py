"""Frames of multi-frame files: enhanced images with functional groups, and the older kinds."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from nfops.arrays import Array
from nfops.errors import InputError
from nfops.io.dicom.elements import number, numbers, text, words
from nfops.io.dicom.frames import NO_NUMBER, Frame, directions, known, plain_frame, rescale, type_words

if TYPE_CHECKING:
    from pydicom import Dataset

FRAME_TYPES = (
    "MRImageFrameTypeSequence",
    "CTImageFrameTypeSequence",
    "PETFrameTypeSequence",
    "XAXRFFrameCharacteristicsSequence",
)
CLUES = (
    ("FrameContentSequence", "TemporalPositionIndex"),
    ("FrameContentSequence", "FrameAcquisitionNumber"),
    ("MRDiffusionSequence", "DiffusionBValue"),
)


def enhanced_frames(path: Path, dataset: "Dataset") -> list[Frame]:
    """The frames of an enhanced image, each with its own functional groups and those that all share."""
    whole = plain_frame(path, dataset)
    shared = _first(dataset, "SharedFunctionalGroupsSequence")
    groups = dataset.PerFrameFunctionalGroupsSequence
    count = frame_count(path, dataset)
    if len(groups) != count:
        raise InputError(path, f"describes {len(groups)} of its {count} frames")
    frames = [_enhanced(path, whole, index, own, shared) for index, own in enumerate(groups)]
    stacks = [_stack(_first(own, "FrameContentSequence")) for own in groups]
    if len(set(stacks)) == count:  # some number every slice as a stack of its own, which says nothing
        return frames
    return [replace(frame, kind=(*frame.kind, stack)) for frame, stack in zip(frames, stacks, strict=True)]


def older_frames(path: Path, dataset: "Dataset") -> list[Frame]:
    """The frames of a multi-frame file without functional groups: RT dose, nuclear medicine, cine loops.

    Where offsets or a spacing are given they are slices of one volume, else pictures one after the other.
    """
    count = frame_count(path, dataset)
    whole = plain_frame(path, _with_detector(dataset))
    offsets = _offsets(whole, dataset, count)
    if offsets is None or whole.position_mm is None:
        return [replace(whole, index=i, order=(*whole.order, float(i))) for i in range(count)]
    start = np.array(whole.position_mm)
    positions = start + offsets[:, None] * whole.normal
    return [replace(whole, index=i, position_mm=tuple(p.tolist())) for i, p in enumerate(positions)]


def frame_count(path: Path, dataset: "Dataset") -> int:
    """NumberOfFrames, 1 where it is missing."""
    count = number(dataset, "NumberOfFrames")
    if count is not None and (count < 1 or count != int(count)):
        raise InputError(path, f"corrupt NumberOfFrames {count:g}")
    return 1 if count is None else int(count)


def _enhanced(path: Path, whole: Frame, index: int, own: "Dataset", shared: "Dataset | None") -> Frame:
    def group(name: str) -> "Dataset | None":
        return _first(own, name) or (None if shared is None else _first(shared, name))

    plane, position = group("PlaneOrientationSequence"), group("PlanePositionSequence")
    measures, transform = group("PixelMeasuresSequence"), group("PixelValueTransformationSequence")
    orientation = None if plane is None else numbers(plane, "ImageOrientationPatient", 6)
    row, column = directions(path, orientation)
    slope, intercept = (whole.slope, whole.intercept) if transform is None else rescale(path, transform)
    frame_type = next((found for name in FRAME_TYPES if (found := group(name)) is not None), None)
    return replace(
        whole,
        index=index,
        position_mm=None if position is None else numbers(position, "ImagePositionPatient", 3),
        row_direction=row,
        column_direction=column,
        spacing_mm=_pair(measures) or whole.spacing_mm,
        thickness_mm=_thickness(measures) or whole.thickness_mm,
        slope=slope,
        intercept=intercept,
        kind=_frame_kind(frame_type, whole),
        order=(*whole.order, float(index)),
        echo_ms=_in_group(group("MREchoSequence"), "EffectiveEchoTime") if group("MREchoSequence") else whole.echo_ms,
        clues=(*(_in_group(group(at), keyword) for at, keyword in CLUES), *_dimensions(group("FrameContentSequence"))),
    )


def _frame_kind(frame_type: "Dataset | None", whole: Frame) -> tuple[str, ...]:
    if frame_type is None:
        return whole.kind
    return (
        *type_words(words(frame_type, "FrameType")),
        text(frame_type, "ComplexImageComponent"),
        *whole.kind[-2:],
    )


def _stack(content: "Dataset | None") -> str:
    return "" if content is None else text(content, "StackID")


def _dimensions(content: "Dataset | None") -> tuple[float, ...]:
    return () if content is None else numbers(content, "DimensionIndexValues", 1) or ()


def _in_group(item: "Dataset | None", keyword: str) -> float:
    return NO_NUMBER if item is None else known(item, keyword)[0]


def _first(dataset: "Dataset", keyword: str) -> "Dataset | None":
    items = dataset.get(keyword)
    return items[0] if items else None


def _pair(measures: "Dataset | None") -> tuple[float, float] | None:
    found = None if measures is None else numbers(measures, "PixelSpacing", 2)
    return None if found is None else (found[0], found[1])


def _thickness(measures: "Dataset | None") -> float:
    if measures is None:
        return 0.0
    return abs(number(measures, "SpacingBetweenSlices") or number(measures, "SliceThickness") or 0.0)


def _with_detector(dataset: "Dataset") -> "Dataset":
    """Nuclear medicine keeps position and orientation with the detector."""
    detector = _first(dataset, "DetectorInformationSequence")
    if detector is None or "ImagePositionPatient" in dataset:
        return dataset
    from pydicom import Dataset

    whole = Dataset(dataset)
    for keyword in ("ImagePositionPatient", "ImageOrientationPatient"):
        if keyword in detector:
            whole[keyword] = detector[keyword]
    return whole


def _offsets(whole: Frame, dataset: "Dataset", count: int) -> Array | None:
    """(frames,) distance of each frame from the first along the normal, mm; None for frames that are no slices."""
    given = numbers(dataset, "GridFrameOffsetVector", count)
    if given is not None:
        return np.asarray(
            np.array(given[:count]) - given[0]
        )  # the standard's second form counts from the patient's origin
    slices = number(dataset, "NumberOfSlices")
    is_volume = words(dataset, "ImageType")[2:3] == ("RECON TOMO",) or slices == count
    if not is_volume or not whole.thickness_mm:
        return None
    spacing = number(dataset, "SpacingBetweenSlices") or whole.thickness_mm
    return np.asarray(spacing * np.arange(count))
