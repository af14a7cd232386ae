"""What every object that nfops derives says: whose study it is, who made it, and that it is not for diagnosis."""

import copy
import re
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta, timezone
from typing import TYPE_CHECKING

from nfops import __version__
from nfops.io.dicom.writing.content_uids import uid_of
from nfops.io.dicom.writing.source_planes import code_item
from nfops.io.dicom.writing.source_series import LOSSY_METHODS, SourceSeries, transfer_syntax
from nfops.io.dicom.writing.valid_values import is_valid

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

PATIENT = (
    *("PatientName", "PatientID", "IssuerOfPatientID", "TypeOfPatientID", "OtherPatientIDsSequence"),
    *("PatientBirthDate", "PatientBirthTime", "PatientSex", "EthnicGroup", "PatientComments"),
    *("PatientSpeciesDescription", "PatientSpeciesCodeSequence", "PatientBreedDescription"),
    *("PatientBreedCodeSequence", "BreedRegistrationSequence", "ResponsiblePerson", "ResponsiblePersonRole"),
    *("ResponsibleOrganization", "PatientIdentityRemoved", "DeidentificationMethod"),
    *("DeidentificationMethodCodeSequence", "ClinicalTrialSponsorName", "ClinicalTrialProtocolID"),
    *("ClinicalTrialProtocolName", "ClinicalTrialSiteID", "ClinicalTrialSiteName", "ClinicalTrialSubjectID"),
    *("ClinicalTrialSubjectReadingID", "ClinicalTrialTimePointID"),
)
STUDY = (
    *("StudyInstanceUID", "StudyDate", "StudyTime", "ReferringPhysicianName", "StudyID", "AccessionNumber"),
    *("IssuerOfAccessionNumberSequence", "StudyDescription", "ProcedureCodeSequence", "PhysiciansOfRecord"),
    *("PatientAge", "PatientSize", "PatientWeight", "TimezoneOffsetFromUTC"),
)
EMPTY_IF_UNKNOWN = (
    *("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime"),
    *("ReferringPhysicianName", "StudyID", "AccessionNumber"),
)
"""Type 2: they must be there, but may be empty."""

MATCHED = ("PatientName", "PatientID", "StudyInstanceUID", "StudyID", "AccessionNumber")
"""What a PACS files by: kept to the letter, well-formed or not."""

EQUIPMENT = (
    *("Manufacturer", "InstitutionName", "StationName", "ManufacturerModelName", "DeviceSerialNumber"),
    *("SoftwareVersions",),
)
BODY = ("BodyPartExamined", "PatientPosition", "Laterality", "BurnedInAnnotation", "RecognizableVisualFeatures")
ACQUISITION_EQUIPMENT = ("109101", "DCM", "Acquisition Equipment")
PROCESSING_EQUIPMENT = ("109102", "DCM", "Processing Equipment")
MAKER = "nfops"
NOT_FOR_DIAGNOSIS = f"RESEARCH: made by nfops {__version__}, not for diagnostic use"
LONGEST_DESCRIPTION = 64
LARGEST_SERIES_NUMBER = 2**31 - 1


def copy_agreed(dataset: "Dataset", series: SourceSeries, keywords: Iterable[str]) -> None:
    """Copy what all sources agree on; what differs between them is true of none of the slices made from them."""
    for keyword in keywords:
        value = series.agreed(keyword)
        if value is not None and is_valid(keyword, value):
            setattr(dataset, keyword, value)


def set_subject(dataset: "Dataset", series: SourceSeries, texts: Iterable[str]) -> None:
    """The Patient and Study modules, as they are in the sources, so that a PACS files the object under them.

    texts: what else will be written; a text that is not ASCII makes the object UTF-8.
    """
    charset = series.first.get("SpecificCharacterSet")
    if not all(text.isascii() for text in texts):
        charset = "ISO_IR 192"
    if charset:
        dataset.SpecificCharacterSet = charset
    for keyword in (*PATIENT, *STUDY):
        if keyword in series.first and (keyword in MATCHED or is_valid(keyword, series.first[keyword].value)):
            dataset[keyword] = copy.deepcopy(series.first[keyword])
        elif keyword in EMPTY_IF_UNKNOWN:
            setattr(dataset, keyword, None)


def set_body_part(dataset: "Dataset", series: SourceSeries) -> None:
    """What was imaged and how the patient lay; empty where a viewer must know that nobody knows."""
    copy_agreed(dataset, series, BODY)
    if "PatientPosition" not in dataset:
        dataset.PatientPosition = None
    if not dataset.get("BodyPartExamined"):
        dataset.Laterality = dataset.get("Laterality")  # required for a paired organ, and this may be one
    elif "Laterality" in dataset and not dataset.Laterality:
        del dataset.Laterality


