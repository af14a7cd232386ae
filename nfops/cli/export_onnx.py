"""`nfops export-onnx`: what `apply` needs of a bundle as ONNX graphs."""

from pathlib import Path

import click

from nfops.cli.info import UNASKED
from nfops.cli.options import (
    Session,
    bundle_option,
    dry_run_option,
    force_option,
    nthreads_option,
    progress_option,
    recipe_option,
    session_with,
)
from nfops.cli.places import Places, find_places
from nfops.cli.progress import show_result, shown_progress

EXAMPLES = [
    ("Into the bundle, compared with torch on two scans", "nfops export-onnx -r r.yaml t1_a.nii.gz t1_b.nii.gz"),
    ("A shipped bundle, with graphs, as another one", "nfops export-onnx -r brain_t1t2 --out brain_onnx"),
    ("For a small download", "nfops export-onnx -r r.yaml --storage float16 --out small"),
]

PARTS = ("encode_step", "operator", "decode", "apply")


@click.command()
@click.argument("scans", nargs=-1, type=click.Path(path_type=Path), metavar="[SCAN]...")
@recipe_option
@bundle_option
@click.option("-o", "--out", type=click.Path(path_type=Path), metavar="DIR", help="Another bundle, with the graphs.")
@click.option(
    "--graph",
    "parts",
    type=click.Choice(PARTS),
    multiple=True,
    help="Only this one; may be repeated. apply: all of it in one, for other programs.",
)
@click.option(
    "--storage",
    type=click.Choice(("float32", "float16")),
    default="float32",
    show_default=True,
    help="Of the weights; all is computed in float32.",
)
@session_with(dry_run_option, force_option, nthreads_option, progress_option)
def command(
    session: Session,
    scans: tuple[Path, ...],
    recipe: str,
    bundle: Path | None,
    out: Path | None,
    parts: tuple[str, ...],
    storage: str,
) -> None:
    """Write what apply needs of a trained bundle as ONNX graphs.

    encode_step.onnx (one step of the solver: loss, gradient, curvature), operator.onnx and decode.onnx go into the
    bundle, or with it to --out; of an operator on fields, what NumPy does not know. Then `nfops apply` needs no torch,
    and other programs can run them with any ONNX runtime: nfops-bundle(5) says what goes in and comes out. For those,
    --graph apply adds all of a chain of latents in one graph, the solver's loop too (examples/apply_onnx.py).

    Each graph is compared with torch on random input and on SCANs (without any, on slices that the source field
    draws), and the image in the end too. A part that differs by more than 0.0001 (float16: 0.02) of the largest value
    is not published, nor one that changes the image by as much (0.01 where fields are encoded step by step). The
    figures are in the manifest.
    """
    places = find_places(recipe, bundle=bundle)
    from nfops.workflows.export_onnx import ExportSettings, export_onnx, plan_export

    _refuse_shipped(places, out)
    settings = ExportSettings(tuple(f"{part}.onnx" for part in parts), storage)
    if session.dry_run:
        plan = plan_export(places.bundle, settings, out=out, force=session.force)
        show_result(session, plan, [f"{key}: {value}" for key, value in plan.items()])
        return
    from nfops.io import load_image

    images = [load_image(scan, places.reading(UNASKED)) for scan in scans]
    with shown_progress(session) as on_step:
        report = export_onnx(places.bundle, settings, images, out=out, force=session.force, on_step=on_step)
    lines = [f"{report.bundle}:"]
    for name, facts in report.graphs.items():
        worst = ", ".join(f"{kind} {one['relative']:.1g}" for kind, one in facts["parity"].items())
        lines.append(f"  {name:<17} {report.sizes[name] / 1e6:.2f} MB, from torch: {worst} ({facts['real_input']})")
    show_result(session, vars(report), lines)


def _refuse_shipped(places: Places, out: Path | None) -> None:
    from nfops.errors import UsageError
    from nfops.shipped import shipped_folder

    if out is None and shipped_folder().resolve() in places.bundle.resolve().parents:
        raise UsageError("--out", f"the shipped bundle {places.bundle.name} stays as it is", "name another folder")
