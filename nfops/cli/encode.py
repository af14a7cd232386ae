"""`nfops encode`: turn a cohort into tables of latents."""

from pathlib import Path

import click

from nfops.cli.options import Session, bundle_option, data_option, recipe_option, session_options, set_option
from nfops.cli.places import find_places
from nfops.cli.progress import show_result, shown_progress

EXAMPLES = [
    ("After fit-inr", "nfops encode --recipe knee_pd2t2.yaml --data /data"),
    ("On a GPU", "nfops encode --recipe knee_pd2t2.yaml --data /data --device cuda"),
]


@click.command()
@recipe_option
@data_option
@bundle_option
@set_option
@session_options
def command(session: Session, recipe: str, data: Path | None, bundle: Path | None, settings: tuple[str, ...]) -> None:
    """Turn a cohort of images into tables of latents.

    Every row of the recipe's table is encoded by the fields of its bundle, training rows also in the recipe's
    augmented copies. The tables go to BUNDLE.latents, beside the bundle.
    """
    places = find_places(recipe, settings, data, bundle, to_train=True)
    from nfops.workflows.encode import encode, plan_encode

    if session.dry_run:
        plan = plan_encode(places.recipe, places.data, places.bundle, device=session.device, force=session.force)
        show_result(session, plan, [f"{key}: {value}" for key, value in plan.items()])
        return
    with shown_progress(session) as on_step:
        report = encode(
            places.recipe, places.data, places.bundle, device=session.device, force=session.force, on_step=on_step
        )
    each = " a side" if len(report.residual) > 1 else ""
    lines = [f"{report.latents}: {report.rows} latents{each} of {report.scans} scans"]
    show_result(session, vars(report), lines)
