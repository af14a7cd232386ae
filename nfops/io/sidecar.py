"""The provenance of an output: `NAME.json` beside it, after BIDS; no paths, nothing about the patient."""

import importlib.metadata
import json
import platform
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from nfops import __version__
from nfops.errors import OutputError
from nfops.grid import Grid
from nfops.io.dicom.finding import DicomFiles
from nfops.io.digest import sha256_of_all
from nfops.io.formats import output_stem
from nfops.io.piped import DASH, PipedScan
from nfops.io.publish import Together, publishing


@dataclass(frozen=True)
class FileRecord:
    """A file, or a scan of several, by name and content, and where its voxels are.

    units: those of its values, "" if not known.
    """

    name: str
    sha256: str
    grid: Grid
    units: str = ""

    @classmethod
    def of(
        cls, scan: Path | DicomFiles | PipedScan, grid: Grid, units: str = "", files: Sequence[Path] = ()
    ) -> "FileRecord":
        """Digest a file, or the `files` that a scan was read from; only its name is kept, not its folder."""
        if isinstance(scan, PipedScan):
            return cls(str(scan), sha256_of_all([scan.file]), grid, units)
        several = files or (scan.files if isinstance(scan, DicomFiles) else (scan,))
        is_file = isinstance(scan, Path) and not scan.is_dir()
        name = scan.name if is_file else f"{len(several)} DICOM files"  # folders are named after patients
        return cls(str(name), sha256_of_all(several), grid, units)


@dataclass(frozen=True)
class Provenance:
    """How an output came about.

    command: argv; paths in it are replaced when it is written. inputs: the paths in it that are inputs. sources,
    output: what was read and written. recipe: its name and the digest of its file, the method. bundle_sha256, engine
    ("numpy", "onnx", "torch"), device ("cuda:0"), precision ("float32", TF32 or not), seed, warnings as shown to the
    user. quality: how like the training scans the scan is, in words like `source_residual`. started, ended: with a
    zone.
    """

    command: tuple[str, ...]
    inputs: tuple[str, ...]
    sources: tuple[FileRecord, ...]
    output: FileRecord
    started: datetime
    ended: datetime
    recipe: Mapping[str, Any] | None = None
    bundle_sha256: str | None = None
    engine: str | None = None
    device: str = "cpu"
    precision: str = "float32"
    seed: int | None = None
    warnings: tuple[str, ...] = ()
    quality: Mapping[str, Any] | None = None


def sidecar_path(output: Path) -> Path:
    """The sidecar of "t2.nii.gz" is "t2.json" in the same directory."""
    return output.with_name(f"{output_stem(output)}.json")


def refuse_foreign_sidecar(output: Path) -> None:
    """Raise OutputError where the sidecar's place is taken by a JSON that nfops did not write, a converter's say."""
    path = sidecar_path(output)
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return  # not there; what else may be wrong with the place, `refuse_existing` says
    if '"Name": "nfops"' not in text:
        raise OutputError(
            path, "is where the sidecar would be, and nfops did not write it", "choose another output name"
        )


def write_sidecar(output: Path, record: Provenance, force: bool = False, together: Together | None = None) -> Path:
    """Write the sidecar of an output, whole or not at all; OutputError if it exists and `force` is not set."""
    path = sidecar_path(output)
    text = json.dumps(document(record, output), indent=2, ensure_ascii=False, allow_nan=False)
    with publishing(path, force, together=together) as temporary:
        temporary.write_text(f"{text}\n", encoding="utf-8", errors="backslashreplace")
    return path


def document(record: Provenance, output: Path) -> dict[str, Any]:
    """The sidecar as a mapping with BIDS-like keys."""
    command = anonymous_command(record.command, record.inputs, str(output))
    return {
        "GeneratedBy": [{"Name": "nfops", "Version": __version__, "Command": command}],
        "Sources": [_file_entry(source) for source in record.sources],
        "Output": {**_file_entry(record.output), **_position_entry(record.output)},
        "Recipe": None if record.recipe is None else dict(record.recipe),
        "Bundle": record.bundle_sha256,
        "Engine": record.engine,
        "Device": record.device,
        "Precision": record.precision,
        "Seed": record.seed,
        "Warnings": list(record.warnings),
        "Quality": None if record.quality is None else _in_bids_words(record.quality),
        "Start": record.started.isoformat(timespec="seconds"),
        "End": record.ended.isoformat(timespec="seconds"),
        "Versions": _versions(),
    }


def anonymous_command(argv: Sequence[str], inputs: Sequence[str], output: str) -> list[str]:
    """The words of a command without paths: INPUT[i] and OUTPUT for the files, base names for all others."""
    names = {Path(output): "OUTPUT", **{Path(name): f"INPUT[{i}]" for i, name in enumerate(inputs)}}
    command = []
    for word in argv:
        if word == DASH:
            command.append(word)
            continue
        option, equals, value = word.partition("=") if word.startswith("-") else ("", "", word)
        if word.startswith("-") and not equals and "/" in word:  # a short option with its value attached: -o/home/me/x
            option, value = word[:2], word[2:]
        command.append(f"{option}{equals}{names.get(Path(value), Path(value).name if '/' in value else value)}")
    return command


def _in_bids_words(record: Mapping[str, Any]) -> dict[str, Any]:
    """source_residual -> SourceResidual."""
    return {"".join(map(str.capitalize, key.split("_"))): value for key, value in record.items()}


def _file_entry(record: FileRecord) -> dict[str, Any]:
    grid = record.grid
    return {"name": record.name, "sha256": record.sha256, "shape": list(grid.shape), "affine": grid.affine.tolist()}


def _position_entry(record: FileRecord) -> dict[str, Any]:
    grid = record.grid
    return {
        "spacing_mm": [float(s) for s in grid.spacing_mm],
        "orientation": grid.orientation,
        "units": record.units,
    }


def _versions() -> dict[str, str | None]:
    """Of Python, of nfops and of what it read and computed with: large libraries only where they were imported."""
    used = ("numpy", "nibabel", *(name for name in ("SimpleITK", "torch") if name in sys.modules))
    found = {"python": platform.python_version(), "nfops": __version__}
    runtime = sys.modules.get("onnxruntime")  # a module of several distributions
    known = found if runtime is None else found | {"onnxruntime": str(runtime.__version__)}
    return known | {name: _version(name) for name in used}


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None
