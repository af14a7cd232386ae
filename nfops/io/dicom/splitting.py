"""Splitting what was named into scans: the series of files, the volumes of a series."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from nfops.errors import NfopsError
from nfops.io.dicom.elements import text
from nfops.io.dicom.finding import DicomFiles, find
from nfops.io.dicom.headers import refusing


def split_series(files: Sequence[Path]) -> list[Path | DicomFiles]:
    """DICOM files that were named one by one, as one scan for each series; a file that is alone stays itself."""
    groups: dict[str, list[Path]] = {}
    numbers: dict[str, str] = {}
    for path in files:
        uid, series_number = _series_of(path)
        groups.setdefault(uid or str(path), []).append(path)
        numbers[uid] = series_number
    scans: list[Path | DicomFiles] = [group[0] for group in groups.values() if len(group) == 1]
    many = {uid: group for uid, group in groups.items() if len(group) > 1}
    folders = Counter(group[0].parent for group in many.values())
    for uid, group in many.items():
        folder = group[0].parent
        is_alone = folders[folder] == 1
        name = folder if is_alone else folder / f"{folder.absolute().name}_{numbers[uid] or uid.rpartition('.')[2]}"
        scans.append(DicomFiles(name, tuple(sorted(group))))
    return scans


def split_volumes(scan: Path | DicomFiles) -> list[Path | DicomFiles]:
    """Each volume of a DICOM scan as a scan of its own, named after the folder and the number of its series.

    What is no DICOM, or cannot be read, stays as it is: reading it will say why.
    """
    try:
        found = find(scan)
    except NfopsError:
        return [scan]
    if len(found.series) == 1:
        return [scan]
    base = scan.name if isinstance(scan, DicomFiles) else scan
    parts: list[Path | DicomFiles] = []
    for uid in dict.fromkeys(series.uid for series in found.series):
        volumes = [series for series in found.series if series.uid == uid]
        files = tuple(dict.fromkeys(path for series in volumes for path in series.stack.files))
        for place, series in enumerate(volumes, start=1):
            label = series.number or uid.rpartition(".")[2]
            label = label if len(volumes) == 1 else f"{label}-{place}"
            name = base.with_name(f"{_stem(base)}_{label}")
            parts.append(DicomFiles(name, files, str(place) if len(volumes) > 1 else ""))
    return _distinctly_named(parts)


def _series_of(path: Path) -> tuple[str, str]:
    """(UID, number) of the series of a file; ("", "") where it cannot be read, which reading it will explain."""
    import pydicom

    wanted = ["SeriesInstanceUID", "SeriesNumber"]
    try:
        with refusing(path, "damaged"):
            found = pydicom.dcmread(path, force=True, stop_before_pixels=True, specific_tags=wanted)
            return text(found, "SeriesInstanceUID"), text(found, "SeriesNumber")
    except NfopsError:
        return "", ""


def _stem(path: Path) -> str:
    name = path.absolute().name
    return path.stem if path.suffix.lower() == ".dcm" else name


def _distinctly_named(parts: list[Path | DicomFiles]) -> list[Path | DicomFiles]:
    """Two series of one number get a letter more, in their order."""
    seen: Counter[Path] = Counter()
    named: list[Path | DicomFiles] = []
    for part in parts:
        if isinstance(part, DicomFiles):
            seen[part.name] += 1
            again = seen[part.name]
            named.append(part if again == 1 else replace(part, name=part.name.with_name(f"{part.name.name}-{again}")))
    return named
