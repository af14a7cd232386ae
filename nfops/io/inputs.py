"""Which scans a command works on, and where each result goes: decided before anything starts."""

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO, TypeAlias, TypeVar

from nfops.errors import InputError, NotFoundError, NothingMatchedError, OutputError, UsageError
from nfops.io.dicom.finding import DicomFiles
from nfops.io.dicom.headers import is_dicom
from nfops.io.dicom.splitting import split_series, split_volumes
from nfops.io.dicom.walking import dicom_files, has_dicom
from nfops.io.formats import is_text, output_stem, suffix_of
from nfops.io.opening import is_folder
from nfops.io.piped import PipedScan

MIRROR = "--mirror keeps their folders apart"
Item = TypeVar("Item")
Scan: TypeAlias = Path | DicomFiles
"""One input: a file, a folder that is one DICOM scan, or DICOM files that were named one by one."""


@dataclass(frozen=True)
class Wanted:
    """signals: of folders their text files too, which beside images are tables and notes. all_series: every series of
    a DICOM folder is a scan of its own. is_null_separated: the names of a list end with NUL, as `find -print0` has it.
    """

    signals: bool = False
    all_series: bool = False
    is_null_separated: bool = False


def list_inputs(
    inputs: Sequence[str],
    batch: str | None = None,
    stdin: TextIO | None = None,
    shard: tuple[int, int] | None = None,
    *,
    wanted: Wanted | None = None,
    on_empty: Callable[[Path], None] = lambda _: None,
) -> list[Scan]:
    """The scans to work on, sorted, each once.

    inputs: files, taken as given, and folders: one with DICOM files in it or below it is a scan, as everywhere; of any
    other the image files are taken (not hidden, not in folders below).
    batch: a file with one path a line, or "-" for `stdin`; of its folders only what is directly in them counts, and
    one without images is skipped and told to `on_empty`: `find -type d` names the folders above, too.
    DICOM files, wherever they are named, make one scan for each series. shard: (index, count), this part of the
    sorted list only; it may be empty.

    Raises:
        NothingMatchedError: no input at all. NotFoundError: no such list. UsageError: an empty name.
    """
    how = wanted or Wanted()
    found: list[Scan] = []
    for name in inputs:
        if not name:
            raise NotFoundError("input", "an empty file name")
        found += _named(Path(name), how)
    if batch is not None:
        for line in _lines(batch, stdin, "\0" if how.is_null_separated else "\n"):
            here = _listed(Path(line), how)
            if not here:
                on_empty(Path(line))
            found += here
    scans = _with_series(found, how)
    if not scans:
        where = "standard input" if batch == "-" else batch or ", ".join(inputs)
        raise NothingMatchedError(where, "no input images", "" if where else "name files, folders or --batch LIST")
    return take_shard(scans, shard)


def _named(path: Path, how: Wanted) -> list[Scan]:
    """What an argument stands for."""
    if not is_folder(path) or has_dicom(path):
        return [path]
    return [*_files_in(path, how.signals)]


def _listed(path: Path, how: Wanted) -> list[Scan]:
    """What a line of a list stands for."""
    if not is_folder(path):
        return [path]
    files, _ = dicom_files(path, is_deep=False)
    return [DicomFiles(path, tuple(files))] if files else [*_files_in(path, how.signals)]


def _with_series(found: Sequence[Scan], how: Wanted) -> list[Scan]:
    """Each scan once, sorted; single DICOM files gathered to series, folders parted into theirs if that is wanted."""
    single = dict.fromkeys(scan for scan in found if isinstance(scan, Path))
    instances = [path for path in single if not is_folder(path) and is_dicom(path)]
    others = [path for path in single if path not in set(instances)]
    scans: list[Scan] = [*others, *(scan for scan in found if isinstance(scan, DicomFiles)), *split_series(instances)]
    if how.all_series:
        scans = [part for scan in scans for part in split_volumes(scan)]
    return sorted(dict.fromkeys(scans), key=str)


def paths_of(scan: Scan | PipedScan) -> tuple[Path, ...]:
    """The files, or the folder, that a scan is."""
    if isinstance(scan, PipedScan):
        return (scan.file,)
    return scan.files if isinstance(scan, DicomFiles) else (scan,)


def refuse_inside(output: Path, inputs: Iterable[Path]) -> None:
    """Raise OutputError for an output within a folder that is an input: it would be part of it the next time."""
    inside = output.resolve().parents
    for path in inputs:
        if is_folder(path) and path.resolve() in inside:
            raise OutputError(output, f"lies in the input {path}", "choose another folder")


