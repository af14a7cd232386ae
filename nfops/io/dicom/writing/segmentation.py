"""Labels as a DICOM segmentation object (PS3.3, A.51), by highdicom: one segment for each label, at its own place."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from nfops import __version__
from nfops.arrays import Array
from nfops.errors import ResultError, UsageError
from nfops.image import Image
from nfops.io.dicom.writing.content_uids import content_digest, uid_of
from nfops.io.dicom.writing.derived_header import (
    LONGEST_DESCRIPTION,
    MAKER,
    NOT_FOR_DIAGNOSIS,
    cut,
    derived_series_number,
    set_equipment,
    set_frame_of_reference,
    set_lossy_history,
    set_subject,
    set_times,
    time_of_making,
)
from nfops.io.dicom.writing.part10 import read_back, write_part10
from nfops.io.dicom.writing.segment_sources import refer_to_sources, reference_images
from nfops.io.dicom.writing.slice_geometry import SliceStack, slice_stack
from nfops.io.dicom.writing.source_series import SourceSeries, read_sources
from nfops.io.publish import publishing, refuse_existing

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

Code: TypeAlias = tuple[str, str, str]
"""Value, coding scheme, meaning: ("10200004", "SCT", "Liver")."""

TISSUE: Code = ("85756007", "SCT", "Tissue")
LONGEST_LABEL = 64
LARGEST_LABEL = 65535
CONTENT_LABEL = "NFOPS_SEG"


@dataclass(frozen=True)
class SegmentationOptions:
    """What a segmentation says of itself.

    description: Series Description. algorithm: the recipe that made the labels. codes: for a label its category
    and type (PS3.16, CID 7150 and 7151); "Tissue" without. settings: whatever else makes one result differ from
    another: part of the UIDs. series_index: the k of source number * 100 + k. series_number: instead of that.
    made: the time of making, now by default. force: replace an existing file.
    """

    description: str
    algorithm: str
    codes: Mapping[int, tuple[Code, Code]] = field(default_factory=dict)
    settings: str = ""
    series_index: int = 1
    series_number: int | None = None
    made: datetime | None = None
    force: bool = False


def save_segmentation(
    path: Path, image: Image, sources: Sequence[Path], labels: Mapping[int, str], options: SegmentationOptions
) -> tuple[str, ...]:
    """Write labels as one DICOM SEG file of binary segments, whole or not at all; returns warnings.

    image: one channel of whole numbers, 0 for background, any orientation, right angles, on any grid in the
    sources' space; a single slice may be without a position (an X-ray picture). sources: the DICOM files that it
    was made from: slices, mosaics or multi-frame. labels: the names of the labels; segments are numbered 1, 2... in
    the order of their labels. UIDs are functions of the content; only the times of making may then differ.

    Raises:
        UsageError: several channels, a sheared grid, several slices without a position, no sources, no name for
        any label. NotFoundError, InputError: sources that are not there, or not one series. ResultError: values that
        are no labels. OutputError: the file exists (without `force`), is one of the sources, or cannot be written.
    """
    if image.channels != 1:
        raise UsageError(
            path, f"a segmentation holds one label for each voxel, the image has {image.channels} channels"
        )
    stack = slice_stack(image.grid, path)
    refuse_existing([path], sources, options.force)
    series = read_sources(sources)
    if stack.shape[2] > 1 and not image.header.is_oriented:
        raise UsageError(path, "a segmentation of several slices needs positions, and the image has none")
    values = stack.slices(image.values[0])
    names, warnings = _names(path, values, labels)
    numbers = _segment_numbers(values, names)
    header, found = _header(series, stack, numbers, names, options, is_oriented=image.header.is_oriented)
    pixels = header["PixelData"].value
    del header.PixelData
    digest = content_digest([header], [pixels], options.settings)
    header.SeriesInstanceUID, header.SOPInstanceUID = uid_of("series", digest), uid_of("instance", digest)
    _set_dimension_uid(header, uid_of("dimensions", digest))
    with publishing(
        path, options.force, lambda written: read_back(written, header.SOPInstanceUID, pixels)
    ) as temporary:
        write_part10(temporary, header, pixels, "OB")
    return (*warnings, *found)


def _names(path: Path, values: Array, labels: Mapping[int, str]) -> tuple[dict[int, str], list[str]]:
    """The named labels, and those that the image has without a name; a warning for the latter."""
    if not np.isfinite(values).all() or (values != np.rint(values)).any():
        raise ResultError(path.name, "labels must be whole numbers; nothing was written")
    present = [int(value) for value in np.unique(values) if value != 0]
    if present and (present[0] < 0 or present[-1] > LARGEST_LABEL):
        what = f"labels from {present[0]} to {present[-1]}, expected 0 to {LARGEST_LABEL}"
        raise ResultError(path.name, what)
    nameless = [value for value in present if value not in labels]
    names = {value: name for value, name in labels.items() if value != 0} | {n: f"label {n}" for n in nameless}
    if not names:
        raise UsageError(path, "a segmentation needs at least one label", "name the labels")
    warnings = [f"labels without a name: {', '.join(map(str, nameless))}"] if nameless else []
    return dict(sorted(names.items())), warnings


def _segment_numbers(values: Array, names: Mapping[int, str]) -> Array:
    """(K, rows, columns) labels -> numbers 1... of their segments."""
    numbers = np.searchsorted(np.array(list(names)), values) + 1
    return np.where(values == 0, 0, numbers).astype(np.uint8 if len(names) < 256 else np.uint16)


def _header(
    series: SourceSeries,
    stack: SliceStack,
    numbers: Array,
    names: Mapping[int, str],
    options: SegmentationOptions,
    *,
    is_oriented: bool,
) -> tuple["Dataset", list[str]]:
    """The whole object without UIDs of its own, and warnings."""
    from pydicom.dataset import Dataset

    warnings: list[str] = []
    references = reference_images(series, stack, is_oriented)
    made = _by_highdicom(references, numbers, names, options)
    dataset = Dataset()
    dataset.update(made)
    refer_to_sources(dataset, references, series, stack)
    for keyword in ("SOPInstanceUID", "SeriesInstanceUID"):
        delattr(dataset, keyword)
    _set_dimension_uid(dataset, "2.25.0")
    moment = time_of_making(series, options.made)
    set_subject(dataset, series, (options.description, options.algorithm, *names.values()))
    if is_oriented:
        warnings += set_frame_of_reference(dataset, series)
    else:
        dataset.PatientOrientation = None
    library = made.ContributingEquipmentSequence[-1]
    set_equipment(dataset, series, moment)
    dataset.ContributingEquipmentSequence.append(library)
    set_lossy_history(dataset, series)
    set_times(dataset, moment)
    number = options.series_number
    dataset.SeriesNumber = derived_series_number(series, options.series_index) if number is None else number
    dataset.SeriesDescription = cut(options.description, LONGEST_DESCRIPTION, "SeriesDescription", warnings)
    dataset.ImageComments = NOT_FOR_DIAGNOSIS
    return dataset, warnings


def _by_highdicom(
    references: Sequence["Dataset"], numbers: Array, names: Mapping[int, str], options: SegmentationOptions
) -> Any:
    """What highdicom makes of the numbers: binary frames, dimensions, functional groups, segment descriptions."""
    import highdicom

    return highdicom.seg.Segmentation(
        source_images=references,
        pixel_array=numbers,
        segmentation_type=highdicom.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=_segments(names, options),
        series_instance_uid="2.25.0",
        series_number=1,
        sop_instance_uid="2.25.0",
        instance_number=1,
        manufacturer=MAKER,
        manufacturer_model_name=MAKER,
        software_versions=__version__,
        device_serial_number=__version__,
        content_label=CONTENT_LABEL,
        content_creator_name=f"{MAKER}^",
    )


def _segments(names: Mapping[int, str], options: SegmentationOptions) -> list[Any]:
    """A description of each segment: its name, codes, and the algorithm that drew it."""
    from highdicom import AlgorithmIdentificationSequence
    from highdicom.seg import SegmentAlgorithmTypeValues, SegmentDescription
    from pydicom.sr.codedict import codes
    from pydicom.sr.coding import Code as CodedTriple

    algorithm = AlgorithmIdentificationSequence(
        cut(options.algorithm, LONGEST_LABEL) or MAKER, codes.DCM.ArtificialIntelligence, __version__, source=MAKER
    )
    segments = []
    for number, (label, name) in enumerate(names.items(), 1):
        category, kind = (CodedTriple(*code) for code in options.codes.get(label, (TISSUE, TISSUE)))
        segment = SegmentDescription(
            number, cut(name, LONGEST_LABEL), category, kind, SegmentAlgorithmTypeValues.AUTOMATIC, algorithm
        )
        segment.SegmentDescription = f"label {label} of {cut(options.algorithm, LONGEST_LABEL)}"
        segments.append(segment)
    return segments


def _set_dimension_uid(dataset: "Dataset", uid: str) -> None:
    """Highdicom draws it by lot."""
    for item in (*dataset.DimensionOrganizationSequence, *dataset.DimensionIndexSequence):
        item.DimensionOrganizationUID = uid
