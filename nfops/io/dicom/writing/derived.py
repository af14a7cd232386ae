"""A derived series that a PACS takes: classic single-frame images in the study that they were made from."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from nfops.arrays import Array
from nfops.errors import OutputError, UsageError
from nfops.image import Image
from nfops.io.dicom.writing.content_uids import content_digest, uid_of
from nfops.io.dicom.writing.decimal_strings import decimal_string
from nfops.io.dicom.writing.derived_header import (
    LONGEST_DESCRIPTION,
    MAKER,
    NOT_FOR_DIAGNOSIS,
    cut,
    derived_series_number,
    set_body_part,
    set_equipment,
    set_frame_of_reference,
    set_lossy_history,
    set_subject,
    set_times,
    time_of_making,
)
from nfops.io.dicom.writing.modality_modules import CT, MR, PET, image_kind, set_modality
from nfops.io.dicom.writing.part10 import read_back, write_part10
from nfops.io.dicom.writing.quantising import Scale, choose_scale
from nfops.io.dicom.writing.slice_geometry import SliceStack, remove_place, set_geometry, slice_stack
from nfops.io.dicom.writing.source_planes import (
    contributing_planes,
    kept_thickness_mm,
    source_image_items,
    source_planes,
)
from nfops.io.dicom.writing.source_series import SourceSeries, read_sources
from nfops.io.publish_folder import publishing_directory, refuse_directory

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

LONGEST_DERIVATION = 1024
WINDOW_PERCENT = (0.5, 99.5)


@dataclass(frozen=True)
class DerivedOptions:
    """What a derived series says of itself.

    description: Series Description. derivation: what was done, for Derivation Description. is_same_contrast: a mere
    resampling, which keeps TR, TE, kVp... of the source; False for a synthesised contrast. is_same_unit: the values
    are in the source's unit (HU stays HU only then). modality: of the result, where it is not the source's ("CT"
    made from MR): then it is written as Secondary Capture. settings: whatever else makes one result differ from
    another (recipe, bundle digest): part of the UIDs. series_index: the k of source number * 100 + k.
    series_number: instead of that. made: the time of making, now by default. force: replace such a folder.
    """

    description: str
    derivation: str
    is_same_contrast: bool
    is_same_unit: bool
    modality: str = ""
    settings: str = ""
    series_index: int = 1
    series_number: int | None = None
    made: datetime | None = None
    force: bool = False


def refuse_series(folder: Path, sources: Sequence[Path], force: bool) -> None:
    """Raise OutputError, before anything is computed, for a folder that `save_series` could not publish later."""
    inside = folder.resolve()
    if any(inside in path.resolve().parents for path in sources):
        raise OutputError(folder, "holds the input; nfops never writes over its input", "choose another name")
    refuse_directory(folder, force, is_derived_folder)


def save_series(folder: Path, image: Image, sources: Sequence[Path], options: DerivedOptions) -> tuple[str, ...]:
    """Write an image as `folder`/0001.dcm, 0002.dcm..., whole or not at all; returns warnings.

    image: one channel (1, I, J, K), any orientation, right angles; slices lie along k, rows along j; without a
    known position (an X-ray picture) only as Secondary Capture, which then states none. sources: the
    DICOM files it came from, in any order: slices, mosaics or multi-frame. int16 with a slope, explicit VR little
    endian. UIDs are functions of the content, so that the same run again gives the same objects; only the times of
    making may then differ.

    Raises:
        UsageError: several channels, a sheared grid, no sources. NotFoundError, InputError: sources that are not
        there, or not one series. ResultError: NaN or infinite values. OutputError: the folder exists (without
        `force`), is not such a series, holds the sources, or cannot be written.
    """
    if image.channels != 1:
        what = f"a derived series holds grey values, the image has {image.channels} channels"
        raise UsageError(folder, what, "write .nii.gz instead")
    stack = slice_stack(image.grid, folder)
    refuse_series(folder, sources, options.force)
    series = read_sources(sources)
    values = stack.slices(image.values[0])
    kind = image_kind(series, options.modality)
    if kind in (CT, MR, PET) and not image.header.is_oriented:
        raise UsageError(folder, f"a {kind.modality} series needs positions, and the image has none", "write .nii.gz")
    scale = choose_scale(values, is_intercept_zero=kind is PET)
    common, warnings = _common_header(series, options, image.header.is_oriented)
    _set_intensity(common, values, scale)
    headers = _headers(common, series, stack)
    if not image.header.is_oriented:
        for header in headers:
            remove_place(header)
    _write(folder, headers, values, scale, options)
    return warnings


def is_derived_folder(folder: Path) -> bool:
    """Whether a folder holds nothing but images that nfops derived."""
    import pydicom
    from pydicom.errors import InvalidDicomError

    for path in folder.iterdir():
        if path.suffix != ".dcm" or path.is_symlink() or not path.is_file():
            return False
        try:
            header = pydicom.dcmread(path, specific_tags=["Manufacturer", "ImageComments"], stop_before_pixels=True)
        except (InvalidDicomError, EOFError, OSError):
            return False
        if header.get("Manufacturer") != MAKER or "ImageComments" not in header:
            return False
    return True


def _common_header(
    series: SourceSeries, options: DerivedOptions, is_oriented: bool
) -> tuple["Dataset", tuple[str, ...]]:
    """What all slices share, and warnings."""
    from pydicom.dataset import Dataset

    dataset = Dataset()
    warnings: list[str] = []
    made = time_of_making(series, options.made)
    set_subject(dataset, series, (options.description, options.derivation))
    if is_oriented:
        warnings += set_frame_of_reference(dataset, series)
    set_equipment(dataset, series, made)
    set_lossy_history(dataset, series)
    set_times(dataset, made)
    set_body_part(dataset, series)
    kind = image_kind(series, options.modality)
    is_hounsfield = kind is CT and options.is_same_unit and series.agreed("RescaleType") in (None, "HU")
    set_modality(dataset, kind, series, is_same_contrast=options.is_same_contrast, is_hounsfield=is_hounsfield)
    number = options.series_number
    dataset.SeriesNumber = derived_series_number(series, options.series_index) if number is None else number
    dataset.SeriesDescription = cut(options.description, LONGEST_DESCRIPTION, "SeriesDescription", warnings)
    dataset.DerivationDescription = cut(options.derivation, LONGEST_DERIVATION, "DerivationDescription", warnings)
    dataset.ImageComments = NOT_FOR_DIAGNOSIS
    return dataset, tuple(warnings)


def _set_intensity(dataset: "Dataset", values: Array, scale: Scale) -> None:
    """Image Pixel, Modality LUT and VOI LUT: int16, the slope it was quantised with, a window of the new values."""
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = 16
    dataset.HighBit, dataset.PixelRepresentation = 15, 1
    dataset.RescaleSlope, dataset.RescaleIntercept = scale.slope, scale.intercept
    low, high = (float(level) for level in np.percentile(values, WINDOW_PERCENT))
    width = high - low
    dataset.WindowCenter = decimal_string((low + high) / 2)
    dataset.WindowWidth = decimal_string(width if width > 0 else 1.0)
    if 0 < width < 1:  # narrower than the linear function may be (PS3.3, C.11.2.1.2)
        dataset.VOILUTFunction = "LINEAR_EXACT"


def _headers(common: "Dataset", series: SourceSeries, stack: SliceStack) -> list["Dataset"]:
    """One header for each slice, without UIDs of its own."""
    from pydicom.dataset import Dataset

    planes = source_planes(series)
    thickness = kept_thickness_mm(series, planes, stack)
    headers = []
    for index, contributing in enumerate(contributing_planes(planes, stack)):
        header = Dataset()
        header.update(common)  # not copy.copy: that shares the elements' dictionary
        header.InstanceNumber = index + 1
        header.SourceImageSequence = source_image_items(contributing)
        set_geometry(header, stack, index, thickness)
        if header.SOPClassUID == PET.sop_class:
            header.ImageIndex, header.NumberOfSlices = index + 1, stack.shape[2]
        headers.append(header)
    return headers


def _write(folder: Path, headers: list["Dataset"], values: Array, scale: Scale, options: DerivedOptions) -> None:
    def pixels() -> Iterator[bytes]:
        return (scale.stored(block).tobytes() for block in values)

    sources = sorted({str(i.ReferencedSOPInstanceUID) for header in headers for i in header.SourceImageSequence})
    digest = content_digest(headers, pixels(), "\0".join([options.settings, *sources]))
    width = max(4, len(str(len(headers))))
    with publishing_directory(folder, options.force, is_derived_folder) as temporary:
        for number, (header, block) in enumerate(zip(headers, pixels(), strict=True), 1):
            header.SeriesInstanceUID = uid_of("series", digest)
            header.SOPInstanceUID = uid_of("instance", digest, str(number))
            path = temporary / f"{number:0{width}}.dcm"
            write_part10(path, header, block)
            read_back(path, header.SOPInstanceUID, block)
