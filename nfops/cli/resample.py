"""`nfops resample`: read a scan on another grid."""

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nfops.cli.batch import plan_only, run_jobs
from nfops.cli.dicom_output import DicomOutput, refuse_as_dicom
from nfops.cli.jobs import Job, writes_picture
from nfops.cli.options import (
    NUMBER,
    SOURCE,
    Session,
    bundle_option,
    dicom_option,
    dtype_option,
    grid_options,
    pixel_mm_option,
    scan_options,
    session_options,
    xform_option,
)
from nfops.cli.pipes import DASH, check_pipes, received, write_out
from nfops.cli.progress import say
from nfops.cli.scans import (
    check_outputs,
    chosen_volume,
    command_line,
    on_reference,
    read_as,
    stamps,
)
from nfops.errors import InputError

if TYPE_CHECKING:
    from nfops.grid import Grid
    from nfops.image import Image
    from nfops.io import PipedScan, Reading
    from nfops.io.inputs import Scan
    from nfops.rendering import Rendering
    from nfops.workflows.resample import FieldReader

EXAMPLES = [
    ("Cubes of 1 mm", "nfops resample scan.nii.gz --out iso.nii.gz --spacing 1x1x1"),
    (
        "Labels on the grid of a scan",
        "nfops resample labels.nii.gz --out on_scan.nii.gz --like scan.nii.gz --method nearest",
    ),
    ("Another format, every value and position kept", "nfops resample scan.nii.gz --out scan.nii"),
    ("A CT series upright and even, as a new series", "nfops resample dicom/ --out upright --untilt --dicom"),
    ("Through a pipe, as NIfTI", "nfops resample scan.mgz --out - --spacing 1 | nfops info -"),
    ("A signal (CSV) of 140 samples at twice its rate", "nfops resample beat.csv --out fine.csv --shape 280"),
]


@click.command()
@click.argument("source", metavar="IN", type=SOURCE)
@click.option(
    "-o",
    "--out",
    required=True,
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Output; its suffix is its format.",
)
@scan_options
@grid_options
@click.option(
    "--method",
    type=click.Choice(["cubic", "linear", "nearest", "field"]),
    default="cubic",
    show_default=True,
    help="cubic and linear average over the output's voxels where these are coarser; nearest keeps labels; field reads "
    "the scan through the source field of --recipe.",
)
@click.option("-r", "--recipe", metavar="NAME|FILE", help="The recipe whose source field --method field reads.")
@bundle_option
@click.option("--fill", type=NUMBER, help="Value outside the scan's field of view.  [default: 0; for CT the smallest]")
@click.option("--no-antialias", is_flag=True, help="Sample coarser voxels at their centres, average nothing.")
@dtype_option
@dicom_option
@pixel_mm_option
@xform_option
@session_options
def command(session: Session, source: Path, out: Path, method: str, **options: Any) -> int:
    """Resample an image to another grid.

    Without a grid option the format is converted and no value and no position changes. Positions are exact: --shape
    keeps the field of view from edge to edge, --spacing keeps the spacing exactly and the centre, --like takes the
    grid of another image. '-' is standard input or output, as NIfTI.
    """
    from nfops.io import Reading

    check_pipes(session, [source], {**options, "out": out})
    _check_options(session, method, options)
    field = _open_field(session, options) if method == "field" else None
    reading = field.reading if field else read_as(Reading(), options)
    job = Job(received() if str(source) == DASH else source, out)
    _check_shape(job.source, reading, options["shape"])
    check_outputs([job], session, _dicom_output(method, options))
    if session.dry_run:

        def check(job: Job, described: dict[str, Any]) -> None:
            if options["as_dicom"]:
                channels = described["channels"] if options["volume"] is None else 1
                refuse_as_dicom(job.source, described["kind"], channels)

        return plan_only(session, [job], reading, check, is_batch=False)

    def work(job: Job) -> dict[str, Any]:
        return _resample_one(session, job, method, field, reading, options)

    return run_jobs(session, [job], work, is_batch=False)


STRAIGHTENED = {
    "untilt": "Put on a rectangular grid (linear) if the gantry was tilted",
    "resample_uniform": "Put on even slices (linear) if they were uneven",
}
"""What a derived series says of options that change its grid while it is read."""


@dataclass(frozen=True, eq=False)
class _Field:
    """What --method field reads through, how its recipe reads scans from files, and how it is recorded."""

    reader: "FieldReader"
    reading: "Reading"
    recipe: dict[str, str]


def _check_options(session: Session, method: str, options: dict[str, Any]) -> None:
    """Refuse what would otherwise be passed over in silence."""
    from nfops.errors import DeviceError, UsageError

    if method == "field":
        if options["recipe"] is None:
            what = "reads the scan through a recipe's source field"
            raise UsageError("--method field", what, "say which with --recipe")
        return
    for name in ("recipe", "bundle"):
        if options[name] is not None:
            raise UsageError(f"--{name}", f"is not used by --method {method}", "did you mean --method field?")
    if session.device.startswith("cuda"):
        raise DeviceError("--device", f"--method {method} computes on the CPU only", "use --device cpu or auto")


def _check_shape(source: "Scan | PipedScan", reading: "Reading", shape: tuple[int, ...] | None) -> None:
    """One number is the length of a signal, and of nothing else."""
    from nfops.errors import UsageError
    from nfops.io import describe_image

    if shape is None or len(shape) > 1:
        return
    found = describe_image(source, reading)["shape"]
    if sorted(found)[1] > 1:
        what = f"expected 2 or 3 whole numbers for an image of {'x'.join(map(str, found))}, got {shape[0]}"
        raise UsageError("--shape", what, "one is enough for signals only")


