"""DICOM files on disk (PS3.10): explicit VR little endian, written with nfops' own preamble, read back at once."""

from pathlib import Path
from typing import TYPE_CHECKING

from nfops.errors import OutputError
from nfops.io.dicom.writing.content_uids import uid_of

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

IMPLEMENTATION_VERSION = "NFOPS"


def write_part10(path: Path, header: "Dataset", pixels: bytes, pixel_vr: str = "OW") -> None:
    """Write a header and its pixels as a file; `pixel_vr` is "OB" for pixels of less than 16 bits."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian

    dataset = Dataset()
    dataset.update(header)
    meta = dataset.file_meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = dataset.SOPClassUID, dataset.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = uid_of("implementation", "nfops")
    meta.ImplementationVersionName = IMPLEMENTATION_VERSION
    dataset.add_new("PixelData", pixel_vr, pixels)
    dataset.save_as(path, enforce_file_format=True)


def read_back(path: Path, uid: str, pixels: bytes) -> None:
    """Raise OutputError unless the file holds these pixels under this UID."""
    import pydicom

    written = pydicom.dcmread(path)
    if written.SOPInstanceUID != uid or written.PixelData != pixels:
        raise OutputError(path, "what was written cannot be read back")
