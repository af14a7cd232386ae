"""One scan or many: what `apply` and `resample` do around the computing, and the bookkeeping of a batch."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nfops.cli.dicom_output import DicomOutput, check_dicom_outputs, remove_dicom, write_dicom
from nfops.cli.jobs import Job, writes_picture
from nfops.cli.options import Session
from nfops.cli.progress import say
from nfops.errors import InputError

if TYPE_CHECKING:
    from nfops.image import Image
    from nfops.io import PipedScan, Reading, SaveOptions
    from nfops.io.inputs import Scan
    from nfops.io.sidecar import Provenance
    from nfops.rendering import Rendering

BATCH_FAILED = 8
STOPPED = 75


def read_as(reading: "Reading", options: Mapping[str, Any]) -> "Reading":
    """A reading with what --pixel-mm, --series, --untilt, --resample-uniform and --xform say."""
    from nfops.io import PictureFrame

    picture, pixel_mm = reading.picture or PictureFrame(), options["pixel_mm"]
    if pixel_mm is not None:
        picture = replace(picture, pixel_mm=pixel_mm, pixel_mm_is_override=True)
    words = {name: options[name] for name in ("series", "untilt", "resample_uniform", "xform") if name in options}
    return replace(reading, picture=picture, **words)


def command_line() -> tuple[str, ...]:
    """`nfops` and the words after it, as `main.invoke` was given them."""
    return tuple(click.get_current_context().find_root().obj or ("nfops",))


def make_folder(folder: Path) -> None:
    """Make the folder of `--out-dir`, and those above it, where they are missing."""
    from nfops.errors import OutputError

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(folder, f"cannot be made: {error.strerror}") from error


def check_folder(folder: Path) -> None:
    """As far as can be said without making it: `make_folder` will not fail for a file that is in the way."""
    from nfops.errors import OutputError

    there = next(path for path in (folder, *folder.absolute().parents) if os.path.lexists(path))
    if not os.path.isdir(there):  # noqa: PTH112 - Path.is_dir may raise
        raise OutputError(there, "is a file, expected a directory")


def check_outputs(jobs: Sequence[Job], session: Session, dicom: DicomOutput | None = None) -> None:
    """Refuse, before anything is computed, outputs and sidecars that exist or cannot be written."""
    from nfops.io import refuse_existing
    from nfops.io.formats import output_format
    from nfops.io.inputs import paths_of, refuse_inside
    from nfops.io.sidecar import refuse_foreign_sidecar, sidecar_path

    jobs = [job for job in jobs if not job.is_sent]
    if dicom is not None:
        check_dicom_outputs(jobs, dicom, session.force)
    else:
        for job in jobs:
            output_format(job.output)
    is_file = dicom is None or dicom.labels is not None
    files = [job.output for job in jobs if is_file]
    outputs = [*files, *(sidecar_path(job.output) for job in jobs)]
    for job in jobs:
        refuse_foreign_sidecar(job.output)
    for job in jobs:
        refuse_inside(job.output, paths_of(job.source))
    refuse_existing(outputs, [path for job in jobs for path in paths_of(job.source)], session.force)


def chosen_volume(image: "Image", number: int | None, where: object) -> "Image":
    """One volume of a 4-D image, the image itself where none is chosen.

    Raises:
        UsageError: the image is not 4-D, or has no such volume.
    """
    from nfops.errors import UsageError
    from nfops.image import Image

    if number is None:
        return image
    if image.header.ndim != 4 or number >= image.channels:
        what = f"{where} has {image.channels} volumes" if image.header.ndim == 4 else f"{where} is not 4-D"
        raise UsageError("--volume", what, "they are counted from 0")
    header = replace(image.header, ndim=3, time_step=(0.0, 0))
    return Image(image.values[number : number + 1], image.grid, header)


def stamps(scan: "Scan | PipedScan") -> tuple[tuple[int, int], ...]:
    """Size and time of change of an input's files: what is read twice must be the same both times (C55).

    () where they cannot be asked: reading them will say why.
    """
    from nfops.io.inputs import paths_of

    try:
        return tuple((status.st_size, status.st_mtime_ns) for status in (path.stat() for path in paths_of(scan)))
    except OSError:
        return ()


def for_picture(drawn: "Rendering", axes: tuple[str, str, str] | None) -> "Rendering":
    """A slice turned to how a picture shows it: along the recipe's picture axes, or by convention."""
    from nfops.io.picture_frame import looked_at_from
    from nfops.rendering import Rendering

    image = drawn.image()
    if axes is None and (image.header.format == "picture" or not image.header.is_oriented):
        return drawn  # nobody knows its directions: it stays as it is stored
    turned = image.reoriented(axes or looked_at_from(image.grid))
    return Rendering(turned.grid, turned.header, turned.channels, lambda: iter([turned.values]))