def _open_field(session: Session, options: dict[str, Any]) -> _Field:
    from nfops.cli.places import find_places
    from nfops.errors import BundleError
    from nfops.workflows.resample import open_reader

    places = find_places(options["recipe"], bundle=options["bundle"])
    if not places.bundle.exists():
        raise BundleError(places.recipe.name, f"no trained bundle at {places.bundle}", places.how_to_train())
    return _Field(open_reader(places.bundle, session.device), places.reading(options), places.recorded())


def _resample_one(
    session: Session,
    job: Job,
    method: str,
    field: _Field | None,
    reading: "Reading",
    options: dict[str, Any],
) -> dict[str, Any]:
    from nfops.io import SaveOptions, load_image
    from nfops.resampling import value_beyond

    started = datetime.now(UTC)
    seen = stamps(job.source)
    image = chosen_volume(load_image(job.source, reading), options["volume"], job.source)
    if options["as_dicom"]:
        refuse_as_dicom(job.source, image.header.format, image.channels)
    _refuse_missing(image, job)
    like = None if options["like"] is None else load_image(options["like"], replace(reading, series=None, modality=()))
    grid = _grid(image, options, like)
    record: dict[str, Any] = {"command": command_line(), "started": started, "stamps": seen, "source_grid": image.grid}
    if field is None:
        fill = options["fill"] if options["fill"] is not None else value_beyond(image)
        drawn = _interpolated(image, grid, method, fill, is_averaging=not options["no_antialias"])
        done = "copy" if grid.same_as(image.grid, 0) else method
        record["recipe"] = {"method": done, "fill": fill, "antialias": not options["no_antialias"]}
    else:
        drawn = _through_field(job, image, grid, field)
        record["recipe"] = {"method": method, **field.recipe}
        record |= {
            "bundle_sha256": field.reader.bundle.digest,
            "device": field.reader.engine.device,
            "engine": field.reader.engine.name,
            "seed": field.reader.bundle.recipe.get("seed"),
        }
    drawn = on_reference(drawn, like)
    for warning in drawn.header.warnings:
        say(session, f"{job.source}: warning: {warning}")
    dtype = options["dtype"]
    if dtype == "auto" and method != "field":
        dtype = _exact_dtype(job, image, is_exact=method == "nearest" or grid.same_as(image.grid, 0))
    return write_out(
        session, job, drawn, SaveOptions(dtype=dtype, force=session.force), record, _dicom_output(method, options)
    )


def _refuse_missing(image: "Image", job: Job) -> None:
    """One voxel that is no number spreads along whole lines, and no output holds any: better said of the input."""
    if image.missing:
        what = f"{image.missing} of {image.values.size} voxels are NaN or infinite"
        raise InputError(job.source, what, "nfops writes numbers only: replace them first")


def _dicom_output(method: str, options: dict[str, Any]) -> DicomOutput | None:
    if not options["as_dicom"]:
        return None
    how = (
        f"Resampled by nfops ({method})"
        if any(options[name] for name in ("shape", "spacing", "like"))
        else "Copied by nfops"
    )
    grids = [said for name, said in STRAIGHTENED.items() if options[name]]
    return DicomOutput("nfops resample", ", ".join([*grids, how]), method, True)


def _grid(image: "Image", options: dict[str, Any], like: "Image | None") -> "Grid":
    from nfops.resampling import choose_grid

    spacing = options["spacing"]
    if spacing is not None and len(spacing) == 1:
        dims = 3 if image.grid.signal_axis is None else 1
        spacing = spacing * min(image.header.ndim, dims)
    return choose_grid(image.grid, options["shape"], spacing, like.grid if like else None, image.header.slice_axis)


def _interpolated(image: "Image", grid: "Grid", method: str, fill: float, *, is_averaging: bool) -> "Rendering":
    from nfops.rendering import Rendering
    from nfops.resampling import looks_like_labels, resample

    result = resample(image, grid, method, fill, is_averaging=is_averaging)
    header = result.header
    if method != "nearest" and not grid.same_as(image.grid, 0) and looks_like_labels(image):
        what = f"this looks like a label map: {method} makes values between its labels, --method nearest does not"
        header = replace(header, warnings=(*header.warnings, what))
    return Rendering(grid, header, result.channels, lambda: iter([result.values]))


def _through_field(job: Job, image: "Image", grid: "Grid", field: _Field) -> "Rendering":
    from nfops.workflows.resample import resample_through_field

    return resample_through_field(field.reader, image, grid, job.source)


def _exact_dtype(job: Job, image: "Image", *, is_exact: bool) -> str:
    """The stored type that changes no value: the input's own where values are kept as they are."""
    from nfops.errors import ResultError

    if not is_exact or image.header.is_scaled:
        return "auto"
    if (
        image.header.format != "picture" and writes_picture(job) and 1 in image.grid.shape
    ):  # else: not one picture at all
        values = image.values
        low, high = float(values.min()), float(values.max())  # NaN where any value is NaN, and then refused
        if not (low >= 0 and high <= 65535 and (values % 1 == 0).all()):
            limits = f"{low:g} to {high:g}"
            what = f"a picture keeps whole numbers from 0 to 65535, the values are from {limits}"
            raise ResultError(job.output, what, "--dtype uint8 rounds and cuts them")
        return "uint8" if high <= 255 else "uint16"
    if image.values.dtype.itemsize == 8 and image.header.file_dtype == "float64":
        return "float64"
    return "same" if image.header.file_dtype.startswith(("int", "uint")) else "auto"
