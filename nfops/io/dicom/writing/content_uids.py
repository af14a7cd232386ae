"""UIDs that are functions of what they name: the same content has the same UIDs, other content has others."""

import copy
import hashlib
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

TIMES_OF_MAKING = (
    *("InstanceCreationDate", "InstanceCreationTime", "ContentDate", "ContentTime"),
    *("SeriesDate", "SeriesTime", "ContributionDateTime"),
)


def uid_of(*parts: str) -> str:
    """A UID "2.25." and 128 bits of the digest of the parts (PS3.5, B.2), valid as a name-based UUID."""
    digest = bytearray(hashlib.sha256("\0".join(parts).encode()).digest()[:16])
    digest[6] = digest[6] & 0x0F | 0x80  # version 8 of RFC 9562: a digest of one's own choice
    digest[8] = digest[8] & 0x3F | 0x80
    return f"2.25.{int.from_bytes(digest)}"


def content_digest(headers: Iterable["Dataset"], pixels: Iterable[bytes], settings: str) -> str:
    """Hex digest of headers without UIDs of their own, of pixels and of settings.

    The times of making are left out: the same run of tomorrow is the same content.
    """
    digest = hashlib.sha256(settings.encode())
    for header, block in zip(headers, pixels, strict=True):
        for part in (_encoded(header), block):
            digest.update(len(part).to_bytes(8))
            digest.update(part)
    return digest.hexdigest()


def _encoded(header: "Dataset") -> bytes:
    from pydicom.filebase import DicomBytesIO
    from pydicom.filewriter import write_dataset

    timeless = copy.deepcopy(header)
    for dataset in (timeless, *timeless.get("ContributingEquipmentSequence", ())):
        for keyword in TIMES_OF_MAKING:
            if keyword in dataset:
                delattr(dataset, keyword)
    file = DicomBytesIO()
    file.is_little_endian, file.is_implicit_VR = True, False
    write_dataset(file, timeless)
    return bytes(file.getvalue())