def set_frame_of_reference(dataset: "Dataset", series: SourceSeries) -> tuple[str, ...]:
    """The sources' frame of reference: nfops writes in their space. Returns a warning where they name none."""
    dataset.PositionReferenceIndicator = series.agreed("PositionReferenceIndicator") or None
    uid = series.first.get("FrameOfReferenceUID")
    dataset.FrameOfReferenceUID = uid or uid_of("frame of reference", str(series.first.SeriesInstanceUID))
    if uid:
        return ()
    return ("the sources have no FrameOfReferenceUID; one was made for what is derived from them",)


def set_equipment(dataset: "Dataset", series: SourceSeries, made: datetime) -> None:
    """General Equipment: nfops; Contributing: those before it, the scanner, nfops (PS3.3, C.7.5.1, C.12.1)."""
    from pydicom.dataset import Dataset

    dataset.Manufacturer = dataset.ManufacturerModelName = MAKER
    dataset.SoftwareVersions = __version__
    dataset.DeviceSerialNumber = __version__
    items = list(series.agreed("ContributingEquipmentSequence") or ())
    scanner = Dataset()
    copy_agreed(scanner, series, EQUIPMENT)
    if scanner.get("Manufacturer") and scanner.Manufacturer != MAKER:
        scanner.PurposeOfReferenceCodeSequence = [code_item(*ACQUISITION_EQUIPMENT)]
        items.append(scanner)
    nfops = Dataset()
    nfops.PurposeOfReferenceCodeSequence = [code_item(*PROCESSING_EQUIPMENT)]
    nfops.Manufacturer = nfops.ManufacturerModelName = MAKER
    nfops.SoftwareVersions = __version__
    nfops.ContributionDateTime = made.strftime("%Y%m%d%H%M%S")
    nfops.ContributionDescription = NOT_FOR_DIAGNOSIS
    dataset.ContributingEquipmentSequence = [*items, nfops]


def set_lossy_history(dataset: "Dataset", series: SourceSeries) -> None:
    """Say that loss once happened: it does not go away by writing uncompressed (PS3.3, C.7.6.1.1.5)."""
    if not series.is_lossy:
        copy_agreed(dataset, series, ("LossyImageCompression",))
        return
    dataset.LossyImageCompression = "01"
    method = LOSSY_METHODS.get(transfer_syntax(series.first))
    if method:
        dataset.LossyImageCompressionMethod = method
    for keyword in ("LossyImageCompressionRatio", "LossyImageCompressionMethod"):
        found = [header[keyword].value for header in series.headers if header.get(keyword)]
        if found:
            setattr(dataset, keyword, copy.deepcopy(found[0]))


def derived_series_number(series: SourceSeries, index: int) -> int:
    """The source's number times 100 plus `index` (B51), `index` alone where that is too large."""
    number = int(series.first.get("SeriesNumber") or 0) * 100 + index
    return number if 0 <= number <= LARGEST_SERIES_NUMBER else index


def time_of_making(series: SourceSeries, made: datetime | None) -> datetime:
    """`made` or now, on the clock that the sources' dates are on."""
    made = made or datetime.now(UTC)
    offset = re.fullmatch(r"([+-])([01]\d)([0-5]\d)", str(series.first.get("TimezoneOffsetFromUTC") or ""))
    if made.tzinfo is None:
        return made
    if not offset:
        return made.astimezone()
    away = timedelta(hours=int(offset[2]), minutes=int(offset[3]))
    return made.astimezone(timezone(-away if offset[1] == "-" else away))


def set_times(dataset: "Dataset", made: datetime) -> None:
    """Series, content and instance: all were made now."""
    date, time = made.strftime("%Y%m%d"), made.strftime("%H%M%S")
    for kind in ("Series", "Content", "InstanceCreation"):
        setattr(dataset, f"{kind}Date", date)
        setattr(dataset, f"{kind}Time", time)


def cut(text: str, longest: int, name: str = "", warnings: list[str] | None = None) -> str:
    """Within what an attribute holds, in bytes, as older readers count; a backslash would make it two values.

    name: of the attribute, for the warning that is then added.
    """
    text = " ".join(text.replace("\\", "/").split())
    encoded = text.encode()
    if len(encoded) <= longest:
        return text
    if warnings is not None:
        warnings.append(f"{name} was cut to {longest} bytes")
    return encoded[:longest].decode(errors="ignore").rstrip()
