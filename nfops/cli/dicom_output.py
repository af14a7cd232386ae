"""`--dicom`: outputs as a derived DICOM series, labels as a segmentation."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nfops.cli.jobs import Job
    from nfops.rendering import Rendering

SEGMENTATION = ".dcm"


@dataclass(frozen=True)
class DicomOutput:
    """What a DICOM output says of how it was made.

    description: of the series. derivation: a sentence. settings: what else tells it from other results of the same
    scan. is_same_contrast: a mere resampling. labels: the name of each label, None for intensities.
    """

    description: str
    derivation: str
    settings: str
    is_same_contrast: bool
    labels: Mapping[int, str] | None = None

    @property
    def ending(self) -> str:
        """The suffix of an output: a series is a folder, labels are one file."""
        return "" if self.labels is None else SEGMENTATION


def check_dicom_outputs(jobs: "Sequence[Job]", how: DicomOutput, force: bool) -> None:
    """Refuse, before anything is computed, names and places that no DICOM output can have."""
    from nfops.errors import UsageError
    from nfops.io.dicom.writing.derived import refuse_series
    from nfops.io.formats import suffix_of
    from nfops.io.inputs import paths_of

    for job in jobs:
        suffix = suffix_of(job.output)
        if how.labels is None:
            if suffix:
                raise UsageError(job.output, "a DICOM series is a folder of files", f"name it without {suffix}")
            refuse_series(job.output, paths_of(job.source), force)
        elif suffix != SEGMENTATION:
            raise UsageError(job.output, "a DICOM segmentation is one file", f"name it NAME{SEGMENTATION}")


def refuse_as_dicom(source: object, kind: str, channels: int) -> None:
    """Raise UsageError, before anything is computed, for an input from which no series can be derived."""
    from nfops.errors import UsageError

    if kind != "dicom":
        what = f"a series is derived from DICOM files, {source} is none"
        raise UsageError("--dicom", what, "leave it out, or name the folder of the series")
    if channels > 1:
        raise UsageError("--dicom", f"a series holds one volume, {source} has {channels}", "choose one with --volume")


def write_dicom(job: "Job", drawn: "Rendering", how: DicomOutput, force: bool) -> tuple[str, ...]:
    """Write the folder or the file, whole or not at all; returns warnings."""
    from nfops.io.dicom.writing.derived import DerivedOptions, save_series
    from nfops.io.dicom.writing.segmentation import SegmentationOptions, save_segmentation

    files = drawn.header.files
    if how.labels is not None:
        wanted = SegmentationOptions(how.description, how.description, settings=how.settings, force=force)
        return save_segmentation(job.output, drawn.image(), files, how.labels, wanted)
    same = how.is_same_contrast
    options = DerivedOptions(how.description, how.derivation, same, same, settings=how.settings, force=force)
    return save_series(job.output, drawn.image(), files, options)


def remove_dicom(output: Path) -> None:
    """Take back what `write_dicom` wrote."""
    if output.is_dir():
        shutil.rmtree(output, ignore_errors=True)
    else:
        output.unlink(missing_ok=True)
