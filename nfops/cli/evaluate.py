"""`nfops evaluate`: what a recipe reaches on scans whose truth is known."""

import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click

from nfops.cli.options import Session, bundle_option, data_option, recipe_option, session_options, set_option
from nfops.cli.places import find_places
from nfops.cli.progress import show_result, shown_progress

EXAMPLES = [
    ("The bundle on the validation rows", "nfops evaluate -r knee_pd2t2.yaml --data /data --out-dir evaluation"),
    (
        "Everything refitted in five folds by patient",
        "nfops evaluate -r knee_pd2t2.yaml --data /data --folds 5 --out-dir evaluation_folds",
    ),
    (
        "Which operator? One table",
        "nfops evaluate -r knee_pd2t2.yaml --data /data --folds 5 --operators all --out-dir evaluation_operators",
    ),
    (
        "Can a class be read off the latents?",
        "nfops evaluate -r knee_pd2t2.yaml --data /data --probe labels.csv --out-dir evaluation_probe",
    ),
]


@click.command()
@recipe_option
@data_option
@bundle_option
@set_option
@click.option(
    "--split",
    "splits",
    multiple=True,
    metavar="NAME",
    help="Evaluate the rows of this split, not those of data.validation; may be repeated.",
)
@click.option(
    "--folds",
    default="",
    metavar="N|patient",
    help="Refit everything in N folds over the patients of training and validation rows, or leaving out one at a time.",
)
@click.option(
    "--operators",
    default="",
    metavar="NAME,NAME|all",
    help="Fit these operators too in each fold: names of the recipe's evaluate.operators, others with their defaults.",
)
@click.option(
    "--out-dir", required=True, type=click.Path(path_type=Path, file_okay=False), help="Folder of the report, made new."
)
@click.option(
    "--no-ridge", is_flag=True, help="Leave out the ridge baselines, whose fitting takes about as long as a recipe's."
)
@click.option(
    "--probe",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="CSV",
    help="Classify the source's latents: a table with the columns id and label, perhaps split.",
)
@click.option(
    "--probe-column", default="label", show_default=True, metavar="NAME", help="Column of the classes in that table."
)
@session_options
def command(
    session: Session,
    recipe: str,
    data: Path | None,
    bundle: Path | None,
    settings: tuple[str, ...],
    splits: tuple[str, ...],
    folds: str,
    operators: str,
    out_dir: Path,
    no_ridge: bool,
    probe: Path | None,
    probe_column: str,
) -> None:
    """Evaluate a recipe on scans whose truth is known.

    The bundle on a split (data.validation, unless --split names another), or with --folds everything refitted
    without the patients that are evaluated; the bundle stays as it is. A split that was trained on is refused unless
    --split names it.

    At each of evaluate.resolutions the prediction is compared with the truth, beside its ceilings (source and target
    encoded and decoded) and its baselines (mean image, ridge on functional PCA), with 95 % intervals by bootstrap over
    patients. OUT_DIR gets summary.json, cases.csv, figures and a report.html that needs no other file.
    """
    places = find_places(recipe, settings, data, bundle)
    from nfops.workflows.evaluate import Request, evaluate, plan_evaluation

    request = Request(splits, folds, not no_ridge, probe, probe_column, operators)
    if session.dry_run:
        plan = plan_evaluation(places.recipe, places.data, places.bundle, out_dir, request, force=session.force)
        show_result(session, plan, [f"{key}: {value}" for key, value in plan.items()])
        return
    with shown_progress(session) as on_step:
        summary = evaluate(
            places.recipe,
            places.data,
            places.bundle,
            out_dir,
            request,
            device=session.device,
            force=session.force,
            on_step=on_step,
        )
    show_result(session, {"out": str(out_dir), **summary}, _lines(summary, out_dir))


def _lines(summary: Mapping[str, Any], out_dir: Path) -> Iterator[str]:
    """A compact table: result, ceiling, baselines, each metric with its interval; then the resolutions."""
    from nfops.report.tables import tables
    from nfops.report.words import what_was_evaluated

    yield f"{summary['name']}: {what_was_evaluated(summary)}"
    for warning in summary["warnings"]:
        yield f"warning: {warning}"
    for table in tables(summary):
        if table.title == "Patients":
            continue
        yield ""
        yield from _aligned([table.heads, *table.rows])
        if table.title in ("Results", "Operators"):
            yield from textwrap.wrap(table.caption, 100)
    yield ""
    yield f"{out_dir / 'report.html'}: figures, methods, patients"


def _aligned(rows: list[tuple[str, ...]]) -> Iterator[str]:
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    for first, *others in rows:
        rest = "  ".join(cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True))
        yield f"{first.ljust(widths[0])}  {rest}".rstrip()
