"""The attributes that only one kind of image has: CT, MR, PET, and Secondary Capture for everything else.

An image of the sources' own contrast (a mere resampling) keeps how it was acquired; a synthesised contrast was
acquired by nobody and says so, with empty or "research" values.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nfops.io.dicom.writing.derived_header import copy_agreed
from nfops.io.dicom.writing.mr_timing import ECHO_TIME, MR_KEPT, mr_sequence_kind
from nfops.io.dicom.writing.source_series import SourceSeries

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

CT_KEPT = (
    *("KVP", "AcquisitionNumber", "ScanOptions", "ConvolutionKernel", "FilterType", "XRayTubeCurrent"),
    *("ExposureTime", "Exposure", "AcquisitionDate", "AcquisitionTime"),
)
PET_KEPT = (
    *("Units", "CountsSource", "CorrectedImage", "RandomsCorrectionMethod"),
    *("AttenuationCorrectionMethod", "ScatterCorrectionMethod", "DecayCorrection", "ReconstructionMethod"),
    *("SUVType", "CollimatorType", "RadiopharmaceuticalInformationSequence", "PatientOrientationCodeSequence"),
    *("PatientGantryRelationshipCodeSequence", "ActualFrameDuration", "SeriesDate", "SeriesTime"),
    *("AcquisitionDate", "AcquisitionTime", "FrameReferenceTime", "DecayFactor"),
)
CONTRAST_AGENT = ("ContrastBolusAgent", "ContrastBolusRoute", "ContrastBolusVolume")


@dataclass(frozen=True)
class ImageKind:
    """What is written: a SOP class, its modality, Image Type."""

    sop_class: str
    modality: str
    image_type: tuple[str, str, str] = ("DERIVED", "SECONDARY", "OTHER")


CT = ImageKind("1.2.840.10008.5.1.4.1.1.2", "CT", ("DERIVED", "SECONDARY", "AXIAL"))
MR = ImageKind("1.2.840.10008.5.1.4.1.1.4", "MR")
PET = ImageKind("1.2.840.10008.5.1.4.1.1.128", "PT", ("DERIVED", "PRIMARY", "IMAGE"))  # no other second value
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"

KIND_OF_SOURCE = {
    **dict.fromkeys((CT.sop_class, f"{CT.sop_class}.1", f"{CT.sop_class}.2"), CT),
    **dict.fromkeys((MR.sop_class, f"{MR.sop_class}.1", f"{MR.sop_class}.4"), MR),
    **dict.fromkeys((PET.sop_class, f"{PET.sop_class}.1", "1.2.840.10008.5.1.4.1.1.130"), PET),
}
"""Classic, enhanced and legacy-converted images are all written as classic ones, which every viewer reads."""


def image_kind(series: SourceSeries, modality: str = "") -> ImageKind:
    """The kind to write: that of the sources; Secondary Capture for other sources or another `modality`."""
    kind = KIND_OF_SOURCE.get(series.sop_class)
    if kind and modality in ("", kind.modality):
        return kind
    return ImageKind(SECONDARY_CAPTURE, modality or str(series.agreed("Modality") or "OT"))


def set_modality(
    dataset: "Dataset", kind: ImageKind, series: SourceSeries, *, is_same_contrast: bool, is_hounsfield: bool
) -> None:
    """Fill what the kind of image must have. is_hounsfield: the values are HU (CT only)."""
    dataset.SOPClassUID, dataset.Modality = kind.sop_class, kind.modality
    dataset.ImageType = list(kind.image_type)
    if is_same_contrast:
        copy_agreed(dataset, series, CONTRAST_AGENT)
    if kind is CT:
        _set_ct(dataset, series, is_same_contrast)
        dataset.RescaleType = "HU" if is_hounsfield else "US"
    elif kind is MR:
        _set_mr(dataset, series, is_same_contrast)
    elif kind is PET:
        _set_pet(dataset, series, is_same_contrast)
    else:
        dataset.ConversionType = "WSD"
        dataset.PatientOrientation = None  # the cosines say it
        dataset.RescaleType = "US"


def _set_ct(dataset: "Dataset", series: SourceSeries, is_same_contrast: bool) -> None:
    _set_missing(dataset, {"KVP": None, "AcquisitionNumber": None})
    if is_same_contrast:
        copy_agreed(dataset, series, CT_KEPT)


def _set_mr(dataset: "Dataset", series: SourceSeries, is_same_contrast: bool) -> None:
    """MR Image module (PS3.3, C.8.3.1); "RM" is research mode, a sequence without the times of any other."""
    empty = ("ScanOptions", "MRAcquisitionType", "RepetitionTime", ECHO_TIME, "EchoTrainLength")
    if is_same_contrast:
        copy_agreed(dataset, series, MR_KEPT)
        if ECHO_TIME not in dataset and (echo := series.agreed("EffectiveEchoTime")) is not None:
            dataset.EchoTime = echo
        for keyword, value in mr_sequence_kind(series).items():
            setattr(dataset, keyword, value)
        if "InversionTime" in dataset and "IR" not in dataset.get("ScanningSequence", ()):
            del dataset.InversionTime  # a classic header may have it only beside an inversion
    _set_missing(dataset, {"ScanningSequence": "RM", "SequenceVariant": "NONE", **dict.fromkeys(empty)})


def _set_pet(dataset: "Dataset", series: SourceSeries, is_same_contrast: bool) -> None:
    """PET Series, Isotope and Image modules (PS3.3, C.8.9); made values carry no unit and no decay."""
    first = series.agreed("SeriesType")
    dataset.SeriesType = ["WHOLE BODY" if first and first[0] == "WHOLE BODY" else "STATIC", "IMAGE"]
    if is_same_contrast:
        copy_agreed(dataset, series, PET_KEPT)
        if dataset.get("DecayCorrection", "NONE") != "NONE":
            # beds of one scan differ: then the first stands for all, as their common decay reference does
            _set_missing(dataset, {"DecayFactor": series.first.get("DecayFactor", "1")})
        _set_missing(dataset, {"FrameReferenceTime": series.first.get("FrameReferenceTime")})
    defaults: dict[str, Any] = {"Units": "NONE", "CountsSource": "EMISSION", "DecayCorrection": "NONE"}
    empty = ("CorrectedImage", "CollimatorType", "ActualFrameDuration", "AcquisitionDate", "AcquisitionTime")
    sequences = ("RadiopharmaceuticalInformationSequence", "PatientOrientationCodeSequence")
    _set_missing(dataset, {**defaults, **dict.fromkeys(empty), **dict.fromkeys(sequences, ())})
    _set_missing(dataset, {"PatientGantryRelationshipCodeSequence": (), "FrameReferenceTime": "0"})
    if "PatientPosition" in dataset:
        del dataset.PatientPosition  # PET says it in codes, and may say it only once


def _set_missing(dataset: "Dataset", values: dict[str, Any]) -> None:
    for keyword, value in values.items():
        if keyword not in dataset or (value is not None and dataset[keyword].is_empty):
            setattr(dataset, keyword, list(value) if isinstance(value, tuple) else value)
