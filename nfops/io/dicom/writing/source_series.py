"""The headers of the files that an image came from, and what they agree on."""

import copy
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nfops.errors import InputError, NotFoundError, UsageError

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

NEEDED = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")
SAME_IN_ALL = ("StudyInstanceUID", "PatientID", "FrameOfReferenceUID", "SOPClassUID")
LOSSY_METHODS = {
    "1.2.840.10008.1.2.4.50": "ISO_10918_1",
    "1.2.840.10008.1.2.4.51": "ISO_10918_1",
    "1.2.840.10008.1.2.4.81": "ISO_14495_1",
    "1.2.840.10008.1.2.4.91": "ISO_15444_1",
    "1.2.840.10008.1.2.4.93": "ISO_15444_1",
    "1.2.840.10008.1.2.4.203": "ISO_15444_15",
}
"""Transfer syntaxes that may lose something, and what Lossy Image Compression Method calls them."""


@dataclass(frozen=True, eq=False)
class SourceSeries:
    """Headers without pixels, ordered by instance, of one patient, study and frame of reference."""

    headers: tuple["Dataset", ...]

    @property
    def first(self) -> "Dataset":
        """The header that stands for all in what must be the same in all."""
        return self.headers[0]

    @property
    def sop_class(self) -> str:
        """SOP Class UID of the files."""
        return str(self.first.SOPClassUID)

    def agreed(self, keyword: str) -> Any:
        """A copy of the value that all files, and all frames of a multi-frame file, agree on; None without one."""
        values = [value for header in self.headers for value in _values(header, keyword)]
        is_agreed = bool(values) and all(value == values[0] for value in values[1:])
        return copy.deepcopy(values[0]) if is_agreed else None

    @property
    def is_lossy(self) -> bool:
        """Whether any of the files has ever been compressed with loss."""
        return any(_is_lossy(header) for header in self.headers)


def read_sources(paths: Sequence[Path]) -> SourceSeries:
    """Read the headers of the files that an image came from, in any order.

    Raises:
        UsageError: no path. NotFoundError: no such file. InputError: not DICOM, or of several patients, studies,
        frames of reference or kinds.
    """
    if not paths:
        raise UsageError("DICOM", "a derived series needs the files that it was made from")
    headers = sorted((_header(path) for path in paths), key=_order)
    for keyword in SAME_IN_ALL:
        found = {str(header.get(keyword, "")) for header in headers}
        if len(found) > 1:  # never the values: they may name the patient (B45)
            what = f"the sources have {len(found)} different values of {keyword}, expected one"
            raise InputError(paths[0].parent, what, "give the files of one series")
    return SourceSeries(tuple(headers))


def _header(path: Path) -> "Dataset":
    import pydicom
    from pydicom.errors import InvalidDicomError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # odd values in old files are the reader's concern, not the writer's
            header = pydicom.dcmread(path, stop_before_pixels=True)
            header.remove_private_tags()
            header.decode()
    except FileNotFoundError as error:
        raise NotFoundError(path, "no such file") from error
    except (InvalidDicomError, OSError, EOFError, ValueError, AttributeError, KeyError) as error:
        raise InputError(path, "is not a DICOM file that can be read") from error
    missing = [keyword for keyword in NEEDED if not header.get(keyword)]
    if missing:
        raise InputError(path, f"has no {', '.join(missing)}")
    return header


def _order(header: "Dataset") -> tuple[str, int, str]:
    number = header.get("InstanceNumber")
    return str(header.SeriesInstanceUID), int(number) if number else 0, str(header.SOPInstanceUID)


def functional_groups(header: "Dataset") -> Iterator["Dataset"]:
    """The items of the functional groups of a multi-frame header: the shared ones, then those of each frame."""
    for name in ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"):
        yield from header.get(name) or ()


def _values(header: "Dataset", keyword: str) -> Iterator[Any]:
    if keyword in header:
        yield header[keyword].value
        return
    for group in functional_groups(header):
        for element in group:
            if element.VR == "SQ" and element.value and keyword in element.value[0]:
                yield element.value[0][keyword].value


def _is_lossy(header: "Dataset") -> bool:
    return header.get("LossyImageCompression") == "01" or transfer_syntax(header) in LOSSY_METHODS


def transfer_syntax(header: "Dataset") -> str:
    """The UID of how the file's pixels are encoded."""
    return str(header.file_meta.get("TransferSyntaxUID", ""))
