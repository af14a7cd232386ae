"""Which elements of a DICOM file nfops looks at, and their values without pydicom's costly conversions."""

import functools
import math
import warnings
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pydicom import Dataset
    from pydicom.tag import BaseTag

PIXEL_KEYWORDS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
KEYWORDS = """
    SpecificCharacterSet ImageType SOPClassUID SOPInstanceUID Modality Manufacturer SeriesDescription
    ComplexImageComponent SliceThickness EchoTime SpacingBetweenSlices ImagerPixelSpacing NominalScannedPixelSpacing
    AcquisitionTime ContentTime TriggerTime RepetitionTime ScanningSequence PatientID StudyInstanceUID
    SeriesInstanceUID SeriesNumber AcquisitionNumber InstanceNumber PatientOrientation ImagePositionPatient
    ImageOrientationPatient TemporalPositionIdentifier SamplesPerPixel PhotometricInterpretation PlanarConfiguration
    NumberOfFrames Rows Columns PixelSpacing BitsAllocated BitsStored HighBit PixelRepresentation
    PixelPaddingValue PixelPaddingRangeLimit RescaleIntercept RescaleSlope GridFrameOffsetVector NumberOfSlices
    DetectorInformationSequence DoseGridScaling SharedFunctionalGroupsSequence PerFrameFunctionalGroupsSequence
    RedPaletteColorLookupTableDescriptor GreenPaletteColorLookupTableDescriptor BluePaletteColorLookupTableDescriptor
    RedPaletteColorLookupTableData GreenPaletteColorLookupTableData BluePaletteColorLookupTableData
    SegmentedRedPaletteColorLookupTableData SegmentedGreenPaletteColorLookupTableData
    SegmentedBluePaletteColorLookupTableData ExtendedOffsetTable ExtendedOffsetTableLengths
""".split()  # noqa: SIM905 - sixty lines otherwise
SIEMENS_COUNT, GE_COMPLEX = 0x0019100A, 0x0043102F
PHILIPS_CREATOR, PHILIPS_SCALE = 0x20050010, 0x2005100E
PRIVATE = (
    SIEMENS_COUNT,
    GE_COMPLEX,
    *(0x00290000 + block for block in range(0x10, 0x18)),  # the CSA header: creators, then elements of each block
    *(0x00290010 + 0x100 * block for block in range(0x10, 0x18)),
    *(0x00650000 + block for block in range(0x10, 0x14)),  # United Imaging's grid
    *(0x00650051 + 0x100 * block for block in range(0x10, 0x14)),
    PHILIPS_CREATOR,
    PHILIPS_SCALE,
)
TEXT_VRS = frozenset({"CS", "DS", "IS", "LO", "SH", "TM", "UI"})


@functools.cache
def tag_of(keyword: str) -> "BaseTag":
    """The tag of a keyword of the standard, as pydicom takes it without converting it again."""
    from pydicom.datadict import tag_for_keyword
    from pydicom.tag import Tag

    tag = tag_for_keyword(keyword)
    assert tag is not None, keyword  # noqa: S101 - our own table
    return Tag(tag)


@functools.cache
def wanted_tags() -> "tuple[BaseTag, ...]":
    """Every element that a scan is read by; the others, a patient's name among them, are passed over."""
    from pydicom.tag import Tag

    return tuple(tag_of(keyword) for keyword in (*KEYWORDS, *PIXEL_KEYWORDS)) + tuple(Tag(tag) for tag in PRIVATE)


def has(dataset: "Dataset", keyword: str) -> bool:
    """Whether there is such an element, be it empty."""
    try:
        return dataset.get_item(tag_of(keyword), keep_deferred=True) is not None
    except KeyError:
        return False


def text(dataset: "Dataset", keyword: str) -> str:
    """The value of a text element, "" where there is none; of several the first."""
    return (*words(dataset, keyword), "")[0]


def words(dataset: "Dataset", keyword: str) -> tuple[str, ...]:
    """The values of a text element, () where there are none."""
    value = _value(dataset, keyword)
    if value is None or value == "":
        return ()
    return (str(value),) if isinstance(value, str | int | float) else tuple(str(v) for v in value)


def number(dataset: "Dataset", keyword: str) -> float | None:
    """A finite number, or None where it is missing, empty or none."""
    values = numbers(dataset, keyword, 1)
    return None if values is None else values[0]


def numbers(dataset: "Dataset", keyword: str, count: int) -> tuple[float, ...] | None:
    """`count` or more finite numbers, or None where they are missing, too few or none."""
    value = _value(dataset, keyword)
    if value is None or value == "":
        return None
    try:
        found = tuple(float(v) for v in ([value] if isinstance(value, str | int | float) else value))
    except (TypeError, ValueError):
        return None
    return found if len(found) >= count and all(map(math.isfinite, found)) else None


def whole(dataset: "Dataset", keyword: str, otherwise: int = 0) -> int:
    """A whole number, `otherwise` where there is none."""
    found = number(dataset, keyword)
    return otherwise if found is None else int(found)


def _value(dataset: "Dataset", keyword: str) -> Any:
    """The value of an element, None where it is missing or no such value at all."""
    try:
        element = dataset.get_item(tag_of(keyword))
        raw = element.value
        if not isinstance(raw, bytes):
            return raw
        vr = element.VR or _dictionary_vr(keyword)
        if vr in TEXT_VRS and "\x1b" not in (plain := raw.decode("latin-1")) and plain.isascii():
            return _split(plain)
        if vr == "US" and len(raw) == 2:
            return int.from_bytes(raw, "little" if element.is_little_endian else "big")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an odd value is no reason to speak of it before the user
            return dataset[tag_of(keyword)].value
    except Exception:  # missing, or damaged, at which pydicom raises nearly anything: it counts as missing
        return None


def _split(plain: str) -> Any:
    parts = [part.strip(" \0") for part in plain.split("\\")]
    return parts[0] if len(parts) == 1 else parts


@functools.cache
def _dictionary_vr(keyword: str) -> str:
    from pydicom.datadict import dictionary_VR

    return str(dictionary_VR(tag_of(keyword)))
