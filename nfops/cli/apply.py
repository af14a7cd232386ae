"""`nfops apply`: encode -> operator -> decode on new scans."""

import os
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nfops.cli.batch import plan_only, run_jobs
from nfops.cli.dicom_output import DicomOutput, refuse_as_dicom
from nfops.cli.jobs import Job, writes_picture
from nfops.cli.options import (
    Session,
    batch_option,
    bundle_option,
    dicom_option,
    dtype_option,
    engine_option,
    grid_options,
    null_option,
    pixel_mm_option,
    recipe_option,
    scan_options,
    session_options,
    shard_option,
    xform_option,
)
from nfops.cli.pipes import DASH, check_pipes, received, write_out
from nfops.cli.places import Places, find_places
from nfops.cli.progress import say
from nfops.cli.scans import (
    check_folder,
    check_outputs,
    chosen_volume,
    command_line,
    make_folder,
    on_reference,
    stamps,
)

if TYPE_CHECKING:
    from nfops.codec_spec import CodecSpec
    from nfops.io import Reading, SaveOptions
    from nfops.workflows.apply import GridRequest, Translator

EXAMPLES = [
    ("T2 from a T1 volume, slice by slice, on its own grid", "nfops apply -r brain_t1t2 t1.nii.gz --out t2.nii.gz"),
    ("At 256 x 256 in plane", "nfops apply -r knee_pd2t2.yaml scan.nii.gz --out t2.nii.gz --shape 256x256"),
    ("Every scan that find lists", "find scans -name '*.nii.gz' | nfops apply -r r.yaml --batch - --out-dir t2"),
    ("A DICOM folder to a derived series", "nfops apply -r brain_t1t2 t1_dicom/ --out t2_dicom --dicom"),
    ("From a pipe", "zcat t1.nii.gz | nfops apply -r brain_t1t2 - --out t2.nii.gz"),
    (
        "One part of a Slurm array",
        'nfops apply -r r.yaml scans/ --out-dir t2 --shard "$SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_COUNT"',
    ),
]


@click.command()
@click.argument("inputs", nargs=-1, metavar="[IN]...")
@recipe_option
@bundle_option
@click.option("-o", "--out", type=click.Path(path_type=Path), metavar="FILE", help="Output; its suffix is its format.")
@click.option(
    "--out-dir",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="For many scans, each under its own name.",
)
@click.option("--mirror", is_flag=True, help="Keep the inputs' folders below --out-dir.")
@batch_option
@null_option
@shard_option
@scan_options
@grid_options
@click.option("--soft", is_flag=True, help="Probabilities, a channel for each label.")
@dtype_option
@dicom_option
@pixel_mm_option
@xform_option
@engine_option
@session_options
def command(session: Session, inputs: tuple[str, ...], recipe: str, bundle: Path | None, **options: Any) -> int:
    """Apply a trained operator to a scan.

    The scan is brought to the recipe's anatomical axes by its affine, encoded, moved to the target's latent space and
    decoded on the output grid, which is the scan's own unless --shape, --spacing or --like says otherwise. An operator
    on fields (oinr) takes the scan itself, on a working grid of its own. A 2-D recipe goes slice by slice. Each output
    gets a sidecar NAME.json that says how it was made and, as Quality, whether the scan looks unlike those of the
    training. '-' is standard input or output.
    """
    check_pipes(session, inputs, options)
    places = find_places(recipe, bundle=bundle)
    places.recipe.require_operator()
    reading = places.reading(options)
    translator = _translator(places, session, options["engine"], soft=options["soft"])
    dicom = _dicom_output(translator, soft=options["soft"]) if options["as_dicom"] else None
    jobs = _jobs(session, inputs, dicom, options | {"signals": places.recipe.geometry.dims == 1})
    request = grid_request(options, reading)
    _check_shape(translator, options["shape"])
    say(session, f"bundle {places.bundle}, {translator.engine.name} on {translator.engine.device}", verbosity=1)
    is_batch = options["out"] is None
    if is_batch:
        for folder in dict.fromkeys((options["out_dir"], *(job.output.parent for job in jobs))):
            (check_folder if session.dry_run else make_folder)(folder)
    # where there is no folder yet, nothing is in the way
    check_outputs([job for job in jobs if not is_batch or job.output.parent.is_dir()], session, dicom)
    if session.dry_run:
        from nfops.workflows.apply import check_described

        one = options["volume"] is not None or places.recipe.data.map == "t"

        def check(job: Job, described: dict[str, Any]) -> None:
            check_described(translator, described, takes_one=one, where=job.source)
            if dicom is not None:
                refuse_as_dicom(job.source, described["kind"], 1)

        return plan_only(session, jobs, reading, check, is_batch=is_batch)
    made_by = {
        "command": _command_without(jobs, inputs),
        "recipe": places.recorded(),
        "dicom": dicom,
        "map": places.recipe.data.map,
    }

    def work(job: Job) -> dict[str, Any]:
        return _apply_one(session, translator, job, request, reading, options | made_by)

    return run_jobs(session, jobs, work, is_batch=is_batch)


