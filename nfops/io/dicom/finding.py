"""Which DICOM files belong to what the user named: a file, a folder, a tree, a list; and which series they make."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from nfops.errors import InputError, NothingMatchedError, UsageError
from nfops.io.dicom.elements import PHILIPS_CREATOR, PHILIPS_SCALE, number, text, whole, words
from nfops.io.dicom.frames import Frame, kind_of_document, plain_frame, refuse_cut, refuse_unreadable, what_is_missing
from nfops.io.dicom.headers import read_header, refusing
from nfops.io.dicom.mosaics import is_siemens_mosaic, siemens_frames, uih_frames, uih_slices
from nfops.io.dicom.multiframe import enhanced_frames, frame_count, older_frames
from nfops.io.dicom.pixels import same_pixels, stored_range, stored_type
from nfops.io.dicom.stacks import Stack, find_stacks
from nfops.io.dicom.walking import dicom_files

if TYPE_CHECKING:
    from pydicom import Dataset


@dataclass(frozen=True)
class DicomFiles:
    """DICOM files that were named one by one and are one series. name: what messages and outputs call them.

    series: which of the volumes they hold, as in `Reading.series`; "" where there is only one.
    """

    name: Path
    files: tuple[Path, ...]
    series: str = ""

    def __str__(self) -> str:
        return f"{self.name}, series {self.series}" if self.series else str(self.name)


@dataclass(frozen=True, eq=False)
class Series:
    """One volume, 4-D perhaps, of one series, with what its files say of it. `uid` is the series's."""

    uid: str
    number: str
    description: str
    modality: str
    stack: Stack
    dtype: str
    stored_range: tuple[float, float]
    photometric: str
    padding: tuple[float, ...]
    patient_orientation: tuple[str, ...]
    datasets: "dict[Path, Dataset]"
    notes: tuple[str, ...]
    repetition_s: float

    def title(self) -> str:
        """`#5 "T1 MPRAGE" MR M 256x256x176`: number, description, modality, kind of image, shape."""
        kind = "/".join(word for word in self.stack.frames[0][0].kind[1:3] if word not in ("", "NONE"))
        shape = "x".join(map(str, self.stack.sizes))
        words = (f"#{self.number or '?'}", f'"{self.description}"', self.modality, kind, self.stack.label, shape)
        return " ".join(filter(None, words))


ONE_SERIES = ("SeriesInstanceUID", "StudyInstanceUID", "PatientID")
"""What the files of a series share: a series UID alone may have come twice out of a careless anonymiser."""


@dataclass(frozen=True, eq=False)
class Found:
    """What a folder holds. others: how many files are no DICOM; skipped: how many hold no image, by kind."""

    series: tuple[Series, ...]
    others: int
    skipped: dict[str, int]


def find(scan: Path | DicomFiles) -> Found:
    """The series of a file, a folder or a list."""
    if isinstance(scan, DicomFiles):
        return find_series(scan.name, scan.files)
    if scan.is_dir():
        files, seen = dicom_files(scan)
        return find_series(scan, files, seen)
    refuse_unreadable(scan, read_header(scan))
    return find_series(scan, [scan])


def find_series(where: object, files: Sequence[Path], seen: int = 0) -> Found:
    """The series of these files, in the order of their numbers; files that hold no image are counted.

    Raises:
        NothingMatchedError: none holds an image. InputError: a damaged file, slices that make no volume.
    """
    skipped: Counter[str] = Counter()
    groups: dict[tuple[str, ...], list[tuple[Path, Dataset]]] = {}
    for path in files:
        dataset = read_header(path)
        if not is_scan(dataset):
            refuse_cut(path, dataset)
            skipped[kind_of_document(dataset)] += 1
            continue
        groups.setdefault(tuple(text(dataset, word) for word in ONE_SERIES), []).append((path, dataset))
    if not groups:
        what = ", ".join(f"{count} {kind}" for kind, count in skipped.items())
        raise NothingMatchedError(where, f"no DICOM images ({max(seen, len(files))} files seen{what and ': ' + what})")
    found = [series for group in groups.values() for series in _volumes(where, group)]
    found.sort(key=lambda series: (int(series.number) if series.number.lstrip("-").isdigit() else 1 << 30, series.uid))
    return Found(tuple(found), max(0, seen - len(files)), dict(skipped))


def is_scan(dataset: "Dataset") -> bool:
    """Whether a file holds an image of its own, not marks on another's."""
    return what_is_missing(dataset) == ""