def parse_shard(text: str) -> tuple[int, int]:
    """Read "3/16" as (3, 16); UsageError unless 0 <= 3 < 16."""
    index, _, count = text.partition("/")
    if not (index.isascii() and index.isdigit() and count.isascii() and count.isdigit()):
        raise UsageError("--shard", f"expected INDEX/COUNT like 3/16, got {text!r}")
    shard = (int(index), int(count))
    _check_shard(shard)
    return shard


def take_shard(items: Sequence[Item], shard: tuple[int, int] | None) -> list[Item]:
    """Items I, I+N, I+2N... of a list for the shard (I, N); all of them without one."""
    if shard is None:
        return list(items)
    _check_shard(shard)
    return list(items[shard[0] :: shard[1]])


def plan_outputs(
    inputs: Sequence[Scan],
    out: Path | None,
    out_dir: Path | None,
    ending: str | None = None,
    *,
    is_mirrored: bool = False,
) -> list[tuple[Scan, Path]]:
    """(input, output) for every input: `out` for a single one, else its own name and format in `out_dir`.

    An input whose name is none that nfops writes (a folder of slices, a DICOM file) becomes NAME.nii.gz.
    ending: every output gets this suffix instead, "" for none. is_mirrored: `out_dir` gets the folders that the
    inputs have below the deepest one that holds them all.

    Raises:
        UsageError: both or none given, several inputs for one `out`, or two outputs that would share a file or a
        sidecar.
    """
    if (out is None) == (out_dir is None):
        raise UsageError("output", "expected exactly one of --out and --out-dir")
    if out is not None:
        if len(inputs) != 1:
            raise UsageError("--out", f"takes one input, got {len(inputs)}", "use --out-dir")
        return [(inputs[0], out)]
    assert out_dir is not None  # noqa: S101
    folders = _mirrored(inputs) if is_mirrored else [Path()] * len(inputs)
    plan = [(scan, out_dir / at / _output_name(scan, ending)) for scan, at in zip(inputs, folders, strict=True)]
    _refuse_clashes(plan)
    return plan


def _mirrored(inputs: Sequence[Scan]) -> list[Path]:
    """Where each input is below the deepest folder that holds them all."""
    names = [(scan.name if isinstance(scan, DicomFiles) else scan).absolute() for scan in inputs]
    above = [Path(os.path.normpath(name)).parent for name in names]
    top = os.path.commonpath(above) if above else ""
    return [folder.relative_to(top) for folder in above]


def _output_name(scan: Scan, ending: str | None) -> str:
    path = scan.name if isinstance(scan, DicomFiles) else scan
    name = path.name or path.absolute().name  # "." has no name of its own
    if ending is not None:
        return f"{output_stem(path) if suffix_of(path) else name}{ending}"
    if suffix_of(path) == ".dcm":
        return f"{output_stem(path)}.nii.gz"
    return name if suffix_of(path) else f"{name}.nii.gz"


def _refuse_clashes(plan: Iterable[tuple[Scan, Path]]) -> None:
    owners: dict[str, Scan] = {}
    for source, output in plan:
        # by stem, for the sidecar; in lower case, because some file systems do not tell the cases apart
        stem = str(output.with_name(output_stem(output))).lower()
        other = owners.setdefault(stem, source)
        if other is not source:
            raise UsageError(output, f"two inputs lead to this output or its sidecar: {other} and {source}", MIRROR)


def _check_shard(shard: tuple[int, int]) -> None:
    index, count = shard
    if not 0 <= index < count:
        raise UsageError("--shard", f"expected 0 <= INDEX < COUNT, got {index}/{count}")


def _files_in(directory: Path, signals: bool) -> list[Path]:
    try:
        entries = list(directory.iterdir())
    except OSError as error:
        raise InputError(directory, f"cannot be read: {error.strerror}") from error
    known = [entry for entry in entries if suffix_of(entry) and (signals or not is_text(entry))]
    return [entry for entry in known if not entry.name.startswith(".") and entry.is_file()]


def _lines(batch: str, stdin: TextIO | None, end: str) -> list[str]:
    """The paths of a list; names may hold spaces and bytes that are no UTF-8."""
    if batch == "-":
        if stdin is None:
            raise UsageError("--batch", "there is no standard input to read the list from")
        text = stdin.read()
    else:
        try:
            text = Path(batch).read_text(encoding="utf-8-sig", errors="surrogateescape")
        except FileNotFoundError as error:
            raise NotFoundError(batch, "no such file") from error
        except OSError as error:
            raise InputError(batch, f"cannot be read: {error.strerror}") from error
    if end == "\0" and "\0" not in text and "\n" in text:
        raise UsageError("--null", "the names of the list end with newlines, not with NUL", "leave -0 out")
    return [line for line in text.split(end) if line.strip()]