def _command_without(jobs: list[Job], inputs: tuple[str, ...]) -> tuple[str, ...]:
    """The command for sidecars; of many inputs none is named: each output's `Sources` has the one that counts."""
    return tuple(word for word in command_line() if len(jobs) == 1 or word not in inputs)


def _jobs(session: Session, inputs: tuple[str, ...], dicom: DicomOutput | None, options: dict[str, Any]) -> list[Job]:
    from nfops.errors import UsageError
    from nfops.io import list_inputs, plan_outputs, take_shard
    from nfops.io.inputs import Wanted
    from nfops.io.opening import first_bytes

    if DASH in inputs:
        return [Job(received(), options["out"])]
    batch = None if options["batch"] is None else str(options["batch"])
    for name in inputs:
        if name and not os.path.lexists(name):
            first_bytes(Path(name))  # says so, and which name is near: better now than after a long batch
    if options["null"] and batch is None:
        raise UsageError("--null", "is about the list of --batch", "say --batch - too")
    empty: list[Path] = []
    wanted = Wanted(options["signals"], options["series"] == "all", options["null"])
    everything = list_inputs(inputs, batch, sys.stdin, wanted=wanted, on_empty=empty.append)
    if empty:
        say(session, f"{len(empty)} folders without images were skipped")
    plan = plan_outputs(
        everything,
        options["out"],
        options["out_dir"],
        None if dicom is None else dicom.ending,
        is_mirrored=options["mirror"],
    )
    jobs = [Job(source, output) for source, output in take_shard(plan, options["shard"])]
    if options["shard"]:
        say(session, f"shard {'/'.join(map(str, options['shard']))}: {len(jobs)} of {len(plan)} scans")
    return jobs


def _translator(places: Places, session: Session, engine: str, *, soft: bool) -> "Translator":
    from nfops.errors import BundleError, UsageError
    from nfops.workflows.apply import open_translator

    if not (places.bundle / "manifest.json").is_file() and not places.bundle.is_file():
        raise BundleError(places.recipe.name, f"no trained bundle at {places.bundle}", places.how_to_train())
    translator = open_translator(places.bundle, session.device, engine)
    if soft and not translator.bundle.specs["target"].is_label:
        raise UsageError("--soft", f"recipe {places.recipe.name} predicts intensities, not labels")
    if translator.bundle.name != places.recipe.name:
        what = f"warning: the bundle was trained by recipe {translator.bundle.name}, not {places.recipe.name}"
        say(session, f"{places.bundle}: {what}")
    return translator


def _check_shape(translator: "Translator", shape: tuple[int, ...] | None) -> None:
    """One number is the length of a signal; better refused now than for each scan of a batch."""
    from nfops.errors import UsageError

    if shape is not None and len(shape) == 1 and translator.bundle.specs["source"].dims > 1:
        raise UsageError("--shape", f"expected 2 or 3 whole numbers, got {shape[0]}", "one is enough for signals only")