def choose_series(where: object, found: Found, wanted: str | None) -> Series:
    """The only series, or the wanted one: its place in the list, its UID or its number (with a leading #).

    Raises:
        InputError: several and none wanted, with the list (B31). UsageError: the wanted one is not there.
    """
    if wanted is None:
        if len(found.series) == 1:
            return found.series[0]
        what = f"holds {len(found.series)} series: {listing(found.series)}"
        raise InputError(where, what, "choose one with --series N; `nfops apply` takes all with --series all")
    matching = [s for i, s in enumerate(found.series, start=1) if wanted in (str(i), s.uid, f"#{s.number}")]
    if len(matching) == 1:
        return matching[0]
    what = f"{len(matching) or 'none'} of the series is {wanted}" if not matching else f"{len(matching)} are {wanted}"
    raise UsageError(where, f"{what}: {listing(found.series)}", "name one by its place in this list: --series N")


def listing(series: Iterable[Series]) -> str:
    """The series in one line, each with the number that --series takes."""
    return "; ".join(f"{i}: {each.title()}" for i, each in enumerate(series, start=1))


def frames_of(path: Path, dataset: "Dataset") -> list[Frame]:
    """The slices that a file holds, whatever way it holds them."""
    with refusing(path, "damaged DICOM header"):
        return _frames_of(path, dataset)


def _frames_of(path: Path, dataset: "Dataset") -> list[Frame]:
    if dataset.get("PerFrameFunctionalGroupsSequence"):
        return enhanced_frames(path, dataset)
    if frame_count(path, dataset) > 1:
        return older_frames(path, dataset)
    if is_siemens_mosaic(dataset):
        return siemens_frames(path, dataset)
    grid = uih_slices(dataset)
    return uih_frames(path, dataset, grid) if grid else [plain_frame(path, dataset)]


def _volumes(where: object, group: "list[tuple[Path, Dataset]]") -> list[Series]:
    frames = [frame for path, dataset in group for frame in frames_of(path, dataset)]
    stacks, notes = find_stacks(where, frames, same_pixels)
    datasets = dict(group)
    return [_series(stack, datasets, tuple(notes)) for stack in stacks]


def _series(stack: Stack, datasets: "dict[Path, Dataset]", notes: tuple[str, ...]) -> Series:
    own = {path: datasets[path] for path in stack.files}
    first = next(iter(own.values()))
    return Series(
        uid=text(first, "SeriesInstanceUID"),
        number=text(first, "SeriesNumber"),
        description=" ".join(text(first, "SeriesDescription").split()),
        modality=text(first, "Modality"),
        stack=stack,
        dtype=stored_type(first),
        stored_range=stored_range(first),
        photometric=text(first, "PhotometricInterpretation") or "MONOCHROME2",
        padding=_padding(first),
        patient_orientation=words(first, "PatientOrientation"),
        datasets=own,
        notes=(*notes, *_private_scale(first), *_wide_steps(stack), *_lost(stack)),
        repetition_s=_repetition_s(first, stack),
    )


def _private_scale(dataset: "Dataset") -> tuple[str, ...]:
    """A note where Philips keeps a scale of its own, which some converters apply and the standard does not (B38)."""
    if PHILIPS_SCALE not in dataset or not str(dataset.get(PHILIPS_CREATOR, "")).count("Philips"):
        return ()
    return ("values are those of the standard's rescale: Philips's private scale slope is not applied",)


def _wide_steps(stack: Stack) -> tuple[str, ...]:
    """A note where slices lie much further apart than the files say: every second one may be missing."""
    stated, heights = stack.frames[0][0].thickness_mm, stack.heights_mm
    if not stack.is_oriented or len(heights) < 2 or not stated:
        return ()
    step = float(np.median(np.diff(heights)))
    if step < 1.5 * stated:
        return ()
    return (f"slices are {step:.4g} mm apart, the files say {stated:.4g}: are some missing?",)


def _repetition_s(dataset: "Dataset", stack: Stack) -> float:
    """Seconds from one volume to the next where an echo-planar sequence says it, else 0: not known."""
    is_series = len(stack.frames) > 1 and len({volume[0].echo_ms for volume in stack.frames}) == 1
    is_planar = "EP" in words(dataset, "ScanningSequence")
    return (number(dataset, "RepetitionTime") or 0.0) / 1000 if is_series and is_planar else 0.0


def _lost(stack: Stack) -> tuple[str, ...]:
    """A note on what 4-D images cannot say."""
    if len(stack.frames) == 1:
        return ()
    return ("the fourth axis is in the order of acquisition: b-values and times of its volumes are not kept",)


def _padding(dataset: "Dataset") -> tuple[float, ...]:
    """The stored values that are no measurement; some scanners write signed ones as if they were unsigned."""
    found = (number(dataset, word) for word in ("PixelPaddingValue", "PixelPaddingRangeLimit"))
    lowest, highest = stored_range(dataset)
    turn = 2.0 ** whole(dataset, "BitsAllocated", 16)
    wrapped = ((v - turn if v > highest else v + turn if v < lowest else v, v) for v in found if v is not None)
    return tuple(turned if lowest <= turned <= highest else value for turned, value in wrapped)