def on_reference(drawn: "Rendering", reference: "Image | None") -> "Rendering":
    """With the words of a --like image about its position, which the output now shares."""
    if reference is None:
        return drawn
    said = reference.header
    header = replace(
        drawn.header,
        xform_code=said.xform_code,
        is_oriented=said.is_oriented,
        slice_axis=said.slice_axis,
        unit_mm=said.unit_mm,
    )
    if said.is_oriented != drawn.header.is_oriented:
        which = "scan" if said.is_oriented else "--like image"
        what = f"the {which} does not say where in the body it lies: its place beside the other is a guess"
        header = replace(header, warnings=(*header.warnings, what))
    return replace(drawn, header=header)


def write_result(
    session: Session,
    job: Job,
    drawn: "Rendering",
    options: "SaveOptions",
    record: dict[str, Any],
    dicom: DicomOutput | None = None,
) -> dict[str, Any]:
    """Write an output and its sidecar, whole or not at all; what `--json` says of it.

    record: fields of `Provenance` that only the command knows, with `source_grid`, `started` and the input's
    `stamps`; `picture_axes` where a recipe says how pictures lie in the body. dicom: write DICOM, not what the
    output's name says.
    """
    axes = record.pop("picture_axes", None)
    if dicom is not None:
        provenance = _write_dicom_result(session, job, drawn, options, record, dicom)
    else:
        drawn = for_picture(drawn, axes) if writes_picture(job) else drawn
        provenance = _write_file(session, job, drawn, options, record)
    grid = drawn.grid
    quality = {} if provenance.quality is None else {"quality": dict(provenance.quality)}
    return {
        "input": str(job.source),
        "output": str(job.output),
        "shape": list(grid.shape),
        "spacing_mm": grid.spacing_mm,
        "affine": grid.affine,
        "sha256": provenance.output.sha256,
        "seconds": round((provenance.ended - provenance.started).total_seconds(), 3),
        "warnings": list(provenance.warnings),
        **quality,
    }


def _write_file(
    session: Session, job: Job, drawn: "Rendering", options: "SaveOptions", record: dict[str, Any]
) -> "Provenance":
    from nfops.io import publishing_together, save_slabs

    with publishing_together(options.force) as together:
        options = replace(options, together=together)
        warned = save_slabs(
            job.output, drawn.grid, drawn.header, drawn.in_file_order(), options, channels=drawn.channels
        )
        for warning in warned:
            say(session, f"{job.output}: warning: {warning}")
        return _write_provenance(job, drawn, (*drawn.header.warnings, *warned), options, record)


def _write_dicom_result(
    session: Session,
    job: Job,
    drawn: "Rendering",
    options: "SaveOptions",
    record: dict[str, Any],
    dicom: DicomOutput,
) -> "Provenance":
    is_new = not os.path.lexists(job.output)
    warned = write_dicom(job, drawn, dicom, options.force)
    for warning in warned:
        say(session, f"{job.output}: warning: {warning}")
    try:
        return _write_provenance(job, drawn, (*drawn.header.warnings, *warned), options, record)
    except BaseException:
        if is_new:  # an output without its sidecar would be half a result; one that replaced another is all there is
            remove_dicom(job.output)
        raise


def _write_provenance(
    job: Job, drawn: "Rendering", warnings: tuple[str, ...], options: "SaveOptions", record: dict[str, Any]
) -> "Provenance":
    from nfops.io.digest import sha256_of
    from nfops.io.sidecar import write_sidecar

    together = options.together
    written = job.output if together is None else together.waiting[job.output]
    provenance = provenance_of(job, drawn, sha256_of(written), warnings, record)
    write_sidecar(job.output, provenance, options.force, together)
    return provenance


def provenance_of(
    job: Job, drawn: "Rendering", sha256: str, warnings: tuple[str, ...], record: dict[str, Any]
) -> "Provenance":
    """How an output came about; sha256: of what was written. record: as for `write_result`.

    Raises:
        InputError: the input is not what it was when it was read (C55).
    """
    from nfops.io.sidecar import FileRecord, Provenance

    known = {key: value for key, value in record.items() if key not in ("source_grid", "units", "stamps")}
    if record["stamps"] != stamps(job.source):
        raise InputError(job.source, "changed while it was read", "run again when nothing writes to it any more")
    return Provenance(
        inputs=(str(job.source),),
        sources=(FileRecord.of(job.source, record["source_grid"], files=drawn.header.files),),
        output=FileRecord(job.output.name, sha256, drawn.grid, record.get("units", "")),
        ended=datetime.now(UTC),
        warnings=warnings,
        **known,
    )