def grid_request(options: dict[str, Any], reading: "Reading") -> "GridRequest":
    """What --shape, --spacing and --like say: at most one of them."""
    from nfops.errors import UsageError
    from nfops.io import load_image
    from nfops.workflows.apply import GridRequest

    named = [f"--{name}" for name in ("shape", "spacing", "like") if options[name] is not None]
    if len(named) > 1:
        raise UsageError(" and ".join(named), "expected at most one of --shape, --spacing and --like")
    like = None if options["like"] is None else load_image(options["like"], replace(reading, series=None, modality=()))
    return GridRequest(options["shape"], options["spacing"], like)


def _apply_one(
    session: Session,
    translator: "Translator",
    job: Job,
    request: "GridRequest",
    reading: "Reading",
    options: dict[str, Any],
) -> dict[str, Any]:
    from nfops.io import load_image
    from nfops.workflows.apply import apply, apply_to_each

    started = datetime.now(UTC)
    seen = stamps(job.source)
    image = chosen_volume(load_image(job.source, reading), options["volume"], job.source)
    if options["dicom"] is not None:
        refuse_as_dicom(job.source, image.header.format, 1)
    translate = apply_to_each if options["map"] == "t" and image.header.ndim == 4 else apply
    drawn, _, quality = translate(translator, image, request, soft=options["soft"], where=job.source)
    drawn = on_reference(drawn, request.like)
    for warning in drawn.header.warnings:
        say(session, f"{job.source}: warning: {warning}")
    spec = translator.bundle.specs["target"]
    record = {
        "command": options["command"],
        "started": started,
        "stamps": seen,
        "source_grid": image.grid,
        "picture_axes": None if reading.picture is None else reading.picture.axes_3d,
        "recipe": options["recipe"] | {"residual": quality.source_residual},
        "bundle_sha256": translator.bundle.digest,
        "device": translator.engine.device,
        "engine": translator.engine.name,
        "seed": translator.bundle.recipe.get("seed"),
        "quality": quality.to_plain(),
        "units": "probability" if spec.is_label and options["soft"] else _units(spec),
    }
    return write_out(session, job, drawn, _save_options(session, job, spec, options), record, options["dicom"])


def _dicom_output(translator: "Translator", *, soft: bool) -> DicomOutput:
    bundle = translator.bundle
    spec = bundle.specs["target"]
    labels = {label: f"{bundle.name} {label}" for label in spec.labels or (1,) if label}
    if len(labels) == 1:
        labels = dict.fromkeys(labels, bundle.name)
    derivation = f"Predicted by nfops, recipe {bundle.name}, bundle {bundle.digest[:16]}"
    is_label = spec.is_label and not soft
    return DicomOutput(f"nfops {bundle.name}", derivation, bundle.digest, False, labels if is_label else None)


def _units(spec: "CodecSpec") -> str:
    if spec.is_label:
        return "label"
    return f"training range {spec.range_low[0]:g} to {spec.range_high[0]:g}"


def _save_options(session: Session, job: Job, spec: "CodecSpec", options: dict[str, Any]) -> "SaveOptions":
    """Labels are stored as whole numbers, one label in a picture as 0 and 255; intensities as float32."""
    from nfops.errors import UsageError
    from nfops.io import SaveOptions

    is_label = spec.is_label and not options["soft"]
    is_picture = writes_picture(job)
    highest = max(spec.labels, default=1) if is_label else max(spec.range_high)
    dtype = options["dtype"]
    if is_picture and not is_label and (options["soft"] or highest <= 1):
        raise UsageError(
            job.output, "a picture holds whole numbers, the result is from 0 to 1", "write .nii.gz instead"
        )
    if dtype == "auto" and is_label:
        dtype = "uint8" if min(spec.labels, default=0) >= 0 and highest <= 255 else "int32"
    if options["dtype"] == "auto" and is_picture and highest > 255:
        dtype = "uint16"
    one_label = spec.head == "sigmoid" or len([label for label in spec.labels if label != 0]) == 1
    return SaveOptions(dtype=dtype, force=session.force, mask_255=is_label and one_label)
