"""What a segmentation refers to: highdicom wants one plain image for each plane, sources may be anything.

So highdicom is given stand-ins that lie exactly where the labels are, one for each slice, and what it then says
about them is replaced by references to the real sources: slices on another grid, mosaics, frames.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from nfops.io.dicom.writing.content_uids import uid_of
from nfops.io.dicom.writing.derived_header import EMPTY_IF_UNKNOWN, set_frame_of_reference
from nfops.io.dicom.writing.modality_modules import MR, SECONDARY_CAPTURE
from nfops.io.dicom.writing.slice_geometry import SliceStack, remove_place, set_geometry
from nfops.io.dicom.writing.source_planes import contributing_planes, source_image_items, source_planes
from nfops.io.dicom.writing.source_series import SourceSeries

if TYPE_CHECKING:
    from pydicom.dataset import Dataset


def reference_images(series: SourceSeries, stack: SliceStack, is_oriented: bool) -> list["Dataset"]:
    """Stand-ins for highdicom: headers of single-frame images, one on each slice, of a patient without a name.

    The patient's own name stays out of highdicom's hands, whose warnings quote what they find odd in it (B45).
    """
    from pydicom.dataset import Dataset

    images = []
    for index in range(stack.shape[2]):
        image = Dataset()
        for keyword in EMPTY_IF_UNKNOWN:
            setattr(image, keyword, None)
        image.StudyInstanceUID = series.first.StudyInstanceUID
        image.SOPClassUID, image.Modality = (MR.sop_class if is_oriented else SECONDARY_CAPTURE), MR.modality
        image.SOPInstanceUID = uid_of("stand-in", str(index))
        image.SeriesInstanceUID, image.InstanceNumber = series.first.SeriesInstanceUID, index + 1
        set_geometry(image, stack, index, stack.spacing_mm[2])
        if is_oriented:
            set_frame_of_reference(image, series)
        else:
            remove_place(image)
            del image.PixelSpacing  # readers want it only with a slice thickness, and a picture has none
        images.append(image)
    return images


def refer_to_sources(
    segmentation: "Dataset", references: Sequence["Dataset"], series: SourceSeries, stack: SliceStack
) -> None:
    """Replace every reference to a stand-in by the sources whose planes its slice meets."""
    planes = contributing_planes(source_planes(series), stack)
    of_reference = {str(r.SOPInstanceUID): chosen for r, chosen in zip(references, planes, strict=True)}
    frames = list(segmentation.PerFrameFunctionalGroupsSequence)
    for derivation in (item for frame in frames for item in frame.DerivationImageSequence):
        stand_in = str(derivation.SourceImageSequence[0].ReferencedSOPInstanceUID)
        # one frame for each item: readers, highdicom among them, do not take several
        derivation.SourceImageSequence = [
            item for plane in of_reference[stand_in] for item in source_image_items([plane])
        ]
    segmentation.SourceImageSequence = _plain_references(series)
    segmentation.ReferencedSeriesSequence = _by_series(series)


def _plain_references(series: SourceSeries, uid: str = "") -> list["Dataset"]:
    """References to the whole files of all series, or of the one named."""
    from pydicom.dataset import Dataset

    items = []
    for header in series.headers:
        if uid in ("", str(header.SeriesInstanceUID)):
            item = Dataset()
            item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = header.SOPClassUID, header.SOPInstanceUID
            items.append(item)
    return items


def _by_series(series: SourceSeries) -> list["Dataset"]:
    """Items of the Common Instance Reference module (PS3.3, C.12.2)."""
    from pydicom.dataset import Dataset

    items = []
    for uid in dict.fromkeys(str(header.SeriesInstanceUID) for header in series.headers):
        item = Dataset()
        item.SeriesInstanceUID, item.ReferencedInstanceSequence = uid, _plain_references(series, uid)
        items.append(item)
    return items
