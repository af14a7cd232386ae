"""`nfops fit-inr`: fit the fields of a recipe to a cohort."""

from pathlib import Path

import click

from nfops.cli.options import Session, bundle_option, data_option, recipe_option, session_options, set_option
from nfops.cli.places import find_places
from nfops.cli.progress import show_result, shown_progress

EXAMPLES = [
    ("Fit source and target field of your own recipe", "nfops fit-inr --recipe knee_pd2t2.yaml --data /data"),
    ("With another latent size", "nfops fit-inr -r knee_pd2t2.yaml --set source.field.latent=128"),
]


def refuse_cuda(session: Session) -> None:
    """The fields that there are (functional PCA) are fitted on the CPU: a GPU asked for would not be used."""
    from nfops.errors import DeviceError

    if session.device.startswith("cuda"):
        raise DeviceError("--device", "fields are fitted on the CPU", "use --device cpu or auto")


@click.command()
@recipe_option
@data_option
@bundle_option
@set_option
@session_options
def command(session: Session, recipe: str, data: Path | None, bundle: Path | None, settings: tuple[str, ...]) -> None:
    """Fit the neural fields of a recipe to a cohort.

    Source and target each get their own field, fitted to the training rows of the recipe's table. The result is a
    bundle without an operator: `nfops encode` and `nfops train-operator` come next.
    """
    refuse_cuda(session)
    places = find_places(recipe, settings, data, bundle, to_train=True)
    from nfops.workflows.fit_inr import fit_inr, plan_fit

    if session.dry_run:
        plan = plan_fit(places.recipe, places.data, places.bundle, force=session.force)
        show_result(session, plan, [f"{key}: {value}" for key, value in plan.items()])
        return
    with shown_progress(session) as on_step:
        report = fit_inr(places.recipe, places.data, places.bundle, force=session.force, on_step=on_step)
    explained = ", ".join(f"{side} {100 * part:.1f} %" for side, part in report.explained.items())
    lines = [f"{report.bundle}: fields of {report.scans} scans, {report.patients} patients; variance held: {explained}"]
    show_result(session, vars(report), lines)
